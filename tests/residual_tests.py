"""What the tests of de-raining and deblurring share: pictures, and an engine that answers what it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from skimage import data

from engines.contract import OutOfMemory
from restore_plugin.pipeline import PictureRestorer
from restore_plugin.residual import ResidualRestorer
from restore_plugin.types import Engine, RestoreOptions, Support

Answer = Callable[[np.ndarray], np.ndarray]
Build = Callable[[Engine, RestoreOptions, Support], ResidualRestorer]

SCALES = {np.uint8: 255, np.uint16: 65535, np.float32: 1}
TYPES = pytest.mark.parametrize("dtype", SCALES, ids=lambda dtype: dtype.__name__)


def photograph(name: str) -> np.ndarray:
    """(256, 320, 3) float32 in [0, 1]; all are of scikit-image, none was trained on."""
    picture = getattr(data, name)()
    picture = np.stack([picture] * 3, -1) if picture.ndim == 2 else picture
    return np.ascontiguousarray(picture[:256, 20:340, :3]).astype(np.float32) / 255


class FakeEngine:
    """Answers `answer(picture)`, up to `limit` px; remembers the pictures it was shown."""

    name, device, precision = "fake", "CPU", "fp32"

    def __init__(self, answer: Answer, limit: float = float("inf"), output: str = "residual") -> None:
        self.answer, self.limit, self.output = answer, limit, output
        self.pictures: list[np.ndarray] = []

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [picture.shape[2:] for picture in self.pictures]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.submit(inputs).result()

    def submit(self, inputs: Mapping[str, Any]) -> Future[dict[str, Any]]:
        picture, future = inputs["picture"], Future[dict[str, Any]]()
        self.pictures.append(picture)
        if picture.shape[2] * picture.shape[3] > self.limit:
            future.set_exception(OutOfMemory("no memory is left"))
        else:
            future.set_result({self.output: self.answer(picture).astype(np.float32)})
        return future

    def close(self) -> None:
        pass

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def fake(build: Build, answer: Answer, limit: float = float("inf")) -> tuple[ResidualRestorer, FakeEngine]:
    """The restorer, and the engine that it runs."""
    engine = FakeEngine(answer, limit)
    return build(engine, RestoreOptions(), Support()), engine


def check_types(restore: PictureRestorer, picture: np.ndarray) -> None:
    """Every type of a picture is restored alike, to half a level of 8 bits."""
    stored = np.round(picture * 255) / np.float32(255)
    expected = restore(stored)
    for dtype, scale in SCALES.items():
        image = np.round(stored * scale).astype(dtype) if scale > 1 else stored.astype(dtype)
        out = restore(image)
        assert (out.dtype, out.shape) == (dtype, stored.shape)
        assert np.abs(out / scale - expected).max() <= 0.51 / 255
