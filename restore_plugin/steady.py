"""What stands still in a video is seen again in the neighbouring frames, without the rain that hides it in this one.

A pixel of a still scene is hidden in few of the frames around it, so their median shows it (Garg & Nayar 2004 detect
rain by the same fact: it is there for one frame and brightens). Where something moves the frame is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin.types import Pixels

STILL = 0.03, 0.08  # of [0, 1]: a larger change of what lies behind the rain is movement; least and most, as it rains
ABOVE = 2.5  # movement changes this many times more than the rain does in the middle pixel
SCALE = 4  # local movement is judged in pictures reduced by this
OPENING_PX = 5  # of the reduced picture: bright things that are thinner, such as streaks, do not count
AROUND_PX = 9  # of the reduced picture: pixels this near to movement are left alone
SHIFT_PX = 0.1  # of a halved picture: the whole picture moved if it fits better when shifted by more
CHANCE = 0.01  # of the difference: how much better it fits when shifted by chance, as rain falls

Array = npt.NDArray[np.float32]


def steady(pixels: Pixels, neighbours: Sequence[Pixels]) -> Pixels:
    """The median of a frame and four neighbours, where they show the same still scene; elsewhere the frame.

    All are RGB float32 (H, W, 3) in [0, 1]; neighbours of another size do not count. Where one moved the neighbour as
    far on the other side stands for it, so that the frame at a cut has a median as well; where both did, the frame.
    """
    if len(neighbours) != 4 or min(pixels.shape[:2]) < SCALE * AROUND_PX:
        return pixels
    size = pixels.shape[1], pixels.shape[0]
    behind, halved = scene_behind(pixels), halved_luma(pixels)
    still: list[Array | None] = []
    for other in neighbours:
        weight = None
        if other.shape == pixels.shape:
            weight = cv2.resize(stillness(behind, scene_behind(other)), size).astype(np.float32)
            if moved(halved, halved_luma(other), weight):
                weight = None
        still.append(weight)
    if all(weight is None for weight in still):
        return pixels
    seen = list(zip(neighbours, still, strict=True))
    return median_of_five(
        pixels, *(over(over(pixels, *mirrored), *one) for one, mirrored in zip(seen, reversed(seen), strict=True))
    )


def over(below: Pixels, other: Pixels, weight: Array | None) -> Pixels:
    """`other` where its weight is 1, `below` where it is 0."""
    if weight is None:
        return below
    return other if weight.min() >= 1 else below + weight[..., None] * (other - below)


def halved_luma(pixels: Pixels) -> Array:
    size = pixels.shape[1] // 2, pixels.shape[0] // 2
    return luma(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def luma(pixels: Any) -> Array:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32)


def moved(one: Array, other: Array, still: Array) -> bool:
    """Whether what seems still moved as a whole, as where the camera turns: fine texture, which `stillness` overlooks.

    The squared difference of two pictures, as one is shifted, is a parabola around the shift at which they fit. Rain
    raises all of it alike. `still` are weights, of twice the size.
    """
    height, width = one.shape
    here = one[1:-1, 1:-1]
    where = (still[: 2 * height : 2, : 2 * width : 2][1:-1, 1:-1] > 0.5).astype(np.uint8)

    def misfit(x: int, y: int) -> float:
        return cv2.norm(here, other[1 + y : height - 1 + y, 1 + x : width - 1 + x], cv2.NORM_L2SQR, where)

    unshifted = misfit(0, 0)
    for x, y in ((1, 0), (0, 1)):
        before, after = misfit(-x, -y), misfit(x, y)
        slope, curvature = abs(after - before) / 2, before + after - 2 * unshifted
        if slope > SHIFT_PX * curvature + CHANCE * unshifted:
            return True
    return False


def scene_behind(pixels: Pixels) -> Array:
    """Luma, reduced, without what is bright and thin."""
    size = max(1, pixels.shape[1] // SCALE), max(1, pixels.shape[0] // SCALE)
    small = luma(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    opened = cv2.morphologyEx(small, cv2.MORPH_OPEN, np.ones((1, OPENING_PX), np.uint8))
    return cv2.blur(opened, (3, 3)).astype(np.float32)


def stillness(one: Array, other: Array) -> Array:
    """1 where nothing moved between two scenes, 0 where something did, a ramp between."""
    change = cv2.blur(np.abs(one - other), (3, 3))
    limit = np.clip(ABOVE * np.median(change), *STILL)  # heavy rain changes it everywhere
    around = cv2.dilate(change, np.ones((AROUND_PX, AROUND_PX), np.uint8))
    return cv2.blur(np.clip(2 - around / limit, 0, 1), (3, 3)).astype(np.float32)


def median_of_five(a: Array, b: Array, c: Array, d: Array, e: Array) -> Array:
    """Elementwise, by exchanges: the extremes of four cannot be the median of five."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    low2, high2 = np.minimum(c, d), np.maximum(c, d)
    inner_low, inner_high = np.maximum(low, low2), np.minimum(high, high2)
    first, last = np.minimum(inner_low, inner_high), np.maximum(inner_low, inner_high)
    middle: Array = np.maximum(first, np.minimum(last, e))
    return middle
