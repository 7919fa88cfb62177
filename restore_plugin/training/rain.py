"""Rain to lay over clean pictures and video: streaks in layers, accumulation haze, drops on the lens.

Two families of streaks, because those who made rain before us did it in two ways:

- `NoiseLayer`: noise, threshold, motion blur along a line, levels. The recipe of Photoshop tutorials, and so of most
  synthetic sets (Zhang & Patel 2018; Fu et al. 2017).
- `DrawnLayer`: every streak by itself, from hard lines to wide soft ones whose brightness oscillates along their
  length, as that of falling drops does (Garg & Nayar 2006); the look of Yang et al. 2017.

A `Rain` mixes layers of both, in one direction or crossed. How heavy it is is stated as the PSNR of the rainy against
the clean picture: opacity is solved for on reference tones, never on the picture at hand, so a white sky does not get
absurd rain and the frames of a video do not flicker. Everything is deterministic from the generator given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, TypeAlias

import cv2
import numpy as np

from restore_plugin.mosaic import FloatArray

Span: TypeAlias = tuple[float, float]
Blending: TypeAlias = Literal["add", "screen", "mix"]
Random: TypeAlias = np.random.Generator

LEVELS = ("light", "medium", "heavy", "very heavy")
LEVEL_DECIBELS: dict[str, Span] = {"light": (29, 33), "medium": (22, 27), "heavy": (16, 20), "very heavy": (11, 14)}
ANY_DECIBELS: Span = (11, 37)  # without a level: drizzle included
MILDEST, HEAVIEST = 36.0, 11.0  # dB where `heaviness` is 0 and 1

# what a rainfall consists of: weight when mildest, weight when heaviest
KINDS: dict[str, Span] = {
    "photoshop": (0.36, 0.28),
    "drawn": (0.36, 0.12),
    "depth": (0.2, 0.14),
    "crossed": (0.08, 0.46),
}
BLENDINGS: dict[Blending, float] = {"add": 0.5, "screen": 0.32, "mix": 0.18}
COVERAGE_MILDEST: Span = (0.01, 0.15)  # area of all streaks of a rainfall by area of the picture, drawn log-uniformly
COVERAGE_HEAVIEST: Span = (0.4, 2.0)
ANGLE_DEGREES = 24.0  # standard deviation from the vertical of most rain
ANY_ANGLE_SHARE = 0.12  # the rest falls at any angle up to the horizontal
CROSSED_DEGREES: Span = (12, 60)  # crossed layers fan out this far to both sides
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
GAIN_LIMITS: Span = (0.02, 4.5)  # more would swell the streaks to flat ribbons
HAZE_SHARE: Span = (0.06, 0.35)  # of rainfalls, mildest and heaviest
HAZE_ERROR = 0.5  # the veil makes at most this part of the squared error
DROPS_SHARE = 0.05
REFRACTION_SHARE = 0.5  # of those blended by "mix"
REFERENCE_TONES = (0.03, 0.12, 0.22, 0.33, 0.45, 0.59, 0.75, 0.93)  # means of the eighths of common photographs' values


def log_uniform(span: Span, random: Random) -> float:
    return float(np.exp(random.uniform(np.log(span[0]), np.log(span[1]))))


def between(mildest: float, heaviest: float, heaviness: float) -> float:
    return mildest + (heaviest - mildest) * heaviness


def smooth_field(seed: int, height: int, width: int) -> FloatArray:
    """(H, W) float32 in [0, 1] that varies slowly."""
    coarse = np.random.default_rng(seed).random((4, 4), np.float32)
    fine: FloatArray = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(fine, 0.0, 1.0)


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


@dataclass(frozen=True)
class Haze:
    """The veil of rain too far away to see as streaks: picture * (1 - a) + airlight * a."""

    seed: int
    amount: float  # mean of a, which goes from 0.4 to 1.6 times that
    airlight: float

    def veil(self, picture: FloatArray) -> FloatArray:
        field = smooth_field(self.seed, *picture.shape[:2])[..., None]
        amount = np.minimum(self.amount * (0.4 + 1.2 * field), 1.0)
        return picture + (self.airlight - picture) * amount


@dataclass(frozen=True)
class Drop:
    """A drop on the lens: a small upside-down picture of the surroundings, soft-edged."""

    x: float  # centre, as a part of the frame's sides
    y: float
    radius_px: float
    stretch: float  # height by width
    wobble: tuple[float, float]  # phases of its outline
    zoom: float  # how much of the surroundings it shows, in its own radius
    gain: float

    @staticmethod
    def random(random: Random) -> Drop:
        return Drop(
            x=float(random.random()),
            y=float(random.random()),
            radius_px=log_uniform((3, 26), random),
            stretch=float(random.uniform(0.85, 1.35)),
            wobble=(float(random.uniform(0, 6.3)), float(random.uniform(0, 6.3))),
            zoom=float(random.uniform(2.5, 6.0)),
            gain=float(random.uniform(1.0, 1.25)),
        )

    def lay(self, picture: FloatArray) -> None:
        """Changes the (H, W, 3) picture in place."""
        height, width = picture.shape[:2]
        radius = min(self.radius_px, min(height, width) / 4)
        centre_x, centre_y, reach = self.x * width, self.y * height, int(radius * 1.6) + 2
        x0, y0 = max(0, int(centre_x) - reach), max(0, int(centre_y) - reach)
        x1, y1 = min(width, int(centre_x) + reach), min(height, int(centre_y) + reach)
        if x1 <= x0 or y1 <= y0:
            return
        dx = (np.arange(x0, x1, dtype=np.float32) - np.float32(centre_x))[None, :]
        dy = (np.arange(y0, y1, dtype=np.float32) - np.float32(centre_y))[:, None] / np.float32(self.stretch)
        theta = np.arctan2(dy, dx)
        outline = 1 + 0.09 * np.cos(2 * theta + self.wobble[0]) + 0.05 * np.cos(3 * theta + self.wobble[1])
        r = np.sqrt(dx**2 + dy**2) / (radius * outline)
        bulge = -self.zoom * (0.6 + 0.4 * r**2)  # upside down, more squeezed towards the edge
        source_x = (centre_x + dx * bulge).astype(np.float32)
        source_y = (centre_y + dy * bulge).astype(np.float32)
        shown = cv2.remap(picture, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        shown = cv2.GaussianBlur(shown, (0, 0), 0.5 + 0.07 * radius)
        shade = np.clip(self.gain * (1.05 - 0.4 * r**4 - 0.1 * dy / radius), 0.3, 1.4)[..., None]
        alpha = np.clip((1.0 - r) * radius / (1.0 + 0.25 * radius), 0.0, 1.0)[..., None] * 0.92
        place = picture[y0:y1, x0:x1]
        place += (np.clip(shown * shade, 0.0, 1.0) - place) * alpha


@dataclass(frozen=True)
class Rain:
    """One rainfall, whole: renders on a picture of any size, at any time."""

    layers: tuple[NoiseLayer | DrawnLayer, ...]
    decibels: float  # PSNR of rainy against clean on the reference tones, drops on the lens left out
    blending: Blending
    colour: tuple[float, float, float]
    refraction_px: float  # how far the scene behind a streak is smeared; 0: not
    gust_seed: int | None  # rain that is thicker here than there
    haze: Haze | None
    drops: tuple[Drop, ...]

    @staticmethod
    def random(random: Random, level: str | None = None) -> Rain:
        """Rain of a level of LEVELS; without one, of any from drizzle to very heavy. Never dry."""
        if level is not None and level not in LEVEL_DECIBELS:
            raise ValueError(f"expected a level of rain out of {', '.join(LEVELS)}, got {level!r}")
        decibels = float(random.uniform(*(ANY_DECIBELS if level is None else LEVEL_DECIBELS[level])))
        heaviness = float(np.clip((MILDEST - decibels) / (MILDEST - HEAVIEST), 0.0, 1.0))
        layers = random_layers(heaviness, random)
        blending: Blending = random.choice(list(BLENDINGS), p=list(BLENDINGS.values())).item()
        darkest = between(0.65, 0.8, heaviness) if blending == "mix" else 0.8  # much grey makes a picture dull
        grey = float(random.uniform(darkest, 1.0))
        smeared = blending == "mix" and random.random() < REFRACTION_SHARE
        blue = float(random.uniform(0.02, 0.08)) if random.random() < 0.3 else 0.0
        haze = None
        if random.random() < between(*HAZE_SHARE, heaviness):
            airlight = float(random.uniform(0.6, 0.95))
            error = float(np.mean((airlight - np.array(REFERENCE_TONES)) ** 2))
            most = float(np.sqrt(HAZE_ERROR * 10 ** (-decibels / 10) / error))
            haze = Haze(int(random.integers(2**31)), min(most, log_uniform((0.03, 0.5), random)), airlight)
        drops = int(random.integers(1, 7)) if random.random() < DROPS_SHARE else 0
        return Rain(
            layers=layers,
            decibels=decibels,
            blending=blending,
            colour=(grey * (1 - blue), grey * (1 - blue / 2), grey),
            refraction_px=float(random.uniform(1, 3)) if smeared else 0.0,
            gust_seed=int(random.integers(2**31)) if random.random() < 0.2 else None,
            haze=haze,
            drops=tuple(Drop.random(random) for _ in range(drops)),
        )

    def streaks(self, height: int, width: int, time: float = 0.0) -> FloatArray:
        """(H, W) float32 >= 0: the optical depth of all layers, before the gain that the level asks for."""
        total = self.layers[0].render(height, width, time)
        for layer in self.layers[1:]:
            total = total + layer.render(height, width, time)
        if self.gust_seed is not None:
            total = total * (0.3 + 1.4 * smooth_field(self.gust_seed, height, width))
        return total

    def fall(self, picture: FloatArray, time: float = 0.0) -> FloatArray:
        """Let it rain on a picture.

        `picture` is (H, W, 3) RGB in [0, 1]; `time` is in seconds, and streaks move along their direction with it while
        haze and drops on the lens stay. Returns a new float32 array in [0, 1], the same for the same rain, size and
        time. Raises ValueError for another shape.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise ValueError(f"expected an RGB picture of shape (height, width, 3), got {picture.shape}")
        height, width = picture.shape[:2]
        scene: FloatArray = np.asarray(picture, np.float32)
        streaks = self.streaks(height, width, time)
        # a video keeps the gain of its first frame, whatever it shows: no flicker
        gain = solve_gain(self, streaks) if time == 0.0 else gain_at_start(self, height, width)
        if self.haze is not None:
            scene = self.haze.veil(scene)
        opacity = (1.0 - np.exp(streaks * np.float32(-gain)))[..., None]
        if self.refraction_px:
            scene = scene + (cv2.GaussianBlur(scene, (0, 0), self.refraction_px) - scene) * opacity
        rainy = BLEND[self.blending](scene, opacity, np.array(self.colour, np.float32))
        rainy = np.clip(rainy, 0.0, 1.0)
        for drop in self.drops:
            drop.lay(rainy)
        return rainy


BLEND: dict[str, Callable[[FloatArray, FloatArray, FloatArray], FloatArray]] = {
    "add": lambda scene, opacity, colour: scene + opacity * colour,
    "screen": lambda scene, opacity, colour: scene + opacity * colour * (1.0 - scene),
    "mix": lambda scene, opacity, colour: scene + opacity * (colour - scene),
}


def solve_gain(rain: Rain, streaks: FloatArray) -> float:
    """The factor on `streaks` with which the reference tones fall to the rain's decibels, within GAIN_LIMITS."""
    most = float(streaks.max())
    if most <= 0.0:
        return 1.0
    bins = np.bincount((streaks * (95.0 / most)).astype(np.int64).ravel(), minlength=96) / streaks.size
    depth = (np.arange(96) + 0.5) * (most / 96)
    depth[0] = 0.0  # nearly all of the picture in light rain: no streak there
    tones = np.array(REFERENCE_TONES)[:, None]
    behind = tones if rain.haze is None else tones + (rain.haze.airlight - tones) * rain.haze.amount
    colour = np.array(float(np.mean(rain.colour)))
    wanted = 10 ** (-rain.decibels / 10)
    low, high = np.log(GAIN_LIMITS)
    for _ in range(12):
        middle = (low + high) / 2
        rainy = np.clip(BLEND[rain.blending](behind, 1.0 - np.exp(-np.exp(middle) * depth), colour), 0.0, 1.0)
        if float(((rainy - tones) ** 2 @ bins).mean()) < wanted:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


@lru_cache(maxsize=64)
def gain_at_start(rain: Rain, height: int, width: int) -> float:
    """Gain of a whole video: that of its first frame."""
    return solve_gain(rain, rain.streaks(height, width))


def random_layers(heaviness: float, random: Random) -> tuple[NoiseLayer | DrawnLayer, ...]:
    """Layers of one kind of KINDS that together cover what the heaviness (0 to 1) asks for."""
    weights = np.array([between(*span, heaviness) for span in KINDS.values()])
    kind = str(random.choice(list(KINDS), p=weights / weights.sum()))
    thin, thick = log_uniform(COVERAGE_MILDEST, random), log_uniform(COVERAGE_HEAVIEST, random)
    coverage = thin ** (1 - heaviness) * thick**heaviness
    angle = fall_angle(random)
    if kind == "photoshop":
        count = int(random.choice([1, 2, 3], p=[0.65, 0.25, 0.1]))
        angles = [float(angle + random.normal(0, 4)) for _ in range(count)]
        return tuple(NoiseLayer.random(each, coverage / count, random) for each in angles)
    if kind == "drawn":
        depth = str(random.choice(list(DEPTHS), p=[0.25, 0.5, 0.25]))
        return (DrawnLayer.random(angle, coverage, depth, random),)
    if kind == "depth":
        angles = [float(angle + random.normal(0, 3)) for _ in DEPTHS]
        covers = [coverage * float(random.uniform(*share)) for _, _, share, _ in DEPTHS.values()]
        return tuple(DrawnLayer.random(*each, random) for each in zip(angles, covers, DEPTHS, strict=True))
    count = int(random.integers(2, 6))
    fan = np.linspace(-1, 1, count) * random.uniform(*CROSSED_DEGREES) + random.normal(0, 4, count) + angle / 2
    layers: list[NoiseLayer | DrawnLayer] = []
    for each in np.clip(fan, -90, 90).tolist():
        if random.random() < 0.35:
            layers.append(NoiseLayer.random(each, coverage / count, random))
        else:
            depth = str(random.choice(list(DEPTHS), p=[0.2, 0.55, 0.25]))
            layers.append(DrawnLayer.random(each, coverage / count, depth, random))
    return tuple(layers)


def fall_angle(random: Random) -> float:
    """Degrees from straight down, positive to the right."""
    if random.random() < ANY_ANGLE_SHARE:
        return float(random.uniform(-90, 90))
    return float(np.clip(random.normal(0, ANGLE_DEGREES), -80, 80))
