"""The grid of a mosaic, measured: block size and phase along each axis, from the steps between pixels.

Inside a mosaic, brightness steps lie on the grid's lines and nowhere else. Along an axis the steps are summed across
it; the block size and phase are those of the comb of lines that collects the most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from restore_plugin.types import Luma, Mask

Profile = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STRONGEST_STEP = 24 / 255  # one hard edge of the picture must not outweigh many lines
CLEAR, DOUBTFUL = 0.85, 0.7  # likeness of a comb that needs no other beside it; that may be anywhere
BETTER = 0.1  # likeness by which another comb must excel the one that was guessed
MULTIPLES = (2 / 3, 1.5, 0.5, 2.0, 1 / 3, 3.0)
SMALLEST = 3.5  # px
SEARCH = 0.25  # the first estimate may be off by this share
NARROW_SEARCH = 0.02  # and a multiple of one that was found by this
SIDES = np.array([0, -1, 1])  # px from where a line should be
SETTLING, FITS = 4, 2001  # times at most that a comb is fitted to the lines it finds, and blocks tried each time
LEAST_GAIN, SEVERAL = 1e-6, 6  # it must excel the one before by a share of its steps, and by so many that are no line


@dataclass(frozen=True)
class AxisGrid:
    block: float  # px
    phase: float  # px, position of one line
    contrast: float  # 0 to 1: how much stronger the steps are on the lines than off them
    step: float  # mean of the steps on the lines, of values in [0, 1]


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
    padded = np.concatenate((profile[low:high], [0.0]))
    score = np.empty((len(blocks), len(phases)))
    rows = max(1, 200_000 // (len(phases) * (int((high - low) / blocks.min()) + 2)))  # at once, to stay in the cache
    for first in range(0, len(blocks), rows):
        block = blocks[first : first + rows, None, None]
        lines = np.arange(int((high - low) / float(block.min())) + 2)
        at = np.ceil((phases[:, None] + lines) * block - 0.5).astype(np.int32)
        valid = (at > 0) & (at < high - low)
        values = padded[np.where(valid, at, high - low)]
        score[first : first + rows] = values.sum(axis=2) / np.maximum(valid.sum(axis=2), 1)
    return score


def fit_axis(profile: Profile, guess: float) -> AxisGrid | None:
    """The comb of a mosaic whose block size is roughly `guess`; None where the profile shows no lines.

    The guess may be that of the other axis, and a comb that fits may hold a part of the lines only, or lines that are
    none: simple multiples of the size are tried too.
    """
    best = fit_near(profile, guess)
    if best is None:
        return None
    like = Likeness(profile)
    reached = like(best)
    for start, search, enough in ((best.block, NARROW_SEARCH, CLEAR), (guess, SEARCH, DOUBTFUL)):
        if reached > enough:
            continue
        for size in (start * factor for factor in MULTIPLES):
            if not SMALLEST <= size <= len(profile) / 2:
                continue
            other = fit_near(profile, size, search)
            if other is not None and (found := like(other)) > reached + BETTER:
                best, reached = other, found
    return settled(profile, best)


class Likeness:
    """Of a profile to combs, up to 1: all lines carry steps, and all steps lie on lines.

    F1 of the two, each counted over what chance gives a comb as dense.
    """

    def __init__(self, profile: Profile) -> None:
        self.steps = np.maximum(profile - 1.5 * np.median(profile), 0.0)
        # a line may be off by the rounding of a pixel
        self.near = self.steps.copy()
        np.maximum(self.near[:-1], self.steps[1:], out=self.near[:-1])
        np.maximum(self.near[1:], self.steps[:-1], out=self.near[1:])
        self.total = float(self.steps.sum())

    def __call__(self, grid: AxisGrid) -> float:
        length = len(self.steps)
        lines = np.ceil(grid.phase % grid.block + np.arange(length / grid.block + 1) * grid.block - 0.5).astype(int)
        lines = lines[(lines > 0) & (lines < length)]
        if not len(lines):
            return 0.0
        strong = float(np.sort(self.near[lines])[len(lines) * 3 // 4])
        if strong <= 0:
            return 0.0
        on = np.zeros(length + 1, bool)
        on[lines] = on[lines - 1] = on[lines + 1] = True
        on = on[:-1]
        full = np.minimum(self.near / strong, 1.0)
        filled = above_chance(float(full[lines].mean()), float(full.mean()))
        explained = above_chance(float(self.steps[on].sum()) / self.total, float(on.mean()))
        return 2 * filled * explained / (filled + explained) if filled and explained else 0.0


def lines_at(length: int, block: float, phase: float) -> tuple[IntArray, IntArray]:
    """Which lines of a comb lie in a profile, by number, and at which of its entries (as in mosaic.axis_edges)."""
    numbers = np.arange(-length, length)
    at = np.ceil(phase + numbers * block - 0.5).astype(np.int64)
    inside = (at > 0) & (at < length)
    return numbers[inside], at[inside]


def settled(profile: Profile, grid: AxisGrid) -> AxisGrid:
    """The comb nearby whose lines round to where the steps are, if there is one that collects more of them.

    A search in steps leaves lines that round to the pixel beside theirs. Each line is looked for among its neighbours;
    of blocks of about this size the one is taken from which the lines found are least far at most (Chebyshev's fit).
    """
    for _ in range(SETTLING):
        numbers, at = lines_at(len(profile), grid.block, grid.phase)
        near = np.stack([profile[np.clip(at + side, 0, len(profile) - 1)] for side in SIDES])
        second, first = np.sort(near, axis=0)[1:]
        clear = first > 2 * second  # others may be anywhere
        if clear.sum() < 3:
            break
        found = (at + SIDES[near.argmax(axis=0)])[clear]
        spread = 1.5 / np.ptp(numbers)
        blocks = np.linspace(grid.block - spread, grid.block + spread, FITS)
        starts = found - blocks[:, None] * numbers[clear]
        row = int(np.argmin(np.ptp(starts, axis=1)))
        better = replace(grid, block=float(blocks[row]), phase=float(starts[row].min() + starts[row].max()) / 2)
        on = profile[lines_at(len(profile), better.block, better.phase)[1]]
        beside = max(0.0, profile.sum() - on.sum()) / max(1, len(profile) - len(on))  # compression's; else about zero
        if on.sum() - profile[at].sum() <= LEAST_GAIN * on.sum() + SEVERAL * beside:
            break
        grid = better
    return grid


def above_chance(share: float, chance: float) -> float:
    return max(0.0, share - chance) / (1.0 - chance) if chance < 1 else 0.0


def fit_near(profile: Profile, guess: float, search: float = SEARCH) -> AxisGrid | None:
    """The comb nearest to a guessed block size, off by `search` of it at most; None where the profile shows no lines.

    First over the dozen blocks with the most steps, then over longer and longer spans, each time within what the span
    before left open.
    """
    length = len(profile)
    if length < 3 or profile.sum() <= 0:
        return None
    span = min(length, max(round(12 * guess), 24))
    energy = np.convolve(profile, np.ones(span), "valid")
    low = int(np.argmax(energy))
    centre, spread = guess, guess * search
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
    on = np.zeros(length, bool)
    on[lines_at(length, best_block, best_phase)[1]] = True
    if not on.any() or on[1:].all():
        return None
    beside = np.convolve(on, [1, 1, 1], "same") > 0  # compression smears a line by a pixel
    off = ~beside if (~beside[1:]).any() else ~on
    strength, rest = float(profile[on].mean()), float(profile[1:][off[1:]].mean())
    if strength <= 0:
        return None
    contrast = max(0.0, (strength - rest) / (strength + rest + 0.25 / 255))
    return AxisGrid(best_block, best_phase, contrast, strength)
