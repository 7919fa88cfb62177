"""Pictures for training: decoded once into memory, drawn by shares, batches made in a background thread."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin.errors import InputError
from restore_plugin.pipeline import ahead

Picture = npt.NDArray[Any]  # (H, W, 3) uint8 RGB
Batch = TypeVar("Batch")

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".pgm", ".ppm", ".tif", ".tiff"}
HOLD_OUT_EVERY = 20  # this file of every folder, by name, is for validation

SETS = {  # what the shipped networks were trained on; every file's own licence allows it
    "photos/cq100": "CQ100 pictures (CC BY-SA 4.0, per image)",
    "photos/wallpapers": "budgie-backgrounds (CC0 1.0), lomiri-wallpapers (CC BY / CC BY-SA / CC0)",
    "photos/cars": "LIRE test data, Ferrari (CC BY 2.0, CC BY-SA 2.0)",
    "photos/aerial": "OpenDroneMap aerial pictures (CC BY-SA 4.0)",
    "photos/gopr0477": "GoPro sequence 0477_11_00, Nah et al. 2017 (CC BY 4.0)",
    "photos/clothing": "clothing-dataset-small (CC0 1.0)",
    "photos/grocery": "GroceryStoreDataset (MIT)",
    "faces/caltech": "Caltech-101 Faces_easy (CC BY 4.0)",
}


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
    """RGB uint8 (H, W, 3), reduced so that its longer side is at most `longest` px.

    Raises InputError where it is no picture.
    """
    try:
        bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # an empty file, or far too large a picture
        bgr = None
    if bgr is None:
        raise InputError(f"expected a picture, could not decode {path}")
    if longest and max(bgr.shape[:2]) > longest:
        scale = longest / max(bgr.shape[:2])
        bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8)


@dataclass(frozen=True)
class Library:
    """Pictures of several sets in memory. `shares`: how often each set is drawn."""

    shares: Mapping[str, float]
    training: Mapping[str, Sequence[Picture]]
    held_out: Mapping[str, Sequence[Picture]]

    def choose(self, random: np.random.Generator, held_out: bool = False) -> Picture:
        sets = self.held_out if held_out else self.training
        shares = np.array([self.shares[name] for name in sets])
        pictures = sets[list(sets)[int(random.choice(len(sets), p=shares / shares.sum()))]]
        return pictures[int(random.integers(len(pictures)))]


def load_library(folder: Path, shares: Mapping[str, float], limit: int | None = None, longest: int = 1600) -> Library:
    """The sets named in `shares` that lie in `folder`, at most `limit` pictures of each.

    Raises FileNotFoundError where there is none of them, InputError for a set that is too small or a damaged picture.
    """
    training, held_out = {}, {}
    for name in shares:
        if (folder / name).is_dir():
            kept, held = split(picture_files(folder / name))
            if not kept:  # the first one is always held out
                raise InputError(
                    f"expected at least two pictures below {folder / name}, one to train on and one held out, got "
                    f"{held[0].name} alone; add pictures or take the folder away"
                )
            training[name] = [read_rgb(path, longest) for path in kept[:limit]]
            held_out[name] = [read_rgb(path, longest) for path in held[:limit]]
    if not training:
        raise FileNotFoundError(f"expected one of {', '.join(shares)} in {folder}, found none")
    return Library(shares, training, held_out)


def batches(make: Callable[[int], Batch], first: int = 0, count: int = 4) -> Generator[Batch, None, None]:
    """`make(first)`, `make(first + 1)` ..., up to `count` made in advance by one thread; close it to end the thread."""
    cv2.setNumThreads(1)  # its threads would compete with those that train
    return ahead(map(make, itertools.count(first)), count)
