"""Poisson blending: a part of one picture in another without a seam (Perez, Gangnet & Blake, SIGGRAPH 2003).

Inside of the mask the steps from pixel to pixel are the source's (or, mixed, those of the source or the target,
whichever are larger), and at its border the colours are the target's: eq. 7 and 8, 11 to 13. What is solved for is what
must be added to the source.
"""

from __future__ import annotations

import numpy as np

from restore_plugin.classical.multigrid import BoolArray, Check, FloatArray, border, pieces, solve


def poisson(
    source: FloatArray,
    target: FloatArray,
    mask: BoolArray,
    mixed: bool = False,
    check: Check = lambda share: None,
) -> FloatArray:
    """`target` (H, W, 3) float32 in [0, 1], and where `mask` (H, W) is True the source, blended in; in [0, 1].

    The source has the target's shape; it is used in the mask and one pixel around it. `mixed` keeps the larger of both
    pictures' steps, for a source with a plain ground. Where the mask touches the picture's border, nothing is
    asked there. Pixels out of the mask are the target's, bit for bit. `check` hears now and then which share is
    done, and may raise. Raises ValueError for other shapes, and for a mask that leaves nothing of the target.
    """
    if source.shape != target.shape or mask.shape != target.shape[:2]:
        expected, got = f"{target.shape} and {target.shape[:2]}", f"{source.shape} and {mask.shape}"
        raise ValueError(f"expected a source and a mask of the target's size, {expected}, got {got}")
    if mask.all():
        raise ValueError("expected a mask that leaves some of the target, got one that hides all; mask less")
    found = target.copy()
    for place, inside, ask in pieces(mask, check):
        ours, theirs = source[place].astype(np.float32), target[place]
        force = mixing(ours, theirs, inside) if mixed else None
        added = solve(theirs - ours, inside, border(inside), force, check=ask)
        found[place][inside] = np.clip(ours + added, 0, 1)[inside]
    return found


def mixing(source: FloatArray, target: FloatArray, inside: BoolArray) -> FloatArray:
    """What eq. 12 adds to the source's own steps: the sum, over a pixel's neighbours, of the target's larger ones."""
    force = np.zeros_like(source)
    for axis in (0, 1):
        ours, theirs = np.diff(source, axis=axis), np.diff(target, axis=axis)
        more = np.where(np.abs(theirs) > np.abs(ours), theirs - ours, np.float32(0))
        first, second = halves(axis)
        force[first] -= more
        force[second] += more
    force[~inside] = 0
    return force


def halves(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Of all pairs of neighbours along an axis, the first ones and the second ones."""
    return (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
