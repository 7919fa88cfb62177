"""What moved where between two frames, and whether it still looks the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin.masks.quads import Quad, middle, resized, shifted
from restore_plugin.types import Frame

Picture: TypeAlias = npt.NDArray[Any]  # (H, W, 3) RGB uint8, or (H, W) grey
Look: TypeAlias = npt.NDArray[Any]  # (LOOK_PX, LOOK_PX) float32
POINTS = 7  # along each side of the grid that flows
ROUND_TRIP = 1.5  # px of the reduced frame: a point that does not come back so near is lost
FLOWING = 0.4  # share of the points that must be left
LOOK_PX = 24


@dataclass(frozen=True)
class Kept:
    """A frame in memory, reduced by `scale`."""

    index: int
    rgb: Picture
    grey: Picture
    scale: float
    turns: int


def keep(frame: Frame, longest: int) -> Kept:
    rgb = frame.overview(longest)
    return Kept(frame.index, rgb, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), rgb.shape[1] / frame.width, frame.turns)


def flow(before: Kept, after: Kept, quad: Quad) -> tuple[Quad, bool]:
    """Where a box goes from one frame to the next, and whether that can be trusted (median flow)."""
    scaled = quad * before.scale
    width, height = scaled[2:] - scaled[:2]
    places = np.linspace(0.15, 0.85, POINTS)
    x, y = np.meshgrid(scaled[0] + places * width, scaled[1] + places * height)
    points = np.stack((x.ravel(), y.ravel()), 1).astype(np.float32)[:, None]
    there, found = flowed(before.grey, after.grey, points)
    back, returned = flowed(after.grey, before.grey, there)
    miss = np.hypot(*(back - points)[:, 0].T)
    good = (found[:, 0] == 1) & (returned[:, 0] == 1) & (miss < ROUND_TRIP)
    if good.mean() < FLOWING:
        return quad, False
    old, new = points[good, 0], there[good, 0]
    by = np.median(new - old, axis=0)
    spread_old, spread_new = (np.median(np.abs(part - np.median(part, axis=0))) for part in (old, new))
    grow = float(np.clip(spread_new / max(spread_old, 1e-3), 0.93, 1.07))
    return (resized(shifted(scaled, by), grow) / before.scale).astype(np.float32), True


def flowed(before: Picture, after: Picture, points: Quad) -> tuple[Quad, Quad]:
    """Where points (n, 1, 2) go, and (n, 1) whether each was found (Lucas & Kanade 1981, in a pyramid)."""
    none: Any = None
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, none, winSize=(15, 15), maxLevel=3)
    return there, found


def appearance(kept: Kept, quad: Quad) -> Look:
    """The box's picture, small and grey, without its brightness and contrast."""
    centre, half = middle(quad) * kept.scale, np.maximum((quad[2:] - quad[:2]) * kept.scale, 4)
    patch = cv2.getRectSubPix(
        kept.grey, (max(4, round(float(half[0]))), max(4, round(float(half[1])))), tuple(map(float, centre))
    )
    small = cv2.resize(patch, (LOOK_PX, LOOK_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return small / max(float(np.sqrt((small**2).mean())), 1.0)


def alike(a: Look, b: Look) -> float:
    """Correlation of two looks."""
    return float((a * b).mean())
