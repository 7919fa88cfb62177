"""`restore_plugin.load` and `process`, as a frame pipeline calls them: what is wrong is told, nothing is passed on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import restore_plugin
from restore_plugin.errors import InputError
from restore_plugin.types import Box, Region, RestoreOptions


def picture(seed: int = 0, height: int = 48, width: int = 64) -> Any:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


WHERE: dict[str, Any] = {
    "a mask that is a list": [[True]],
    "numbers": (1, 2, 3, 4),
    "a file's name": "mask.png",
    "one region": Region(Box(0, 0, 8, 8)),
    "a box": [Box(0, 0, 8, 8)],
    "a region outside": [Region(Box(100, 0, 8, 8))],
    "an empty region": [Region(Box(0, 0, 0, 8))],
    "a block of nothing": [Region(Box(0, 0, 8, 8), block=(0.0, 8.0))],
    "a block that is no number": [Region(Box(0, 0, 8, 8), block=(float("nan"), 8.0))],
    "a block of one number": [Region(Box(0, 0, 8, 8), block=8)],  # type: ignore[arg-type]
}


@pytest.mark.parametrize("where", WHERE)
def test_a_place_that_is_none(where: str) -> None:
    with pytest.raises(InputError):
        restore_plugin.load("bicubic")(picture(), WHERE[where])


def test_a_region_that_reaches_outside_is_restored_as_far_as_it_goes() -> None:
    out = restore_plugin.load("bicubic")(picture(), [Region(Box(-8, -8, 32, 32), block=(8.0, 8.0))])
    changed = (out != picture()).any(2)
    assert changed[:24, :24].any()
    assert not changed[24:].any()


def test_floats_in_other_units() -> None:
    with pytest.raises(InputError, match=r"divide by 255"):
        restore_plugin.load("derain")(picture().astype(np.float32))
    overshot = picture().astype(np.float32) / 255 * 1.2 - 0.1  # as filters leave it
    assert restore_plugin.load("derain")(overshot).shape == overshot.shape


@pytest.mark.parametrize("method", ["fillnet", "patches", "smooth", "telea"])
def test_a_hole_that_is_marked_by_no_number(method: str) -> None:
    """What lies there is not looked at; around it, it counts as black."""
    image = picture().astype(np.float32) / 255
    hole = np.zeros(image.shape[:2], bool)
    hole[16:24, 20:32] = True
    image[hole] = np.nan
    image[17, 40] = np.nan
    filled = restore_plugin.load(method)(image, hole)
    assert np.isfinite(filled[hole]).all()
    np.testing.assert_array_equal(filled[~hole], image[~hole])


@pytest.mark.parametrize("seed", [-1, 2**53 + 1, 1.5, "x"])
def test_a_seed_that_is_none(seed: Any) -> None:
    with pytest.raises(InputError, match="expected a seed"):
        RestoreOptions(seed=seed)


def test_an_engine_for_a_method_without_a_network() -> None:
    with pytest.raises(InputError, match="telea has no network"):
        restore_plugin.load("telea", engine="openvino")


@pytest.mark.parametrize("task", ["derain", "deblur"])
def test_frames_of_one_array(task: str) -> None:
    """A reader may hand out the same array for each of its frames."""
    frames = [picture(seed) for seed in range(4)]

    def reused() -> Iterator[Any]:
        array = np.empty_like(frames[0])
        for frame in frames:
            array[:] = frame
            yield array

    for ours, theirs in zip(restore_plugin.process(reused(), task), restore_plugin.process(frames, task), strict=True):
        np.testing.assert_array_equal(ours, theirs)
