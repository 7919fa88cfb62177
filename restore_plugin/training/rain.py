"""Rain to lay over clean pictures and video: streaks in layers, accumulation haze, drops on the lens.

A `Rain` mixes layers of streaks of both families, in one direction or crossed. How heavy it is is stated as the PSNR
of the rainy against the clean picture: opacity is solved for on reference tones, never on the picture at hand, so a
white sky does not get absurd rain and the frames of a video do not flicker. Everything is deterministic from the
generator given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import cv2
import numpy as np

from restore_plugin.mosaic import FloatArray
from restore_plugin.training.streaks import DEPTHS, DrawnLayer, NoiseLayer, Random, Span, log_uniform

Blending: TypeAlias = Literal["add", "screen", "mix"]

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
GAIN_LIMITS: Span = (0.02, 4.5)  # more would swell the streaks to flat ribbons
HAZE_SHARE: Span = (0.06, 0.35)  # of rainfalls, mildest and heaviest
HAZE_ERROR = 0.5  # the veil makes at most this part of the squared error
DROPS_SHARE = 0.05
REFRACTION_SHARE = 0.5  # of those blended by "mix"
REFERENCE_TONES = (0.03, 0.12, 0.22, 0.33, 0.45, 0.59, 0.75, 0.93)  # means of the eighths of common photographs' values


def between(mildest: float, heaviest: float, heaviness: float) -> float:
    return mildest + (heaviest - mildest) * heaviness


def smooth_field(seed: int, height: int, width: int) -> FloatArray:
    """(H, W) float32 in [0, 1] that varies slowly."""
    coarse = np.random.default_rng(seed).random((4, 4), np.float32)
    fine: FloatArray = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(fine, 0.0, 1.0)


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
