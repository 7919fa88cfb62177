"""Every damage that training and benchmarks know by name: one table, deterministic from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from restore_plugin import mosaic
from restore_plugin.training.blur import BLURS, blurred
from restore_plugin.training.rain import LEVELS, Rain

Image: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Degradation: TypeAlias = Callable[[Image, np.random.Generator], Image]

MOSAIC_BLOCKS = (4.0, 6.5, 8.0, 12.0, 16.0, 24.0, 32.0)  # px, as benchmarks/quality.py takes them


def as_bytes(picture: mosaic.FloatArray) -> Image:
    return np.round(picture * 255.0).astype(np.uint8)


def none(picture: Image, random: np.random.Generator) -> Image:
    """An undamaged copy: what has nothing to repair must stay as it is."""
    return picture.copy()


def rain(level: str) -> Degradation:
    """Rain of a level of restore_plugin.training.rain.LEVELS."""

    def fall(picture: Image, random: np.random.Generator) -> Image:
        return as_bytes(Rain.random(random, level).fall(picture.astype(np.float32) / 255.0))

    return fall


def pixelation(block: float) -> Degradation:
    """The whole picture pixelated in blocks of `block` px from its upper left corner, means in gamma."""

    def pixelate(picture: Image, random: np.random.Generator) -> Image:
        edges = [mosaic.axis_edges(0, side, block, 0.0) for side in picture.shape[:2]]
        return as_bytes(mosaic.pixelate(picture.astype(np.float32) / 255.0, edges[0], edges[1]))

    return pixelate


def blur(kind: str) -> Degradation:
    """A blur of restore_plugin.training.blur.BLURS, as a camera stores it: noise and compression in some."""
    return lambda picture, random: blurred(picture, kind, random)


DEGRADATIONS: dict[str, Degradation] = {
    "none": none,
    **{f"rain-{level.replace(' ', '-')}": rain(level) for level in LEVELS},
    **{f"mosaic-{block:g}": pixelation(block) for block in MOSAIC_BLOCKS},
    **{f"blur-{kind}": blur(kind) for kind in BLURS},
}


def degrade(name: str, picture: Image, seed: int) -> Image:
    """A damaged copy of an (H, W, 3) uint8 RGB picture, the same for the same name, picture and seed.

    Raises ValueError for a name that is not in DEGRADATIONS, and for another kind of picture.
    """
    if name not in DEGRADATIONS:
        raise ValueError(f"expected a degradation out of {', '.join(DEGRADATIONS)}, got {name!r}")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"expected a uint8 picture of shape (height, width, 3), got {picture.dtype} {picture.shape}")
    return DEGRADATIONS[name](picture, np.random.default_rng(seed))
