"""plan -> crop -> restore -> paste, for pictures and for streams of frames. Takes built objects, never names."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from restore_plugin.errors import InputError, NothingFound
from restore_plugin.regions import measured, regions_under, restore_frame
from restore_plugin.types import Box, Finder, Frame, Image, Luma, Mask, Pixels, Region, Restorer

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601, as cv2 and the finder's training
SCALES = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}

Item = TypeVar("Item")
Result = TypeVar("Result")


class ArrayFrame:
    """A Frame over a numpy picture, which it changes in place: RGB (H, W, 3) uint8, uint16 or float32 in [0, 1]."""

    pts: int | None = None
    time_base: Fraction | None = None

    def __init__(self, image: Image, index: int = 0) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype not in SCALES or 0 in image.shape:
            raise InputError(
                "expected RGB of shape (H, W, 3) in uint8, uint16 or float32, "
                f"got shape {image.shape} in {image.dtype}; convert it first"
            )
        self.image = image
        self.index = index
        self._scale = SCALES[image.dtype]

    @property
    def width(self) -> int:
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        return int(self.image.shape[0])

    def luma(self) -> Luma:
        return (self.image.astype(np.float32) @ LUMA) / np.float32(self._scale)

    def read_rgb(self, box: Box) -> Pixels:
        return self.image[box.slices].astype(np.float32) / np.float32(self._scale)

    def write_rgb(self, box: Box, rgb: Pixels, mask: Mask) -> None:
        values = rgb if self._scale == 1.0 else np.round(np.clip(rgb, 0, 1) * self._scale)
        self.image[box.slices][mask] = values[mask].astype(self.image.dtype)


class PictureRestorer:
    """What `restore_plugin.load` returns: call it with a picture, get the restored picture."""

    def __init__(self, restorer: Restorer, finder: Finder | None) -> None:
        self.restorer = restorer
        self.finder = finder

    def __call__(self, image: Image, where: npt.NDArray[np.bool_] | Sequence[Region] | None = None) -> Image:
        """Restore a picture; the input stays as it is.

        `image`: RGB (H, W, 3), uint8, uint16 or float32 in [0, 1]; the same shape and type come back. `where`: bool
        (H, W), True = restore; or regions with what the task needs to know (their block sizes, say); without it they
        are found. Raises NothingFound where there is nothing to restore, InputError for anything else unexpected.
        """
        frame = ArrayFrame(np.array(image, order="C"))
        regions = self.regions(frame, where)
        if not regions:
            raise NothingFound("nothing to restore was found in the picture; mark the place with a mask or regions")
        restore_frame(frame, regions, self.restorer)
        return frame.image

    def regions(self, frame: Frame, where: npt.NDArray[np.bool_] | Sequence[Region] | None = None) -> list[Region]:
        """The regions of a frame: given, measured under a mask, or found."""
        if where is not None and not isinstance(where, np.ndarray):
            return list(where)
        if self.finder is None:
            raise InputError("this method does not find by itself what to restore; pass a mask or regions")
        if where is None:
            return self.finder.find(frame.luma())
        if where.shape != (frame.height, frame.width) or where.dtype != bool:
            raise InputError(
                f"expected a bool mask of shape {(frame.height, frame.width)}, got {where.dtype} {where.shape}"
            )
        return measured(regions_under(where), frame.luma(), self.finder)


def ahead(items: Iterable[Item], count: int) -> Generator[Item, None, None]:
    """The same items, up to `count` made in advance by a thread; its error is raised here.

    Closing the iterator early ends the thread before it makes another item.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None, bool]] = queue.Queue(count)
    stop = threading.Event()

    def put(entry: tuple[Item | None, BaseException | None, bool]) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
            put((None, None, True))
        except BaseException as error:
            put((None, error, False))
        finally:
            if close := getattr(items, "close", None):
                close()

    thread = threading.Thread(target=run, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, end = ready.get()
            if error is not None:
                raise error
            if end:
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


def staged(items: Iterable[Item], work: Callable[[Item], Result], depth: int) -> Iterator[Result]:
    """`work` done on items that are read ahead."""
    source = ahead(items, depth)
    try:
        for item in source:
            yield work(item)
    finally:
        source.close()


def flow(
    items: Iterable[Item], work: Callable[[Item], Result], sink: Callable[[Result], object], depth: int = 4
) -> None:
    """Read, work and write side by side, at most `depth` items between two of them.

    An error in any of them ends the run and is raised; so does an exception in the calling thread (Ctrl-C).
    """
    done = ahead(staged(items, work, depth), depth)
    try:
        for result in done:
            sink(result)
    finally:
        done.close()
