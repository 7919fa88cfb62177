"""The procedures of the GIMP plug-in, in a real GIMP without a window.

The checks themselves are in tests/gimp (pixel_cases.py, image_cases.py, hole_cases.py) and run inside GIMP, each file
in one go; every case is reported here as a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faces import detector
from gimp.required import cases_of, gimp_session
from gimp.session import Session
from PIL import Image
from skimage import data

import restore_plugin

FILES = ("pixel_cases", "image_cases", "hole_cases")
NAMES = [(file, name) for file in FILES for name in cases_of(file)]
FACES = cases_of("face_cases")
WIDTH, HEIGHT = 160, 120
SCHEME_ERROR = 70  # GIMP's exit code
Case = tuple[str, str]  # its file and name


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with gimp_session() as made:
        yield made


@pytest.fixture(scope="module")
def results(session: Session) -> dict[Case, Any]:
    return {(file, name): told for file in FILES for name, told in session.cases(file).items()}


@pytest.mark.parametrize(("file", "name"), NAMES)
def test_case(results: dict[Case, Any], file: str, name: str) -> None:
    assert "error" not in results[file, name], results[file, name]["error"]


def test_every_case_ran(results: dict[Case, Any]) -> None:
    assert len(NAMES) == len(results) > 20


@pytest.mark.parametrize("task", ["demosaic", "derain", "deblur"])
def test_pixels_are_those_of_the_library(results: dict[Case, Any], session: Session, task: str) -> None:
    before, after = (
        np.fromfile(session.folder / f"{task}.{end}", np.uint8).reshape(HEIGHT, WIDTH, 3) for end in ("in", "out")
    )
    expected = restore_plugin.load(task)(before)
    assert not np.array_equal(before, after)
    assert np.abs(expected.astype(int) - after).max() <= 1


def test_a_hole_is_filled_as_by_the_library(results: dict[Case, Any], session: Session) -> None:
    """Which sees the whole picture: GIMP has sent along enough of it."""
    before, after = (
        np.fromfile(session.folder / f"inpaint.{end}", np.uint8).reshape(900, 1400, 3) for end in ("in", "out")
    )
    mask = np.zeros((900, 1400), bool)
    mask[330:570, 560:800] = True
    np.testing.assert_array_equal(after, restore_plugin.load("patches")(before, mask))
    assert (after != before)[mask].any()


def test_nothing_is_left_behind(results: dict[Case, Any], session: Session) -> None:
    assert list((session.runtime / "pixels").iterdir()) == []
    names = {path.name for path in session.runtime.iterdir()}
    assert names <= {"worker.sock", "worker.lock", "worker.log", "pixels"}


@pytest.fixture(scope="module")
def face_results(session: Session) -> dict[str, Any]:
    detector()
    half = np.asarray(Image.fromarray(data.astronaut()).resize((256, 256), Image.Resampling.BOX))
    Image.fromarray(half).save(session.folder / "face.png")
    return session.cases("face_cases")


@pytest.mark.parametrize("name", FACES)
def test_faces(face_results: dict[str, Any], name: str) -> None:
    assert "error" not in face_results[name], face_results[name]["error"]


@pytest.fixture(scope="module")
def picture(session: Session) -> Path:
    """Waves with a mosaic of 8 px in the middle, as PNG."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    pixels = np.dstack(
        [0.5 + 0.35 * np.sin(x / 5 + y / 11 + turn) * np.cos(y / 7 - x / 23) for turn in (0.0, 0.7, 1.9)]
    )
    blocks = pixels[40:88, 48:112].reshape(6, 8, 8, 8, 3).mean(axis=(1, 3))
    pixels[40:88, 48:112] = np.kron(blocks, np.ones((8, 8, 1)))
    path = session.folder / "picture.png"
    Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(path)
    return path


def scheme(path: Path, procedure: str, *arguments: str, before: str = "") -> str:
    """A script that loads a picture, calls the procedure on it, and says what came back."""
    call = f"({procedure} #:run-mode RUN-NONINTERACTIVE #:image image #:drawables (vector layer) {' '.join(arguments)})"
    return f"""
        (let* ((image (car (gimp-file-load RUN-NONINTERACTIVE "{path}")))
               (layer (vector-ref (car (gimp-image-get-layers image)) 0)))
          {before}
          (let ((result (car {call})))
            (gimp-message (string-append
              "RETURNED" "=" (number->string result)
              " LAYERS" "=" (number->string (length (vector->list (car (gimp-image-get-layers image)))))
              " EMPTY" "=" (number->string (car (gimp-selection-is-empty image)))))))"""


MOSAIC = "(gimp-image-select-rectangle image CHANNEL-OP-REPLACE 48 40 64 48)"
CORNER = "(gimp-image-select-rectangle image CHANNEL-OP-REPLACE 0 0 30 30)"


@pytest.mark.parametrize(
    ("procedure", "arguments", "before", "layers"),
    [
        ("plug-in-restore-demosaic", "", "", 2),
        ("plug-in-restore-demosaic", '#:method "bicubic" #:output "in-place"', MOSAIC, 1),
        ("plug-in-restore-demosaic", "#:measure FALSE #:block-size 6.5 #:use-selection TRUE", CORNER, 2),
        ("plug-in-restore-derain", '#:strength 0.5 #:output "new-layer" #:use-selection FALSE', MOSAIC, 2),
        ("plug-in-restore-deblur", '#:method "blurnet" #:output "in-place"', MOSAIC, 1),
        ("plug-in-restore-find-mosaics", '#:operation "replace"', "", 1),
        ("plug-in-restore-remove-object", "", MOSAIC, 2),
        ("plug-in-restore-remove-object", '#:method "patches" #:seed 7 #:output "in-place"', MOSAIC, 1),
    ],
)
def test_script_fu(session: Session, picture: Path, procedure: str, arguments: str, before: str, layers: int) -> None:
    done = session.scheme(scheme(picture, procedure, arguments, before=before))
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "RETURNED=" in told
    assert f"LAYERS={layers}" in told
    if "find" in procedure:
        assert "RETURNED=1 " in told
        assert "EMPTY=0" in told


@pytest.mark.parametrize(
    ("procedure", "before", "text"),
    [
        ("plug-in-restore-demosaic", CORNER, "No mosaic was found in the selection"),
        ("plug-in-restore-remove-object", "", "Nothing is selected"),
    ],
)
def test_script_fu_is_told_of_failures(session: Session, picture: Path, procedure: str, before: str, text: str) -> None:
    done = session.scheme(scheme(picture, procedure, before=before))
    told = done.stdout + done.stderr
    assert done.returncode == SCHEME_ERROR, told
    assert text in told
    assert "RETURNED=" not in told
