"""Train RainNet, the compact de-raining network.

    python -m restore_plugin.training.recipes.rainnet --data PICTURES --out RUN --minutes 90

Rain of every kind (restore_plugin.training.rain) falls on crops; a part of them stays dry, so that the network leaves
alone what needs no repair. Loss: the logarithm of each crop's mean square error, so that drizzle counts as much as a
downpour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor, nn

from restore_plugin.networks.rainnet import MULTIPLE, RainNet
from restore_plugin.training import data, export, loop
from restore_plugin.training.mosaics import compressed
from restore_plugin.training.muon import Muon
from restore_plugin.training.rain import LEVELS, Rain
from restore_plugin.training.recipe import Recipe, judge_pairs, residual_export, residual_loss, run, tensors

SHARES = {
    "photos/cq100": 6,
    "photos/wallpapers": 5,
    "photos/cars": 2,
    "photos/aerial": 2,
    "photos/gopr0477": 1,
    "photos/clothing": 2,
    "photos/grocery": 2,
    "faces/caltech": 1,
}
KINDS = {"dry": 0.03, "light": 0.25, "medium": 0.23, "heavy": 0.21, "very heavy": 0.18, "any": 0.1}  # shares
BATCH = 8
SIDE = 128  # px
HELD_OUT = (16, 192)  # crops of each kind to judge with, and their side in px
COMPRESSED = 0.2  # of the rainy crops went through JPEG
LEAST = 5e-5  # mean square that is hardly worth mending: 43 dB


def clean_crop(picture: data.Picture, side: int, random: np.random.Generator) -> Any:
    """(side, side, 3) float32 in [0, 1], reduced by up to 2.5: rain is as sharp in small pictures as in large ones."""
    height, width = picture.shape[:2]
    take = min(height, width, int(side * random.uniform(1.0, 2.5)) if random.random() < 0.7 else side)
    y, x = int(random.integers(height - take + 1)), int(random.integers(width - take + 1))
    how = cv2.INTER_AREA if take >= side else cv2.INTER_CUBIC
    crop = cv2.resize(picture[y : y + take, x : x + take], (side, side), interpolation=how)
    if random.random() < 0.5:
        crop = crop[:, ::-1]
    return np.ascontiguousarray(crop).astype(np.float32) / 255


def rainy(crop: Any, kind: str, random: np.random.Generator) -> Any:
    if kind == "dry":
        return crop
    wet = Rain.random(random, None if kind == "any" else kind).fall(crop)
    return compressed(wet, random) if random.random() < COMPRESSED else np.round(wet * 255) / np.float32(255)


def pairs(
    library: data.Library, count: int, side: int, kinds: Mapping[str, float], random: np.random.Generator
) -> tuple[Any, Any, list[str]]:
    """(N, side, side, 3) with rain and without, and which kind fell on each."""
    clean = [clean_crop(library.choose(random), side, random) for _ in range(count)]
    drawn = [str(kind) for kind in random.choice(list(kinds), count, p=list(kinds.values()))]
    return np.stack([rainy(c, kind, random) for c, kind in zip(clean, drawn, strict=True)]), np.stack(clean), drawn


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    return tensors(*pairs(library, BATCH, SIDE, KINDS, random)[:2])


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    return residual_loss(network, batch, LEAST)


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    """PSNR and gain over the rainy picture at every level, and the PSNR that dry pictures keep."""
    sets = {}
    for kind in ("dry", *LEVELS):
        random = np.random.default_rng(1)
        count, side = HELD_OUT
        clean = [clean_crop(library.choose(random, held_out=True), side, random) for _ in range(count)]
        sets[kind] = tensors(
            np.stack([np.round(rainy(c, kind, random) * 255) / np.float32(255) for c in clean]), np.stack(clean)
        )

    return lambda network: judge_pairs(network, sets, "dry", folder)


def spec() -> export.Export:
    return residual_export(MULTIPLE)


RECIPE = Recipe("rainnet", "derain", RainNet, SHARES, batch, loss, validator, spec, optimiser=Muon)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
