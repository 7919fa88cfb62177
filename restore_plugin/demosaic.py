"""The de-mosaic restorer: interpolate the cells, let the network add detail, keep the cells' means.

Pixelation destroys detail. What comes back agrees with every cell of the mosaic and looks plausible; it is not
evidence of what was there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.contract import OutOfMemory
from restore_plugin import mosaic
from restore_plugin.consistency import keep_means
from restore_plugin.errors import InputError
from restore_plugin.grey import keep_grey
from restore_plugin.mosaic import CELL, Edges, FloatArray
from restore_plugin.types import Box, Engine, Mask, Needs, Pixels, Region, RestoreOptions, Support

NOISE_SCALE = 20.0  # the network is told the cells' noise ([0, 1]) times this
TOLERANCE = 0.5  # cell means may miss by this share of the noise
SURROUNDINGS = 5  # cells that the network is shown around a region
REACH = 24  # cells: half of the network's field of view, so that tiles agree with the whole
TILE, SMALLEST_TILE = 96, 12  # cells a side, restored at once; less where memory is short
MEASURED_PX = 0.55  # lines that were measured round to the true ones so far off, and not farther
SNAP_PX = 0.75  # a grid line this near to the region's edge started there


class Demosaic:
    """A Restorer for mosaics; without an engine it is bicubic interpolation and the projection alone."""

    def __init__(
        self,
        engine: Engine | None,
        options: RestoreOptions | None = None,
        support: Support | None = None,
        tile: int = TILE,
    ) -> None:
        self.engine = engine
        self.options = options or RestoreOptions()
        self._support = support or Support()
        self._fallbacks = list(self._support.fallbacks)
        self._tile = tile

    @property
    def needs(self) -> Needs:
        return Needs()

    def margin(self, region: Region) -> tuple[int, int]:
        block_x, block_y = known_block(region)
        return int(np.ceil(SURROUNDINGS * block_x)), int(np.ceil(SURROUNDINGS * block_y))

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels:
        """Restore the mosaic under `mask` (default: the region's); everything else comes back as it is.

        Raises InputError without a region that tells the block size.
        """
        height, width = pixels.shape[:2]
        if region is None:
            raise InputError("expected a region with the mosaic's block size, got none; pass regions or find them")
        block_x, block_y = known_block(region)
        if mask is None:
            mask = np.zeros((height, width), bool)
            box = region.box.intersect(Box(0, 0, width, height))
            inner = region.mask()[box.y - region.box.y :, box.x - region.box.x :]
            mask[box.slices] = inner[: box.height, : box.width]
        if not mask.any():
            return pixels.copy()
        y_edges = grid_edges(height, region.box.y, region.box.bottom, block_y, region.phase[1])
        x_edges = grid_edges(width, region.box.x, region.box.right, block_x, region.phase[0])
        means, noise = mosaic.measure(pixels, mask, y_edges, x_edges)
        base = mosaic.resample(mosaic.cells_to_pixels(y_edges), mosaic.cells_to_pixels(x_edges), means)
        out = np.where(mask[..., None], base, pixels).astype(np.float32)
        if self.engine is not None:
            condition = np.array(
                [np.log2(block_x / CELL), np.log2(block_y / CELL), noise * NOISE_SCALE, self.options.linear_light],
                np.float32,
            )
            out = self._with_detail(self.engine, out, mask, condition, y_edges, x_edges)
        kept = keep_means(
            out, mask, means, y_edges, x_edges, tolerance=noise * TOLERANCE, linear_light=self.options.linear_light
        )
        return np.where(mask[..., None], kept, pixels)

    def _with_detail(
        self, engine: Engine, picture: Pixels, mask: Mask, condition: FloatArray, y_edges: Edges, x_edges: Edges
    ) -> Pixels:
        """In smaller tiles, and at last on another engine, where memory is short. Raises OutOfMemory where none is."""
        while True:
            try:
                return self._add_detail(engine, picture, mask, condition, y_edges, x_edges)
            except OutOfMemory as error:
                self._support.say(f"{error}; going on in smaller parts")
                if self._tile > SMALLEST_TILE:
                    self._tile //= 2
                elif self._fallbacks:
                    self.engine = engine = self._fallbacks.pop(0)()
                    self._tile = TILE
                else:
                    raise

    def _add_detail(
        self, engine: Engine, picture: Pixels, mask: Mask, condition: FloatArray, y_edges: Edges, x_edges: Edges
    ) -> Pixels:
        """The network's residual, tile by tile of whole cells."""
        out = picture.copy()
        start = np.dstack((picture, mask.astype(np.float32)))
        for rows in cell_tiles(len(y_edges) - 1, self._tile):
            for columns in cell_tiles(len(x_edges) - 1, self._tile):
                ys, xs = (
                    y_edges[rows.outer_start : rows.outer_stop + 1],
                    x_edges[columns.outer_start : columns.outer_stop + 1],
                )
                crop = start[ys[0] : ys[-1], xs[0] : xs[-1]]
                uniform = mosaic.resample(mosaic.pixels_to_uniform(ys), mosaic.pixels_to_uniform(xs), crop)
                found = engine.run(
                    {"picture": np.ascontiguousarray(uniform.transpose(2, 0, 1)[None]), "condition": condition[None]}
                )["residual"][0]
                residual = mosaic.resample(
                    mosaic.uniform_to_pixels(ys), mosaic.uniform_to_pixels(xs), found.transpose(1, 2, 0)
                )
                residual = keep_grey(residual, picture)
                y0, y1 = y_edges[rows.start], y_edges[rows.stop]
                x0, x1 = x_edges[columns.start], x_edges[columns.stop]
                part = residual[y0 - ys[0] : y1 - ys[0], x0 - xs[0] : x1 - xs[0]]
                out[y0:y1, x0:x1] += part * start[y0:y1, x0:x1, 3:]
        return out


@dataclass(frozen=True)
class CellTile:
    """Cells start to stop of one axis are kept of a tile that is computed on outer_start to outer_stop."""

    start: int
    stop: int
    outer_start: int
    outer_stop: int


def cell_tiles(cells: int, tile: int = TILE) -> list[CellTile]:
    """Cut an axis so that each tile sees everything its result depends on."""
    count = max(1, -(-cells // tile))
    cuts = [round(index * cells / count) for index in range(count + 1)]
    return [CellTile(a, b, max(0, a - REACH), min(cells, b + REACH)) for a, b in itertools.pairwise(cuts)]


def known_block(region: Region) -> tuple[float, float]:
    """Raises InputError where the region does not tell it."""
    if region.block is None:
        raise InputError(
            f"expected a block size for region {region.id}, got none; measure it or write it into the plan"
        )
    try:
        x, y = map(float, region.block)
        if not (1 <= x < math.inf and 1 <= y < math.inf):
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(f"expected blocks (x, y) of at least 1 px in region {region.id}, got {region.block}") from None
    return x, y


def grid_edges(length: int, low: int, high: int, block: float, phase: float) -> Edges:
    """Cell edges along one axis of a crop of `length` px that holds a region from `low` to `high`.

    Where a grid line falls on the region's first pixel the region was cut out, pixelated and put back: its cells end
    with it. Otherwise the grid runs on under the surroundings, and a cell that the region's edge cuts shows the mean of
    the whole cell.
    """
    offset = (low - phase + block / 2) % block - block / 2
    if abs(offset) > SNAP_PX or high <= 0 or low >= length:
        return mosaic.axis_edges(0, length, block, phase)
    parts = []
    if low > 0:
        parts.append(mosaic.axis_edges(0, low, block, low)[:-1])
    first, last = max(low, 0), min(high, length)
    inside = mosaic.axis_edges(first, last, block, phase if abs(offset) <= MEASURED_PX else low)
    # a line that rounds to the pixel after the region's first would cut that one off
    cut_off = 0.5 < offset <= MEASURED_PX and inside[1] == low + 1 < last
    parts.append(np.delete(inside, 1) if cut_off else inside)
    if last < length:
        parts.append(mosaic.axis_edges(last, length, block, last)[1:])
    return np.concatenate(parts)
