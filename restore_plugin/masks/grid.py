"""The grid of a mosaic, measured: block size and phase along each axis, from the steps between pixels.

Inside a mosaic, brightness steps lie on the grid's lines and nowhere else. Along an axis the steps are summed across
it; the block size and phase are those of the comb of lines that collects the most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from restore_plugin.types import Luma, Mask

Profile = npt.NDArray[np.float64]

STRONGEST_STEP = 24 / 255  # one hard edge of the picture must not outweigh many lines
CLEAR = 0.85  # likeness of a comb that leaves no doubt
MULTIPLES = (2 / 3, 1.5, 0.5, 2.0, 1 / 3, 3.0)
SMALLEST = 3.5  # px
SEARCH = 0.25  # the first estimate may be off by this share


@dataclass(frozen=True)
class AxisGrid:
    block: float  # px
    phase: float  # px, position of one line
    contrast: float  # 0 to 1: how much stronger the steps are on the lines than off them


def step_profile(luma: Luma, mask: Mask, axis: int) -> Profile:
    """Mean step over the line between pixel i - 1 and pixel i, for i along `axis`, inside the mask; entry 0 is 0."""
    turned = luma if axis == 1 else luma.T
    inside = mask if axis == 1 else mask.T
    both = inside[:, 1:] & inside[:, :-1]
    steps = np.minimum(np.abs(np.diff(turned, axis=1)), STRONGEST_STEP) * both
    count = both.sum(axis=0)
    mean = steps.sum(axis=0) / np.maximum(count, 1)
    # lines that only a few pixels cross say little
    mean *= np.minimum(1.0, count / max(1.0, 0.25 * float(count.max(initial=1))))
    return np.concatenate(([0.0], mean))


def comb(profile: Profile, blocks: Profile, phases: Profile, low: int, high: int) -> Profile:
    """Mean of the profile on the lines phase + k * block in [low, high), for all pairs: (blocks, phases)."""
    score = np.zeros((len(blocks), len(phases)))
    for row, block in enumerate(blocks):
        lines = np.arange(0, int((high - low) / block) + 2)
        at = np.floor(low + phases[:, None] * block + lines * block + 0.5).astype(np.int64)
        valid = (at > low) & (at < high)
        values = np.where(valid, profile[np.minimum(at, len(profile) - 1)], 0.0)
        count = valid.sum(axis=1)
        score[row] = np.where(count > 0, values.sum(axis=1) / np.maximum(count, 1), 0.0)
    return score


def fit_axis(profile: Profile, guess: float) -> AxisGrid | None:
    """The comb of a mosaic whose block size is roughly `guess`; None where the profile shows no lines.

    The guess may be that of the other axis, and a comb that fits may hold a part of the lines only, or lines that are
    none: simple multiples of the size are tried too.
    """
    best = fit_near(profile, guess)
    if best is None:
        return None
    for start in (guess, best.block):
        if likeness(profile, best) > CLEAR:
            break
        sizes = [start * factor for factor in MULTIPLES if SMALLEST <= start * factor <= len(profile) / 2]
        others = [other for other in (fit_near(profile, size) for size in sizes) if other is not None]
        best = max([best, *others], key=lambda grid: likeness(profile, grid))
    return best


def likeness(profile: Profile, grid: AxisGrid) -> float:
    """0 to 1: the lines carry steps (all of them), and the steps lie on the lines (all of them): both, as F1."""
    line = np.floor(grid.phase % grid.block + np.arange(len(profile) / grid.block + 1) * grid.block + 0.5).astype(int)
    line = line[(line > 0) & (line < len(profile))]
    above = np.maximum(profile - 1.5 * np.median(profile), 0.0)
    near = np.concatenate((above[1:], [0.0])), above, np.concatenate(([0.0], above[:-1]))
    on = np.max(near, axis=0)[line]  # a line may be off by the rounding of a pixel
    if not len(line) or on.max() <= 0:
        return 0.0
    beside = np.ones(len(profile), bool)
    for offset in (-1, 0, 1):
        beside[np.clip(line + offset, 0, len(profile) - 1)] = False
    filled = float(np.minimum(on / np.quantile(on, 0.75), 1.0).mean()) if np.quantile(on, 0.75) > 0 else 0.0
    explained = float(on.sum() / (on.sum() + above[beside].sum()))
    return 2 * filled * explained / (filled + explained) if filled else 0.0


def fit_near(profile: Profile, guess: float) -> AxisGrid | None:
    """The comb nearest to a guessed block size; None where the profile shows no lines.

    First over the dozen blocks with the most steps, then over longer and longer spans, each time within what the span
    before left open.
    """
    length = len(profile)
    if length < 3 or profile.sum() <= 0:
        return None
    span = min(length, max(round(12 * guess), 24))
    energy = np.convolve(profile, np.ones(span), "valid")
    low = int(np.argmax(energy))
    centre, spread = guess, guess * SEARCH
    best_block, best_phase = guess, 0.0
    while True:
        high = min(length, low + span)
        low = max(0, high - span)
        lines = max(1.0, (high - low) / centre)
        step = max(0.002, 0.25 / lines)
        blocks = np.arange(centre - spread, centre + spread + step / 2, step)
        # most mosaics have whole blocks: where a whole one explains the steps as well as any other, it is taken
        whole = np.arange(np.ceil(blocks[0]), np.floor(blocks[-1]) + 1)
        blocks = np.concatenate((whole, blocks))
        blocks = blocks[blocks >= 2.0]
        phases = np.arange(0.0, 1.0, min(0.25, 0.5 / centre))
        score = comb(profile, blocks, phases, low, high)
        top = score.max()
        # several neighbours round to the same lines: take the middle of the best ones
        rows, columns = np.nonzero(score >= top - 1e-9)
        tied = blocks[rows]
        is_whole = tied == np.round(tied)
        middle = np.median(tied[is_whole] if is_whole.any() else tied)
        row = rows[np.argmin(np.abs(tied - middle))]
        best_block = float(blocks[row])
        same = phases[columns[rows == row]]
        turn = np.exp(2j * np.pi * same).mean()
        best_phase = low + (float(np.angle(turn)) / (2 * np.pi)) % 1.0 * best_block
        if span >= length:
            break
        centre, spread = best_block, 1.0 / lines
        low, span = low - span, min(length, span * 3)
        low = max(0, low)
    lines_at = np.floor(best_phase + np.arange(-length, length) * best_block + 0.5).astype(np.int64)
    on = np.zeros(length, bool)
    on[lines_at[(lines_at > 0) & (lines_at < length)]] = True
    if not on.any() or on[1:].all():
        return None
    beside = np.convolve(on, [1, 1, 1], "same") > 0  # compression smears a line by a pixel
    off = ~beside if (~beside[1:]).any() else ~on
    strength, rest = float(profile[on].mean()), float(profile[1:][off[1:]].mean())
    if strength <= 0:
        return None
    return AxisGrid(best_block, best_phase, max(0.0, (strength - rest) / (strength + rest + 0.25 / 255)))
