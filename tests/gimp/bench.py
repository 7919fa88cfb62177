"""Inside GIMP (gi and the standard library only): pictures, calls, and comparisons for the files of cases."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import traceback
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gi

gi.require_version("Babl", "0.1")
gi.require_version("Gegl", "0.4")
gi.require_version("Gimp", "3.0")
from gi.repository import Babl, Gegl, Gimp  # noqa: E402

Box = tuple[int, int, int, int]
WIDTH, HEIGHT = 160, 120
MOSAIC: Box = (48, 40, 64, 48)
BLOCK = 8
RGB, GREY = Gimp.ImageBaseType.RGB, Gimp.ImageBaseType.GRAY
U8 = Gimp.Precision.U8_NON_LINEAR
DEMOSAIC, DERAIN, DEBLUR, FIND, REMOVE = (
    f"plug-in-restore-{name}" for name in ("demosaic", "derain", "deblur", "find-mosaics", "remove-object")
)
SUCCESS, FAILED = Gimp.PDBStatusType.SUCCESS, Gimp.PDBStatusType.EXECUTION_ERROR
FOLDER = Path(os.environ["RESTORE_TEST_FOLDER"])
RUNTIME = Path(os.environ["RESTORE_PLUGIN_RUNTIME"])
SETTINGS = Path(os.environ["GIMP3_DIRECTORY"], "plug-ins", "restore-plugin", "settings.json")
FAKE: list[str] = json.loads(os.environ["RESTORE_TEST_FAKE"])
OUTSIDE: list[str] = json.loads(os.environ["RESTORE_TEST_OUTSIDE"])  # put before a command, it runs where workers do
WORKER: list[str] = json.loads(os.environ["RESTORE_TEST_WORKER"])

QUICK = {"method": "bicubic"}
IN_PLACE = {"method": "bicubic", "output": "in-place"}
SMALL: Box = (56, 48, 40, 24)  # whole blocks inside of the mosaic
NEAR: Box = (MOSAIC[0] - BLOCK, MOSAIC[1] - BLOCK, MOSAIC[2] + 2 * BLOCK, MOSAIC[3] + 2 * BLOCK)  # where it is found

CASES: dict[str, Callable[[], object]] = {}


def case(function: Callable[[], object]) -> Callable[[], object]:
    CASES[function.__name__] = function
    return function


def run_cases(name: str) -> None:
    """Run them all, and write what came of each into NAME.json."""
    told: dict[str, Any] = {}
    for key, function in CASES.items():
        try:
            told[key] = {"returned": function()}
        except BaseException:
            told[key] = {"error": traceback.format_exc()}
        for image in Gimp.get_images():
            image.delete()
    part = FOLDER / f"{name}.part"
    part.write_text(json.dumps(told), encoding="utf-8")
    part.rename(FOLDER / f"{name}.json")


def mosaic_at(x: int, y: int, box: Box = MOSAIC) -> bool:
    return box[0] <= x < box[0] + box[2] and box[1] <= y < box[1] + box[3]


def wave(x: int, y: int, turn: float) -> float:
    return 0.5 + 0.35 * math.sin(x / 5 + y / 11 + turn) * math.cos(y / 7 - x / 23)


def waves(with_mosaic: bool) -> list[tuple[float, float, float]]:
    """Smooth colours, row by row, with blocks of BLOCK px in MOSAIC."""
    clean = [[tuple(wave(x, y, turn) for turn in (0.0, 0.7, 1.9)) for x in range(WIDTH)] for y in range(HEIGHT)]
    out = [row[:] for row in clean]
    if with_mosaic:
        for y in range(MOSAIC[1], MOSAIC[1] + MOSAIC[3], BLOCK):
            for x in range(MOSAIC[0], MOSAIC[0] + MOSAIC[2], BLOCK):
                block = [clean[y + j][x + i] for j in range(BLOCK) for i in range(BLOCK)]
                mean = tuple(sum(values) / len(block) for values in zip(*block, strict=True))
                for j in range(BLOCK):
                    out[y + j][x : x + BLOCK] = [mean] * BLOCK
    return [pixel for row in out for pixel in row]  # type: ignore[misc]


PICTURES = {True: waves(True), False: waves(False)}


def in_space(encoding: str, layer: Any) -> str:
    """The format of that encoding, in the layer's own colour space."""
    return str(Babl.get_name(Babl.format_with_space(encoding, layer.get_format())))


def rectangle(box: Box) -> Any:
    return Gegl.Rectangle.new(*box)


def make_image(
    base: Any = RGB, precision: Any = U8, alpha: bool = False, profile: Any = None, mosaic: bool = True,
    offsets: tuple[int, int] = (0, 0), canvas: tuple[int, int] = (WIDTH, HEIGHT),
) -> tuple[Any, Any]:  # fmt: skip
    """An image and its layer of WIDTH x HEIGHT, at those offsets on the canvas."""
    image = Gimp.Image.new_with_precision(*canvas, base, precision)
    if profile is not None:
        assert image.set_color_profile(profile)
    return image, add_layer(image, alpha, mosaic, offsets)


def add_layer(image: Any, alpha: bool = False, mosaic: bool = True, offsets: tuple[int, int] = (0, 0)) -> Any:
    grey = image.get_base_type() == GREY
    kind = (2 if grey else 0) + alpha  # as Gimp.ImageType numbers them
    layer = Gimp.Layer.new(image, "picture", WIDTH, HEIGHT, Gimp.ImageType(kind), 100.0, Gimp.LayerMode.NORMAL)
    image.insert_layer(layer, None, 0)
    layer.set_offsets(*offsets)
    values = array("f")
    for number, pixel in enumerate(PICTURES[mosaic]):
        values.extend(pixel[:1] if grey else pixel)
        if alpha:
            values.append((number % 7) / 6 * 0.9 + 0.1)
    encoding = ("Y'" if grey else "R'G'B'") + "A" * alpha + " float"
    buffer = layer.get_buffer()
    buffer.set(rectangle((0, 0, WIDTH, HEIGHT)), in_space(encoding, layer), values.tobytes())
    buffer.flush()
    layer.update(0, 0, WIDTH, HEIGHT)
    return layer


def pixel_bytes(drawable: Any) -> int:
    return int(Babl.format_get_bytes_per_pixel(drawable.get_format()))


def native(drawable: Any) -> bytes:
    """Its pixels, to the bit."""
    size = drawable.get_width(), drawable.get_height()
    return encoded(drawable, Babl.get_name(drawable.get_format()), (0, 0, *size))


def encoded(drawable: Any, name: str, box: Box) -> bytes:
    return bytes(drawable.get_buffer().get(rectangle(box), 1.0, name, Gegl.AbyssPolicy.NONE))


def floats(layer: Any) -> array[float]:
    """Gamma-encoded samples in the layer's own space, with alpha where it has one."""
    encoding = ("Y'" if layer.is_gray() else "R'G'B'") + "A" * layer.has_alpha() + " float"
    out = array("f")
    out.frombytes(encoded(layer, in_space(encoding, layer), (0, 0, layer.get_width(), layer.get_height())))
    return out


def selection(image: Any, layer: Any) -> bytes:
    """0 to 255 for each of the layer's pixels."""
    x, y = layer.get_offsets()[1:]
    return encoded(image.get_selection(), "Y u8", (x, y, layer.get_width(), layer.get_height()))


def select(image: Any, box: Box, feather: float = 0.0) -> None:
    image.select_rectangle(Gimp.ChannelOps.REPLACE, *box)
    if feather:
        Gimp.Selection.feather(image, feather)


def changed(old: bytes, new: bytes, each: int) -> list[int]:
    """The numbers of the pixels that differ."""
    assert len(old) == len(new)
    return [at // each for at in range(0, len(old), each) if old[at : at + each] != new[at : at + each]]


def within(numbers: list[int], box: Box, width: int = WIDTH) -> bool:
    return all(mosaic_at(number % width, number // width, box) for number in numbers)


@dataclass
class Outcome:
    status: Any
    value: Any
    text: str


def call(procedure: str, image: Any, drawables: Any, **arguments: Any) -> Outcome:
    """`drawables`: a list, or one of them."""
    found = Gimp.get_pdb().lookup_procedure(procedure)
    config = found.create_config()
    config.set_property("image", image)
    config.set_core_object_array("drawables", drawables if isinstance(drawables, list) else [drawables])
    for name, value in arguments.items():
        config.set_property(name.replace("_", "-"), value)
    result = found.run(config)
    good = result.index(0) == SUCCESS
    return Outcome(result.index(0), result.index(1) if good else None, Gimp.get_pdb().get_last_error())


def done(procedure: str, image: Any, drawables: Any, **arguments: Any) -> Any:
    """What it returned. It must succeed."""
    outcome = call(procedure, image, drawables, **arguments)
    assert outcome.status == SUCCESS, outcome
    return outcome.value


def refused(procedure: str, image: Any, drawables: Any, **arguments: Any) -> str:
    """The sentence. It must fail, and leave the image as it was."""
    before = state(image)
    outcome = call(procedure, image, drawables, **arguments)
    assert outcome.status == FAILED, outcome
    assert state(image) == before
    text = outcome.text
    assert len(text) > 20, text
    assert text[0].isupper(), text
    assert text[-1] in ".)" or text.endswith(str(RUNTIME)), text
    assert "Traceback" not in text, text
    return text


def state(image: Any) -> Any:
    """All that a call must not change where it fails."""

    def of(layers: list[Any]) -> Any:
        return [
            (each.get_id(), each.get_name(), of(each.get_children()) if each.is_group() else native(each))
            for each in layers
        ]

    size = image.get_width(), image.get_height()
    chosen = [each.get_id() for each in image.get_selected_layers()]
    channels = [each.get_id() for each in image.get_channels()]
    return of(image.get_layers()), chosen, channels, encoded(image.get_selection(), "Y u8", (0, 0, *size))


def worker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*WORKER, "worker", *arguments, "--directory", str(RUNTIME)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def left_over() -> list[str]:
    """Files that calls should have removed."""
    pixels = [str(path) for path in (RUNTIME / "pixels").glob("*")]
    temporary = [str(path) for path in Path("/tmp").glob("*") if not FOLDER.is_relative_to(path)]
    return [path for path in [*pixels, *temporary] if "gimp" not in path or path in pixels]


def set_command(command: object) -> None:
    kept = json.loads(SETTINGS.read_text(encoding="utf-8"))
    SETTINGS.write_text(json.dumps({**kept, "command": command}), encoding="utf-8")


@contextmanager
def instead(command: object) -> Iterator[None]:
    """The plug-in is told to start that, and no worker runs before or after."""
    worker("stop", "--now")
    kept = SETTINGS.read_bytes()
    set_command(command)
    try:
        yield
    finally:
        SETTINGS.write_bytes(kept)
        with suppress(OSError, ValueError):
            os.kill(int((RUNTIME / "fake.pid").read_text()), signal.SIGKILL)
        for name in ("worker.sock", "fake.pid", "pixels.raw"):
            (RUNTIME / name).unlink(missing_ok=True)


def precision(name: str) -> Any:
    return getattr(Gimp.Precision, name)


def sides(layer: Any) -> tuple[int, int, int, int]:
    return *layer.get_offsets()[1:], layer.get_width(), layer.get_height()


def mask_of(layer: Any) -> bytes:
    return encoded(layer.get_mask(), "Y u8", (0, 0, layer.get_width(), layer.get_height()))
