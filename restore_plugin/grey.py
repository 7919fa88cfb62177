"""Pictures without colour: old films, scans, X-rays. Networks have learned from coloured ones, and would tint them."""

from __future__ import annotations

import numpy as np

from restore_plugin.types import Pixels

# How far apart the channels of nearly all pixels of a grey picture are at most, and of a coloured one at least. Between
# them lies a fade, so that a video does not switch. One step of chroma in 8 bits takes them 2.4 / 255 apart.
GREY, COLOURED = 4 / 255, 10 / 255
NEARLY_ALL = 0.999
LOOKED_AT = 256  # px along each side, at most


def colour(pixels: Pixels) -> float:
    """How much of its colour a change of (H, W, 3) may keep: from 0, where that is grey, to 1."""
    steps = (max(1, side // LOOKED_AT) for side in pixels.shape[:2])
    some = pixels[tuple(slice(None, None, step) for step in steps)]
    apart = (some.max(-1) - some.min(-1)).ravel()
    last = min(apart.size - 1, int(NEARLY_ALL * apart.size))
    return float(np.clip((np.partition(apart, last)[last] - GREY) / (COLOURED - GREY), 0, 1))


def keep_grey(change: Pixels, pixels: Pixels) -> Pixels:
    """A change (H, W, 3) of grey pixels, the same in all channels: the mean of what it was. Others' as it is."""
    kept = colour(pixels)
    if kept == 1:
        return change
    grey = change.mean(-1, keepdims=True, dtype=np.float32)
    return np.asarray(grey + kept * (change - grey) if kept else np.repeat(grey, 3, axis=-1))
