"""The mosaic finder: where a frame is pixelated, with block size and phase.

A small network (restore_plugin.networks.mosaic_finder) says where and roughly how large the blocks are; the grid is
then measured in the picture itself, and the outline is drawn around the pixels that are flat within their cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin import mosaic
from restore_plugin.masks.grid import AxisGrid, fit_axis, step_profile
from restore_plugin.masks.tracks import link_mosaics
from restore_plugin.regions import bounding_box
from restore_plugin.types import Box, Engine, Frame, Luma, Mask, Point, Region, ScanOptions, Sightings, Video

MULTIPLE, STRIDE = 32, 4
LARGEST_SIDE = 2600  # px; larger frames are searched at half size, and half again
LIKELY, CLEARLY, SURE = 0.3, 0.5, 0.8  # of a pixel; of one that counts for the confidence; of a region's best one
SMALLEST_AREA = 256  # px
OTHER_SIZE = 0.35  # log2: blocks that differ by more belong to another mosaic
SMALLEST_PART = 4.0  # blocks along each side, of a mosaic that touches another
CONTRAST = 0.25  # of the grid's lines, where the network is not sure by itself
CODEC_BLOCKS, CODEC_STEP = (4, 8, 16), 1.5 / 255  # px; a mosaic that hides something has steps of more
EDGE = 6  # px by which the network's outline may be off
FLATTEST, FLAT = 0.7 / 255, 4 / 255  # a pixel this near to its cell's colour may belong to the mosaic
SNAP = 0.15  # of a block: a side of a box this near to a grid line lies on it
RECTANGLE = 0.86  # a shape that fills this much of its box is taken for a box


class MosaicFinder:
    """A Finder (restore_plugin.types) for pixelated regions."""

    def __init__(self, engine: Engine, options: ScanOptions | None = None) -> None:
        self.engine = engine

    def find(self, frame: Frame) -> list[Region]:
        """All pixelated regions, largest first."""
        luma = frame.luma()
        likely, blocks = self.likelihood(luma)
        size = (max(1, likely.shape[1] // STRIDE), max(1, likely.shape[0] // STRIDE))
        small = cv2.resize(likely, size, interpolation=cv2.INTER_AREA) > LIKELY
        found = []
        seen = likely > LIKELY
        for part in one_grid_each(small, np.log2(blocks).mean(0)[: small.shape[0], : small.shape[1]]):
            wide: Any = cv2.resize(part.astype(np.uint8), luma.shape[::-1], interpolation=cv2.INTER_NEAREST)
            wide = cv2.dilate(wide, np.ones((2 * STRIDE + 1, 2 * STRIDE + 1), np.uint8)) > 0
            region = self._region(luma, seen & wide, likely, blocks)
            if region is not None:
                found.append(region)
        return sorted(found, key=lambda region: -region.box.area)

    candidates = find

    def link(self, video: Video) -> Sightings:
        return link_mosaics(video)

    def measure(self, frame: Frame, mask: Mask) -> Region | None:
        """The grid under a mask that is known to be right. The region's outline is nearly the mask's."""
        if not mask.any():
            return None
        luma = frame.luma()
        _, blocks = self.likelihood(luma)
        box = bounding_box(mask)
        grids = fit_grid(luma, mask, box, guess(blocks, mask))
        if grids is None:
            return None
        return Region(box, 0, (grids[0].block, grids[1].block), phase_of(grids, box), outline_of(mask, box))

    def likelihood(self, luma: Luma) -> tuple[Luma, npt.NDArray[np.float32]]:
        """(H, W) probability of being pixelated, and (2, H/4, W/4) block sizes (x, y) in px, where it is."""
        height, width = luma.shape
        factor = 1
        while max(height, width) / factor > LARGEST_SIDE:
            factor *= 2
        seen = luma
        if factor > 1:
            size = (max(1, width // factor), max(1, height // factor))
            seen = np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.float32)
        pad_y, pad_x = -seen.shape[0] % MULTIPLE, -seen.shape[1] % MULTIPLE
        padded = np.pad(seen, ((0, pad_y), (0, pad_x)), mode="edge")
        out = self.engine.run({"luma": np.ascontiguousarray(padded[None, None], np.float32)})["found"][0]
        probability = 1 / (1 + np.exp(-np.clip(out[0], -30, 30)))
        full = cv2.resize(probability, padded.shape[::-1], interpolation=cv2.INTER_LINEAR)
        full = full[: seen.shape[0], : seen.shape[1]]
        if factor > 1:
            full = cv2.resize(full, (width, height), interpolation=cv2.INTER_LINEAR)
        blocks = np.exp2(np.clip(out[1:], -2, 4)) * mosaic.CELL * factor
        size = (-(-width // STRIDE), -(-height // STRIDE))
        if factor > 1:
            blocks = np.stack([cv2.resize(part, (part.shape[1] * factor, part.shape[0] * factor)) for part in blocks])
        return np.asarray(full, np.float32), blocks[:, : size[1], : size[0]]

    def _region(self, luma: Luma, mask: Mask, likely: Luma, blocks: npt.NDArray[np.float32]) -> Region | None:
        if not mask.any():
            return None
        box = bounding_box(mask)
        if likely[box.slices][mask[box.slices]].max() < SURE:
            return None
        grids = fit_grid(luma, mask, box, guess(blocks, mask))
        if grids is None:
            return None
        contrast = min(grids[0].contrast, grids[1].contrast)
        if contrast < CONTRAST:
            return None
        block, phase = (grids[0].block, grids[1].block), phase_of(grids, box)
        if all(is_codec_grid(grid, at) for grid, at in zip(grids, phase, strict=True)):
            return None
        mask, box = refine(luma, mask, box, block, phase)
        if not mask.any():
            return None
        seen = likely[box.slices][mask]
        seen = seen[seen > CLEARLY]  # bare parts speak neither for nor against
        confidence = (float(seen.mean()) if len(seen) else 0.0) * min(1.0, 0.5 + contrast / 2)
        return Region(box, 0, block, phase, outline_of_local(mask, box), confidence)


def one_grid_each(likely: Mask, size: Luma) -> Iterator[Mask]:
    """Parts of a mask that are connected and whose blocks are of one size; mosaics that touch come apart here.

    Mask and `size`, log2 of the block size, have a value for each STRIDE x STRIDE pixels.
    """
    smooth = cv2.medianBlur(np.asarray(size, np.float32), 5)
    waiting = [likely]
    while waiting:
        mask = waiting.pop()
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
        for label in range(1, count):
            if stats[label, cv2.CC_STAT_AREA] * STRIDE**2 < SMALLEST_AREA:
                continue
            part = labels == label
            other = part & (np.abs(smooth - np.median(smooth[part])) > OTHER_SIZE)
            other = cv2.morphologyEx(other.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) > 0
            rest = part & ~other
            if not (rest.any() and holds_blocks(other, size)):
                yield part
            else:
                waiting += [other, rest]


def holds_blocks(part: Mask, size: Luma) -> bool:
    """Whether a part is large enough to be a mosaic of its own, of the size of blocks that it shows."""
    if not part.any():
        return False
    box, block = bounding_box(part), float(np.exp2(np.median(size[part])))
    return min(box.width, box.height) * STRIDE > SMALLEST_PART * block


def guess(blocks: npt.NDArray[np.float32], mask: Mask) -> tuple[float, float]:
    """Median of the network's block sizes under a mask of the picture's size."""
    small = cv2.resize(mask.astype(np.uint8), blocks.shape[:0:-1], interpolation=cv2.INTER_NEAREST) > 0
    if not small.any():
        box = bounding_box(mask)
        y, x = (box.y + box.height // 2) // STRIDE, (box.x + box.width // 2) // STRIDE
        small[min(y, small.shape[0] - 1), min(x, small.shape[1] - 1)] = True
    return float(np.median(blocks[0][small])), float(np.median(blocks[1][small]))


def fit_grid(luma: Luma, mask: Mask, box: Box, sizes: tuple[float, float]) -> tuple[AxisGrid, AxisGrid] | None:
    """Grids along x and y inside a box; phases count from the box's corner."""
    inside, crop = mask[box.slices], luma[box.slices]
    x = fit_axis(step_profile(crop, inside, 1), sizes[0])
    y = fit_axis(step_profile(crop, inside, 0), sizes[1])
    return None if x is None or y is None else (x, y)


def phase_of(grids: tuple[AxisGrid, AxisGrid], box: Box) -> tuple[float, float]:
    """Position of one grid line in picture coordinates."""
    return box.x + grids[0].phase, box.y + grids[1].phase


def is_codec_grid(grid: AxisGrid, phase: float) -> bool:
    """Whether the lines are faint and lie where video codecs' blocks have theirs, counted from the frame's corner."""
    for side in CODEC_BLOCKS:
        if abs(grid.block / side - 1) < 0.04 and abs((phase + side / 2) % side - side / 2) < 0.75:
            return grid.step < CODEC_STEP
    return False


def refine(
    luma: Luma, mask: Mask, box: Box, block: tuple[float, float], phase: tuple[float, float]
) -> tuple[Mask, Box]:
    """The mosaic's outline to the pixel, and its box; the returned mask is of the box's size.

    A pixel belongs to it if it has its cell's colour; the network's outline says where to look.
    """
    around = box.grow(EDGE, EDGE, within=Box(0, 0, luma.shape[1], luma.shape[0]))
    crop, likely = luma[around.slices], mask[around.slices].astype(np.uint8)
    kernel = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    # beyond the picture's edge there is more of the same, not an end
    core = cv2.erode(likely, np.ones((2 * STRIDE + 1, 2 * STRIDE + 1), np.uint8), borderType=cv2.BORDER_REPLICATE) > 0
    y_edges = mosaic.axis_edges(0, around.height, block[1], phase[1] - around.y)
    x_edges = mosaic.axis_edges(0, around.width, block[0], phase[0] - around.x)
    flat, exact = flatness(crop, core if core.any() else likely > 0, likely > 0, y_edges, x_edges)
    filled = float(likely.sum()) / box.area
    if filled > RECTANGLE:
        x_lines, y_lines = x_edges[1:-1] + around.x, y_edges[1:-1] + around.y
        return rectangle(flat, box, around, (x_lines, y_lines), block)
    reach = cv2.dilate(likely, kernel) > 0
    shape: Any = ((reach & flat) | core).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    shape = cv2.morphologyEx(cv2.morphologyEx(shape, cv2.MORPH_CLOSE, disc), cv2.MORPH_OPEN, disc)
    if not exact:  # compression blurs the mosaic's rim: it is the mosaic's all the same
        shape = cv2.dilate(shape, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    contours, _ = cv2.findContours(shape, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return mask[box.slices], box
    whole = np.zeros_like(shape)
    cv2.drawContours(whole, [max(contours, key=cv2.contourArea)], -1, 1, -1)
    tight = bounding_box(whole > 0)
    return whole[tight.slices] > 0, tight.shift(around.x, around.y)


def flatness(crop: Luma, core: Mask, likely: Mask, y_edges: mosaic.Edges, x_edges: mosaic.Edges) -> tuple[Mask, bool]:
    """True where a pixel has the colour of its cell, as seen on the cell's pixels in `core`; whether that is exact.

    Cells at the rim that the core does not reach are seen on their `likely` pixels.

    How near counts as the same follows the core's own unrest: nothing in a lossless picture, a few levels after
    compression.
    """
    reached = mosaic.spread(mosaic.cell_sums(core.astype(np.float32), y_edges, x_edges), y_edges, x_edges) > 0
    inside = (core | (likely & ~reached)).astype(np.float32)
    count = mosaic.cell_sums(inside, y_edges, x_edges)
    mean = mosaic.cell_sums(crop * inside, y_edges, x_edges) / np.maximum(count, 1)
    away = np.abs(crop - mosaic.spread(mean, y_edges, x_edges))
    near = float(np.clip(3 * np.median(away[core]), FLATTEST, FLAT)) if core.any() else FLAT
    return (away < near) & (mosaic.spread(count, y_edges, x_edges) > 0), near == FLATTEST


def rectangle(
    flat: Mask, box: Box, around: Box, lines: tuple[mosaic.Edges, mosaic.Edges], block: tuple[float, float]
) -> tuple[Mask, Box]:
    """The box whose four sides best part flat pixels from others, each within EDGE of where the network put it."""
    local = box.shift(-around.x, -around.y)
    columns = flat[local.y : local.bottom].mean(0)
    rows = flat[:, local.x : local.right].mean(1)
    sides = [
        _side(columns, local.x) + around.x,
        _side(rows, local.y) + around.y,
        around.right - _side(columns[::-1], len(columns) - local.right),
        around.bottom - _side(rows[::-1], len(rows) - local.bottom),
    ]
    for index, side in enumerate(sides):
        nearest = lines[index % 2][np.argmin(np.abs(lines[index % 2] - side))] if len(lines[index % 2]) else side
        if abs(nearest - side) <= max(1.0, SNAP * block[index % 2]):
            sides[index] = int(nearest)
    x0, y0, x1, y1 = sides
    tight = Box.between(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))
    return np.ones((tight.height, tight.width), bool), tight


def _side(share: npt.NDArray[np.float64], near: int) -> int:
    """Where, within EDGE of `near`, a run of flat lines begins; at `near` itself if nothing tells."""
    if near - EDGE < 0 and share[: near + 1].min() > 0.5:
        return 0  # a mosaic that reaches the picture's edge
    first, last = max(0, near - EDGE), min(len(share), near + 2 * EDGE)
    window = share[first:last] - 0.7
    gain = np.concatenate((np.cumsum(window[::-1])[::-1], [0.0]))[: near + EDGE - first + 1]
    best = gain.max()
    good = np.flatnonzero(gain >= best - 0.15) + first
    return int(good[np.argmin(np.abs(good - near))])


def outline_of_local(mask: Mask, box: Box) -> tuple[tuple[Point, ...], ...]:
    """Polygons around a mask of the box's size, in picture coordinates; none for a full box."""
    if mask.all():
        return ()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.8, True)[:, 0]
        polygons.append(tuple((int(x) + box.x, int(y) + box.y) for x, y in points))
    return tuple(polygons)


def outline_of(mask: Mask, box: Box) -> tuple[tuple[Point, ...], ...]:
    return outline_of_local(mask[box.slices], box)
