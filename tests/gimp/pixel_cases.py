"""Inside GIMP: precisions, colour spaces, selections: what becomes of each pixel (tests/test_gimp_procedures.py)."""

from __future__ import annotations

from typing import Any

from bench import (
    DEBLUR,
    DEMOSAIC,
    DERAIN,
    FOLDER,
    GREY,
    HEIGHT,
    IN_PLACE,
    MOSAIC,
    NEAR,
    QUICK,
    RGB,
    SMALL,
    WIDTH,
    Box,
    case,
    changed,
    done,
    encoded,
    floats,
    in_space,
    make_image,
    mask_of,
    native,
    pixel_bytes,
    precision,
    run_cases,
    select,
    selection,
    sides,
    within,
)
from gi.repository import Gimp

PRECISIONS = ("U8", "U16", "U32", "HALF", "FLOAT", "DOUBLE")


def check_in_place(image: Any, layer: Any, box: Box) -> None:
    """In place, only what is selected changes; the rest keeps every bit, alpha all of them."""
    before, values, selected = native(layer), floats(layer), selection(image, layer)
    assert done(DEMOSAIC, image, layer, **IN_PLACE).get_id() == layer.get_id()
    after, new = native(layer), floats(layer)
    differ = changed(before, after, pixel_bytes(layer))
    assert len(differ) > box[2] * box[3] // 2, len(differ)
    assert all(selected[number] for number in differ)
    if layer.has_alpha():
        channels = len(new) // (WIDTH * HEIGHT)
        assert new[channels - 1 :: channels] == values[channels - 1 :: channels]
    assert len(image.get_layers()) == 1
    assert len(image.get_channels()) == 0


@case
def every_precision_in_place() -> None:
    for sample in PRECISIONS:
        for light in ("LINEAR", "NON_LINEAR"):
            image, layer = make_image(precision=precision(f"{sample}_{light}"), alpha=True)
            select(image, MOSAIC, feather=6)
            check_in_place(image, layer, MOSAIC)
            image.delete()


@case
def grey_and_perceptual_in_place() -> None:
    for base in (RGB, GREY):
        for alpha in (False, True):
            for name in ("U8_NON_LINEAR", "U16_NON_LINEAR", "FLOAT_LINEAR", "U8_PERCEPTUAL"):
                image, layer = make_image(base, precision(name), alpha)
                select(image, SMALL)
                check_in_place(image, layer, SMALL)
                image.delete()


@case
def every_precision_in_a_new_layer() -> None:
    for base in (RGB, GREY):
        for name in ("U8_NON_LINEAR", "U8_LINEAR", "U16_NON_LINEAR", "U32_LINEAR", "HALF_LINEAR", "FLOAT_NON_LINEAR"):
            image, layer = make_image(base, precision(name), alpha=True)
            before, old = native(layer), floats(layer)
            select(image, MOSAIC)
            made = done(DEMOSAIC, image, layer, **QUICK)
            assert native(layer) == before
            assert made.get_format() == layer.get_format()
            assert sides(made) == MOSAIC, sides(made)
            assert mask_of(made) == b"\xff" * (MOSAIC[2] * MOSAIC[3])
            channels, new = len(old) // (WIDTH * HEIGHT), floats(made)
            assert new[channels - 1 :: channels] == cut(old, channels, MOSAIC)[channels - 1 :: channels]  # alpha
            image.delete()


def cut(values: Any, channels: int, box: Box) -> Any:
    """A box out of the samples of a whole picture."""
    out = values[:0]
    for y in range(box[1], box[1] + box[3]):
        start = (y * WIDTH + box[0]) * channels
        out.extend(values[start : start + box[2] * channels])
    return out


@case
def precisions_agree() -> None:
    """Independent of the precision, the same picture comes out."""
    results = []
    for name, step in (("FLOAT_NON_LINEAR", 0), ("U8_NON_LINEAR", 1 / 255), ("U16_NON_LINEAR", 1 / 65535),
                       ("U32_LINEAR", 1e-5), ("HALF_NON_LINEAR", 1e-3)):  # fmt: skip
        image, layer = make_image(precision=precision(name))
        select(image, MOSAIC)
        done(DEMOSAIC, image, layer, **IN_PLACE)
        results.append((name, step, floats(layer)))
        image.delete()
    first = results[0][2]
    for name, step, values in results[1:]:
        away = max(abs(a - b) for a, b in zip(first, values, strict=True))
        assert away <= 3 * step + 2e-5, (name, away)


@case
def another_colour_space() -> None:
    """The same numbers mean other colours there: they must come back as the same numbers, and the rest to the bit."""
    results = []
    for profile in (None, Gimp.ColorProfile.new_rgb_adobe()):
        for name in ("U8_NON_LINEAR", "U16_NON_LINEAR"):
            image, layer = make_image(precision=precision(name), profile=profile)
            assert ("sRGB" in image.get_effective_color_profile().get_label()) == (profile is None)
            select(image, MOSAIC)
            check_in_place(image, layer, MOSAIC)
            made = done(DERAIN, image, layer, output="new-layer")
            results.append((native(layer), native(made)))
            image.delete()
    assert results[0] == results[2]
    assert results[1] == results[3]


@case
def as_the_library_does() -> None:
    """Leaves files for the host to compare: what went in, and what came out."""
    box = (0, 0, WIDTH, HEIGHT)
    for task, procedure in (("demosaic", DEMOSAIC), ("derain", DERAIN), ("deblur", DEBLUR)):
        image, layer = make_image()
        (FOLDER / f"{task}.in").write_bytes(encoded(layer, in_space("R'G'B' u8", layer), box))
        done(procedure, image, layer, output="in-place")
        (FOLDER / f"{task}.out").write_bytes(encoded(layer, in_space("R'G'B' u8", layer), box))
        image.delete()


@case
def what_is_found_and_nothing_else() -> None:
    """Nothing is selected: the mosaic is found, and the new layer shows only what differs."""
    image, layer = make_image()
    before = native(layer)
    made = done(DEMOSAIC, image, layer)
    assert native(layer) == before
    x, y, width, height = sides(made)
    assert within([(y + row) * WIDTH + x + column for row in (0, height - 1) for column in (0, width - 1)], NEAR)
    new, mask = native(made), mask_of(made)
    old = encoded(layer, in_space("R'G'B' u8", layer), (x, y, width, height))
    differ = set(changed(old, new, 3))
    assert differ == {number for number, value in enumerate(mask) if value == 255}
    assert set(mask) <= {0, 255}
    assert image.get_selected_layers()[0].get_id() == made.get_id()
    assert image.get_item_position(made) == 0
    assert made.get_name() == "De-mosaicked"


@case
def the_shown_picture_outside_is_the_same() -> None:
    image, layer = make_image()
    select(image, SMALL, feather=5)
    selected = selection(image, layer)
    shown = Gimp.Layer.new_from_visible(image, image, "before")
    done(DEMOSAIC, image, layer, **QUICK)
    after = Gimp.Layer.new_from_visible(image, image, "after")
    name = in_space("R'G'B' u8", layer)
    box = (0, 0, WIDTH, HEIGHT)
    differ = changed(encoded(shown, name, box), encoded(after, name, box), 3)
    assert differ
    assert all(selected[number] for number in differ)


@case
def feathered_selections_blend() -> None:
    """In place: old + (new - old) * selection, with GIMP's own selection."""
    whole_image, whole = make_image(precision=precision("FLOAT_NON_LINEAR"))
    old = floats(whole)
    select(whole_image, MOSAIC)
    done(DEMOSAIC, whole_image, whole, **IN_PLACE)
    new = floats(whole)
    image, layer = make_image(precision=precision("FLOAT_NON_LINEAR"))
    select(image, (64, 52, 32, 24), feather=8)
    selected = selection(image, layer)
    assert any(0 < value < 255 for value in selected)
    done(DEMOSAIC, image, layer, **IN_PLACE)
    got = floats(layer)
    for number, value in enumerate(selected):
        for at in range(number * 3, number * 3 + 3):
            inside = 52 <= number // WIDTH < 76 and 64 <= number % WIDTH < 96
            if value and inside:  # outside of its box the feathered selection may reach beyond the mosaic
                expected = old[at] + (new[at] - old[at]) * value / 255
                assert abs(got[at] - expected) < 2e-3, (number, value, got[at], expected)


@case
def feathered_selections_become_masks() -> None:
    image, layer = make_image()
    select(image, SMALL, feather=6)
    selected = selection(image, layer)
    made = done(DEMOSAIC, image, layer, **QUICK)
    x, y, width, height = sides(made)
    mask = mask_of(made)
    for row in range(height):
        start = (y + row) * WIDTH + x
        assert mask[row * width : (row + 1) * width] == selected[start : start + width]


def run() -> None:
    run_cases("pixel_cases")
