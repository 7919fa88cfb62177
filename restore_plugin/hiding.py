"""Restorers that hide what lies under the mask: faces, so that who it was cannot be told.

Each style is a function of a crop, its mask and its region that gives a cover of the crop's size; `Hide` lays it over
the masked pixels and leaves all others as they are. A pattern is laid in fractions of the region's own box, so that it
moves and grows with the face and does not shimmer. None remembers anything from frame to frame.

A mosaic or a blur of the face leaves people recognisable to whoever trains on mosaics or blurs (McPherson, Shokri &
Shmatikov 2016, "Defeating image obfuscation with deep learning"), however good it looks. `blocks`, `solid` and
`picture` hold nothing of what they hide; `pixelate` and `blur` hold a few means of it. benchmarks/hidden.py measures
what each still tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin import mosaic
from restore_plugin.errors import InputError
from restore_plugin.types import (
    BETWEEN,
    BEYOND,
    FOUND,
    Box,
    Engine,
    Mask,
    Needs,
    Pixels,
    Region,
    RestoreOptions,
    Support,
)

Cover: TypeAlias = Callable[[Pixels, Mask, Region], Pixels]  # of a crop: what is seen instead

BLOCKS_CELLS = (6, 8)  # across and down the region's box
PIXELATE_CELLS = (4, 5)  # dlib fails on it against clear pictures, not against others hidden so: benchmarks/hidden.py
BLUR_CELLS = (3, 4)
RIM = 0.15  # of the region's box, on every side: the surroundings that `blocks` takes its colour from
SHADES = 0.13  # the lightest and darkest block are this much from the colour
GREY = (0.5, 0.5, 0.5)  # where nothing but faces is seen
LARGEST_PICTURE = 1024  # px; a larger one is reduced when it is opened, not in every frame
COLOURS = {FOUND: (0.1, 0.9, 0.2), BETWEEN: (1.0, 0.85, 0.0), BEYOND: (1.0, 0.15, 0.1)}  # of outlines: how it is known


class Hide:
    """A Restorer. `rim`: the surroundings that its cover wants to see, in fractions of the region's box."""

    def __init__(self, cover: Cover, rim: float = 0.0) -> None:
        self._cover = cover
        self._rim = rim

    @property
    def needs(self) -> Needs:
        return Needs(replaces=True)

    def margin(self, region: Region) -> tuple[int, int]:
        return int(np.ceil(self._rim * region.box.width)), int(np.ceil(self._rim * region.box.height))

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels:
        """Cover the pixels under `mask` (default: all); everything else comes back as it is."""
        height, width = pixels.shape[:2]
        if mask is None:
            mask = np.ones((height, width), bool)
        cover = self._cover(pixels, mask, region or Region(Box(0, 0, width, height)))
        return np.where(mask[..., None], cover, pixels).astype(np.float32, copy=False)


def blocks(engine: Engine | None, options: RestoreOptions, support: Support) -> Hide:
    """Looks like a mosaic, and holds nothing of the face.

    Every block has a shade of its own, drawn by the region's id, on one colour: the mean of what is seen around the
    mask. So what is seen under the mask is a function of pixels that are seen anyway, of the id and of the box; the
    hidden pixels, their mean included, do not enter.
    """
    return Hide(shaded_blocks, RIM)


def pixelate(engine: Engine | None, options: RestoreOptions, support: Support) -> Hide:
    """A true mosaic of few blocks. Weaker than `blocks`: who trains on mosaics can tell people apart."""
    return Hide(cell_means)


def blur(engine: Engine | None, options: RestoreOptions, support: Support) -> Hide:
    """A strong blur that is not invertible: a smooth interpolation of a few means, and nothing else is there to undo.

    As weak as a mosaic of so many blocks.
    """
    return Hide(smooth_means)


def solid(engine: Engine | None, options: RestoreOptions, support: Support) -> Hide:
    """One colour."""
    colour = as_colour(options.hide.colour)
    return Hide(lambda pixels, mask, region: np.broadcast_to(colour, pixels.shape))


def picture(engine: Engine | None, options: RestoreOptions, support: Support) -> Hide:
    """A picture of the user's, stretched over the region's box; the colour shows where it is transparent.

    Raises InputError for a file that is no picture, or for none.
    """
    if options.hide.picture is None:
        raise InputError("hiding under a picture needs its file; give it with --picture FILE")
    drawn = opened(options.hide.picture, as_colour(options.hide.colour))
    return Hide(lambda pixels, mask, region: stretched(drawn, pixels, region))


def review(engine: Engine | None, options: RestoreOptions, support: Support) -> Hide:
    """Hides nothing: draws each region's outline, coloured by how it is known, and its label into the region."""
    return Hide(outlined)


# --- covers


def whole_box(region: Region) -> Box:
    """The region's box as it was before the picture's edge cut it, as far as the outline tells."""
    if not region.outline:
        return region.box
    columns, rows = zip(*(point for polygon in region.outline for point in polygon), strict=True)
    return Box.between(min(columns), min(rows), max(columns) + 1, max(rows) + 1)


def shaded_blocks(pixels: Pixels, mask: Mask, region: Region) -> Pixels:
    colour = cv2.mean(pixels, (~mask).view(np.uint8))[:3] if not mask.all() else GREY
    box, (columns, rows) = whole_box(region), BLOCKS_CELLS
    # no block is cut off at black or white
    cells = np.clip(colour, SHADES, 1 - SHADES) + shades(region.id)[..., None]
    row = cells_of(pixels.shape[0], box.y, box.height, rows)
    column = cells_of(pixels.shape[1], box.x, box.width, columns)
    return cells.astype(np.float32)[row][:, column]


@lru_cache(maxsize=256)
def shades(number: int) -> npt.NDArray[np.float64]:
    """BLOCKS_CELLS of them, (rows, columns), in an order that the number draws."""
    columns, rows = BLOCKS_CELLS
    drawn = np.random.default_rng(abs(number)).permutation(np.linspace(-SHADES, SHADES, columns * rows))
    return drawn.reshape(rows, columns)


def cells_of(length: int, low: int, size: int, cells: int) -> npt.NDArray[np.int64]:
    """Of `cells` equal parts of low to low + size, the one that holds each of `length` px; the nearest beyond them."""
    part = np.floor((np.arange(length) + 0.5 - low) * cells / size).astype(np.int64)
    return np.clip(part, 0, cells - 1).astype(np.int64)


def cell_edges(pixels: Pixels, region: Region, cells: tuple[int, int]) -> tuple[mosaic.Edges, mosaic.Edges]:
    """Rows' and columns' edges of the cells that the region's whole box is cut into, as far as the crop shows them."""
    box = whole_box(region)
    return (
        mosaic.axis_edges(0, pixels.shape[0], max(1.0, box.height / cells[1]), box.y),
        mosaic.axis_edges(0, pixels.shape[1], max(1.0, box.width / cells[0]), box.x),
    )


def cell_means(pixels: Pixels, mask: Mask, region: Region) -> Pixels:
    return mosaic.pixelate(pixels, *cell_edges(pixels, region, PIXELATE_CELLS))


def smooth_means(pixels: Pixels, mask: Mask, region: Region) -> Pixels:
    y_edges, x_edges = cell_edges(pixels, region, BLUR_CELLS)
    means = mosaic.cell_sums(pixels, y_edges, x_edges) / mosaic.cell_areas(y_edges, x_edges)[..., None]
    smooth = mosaic.resample(mosaic.cells_to_pixels(y_edges), mosaic.cells_to_pixels(x_edges), means)
    return np.clip(smooth, 0, 1)  # bicubic interpolation goes a little beyond


def as_colour(colour: tuple[float, float, float]) -> Pixels:
    """(3,) float32. Raises InputError beyond [0, 1]."""
    if len(colour) != 3 or not all(0 <= value <= 1 for value in colour):
        raise InputError(f"expected a colour of three numbers from 0 to 1, got {colour}")
    return np.array(colour, np.float32)


def opened(path: Path, colour: Pixels) -> Pixels:
    """(H, W, 3) in [0, 1]: a picture's file laid over a colour. Raises InputError for what is none."""
    from restore_plugin import stills
    from restore_plugin.pipeline import as_pixels, reduced

    still = stills.read(path)
    drawn = as_pixels(still.pixels)
    if still.alpha is not None:
        alpha = still.alpha.astype(np.float32)[..., None] / np.iinfo(still.alpha.dtype).max
        drawn = drawn * alpha + colour * (1 - alpha)
    return reduced(drawn.astype(np.float32), LARGEST_PICTURE)


def stretched(drawn: Pixels, pixels: Pixels, region: Region) -> Pixels:
    box = whole_box(region)
    crop = Box(0, 0, pixels.shape[1], pixels.shape[0]).shift(-box.x, -box.y)
    smaller = box.width < drawn.shape[1] and box.height < drawn.shape[0]
    laid = cv2.resize(drawn, (box.width, box.height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    rows = np.clip(np.arange(crop.y, crop.bottom), 0, box.height - 1)
    columns = np.clip(np.arange(crop.x, crop.right), 0, box.width - 1)
    return laid[rows][:, columns]


def outlined(pixels: Pixels, mask: Mask, region: Region) -> Pixels:
    box, colour = whole_box(region), np.array(COLOURS[region.origin], np.float32)
    line_px = max(2, round(max(box.width, box.height) / 100))
    square = np.ones((2 * line_px + 1, 2 * line_px + 1), np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    out = np.where(inner[..., None] > 0, pixels, colour)
    ink = written(region.label, box, pixels.shape[:2], line_px - 1)
    edge = cv2.dilate(ink, np.ones((3, 3), np.uint8))  # dark, around the letters
    out = out * (1 - edge[..., None])
    return out + (colour - out) * ink[..., None]


def written(text: str, box: Box, shape: tuple[int, ...], thickness_px: int) -> Pixels:
    """(H, W) in [0, 1]: ink of a text across at most three fifths of the box, in its lower half."""
    drawn = np.zeros(shape[:2], np.uint8)
    (width_px, height_px), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.6 * box.width / max(width_px, 1), 0.15 * box.height / max(height_px, 1))
    at = (round(box.x + 0.2 * box.width), round(box.y + 0.75 * box.height))
    cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness_px, cv2.LINE_AA)
    return drawn.astype(np.float32) / 255
