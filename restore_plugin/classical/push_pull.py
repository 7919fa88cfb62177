"""Push-pull: a smooth fill of any hole, in time that grows with the picture and not with the hole.

Gortler et al., The Lumigraph (1996), section 3.4: known pixels are averaged down a pyramid (push) until every cell
knows a colour; then holes are filled from the next coarser level, interpolated (pull). What comes from each level may
be corrected before it is pulled further: that is how FillNet fills (restore_plugin.networks.fillnet).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Level: TypeAlias = tuple[FloatArray, BoolArray]  # colours (H, W, 3), 0 where hidden (H, W)
Correct: TypeAlias = Callable[[FloatArray, BoolArray], FloatArray]


def push(picture: FloatArray, mask: BoolArray, at_least: int = 1) -> list[Level]:
    """The pyramid of `picture` (H, W, 3) float32, of which `mask` (H, W) hides a part; the finest level comes first.

    A cell's colour is the mean of the known pixels in it; a cell is hidden where all of them are. Sides are halved, and
    rounded up. The last level is the first in which nothing is hidden, or that of number `at_least` if this comes
    later. Raises ValueError where nothing is known.
    """
    if mask.all():
        raise ValueError("expected a mask that leaves some pixels known, got one that hides all; mask less")
    weight = (~mask).astype(np.float32)
    colours = np.where(mask[..., None], np.float32(0), picture)
    levels = [(colours, mask)]
    while levels[-1][1].any() or len(levels) < at_least:
        both = halved(np.concatenate((colours * weight[..., None], weight[..., None]), 2))
        weight = both[..., 3]
        colours = both[..., :3] / np.maximum(weight, np.float32(1e-30))[..., None]
        levels.append((colours, weight == 0))
    return levels


def halved(values: FloatArray) -> FloatArray:
    """Means of 2x2; odd sides get zeros first."""
    height, width = values.shape[:2]
    even = cv2.copyMakeBorder(values, 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT, value=0)
    found: Any = cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(found, np.float32)


def pull(levels: Sequence[Level], correct: Correct | None = None, corrected: int = 0) -> FloatArray:
    """(H, W, 3): the finest level, its hidden cells filled from the coarser ones; known ones are as they are.

    `correct(filled, hidden)` may change what was pulled into the hidden cells of the finest `corrected` levels.
    """
    filled = levels[-1][0]
    for number in reversed(range(len(levels))):
        colours, hidden = levels[number]
        if number < len(levels) - 1:
            height, width = hidden.shape
            size = (2 * filled.shape[1], 2 * filled.shape[0])
            wide = cv2.resize(filled, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
            filled = np.where(hidden[..., None], wide, colours).astype(np.float32)
        if correct is not None and number < corrected and hidden.any():
            filled = np.where(hidden[..., None], correct(filled, hidden), filled)
    return filled


def push_pull(picture: FloatArray, mask: BoolArray) -> FloatArray:
    """`picture` (H, W, 3) float32 with a smooth fill where `mask` (H, W) is True; other pixels are as they were."""
    return pull(push(picture, mask))
