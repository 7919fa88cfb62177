"""Boxes that need not lie on whole pixels: x0, y0, x1, y1."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from restore_plugin.types import Box

Quad: TypeAlias = npt.NDArray[Any]  # (4,) or (n, 4) float32: x0, y0, x1, y1 in px


def middle(quad: Quad) -> Quad:
    return (quad[:2] + quad[2:]) / 2


def shifted(quad: Quad, by: Quad) -> Quad:
    return quad + np.concatenate((by, by)).astype(np.float32)


def size(quad: Quad) -> float:
    return float(np.sqrt(max(1.0, (quad[2] - quad[0]) * (quad[3] - quad[1]))))


def quad_of(box: Box) -> Quad:
    return np.array([box.x, box.y, box.right, box.bottom], np.float32)


def common_area(a: Quad, b: Quad) -> float:
    width, height = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    return float(width * height)


def common_share(a: Quad, b: Quad) -> float:
    """Intersection over the smaller of two boxes."""
    return common_area(a, b) / min(size(a), size(b)) ** 2


def covered_share(a: Quad, b: Quad) -> float:
    """How much of the first box lies in the second."""
    return common_area(a, b) / size(a) ** 2


def resized(quad: Quad, by: float) -> Quad:
    """The same middle, sides `by` times as long."""
    centre, half = middle(quad), (quad[2:] - quad[:2]) / 2 * by
    return np.concatenate((centre - half, centre + half))
