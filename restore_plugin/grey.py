"""Pictures without colour: old films, scans, X-rays. Networks have learned from coloured ones, and would tint them."""

from __future__ import annotations

import numpy as np

from restore_plugin.types import Pixels

ROUNDING = 2.0 / 255  # by which the channels of a grey pixel may differ, after compression with chroma of 8 bits
APART = 16  # px between those that are looked at first: nearly all pictures have colour, and show it there


def is_grey(pixels: Pixels) -> bool:
    """Whether no pixel of (H, W, 3) has a colour."""
    return all(float((part.max(-1) - part.min(-1)).max()) <= ROUNDING for part in (pixels[::APART, ::APART], pixels))


def without_colour(change: Pixels) -> Pixels:
    """A change (H, W, 3), the same in all channels: the mean of what it was."""
    return np.repeat(change.mean(-1, keepdims=True, dtype=np.float32), 3, axis=-1)
