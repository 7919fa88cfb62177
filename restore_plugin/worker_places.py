"""The places that a client of the worker tells: read with suspicion, or touched by its mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from restore_plugin.errors import InputError, NothingFound
from restore_plugin.pipeline import ArrayFrame
from restore_plugin.plan import check_inside, region_from_json
from restore_plugin.types import Box, Region
from restore_plugin.worker_messages import FURTHEST_PX


def read_regions(given: Sequence[Any], frame: ArrayFrame) -> list[Region]:
    try:
        regions = [region_from_json(entry) for entry in given]
        for region in regions:
            points = [value for polygon in region.outline for point in polygon for value in point]
            if not all(abs(value) <= FURTHEST_PX for value in (*points, *region.phase, *(region.block or ()))):
                raise ValueError(f"expected places within {FURTHEST_PX} px")
            if not math.isfinite(region.confidence):
                raise ValueError("expected a confidence from 0 to 1")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        why = f"{type(error).__name__}: {str(error)[:100]}"
        raise InputError(f"expected regions as the worker writes them, got others: {why}") from None
    if not regions:
        raise NothingFound("an empty list of regions was given, so there is nothing to restore")
    check_inside(regions, (frame.width, frame.height))
    return regions


def touched(regions: Sequence[Region], mask: npt.NDArray[Any] | None) -> list[Region]:
    if mask is None:
        return list(regions)
    return [region for region in regions if (region.mask() & (mask[region.box.slices] > 0)).any()]


def around(regions: Sequence[Region], frame: ArrayFrame) -> Box:
    """What the regions cover of the picture."""
    boxes = [region.box for region in regions]
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    all_ = Box.between(left, top, max(box.right for box in boxes), max(box.bottom for box in boxes))
    return all_.intersect(Box(0, 0, frame.width, frame.height))
