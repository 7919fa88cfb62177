"""Train BlurNet, the compact deblurring network.

    python -m restore_plugin.training.recipes.blurnet --data PICTURES --out RUN --minutes 120

Pairs: runs of 7 to 13 frames of a fast video, averaged, and photographs that move along random trajectories, shake or
are out of focus (restore_plugin.training.blur); a part of them stays sharp, so that the network leaves alone what needs
no repair. Loss: the logarithm of each crop's mean square error. Pictures differ a hundredfold in how far they are from
sharp, and the farthest are beyond help: a small blur that is undone counts as much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor, nn

from restore_plugin.networks.blurnet import MULTIPLE, BlurNet
from restore_plugin.training import blur, data, export, loop
from restore_plugin.training.muon import Muon
from restore_plugin.training.recipe import Recipe, judge_pairs, residual_export, residual_loss, run, tensors
from restore_plugin.training.streaks import log_uniform

SEQUENCE = "photos/gopr0477"  # its share is that of averaged frames
SHARES = {
    SEQUENCE: 6,
    "photos/cq100": 6,
    "photos/wallpapers": 5,
    "photos/cars": 2,
    "photos/aerial": 2,
    "photos/clothing": 2,
    "photos/grocery": 2,
    "faces/caltech": 1,
}
KINDS = {"sharp": 0.1, "motion": 0.68, "handshake": 0.1, "defocus": 0.12}  # shares, of the photographs
BATCH = 4  # few, for many steps: their gradients agree well
SIDE = 192  # px
MARGIN = 24  # px to every side that blur moves in from
REDUCTION = (0.8, 2.2)  # px of a photograph that become one
FRAME_REDUCTION = (0.65, 1.3)
LEAST = 1e-4  # mean square that is hardly worth mending: 40 dB
HELD_OUT_FRAMES = 32  # the last of the sequence are never trained on
HELD_OUT = (16, 256)  # pairs of each kind to judge with, and their side in px


def flipped(picture: Any, how: int) -> Any:
    """One of the eight ways to turn and mirror; 2 is left to right."""
    picture = picture[:: -1 if how & 1 else 1, :: -1 if how & 2 else 1]
    return np.ascontiguousarray(picture.transpose(1, 0, 2) if how & 4 else picture)


def lively_crop(picture: data.Picture, take: int, random: np.random.Generator) -> tuple[slice, slice]:
    """Where the liveliest of three random squares of `take` px lies: there is nothing to learn from skies."""
    height, width = picture.shape[:2]
    take = min(height, width, take)
    places = [(int(random.integers(height - take + 1)), int(random.integers(width - take + 1))) for _ in range(3)]
    crops = [(slice(y, y + take), slice(x, x + take)) for y, x in places]
    return max(crops, key=lambda crop: detail(picture[crop[0], crop[1]]))


def detail(picture: Any) -> float:
    """How much neighbours, four px apart, differ."""
    return float(np.abs(np.diff(picture[::4, ::4, 1].astype(np.int16), axis=0)).mean())


def resized(picture: Any, side: int) -> Any:
    how = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_CUBIC
    return picture if picture.shape[0] == side else cv2.resize(picture, (side, side), interpolation=how)


def photograph_pair(picture: data.Picture, side: int, kind: str, random: np.random.Generator) -> tuple[Any, Any]:
    """(blurred, sharp), each (side, side, 3) uint8."""
    whole = side + 2 * MARGIN
    rows, columns = lively_crop(picture, round(whole * log_uniform(REDUCTION, random)), random)
    sharp = flipped(resized(picture[rows, columns], whole), 2 * int(random.integers(2)))
    found = sharp if kind == "sharp" else blur.blurred(sharp, kind, random)
    return found[MARGIN:-MARGIN, MARGIN:-MARGIN], sharp[MARGIN:-MARGIN, MARGIN:-MARGIN]


def frame_pair(frames: list[data.Picture], side: int, random: np.random.Generator) -> tuple[Any, Any]:
    """(blurred, sharp), each (side, side, 3) uint8; fewer frames are averaged where there are not so many."""
    count = min(int(random.choice(blur.FRAMES)), len(frames) - 1 + len(frames) % 2)
    first = int(random.integers(len(frames) - count + 1))
    rows, columns = lively_crop(frames[first], round(side * log_uniform(FRAME_REDUCTION, random)), random)
    pair = blur.exposure([frame[rows, columns] for frame in frames[first : first + count]], random)
    how = int(random.integers(8))
    return flipped(resized(pair[0], side), how), flipped(resized(pair[1], side), how)


def sequence(library: data.Library, held_out: bool = False) -> list[data.Picture]:
    """The video's frames in their order; the library keeps every HOLD_OUT_EVERY-th apart. Empty where it is missing."""
    parts = library.training.get(SEQUENCE, ()), library.held_out.get(SEQUENCE, ())
    kept, held = iter(parts[0]), iter(parts[1])
    frames: list[data.Picture] = []
    while (frame := next(kept if len(frames) % data.HOLD_OUT_EVERY else held, None)) is not None:
        frames.append(frame)
    last = len(frames) - min(HELD_OUT_FRAMES, len(frames) // 2)
    return frames[last:] if held_out else frames[:last]


def photographs(library: data.Library) -> data.Library:
    """The library without the video. Raises FileNotFoundError where nothing else is in it."""

    def without(sets: Mapping[str, Any]) -> dict[str, Any]:
        return {name: pictures for name, pictures in sets.items() if name != SEQUENCE}

    if not without(library.training):
        raise FileNotFoundError(f"expected photographs beside {SEQUENCE}: one of {', '.join(SHARES)}")
    return data.Library(library.shares, without(library.training), without(library.held_out))


def pairs(library: data.Library, count: int, side: int, random: np.random.Generator) -> tuple[Any, Any]:
    """(N, side, side, 3) float32 in [0, 1], blurred and sharp."""
    frames, photos = sequence(library), photographs(library)
    total = sum(SHARES[name] for name in photos.training)
    share = SHARES[SEQUENCE] / (total + SHARES[SEQUENCE]) if len(frames) > 2 else 0.0
    found = []
    for _ in range(count):
        if random.random() < share:
            found.append(frame_pair(frames, side, random))
        else:
            kind = str(random.choice(list(KINDS), p=list(KINDS.values())))
            found.append(photograph_pair(photos.choose(random), side, kind, random))
    blurry, sharp = zip(*found, strict=True)
    return np.stack(blurry).astype(np.float32) / 255, np.stack(sharp).astype(np.float32) / 255


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    return tensors(*pairs(library, BATCH, SIDE, random))


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    return residual_loss(network, batch, LEAST)


def held_out_pairs(library: data.Library) -> dict[str, tuple[Any, Any]]:
    """By kind: blurred and sharp (N, side, side, 3) uint8, always the same."""
    count, side = HELD_OUT
    photos, frames = photographs(library), sequence(library, held_out=True)
    found = {}
    for kind in KINDS:
        random = np.random.default_rng(1)
        made = [photograph_pair(photos.choose(random, held_out=True), side, kind, random) for _ in range(count)]
        found[kind] = made
    if len(frames) > 2:
        random = np.random.default_rng(1)
        found["frames"] = [frame_pair(frames, side, random) for _ in range(count)]
    return {kind: (np.stack([b for b, _ in made]), np.stack([s for _, s in made])) for kind, made in found.items()}


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    """PSNR and gain over the blurred picture for every kind, and the PSNR that sharp pictures keep."""
    sets = {
        kind: tensors(*(each.astype(np.float32) / 255 for each in made))
        for kind, made in held_out_pairs(library).items()
    }

    return lambda network: judge_pairs(network, sets, "sharp", folder)


def spec() -> export.Export:
    return residual_export(MULTIPLE)


RECIPE = Recipe("blurnet", "deblur", BlurNet, SHARES, batch, loss, validator, spec, rate=1e-3, optimiser=Muon)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
