"""Paths, backgrounds, and things that pass: for the clips of `face_clips.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

RATE = 25
FILMS = (".mp4", ".mkv", ".mov")
Array = np.ndarray


# ---- paths: arrays with one value a frame


def wander(random: np.random.Generator, count: int, low: float, high: float, seconds: float = 1.5) -> Array:
    """A smooth random path that reaches from one value to the other; `seconds` between its turns."""
    knots = max(4, round(count / RATE / seconds) + 3)
    values = random.uniform(low, high, knots)
    path = np.interp(np.linspace(0, knots - 1, count), np.arange(knots), values)
    path = smooth(path, seconds / 3)
    spread = float(np.ptp(path))
    return low + (high - low) * (path - path.min()) / spread if spread else path


def swing(random: np.random.Generator, count: int, reach: float, seconds: float = 2.5) -> Array:
    """To one side, the other, and back, with stays at the ends."""
    phase = random.uniform(0, 2 * np.pi)
    wave = np.sin(np.arange(count) / RATE / seconds * 2 * np.pi + phase)
    return reach * np.tanh(2 * wave) / np.tanh(2) * random.uniform(0.92, 1)


def through(count: int, *values: float) -> Array:
    """Through these values at even times, without corners."""
    path = np.interp(np.linspace(0, len(values) - 1, count), np.arange(len(values)), values)
    return smooth(path, count / RATE / (len(values) - 1) / 5)


def smooth(path: Array, seconds: float) -> Array:
    reach = max(1, round(3 * seconds * RATE))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(seconds * RATE, 1e-3)) ** 2)
    return np.convolve(np.pad(path, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


# ---- backgrounds and things that pass


def picture_of(path: Path) -> Any:
    """RGB float32 in [0, 1]."""
    read: Any = cv2.imread(str(path))
    return cv2.cvtColor(read, cv2.COLOR_BGR2RGB).astype(np.float32) / 255


def photograph(path: Path, size: tuple[int, int], count: int, random: np.random.Generator) -> Iterator[Array]:
    """A photograph under a slow, slightly shaky pan."""
    picture = picture_of(path)
    scale = 1.25 * max(size[0] / picture.shape[1], size[1] / picture.shape[0])
    picture = cv2.resize(
        picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    spare = np.array([picture.shape[1] - size[0], picture.shape[0] - size[1]])
    x = wander(random, count, 0, spare[0], 4) + wander(random, count, -1.5, 1.5, 0.4)
    y = wander(random, count, 0, spare[1], 4) + wander(random, count, -1.5, 1.5, 0.4)
    for left, top in zip(np.clip(x, 0, spare[0]), np.clip(y, 0, spare[1]), strict=True):
        yield cv2.warpAffine(
            picture, np.array([[1, 0, -left], [0, 1, -top]]), size, borderMode=cv2.BORDER_REFLECT
        ).clip(0, 1)


def film(path: Path, size: tuple[int, int], count: int, random: np.random.Generator) -> Iterator[Array]:
    """A video, from a random frame on, forward and backward."""
    with av.open(str(path)) as container:
        frames: list[Any] = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    start = int(random.integers(len(frames)))
    for t in range(start, start + count):
        at = t % (2 * len(frames) - 2)
        picture = frames[min(at, 2 * len(frames) - 2 - at)]
        scale = max(size[0] / picture.shape[1], size[1] / picture.shape[0])
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        left, top = (picture.shape[1] - size[0]) // 2, (picture.shape[0] - size[1]) // 2
        yield picture[top : top + size[1], left : left + size[0]].astype(np.float32) / 255


def board(path: Path, width: int, height: int, random: np.random.Generator) -> Array:
    """A piece of a photograph with slightly soft edges, (height, width, 4)."""
    picture = picture_of(path)
    picture = cv2.resize(picture, (2 * width, 2 * height), interpolation=cv2.INTER_AREA)
    left, top = int(random.integers(width)), int(random.integers(height))
    alpha: Any = np.zeros((height, width, 1), np.float32)
    alpha[2:-2, 2:-2] = 1
    alpha = cv2.blur(alpha, (3, 3))[..., None]
    return np.dstack([picture[top : top + height, left : left + width] * alpha, alpha])


def hand(colour: Array, size: int, random: np.random.Generator) -> Array:
    """A hand with spread fingers, (size, size, 4): shaded, in a skin's colour."""
    mask = np.zeros((size, size), np.uint8)
    at = np.array([0.5, 0.66]) * size
    cv2.ellipse(mask, (int(at[0]), int(at[1])), (int(0.17 * size), int(0.2 * size)), 0, 0, 360, 255, -1)
    cv2.line(mask, (int(at[0]), int(at[1])), (int(at[0]), size), 255, int(0.2 * size))  # wrist
    for angle, length in ((-62, 0.30), (-17, 0.44), (-4, 0.49), (9, 0.46), (23, 0.38)):
        way = np.radians(angle + random.uniform(-4, 4))
        tip = at + length * size * np.array([np.sin(way), -np.cos(way)])
        root = at + 0.12 * size * np.array([np.sin(way), -np.cos(way)])
        cv2.line(mask, root.astype(int).tolist(), tip.astype(int).tolist(), 255, max(2, int(0.085 * size)))
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5) / (0.05 * size)
    shade = 0.62 + 0.38 * np.clip(inside, 0, 1) ** 0.5
    grain = cv2.GaussianBlur(random.normal(0, 1, (size, size)).astype(np.float32), (0, 0), 0.03 * size)
    shade = shade * (1 + 0.06 * grain / max(float(grain.std()), 1e-6))
    alpha = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 1.2)[..., None]
    return np.dstack([(shade[..., None] * colour).clip(0, 1) * alpha, alpha]).astype(np.float32)
