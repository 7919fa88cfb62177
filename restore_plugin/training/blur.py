"""Blurred pictures: camera and objects that move while the shutter is open, lenses out of focus.

Light adds up before a camera applies its tone curve, so everything here is done in linear light; a share of the samples
is averaged as stored instead, as several public sets were made. Two sources of motion:

- `exposure`: neighbouring frames of a fast video are averaged; the truth is the middle one.
- `blurred`: a photograph moves along a random trajectory, in the manner of Kupyn et al. 2018 (algorithm 1): a Markov
  process with inertia, Gaussian changes of direction, a pull towards the start and rare impulsive shakes. The camera
  may turn as well, and a part of the picture may move apart from the rest.

The centroid of every trajectory lies at the origin, so the truth is aligned with its blurred picture. Everything is
deterministic from the generator given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin.mosaic import FloatArray
from restore_plugin.training.mosaics import compressed
from restore_plugin.training.streaks import log_uniform, splat

Image: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Random: TypeAlias = np.random.Generator

LONGEST_PX = 40.0  # path of a trajectory, turning included
MOTION_PX = (3.0, LONGEST_PX)
SHORT = 2.0  # the larger, the fewer of the motions are long: at 2, half are below 13 px, a quarter above 24
HANDSHAKE_PX = (0.8, 9.0)
DEFOCUS_PX = (0.6, 6.0)  # radius of the disc
POINTS = 128  # of a trajectory
FRAMES = (7, 9, 11, 13)  # averaged for one exposure
STEPPED = 0.3  # of the trajectories are sampled at as few points as an average of frames is
TURNING = 0.25  # of the cameras turn as well
OBJECT = 0.35  # of the pictures have a part that moves apart from the rest
STORED = 0.3  # of the pictures are averaged as they are stored, without undoing the camera's curve
CURVE = (1.8, 2.6)  # exponents of the others
GLARE = 0.3  # of the pictures have lights brighter than white, by up to ...
BRIGHTEST = 5.0
WHITE = 244  # the highest of 255 values that is certainly not a clipped one
NOISY = 0.2
COMPRESSED = 0.1
DIRECT_KERNEL = 11  # px: OpenCV convolves larger ones more slowly than three Fourier transforms do


def trajectory(length_px: float, random: Random, points: int = POINTS) -> FloatArray:
    """(points, 2) places x, y in px at equal times; the way is at most `length_px` long, the centroid is the origin."""
    unrest = 0.25 * float(random.random()) ** 2  # standard deviation of the change of direction in one step
    pull = float(random.uniform(0, 0.06))
    shakes = float(random.uniform(0, 0.9)) / POINTS  # chance of an impulsive shake in one step
    normal = random.standard_normal((POINTS, 2)) @ (1, 1j) * unrest
    shaken, angle = random.random(POINTS) < shakes, random.uniform(-0.5, 0.5, POINTS)
    direction, place = complex(np.exp(2j * np.pi * random.random())), 0j
    places = [place]
    for step in range(1, POINTS):
        change = complex(normal[step]) - pull * place / POINTS
        if shaken[step]:  # backwards, more or less
            change -= 2 * direction * complex(np.exp(1j * angle[step]))
        direction += change
        direction /= abs(direction) + 1e-9
        place += direction
        places.append(place)
    swing, waves, phase = random.uniform(0, 0.8), random.uniform(0.3, 1.5), random.random()  # of the speed
    time = np.linspace(0, 1, POINTS)
    speed = 1 + swing * np.cos(2 * np.pi * (waves * time + phase))
    gone = np.concatenate(([0], np.cumsum((speed[1:] + speed[:-1]) / 2)))
    at = np.interp(np.linspace(0, 1, points), time, gone / gone[-1]) * (POINTS - 1)
    track, index = np.array(places), np.arange(POINTS)
    path = np.stack((np.interp(at, index, track.real), np.interp(at, index, track.imag)), 1)
    path *= length_px / (POINTS - 1)
    centred: FloatArray = (path - path.mean(0)).astype(np.float32)
    return centred


@dataclass(frozen=True)
class Motion:
    """How a layer of the picture moves while the shutter is open."""

    path: FloatArray  # (n, 2): x, y in px
    turn: FloatArray | None = None  # (n,): radians about `centre`, on top of the path
    centre: tuple[float, float] = (0.0, 0.0)  # x, y in px

    @staticmethod
    def random(length_px: float, size: tuple[int, int], turning: bool, random: Random) -> Motion:
        """Nothing in a picture of `size` (height, width) moves further than `length_px` in all."""
        points = int(random.choice(FRAMES)) if random.random() < STEPPED else POINTS
        if not turning:
            return Motion(trajectory(length_px, random, points))
        height, width = size
        centre = (width * float(random.uniform(-1, 2)), height * float(random.uniform(-1, 2)))
        furthest = np.hypot(max(centre[0], width - centre[0]), max(centre[1], height - centre[1]))
        share = float(random.uniform(0.1, 1.0))
        turn = trajectory(length_px * share / furthest, random, points)[:, 0]
        return Motion(trajectory(length_px * (1 - share), random, points), turn, centre)


def kernel(path: FloatArray) -> FloatArray:
    """(k, k) float32, k odd, that sums to 1: how long the light of the middle pixel fell on each."""
    reach = int(np.ceil(np.abs(path).max())) + 1
    x, y = path.T + reach
    side = 2 * reach + 1
    return splat(x, y, np.full(len(path), 1 / len(path), np.float32), (side, side))


def disc(radius_px: float) -> FloatArray:
    """(k, k) float32, k odd, that sums to 1: the image of a point out of focus."""
    reach, fine = int(np.ceil(radius_px)) + 1, 32
    places = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    inside = (places[:, None] ** 2 + places**2 < radius_px**2).astype(np.float32)
    areas: FloatArray = inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean((1, 3))
    return areas / areas.sum()


def convolve(picture: FloatArray, spread: FloatArray) -> FloatArray:
    """`picture` (H, W, C) float32, mirrored at its borders, convolved with a kernel of odd side; the same shape."""
    if len(spread) <= DIRECT_KERNEL:
        found: FloatArray = cv2.filter2D(picture, -1, spread[::-1, ::-1], borderType=cv2.BORDER_REFLECT_101)
        return found.reshape(picture.shape)
    reach = len(spread) // 2
    height, width = picture.shape[:2]
    tall, wide = (cv2.getOptimalDFTSize(side + 2 * reach) for side in (height, width))
    around = (reach, tall - height - reach, reach, wide - width - reach)
    padded = cv2.copyMakeBorder(picture, *around, borderType=cv2.BORDER_REFLECT_101)
    point = np.zeros((tall, wide), np.float32)
    point[: len(spread), : len(spread)] = spread
    spectrum = cv2.dft(point)
    out = np.empty_like(picture)
    for channel, plane in enumerate(cv2.split(padded)):
        product = cv2.mulSpectrums(cv2.dft(plane), spectrum, 0)
        whole = cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT)
        out[..., channel] = whole[2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]
    return out


def smear(picture: FloatArray, motion: Motion) -> FloatArray:
    """The mean of `picture` (H, W, C) float32 along a motion."""
    if motion.turn is None:
        return convolve(picture, kernel(motion.path))
    height, width = picture.shape[:2]
    span = float(np.abs(np.diff(motion.path, axis=0)).sum())
    span += float(np.abs(np.diff(motion.turn)).sum()) * float(np.hypot(height, width) + np.hypot(*motion.centre))
    every = max(1, int(len(motion.turn) / max(span, 8.0)))  # a step of about a pixel
    path, turn = motion.path[every // 2 :: every], motion.turn[every // 2 :: every]
    path, turn = path - path.mean(0), turn - turn.mean()
    total = np.zeros_like(picture)
    centre_x, centre_y = motion.centre
    for (x, y), angle in zip(path.tolist(), turn.tolist(), strict=True):
        cosine, sine = np.cos(angle), np.sin(angle)
        forward = np.array(
            [
                [cosine, -sine, centre_x - cosine * centre_x + sine * centre_y + x],
                [sine, cosine, centre_y - sine * centre_x - cosine * centre_y + y],
            ]
        )
        total += cv2.warpAffine(picture, forward, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return total / len(path)


def blob(height: int, width: int, random: Random) -> FloatArray:
    """(H, W, 1) float32 in [0, 1]: an irregular part of the picture, an eighth to a half of it, with soft borders."""
    cells = int(random.integers(3, 7))
    field = cv2.resize(random.random((cells, cells), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    level = float(np.quantile(field[::8, ::8], random.uniform(0.5, 0.875)))
    steepness = cells * log_uniform((0.5, 4.0), random) / max(height, width)  # field by px, about
    return np.clip((field - level) / steepness + 0.5, 0.0, 1.0)[..., None]


def layered(picture: FloatArray, length_px: float, random: Random) -> FloatArray:
    """A part of the picture moves along its own trajectory in front of the rest; in half of them one stands still."""
    size = picture.shape[0], picture.shape[1]
    mask = blob(*size, random)
    lengths = length_px * np.array([1.0, random.uniform(0.1, 1.0)])
    who = random.random()
    if who < 0.5:
        lengths[1] = 0.0
    behind, before = random.permutation(lengths).tolist()
    back = picture if behind == 0 else smear(picture, Motion.random(behind, size, False, random))
    front = np.concatenate((picture * mask, mask), 2)
    if before > 0:
        front = smear(front, Motion.random(before, size, False, random))
    return back * (1 - front[..., 3:]) + front[..., :3]


def moved(picture: FloatArray, random: Random) -> FloatArray:
    """Camera motion up to LONGEST_PX."""
    low, high = MOTION_PX
    length = low + (high - low) * float(random.random()) ** SHORT
    if random.random() < OBJECT:
        return layered(picture, length, random)
    turning = bool(random.random() < TURNING)
    return smear(picture, Motion.random(length, (picture.shape[0], picture.shape[1]), turning, random))


def shaken(picture: FloatArray, random: Random) -> FloatArray:
    """The unrest of a hand."""
    return smear(picture, Motion(trajectory(log_uniform(HANDSHAKE_PX, random), random)))


def unfocused(picture: FloatArray, random: Random) -> FloatArray:
    return convolve(picture, disc(log_uniform(DEFOCUS_PX, random)))


BLURS: dict[str, Callable[[FloatArray, Random], FloatArray]] = {
    "motion": moved,
    "handshake": shaken,
    "defocus": unfocused,
}


def curve(random: Random) -> float:
    """Exponent from stored values to light."""
    return 1.0 if random.random() < STORED else float(random.uniform(*CURVE))


def light(exponent: float, glare: float = 0.0) -> FloatArray:
    """(256,): the light of stored values; the highest are taken to be clipped, and get up to 1 + `glare`."""
    values = np.arange(256, dtype=np.float32)
    return (values / 255) ** np.float32(exponent) * (1 + glare * np.clip((values - WHITE) / (255 - WHITE), 0, 1))


def developed(linear: FloatArray, exponent: float, random: Random) -> Image:
    """What a camera stores: with noise that grows with light, clipped, through its curve, compressed; or with none."""
    if random.random() < NOISY:
        shot = log_uniform((0.002, 0.015), random)
        deviation = cv2.sqrt(np.maximum(linear, 0) * np.float32(shot**2) + np.float32((shot / 25) ** 2))
        linear = linear + deviation * random.standard_normal(linear.shape, np.float32)
    stored: FloatArray = np.clip(linear, 0, 1)
    if exponent != 1.0:
        stored = cv2.pow(stored, 1 / exponent)
    if random.random() < COMPRESSED:
        stored = compressed(stored, random)
    return np.round(stored * 255).astype(np.uint8)


def blurred(picture: Image, kind: str, random: Random) -> Image:
    """A copy of an (H, W, 3) uint8 RGB picture, blurred as BLURS[kind] says. Raises ValueError for another kind."""
    if kind not in BLURS:
        raise ValueError(f"expected a blur out of {', '.join(BLURS)}, got {kind!r}")
    exponent = curve(random)
    glare = float(random.uniform(0, BRIGHTEST - 1)) if exponent != 1.0 and random.random() < GLARE else 0.0
    linear: FloatArray = cv2.LUT(picture, light(exponent, glare))
    return developed(BLURS[kind](linear, random), exponent, random)


def exposure(frames: Sequence[Image], random: Random) -> tuple[Image, Image]:
    """(blurred, sharp): an odd number of consecutive frames, averaged, and the middle one."""
    if len(frames) % 2 == 0:
        raise ValueError(f"expected an odd number of frames, got {len(frames)}")
    exponent = curve(random)
    table = light(exponent)
    total = np.zeros(frames[0].shape, np.float32)
    for frame in frames:
        total += cv2.LUT(frame, table)
    return developed(total / len(frames), exponent, random), frames[len(frames) // 2]
