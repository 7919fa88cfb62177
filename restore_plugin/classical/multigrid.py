"""The sum of a pixel's differences from its neighbours is given inside of a region, the colours are given around it.

Blending (restore_plugin.classical.blend) and smooth fills (restore_plugin.classical.harmonic) solve this. Conjugate
gradients, each step helped by a multigrid cycle (Brandt 1977): the time grows with the region's area, and scipy is not
needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Check: TypeAlias = Callable[[float], None]  # hears now and then which share is done, and may raise

TOLERANCE = 1e-4  # of the sum of a pixel's differences: then the picture is within a tenth of one of 256 values
CYCLES = 60  # at most
COARSEST = 4  # px to either side
SWEEPS = 2  # of smoothing, before and after each coarser grid
DAMPING = np.float32(0.8)
CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)


def part(check: Check, start: float, stop: float) -> Check:
    """For a step that tells shares of itself, and is this part of a whole that `check` hears of."""
    return lambda share: check(start + (stop - start) * share)


def around(values: FloatArray) -> FloatArray:
    """The sum of every pixel's four neighbours in the picture, of (H, W, C)."""
    total = cv2.filter2D(values, cv2.CV_32F, CROSS, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(total, np.float32).reshape(values.shape)  # OpenCV drops a last axis of 1


def border(inside: BoolArray) -> BoolArray:
    """The pixels that are not inside, but have a neighbour that is."""
    return (around(inside.astype(np.float32)[..., None])[..., 0] > 0) & ~inside


def pieces(mask: BoolArray, check: Check) -> Iterator[tuple[tuple[slice, slice], BoolArray, Check]]:
    """The connected parts of a mask, which do not depend on each other: where each and its border lie, itself, and whom
    to tell how far it is."""
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    shares = np.cumsum(boxes[:, cv2.CC_STAT_AREA] * (np.arange(len(boxes)) > 0)) / max(1, int(mask.sum()))
    for number, (x, y, width, height, _) in enumerate(boxes[1:], 1):
        place = slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)
        yield place, labels[place] == number, part(check, float(shares[number - 1]), float(shares[number]))


@dataclass(frozen=True)
class Grid:
    """One level: `hole` (H, W, 1) is 1 where there is something to find; `degree`, how many neighbours count there."""

    hole: FloatArray
    degree: FloatArray

    def residual(self, found: FloatArray, wanted: FloatArray) -> FloatArray:
        """What is missing for a pixel's differences from its neighbours to sum up to `wanted`."""
        return (wanted - self.degree * found + around(found)) * self.hole

    def smoothed(self, found: FloatArray, wanted: FloatArray, sweeps: int) -> FloatArray:
        step = (DAMPING * self.hole / np.maximum(self.degree, 1)).astype(np.float32)
        for _ in range(sweeps):  # of Jacobi, damped
            found = found + step * self.residual(found, wanted)
        return found


def solve(
    known: FloatArray,
    inside: BoolArray,
    ring: BoolArray,
    force: FloatArray | None = None,
    tolerance: float = TOLERANCE,
    check: Check = lambda share: None,
) -> FloatArray:
    """(H, W, C), 0 but inside: there, a pixel's differences from its neighbours sum up to `force` (None: to zero).

    `known` is what the ring holds; neighbours out of the picture are left out. No sum is off by more than `tolerance`.
    `check` hears which share of the digits that it needs it has, and may raise.
    """
    known = np.where(ring[..., None], known, np.float32(0))
    grids = pyramid(inside, ring)
    hole = grids[0].hole
    found = np.zeros_like(known)
    residual = (around(known) if force is None else around(known) + force) * hole
    direction, before, power = found, found, np.ones(known.shape[2])
    worst = tolerance
    for _ in range(CYCLES):
        off = float(np.abs(residual).max(initial=0))
        if off <= tolerance:
            return found
        worst = max(worst, off)
        check(1 - math.log(off / tolerance) / math.log(worst / tolerance))
        helped = cycle(grids, residual)
        ahead = dot(helped, residual - before)
        direction = helped + (ahead / power).astype(np.float32) * direction
        before, power = residual, positive(dot(helped, residual))
        turned = -grids[0].residual(direction, np.zeros_like(direction))
        length = (power / positive(dot(direction, turned))).astype(np.float32)
        found, residual = found + length * direction, residual - length * turned
    raise ArithmeticError(
        f"expected to settle in {CYCLES} steps, still {np.abs(residual).max():.2g} off; please report it"
    )


def dot(one: FloatArray, other: FloatArray) -> npt.NDArray[np.float64]:
    return np.einsum("ijk,ijk->k", one, other, dtype=np.float64)


def positive(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(values, 1e-30)


def pyramid(inside: BoolArray, ring: BoolArray) -> list[Grid]:
    """Grids of half the size each, until nothing lies inside or the grid is small."""
    grids = []
    while True:
        hole = inside.astype(np.float32)[..., None]
        grids.append(Grid(hole, around((inside | ring).astype(np.float32)[..., None]) * hole))
        if max(inside.shape) <= COARSEST or not inside.any():
            return grids
        ring, inside = reduced(ring)[..., 0] > 0, reduced(inside)[..., 0] > 0
        inside = inside & ~ring


def cycle(grids: Sequence[Grid], wanted: FloatArray) -> FloatArray:
    """About what solves for `wanted`, with zero on the ring: a V-cycle (Brandt 1977)."""
    grid = grids[0]
    found = grid.smoothed(np.zeros_like(wanted), wanted, SWEEPS if len(grids) > 1 else 8 * SWEEPS)
    if len(grids) > 1:
        height, width = wanted.shape[:2]
        coarse = cycle(grids[1:], 4 * reduced(grid.residual(found, wanted)) * grids[1].hole)
        size = (2 * coarse.shape[1], 2 * coarse.shape[0])
        finer = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
        found = grid.smoothed(found + finer * grid.hole, wanted, SWEEPS)
    return found


def reduced(values: npt.NDArray[np.generic]) -> FloatArray:
    """Means of 2x2 of (H, W) or (H, W, C), as (h, w, C); odd sides get zeros first."""
    height, width = values.shape[:2]
    even = np.zeros((height + height % 2, width + width % 2, values[0, 0].size), np.float32)
    even[:height, :width] = values.reshape(height, width, -1)
    means = cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.float32).reshape(even.shape[0] // 2, even.shape[1] // 2, -1)
