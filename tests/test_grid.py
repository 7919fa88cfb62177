"""The grid measured in steps that are known, and in mosaics through JPEG."""

import cv2
import numpy as np
import pytest
from skimage import data

from restore_plugin import mosaic
from restore_plugin.masks.grid import fit_axis, step_profile

GRIDS = [(4.0, 1.0), (6.5, 2.0), (8.0, 3.0), (11.3, 4.4), (16.0, 9.0), (25.2, 11.0), (40.0, 0.0)]


def line_error(phase: float, expected: float, block: float) -> float:
    return abs((phase - expected + block / 2) % block - block / 2)


def shown_mosaic(block: float, phase: float, side: int = 240) -> np.ndarray:
    picture = data.astronaut()[0:side, 100 : 100 + side].astype(np.float32) / 255
    edges = mosaic.axis_edges(0, side, block, phase)
    return mosaic.pixelate(picture, edges, edges)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", np.round(picture * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.float32) / 255


@pytest.mark.parametrize("off", [0.85, 1.0, 1.15])
@pytest.mark.parametrize(("block", "phase"), GRIDS)
def test_fits_a_synthetic_profile(block: float, phase: float, off: float) -> None:
    random = np.random.default_rng(1)
    profile = random.uniform(0, 0.004, 200)
    lines = np.floor(phase + np.arange(200) * block + 0.5).astype(int)
    lines = lines[(lines > 0) & (lines < 200)]
    profile[lines] = random.uniform(0.01, 0.05, len(lines))
    grid = fit_axis(profile, block * off)
    assert grid is not None
    assert grid.block == pytest.approx(block, rel=0.02)
    assert line_error(grid.phase, phase, block) < 1
    assert grid.contrast > 0.6


@pytest.mark.parametrize("off", [2 / 3, 1.5, 0.5, 2.0])
@pytest.mark.parametrize(("block", "phase"), [(11.3, 4.4), (16.0, 9.0), (25.2, 11.0)])
def test_a_guess_of_another_size_is_corrected(block: float, phase: float, off: float) -> None:
    """As where blocks are longer than wide, and both axes were taken for one size."""
    luma = cv2.cvtColor(jpeg(shown_mosaic(block, phase), 92), cv2.COLOR_BGR2GRAY)
    grid = fit_axis(step_profile(luma, np.ones(luma.shape, bool), 1), block * off)
    assert grid is not None
    assert grid.block == pytest.approx(block, rel=0.02)


@pytest.mark.parametrize("quality", [75, 92])
@pytest.mark.parametrize(("block", "phase"), GRIDS)
@pytest.mark.parametrize("axis", [0, 1])
def test_fits_mosaics_through_jpeg(block: float, phase: float, quality: int, axis: int) -> None:
    luma = cv2.cvtColor(jpeg(shown_mosaic(block, phase), quality), cv2.COLOR_BGR2GRAY)
    grid = fit_axis(step_profile(luma, np.ones(luma.shape, bool), axis), block * 1.1)
    assert grid is not None
    assert grid.block == pytest.approx(block, rel=0.02)
    # wherever in the picture: the lines drift apart with the blocks' error
    steps = round(200 / grid.block)
    for at in (0, steps):
        assert line_error(grid.phase + at * grid.block, phase, block) < 1


def test_profile_of_hand_made_steps() -> None:
    luma = np.zeros((4, 6), np.float32)
    luma[:, 2:] = 0.05
    luma[:2, 5] = 0.07
    mask = np.ones((4, 6), bool)
    np.testing.assert_allclose(step_profile(luma, mask, 1), [0, 0, 0.05, 0, 0, 0.01], atol=1e-6)
    np.testing.assert_allclose(step_profile(luma.T, mask.T, 0), [0, 0, 0.05, 0, 0, 0.01], atol=1e-6)
    mask[:2] = False
    np.testing.assert_allclose(step_profile(luma, mask, 1), [0, 0, 0.05, 0, 0, 0], atol=1e-6)
    mask[:] = False
    np.testing.assert_array_equal(step_profile(luma, mask, 1), np.zeros(6))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 200])
def test_flat_is_no_grid(length: int) -> None:
    assert fit_axis(np.zeros(length), 8.0) is None


def test_noise_has_little_contrast() -> None:
    grid = fit_axis(np.random.default_rng(2).uniform(0.01, 0.02, 240), 8.0)
    assert grid is None or grid.contrast < 0.25
