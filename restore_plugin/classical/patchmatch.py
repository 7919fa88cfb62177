"""Fill a hole with what the rest of the picture is made of: patches that fit together (Wexler, Shechtman & Irani 2007).

Every patch that touches the hole looks for the known patch that it is most like, and the pixels of the hole become the
mean of what all patches over them propose; repeated, from coarse to fine. The search is PatchMatch (Barnes, Shechtman,
Finkelstein & Goldman, SIGGRAPH 2009): a good place for one patch is tried, shifted, for its neighbours, and random
places around it are tried in ever smaller circles. All patches are tried at once, as arrays; neighbours are taken at
several distances, as in jump flooding (Rong & Tan 2006), in place of the paper's scan.

At last the patches' own steps from pixel to pixel are kept, and their colours follow what lies around the hole
(restore_plugin.classical.blend).

Like is who has like pixels, those near known ones counting most, and lies where a first guess has like colours: without
the guess, a thin hole in the sky may be filled with leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin.classical.blend import poisson
from restore_plugin.classical.multigrid import Check, part

FloatArray: TypeAlias = npt.NDArray[Any]  # float32
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[Any]  # int32

RADIUS = 3  # px: patches are 7 x 7
SIDE = 2 * RADIUS + 1
THIRDS = 3  # patches are compared in three steps: whoever is worse after one is not looked at any longer
PLACES = sorted(((y, x) for y in range(SIDE) for x in range(SIDE)), key=lambda place: (place[0] + place[1]) % THIRDS)
CHUNK = 16384  # patches compared at once: their pixels stay in the cache
SMALL_HOLE = 2 * RADIUS  # px: at the coarsest level no pixel of the hole is further from its border
LEAST_SOURCES = 64  # known patches: with fewer there is nothing to choose from
FADING = 1.3  # each px deeper in the hole, a pixel counts less by this
DEEPEST = 30  # px: from here on no less
GUIDE = 4.0  # weight of a smooth guess's colours, chosen on photographs: 0 to 16 were tried
NEARNESS = 0.03  # of patches on the other side of the picture, as a mean of squares: nearer ones are likelier
SPREAD = 0.75  # Wexler et al. 2007: the quantile of all distances that is taken for their spread
SHARPNESS = 4.0  # times more sharply than in the paper, which blurs
FAINTEST = 60.0  # exponent: no vote is quite zero
FOUND = 0.9  # about which share of the time has gone by when all patches are found


@dataclass(frozen=True)
class PatchOptions:
    """How long is searched. `rounds` of search and vote at the coarsest level, two fewer at each finer one, but
    `least_rounds`; there, places at most `near` px away are tried. `guide`: how much the first guess's colours count.
    """

    rounds: int = 6
    least_rounds: int = 1
    near: int = 4
    seed: int = 0
    guide: float = GUIDE


@dataclass
class Work:
    """How far it is: `total` and `done` count the hole's pixels, once for each place that their patches try."""

    total: int = 1
    check: Check = lambda share: None
    done: int = 0

    def add(self, pixels: int = 0) -> None:
        self.done += pixels
        self.check(min(self.done / max(self.total, 1), 1.0))


@dataclass(frozen=True)
class Level:
    """A picture at one scale, with a border of RADIUS px that is in no hole and no source; flat indices go into it."""

    picture: FloatArray  # (H, W, 3), changed as the hole is filled
    guess: FloatArray  # (H, W, 3): local means of it as it was given
    hole: BoolArray
    is_known: BoolArray  # whose patch has no hidden pixel
    certain: FloatArray  # (H, W): how far a pixel counts: in the hole less the deeper it lies
    targets: IntArray  # flat indices of patches that touch the hole
    guided: float  # how much the guess counts
    work: Work
    weight: FloatArray = field(init=False)  # of each target's pixels, together

    def __post_init__(self) -> None:
        window = cv2.boxFilter(self.certain, cv2.CV_32F, (SIDE, SIDE), normalize=False)
        object.__setattr__(self, "weight", window.reshape(-1)[self.targets])

    @property
    def shape(self) -> tuple[int, int]:
        return self.hole.shape[0], self.hole.shape[1]

    def step(self, y: int, x: int) -> int:
        """From a patch's middle to one of PLACES."""
        return (y - RADIUS) * self.shape[1] + x - RADIUS

    def apart(self, ours: IntArray, theirs: IntArray) -> FloatArray:
        """How far patches are from each other, 1 for the picture's longer side."""
        (y, x), (other_y, other_x) = np.divmod(ours, self.shape[1]), np.divmod(theirs, self.shape[1])
        return np.hypot(y - other_y, x - other_x, dtype=np.float32) / np.float32(max(self.shape))

    def slots(self) -> IntArray:
        """(H * W,): which target a pixel is; -1 for none."""
        slots = np.full(self.hole.size, -1, np.int32)
        slots[self.targets] = np.arange(self.targets.size, dtype=np.int32)
        return slots


def fill(
    picture: FloatArray,
    mask: BoolArray,
    options: PatchOptions | None = None,
    check: Check = lambda share: None,
) -> FloatArray:
    """`picture` (H, W, 3) float32 in [0, 1] with a first guess under `mask` (H, W): there, patches from elsewhere.

    Pixels outside of the mask are as they were, bit for bit. The guess comes back where the picture has too few known
    patches to take from. The same seed gives the same picture. `check` hears often which share is done, and may raise.
    """
    options = options or PatchOptions()
    random = np.random.default_rng(options.seed)
    level: Level | None = None
    found: IntArray = np.empty(0, np.int32)
    sizes = list(pyramid(picture, mask))[::-1]
    rounds = [max(options.least_rounds, options.rounds - 2 * number) for number in range(len(sizes))]
    circles = [max(sizes[0][1].shape), *[options.near] * (len(sizes) - 1)]
    parts = zip(sizes, rounds, circles, strict=True)
    total = sum(int(hidden.sum()) * times * tries(circle) for (_, hidden), times, circle in parts)
    work = Work(total, part(check, 0.0, FOUND))
    for (small, hidden), times in zip(sizes, rounds, strict=True):
        finer = make_level(small, hidden, options.guide, work)
        known = np.flatnonzero(finer.is_known).astype(np.int32)
        if known.size < LEAST_SOURCES:
            continue
        anywhere = random.choice(known, finer.targets.size)
        everywhere = level is None
        found = anywhere if level is None else enlarged(level, found, finer, anywhere)
        if level is not None:
            vote(finer, found, distances(finer, np.arange(found.size), found))
        level = finer
        for _ in range(times):
            vote(level, found, search(level, found, random, max(level.shape) if everywhere else options.near))
    if level is None or level.shape != (mask.shape[0] + 2 * RADIUS, mask.shape[1] + 2 * RADIUS):
        return picture.copy()
    proposed = proposals(level, found, distances(level, np.arange(found.size), found))
    return poisson(proposed[RADIUS:-RADIUS, RADIUS:-RADIUS], picture, mask, check=part(check, FOUND, 1.0))


def pyramid(picture: FloatArray, mask: BoolArray) -> Iterator[tuple[FloatArray, BoolArray]]:
    """The picture and the hole, each half as large as the one before, until the hole is small."""
    while True:
        yield picture, mask
        deep = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3).max()
        if deep <= SMALL_HOLE or min(mask.shape) < 4 * SIDE:
            return
        size = ((mask.shape[1] + 1) // 2, (mask.shape[0] + 1) // 2)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5


def make_level(picture: FloatArray, mask: BoolArray, guide: float = GUIDE, work: Work | None = None) -> Level:
    padded = cv2.copyMakeBorder(picture, RADIUS, RADIUS, RADIUS, RADIUS, cv2.BORDER_REPLICATE)
    hole = np.pad(mask, RADIUS)
    touched = cv2.dilate(hole.astype(np.uint8), np.ones((SIDE, SIDE), np.uint8)) > 0
    inside, whole = np.zeros_like(hole), np.zeros_like(hole)
    inside[RADIUS:-RADIUS, RADIUS:-RADIUS] = True
    whole[2 * RADIUS : -2 * RADIUS, 2 * RADIUS : -2 * RADIUS] = True  # patches that lie in the picture
    depth = np.minimum(cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 3), DEEPEST)
    certain = np.where(hole, FADING**-depth, 1.0).astype(np.float32)
    targets = np.flatnonzero(touched & inside).astype(np.int32)
    return Level(
        padded, cv2.blur(padded, (SIDE, SIDE)), hole, whole & ~touched, certain, targets, guide, work or Work()
    )


def distances(level: Level, which: IntArray, found: IntArray, limit: FloatArray | None = None) -> FloatArray:
    """Of the targets numbered `which` to the patches at `found`: a mean of squares; infinite once above `limit`."""
    pixels, guess, certain = level.picture.reshape(-1, 3), level.guess.reshape(-1, 3), level.certain.reshape(-1)
    result = np.full(which.size, np.inf, np.float32)
    for first in range(0, which.size, CHUNK):
        level.work.add()
        left = np.arange(first, min(first + CHUNK, which.size))
        ours, theirs, weight = level.targets[which[left]], found[left], level.weight[which[left]]
        away = guess.take(ours, 0) - guess.take(theirs, 0)
        total = level.guided * weight * certain.take(ours) * np.einsum("ij,ij->i", away, away)
        total += NEARNESS * weight * level.apart(ours, theirs)
        for third in range(THIRDS):
            for y, x in PLACES:
                if (y + x) % THIRDS == third:
                    step = level.step(y, x)
                    near = ours + step
                    away = pixels.take(near, 0) - pixels.take(theirs + step, 0)
                    total += certain.take(near) * np.einsum("ij,ij->i", away, away)
            if limit is not None and third < THIRDS - 1:
                good = total < limit[left] * weight
                left, ours, theirs, weight, total = left[good], ours[good], theirs[good], weight[good], total[good]
        result[left] = total / weight
    return result


def tries(circle: int) -> int:
    """How many places `search` considers for each patch."""
    return 4 * (min(circle, SIDE + 1) // 2).bit_length() + circle.bit_length()


def search(level: Level, found: IntArray, random: np.random.Generator, circle: int) -> FloatArray:
    """Better places than `found`, put there: those of the neighbours, shifted, and random ones up to `circle` px away.
    Returns their distances."""
    width, hidden_px = level.shape[1], int(level.hole.sum())
    targets, slots, is_known = level.targets, level.slots(), level.is_known.reshape(-1)
    best = distances(level, np.arange(found.size), found)

    def consider(places: IntArray) -> None:
        good = (places >= 0) & (places < is_known.size) & (places != found)
        good[good] = is_known[places[good]]
        which = np.flatnonzero(good)
        tried = distances(level, which, places[which], best[which])
        better = tried < best[which]
        found[which[better]] = places[which[better]]
        best[which[better]] = tried[better]
        level.work.add(hidden_px)

    jump = min(circle, SIDE + 1) // 2
    while jump:
        for step in (jump, -jump, jump * width, -jump * width):
            neighbour = slots.take(targets - step, mode="clip")
            consider(np.where(neighbour >= 0, found[neighbour] + step, -1))
        jump //= 2
    while circle:
        y, x = np.divmod(found, width)
        y, x = (axis + random.integers(-circle, circle + 1, found.size, np.int32) for axis in (y, x))
        consider(np.where((x >= 0) & (x < width), y * width + x, -1))
        circle //= 2
    return best


def vote(level: Level, found: IntArray, distance: FloatArray) -> None:
    """The hole becomes what the patches over it propose."""
    level.picture[level.hole] = proposals(level, found, distance)[level.hole]


def proposals(level: Level, found: IntArray, distance: FloatArray) -> FloatArray:
    """(H, W, 3): wherever targets lie, the mean of what they propose, the likeliest counting most; else the picture."""
    pixels = level.picture.reshape(-1, 3)
    spread = max(float(np.quantile(distance, SPREAD)), 1e-6)
    weight = np.exp(-np.minimum(SHARPNESS / 2 * distance / spread, FAINTEST)) * level.certain.reshape(-1)[level.targets]
    total, weights = np.zeros_like(pixels), np.zeros(len(pixels), np.float32)
    for y, x in PLACES:
        level.work.add()
        step = level.step(y, x)
        total[level.targets + step] += weight[:, None] * pixels[found + step]  # no pixel is here twice
        weights[level.targets + step] += weight
    proposed = np.where(weights[:, None] > 0, total / np.where(weights > 0, weights, 1)[:, None], pixels)
    return proposed.reshape(level.picture.shape)


def enlarged(coarse: Level, found: IntArray, fine: Level, otherwise: IntArray) -> IntArray:
    """What was found at the coarser level, for the targets of the next finer one; `otherwise` where that has none."""
    coarse_width, (height, width) = coarse.shape[1], fine.shape
    y, x = np.divmod(fine.targets, width)
    half_y, half_x = (y - RADIUS) // 2 + RADIUS, (x - RADIUS) // 2 + RADIUS
    which = coarse.slots()[half_y * coarse_width + half_x]
    there_y, there_x = np.divmod(found[which], coarse_width)
    new_y, new_x = y + 2 * (there_y - half_y), x + 2 * (there_x - half_x)
    inside = (which >= 0) & (new_y >= 0) & (new_y < height) & (new_x >= 0) & (new_x < width)
    place = np.where(inside, new_y * width + new_x, 0)
    return np.where(inside & fine.is_known.reshape(-1)[place], place, otherwise).astype(np.int32)
