"""From frame to crop and back: the one place where regions are cut out and pasted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from restore_plugin.types import Box, Frame, Mask, Region, Restorer


def clip(region: Region, width: int, height: int) -> Region | None:
    """The part of a region inside the picture; None if there is none. The grid stays where it was."""
    box = region.box.intersect(Box(0, 0, width, height))
    if box.area == 0:
        return None
    if box == region.box:
        return region
    corners = ((box.x, box.y), (box.right - 1, box.y), (box.right - 1, box.bottom - 1), (box.x, box.bottom - 1))
    return replace(region, box=box, outline=region.outline or (corners,))


def restore_frame(frame: Frame, regions: Sequence[Region], restorer: Restorer) -> int:
    """Restore every region of a frame in place; returns how many."""
    whole = Box(0, 0, frame.width, frame.height)
    done = 0
    for region in regions:
        inside = clip(region, frame.width, frame.height)
        if inside is None:
            continue
        around = inside.box.grow(*restorer.margin(inside), within=whole)
        pixels = frame.read_rgb(around)
        local = inside.shift(-around.x, -around.y)
        mask: Mask = np.zeros(pixels.shape[:2], bool)
        mask[local.box.slices] = inside.mask()
        out = restorer(pixels, mask, (), local)
        rows, columns = local.box.slices
        frame.write_rgb(inside.box, out[rows, columns], mask[rows, columns])
        done += 1
    return done
