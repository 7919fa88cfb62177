"""The GIMP plug-in as its user meets it: menu, dialog, progress, Cancel, undo, in a real window that nobody sees.

The steps are in tests/gimp/window_cases.py. `RESTORE_TEST_SCREENSHOTS=FOLDER` keeps the screenshots as PNG; those of
docs/gimp.md are made so.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces import detector
from gimp.required import cases_of, gimp_session, window_host
from gimp.session import Session
from PIL import Image

skimage_data = pytest.importorskip("skimage.data")

FACE = (160, 48, 144, 160)  # x, y, width, height in px
BLOCK = 8
SHOWN = {  # what the page needs of the screen: left, upper, right, lower
    "menu": (195, 0, 1045, 700),
    "dialog": (426, 215, 854, 584),
    "done": (195, 0, 1280, 700),
    "error": (195, 140, 1045, 560),
    "remove-dialog": (426, 250, 854, 547),
    "removed": (195, 0, 1280, 700),
}


def portrait() -> Image.Image:
    """The photograph of the demo, with a mosaic over the face."""
    pixels = skimage_data.astronaut().astype(np.float64)
    x, y, width, height = FACE
    face = pixels[y : y + height, x : x + width]
    means = face.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3).mean(axis=(1, 3))
    pixels[y : y + height, x : x + width] = np.kron(means, np.ones((BLOCK, BLOCK, 1)))
    return Image.fromarray(np.round(pixels).astype(np.uint8))


def screenshot(path: Path) -> Image.Image:
    """An X window dump of 32 bits a pixel, as the X server keeps its screen."""
    data = path.read_bytes()
    head = struct.unpack(">25I", data[:100])
    width, height, stride, start = head[4], head[5], head[12], head[0] + head[19] * 12
    little_endian = head[7] == 0
    rows = np.frombuffer(data[start : start + stride * height], np.uint8).reshape(height, stride // 4, 4)[:, :width]
    return Image.fromarray(np.ascontiguousarray(rows[..., 2::-1] if little_endian else rows[..., 1:]))


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    window_host()
    with gimp_session() as made:
        yield made


@pytest.fixture(scope="module")
def results(session: Session) -> dict[str, Any]:
    picture = session.folder / "portrait.png"
    portrait().save(picture)
    Image.fromarray(skimage_data.astronaut()).save(session.folder / "face.png")
    told = session.window("window_cases", picture)
    if folder := os.environ.get("RESTORE_TEST_SCREENSHOTS"):
        for dump in session.folder.glob("*.xwd"):
            shown = screenshot(dump).crop(SHOWN.get(dump.stem)).quantize(128, dither=Image.Dither.NONE)
            shown.save(Path(folder, f"{dump.stem}.png"), optimize=True)
    assert "window" not in told, told["window"]["error"]
    return told


@pytest.mark.parametrize("name", cases_of("window_cases"))
def test_step(results: dict[str, Any], name: str) -> None:
    if "faces" in name:
        detector()
    assert "error" not in results[name], results[name]["error"]


def test_the_screen_shows_the_repair(results: dict[str, Any], session: Session) -> None:
    """The dumps are of a screen with the picture on it, and the mosaic is gone in the second."""
    found, done = (np.asarray(screenshot(session.folder / f"{name}.xwd"), float) for name in ("found", "done"))
    assert found.shape == done.shape == (800, 1280, 3)
    x, y, width, height = 380, 230, 300, 120  # over the face, wherever the window has put it
    steps = [np.abs(np.diff(each[y : y + height, x : x + width], axis=1)).max(axis=2) for each in (found, done)]
    assert (steps[0] > 40).sum() > (steps[1] > 40).sum()
