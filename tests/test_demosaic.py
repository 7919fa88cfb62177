"""The de-mosaic restorers on photographs: what was measured stays, what was visible stays, the rest gets better."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

from engines import OutOfMemory
from restore_plugin import catalog, demosaic, mosaic
from restore_plugin.errors import InputError
from restore_plugin.pipeline import PictureRestorer
from restore_plugin.types import Box, Region, RestoreOptions, Restorer, Support

METHODS = ("bicubic", "cellnet")
BOX = Box(64, 40, 144, 168)


@lru_cache
def restorer(method: str) -> Restorer:
    return catalog.build_restorer(catalog.method(method))


def photograph(dtype: str = "uint8") -> np.ndarray:
    """256x256 around the face."""
    picture = data.astronaut()[0:256, 100:356]
    return {
        "uint8": picture,
        "uint16": picture.astype(np.uint16) * 257,
        "float32": picture.astype(np.float32) / np.float32(255),
    }[dtype]


def ellipse(box: Box) -> tuple[tuple[int, int], ...]:
    centre = (box.x + box.width // 2, box.y + box.height // 2)
    points = cv2.ellipse2Poly(centre, (box.width // 2 - 1, box.height // 2 - 1), 0, 0, 360, 5)
    return tuple((int(x), int(y)) for x, y in points)


def hide(picture: np.ndarray, region: Region, whole_grid: bool, linear_light: bool = False) -> np.ndarray:
    """Pixelate `region` of a uint8 picture: its box by itself, or the whole picture's grid seen through its outline."""
    box = region.box if not whole_grid else Box(0, 0, picture.shape[1], picture.shape[0])
    y_edges = mosaic.axis_edges(box.y, box.bottom, region.block[1], region.phase[1]) - box.y
    x_edges = mosaic.axis_edges(box.x, box.right, region.block[0], region.phase[0]) - box.x
    flat = mosaic.pixelate(picture[box.slices].astype(np.float32) / 255, y_edges, x_edges, linear_light)
    out = picture.copy()
    mask = where(picture, region)
    whole = picture.copy()
    whole[box.slices] = np.round(flat * 255)
    out[mask] = whole[mask]
    return out


def where(picture: np.ndarray, region: Region) -> np.ndarray:
    mask = np.zeros(picture.shape[:2], bool)
    mask[region.box.slices] = region.mask()
    return mask


def psnr(picture: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((picture[mask] / 255.0 - truth[mask] / 255.0) ** 2)))


def aligned(block: tuple[float, float], box: Box = BOX) -> Region:
    return Region(box, 1, block, (float(box.x), float(box.y)))


def running_on(block: tuple[float, float]) -> Region:
    """An ellipse over a grid that starts elsewhere."""
    return Region(BOX, 1, block, (BOX.x + 0.4 * block[0], BOX.y + 0.6 * block[1]), (ellipse(BOX),))


BLOCKS = [(4.0, 4.0), (6.5, 6.5), (8.0, 6.0), (12.0, 12.0), (25.2, 25.2)]
SHAPES = {"box": (aligned, False), "ellipse": (running_on, True)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_shape_type_and_everything_outside_stay(method: str, dtype: str) -> None:
    region = running_on((9.0, 9.0))
    shown = photograph(dtype).copy()
    mask = where(shown, region)
    shown[mask] = shown[mask] // 2 if dtype != "float32" else shown[mask] / 2
    before = shown.copy()
    out = PictureRestorer(restorer(method), None)(shown, [region])
    assert out.dtype == shown.dtype
    assert out.shape == shown.shape
    np.testing.assert_array_equal(shown, before)
    np.testing.assert_array_equal(out[~mask], before[~mask])
    assert not np.array_equal(out[mask], before[mask])
    if dtype == "float32":
        assert out.min() >= 0
        assert out.max() <= 1


@pytest.mark.parametrize("linear_light", [False, True])
def test_called_directly_it_moves_masked_pixels_alone(linear_light: bool) -> None:
    """Others come back to the bit, even outside of [0, 1]; without a mask the region's own is used."""
    region = running_on((9.0, 9.0))
    pixels = photograph("float32") * np.float32(1.2) - np.float32(0.1)
    called = demosaic.Demosaic(None, RestoreOptions(linear_light))
    out = called(pixels, None, (), region)
    mask = where(pixels, region)
    np.testing.assert_array_equal(out[~mask], pixels[~mask])
    assert np.abs(out - pixels)[mask].max() > 0.1
    np.testing.assert_array_equal(called(pixels, mask, (), region), out)
    np.testing.assert_array_equal(called(pixels, np.zeros_like(mask), (), region), pixels)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_pixelated_again_it_is_the_mosaic(method: str, shape: str, block: tuple[float, float]) -> None:
    make, whole_grid = SHAPES[shape]
    region, truth = make(block), photograph()
    shown = hide(truth, region, whole_grid)
    out = PictureRestorer(restorer(method), None)(shown, [region])
    mask = where(truth, region)
    # what a cell shows against the unrounded mean of what came back
    box = BOX if not whole_grid else Box(0, 0, 256, 256)
    y_edges = mosaic.axis_edges(box.y, box.bottom, block[1], region.phase[1]) - box.y
    x_edges = mosaic.axis_edges(box.x, box.right, block[0], region.phase[0]) - box.x
    again = mosaic.pixelate(out[box.slices].astype(np.float32), y_edges, x_edges)
    assert np.abs(again - shown[box.slices])[mask[box.slices]].max() <= 0.5
    assert psnr(out, truth, mask) > psnr(shown, truth, mask) + 0.2


def test_linear_light() -> None:
    region, truth = aligned((12.0, 12.0)), photograph()
    shown = hide(truth, region, False, linear_light=True)
    build = catalog.build_restorer(catalog.method("cellnet"), options=RestoreOptions(linear_light=True))
    out = PictureRestorer(build, None)(shown, [region])
    crop = out[BOX.slices].astype(np.float32) / 255
    edges = [np.arange(0, side + 1, 12) for side in (BOX.height, BOX.width)]
    again = mosaic.pixelate(crop, *edges, linear_light=True) * 255
    assert np.abs(again - shown[BOX.slices]).max() <= 0.75  # in the dark a level is worth many of linear light's
    mask = where(truth, region)
    assert psnr(out, truth, mask) > psnr(shown, truth, mask) + 0.2


@pytest.mark.parametrize("block", [8, 12])
def test_cellnet_is_better_than_interpolation(block: int) -> None:
    region, truth = aligned((block, block)), photograph()
    shown = hide(truth, region, False)
    cells = cv2.resize(shown[BOX.slices], (BOX.width // block, BOX.height // block), interpolation=cv2.INTER_AREA)
    theirs = shown.copy()
    theirs[BOX.slices] = cv2.resize(cells, (BOX.width, BOX.height), interpolation=cv2.INTER_CUBIC)
    mask = where(truth, region)
    ours, interpolated = (PictureRestorer(restorer(method), None)(shown, [region]) for method in ("cellnet", "bicubic"))
    assert psnr(ours, truth, mask) > psnr(theirs, truth, mask)
    assert psnr(ours, truth, mask) > psnr(interpolated, truth, mask) + 0.1  # the network's part, not the projection's


@pytest.mark.parametrize(("block", "tile"), [(4.0, 9), (12.0, 7)])
def test_tiles_agree_with_the_whole(block: float, tile: int) -> None:
    truth = data.astronaut()
    box = Box(0, 0, 512, 512) if block > 8 else Box(100, 0, 300, 260)
    region = aligned((block, block), box)
    pixels = hide(truth, region, False).astype(np.float32) / 255
    crop = region.box.grow(*restorer("cellnet").margin(region), within=Box(0, 0, 512, 512))
    local = region.shift(-crop.x, -crop.y)
    whole = restorer("cellnet")(pixels[crop.slices], None, (), local)
    assert len(demosaic.cell_tiles(round(box.height / block), tile)) > 5
    cut = demosaic.Demosaic(restorer("cellnet").engine, tile=tile)
    tiled = cut(pixels[crop.slices], None, (), local)
    assert np.abs(tiled - whole).max() < 1e-4  # each tile sees all that its result depends on
    assert np.abs(whole - pixels[crop.slices]).max() > 0.1


def test_several_regions_and_one_that_reaches_outside() -> None:
    truth = photograph()
    regions = [aligned((8.0, 8.0), Box(16, 16, 64, 64)), aligned((10.0, 10.0), Box(180, 200, 100, 80))]
    shown = truth.copy()
    for region in regions:
        inside = Region(region.box.intersect(Box(0, 0, 256, 256)), 0, region.block, region.phase)
        shown = hide(shown, inside, False)
    out = PictureRestorer(restorer("bicubic"), None)(shown, regions)
    mask = np.zeros((256, 256), bool)
    mask[16:80, 16:80] = mask[200:, 180:] = True
    np.testing.assert_array_equal(out[~mask], truth[~mask])
    for part in (np.s_[16:80, 16:80], np.s_[200:256, 180:256]):
        chosen = np.zeros_like(mask)
        chosen[part] = True
        assert psnr(out, truth, chosen) > psnr(shown, truth, chosen)


@pytest.mark.parametrize(
    ("start", "stop", "phase", "expected"),
    [
        (20, 44, 20.0, [20, 28, 36, 44]),  # cut out, pixelated, put back
        (20, 44, 12.0, [20, 28, 36, 44]),
        (20, 41, 20.0, [20, 28, 36, 41]),  # the last cell ends with the region
        (20, 44, 19.4, [20, 28, 36, 44]),  # as near as it can be measured
        (20, 44, 20.6, [20, 28, 36, 44]),
    ],
)
def test_grid_of_a_region_that_was_pixelated_by_itself(
    start: int, stop: int, phase: float, expected: list[int]
) -> None:
    edges = demosaic.grid_edges(60, start, stop, 8.0, phase)
    assert edges[(edges >= start) & (edges <= stop)].tolist() == expected
    assert (edges[0], edges[-1]) == (0, 60)


def test_grid_that_runs_on() -> None:
    assert demosaic.grid_edges(60, 20, 44, 8.0, 23.0).tolist() == [0, 7, 15, 23, 31, 39, 47, 55, 60]


@pytest.mark.parametrize(
    ("region", "message"),
    [(None, "expected a region"), (Region(Box(0, 0, 16, 16), 7), "expected a block size for region 7")],
)
def test_errors(region: Region | None, message: str) -> None:
    call: Callable[..., np.ndarray] = restorer("bicubic")
    with pytest.raises(InputError, match=message):
        call(np.zeros((32, 32, 3), np.float32), np.ones((32, 32), bool), (), region)


class ShortOfMemory:
    """An engine that has room for so many pixels."""

    name = device = precision = "small"

    def __init__(self, engine: Any, room: int) -> None:
        self.engine, self.room = engine, room

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["picture"].size > self.room:
            raise OutOfMemory("small ran out of memory")
        found: dict[str, np.ndarray] = self.engine.run(inputs)
        return found


@pytest.mark.parametrize("room", [4 * (8 * 60) ** 2, 0])
def test_short_of_memory_it_takes_smaller_tiles_and_at_last_another_engine(room: int) -> None:
    truth, region = data.astronaut(), Region(Box(0, 0, 512, 512), 1, (6.0, 6.0), (0.0, 0.0))
    pixels = hide(truth, region, False).astype(np.float32) / 255
    engine = restorer("cellnet").engine
    said: list[str] = []
    short = demosaic.Demosaic(ShortOfMemory(engine, room), None, Support(said.append, (lambda: engine,)))
    assert np.abs(short(pixels, None, (), region) - restorer("cellnet")(pixels, None, (), region)).max() < 1e-4
    assert said
    assert all("out of memory" in line for line in said)
    with pytest.raises(OutOfMemory):
        demosaic.Demosaic(ShortOfMemory(engine, 0))(pixels, None, (), region)


@pytest.mark.parametrize("block", [4.1, 4.37, 4.5, 4.75, 5.3, 6.5, 7.3, 9.7, 13.3, 17.3])
def test_measured_lines_are_those_of_the_mosaic(block: float) -> None:
    """Under a mask the blocks are measured, however odd they are: each mean is kept, so each line was found."""
    truth, region = photograph(), aligned((block, block))
    shown = hide(truth, region, whole_grid=False)
    finder = catalog.build_finder(catalog.task("demosaic"))
    assert finder is not None
    out = PictureRestorer(restorer("bicubic"), finder)(shown, where(truth, region))
    again = hide(out, region, whole_grid=False)
    assert np.abs(again.astype(int) - shown).max() <= 1  # both were rounded
