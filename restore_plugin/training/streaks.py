"""Streaks of rain, in two families, because those who made rain before us did it in two ways.

- `NoiseLayer`: noise, threshold, motion blur along a line, levels. The recipe of Photoshop tutorials, and so of most
  synthetic sets (Zhang & Patel 2018; Fu et al. 2017).
- `DrawnLayer`: every streak by itself, from hard lines to wide soft ones whose brightness oscillates along their
  length, as that of falling drops does (Garg & Nayar 2006); the look of Yang et al. 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import cv2
import numpy as np

from restore_plugin.mosaic import FloatArray

Span: TypeAlias = tuple[float, float]
Random: TypeAlias = np.random.Generator

EXPOSURE_SECONDS: Span = (1 / 120, 1 / 30)  # a streak is as long as its drop falls meanwhile
NOISE_LENGTH_PX: Span = (5, 80)
NOISE_GRAIN_PX: Span = (0.6, 2.2)
# drawn streaks by depth: length, width (full width at half maximum), share of the coverage, opacity
DEPTHS: dict[str, tuple[Span, Span, Span, Span]] = {
    "far": ((6, 18), (0.7, 1.3), (0.3, 0.7), (0.25, 0.6)),
    "middle": ((14, 40), (0.9, 2.2), (0.3, 0.6), (0.5, 0.9)),
    "near": ((35, 110), (2.0, 5.0), (0.05, 0.4), (0.5, 1.0)),
}
SLENDER = 7.0  # a streak is at least this many times as long as wide; shorter ones look like snow


def log_uniform(span: Span, random: Random) -> float:
    return float(np.exp(random.uniform(np.log(span[0]), np.log(span[1]))))


def extent(height: int, width: int, angle: float) -> Span:
    """Sides (px) of the frame's bounding box along the fall and across it."""
    sine, cosine = abs(np.sin(angle)), abs(np.cos(angle))
    return float(width * sine + height * cosine), float(width * cosine + height * sine)


@dataclass(frozen=True)
class NoiseLayer:
    """Thresholded noise, blurred along a line. It is made upright and turned, so length and angle are free."""

    seed: int
    angle_degrees: float  # 0: straight down; positive: to the right
    length_px: float
    grain_px: float  # side of a noise cell across the fall
    coverage: float  # streaks that lie over a point, on average; above 1 it is a texture
    clumped: bool  # noise blurred before the threshold
    tapered: bool  # blurred twice: ends fade
    black: float  # levels after the blur, in standard deviations: what becomes black ...
    white: float  # ... and how much further white is
    soft_px: float  # blur across, standard deviation
    opacity: float
    speed_px: float  # a second

    @staticmethod
    def random(angle_degrees: float, coverage: float, random: Random) -> NoiseLayer:
        length = log_uniform(NOISE_LENGTH_PX, random)
        return NoiseLayer(
            seed=int(random.integers(2**31)),
            angle_degrees=angle_degrees,
            length_px=length,
            grain_px=min(log_uniform(NOISE_GRAIN_PX, random), length / SLENDER),
            coverage=coverage,
            clumped=bool(length > 2 * SLENDER and random.random() < 0.4),
            tapered=bool(random.random() < 0.5),
            black=float(random.uniform(0.0, 1.3)),
            white=float(random.uniform(1.2, 4.5)),
            soft_px=min(float(random.uniform(0.4, 1.7)), length / SLENDER / 2.355) if random.random() < 0.35 else 0.0,
            opacity=float(random.uniform(0.5, 1.0)),
            speed_px=length / log_uniform(EXPOSURE_SECONDS, random),
        )

    def render(self, height: int, width: int, time: float) -> FloatArray:
        """(H, W) float32 in [0, opacity]."""
        angle = np.deg2rad(self.angle_degrees)
        along, across = extent(height, width, angle)
        step = float(np.clip(self.length_px / 8, self.grain_px, 4.0))  # side of a noise cell along the fall
        taps = max(2, round(self.length_px / step))
        rows, columns = int(along / step) + 4 + 2 * taps, int(across / self.grain_px) + 5
        noise: FloatArray = np.random.default_rng(self.seed).random((rows, columns), np.float32)
        fallen, part = divmod(self.speed_px * time / step, 1.0)
        rounds, start = divmod(int(fallen), rows)
        if rounds or start:  # what falls out below comes in again above, each time in other columns
            golden = int(columns * 0.618)
            below = np.roll(noise, rounds * golden, axis=1)
            above = np.roll(noise, (rounds + 1) * golden, axis=1)
            noise = np.concatenate((above[rows - start :], below[: rows - start]))
        share = min(self.coverage / taps, 0.5)
        threshold = 1.0 - share
        if self.clumped:
            noise = cv2.GaussianBlur(noise, (3, 3), 0.8)
            deviation = 12**-0.5 * 0.387  # uniform noise; 0.387: root of the kernel's sum of squares
            threshold = 0.5 + NormalDist().inv_cdf(1.0 - share) * deviation
        dots = (noise > threshold).astype(np.float32)
        first = taps if not self.tapered else max(1, taps // 2)
        streaks: FloatArray = cv2.blur(dots, (1, first))
        if self.tapered:
            streaks = cv2.blur(streaks, (1, taps - first + 1))
        deviation = float(np.sqrt(share * (1.0 - share) / taps))
        scale = 1.0 / (deviation * self.white)
        streaks = np.clip(streaks * scale - (share / deviation + self.black) / self.white, 0.0, 1.0)
        if self.soft_px:
            side = 2 * int(2.5 * self.soft_px / self.grain_px + 0.5) + 1
            streaks = cv2.GaussianBlur(streaks, (side, 1), self.soft_px / self.grain_px, sigmaY=0.1)
        sine, cosine = np.sin(angle), np.cos(angle)
        x, y = (width - 1) / 2, (height - 1) / 2
        to_column = np.array([cosine, -sine, y * sine - x * cosine]) / self.grain_px + (0, 0, columns / 2)
        to_row = np.array([sine, cosine, -x * sine - y * cosine]) / step + (0, 0, rows / 2 - part)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        turned = cv2.warpAffine(
            streaks, np.stack((to_column, to_row)), (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101
        )
        return turned * np.float32(self.opacity)


@dataclass(frozen=True)
class DrawnLayer:
    """Streaks drawn one by one, at subpixel places, each a little different."""

    seed: int
    angle_degrees: float  # 0: straight down; positive: to the right
    spread_degrees: float  # standard deviation of the streaks' angles
    length_px: float  # the longest; the others are at least half as long
    width_px: float  # full width at half maximum of the narrowest; the widest have nearly twice that
    coverage: float  # area of the streaks by area of the picture
    crisp: bool  # hard lines, not anti-aliased
    ends: float  # 1: brightness falls from the middle to the ends; large: square ends
    oscillation: float  # depth of the brightness oscillation along a streak, in [0, 1]
    opacity: float
    speed_px: float  # a second

    @staticmethod
    def random(angle_degrees: float, coverage: float, depth: str, random: Random) -> DrawnLayer:
        lengths, widths, _, opacities = DEPTHS[depth]
        length = log_uniform(lengths, random)
        return DrawnLayer(
            seed=int(random.integers(2**31)),
            angle_degrees=angle_degrees,
            spread_degrees=float(random.choice([0.0, 0.8, 2.0, 5.0])),
            length_px=length,
            width_px=min(log_uniform(widths, random), 0.75 * length / SLENDER),
            coverage=coverage,
            crisp=bool(depth != "near" and random.random() < 0.25),
            ends=log_uniform((1.5, 16.0), random),
            oscillation=float(random.uniform(0.2, 0.9)) if random.random() < 0.5 else 0.0,
            opacity=float(random.uniform(*opacities)),
            speed_px=length / log_uniform(EXPOSURE_SECONDS, random),
        )

    def render(self, height: int, width: int, time: float) -> FloatArray:
        """(H, W) float32, a streak's brightest part at about `opacity`."""
        random = np.random.default_rng(self.seed)
        angle = np.deg2rad(self.angle_degrees)
        along, across = (side + self.length_px + 8 for side in extent(height, width, angle))
        area = 0.75 * self.length_px * self.width_px * (1.0 if self.crisp else 1.2)
        count = max(1, round(self.coverage * along * across / area))
        # columns: along, across, angle, length, brightness, width, phase, waves
        streaks = random.random((count, 8), np.float32)
        tilt = np.deg2rad(self.spread_degrees) * 1.73 * (2 * streaks[:, 2] - 1)  # uniform of that deviation
        fallen = self.speed_px * time
        rounds, u = np.divmod(streaks[:, 0] + fallen / along, 1.0)
        v = (streaks[:, 1] + rounds * 0.618 + tilt * fallen / across) % 1.0  # never in the same place again
        u, v = (u - 0.5) * along, (v - 0.5) * across
        sine, cosine = np.sin(angle), np.cos(angle)
        x, y = (width - 1) / 2 + u * sine + v * cosine, (height - 1) / 2 + u * cosine - v * sine
        length = self.length_px * (0.5 + 0.5 * streaks[:, 3])
        reach = length / 2 + 3 * self.width_px
        seen = (x > -reach) & (x < width + reach) & (y > -reach) & (y < height + reach)
        x, y, length, tilt, streaks = x[seen], y[seen], length[seen], tilt[seen], streaks[seen]

        place = np.linspace(-1.0, 1.0, int(self.length_px) + 2, dtype=np.float32)
        brightness = 0.35 + 0.65 * streaks[:, 4:5]
        light = (1.0 - np.abs(place) ** self.ends) * brightness
        if self.oscillation:  # a drop's shape swings while it falls (Garg & Nayar 2006, section 3)
            phase = 6.3 * streaks[:, 6:7] + (2 + 7 * streaks[:, 7:8]) * place * (1 + 0.3 * place)
            light = light * (1.0 - self.oscillation * (0.5 + 0.5 * np.cos(phase)))
        light = light * (length / len(place))[:, None]  # light by px
        half = length[:, None] / 2 * place
        ahead = (angle + tilt)[:, None]
        xs = x[:, None].astype(np.float32) + half * np.sin(ahead, dtype=np.float32)
        ys = y[:, None].astype(np.float32) + half * np.cos(ahead, dtype=np.float32)

        narrow = self.width_px / 2.355  # standard deviations
        wide = 1.8 * narrow
        margin = int(np.ceil(2.5 * wide)) + 2
        size = (height + 2 * margin, width + 2 * margin)
        xs, ys = xs.ravel() + margin, ys.ravel() + margin
        inside = (xs >= 0) & (xs < size[1] - 1) & (ys >= 0) & (ys < size[0] - 1)
        if self.crisp:  # every pixel that a line touches, once
            touched: FloatArray = np.zeros(size, np.float32)
            value = np.broadcast_to(brightness, light.shape).ravel()[inside]
            touched[np.round(ys[inside]).astype(np.int64), np.round(xs[inside]).astype(np.int64)] = value
            if self.width_px > 1.4:
                touched = cv2.dilate(touched, np.ones((1, 2), np.uint8))
            return touched[margin : margin + height, margin : margin + width] * np.float32(self.opacity)
        share = np.broadcast_to(streaks[:, 5:6], light.shape).ravel()[inside]
        light, xs, ys = light.ravel()[inside], xs[inside], ys[inside]
        total = np.zeros(size, np.float32)
        for deviation, part in ((narrow, light * share), (wide, light * (1.0 - share))):
            blur = np.sqrt(max(deviation**2 - 1 / 6, 0.0))  # 1/6: variance that bilinear splatting adds
            drawn: FloatArray = splat(xs, ys, part, size)
            if blur > 0.2:
                drawn = cv2.GaussianBlur(drawn, (0, 0), float(blur))
            total += drawn * np.float32(np.sqrt(2 * np.pi * (blur**2 + 1 / 6)))  # peak as bright as the light
        return total[margin : margin + height, margin : margin + width] * np.float32(self.opacity)


def splat(x: FloatArray, y: FloatArray, light: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Lay points of light on an array of (H, W) = size, each bilinearly on four samples."""
    column, row = x.astype(np.int64), y.astype(np.int64)
    right, below = x - column, y - row
    at = row * size[1] + column
    total = np.zeros(size[0] * size[1])
    for line, share in ((0, (1 - below) * light), (size[1], below * light)):
        total += np.bincount(at + line, share * (1 - right), len(total))
        total += np.bincount(at + line + 1, share * right, len(total))
    return total.reshape(size).astype(np.float32)
