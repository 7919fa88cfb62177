"""The shipped mosaic finder on photographs, lossless and through H.264."""

from functools import lru_cache

import cv2
import numpy as np
import pytest
from skimage import data

from restore_plugin import catalog
from restore_plugin.masks.grid import AxisGrid
from restore_plugin.masks.mosaic import LARGEST_SIDE, is_codec_grid
from restore_plugin.pipeline import ArrayFrame
from restore_plugin.types import Box, Finder, Region

BLOCKS = [(6.5, 6.5), (8.0, 8.0), (16.0, 16.0), (12.0, 9.0)]
PHOTOGRAPHS = {"astronaut": data.astronaut, "coffee": data.coffee, "chelsea": data.chelsea}


@lru_cache
def finder() -> Finder:
    made = catalog.build_finder(catalog.task("demosaic"))
    assert made is not None
    return made


def seen(picture: np.ndarray) -> ArrayFrame:
    return ArrayFrame(picture.copy())


def pixelated(picture: np.ndarray, mask: np.ndarray, block: tuple[float, float], x: int, y: int) -> np.ndarray:
    """Every masked pixel takes the mean of its block; blocks are counted from (x, y)."""
    rows = np.floor((np.arange(picture.shape[0]) + 0.5 - y) / block[1]).astype(int)
    columns = np.floor((np.arange(picture.shape[1]) + 0.5 - x) / block[0]).astype(int)
    cell = (rows - rows.min())[:, None] * 10_000 + (columns - columns.min())
    _, number = np.unique(cell, return_inverse=True)
    number = number.reshape(cell.shape)
    count = np.bincount(number.ravel())
    flat = [np.bincount(number.ravel(), picture[..., c].ravel()) / count for c in range(3)]
    out = picture.copy()
    out[mask] = np.round(np.stack(flat, 1))[number[mask]]
    return out


def hidden(shape: str, block: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The astronaut with a mosaic of 144x180 px over her face, and where it is."""
    picture = data.astronaut()
    x, y, width, height = 150, 40, 144, 180
    mask = np.zeros(picture.shape[:2], np.uint8)
    if shape == "box":
        mask[y : y + height, x : x + width] = 1
    else:
        cv2.ellipse(mask, (x + width // 2, y + height // 2), (width // 2, height // 2), 0, 0, 360, 1, -1)
    return pixelated(picture, mask > 0, block, x, y), mask > 0


def judge(regions: list[Region], mask: np.ndarray, block: tuple[float, float]) -> tuple[float, float, float]:
    """Recall and precision in pixels, and the largest region's error in block size (share)."""
    found = np.zeros_like(mask)
    for region in regions:
        found[region.box.slices] |= region.mask()
    largest = regions[0].block
    assert largest is not None
    error = max(abs(a / b - 1) for a, b in zip(largest, block, strict=True))
    return float((found & mask).sum() / mask.sum()), float((found & mask).sum() / found.sum()), error


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("shape", ["box", "ellipse"])
def test_finds_lossless_mosaics(shape: str, block: tuple[float, float]) -> None:
    shown, mask = hidden(shape, block)
    regions = finder().find(seen(shown))
    assert regions, "nothing found"
    recall, precision, error = judge(regions, mask, block)
    assert recall >= 0.9
    assert precision >= 0.85
    assert error <= 0.02


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("shape", ["box", "ellipse"])
def test_finds_mosaics_through_h264(shape: str, block: tuple[float, float]) -> None:
    pytest.importorskip("av")
    from restore_plugin.training.scenes import through_codec

    shown, mask = hidden(shape, block)
    frames = through_codec([shown] * 3, "libx264", {"crf": "23", "preset": "veryfast"})
    for frame in (frames[0], frames[-1]):  # one coded by itself, one predicted
        levels = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)  # a video's luma is whole levels
        regions = finder().find(seen(np.dstack([levels] * 3)))
        assert regions, "nothing found"
        recall, precision, error = judge(regions, mask, block)
        assert recall >= 0.85
        assert precision >= 0.8
        assert error <= 0.02


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_finds_nothing_in_photographs(name: str) -> None:
    assert finder().find(seen(PHOTOGRAPHS[name]())) == []


def test_two_mosaics_are_two_regions() -> None:
    shown = data.astronaut()
    boxes = [Box(40, 60, 120, 120), Box(300, 200, 160, 150)]
    for box, block in zip(boxes, (8.0, 14.0), strict=True):
        mask = np.zeros(shown.shape[:2], bool)
        mask[box.slices] = True
        shown = pixelated(shown, mask, (block, block), box.x, box.y)
    small, large = sorted(finder().find(seen(shown)), key=lambda region: region.box.area)
    for region, box, block in ((small, boxes[0], 8.0), (large, boxes[1], 14.0)):
        assert region.box.intersect(box).area >= 0.9 * max(box.area, region.box.area)
        assert region.block == pytest.approx((block, block), rel=0.02)


def test_frames_too_large_to_search_at_full_size() -> None:
    row = [data.astronaut()[100:400], data.coffee()[50:350], data.chelsea()[:300], data.astronaut()[200:500][:, ::-1]]
    shown = np.concatenate([*row, data.coffee()[100:400]], axis=1)
    assert shown.shape[1] > LARGEST_SIDE
    mask = np.zeros(shown.shape[:2], bool)
    mask[40:260, 1101:1501] = True
    regions = finder().find(seen(pixelated(shown, mask, (20.0, 20.0), 1101, 40)))
    assert regions, "nothing found"
    recall, precision, error = judge(regions, mask, (20.0, 20.0))
    assert recall >= 0.9
    assert precision >= 0.85
    assert error <= 0.02


@pytest.mark.parametrize("size", [(333, 217), (41, 97)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    width, height = size
    picture = data.astronaut()[40 : 40 + height, 120 : 120 + width].copy()
    shown = pixelated(picture, np.ones(picture.shape[:2], bool), (8.0, 8.0), 0, 0)
    for region in finder().find(seen(shown)):
        assert region.box.intersect(Box(0, 0, width, height)) == region.box


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (3, 200)])
def test_tiny_frames(size: tuple[int, int]) -> None:
    assert finder().find(seen(data.astronaut()[: size[1], : size[0]])) == []


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_measures_under_a_mask(block: tuple[float, float]) -> None:
    shown, mask = hidden("ellipse", block)
    region = finder().measure(seen(shown), mask)
    assert region is not None
    assert region.block == pytest.approx(block, rel=0.02)
    for phase, start, size in zip(region.phase, (150, 40), block, strict=True):
        assert abs((phase - start + size / 2) % size - size / 2) < 1
    covered = np.zeros_like(mask)
    covered[region.box.slices] = region.mask()
    assert (covered != mask).mean() < 0.005  # the mask is kept, as polygons


def test_measures_nothing_where_there_is_nothing() -> None:
    empty = np.zeros((64, 64), bool)
    assert finder().measure(ArrayFrame(np.full((64, 64, 3), 0.5, np.float32)), empty) is None
    assert finder().measure(ArrayFrame(np.full((64, 64, 3), 0.5, np.float32)), ~empty) is None


@pytest.mark.parametrize(
    ("block", "phase", "levels", "codec"),
    [
        (8.0, 400.0, 0.6, True),
        (16.0, 63.9, 1.0, True),
        (8.0, 400.0, 6.0, False),  # a mosaic whose blocks happen to lie there
        (8.0, 403.0, 0.6, False),
        (11.0, 400.0, 0.6, False),
    ],
)
def test_faint_lines_where_codecs_have_theirs(block: float, phase: float, levels: float, codec: bool) -> None:
    assert is_codec_grid(AxisGrid(block, phase, 0.6, levels / 255), phase) is codec
