"""Where a video cuts from one shot to another."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from restore_plugin.types import Frame

SIDE = 64  # px, the longer side of what is compared
CHANGE = 0.08  # mean change of luma, of [0, 1], that may be a cut
SUDDEN = 3.0  # times the change just before and after
MOVED = 0.5  # of the change remains when the better of all small shifts is taken: a pan is not a cut


def cuts(frames: Iterable[Frame]) -> list[int]:
    """Indices of the frames with which a new shot begins; the first frame of all is none.

    One too many costs little (a face's track is joined again by who it is), one too few may mix up two people: flashes
    and fast pans are rather taken for cuts.
    """
    indices: list[int] = []
    changes: list[float] = []
    last = None
    for frame in frames:
        small = cv2.cvtColor(frame.overview(SIDE), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        indices.append(frame.index)
        changes.append(change(last, small) if last is not None and last.shape == small.shape else 0.0)
        last = small
    found = []
    for at in range(1, len(changes)):
        around = [changes[place] for place in (at - 2, at - 1, at + 1, at + 2) if 1 <= place < len(changes)]
        usual = float(np.median(around)) if around else 0.0
        if changes[at] > CHANGE and changes[at] > SUDDEN * usual:
            found.append(indices[at])
    return found


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean difference of two small pictures, brightness apart, at the best of a few shifts."""
    before, after = before - before.mean(), after - after.mean()
    plain = float(np.abs(before - after).mean())
    if plain <= CHANGE:
        return plain
    best = plain
    height, width = before.shape
    for y in (-4, 0, 4):
        for x in (-8, -4, 0, 4, 8):
            a = before[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
            b = after[max(0, -y) : height + min(0, -y), max(0, -x) : width + min(0, -x)]
            best = min(best, float(np.abs(a - b).mean()))
    return plain if best > MOVED * plain else best
