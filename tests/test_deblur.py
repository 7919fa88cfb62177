"""Deblurring of pictures and videos: what the network answers is added, nowhere else, at any size and type."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from residual_tests import Build, check_types, fake, photograph

import restore_plugin
from engines import open_engine
from engines.contract import OutOfMemory
from restore_plugin import deblur
from restore_plugin.catalog import WEIGHTS
from restore_plugin.metrics import psnr
from restore_plugin.pipeline import PictureRestorer
from restore_plugin.types import Box, Region, Support

SHARP_PSNR = 40.0  # dB that the shipped network leaves to a sharp picture
GAIN = {"motion": 0.15, "handshake": 0.1, "defocus": 0.4}  # dB; the aim is 4
PICTURES = ("astronaut", "coffee", "chelsea", "rocket")


def moved(picture: np.ndarray, length: int = 9) -> np.ndarray:
    return cv2.filter2D(picture, -1, np.full((1, length), 1 / length, np.float32))


# --- the restorer, with a network that answers what it is told

EACH = pytest.mark.parametrize("build", [deblur.blurnet, deblur.deblurgan], ids=lambda build: build.__name__)


@EACH
def test_the_restorer_says_what_it_needs(build: Build) -> None:
    restorer, _ = fake(build, np.zeros_like)
    assert restorer.needs.context == 0
    x, y = restorer.margin(Region(Box(0, 0, 9, 9)))
    assert x == y > 80  # blurs of 40 px, seen from both of their ends


@EACH
def test_a_720p_frame_is_seen_whole(build: Build) -> None:
    restorer, engine = fake(build, np.zeros_like)
    restorer(np.zeros((720, 1280, 3), np.float32))
    assert engine.sizes == [(720, 1280)]


def test_short_of_memory_statistics_are_still_of_large_tiles() -> None:
    """Instance normalisation: small tiles would each get a look of their own, so there is an error instead."""
    picture = np.zeros((1040, 1300, 3), np.float32)
    restorer, engine = fake(deblur.deblurgan, np.zeros_like, limit=1.1e6)
    restorer(picture)
    assert min(tall * wide for tall, wide in engine.sizes) > 0.5e6
    restorer, engine = fake(deblur.deblurgan, np.zeros_like, limit=2e5)
    with pytest.raises(OutOfMemory):
        restorer(picture)
    restorer, engine = fake(deblur.blurnet, np.zeros_like, limit=6e4)
    restorer(picture[:64])
    assert engine.sizes[0] == (64, 1312)
    assert engine.sizes[-1][0] * engine.sizes[-1][1] <= 6e4


# --- the shipped network


@pytest.fixture(scope="module")
def shipped() -> PictureRestorer:
    return restore_plugin.load("deblur", engine="openvino")


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


@pytest.mark.parametrize("name", PICTURES)
def test_a_sharp_picture_is_left_alone(shipped: PictureRestorer, name: str) -> None:
    picture = photograph(name)
    assert psnr(shipped(picture), picture) > SHARP_PSNR


def test_no_colour_shift_and_no_checkerboard(shipped: PictureRestorer) -> None:
    for colour in ((0.5, 0.5, 0.5), (0.8, 0.3, 0.1), (0.1, 0.2, 0.7)):
        even = np.full((160, 192, 3), colour, np.float32)
        out = shipped(even)
        assert np.abs(out[32:-32, 32:-32] - even[32:-32, 32:-32]).max() < 2 / 255
    soft = moved(photograph("coffee"))
    assert np.abs(shipped(soft).mean((0, 1)) - soft.mean((0, 1))).max() < 1 / 255


def test_all_types_are_restored_alike(shipped: PictureRestorer) -> None:
    check_types(shipped, moved(photograph("coffee")))


def test_tiles_are_the_whole() -> None:
    picture = moved(cv2.resize(photograph("coffee"), (1100, 96)))
    with open_engine("openvino", WEIGHTS / "blurnet.onnx") as engine:
        whole = deblur.Deblur(engine, deblur.BLURNET, Support())(picture)
        tiled = deblur.Deblur(engine, replace(deblur.BLURNET, largest=280), Support())(picture)
    assert np.abs(whole - picture).max() > 0.02
    assert np.abs(tiled - whole).max() < 1 / 255


@pytest.mark.parametrize("count", [0, 1, 3])
def test_process_keeps_number_order_and_type(count: int) -> None:
    values = np.linspace(40, 200, count).astype(np.uint8)
    frames = [np.full((64, 80, 3), value, np.uint8) for value in values]
    out = list(restore_plugin.process(frames, task="deblur"))
    assert [(frame.dtype, frame.shape) for frame in out] == [(np.uint8, (64, 80, 3))] * count
    assert [abs(frame.mean() - value) < 8 for frame, value in zip(out, values, strict=True)] == [True] * count
