"""What is laid over a face: its box made larger, as an ellipse or a box, steady while the face moves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from restore_plugin.masks.quads import Quad
from restore_plugin.types import Box, Point, Region, ScanOptions

CORNERS = 32  # of the polygon that stands for an ellipse
STEADY = 2  # frames to either side over which a cover is steadied
SOFT = 0.08  # of half a cover's side: how wide its edge fades; less than what the margin adds to a face
MOTION = 0.6  # of a frame's movement is added to either side: a moving face is smeared over its way


def cover(
    quad: Quad | Sequence[float],
    width: int,
    height: int,
    options: ScanOptions,
    motion: Quad | Sequence[float] = (0.0, 0.0),
) -> Region:
    """The region over a face at x0, y0, x1, y1, in a picture of width x height px. `motion` (x, y): px a frame."""
    x0, y0, x1, y1 = (float(value) for value in quad)
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    # a face's box is higher than wide by about 1.3; one seen from the side is narrow, but the head is not
    side_x = max(x1 - x0, 0.7 * (y1 - y0)) / 2 * options.margin + abs(float(motion[0])) * MOTION + 1
    side_y = (y1 - y0) / 2 * options.margin + abs(float(motion[1])) * MOTION + 1
    box = Box.between(
        math.floor(middle_x - side_x),
        math.floor(middle_y - side_y),
        math.ceil(middle_x + side_x),
        math.ceil(middle_y + side_y),
    )
    inside = box.intersect(Box(0, 0, width, height))
    if inside.area == 0:  # a face that has left: nothing to cover
        inside = Box(int(np.clip(box.x, 0, width - 1)), int(np.clip(box.y, 0, height - 1)), 1, 1)
    outline = () if options.boxes else (ellipse(middle_x, middle_y, side_x, side_y),)
    added = 1 - 1 / options.margin  # of a cover's side, beyond the face
    return Region(inside, outline=outline, soft=round(min(SOFT, added / 2) * min(side_x, side_y)))


def ellipse(x: float, y: float, side_x: float, side_y: float) -> tuple[Point, ...]:
    """A polygon around an ellipse, not inside it."""
    turns = np.arange(CORNERS) * (2 * math.pi / CORNERS)
    around = 1 / math.cos(math.pi / CORNERS)
    points = np.stack((x + side_x * around * np.cos(turns), y + side_y * around * np.sin(turns)), 1)
    return tuple((int(px), int(py)) for px, py in np.round(points))


def steadied_ways(frames: Sequence[int], quads: Quad) -> tuple[Quad, Quad]:
    """`steadied`, for each way on its own: a new one begins where the frames go back."""
    starts = np.flatnonzero(np.diff(frames) <= 0) + 1
    steady, motion = zip(*(steadied(way) for way in np.split(quads, starts)), strict=True)
    return np.concatenate(steady), np.concatenate(motion)


def steadied(quads: Quad) -> tuple[Quad, Quad]:
    """Boxes (n, 4) of one face in n frames on end, without their tremble, never smaller than they were; and the
    middle's movement (n, 2) in px a frame."""
    middles = (quads[:, :2] + quads[:, 2:]) / 2
    sides = quads[:, 2:] - quads[:, :2]
    largest = windows(sides).max(1)
    smooth_middles, smooth_sides = windows(middles).mean(1), windows(largest).mean(1)
    smooth = np.concatenate((smooth_middles - smooth_sides / 2, smooth_middles + smooth_sides / 2), 1)
    hull = np.concatenate((np.minimum(smooth[:, :2], quads[:, :2]), np.maximum(smooth[:, 2:], quads[:, 2:])), 1)
    steps = np.abs(np.diff(middles, axis=0, prepend=middles[:1]))
    return hull.astype(np.float32), windows(steps).max(1).astype(np.float32)


def windows(values: Quad) -> Quad:
    """(n, 2 * STEADY + 1, k): every row of (n, k) with the rows around it; at the ends the last one again."""
    count = len(values)
    places = np.clip(np.arange(count)[:, None] + np.arange(-STEADY, STEADY + 1), 0, count - 1)
    return values[places]
