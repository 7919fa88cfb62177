"""plan -> crop -> restore -> paste, for pictures and for streams of frames. Takes built objects, never names."""

from __future__ import annotations

import collections
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin.errors import InputError, NothingFound
from restore_plugin.regions import clip, measured, regions_under, restore_frame, whole
from restore_plugin.types import Box, Finder, Frame, Image, Luma, Mask, Pixels, Region, Restorer

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601, as cv2 and the finder's training
OVERSHOOT = 1.0  # of float pictures in [0, 1]: farther off they are in other units
SCALES = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}

Item = TypeVar("Item")
Result = TypeVar("Result")
Window: TypeAlias = tuple[Item, tuple[Pixels, ...]]


class ArrayFrame:
    """A Frame over a numpy picture, which it changes in place: RGB (H, W, 3) uint8, uint16 or float32 in [0, 1]."""

    turns = 0
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

    def overview(self, longest: int) -> Image:
        small = reduced(self.image, longest)
        return small if small.dtype == np.uint8 else np.round(small * (255 / self._scale)).astype(np.uint8)

    def read_rgb(self, box: Box, clipped: bool = True) -> Pixels:
        pixels = self.image[box.slices].astype(np.float32) / np.float32(self._scale)
        if self._scale != 1.0:
            return pixels
        pixels = np.nan_to_num(pixels, copy=False, posinf=1.0, neginf=0.0)
        return np.clip(pixels, 0, 1, out=pixels) if clipped else pixels

    def write_rgb(self, box: Box, rgb: Pixels, mask: Mask) -> None:
        values = rgb if self._scale == 1.0 else np.round(np.clip(rgb, 0, 1) * self._scale)
        self.image[box.slices][mask] = values[mask].astype(self.image.dtype)


def reduced(image: Image, longest: int) -> Image:
    """A picture with its longer side at most `longest` px; float32 stays float32."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), image.dtype)


def in_range(image: Image) -> bool:
    """Whether a float picture is in [0, 1], but for what filters overshoot by and pixels that are no number."""
    known = image[np.isfinite(image)]
    return known.size == 0 or (float(known.min()) >= -OVERSHOOT and float(known.max()) <= 1 + OVERSHOOT)


def as_pixels(image: Image) -> Pixels:
    """A picture as RGB float32 in [0, 1]."""
    return ArrayFrame(image).read_rgb(Box(0, 0, image.shape[1], image.shape[0]))


class PictureRestorer:
    """What `restore_plugin.load` returns: call it with a picture, get the restored picture.

    `needs_place`: it has to be told, or to find, where to restore; otherwise the whole picture is.
    """

    def __init__(self, restorer: Restorer, finder: Finder | None, needs_place: bool = True) -> None:
        self.restorer = restorer
        self.finder = finder
        self.needs_place = needs_place

    def __call__(
        self,
        image: Image,
        where: npt.NDArray[np.bool_] | Sequence[Region] | None = None,
        neighbours: Sequence[Image] = (),
        unseen: npt.NDArray[np.bool_] | None = None,
    ) -> Image:
        """Restore a picture; the input stays as it is.

        `image`: RGB (H, W, 3), uint8, uint16 or float32 in [0, 1]; the same shape and type come back. `where`: bool
        (H, W), True = restore; or Regions with what the task needs to know (their block sizes, say); without it they
        are found, or all is restored. `neighbours`: as many frames before as after, in order, of the same size, for
        methods that use them (`restorer.needs.context` of each). `unseen`: bool (H, W), pixels that nobody sees
        (fully transparent ones), from which a hole's fill takes nothing. Raises NothingFound where there is nothing to
        restore, InputError for anything else unexpected.
        """
        frame = ArrayFrame(np.array(image, order="C"))
        if frame.image.dtype == np.float32 and not in_range(frame.image):
            raise InputError("expected float32 in [0, 1], got values far outside of it; divide by 255 or 65535 first")
        beside = self.checked(neighbours, frame)
        if unseen is not None and (unseen.shape != image.shape[:2] or unseen.dtype != bool):
            raise InputError(f"expected a bool mask of shape {image.shape[:2]}, got {unseen.dtype} {unseen.shape}")
        regions = self.regions(frame, where)
        if not regions:
            raise NothingFound("nothing to restore was found in the picture; mark the place with a mask or regions")
        restore_frame(frame, regions, self.restorer, beside, unseen)
        return frame.image

    def checked(self, neighbours: Sequence[Image], frame: Frame) -> list[Pixels]:
        """As restorers take them; none for a method that uses none."""
        wanted = 2 * self.restorer.needs.context
        if not wanted or not neighbours:
            return []
        if len(neighbours) != wanted or any(each.shape != (frame.height, frame.width, 3) for each in neighbours):
            expected, got = (frame.height, frame.width, 3), ", ".join(str(each.shape) for each in neighbours)
            raise InputError(f"expected {wanted} neighbours of shape {expected}, got {len(neighbours)} of {got}")
        return [as_pixels(each) for each in neighbours]

    def regions(self, frame: Frame, where: npt.NDArray[np.bool_] | Sequence[Region] | None = None) -> list[Region]:
        """The regions of a frame: given, measured under a mask, found, or all of it."""
        if where is None:
            if self.finder is not None:
                return self.finder.find(frame)
            if self.needs_place:
                raise InputError("this method does not find by itself what to restore; pass a mask or regions")
            return whole(frame)
        if not isinstance(where, np.ndarray):
            if not isinstance(where, Sequence) or not all(isinstance(region, Region) for region in where):
                raise InputError(f"expected a bool mask (H, W) or a list of Regions, got {type(where).__name__}")
            for region in where:
                if clip(region, frame.width, frame.height) is None:
                    raise InputError(f"{region.box} has nothing of a picture of {frame.width}x{frame.height} px in it")
            return list(where)
        if where.shape != (frame.height, frame.width) or where.dtype != bool:
            raise InputError(
                f"expected a bool mask of shape {(frame.height, frame.width)}, got {where.dtype} {where.shape}"
            )
        regions = regions_under(where)
        return measured(regions, frame, self.finder) if self.finder else regions


def with_neighbours(items: Iterable[Item], read: Callable[[Item], Pixels], context: int) -> Iterator[Window[Item]]:
    """Every item with what `read` says of the `context` items before and after it.

    Beyond the ends come the items on the other side, mirrored: repeating the end itself would tell nothing new of it.
    `read` is called once for each, before the item is handed out: restoring it later does not change its neighbours'.
    """
    if context == 0:
        yield from ((item, ()) for item in items)
        return
    window: collections.deque[tuple[Item, Pixels]] = collections.deque()
    at = 0  # which of the window comes next
    for item in items:
        window.append((item, read(item)))
        if len(window) > at + context:
            yield _from_window(window, at, context)
            at += 1
            if at > context:
                window.popleft()
                at -= 1
    while at < len(window):
        yield _from_window(window, at, context)
        at += 1


def _from_window(window: collections.deque[tuple[Item, Pixels]], at: int, context: int) -> Window[Item]:
    last = len(window) - 1
    places = [abs(at + step) % max(1, 2 * last) for step in range(-context, context + 1) if step]
    places = [min(place, 2 * last - place) for place in places]
    return window[at][0], tuple(window[place][1] for place in places)


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


def staged(items: Iterable[Item], work: Callable[[Item], Result], depth: int, workers: int = 2) -> Iterator[Result]:
    """`work` done on items that are read ahead, on `workers` of them at once; results in the items' order.

    Two at once: while one waits for its network, which uses all cores, the other's arrays are made ready. Engines run
    one inference at a time.
    """
    source = ahead(items, depth)
    waiting: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(workers, "work") as pool:
        try:
            failure: Exception | None = None
            while True:
                try:
                    waiting.append(pool.submit(work, next(source)))
                except StopIteration:
                    break
                except Exception as error:  # of reading: what was read before still comes out
                    failure = error
                    break
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
            if failure is not None:
                raise failure
        finally:
            source.close()
            pool.shutdown(cancel_futures=True)


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
