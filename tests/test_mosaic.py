"""The arithmetic of mosaics against hand-worked arrays, OpenCV, Pillow and plain loops."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from restore_plugin import mosaic

EDGES = mosaic.axis_edges(0, 53, 6.5, 1.25)  # cells of 1 to 7 px


def crop(height: int, width: int) -> np.ndarray:
    return data.astronaut()[60 : 60 + height, 180 : 180 + width].astype(np.float32) / 255


@pytest.mark.parametrize(
    ("start", "stop", "block", "phase", "expected"),
    [
        (0, 32, 8, 0, [0, 8, 16, 24, 32]),
        (0, 26, 6.5, 0, [0, 6, 13, 19, 26]),  # pixel 6 has its centre on the line at 6.5 and is the second cell's first
        (0, 20, 8, -3, [0, 5, 13, 20]),
        (0, 20, 8, 1005, [0, 5, 13, 20]),
        (10, 30, 8, 0, [10, 16, 24, 30]),
        (0, 5, 8, 0, [0, 5]),
        (0, 5, 8, 2.4, [0, 2, 5]),
        (0, 5, 8, 2.6, [0, 3, 5]),
        (0, 3, 1, 0, [0, 1, 2, 3]),
    ],
)
def test_axis_edges(start: int, stop: int, block: float, phase: float, expected: list[int]) -> None:
    assert mosaic.axis_edges(start, stop, block, phase).tolist() == expected


@pytest.mark.parametrize(
    ("start", "stop", "block", "phase"),
    [(0, 9, 0.9, 0), (0, 9, float("nan"), 0), (0, 9, float("inf"), 0), (0, 9, 8, float("inf")), (5, 5, 8, 0)],
)
def test_axis_edges_refuses(start: int, stop: int, block: float, phase: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        mosaic.axis_edges(start, stop, block, phase)


def test_pixelate_whole_blocks_as_opencv() -> None:
    picture = crop(96, 120)
    shown = mosaic.pixelate(picture, mosaic.axis_edges(0, 96, 8, 0), mosaic.axis_edges(0, 120, 12, 0))
    small = cv2.resize(picture, (10, 12), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(shown, cv2.resize(small, (120, 96), interpolation=cv2.INTER_NEAREST), atol=1e-5)


def test_pixelate_fractional_blocks_as_a_plain_loop() -> None:
    picture, block, phase = crop(37, 50), (6.5, 5.3), (1.66, -2.1)
    cells: dict[tuple[int, int], list[np.ndarray]] = {}

    def cell(x: int, y: int) -> tuple[int, int]:
        return int((x + 0.5 - phase[0]) // block[0]), int((y + 0.5 - phase[1]) // block[1])

    for y in range(37):
        for x in range(50):
            cells.setdefault(cell(x, y), []).append(picture[y, x].astype(float))
    expected = np.array([[np.mean(cells[cell(x, y)], axis=0) for x in range(50)] for y in range(37)])
    y_edges, x_edges = mosaic.axis_edges(0, 37, block[1], phase[1]), mosaic.axis_edges(0, 50, block[0], phase[0])
    np.testing.assert_allclose(mosaic.pixelate(picture, y_edges, x_edges), expected, atol=1e-5)


def test_pixelate_in_linear_light() -> None:
    half = np.zeros((2, 2, 3), np.float32)
    half[0] = 1
    edges = np.array([0, 2])
    np.testing.assert_allclose(mosaic.pixelate(half, edges, edges), 0.5, atol=1e-6)
    # half of the light is sRGB level 187.5 of 255 (188 as rounded everywhere)
    np.testing.assert_allclose(mosaic.pixelate(half, edges, edges, linear_light=True), 187.516 / 255, atol=1e-5)


def test_srgb_curve() -> None:
    np.testing.assert_allclose(
        mosaic.srgb_to_linear(np.float32([0, 0.04, 0.5, 1])), [0, 0.0030960, 0.2140411, 1], atol=1e-6
    )
    values = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_allclose(mosaic.linear_to_srgb(mosaic.srgb_to_linear(values)), values, atol=1e-5)


def test_cells_to_pixels_is_bicubic_as_in_pillow() -> None:
    cells = np.random.default_rng(1).random((9, 7)).astype(np.float32)
    ours = mosaic.resample(
        mosaic.cells_to_pixels(np.arange(10) * 8), mosaic.cells_to_pixels(np.arange(8) * 12), cells[..., None]
    )[..., 0]
    theirs = np.asarray(Image.fromarray(cells).resize((7 * 12, 9 * 8), Image.Resampling.BICUBIC))
    inner = np.s_[16:-16, 24:-24]  # they treat the ends differently
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-5)
    assert ours.min() < cells.min() - 0.01 or ours.max() > cells.max() + 0.01  # not clipped before the projection


def test_interpolation_keeps_a_constant() -> None:
    for taps in (mosaic.cells_to_pixels(EDGES), mosaic.pixels_to_uniform(EDGES), mosaic.uniform_to_pixels(EDGES)):
        np.testing.assert_allclose(taps.weight.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("block", [2.7, 4.0, 6.5, 8.0, 11.3, 25.2])
def test_pixels_to_uniform_keeps_cell_means(block: float) -> None:
    edges = mosaic.axis_edges(0, 97, block, 1.2)
    values = np.random.default_rng(2).random((97, 1, 1)).astype(np.float32)
    uniform = mosaic.pixels_to_uniform(edges).along(values, 0)
    assert len(uniform) == mosaic.CELL * (len(edges) - 1)
    expected = [values[a:b].mean() for a, b in pairwise(edges)]
    np.testing.assert_allclose(uniform.reshape(-1, mosaic.CELL).mean(1), expected, atol=1e-5)


def test_pixels_to_uniform_of_whole_ratios() -> None:
    values = np.random.default_rng(3).random((48, 1, 3)).astype(np.float32)
    four = mosaic.pixels_to_uniform(np.arange(0, 49, 4)).along(values, 0)
    np.testing.assert_allclose(four, np.repeat(values, 2, axis=0), atol=1e-6)
    sixteen = mosaic.pixels_to_uniform(np.arange(0, 49, 16)).along(values, 0)
    np.testing.assert_allclose(sixteen, values.reshape(24, 2, 1, 3).mean(1), atol=1e-6)


@pytest.mark.parametrize("block", [4, 8])
def test_uniform_and_back_is_identity(block: int) -> None:
    edges = np.arange(0, 49, block)
    values = np.random.default_rng(4).random((48, 1, 3)).astype(np.float32)
    uniform = mosaic.pixels_to_uniform(edges).along(values, 0)
    np.testing.assert_allclose(mosaic.uniform_to_pixels(edges).along(uniform, 0), values, atol=1e-5)


@pytest.mark.parametrize("block", [6.5, 12.0, 25.2])
def test_uniform_and_back_keeps_a_ramp(block: float) -> None:
    edges = mosaic.axis_edges(0, 200, block, 0.3)
    ramp = np.linspace(0, 1, 200, dtype=np.float32)[:, None, None]
    back = mosaic.uniform_to_pixels(edges).along(mosaic.pixels_to_uniform(edges).along(ramp, 0), 0)
    inner = slice(int(edges[1]), int(edges[-2]))  # cells cut by the ends are denser in samples
    assert np.abs(back - ramp)[inner].max() < 1 / 200  # less than a pixel's step


def test_measure_a_clean_mosaic() -> None:
    edges = mosaic.axis_edges(0, 64, 8, 0)
    cells = np.random.default_rng(5).random((8, 8, 3)).astype(np.float32)
    shown = np.kron(cells, np.ones((8, 8, 1), np.float32))
    mask = np.zeros((64, 64), bool)
    mask[20:50, 11:53] = True  # cuts cells
    shown[~mask] = crop(64, 64)[~mask]
    means, noise = mosaic.measure(shown, mask, edges, edges)
    assert noise == pytest.approx(0, abs=1e-4)
    np.testing.assert_allclose(means[2:7, 1:7], cells[2:7, 1:7], atol=1e-5)  # seen on the masked pixels alone
    np.testing.assert_allclose(means[0, 0], shown[:8, :8].mean((0, 1)), atol=1e-5)  # true cells: the mean of all
    np.testing.assert_allclose(means[7, 3], shown[56:, 24:32].mean((0, 1)), atol=1e-5)


def test_measure_a_noisy_mosaic() -> None:
    random = np.random.default_rng(6)
    edges = mosaic.axis_edges(0, 96, 12, 0)
    cells = random.uniform(0.2, 0.8, (8, 8, 3)).astype(np.float32)
    shown = np.kron(cells, np.ones((12, 12, 1))) + random.normal(0, 0.03, (96, 96, 3))
    means, noise = mosaic.measure(shown.astype(np.float32), np.ones((96, 96), bool), edges, edges)
    assert noise == pytest.approx(0.03, rel=0.1)
    assert np.abs(means - cells).max() < 0.03 / 12 * 5  # standard error of a mean of 144, five times
