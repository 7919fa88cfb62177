"""Inside GIMP: faces of a photograph (tests/test_gimp_procedures.py), which lies in the test's folder as face.png."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import (
    FAKE,
    FOLDER,
    OUTSIDE,
    RUNTIME,
    WORKER,
    Box,
    case,
    changed,
    done,
    instead,
    make_image,
    mask_of,
    native,
    pixel_bytes,
    refused,
    run_cases,
    select,
    selection,
    sides,
)
from gi.repository import Gimp, Gio

HIDE, FIND_FACES = (f"plug-in-restore-{name}" for name in ("hide-faces", "find-faces"))
PICTURE: Box = (0, 0, 256, 256)
FACE: Box = (91, 29, 44, 60)  # brow to chin
AROUND: Box = (70, 5, 90, 115)  # nothing beyond it is part of a cover


def photograph() -> tuple[Any, Any]:
    image = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path(str(FOLDER / "face.png")))
    (layer,) = image.get_layers()
    assert sides(layer) == PICTURE
    return image, layer


def numbers(box: Box) -> set[int]:
    x, y, width, height = box
    return {row * PICTURE[2] + column for row in range(y, y + height) for column in range(x, x + width)}


@case
def a_face_is_covered_in_a_new_layer() -> None:
    image, layer = photograph()
    before = native(layer)
    made = done(HIDE, image, layer)
    assert native(layer) == before
    assert len(image.get_layers()) == 2
    assert made.get_name() == "Faces hidden"
    x, y, width, _ = sides(made)
    mask = mask_of(made)
    covered = {(y + at // width) * PICTURE[2] + x + at % width for at, value in enumerate(mask) if value}
    assert len(numbers(FACE) - covered) < len(numbers(FACE)) // 50
    assert covered <= numbers(AROUND)


@case
def a_face_is_covered_in_place() -> None:
    for method in ("blocks", "solid", "blur", "pixelate"):
        image, layer = photograph()
        before = native(layer)
        done(HIDE, image, layer, method=method, output="in-place")
        differ = set(changed(before, native(layer), pixel_bytes(layer)))
        assert len(numbers(FACE) - differ) < len(numbers(FACE)) // 10, method
        assert differ <= numbers(AROUND), method
        image.delete()


@case
def only_what_is_selected_is_covered() -> None:
    image, layer = photograph()
    half = (0, 0, 112, 256)
    before = native(layer)
    select(image, half)
    done(HIDE, image, layer, output="in-place")
    differ = set(changed(before, native(layer), pixel_bytes(layer)))
    assert differ
    assert differ <= numbers(half) & numbers(AROUND)
    select(image, (150, 150, 80, 80))
    assert "No face was found in the selection" in refused(HIDE, image, layer)


@case
def a_face_is_selected() -> None:
    image, layer = photograph()
    before = native(layer)
    assert done(FIND_FACES, image, layer) == 1
    assert native(layer) == before
    found = {number for number, value in enumerate(selection(image, layer)) if value}
    assert len(numbers(FACE) - found) < len(numbers(FACE)) // 50
    assert found <= numbers(AROUND)


@case
def no_face() -> None:
    image, layer = make_image()
    assert "No face was found in the layer" in refused(HIDE, image, layer)
    assert "No face was found in the layer" in refused(FIND_FACES, image, layer)


@case
def without_the_extra_it_is_named() -> None:
    python, code = WORKER[len(OUTSIDE)], WORKER[-1]
    with instead([*OUTSIDE, python, str(Path(FAKE[-1]).with_name("worker_without_faces.py")), code]):
        image, layer = photograph()
        for procedure in (HIDE, FIND_FACES):
            assert "restore-plugin[faces]" in refused(procedure, image, layer)
        assert (RUNTIME / "fake.pid").exists()


def run() -> None:
    run_cases("face_cases")
