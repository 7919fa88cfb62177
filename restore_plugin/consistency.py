"""Projections that keep what was measured: a restored mosaic, pixelated again, is the mosaic it came from."""

from __future__ import annotations

import numpy as np

from restore_plugin import mosaic
from restore_plugin.mosaic import Edges, FloatArray
from restore_plugin.types import Mask, Pixels

ROUNDS, ROUGH_ROUNDS = 40, 8  # with exact means, with a tolerance
FIRM = 0.9  # share of a cell that must be under the mask
HALF_LEVEL = 0.5 / 255
DUST = 1e-5  # a tolerance below this is arithmetic, not compression
CLOSE = 2e-5  # of [0, 1]: cell means as near as this count as kept


def keep_means(
    pixels: Pixels,
    mask: Mask,
    means: FloatArray,
    y_edges: Edges,
    x_edges: Edges,
    tolerance: float = 0.0,
    linear_light: bool = False,
) -> Pixels:
    """The nearest picture in [0, 1] whose cells have these means; only pixels under the mask move.

    `means` (rows, columns, 3) is what each cell shows. A mean may miss by `tolerance` ([0, 1]; compression moved it by
    about that much). Where it did, cells of which the mask leaves less than FIRM to move are left alone: what few
    pixels must make up for a whole cell would be the outline's error, not the picture. Pixels at 0 or 1 cannot move
    on, so the rest of their cell makes up for them: alternating projections onto the means and the range, which
    converge as both are convex (Bregman 1965). Cells that cannot reach their mean at all (the mask is wrong there)
    keep their pixels.
    """
    values = mosaic.srgb_to_linear(pixels) if linear_light else np.clip(pixels, 0.0, 1.0)
    target = mosaic.srgb_to_linear(means) if linear_light else means
    inside = np.broadcast_to(mask[..., None], values.shape)
    areas = mosaic.cell_areas(y_edges, x_edges)[..., None]
    hidden = mosaic.cell_sums(mask.astype(np.float32), y_edges, x_edges)[..., None]
    if tolerance < DUST:
        tolerance = 0.0
    known = mosaic.cell_sums(np.where(inside, 0.0, values).astype(np.float32), y_edges, x_edges)
    needed = (target * areas - known) / np.maximum(hidden, 1)
    rounding = HALF_LEVEL * areas / np.maximum(hidden, 1) + CLOSE  # what a mean of 8 bits may ask for too much
    reachable = (needed > -rounding) & (needed < 1 + rounding) & (hidden > 0)
    movable = reachable & (hidden >= FIRM * areas) if tolerance else reachable
    slack = tolerance * areas
    for _ in range(ROUGH_ROUNDS if tolerance else ROUNDS):
        miss = target * areas - mosaic.cell_sums(values, y_edges, x_edges)
        miss = np.where(movable, np.sign(miss) * np.maximum(np.abs(miss) - slack, 0.0), 0.0)
        if np.abs(miss / areas).max() < CLOSE:
            break
        upward = mosaic.spread((miss > 0).astype(np.float32), y_edges, x_edges) > 0
        free = inside & np.where(upward, values < 1.0, values > 0.0)
        room = mosaic.cell_sums(free.astype(np.float32), y_edges, x_edges)
        step = np.where(room > 0, miss / np.maximum(room, 1), 0.0).astype(np.float32)
        if np.abs(step).max() < CLOSE:  # what still misses has no pixel left that could move
            break
        values = np.clip(values + np.where(free, mosaic.spread(step, y_edges, x_edges), 0.0), 0.0, 1.0)
    return mosaic.linear_to_srgb(values) if linear_light else values.astype(np.float32)
