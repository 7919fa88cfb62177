"""What stands still in a video is seen again in the neighbouring frames, without the rain that hides it in this one.

A pixel of a still scene is hidden in few of the frames around it, so their median shows it (Garg & Nayar 2004 detect
rain by the same fact: it is there for one frame and brightens). Where something moves the frame is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin.types import Pixels

STILL = 0.02  # of [0, 1]: a larger change of what lies behind the rain is movement
SCALE = 4  # movement is judged in pictures reduced by this
OPENING_PX = 5  # of the reduced picture: bright things that are thinner, such as streaks, do not count
AROUND_PX = 9  # of the reduced picture: pixels this near to movement are left alone
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Array = npt.NDArray[np.float32]


def steady(pixels: Pixels, neighbours: Sequence[Pixels]) -> Pixels:
    """The median of a frame and four neighbours, where they show the same still scene; elsewhere the frame.

    All are RGB float32 (H, W, 3) in [0, 1] of one size. Neighbours that moved are replaced by the frame itself before
    the median is taken, so that it takes two still ones to change a pixel.
    """
    if len(neighbours) != 4 or min(pixels.shape[:2]) < SCALE * AROUND_PX:
        return pixels
    height, width = pixels.shape[:2]
    behind = scene_behind(pixels)
    still = [cv2.resize(stillness(behind, scene_behind(other)), (width, height)) for other in neighbours]
    if sum(float(weight.mean()) > 0.01 for weight in still) < 2:
        return pixels
    stack = [
        pixels + weight[..., None] * (other - pixels) if weight.min() < 1 else other
        for other, weight in zip(neighbours, still, strict=True)
    ]
    return median_of_five(pixels, *stack)


def scene_behind(pixels: Pixels) -> Array:
    """Luma, reduced, without what is bright and thin."""
    size = max(1, pixels.shape[1] // SCALE), max(1, pixels.shape[0] // SCALE)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) @ LUMA
    opened = cv2.morphologyEx(small, cv2.MORPH_OPEN, np.ones((1, OPENING_PX), np.uint8))
    return cv2.blur(opened, (3, 3)).astype(np.float32)


def stillness(one: Array, other: Array) -> Array:
    """1 where nothing moved between two scenes, 0 where something did, a ramp between."""
    change = cv2.dilate(cv2.blur(np.abs(one - other), (3, 3)), np.ones((AROUND_PX, AROUND_PX), np.uint8))
    return cv2.blur(np.clip(2 - change / STILL, 0, 1), (3, 3)).astype(np.float32)


def median_of_five(a: Array, b: Array, c: Array, d: Array, e: Array) -> Array:
    """Elementwise, by exchanges: the extremes of four cannot be the median of five."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    low2, high2 = np.minimum(c, d), np.maximum(c, d)
    inner_low, inner_high = np.maximum(low, low2), np.minimum(high, high2)
    first, last = np.minimum(inner_low, inner_high), np.maximum(inner_low, inner_high)
    middle: Array = np.maximum(first, np.minimum(last, e))
    return middle
