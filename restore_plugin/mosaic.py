"""The arithmetic of a mosaic: its grid of cells, cell means, and the way to a uniform grid and back.

A mosaic (pixelation) replaces every cell of a grid by the cell's mean. Blocks may differ in x and y and need not be
whole numbers of pixels; a pixel belongs to the cell that its centre falls into, so that in pixels every cell has whole
edges (a block of 6.5 px gives cells of 6 and 7 px in turn). Everything is separable and written once, for one axis, as
an array of cell edges or a few taps a sample.

The de-mosaic network works on a *uniform* grid: there every cell is `CELL` x `CELL` samples, whatever its size in
pixels. The taps of this module lead there and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[Any]  # float32; numpy's stubs widen it at every step
Edges: TypeAlias = npt.NDArray[np.int64]

CELL = 8  # samples of the uniform grid along a cell's side


def axis_edges(start: int, stop: int, block: float, phase: float) -> Edges:
    """Cell edges along one axis: `start`, every grid line strictly between, `stop`.

    `block` (px) is the distance of grid lines, `phase` (px) the position of any one of them. Pixel i has its centre at
    i + 0.5, so a line at position p has pixel ceil(p - 0.5) as its first pixel. Raises ValueError for a block under
    1 px or an empty axis.
    """
    if not (block >= 1.0 and np.isfinite(block) and np.isfinite(phase)):
        raise ValueError(f"expected a block of at least 1 px and a finite phase, got block {block} and phase {phase}")
    if stop <= start:
        raise ValueError(f"expected an axis of at least one pixel, got {start} to {stop}")
    first = int(np.floor((start - phase) / block)) - 1
    last = int(np.ceil((stop - phase) / block)) + 1
    lines = np.ceil(phase + np.arange(first, last + 1) * block - 0.5).astype(np.int64)
    inner = np.unique(lines[(lines > start) & (lines < stop)])
    return np.concatenate(([start], inner, [stop])).astype(np.int64)


def cell_sums(values: FloatArray, y_edges: Edges, x_edges: Edges) -> FloatArray:
    """Sums of (H, W) or (H, W, C) `values` over the cells; edges start at 0 and end at H and W."""
    rows = np.add.reduceat(values, y_edges[:-1], axis=0)
    return np.add.reduceat(rows, x_edges[:-1], axis=1)


def cell_areas(y_edges: Edges, x_edges: Edges) -> FloatArray:
    """Pixels in each cell: (rows, columns)."""
    return np.outer(np.diff(y_edges), np.diff(x_edges)).astype(np.float32)


def spread(cells: FloatArray, y_edges: Edges, x_edges: Edges) -> FloatArray:
    """Fill every pixel with its cell's value: the picture that a mosaic shows."""
    return np.repeat(np.repeat(cells, np.diff(y_edges), axis=0), np.diff(x_edges), axis=1)


def pixelate(picture: FloatArray, y_edges: Edges, x_edges: Edges, linear_light: bool = False) -> FloatArray:
    """Mosaic of an (H, W, C) picture in [0, 1]; the mean is taken in gamma or in linear light (sRGB)."""
    values = srgb_to_linear(picture) if linear_light else picture
    means = cell_sums(values, y_edges, x_edges) / cell_areas(y_edges, x_edges)[..., None]
    return spread(linear_to_srgb(means) if linear_light else means, y_edges, x_edges)


def measure(shown: FloatArray, mask: npt.NDArray[np.bool_], y_edges: Edges, x_edges: Edges) -> tuple[FloatArray, float]:
    """What a mosaic shows: a colour for every cell, and how far its cells are from flat.

    A cell with pixels under the mask has their mean, any other the mean of its (true) pixels. The second value is the
    median over the masked cells of their pixels' standard deviation: 0 for a lossless mosaic, more after compression.
    """
    inside = mask.astype(np.float32)
    hidden = cell_sums(inside, y_edges, x_edges)[..., None]
    touched = hidden[..., 0] >= 1
    total = np.maximum(hidden, 1)
    flat = cell_sums(shown * inside[..., None], y_edges, x_edges) / total
    away = (shown - spread(flat, y_edges, x_edges)) * inside[..., None]
    variance = cell_sums(away**2, y_edges, x_edges) / total
    true = cell_sums(shown, y_edges, x_edges) / cell_areas(y_edges, x_edges)[..., None]
    noise = float(np.sqrt(np.median(variance[touched]))) if touched.any() else 0.0
    return np.where(touched[..., None], flat, true).astype(np.float32), noise


def srgb_to_linear(values: FloatArray) -> FloatArray:
    """IEC 61966-2-1 decoding, [0, 1] to [0, 1]."""
    values = np.clip(values, 0.0, 1.0)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(values: FloatArray) -> FloatArray:
    """IEC 61966-2-1 encoding, [0, 1] to [0, 1]."""
    values = np.clip(values, 0.0, 1.0)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055).astype(np.float32)


@dataclass(frozen=True)
class Taps:
    """A linear map along one axis: output i is the sum over k of weight[i, k] * input[index[i, k]]."""

    index: npt.NDArray[np.int64]  # (outputs, taps)
    weight: FloatArray  # (outputs, taps)

    def along(self, values: FloatArray, axis: int) -> FloatArray:
        """Apply to one axis of an (H, W, C) array."""
        shape = [1, 1, 1]
        shape[axis] = -1
        out: FloatArray | None = None
        for index, weight in zip(self.index.T, self.weight.T, strict=True):
            term = np.take(values, index, axis=axis)
            term *= weight.reshape(shape)
            out = term if out is None else np.add(out, term, out=out)
        assert out is not None
        return out


def resample(y_taps: Taps, x_taps: Taps, values: FloatArray) -> FloatArray:
    """Both axes of an (H, W, C) array."""
    return x_taps.along(y_taps.along(values, 0), 1)


def _position(edges: Edges) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For every pixel: its cell, and the place of its centre inside the cell in (0, 1)."""
    sizes = np.diff(edges)
    cell = np.repeat(np.arange(len(sizes)), sizes)
    inside = (np.arange(edges[0], edges[-1]) - edges[cell] + 0.5) / sizes[cell]
    return cell, inside


def cubic_kernel(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution kernel, a = -0.5 (Keys 1981, eq. 15)."""
    d = np.abs(distance)
    near = 1.5 * d**3 - 2.5 * d**2 + 1.0
    far = -0.5 * d**3 + 2.5 * d**2 - 4.0 * d + 2.0
    return np.where(d <= 1.0, near, np.where(d < 2.0, far, 0.0))


def _cubic(at: npt.NDArray[np.float64], count: int) -> Taps:
    """Read `count` samples at fractional positions `at`, repeating the end samples."""
    index = np.floor(at).astype(np.int64)[:, None] + np.arange(-1, 3)
    weight = cubic_kernel(at[:, None] - index).astype(np.float32)
    return Taps(np.clip(index, 0, count - 1), weight)


def cells_to_pixels(edges: Edges) -> Taps:
    """Bicubic interpolation of cell values at the pixels."""
    cell, inside = _position(edges)
    return _cubic(cell + inside - 0.5, len(edges) - 1)


def pixels_to_uniform(edges: Edges) -> Taps:
    """Each cell's pixels averaged, by overlap, into CELL samples. Keeps the cells' means."""
    sizes = np.repeat(np.diff(edges), CELL)
    low = np.tile(np.arange(CELL), len(edges) - 1) * sizes / CELL
    high = low + sizes / CELL
    taps = int(np.max(np.ceil(high) - np.floor(low)))
    pixel = np.floor(low).astype(np.int64)[:, None] + np.arange(taps)
    overlap = np.minimum(high[:, None], pixel + 1) - np.maximum(low[:, None], pixel)
    weight = (np.maximum(overlap, 0) * (CELL / sizes)[:, None]).astype(np.float32)
    start = np.repeat(edges[:-1] - edges[0], CELL)[:, None]
    return Taps(start + np.minimum(pixel, sizes[:, None] - 1), weight)


def uniform_to_pixels(edges: Edges) -> Taps:
    """Samples back to pixels: by overlap in cells of at most CELL px, by bicubic interpolation in larger ones."""
    sizes = np.diff(edges)
    cell, inside = _position(edges)
    samples = CELL * len(sizes)
    cubic = _cubic((cell + inside) * CELL - 0.5, samples)
    size = sizes[cell]
    low = (inside - 0.5 / size) * CELL
    high = (inside + 0.5 / size) * CELL
    small = size <= CELL
    if not small.any():
        return cubic
    taps = max(4, int(np.max(np.ceil(high[small] - 1e-9) - np.floor(low[small] + 1e-9))))
    index = np.zeros((len(cell), taps), np.int64)
    weight = np.zeros((len(cell), taps), np.float32)
    index[:, :4], weight[:, :4] = cubic.index, cubic.weight
    sample = np.floor(low + 1e-9).astype(np.int64)[:, None] + np.arange(taps)
    overlap = np.maximum(np.minimum(high[:, None], sample + 1) - np.maximum(low[:, None], sample), 0)
    index[small] = (cell[:, None] * CELL + np.minimum(sample, CELL - 1))[small]
    weight[small] = (overlap / (high - low)[:, None])[small]
    return Taps(index, weight)
