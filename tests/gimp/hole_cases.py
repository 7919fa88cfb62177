"""Inside GIMP: what is selected is taken out of the picture (tests/test_gimp_procedures.py)."""

from __future__ import annotations

from typing import Any

from bench import (
    FOLDER,
    GREY,
    HEIGHT,
    REMOVE,
    RGB,
    WIDTH,
    Box,
    add_layer,
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
    refused,
    run_cases,
    select,
    selection,
    sides,
    within,
)
from gi.repository import Gegl, Gimp

HOLE: Box = (60, 50, 31, 22)
PATCHES = {"method": "patches"}
IN_PLACE = {"method": "patches", "output": "in-place"}


@case
def outside_of_the_selection_every_bit_stays() -> None:
    for base in (RGB, GREY):
        for name in ("U8_NON_LINEAR", "U8_LINEAR", "U16_NON_LINEAR", "U32_LINEAR", "HALF_LINEAR", "FLOAT_NON_LINEAR"):
            image, layer = make_image(base, precision(name), alpha=True)
            select(image, HOLE, feather=4)
            before, values, selected = native(layer), floats(layer), selection(image, layer)
            assert done(REMOVE, image, layer, **IN_PLACE).get_id() == layer.get_id()
            differ, new = changed(before, native(layer), pixel_bytes(layer)), floats(layer)
            assert len(differ) > HOLE[2] * HOLE[3] // 2, (base, name, len(differ))
            assert all(selected[number] for number in differ)
            channels = len(new) // (WIDTH * HEIGHT)
            assert new[channels - 1 :: channels] == values[channels - 1 :: channels]  # alpha
            image.delete()


@case
def a_new_layer_has_the_selection_as_its_mask() -> None:
    image, layer = make_image()
    select(image, HOLE, feather=6)
    before, selected = native(layer), selection(image, layer)
    made = done(REMOVE, image, layer, **PATCHES)
    assert native(layer) == before
    assert made.get_name() == "Object removed"
    assert image.get_item_position(made) == 0
    x, y, width, height = sides(made)
    mask = mask_of(made)
    for row in range(height):
        start = (y + row) * WIDTH + x
        assert mask[row * width : (row + 1) * width] == selected[start : start + width]


@case
def what_was_there_does_not_show() -> None:
    """Whatever lies under the selection, the same fill comes back: nothing of it is looked at."""
    for method in ("fillnet", "patches", "smooth"):
        results = set()
        for colour in (b"\x00\xff\x00", b"\xff\x00\xff"):
            image, layer = make_image()
            covered = colour * (HOLE[2] * HOLE[3])
            layer.get_buffer().set(Gegl.Rectangle.new(*HOLE), in_space("R'G'B' u8", layer), covered)
            select(image, HOLE)
            done(REMOVE, image, layer, method=method, output="in-place")
            results.add(native(layer))
            image.delete()
        assert len(results) == 1, method


@case
def another_seed_another_fill() -> None:
    fills: list[bytes] = []
    for seed in ({}, {"seed": 0}, {"seed": 5}):
        image, layer = make_image()
        select(image, HOLE)
        done(REMOVE, image, layer, **IN_PLACE, **seed)
        fills.append(native(layer))
        image.delete()
    assert fills[0] == fills[1] != fills[2]


@case
def offsets_make_no_difference() -> None:
    results = []
    for offsets, canvas in (((0, 0), (WIDTH, HEIGHT)), ((-30, -20), (200, 90)), ((300, 170), (500, 400))):
        image, layer = make_image(offsets=offsets, canvas=canvas)
        select(image, (HOLE[0] + offsets[0], HOLE[1] + offsets[1], HOLE[2], HOLE[3]))
        done(REMOVE, image, layer, **IN_PLACE)
        results.append(native(layer))
    assert results[0] == results[1] == results[2]


@case
def layers_in_groups_and_with_masks() -> None:
    image, layer = make_image()
    group = Gimp.GroupLayer.new(image, "group")
    image.insert_layer(group, None, 0)
    inner = add_layer(image)
    image.reorder_item(inner, group, 0)
    inner.add_mask(inner.create_mask(Gimp.AddMaskType.WHITE))
    select(image, HOLE)
    assert done(REMOVE, image, inner, **PATCHES).get_parent().get_id() == group.get_id()
    assert "group" in refused(REMOVE, image, group)
    assert "one layer" in refused(REMOVE, image, [layer, inner])
    layer.set_lock_content(True)
    assert "locked" in refused(REMOVE, image, layer, **IN_PLACE)


@case
def selections_that_will_not_do() -> None:
    image, layer = make_image(offsets=(10, 10), canvas=(300, 300))
    assert "Nothing is selected" in refused(REMOVE, image, layer)
    select(image, (250, 250, 20, 20))
    assert "outside of the layer" in refused(REMOVE, image, layer)
    Gimp.Selection.all(image)
    for method in ("fillnet", "patches", "smooth"):
        assert "mask that leaves some of the picture" in refused(REMOVE, image, layer, method=method)
    image, layer = make_image()
    layer.fill(Gimp.FillType.WHITE)
    select(image, HOLE)
    assert "looks just like what was there in the selection" in refused(REMOVE, image, layer, method="smooth")


@case
def odd_selections() -> None:
    """One pixel; one at the edge; several places; all but a corner."""
    image, layer = make_image()
    before = native(layer)
    one = (70, 60, 1, 1)
    layer.get_buffer().set(Gegl.Rectangle.new(*one), in_space("R'G'B' u8", layer), b"\x00\xff\x00")
    spoilt = native(layer)
    select(image, one)
    done(REMOVE, image, layer, method="smooth", output="in-place")
    assert within(changed(spoilt, native(layer), 3), one)
    away = max(abs(a - b) for a, b in zip(before, native(layer), strict=True))
    assert away < 30, away  # a speck on smooth colours is gone
    for boxes in ([(0, 0, 12, 120)], [(20, 20, 9, 9), (120, 90, 15, 11), (150, 0, 10, 3)], [(0, 0, 160, 100)]):
        before = native(layer)
        Gimp.Selection.none(image)
        for box in boxes:
            image.select_rectangle(Gimp.ChannelOps.ADD, *box)
        selected = selection(image, layer)
        done(REMOVE, image, layer, **IN_PLACE)
        differ = changed(before, native(layer), 3)
        assert len(differ) > sum(map(bool, selected)) // 2
        assert all(selected[number] for number in differ)


def large_picture() -> tuple[Any, Any]:
    """1400 x 900: a fine pattern that goes on everywhere, so that what is sent along decides what is found."""
    image = Gimp.Image.new(1400, 900, RGB)
    layer = Gimp.Layer.new(image, "large", 1400, 900, Gimp.ImageType.RGB_IMAGE, 100.0, Gimp.LayerMode.NORMAL)
    image.insert_layer(layer, None, 0)
    line = bytes((x * x // 97 + 40 * channel) % 251 for x in range(3000) for channel in range(3))
    lines = b"".join(line[y * y // 31 % 1500 * 3 :][: 1400 * 3] for y in range(900))
    layer.get_buffer().set(Gegl.Rectangle.new(0, 0, 1400, 900), in_space("R'G'B' u8", layer), lines)
    return image, layer


@case
def as_the_library_does() -> None:
    """Leaves files for the host to compare: what went in, and what came out; in a hole that wants to see far."""
    image, layer = large_picture()
    box = (0, 0, 1400, 900)
    (FOLDER / "inpaint.in").write_bytes(encoded(layer, in_space("R'G'B' u8", layer), box))
    select(image, (560, 330, 240, 240))
    done(REMOVE, image, layer, **IN_PLACE)
    (FOLDER / "inpaint.out").write_bytes(encoded(layer, in_space("R'G'B' u8", layer), box))


def run() -> None:
    run_cases("hole_cases")
