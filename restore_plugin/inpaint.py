"""The inpainting restorers: what lies under the mask is hidden, and something plausible takes its place.

What fills a hole is made up from what is around it. It is not evidence of what was there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import cv2
import numpy as np

from restore_plugin.classical import patchmatch
from restore_plugin.classical.blend import poisson
from restore_plugin.classical.harmonic import harmonic as smooth_fill
from restore_plugin.classical.multigrid import part
from restore_plugin.classical.navier_stokes import navier_stokes as navier_stokes_fill
from restore_plugin.classical.telea import telea as telea_fill
from restore_plugin.errors import InputError
from restore_plugin.grey import keep_grey
from restore_plugin.regions import bounding_box
from restore_plugin.tiling import TiledNetwork, TileRule
from restore_plugin.types import Box, Engine, Luma, Mask, Needs, Pixels, Region, RestoreOptions, Support

Fill: TypeAlias = Callable[[Pixels, Mask], Pixels]

PATCHES = 128  # px around a hole that patches are looked for in, at least
DEPTHS_AROUND = 3  # times its depth: the same
BORDER, OPENCV = 2, 8  # px around a hole that the smooth fill and OpenCV's methods look at, and more
TILES = TileRule(reach=96, multiple=16, largest=1024)
CONTEXT = 96  # px, at each level of the pyramid: what the network sees around the hole
COARSEST_DEPTH = 12  # px of the hole, where the network begins
GLCIC = TileRule(reach=156, multiple=4, largest=1024)  # it sees 307 px in all, as the paper says
PARTIAL_CONV = TileRule(reach=256, multiple=64, largest=1024)
DEEPEST = 32  # px of a hole, as in their training: deeper ones are filled in a smaller picture
GREY = 0.5  # what these are shown in the hole; they do not look at it
GUIDE = 8.0  # weight of the network's colours among patches; 4 to 48 were tried
NEIGHBOURHOOD = 12.0  # px, standard deviation: what is finer is texture
AROUND, COARSE = 24, 8  # px around a hole whose texture counts, at least; how much smaller it is looked at
TRUST = 0.5  # times as strong as the texture around, in squares: so much may patches add to a smooth structure
FAINT = 1e-6  # mean square
SMOOTHED, STRUCTURED = 0.1, 0.25  # about which share of the time has gone by when these are there


class Inpaint:
    """A Restorer that fills holes from what is seen up to `near` px around, or further (PATCHES) for a deep one."""

    needs = Needs(holes=True, replaces=True)

    def __init__(self, fill: Fill, near: int = PATCHES) -> None:
        self._fill = fill
        self._near = near

    def margin(self, region: Region) -> tuple[int, int]:
        px = self._near
        if px == PATCHES:
            px = max(px, int(DEPTHS_AROUND * depth(region.mask()).max()))
        return px, px

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels:
        """Fill the pixels under `mask`; everything else comes back as it is. Raises InputError if nothing is known."""
        if mask is None or mask.all():
            raise InputError("expected a mask that leaves some of the picture, got one that hides all; mask less")
        if not mask.any():
            return pixels.copy()
        return np.where(mask[..., None], self._fill(pixels, mask), pixels).astype(np.float32, copy=False)


class FillNet:
    """Structure by a network, from coarse to fine (restore_plugin.networks.fillnet), and texture by patches."""

    def __init__(self, engine: Engine, options: RestoreOptions, support: Support) -> None:
        self._network = TiledNetwork(engine, "picture", "residual", TILES, support.say, support.fallbacks)
        self._seed = options.seed
        self._check = support.check

    def __call__(self, pixels: Pixels, mask: Mask) -> Pixels:
        options = patchmatch.PatchOptions(seed=self._seed, guide=GUIDE)
        structure = self.structure(pixels, mask)
        patches = patchmatch.fill(structure, mask, options, part(self._check, STRUCTURED, 1.0))
        return believed(patches, structure, mask)

    def structure(self, pixels: Pixels, mask: Mask) -> Pixels:
        """The smooth fill, corrected by the network at each level of a pyramid."""
        random = np.random.default_rng(self._seed)
        first = smooth_fill(pixels, mask, check=part(self._check, 0.0, SMOOTHED))
        levels = [(first, mask.astype(np.float32))]
        while depth(levels[-1][1] > 0).max() > COARSEST_DEPTH and min(levels[-1][1].shape) >= 2 * TILES.multiple:
            levels.append((halved(levels[-1][0]), halved(levels[-1][1])))
        correction = np.zeros_like(levels[-1][0])
        for number, (smooth, share) in reversed(list(enumerate(levels))):
            self._check(SMOOTHED + (STRUCTURED - SMOOTHED) * 0.25**number)
            height, width = share.shape
            if correction.shape != smooth.shape:
                enlarged = cv2.resize(correction, (2 * correction.shape[1], 2 * correction.shape[0]))
                correction = enlarged[:height, :width] * share[..., None]
            place = bounding_box(share > 0).grow(CONTEXT, CONTEXT, within=Box(0, 0, width, height)).slices
            noise = random.random(share.shape, np.float32)[place] * share[place]
            shown = np.dstack((smooth[place] + correction[place], share[place], noise))
            residual = self._network(np.ascontiguousarray(shown.transpose(2, 0, 1))).transpose(1, 2, 0)
            correction[place] += share[place][..., None] * residual
        return np.clip(levels[0][0] + keep_grey(correction, first), 0, 1)


def believed(patches: Pixels, structure: Pixels, mask: Mask) -> Pixels:
    """The structure and what patches add to it, nowhere more than the texture around the hole makes likely.

    An addition that is much stronger than that texture is something that does not belong there, as leaves in the sky.
    """
    added = patches - structure
    likely = TRUST * texture_around(patches, mask)
    share = np.sqrt(np.minimum(likely / (smoothed((added**2).mean(2), mask) + FAINT), 1))
    return structure + np.where(mask, share, 1)[..., None] * added


def texture_around(picture: Pixels, mask: Mask) -> Luma:
    """(H, W): how strong the known texture near each pixel of the hole is, as the mean square of its detail.

    It is a harmonic mean over the surroundings: an edge in a plain ground is no texture, bricks everywhere are.
    """
    known = ~mask
    blurred = np.dstack([smoothed(channel, known) for channel in np.moveaxis(picture, 2, 0)])
    detail = smoothed(((picture - blurred) ** 2).mean(2), known) + FAINT
    height, width = mask.shape
    size = max(1, width // COARSE), max(1, height // COARSE)
    far = max(AROUND, float(depth(mask).max())) / COARSE
    total, weights = (
        cv2.GaussianBlur(cv2.resize(values, size, interpolation=cv2.INTER_AREA), (0, 0), far)
        for values in (known / detail, known.astype(np.float32))
    )
    return np.asarray(cv2.resize((weights + FAINT) / (total + FAINT), (width, height)))


def smoothed(values: Luma, where: Mask) -> Luma:
    """(H, W): the local mean of those values where `where` is True."""
    weights = where.astype(np.float32)
    total, count = (cv2.GaussianBlur(each, (0, 0), NEIGHBOURHOOD) for each in (values * weights, weights))
    return np.asarray(total / np.maximum(count, FAINT))


class Completion:
    """The networks of papers that answer with the whole picture at once: GLCIC, partial convolutions.

    A hole deeper than they have learned is filled in a picture reduced by 2, 4, ... The answer's steps from pixel to
    pixel are kept, its colours meet those around the hole (Poisson blending).
    """

    def __init__(self, engine: Engine, rule: TileRule, support: Support) -> None:
        self._network = TiledNetwork(engine, "picture", "rgb", rule, support.say, support.fallbacks)
        self._smallest = rule.multiple
        self._check = support.check

    def __call__(self, pixels: Pixels, mask: Mask) -> Pixels:
        small, hidden, times = pixels, mask, 1
        while depth(hidden).max() > DEEPEST and min(hidden.shape) >= 2 * self._smallest:
            small, hidden, times = halved(small), halved(hidden.astype(np.float32)) > 0, 2 * times
        shown = np.dstack((np.where(hidden[..., None], np.float32(GREY), small), hidden.astype(np.float32)))
        answer = self._network(np.ascontiguousarray(shown.transpose(2, 0, 1))).transpose(1, 2, 0)
        answer = keep_grey(answer, shown[..., :3])
        height, width = mask.shape
        if times > 1:
            answer = cv2.resize(answer, (times * answer.shape[1], times * answer.shape[0]))[:height, :width]
        return poisson(np.clip(answer, 0, 1), pixels, mask, check=part(self._check, STRUCTURED, 1.0))


def depth(mask: Mask) -> Luma:
    """(H, W): how far each masked pixel is from the nearest one that is not, in px; the edge counts as one."""
    return np.asarray(cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1])


def halved(values: Pixels) -> Pixels:
    """Means of 2 x 2 px; of an odd side, the last line twice."""
    height, width = values.shape[:2]
    even = cv2.copyMakeBorder(values, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA))


def fillnet(engine: Engine, options: RestoreOptions, support: Support) -> Inpaint:
    return Inpaint(FillNet(engine, options, support))


def glcic(engine: Engine, options: RestoreOptions, support: Support) -> Inpaint:
    return Inpaint(Completion(engine, GLCIC, support))


def partial_conv(engine: Engine, options: RestoreOptions, support: Support) -> Inpaint:
    return Inpaint(Completion(engine, PARTIAL_CONV, support))


def patches(engine: Engine | None, options: RestoreOptions, support: Support) -> Inpaint:
    wanted = patchmatch.PatchOptions(seed=options.seed)

    def fill(pixels: Pixels, mask: Mask) -> Pixels:
        guess = smooth_fill(pixels, mask, check=part(support.check, 0.0, SMOOTHED))
        return patchmatch.fill(guess, mask, wanted, part(support.check, SMOOTHED, 1.0))

    return Inpaint(fill)


def smooth(engine: Engine | None, options: RestoreOptions, support: Support) -> Inpaint:
    return Inpaint(lambda pixels, mask: smooth_fill(pixels, mask, check=support.check), BORDER)


def telea(engine: Engine | None, options: RestoreOptions, support: Support) -> Inpaint:
    return Inpaint(telea_fill, OPENCV)


def navier_stokes(engine: Engine | None, options: RestoreOptions, support: Support) -> Inpaint:
    return Inpaint(navier_stokes_fill, OPENCV)
