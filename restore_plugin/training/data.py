"""Pictures for training: decoded once into memory, batches made in a background thread."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[Any]  # (H, W, 3) uint8 RGB
Batch = TypeVar("Batch")

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".pgm", ".ppm", ".tif", ".tiff"}
HOLD_OUT_EVERY = 20  # this file of every folder, by name, is for validation


def picture_files(folder: Path) -> list[Path]:
    """All pictures below `folder`, by name. Raises FileNotFoundError where there are none."""
    walk = os.walk(folder, followlinks=True)  # Path.rglob stops at links before Python 3.13
    files = sorted(Path(at, name) for at, _, names in walk for name in names if Path(name).suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"expected pictures below {folder}, found none; pass the folder that holds them")
    return files


def split(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(training, validation): every HOLD_OUT_EVERY-th file by name is held out."""
    return (
        [path for index, path in enumerate(files) if index % HOLD_OUT_EVERY],
        [path for index, path in enumerate(files) if index % HOLD_OUT_EVERY == 0],
    )


def read_rgb(path: Path, longest: int | None = None) -> Picture:
    """RGB uint8 (H, W, 3), reduced so that its longer side is at most `longest` px."""
    bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"expected a picture, could not decode {path}")
    if longest and max(bgr.shape[:2]) > longest:
        scale = longest / max(bgr.shape[:2])
        bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8)


class Background(Iterator[Batch]):
    """Batches from `make`, a few ahead, made in one thread; an error in it is raised by `next`."""

    def __init__(self, make: Callable[[], Batch], ahead: int = 4) -> None:
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(ahead)
        self._make = make
        cv2.setNumThreads(1)  # its threads would compete with those that train
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            while True:
                self._queue.put(self._make())
        except BaseException as error:  # handed to the thread that trains
            self._queue.put(error)

    def __next__(self) -> Batch:
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item
