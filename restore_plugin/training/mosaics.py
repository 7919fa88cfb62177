"""Mosaicked training samples on the uniform grid (see restore_plugin.mosaic), deterministic from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin import mosaic
from restore_plugin.mosaic import CELL, FloatArray
from restore_plugin.training.data import Picture

SMALLEST_BLOCK, LARGEST_BLOCK = 4.0, 64.0
GREY, RELIT, BENT = 0.3, 0.5, 0.5  # shares of the crops without colour, in another light, and bent
NOISE_SCALE = 20.0  # noise in the network's condition is standard deviation ([0, 1]) times this


@dataclass(frozen=True)
class Sample:
    """One training pair of `cells` x `cells` cells; arrays are float32 on the uniform grid, RGB in [0, 1]."""

    picture: FloatArray  # (8n, 8n, 4): interpolated where hidden, (degraded) truth elsewhere; then the mask
    means: FloatArray  # (n, n, 3): what the mosaic shows
    condition: FloatArray  # (4,), as CellNet takes it
    truth: FloatArray  # (8n, 8n, 3)


def random_crop(
    picture: Picture, cells: int, random: np.random.Generator
) -> tuple[FloatArray, mosaic.Edges, mosaic.Edges, tuple[float, float]]:
    """A crop of `cells` x `cells` random blocks, at most CELL px each after area reduction, and its edges."""
    height, width = picture.shape[:2]
    largest = min(LARGEST_BLOCK, min(height, width) / cells)
    block = float(np.exp(random.uniform(np.log(SMALLEST_BLOCK), np.log(max(largest, SMALLEST_BLOCK + 0.01)))))
    if random.random() < 0.6:
        block = max(SMALLEST_BLOCK, float(round(block)))
    stretch = float(random.uniform(0.8, 1.25)) if random.random() < 0.15 else 1.0
    blocks = np.clip([block * stretch, block / stretch], SMALLEST_BLOCK, LARGEST_BLOCK)
    # pictures are seldom sharp to the pixel: reduce some before they are pixelated
    reduce = float(random.uniform(1.0, 3.0)) if random.random() < 0.5 else 1.0
    shrink = min(reduce, height / (cells * blocks[1]), width / (cells * blocks[0]))
    axes, sizes, takes = [], [], []
    for size in blocks:
        if size >= CELL:
            axes.append(np.arange(cells + 1) * CELL)
            sizes.append(cells * CELL)
        else:
            axes.append(mosaic.axis_edges(0, round(cells * size), size, 0.0))
            sizes.append(round(cells * size))
        takes.append(cells * size * shrink)
    take_w, take_h = (max(1, min(round(take), limit)) for take, limit in zip(takes, (width, height), strict=True))
    x, y = int(random.integers(0, width - take_w + 1)), int(random.integers(0, height - take_h + 1))
    crop = cv2.resize(picture[y : y + take_h, x : x + take_w], (sizes[0], sizes[1]), interpolation=cv2.INTER_AREA)
    return crop.astype(np.float32) / 255.0, axes[1], axes[0], (float(blocks[0]), float(blocks[1]))


def random_mask(height: int, width: int, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Everything, a box, or an ellipse; at least a quarter of the picture's sides."""
    if random.random() < 0.45:
        return np.ones((height, width), bool)
    w, h = (int(side * random.uniform(0.3, 0.95)) for side in (width, height))
    x, y = int(random.integers(0, width - w + 1)), int(random.integers(0, height - h + 1))
    drawn = np.zeros((height, width), np.uint8)
    if random.random() < 0.5:
        drawn[y : y + h, x : x + w] = 1
    else:
        cv2.ellipse(drawn, ((x + w / 2, y + h / 2), (w, h), float(random.uniform(0, 180))), 1, -1)
    return drawn.astype(bool)


def compressed(picture: FloatArray, random: np.random.Generator) -> FloatArray:
    """Through JPEG of a random quality, which stands for any block transform codec."""
    bgr = np.ascontiguousarray(np.round(picture[..., ::-1] * 255).astype(np.uint8))
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(40, 97))]
    if random.random() < 0.5:
        quality += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    decoded: Any = cv2.imdecode(cv2.imencode(".jpg", bgr, quality)[1], cv2.IMREAD_COLOR)
    return decoded[..., ::-1].astype(np.float32) / 255.0


def relit(crop: FloatArray, random: np.random.Generator) -> FloatArray:
    """With another exposure, contrast and cast, and lit from a side: few pictures are to show many lights."""
    exposure, contrast = np.exp(random.uniform(-0.5, 0.5)), random.uniform(0.7, 1.2)
    cast = np.exp(random.uniform(-0.1, 0.1, 3))
    lit = 0.5 + contrast * (np.power(crop, exposure) * cast - 0.5)
    height, width = crop.shape[:2]
    slope = random.uniform(-0.6, 0.6, 2)
    side = slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)[None]
    return np.clip(lit * np.exp(side)[..., None], 0, 1).astype(np.float32)


def bent(crop: FloatArray, random: np.random.Generator) -> FloatArray:
    """Stretched a little here, squeezed there: few faces are to show many."""
    height, width = crop.shape[:2]
    coarse = random.normal(0, 0.025, (5, 5, 2)) * (width, height)
    fine = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    found = cv2.remap(crop, x + fine[..., 0], y + fine[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.clip(found, 0, 1)


def make(picture: Picture, cells: int, linear_light: bool, random: np.random.Generator) -> Sample:
    """Pixelate a random crop of an RGB uint8 picture."""
    crop, y_edges, x_edges, (block_x, block_y) = random_crop(picture, cells, random)
    if random.random() < 0.5:
        crop = crop[:, ::-1]
    if random.random() < GREY:
        crop = np.repeat(crop.mean(axis=2, keepdims=True), 3, axis=2)
    if random.random() < BENT:
        crop = bent(np.ascontiguousarray(crop), random)
    crop = np.ascontiguousarray(relit(crop, random) if random.random() < RELIT else crop)
    mask = random_mask(crop.shape[0], crop.shape[1], random)
    shown = np.where(mask[..., None], mosaic.pixelate(crop, y_edges, x_edges, linear_light), crop)
    if random.random() < 0.4:
        shown = compressed(shown, random)
    means, noise = mosaic.measure(shown, mask, y_edges, x_edges)
    base = mosaic.resample(mosaic.cells_to_pixels(y_edges), mosaic.cells_to_pixels(x_edges), means)
    start = np.dstack((np.where(mask[..., None], base, shown), mask.astype(np.float32)))
    to_y, to_x = mosaic.pixels_to_uniform(y_edges), mosaic.pixels_to_uniform(x_edges)
    condition = np.array(
        [np.log2(block_x / CELL), np.log2(block_y / CELL), noise * NOISE_SCALE, float(linear_light)], np.float32
    )
    return Sample(
        mosaic.resample(to_y, to_x, start.astype(np.float32)),
        means,
        condition,
        mosaic.resample(to_y, to_x, crop),
    )


def batch(
    pictures: Sequence[Picture], cells: int, random: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """A sample of each picture, stacked, channels first: picture, means, condition, truth."""
    linear_light = bool(random.random() < 0.12)
    samples = [make(picture, cells, linear_light, random) for picture in pictures]

    def stack(name: str) -> FloatArray:
        arrays = [getattr(sample, name) for sample in samples]
        return np.ascontiguousarray(np.stack([array.transpose(2, 0, 1) for array in arrays]))

    return stack("picture"), stack("means"), np.stack([sample.condition for sample in samples]), stack("truth")
