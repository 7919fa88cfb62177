"""Holes to fill: strokes, boxes, outlines of objects, writing, scratches. Deterministic from the generator given.

Every kind is drawn until it hides about the share that is asked for. `LIMITS` says how much a kind can hide and still
be what it is: writing that covers half of a picture is no writing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin.training.streaks import log_uniform

Hole: TypeAlias = npt.NDArray[np.uint8]  # (H, W), 1 where hidden
Random: TypeAlias = np.random.Generator

LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789&?!#"))
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)
TRIES = 400  # shapes at most


def point(hole: Hole, random: Random) -> tuple[int, int]:
    return int(random.integers(hole.shape[1])), int(random.integers(hole.shape[0]))


def stroke(hole: Hole, share: float, random: Random) -> None:
    """A free-form stroke as of a brush: a way of several straight parts with round joints (as Yu et al. 2019)."""
    side = min(hole.shape)
    width = max(2, int(side * log_uniform((0.02, 0.06 + 0.2 * share), random)))
    x, y = point(hole, random)
    angle = float(random.uniform(0, 2 * np.pi))
    for _ in range(int(random.integers(2, 9))):
        angle += float(random.normal(0, 0.9))
        length = side * float(random.uniform(0.04, 0.22))
        to = int(x + length * np.cos(angle)), int(y + length * np.sin(angle))
        cv2.line(hole, (x, y), to, 1, width)
        cv2.circle(hole, to, width // 2, 1, -1)
        x, y = to


def box(hole: Hole, share: float, random: Random) -> None:
    """A box that may be turned, of a part of the share up to all of it."""
    area = hole.size * share * log_uniform((0.15, 1.0), random)
    aspect = log_uniform((0.4, 2.5), random)
    size = (float(np.sqrt(area * aspect)), float(np.sqrt(area / aspect)))
    angle = 0.0 if random.random() < 0.7 else float(random.uniform(0, 90))
    x, y = point(hole, random)
    corners = cv2.boxPoints(((float(x), float(y)), size, angle))
    cv2.fillPoly(hole, [np.round(corners).astype(np.int32)], 1)


def outline(hole: Hole, share: float, random: Random) -> None:
    """The outline of an object: a closed curve whose radius swings."""
    radius = np.sqrt(hole.size * share * log_uniform((0.15, 1.0), random) / np.pi)
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    swing = np.ones_like(angles)
    for wave in range(1, 7):
        swing += random.uniform(0, 0.7) / wave * np.cos(wave * angles + random.uniform(0, 2 * np.pi)) * 0.6
    stretch, turn = log_uniform((0.5, 2.0), random), float(random.uniform(0, np.pi))
    curve = radius * np.maximum(swing, 0.15)[:, None] * np.stack((np.cos(angles), stretch * np.sin(angles)), 1)
    curve = curve / np.sqrt(stretch) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    cv2.fillPoly(hole, [np.round(curve + point(hole, random)).astype(np.int32)], 1)


def writing(hole: Hole, share: float, random: Random) -> None:
    """A line of letters."""
    text = "".join(random.choice(LETTERS, int(random.integers(3, 16))).tolist())
    scale = min(hole.shape) / 192 * log_uniform((0.5, 2.5), random)
    thickness = max(1, int(scale * random.uniform(1, 4)))
    x, y = point(hole, random)
    cv2.putText(hole, text, (x - hole.shape[1] // 3, y), FONTS[int(random.integers(len(FONTS)))], scale, 1, thickness)


def scratch(hole: Hole, share: float, random: Random) -> None:
    """A thin, slightly bent line from somewhere to somewhere."""
    start, end = np.array(point(hole, random)), np.array(point(hole, random))
    middle = (start + end) / 2 + random.normal(0, 0.06 * min(hole.shape), 2)
    t = np.linspace(0, 1, 24)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    thickness = max(1, round(min(hole.shape) / 192 * log_uniform((0.8, 4.0), random)))
    cv2.polylines(hole, [np.round(curve).astype(np.int32)], False, 1, thickness)


SHAPES: dict[str, Callable[[Hole, float, Random], None]] = {
    "strokes": stroke,
    "boxes": box,
    "outlines": outline,
    "writing": writing,
    "scratches": scratch,
}
LIMITS = {"strokes": 0.7, "boxes": 0.7, "outlines": 0.7, "writing": 0.25, "scratches": 0.12}


def hidden(height: int, width: int, kind: str, share: float, random: Random) -> npt.NDArray[np.bool_]:
    """(height, width): True where `kind` of SHAPES, or `mixed`, hides about `share` of the picture, and never all.

    Raises ValueError for another kind.
    """
    if kind != "mixed" and kind not in SHAPES:
        raise ValueError(f"expected one of mixed, {', '.join(SHAPES)}, got {kind!r}")
    share = min(share, LIMITS.get(kind, 0.7))
    hole = np.zeros((height, width), np.uint8)
    for _ in range(TRIES):
        missing = share - float(hole.mean())
        if missing <= 0.08 * share:
            break
        name = kind if kind != "mixed" else str(random.choice(list(SHAPES)))
        before = hole.copy()
        SHAPES[name](hole, max(missing, 0.004), random)
        if hole.mean() > 1.15 * share + 0.01:  # too much: another shape
            hole = before
    return hole.astype(bool)
