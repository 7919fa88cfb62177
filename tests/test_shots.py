"""Cuts, in videos made of photographs."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import cv2
import numpy as np
import pytest
from skimage import data

from restore_plugin.masks.shots import change, cuts
from restore_plugin.pipeline import ArrayFrame

PHOTOGRAPHS = (data.astronaut, data.coffee, data.chelsea, data.rocket)
WIDTH, HEIGHT = 192, 128  # px, of the videos


@lru_cache
def photograph(number: int) -> np.ndarray:
    return cv2.resize(PHOTOGRAPHS[number](), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


@lru_cache
def large(number: int) -> np.ndarray:
    """(2 HEIGHT, 3 WIDTH): to move in."""
    return cv2.resize(PHOTOGRAPHS[number](), (3 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_AREA)


def video(pictures: Iterable[np.ndarray], first: int = 0) -> Iterator[ArrayFrame]:
    """Frames with some noise, as a camera's."""
    random = np.random.default_rng(0)
    for index, picture in enumerate(pictures):
        noisy = picture.astype(np.float32) + random.normal(0, 3, picture.shape)
        yield ArrayFrame(np.clip(np.round(noisy), 0, 255).astype(np.uint8), index + first)


def shots(*lengths: tuple[int, int]) -> Iterator[np.ndarray]:
    """(photograph, frames) one after another, each with a slow pan."""
    for number, frames in lengths:
        for at in range(frames):
            yield large(number)[20 : 20 + HEIGHT, 2 * at : 2 * at + WIDTH]


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_from_each_photograph_to_each(before: int, after: int) -> None:
    expected = [] if before == after else [6]
    assert cuts(video([photograph(before)] * 6 + [photograph(after)] * 6)) == expected


def test_several_shots() -> None:
    assert cuts(video(shots((0, 12), (1, 5), (2, 9), (3, 3), (0, 8)))) == [12, 17, 26, 29]


@pytest.mark.parametrize(("lengths", "expected"), [([1, 5], [1]), ([5, 1], [5]), ([1, 1], [1]), ([2, 3], [2])])
def test_cuts_at_the_ends(lengths: list[int], expected: list[int]) -> None:
    assert cuts(video([photograph(0)] * lengths[0] + [photograph(1)] * lengths[1])) == expected


def test_indices_are_the_frames_own() -> None:
    """A part of a video is not counted from 0."""
    assert cuts(video(shots((0, 6), (1, 6)), first=100)) == [106]


def test_in_an_upright_video() -> None:
    pictures = [np.rot90(picture) for picture in shots((0, 6), (2, 6))]
    assert cuts(ArrayFrame(np.ascontiguousarray(picture), index) for index, picture in enumerate(pictures)) == [6]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("px_a_frame", [1, 4, 12])
def test_none_in_a_pan(number: int, px_a_frame: int) -> None:
    """Up to a sixteenth of the picture's width a frame; it stands before and after."""
    at = np.clip(np.arange(-5, 2 * WIDTH // px_a_frame + 5) * px_a_frame, 0, 2 * WIDTH)[:60]
    assert cuts(video(large(number)[30 : 30 + HEIGHT, x : x + WIDTH] for x in at)) == []


@pytest.mark.parametrize("number", range(4))
def test_none_while_all_is_fast(number: int) -> None:
    """Each frame is far from the one before, as far as that one was from its own."""
    picture = large(number)
    round_trip = np.concatenate((picture, picture[:, ::-1]), axis=1)
    assert cuts(video(np.roll(round_trip, -45 * frame, axis=1)[:HEIGHT, :WIDTH] for frame in range(40))) == []


@pytest.mark.parametrize("number", range(4))
def test_none_in_a_zoom(number: int) -> None:
    """4 % a frame."""

    def zoomed() -> Iterator[np.ndarray]:
        picture = large(number)
        for frame in range(25):
            share = 1.04**-frame
            size = (round(3 * WIDTH * share), round(2 * HEIGHT * share))
            crop = cv2.getRectSubPix(picture, size, (1.5 * WIDTH, HEIGHT))
            yield cv2.resize(crop, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)

    assert cuts(video(zoomed())) == []


@pytest.mark.parametrize("frames", [12, 25])
def test_none_in_a_fade(frames: int) -> None:
    """From one photograph to another, and to black and back."""
    one, other = photograph(0).astype(np.float32), photograph(1).astype(np.float32)
    shares = np.clip(np.linspace(-0.3, 1.3, frames), 0, 1)
    assert cuts(video(one * (1 - share) + other * share for share in shares)) == []
    assert cuts(video(one * abs(1 - 2 * share) for share in shares)) == []


@pytest.mark.parametrize("number", range(4))
def test_none_where_the_brightness_drifts_or_steps(number: int) -> None:
    picture = photograph(number).astype(np.float32)
    assert cuts(video(picture * (0.6 + 0.02 * frame) for frame in range(20))) == []
    assert cuts(video(0.7 * picture + (0 if frame < 10 else 60) for frame in range(20))) == []  # a camera's exposure


def test_none_where_somebody_passes() -> None:
    """A dark figure, a third of the picture wide, through a room."""

    def passing() -> Iterator[np.ndarray]:
        for x in range(-80, 200, 8):
            picture = photograph(1).copy()
            picture[20:, max(0, x) : max(0, x + 64)] = 30
            yield picture

    assert cuts(video(passing())) == []


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_short_videos(frames: int) -> None:
    assert cuts(video([photograph(0)] * frames)) == []


def test_changes_by_hand() -> None:
    """Means of differences, brightness apart; where small shifts explain it, it is less."""
    flat, half = np.full((36, 64), 0.2, np.float32), np.full((36, 64), 0.2, np.float32)
    half[:, 32:] = 0.6
    assert change(flat, flat + 0.5) == pytest.approx(0, abs=1e-6)
    assert change(flat, half) == pytest.approx(0.2, abs=1e-6)
    noise = cv2.GaussianBlur(np.random.default_rng(2).random((36, 80), np.float32), (0, 0), 1.0)
    noise = (noise - noise.mean()) / noise.std() / 4
    assert change(noise[:, :64], noise[:, 8:72]) < 0.02
    assert change(noise[:, :64], noise[::-1, 8:72]) > 0.15
