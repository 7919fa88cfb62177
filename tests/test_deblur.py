"""Deblurring of pictures and videos: what the network answers is added, nowhere else, at any size and type."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

import restore_plugin
from engines import open_engine
from engines.contract import OutOfMemory
from restore_plugin import deblur
from restore_plugin.catalog import WEIGHTS
from restore_plugin.metrics import psnr
from restore_plugin.pipeline import PictureRestorer
from restore_plugin.types import Box, Region, RestoreOptions, Support

Answer = Callable[[np.ndarray], np.ndarray]

SHARP_PSNR = 38.0  # dB that the shipped network leaves to a sharp picture; the aim is 40
GAIN = {"motion": 0.5, "handshake": 0.0, "defocus": 0.5}  # dB; the aim is 4
PICTURES = ("astronaut", "coffee", "chelsea", "rocket")


def photograph(name: str) -> np.ndarray:
    """(256, 320, 3) float32 in [0, 1]; all are of scikit-image, none was trained on."""
    return np.ascontiguousarray(getattr(data, name)()[:256, 20:340, :3]).astype(np.float32) / 255


def moved(picture: np.ndarray, length: int = 9) -> np.ndarray:
    return cv2.filter2D(picture, -1, np.full((1, length), 1 / length, np.float32))


# --- the restorer, with a network that answers what it is told


class FakeEngine:
    """Answers `answer(picture)`, up to `limit` px; remembers the sizes it was asked for."""

    name, device, precision = "fake", "CPU", "fp32"

    def __init__(self, answer: Answer, limit: float = float("inf")) -> None:
        self.answer, self.limit = answer, limit
        self.sizes: list[tuple[int, int]] = []

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.submit(inputs).result()

    def submit(self, inputs: Mapping[str, Any]) -> Future[dict[str, Any]]:
        picture, future = inputs["picture"], Future[dict[str, Any]]()
        self.sizes.append(picture.shape[2:])
        if picture.shape[2] * picture.shape[3] > self.limit:
            future.set_exception(OutOfMemory("no memory is left"))
        else:
            future.set_result({"residual": self.answer(picture).astype(np.float32)})
        return future

    def close(self) -> None:
        pass

    def __enter__(self) -> "FakeEngine":
        return self

    def __exit__(self, *error: object) -> None:
        pass


BUILDERS = {"blurnet": deblur.blurnet, "deblurgan": deblur.deblurgan}
EACH = pytest.mark.parametrize("method", BUILDERS)
SCALES = {np.uint8: 255, np.uint16: 65535, np.float32: 1}
TYPES = pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32], ids=lambda dtype: dtype.__name__)


def fake(method: str, answer: Answer, limit: float = float("inf")) -> tuple[deblur.Deblur, FakeEngine]:
    engine = FakeEngine(answer, limit)
    return BUILDERS[method](engine, RestoreOptions(), Support()), engine


def noise(dtype: type, height: int = 67, width: int = 90) -> np.ndarray:
    """Every value of the type may occur, black and white included."""
    random = np.random.default_rng(7)
    picture = np.clip(random.uniform(-0.05, 1.05, (height, width, 3)), 0, 1) * SCALES[dtype]
    return picture.astype(dtype) if dtype is np.float32 else np.round(picture).astype(dtype)


@EACH
@TYPES
def test_no_residual_changes_no_bit(method: str, dtype: type) -> None:
    restorer, engine = fake(method, np.zeros_like)
    image = noise(dtype)
    out = PictureRestorer(restorer, None, needs_place=False)(image)
    np.testing.assert_array_equal(out, image)
    assert out.dtype == image.dtype
    assert out is not image
    assert engine.sizes == [{"blurnet": (80, 96), "deblurgan": (72, 96)}[method]]  # padded to the network's multiple


@TYPES
@pytest.mark.parametrize("amount", [-0.2, 0.2])
def test_the_residual_is_added_and_clipped(dtype: type, amount: float) -> None:
    restorer, _ = fake("blurnet", lambda picture: np.full_like(picture, amount) * np.array([1, 0.5, 0])[:, None, None])
    image, scale = noise(dtype), SCALES[dtype]
    out = PictureRestorer(restorer, None, needs_place=False)(image)
    expected = np.clip(image / scale + amount * np.array([1, 0.5, 0]), 0, 1)
    assert np.abs(out / scale - expected).max() <= (1e-6 if scale == 1 else 0.501 / scale)
    np.testing.assert_array_equal(out[..., 2], image[..., 2])


@EACH
@TYPES
def test_only_what_is_masked_changes(method: str, dtype: type) -> None:
    restorer, _ = fake(method, lambda picture: 0.5 - picture)
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
def test_the_restorer_says_what_it_needs_and_keeps_no_state(method: str) -> None:
    restorer, _ = fake(method, lambda picture: 0.1 * picture)
    assert restorer.needs.context == 0
    x, y = restorer.margin(Region(Box(0, 0, 9, 9)))
    assert x == y > 80  # blurs of 40 px, seen from both of their ends
    picture, other = photograph("coffee"), photograph("chelsea")
    mask = np.zeros(picture.shape[:2], bool)
    mask[:50] = True
    before = picture.copy()
    first = restorer(picture)
    restorer(other, mask, [picture])
    np.testing.assert_array_equal(restorer(picture), first)
    np.testing.assert_array_equal(restorer(picture, mask)[50:], picture[50:])
    np.testing.assert_array_equal(restorer(picture, mask)[:50], first[:50])
    np.testing.assert_array_equal(restorer(picture, np.ones_like(mask)), first)
    np.testing.assert_array_equal(picture, before)


@EACH
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 3)])
def test_tiny_pictures_keep_their_size(method: str, size: tuple[int, int]) -> None:
    restorer, engine = fake(method, np.zeros_like)
    picture = np.full((*size, 3), 0.4, np.float32)
    np.testing.assert_array_equal(restorer(picture), picture)
    assert min(engine.sizes[0]) >= 8


@EACH
def test_a_720p_frame_is_seen_whole(method: str) -> None:
    restorer, engine = fake(method, np.zeros_like)
    restorer(np.zeros((720, 1280, 3), np.float32))
    assert engine.sizes == [(720, 1280)]


def test_short_of_memory_statistics_are_still_of_large_tiles() -> None:
    """Instance normalisation: small tiles would each get a look of their own, so there is an error instead."""
    picture = np.zeros((1040, 1300, 3), np.float32)
    restorer, engine = fake("deblurgan", np.zeros_like, limit=1.1e6)
    restorer(picture)
    assert min(tall * wide for tall, wide in engine.sizes) > 0.5e6
    restorer, engine = fake("deblurgan", np.zeros_like, limit=2e5)
    with pytest.raises(OutOfMemory):
        restorer(picture)
    restorer, engine = fake("blurnet", np.zeros_like, limit=6e4)
    restorer(picture[:64])
    assert engine.sizes[0] == (64, 1312)
    assert engine.sizes[-1][0] * engine.sizes[-1][1] <= 6e4


# --- the shipped network


@pytest.fixture(scope="module")
def shipped() -> PictureRestorer:
    return restore_plugin.load("deblur", engine="openvino")


SHIPPED = pytest.mark.skipif(not (WEIGHTS / "blurnet.onnx").exists(), reason="blurnet has no weights yet")


@SHIPPED
@pytest.mark.parametrize("kind", GAIN)
def test_blur_gets_less(shipped: PictureRestorer, kind: str) -> None:
    blur = pytest.importorskip("restore_plugin.training.blur")
    gained = []
    for seed, name in enumerate(PICTURES * 3):
        picture = photograph(name)
        stored = np.round(picture * 255).astype(np.uint8)
        soft = blur.blurred(stored, kind, np.random.default_rng(seed)).astype(np.float32) / 255
        gained.append(psnr(shipped(soft), picture) - psnr(soft, picture))
    assert np.mean(gained) > GAIN[kind]


@SHIPPED
@pytest.mark.parametrize("name", PICTURES)
def test_a_sharp_picture_is_left_alone(shipped: PictureRestorer, name: str) -> None:
    picture = photograph(name)
    assert psnr(shipped(picture), picture) > SHARP_PSNR


@SHIPPED
def test_no_colour_shift_and_no_checkerboard(shipped: PictureRestorer) -> None:
    for colour in ((0.5, 0.5, 0.5), (0.8, 0.3, 0.1), (0.1, 0.2, 0.7)):
        even = np.full((160, 192, 3), colour, np.float32)
        out = shipped(even)
        assert np.abs(out[32:-32, 32:-32] - even[32:-32, 32:-32]).max() < 2 / 255
    soft = moved(photograph("coffee"))
    assert np.abs(shipped(soft).mean((0, 1)) - soft.mean((0, 1))).max() < 1 / 255


@SHIPPED
def test_all_types_are_restored_alike(shipped: PictureRestorer) -> None:
    soft = np.round(moved(photograph("coffee")) * 255) / np.float32(255)
    expected = shipped(soft)
    for dtype, scale in SCALES.items():
        image = np.round(soft * scale).astype(dtype) if scale > 1 else soft.astype(dtype)
        out = shipped(image)
        assert (out.dtype, out.shape) == (dtype, soft.shape)
        assert np.abs(out / scale - expected).max() <= 0.51 / 255


@SHIPPED
def test_tiles_are_the_whole() -> None:
    picture = moved(cv2.resize(photograph("coffee"), (1100, 96)))
    with open_engine("openvino", WEIGHTS / "blurnet.onnx") as engine:
        whole = deblur.Deblur(engine, deblur.BLURNET, Support())(picture)
        tiled = deblur.Deblur(engine, replace(deblur.BLURNET, largest=280), Support())(picture)
    assert np.abs(whole - picture).max() > 0.02
    assert np.abs(tiled - whole).max() < 1 / 255


@SHIPPED
@pytest.mark.parametrize("count", [0, 1, 3])
def test_process_keeps_number_order_and_type(count: int) -> None:
    values = np.linspace(40, 200, count).astype(np.uint8)
    frames = [np.full((64, 80, 3), value, np.uint8) for value in values]
    out = list(restore_plugin.process(frames, task="deblur"))
    assert [(frame.dtype, frame.shape) for frame in out] == [(np.uint8, (64, 80, 3))] * count
    assert [abs(frame.mean() - value) < 8 for frame, value in zip(out, values, strict=True)] == [True] * count
