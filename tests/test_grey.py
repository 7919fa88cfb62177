"""What has no colour gets none."""

import numpy as np
import pytest
from skimage import data

import restore_plugin
from restore_plugin import catalog, mosaic
from restore_plugin.grey import colour
from restore_plugin.training.rain import Rain
from restore_plugin.types import Box, Region

METHODS = [row for row in catalog.METHODS if catalog.task(row.task).invents]
SIDE = 160


def photograph() -> np.ndarray:
    """(160, 160) uint8: a part of the cameraman, with his head."""
    return np.ascontiguousarray(data.camera()[40 : 40 + SIDE, 140 : 140 + SIDE])


def damaged(task: str) -> tuple[np.ndarray, object]:
    """(160, 160) uint8, and what the methods are told of where."""
    picture = photograph()
    hole = np.zeros(picture.shape, bool)
    hole[50:90, 60:120] = True
    if task == "demosaic":
        edges = mosaic.axis_edges(0, SIDE, 8, 0)
        flat = mosaic.pixelate(np.dstack([picture] * 3).astype(np.float32) / 255, edges, edges)
        return np.round(flat[..., 0] * 255).astype(np.uint8), [Region(Box(0, 0, SIDE, SIDE), 1, (8.0, 8.0))]
    if task == "derain":
        random = np.random.default_rng(0)
        rain = Rain.random(random, "heavy").fall(np.dstack([picture] * 3).astype(np.float32) / 255)
        return np.round(rain[..., 1] * 255).astype(np.uint8), None
    return picture, hole if task == "inpaint" else None


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
def test_a_grey_picture_stays_grey(row: catalog.Method) -> None:
    picture, where = damaged(row.task)
    found = restore_plugin.load(row.name)(np.dstack([picture] * 3), where)
    np.testing.assert_array_equal(found[..., 1], found[..., 0])
    np.testing.assert_array_equal(found[..., 2], found[..., 0])
    assert (found[..., 0] != picture).any()


@pytest.mark.parametrize("method", ["cellnet", "rainnet", "blurnet"])
def test_a_trace_of_a_tint_is_neither_taken_nor_added(method: str) -> None:
    """As after compression: what is added is the same in all channels."""
    picture, where = damaged(catalog.method(method).task)
    tinted = np.dstack((picture, picture, np.minimum(picture, 254) + 1)).astype(np.float32) / 255
    assert colour(tinted) == 0
    found = restore_plugin.load(method)(tinted, where)
    change = (found - tinted)[(found > 0).all(-1) & (found < 1).all(-1)]  # not clipped
    np.testing.assert_allclose(change[:, 1], change[:, 0], atol=1e-5)
    np.testing.assert_allclose(change[:, 2], change[:, 0], atol=1.5 / 255 if method == "cellnet" else 1e-5)
    assert np.abs(change).max() > 1 / 255


def test_colour_comes_by_degrees_and_dust_is_none() -> None:
    """One step of chroma, in one sample or in many, must not make the next frame look otherwise."""
    grey = np.dstack([photograph()] * 3).astype(np.float32) / 255
    found = []
    for tint in (0, 2.4, 5, 7, 9, 11, 40):
        picture = grey.copy()
        picture[:40, :, 2] += tint / 255
        found.append(colour(picture))
    assert found == sorted(found)
    assert found[:2] == [0, 0]
    assert found[-2:] == [1, 1]
    assert max(np.diff(found)) < 0.4
    grey[80:83, 70:74, 0] = 1  # 12 of 25600 px
    assert colour(grey) == 0
    assert colour(np.float32([[[0, 0, 1]]])) == 1
