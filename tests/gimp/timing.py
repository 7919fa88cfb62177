"""Inside GIMP: how long calls take (benchmarks/gimp_calls.py)."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable

from bench import DEMOSAIC, DERAIN, FAKE, FIND, PICTURES, WIDTH, call, case, done, in_space, instead, run_cases, worker
from gi.repository import Gegl, Gimp

SIZES = {"1": (1152, 864), "12": (4000, 3000), "50": (8660, 5774)}
Times = tuple[float, float]
REPEATS = int(os.environ.get("RESTORE_TEST_REPEATS", "5"))


def make(megapixels: str) -> tuple[object, object]:
    """RGBA of 8 bits, with the small picture and its mosaic in the middle."""
    width, height = SIZES[megapixels]
    image = Gimp.Image.new(width, height, Gimp.ImageBaseType.RGB)
    layer = Gimp.Layer.new(image, "picture", width, height, Gimp.ImageType.RGBA_IMAGE, 100.0, Gimp.LayerMode.NORMAL)
    image.insert_layer(layer, None, 0)
    row = b"".join(bytes((x % 251, x * 3 % 241, x // 7 % 256, 255)) for x in range(width + 997))
    rows = b"".join(row[y * 13 % 997 * 4 :][: width * 4] for y in range(height))
    name = in_space("R'G'B'A u8", layer)
    layer.get_buffer().set(Gegl.Rectangle.new(0, 0, width, height), name, rows)
    small = b"".join(bytes(round(value * 255) for value in pixel) + b"\xff" for pixel in PICTURES[True])
    x, y = width // 2, height // 2
    layer.get_buffer().set(Gegl.Rectangle.new(x, y, WIDTH, len(small) // 4 // WIDTH), name, small)
    layer.update(0, 0, width, height)
    image.select_rectangle(Gimp.ChannelOps.REPLACE, x + 48, y + 40, 64, 48)
    return image, layer


def repeat(image: object, layer: object, procedure: str, **arguments: object) -> Times:
    """The fastest call, and the median."""
    times = []
    for _ in range(REPEATS):
        begun = time.monotonic()
        made = done(procedure, image, layer, **arguments)
        times.append(time.monotonic() - begun)
        if arguments.get("output") == "new-layer":
            image.remove_layer(made)  # type: ignore[attr-defined]
    return min(times), statistics.median(times)


def at_each_size(measure: Callable[[object, object], Times]) -> dict[str, Times]:
    told = {}
    for size in SIZES:
        image, layer = make(size)
        told[size] = measure(image, layer)
        image.delete()  # type: ignore[attr-defined]
    return told


@case
def whole_layer_new() -> dict[str, Times]:
    with instead([*FAKE, "idles"]):
        return at_each_size(lambda image, layer: repeat(image, layer, DERAIN, output="new-layer", use_selection=False))


@case
def whole_layer_in_place() -> dict[str, Times]:
    with instead([*FAKE, "idles"]):
        return at_each_size(lambda image, layer: repeat(image, layer, DERAIN, output="in-place", use_selection=False))


@case
def small_selection_nothing_computed() -> dict[str, Times]:
    with instead([*FAKE, "idles"]):
        return at_each_size(lambda image, layer: repeat(image, layer, DERAIN, output="new-layer"))


@case
def first_call() -> dict[str, Times]:
    """No worker runs yet: it is started, and loads the networks."""

    def first(image: object, layer: object) -> Times:
        worker("stop", "--now")
        begun = time.monotonic()
        done(DEMOSAIC, image, layer)
        return (time.monotonic() - begun,) * 2

    return at_each_size(first)


@case
def small_selection_warm() -> dict[str, Times]:
    return at_each_size(lambda image, layer: repeat(image, layer, DEMOSAIC, output="new-layer"))


@case
def small_selection_warm_in_place() -> dict[str, Times]:
    return at_each_size(lambda image, layer: repeat(image, layer, DERAIN, output="in-place"))


@case
def find_everywhere() -> dict[str, Times]:
    def once(image: object, layer: object) -> Times:
        begun = time.monotonic()
        call(FIND, image, layer)  # so small a mosaic may be overlooked
        return (time.monotonic() - begun,) * 2

    return at_each_size(once)


def run() -> None:
    run_cases("timing")
    print(json.dumps({"version": Gimp.version()}))
