"""Whiter than white, blacker than black, sideways, unseen: what a restorer of usual pictures is spared."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

import restore_plugin
from ffmpeg_filters.frames import PlanesFrame
from restore_plugin import catalog
from restore_plugin.errors import InputError
from restore_plugin.pipeline import ArrayFrame
from restore_plugin.regions import restore_frame, whole
from restore_plugin.types import Box, Mask, Needs, Pixels, Region

SKY = 244  # of limited range, where white is 235
WIDTH, HEIGHT = 96, 80
METHODS = [row.name for row in catalog.METHODS if row.task == "inpaint"]


def video_frame(luma: np.ndarray) -> PlanesFrame:
    """yuv420p of limited range, without colour."""
    frame = av.VideoFrame(luma.shape[1], luma.shape[0], "yuv420p")
    frame.color_range, frame.colorspace = 1, 1
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    for plane, values in zip(frame.planes, (luma, luma[::2, ::2] * 0 + 128, luma[::2, ::2] * 0 + 128), strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)  # type: ignore[call-overload]
        rows[:, : plane.width] = values
    return PlanesFrame(frame, 0)


def luma_of(frame: PlanesFrame) -> np.ndarray:
    return frame.samples(0)[:HEIGHT, :WIDTH].astype(int)


def sky() -> np.ndarray:
    """Grain around SKY above, and around 6, below black, beneath."""
    grain = np.random.default_rng(0).integers(-4, 5, (HEIGHT, WIDTH))
    return (grain + np.where(np.arange(HEIGHT) < HEIGHT // 2, SKY, 6)[:, None]).astype(np.uint8)


class Told:
    """A restorer that answers what it is told, and remembers what it was shown."""

    def __init__(self, change: float, **needs: Any) -> None:
        self.change, self.needs = change, Needs(**needs)
        self.shown: list[Pixels] = []
        self.beside: list[Pixels] = []

    def margin(self, region: Region) -> tuple[int, int]:
        return 8, 8

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels:
        self.shown.append(pixels)
        self.beside += neighbours
        return pixels + np.float32(self.change)


@pytest.mark.parametrize("change", [-0.1, -0.01, 0.01])
def test_what_is_beyond_white_and_black_changes_as_the_rest(change: float) -> None:
    frame = video_frame(sky())
    before = luma_of(frame)
    restorer = Told(change)
    restore_frame(frame, whole(frame), restorer)
    assert np.abs(luma_of(frame) - np.clip(before + change * 219, 0, 255)).max() <= 0.51
    assert restorer.shown[0].min() == 0
    assert restorer.shown[0].max() == 1


def test_what_is_hidden_goes_beyond_white_too() -> None:
    """A cover as bright as white, over what is brighter."""
    frame = video_frame(sky())
    restorer = Told(0.0, replaces=True)
    restore_frame(frame, [Region(Box(8, 8, 40, 24))], restorer)
    assert set(luma_of(frame)[8:32, 8:48].ravel()) == {235}
    assert luma_of(frame)[:8].max() > 240


@pytest.mark.parametrize("method", METHODS)
def test_a_hole_in_a_bright_sky_is_filled_as_bright(method: str) -> None:
    picture = np.random.default_rng(0).integers(246, 250, (HEIGHT, WIDTH)).astype(np.uint8)
    picture[30:50, 30:60] = 40
    frame = video_frame(picture)
    restorer = restore_plugin.load(method).restorer
    restore_frame(frame, [Region(Box(28, 28, 34, 24))], restorer)
    assert luma_of(frame)[28:52, 28:62].mean() >= 240


@pytest.mark.parametrize("turns", range(4))
def test_a_sideways_frame_is_shown_upright(turns: int) -> None:
    class Turned(ArrayFrame):
        pass

    Turned.turns = turns
    picture = np.random.default_rng(1).random((20, 30, 3), np.float32)
    frame, restorer = Turned(picture.copy()), Told(0.125, context=1, upright=True)
    restore_frame(frame, [Region(Box(0, 0, 30, 10))], restorer, [picture, picture])
    for each in (*restorer.shown, *restorer.beside):
        np.testing.assert_array_equal(each, np.rot90(picture[:18], turns))
    np.testing.assert_allclose(frame.image[:10], picture[:10] + 0.125)
    np.testing.assert_array_equal(frame.image[10:], picture[10:])


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_taken_from_what_nobody_sees(method: str) -> None:
    """A red disc, cut out, black where it is clear; a hole at its rim."""
    y, x = np.mgrid[:120, :120]
    disc = (x - 60) ** 2 + (y - 60) ** 2 < 45**2
    picture = np.zeros((120, 120, 3), np.uint8)
    picture[disc] = 200, 20, 20
    hole = (x > 85) & (y > 40) & (y < 80)
    found = restore_plugin.load(method)(picture, hole, unseen=~disc)
    assert np.abs(found[hole & disc].astype(int) - (200, 20, 20)).mean() <= 12
    np.testing.assert_array_equal(found[~hole], picture[~hole])
    with pytest.raises(InputError, match="expected a bool mask"):
        restore_plugin.load(method)(picture, hole, unseen=disc[:5])


def test_neighbours_of_any_type_count() -> None:
    random = np.random.default_rng(2)
    scene = np.repeat(random.integers(60, 180, (48, 64, 1), np.uint8), 3, axis=2)
    frames = [np.where(random.random((48, 64, 1)) < 0.1, np.uint8(255), scene) for _ in range(5)]
    restore = restore_plugin.load("derain")
    found = [
        restore(frames[2], neighbours=[each.astype(kind) * np.array(by, kind) for each in (*frames[:2], *frames[3:])])
        for kind, by in ((np.uint8, 1), (np.uint16, 257), (np.float32, 1 / 255))
    ]
    assert (found[0] != restore(frames[2])).any()
    for other in found[1:]:
        assert np.abs(other.astype(int) - found[0]).max() <= 1
    for wrong in ([frames[0]], [frames[0][:40]] * 4):
        with pytest.raises(InputError, match="expected 4 neighbours"):
            restore(frames[2], neighbours=wrong)


def test_a_stream_of_pictures_of_several_sizes() -> None:
    random = np.random.default_rng(3)
    frames = [random.integers(0, 256, (48 + 16 * (index % 2), 64, 3), np.uint8) for index in range(5)]
    alone = restore_plugin.load("derain")
    for found, frame in zip(restore_plugin.process(frames, "derain"), frames, strict=True):
        np.testing.assert_array_equal(found, alone(frame))
