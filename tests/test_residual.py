"""The restorers of whole pictures: what a network answers, here one that is told, is added; nothing else changes."""

import cv2
import numpy as np
import pytest
from residual_tests import SCALES, TYPES, Build, fake, photograph

from restore_plugin import deblur, derain
from restore_plugin.pipeline import PictureRestorer, as_pixels
from restore_plugin.types import Box, Region

PADDED = {  # a picture of 67x90, to the network's multiple
    derain.rainnet: (80, 96),
    derain.did_mdn: (96, 96),
    deblur.blurnet: (80, 96),
    deblur.deblurgan: (72, 96),
}
EACH = pytest.mark.parametrize("build", PADDED, ids=lambda build: build.__name__)


def noise(dtype: type, height: int = 67, width: int = 90) -> np.ndarray:
    """Every value of the type may occur, black and white included."""
    random = np.random.default_rng(7)
    picture = np.clip(random.uniform(-0.05, 1.05, (height, width, 3)), 0, 1) * SCALES[dtype]
    return picture.astype(dtype) if dtype is np.float32 else np.round(picture).astype(dtype)


@EACH
@TYPES
@pytest.mark.parametrize("neighbours", [0, 4])
def test_no_residual_changes_no_bit(build: Build, dtype: type, neighbours: int) -> None:
    restorer, engine = fake(build, np.zeros_like)
    image = noise(dtype)
    out = PictureRestorer(restorer, None, needs_place=False)(image, neighbours=[as_pixels(image)] * neighbours)
    np.testing.assert_array_equal(out, image)
    assert out.dtype == image.dtype
    assert out is not image
    (picture,) = engine.pictures
    assert picture.shape == (1, 3, *PADDED[build])
    np.testing.assert_allclose(picture[0, :, :67, :90].transpose(1, 2, 0), image / SCALES[dtype], atol=1e-6)


@EACH
@TYPES
@pytest.mark.parametrize("amount", [-0.2, 0.2])
def test_the_residual_is_added_and_clipped(build: Build, dtype: type, amount: float) -> None:
    restorer, _ = fake(build, lambda picture: np.full_like(picture, amount) * np.array([1, 0.5, 0])[:, None, None])
    image, scale = noise(dtype), SCALES[dtype]
    out = PictureRestorer(restorer, None, needs_place=False)(image)
    expected = np.clip(image / scale + amount * np.array([1, 0.5, 0]), 0, 1)
    assert np.abs(out / scale - expected).max() <= (1e-6 if scale == 1 else 0.501 / scale)
    np.testing.assert_array_equal(out[..., 2], image[..., 2])


@EACH
@TYPES
def test_only_what_is_masked_changes(build: Build, dtype: type) -> None:
    restorer, _ = fake(build, lambda picture: 0.5 - picture)
    image = noise(dtype, 200, 300)
    mask = cv2.GaussianBlur(np.random.default_rng(3).random((200, 300)), (0, 0), 8) > 0.5
    for where in (mask, [Region(Box(20, 30, 100, 50)), Region(Box(250, 150, 90, 90), 1)]):
        if where is not mask:
            mask = np.zeros_like(mask)
            mask[30:80, 20:120] = mask[150:, 250:] = True
        out = PictureRestorer(restorer, None, needs_place=False)(image, where)
        np.testing.assert_array_equal(out[~mask], image[~mask])
        assert np.abs(out[mask] / SCALES[dtype] - 0.5).max() <= 0.501 / 255


@EACH
def test_the_restorer_keeps_no_state(build: Build) -> None:
    restorer, _ = fake(build, lambda picture: 0.1 * picture)
    picture, other = photograph("coffee"), photograph("chelsea")
    mask = np.zeros(picture.shape[:2], bool)
    mask[:50] = True
    before = picture.copy()
    first = restorer(picture)
    restorer(other, mask, [other] * 4)
    np.testing.assert_array_equal(restorer(picture), first)
    np.testing.assert_array_equal(restorer(picture, mask)[50:], picture[50:])
    np.testing.assert_array_equal(restorer(picture, mask)[:50], first[:50])
    np.testing.assert_array_equal(restorer(picture, np.ones_like(mask)), first)
    np.testing.assert_array_equal(picture, before)


@EACH
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 3)])
def test_tiny_pictures_keep_their_size(build: Build, size: tuple[int, int]) -> None:
    restorer, engine = fake(build, np.zeros_like)
    picture = np.full((*size, 3), 0.4, np.float32)
    np.testing.assert_array_equal(restorer(picture), picture)
    assert min(engine.sizes[0]) >= 8
