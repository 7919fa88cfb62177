"""Inside GIMP: what each procedure does to an image. tests/test_gimp_procedures.py runs these and looks at the rest."""

from __future__ import annotations

from typing import Any

from bench import (
    BLOCK,
    DEMOSAIC,
    DERAIN,
    FIND,
    FOLDER,
    GREY,
    HEIGHT,
    MOSAIC,
    RGB,
    WIDTH,
    Box,
    add_layer,
    call,
    case,
    changed,
    done,
    encoded,
    floats,
    in_space,
    make_image,
    native,
    pixel_bytes,
    refused,
    run_cases,
    select,
    selection,
    within,
)
from gi.repository import Gegl, Gimp

QUICK = {"method": "bicubic"}
IN_PLACE = {"method": "bicubic", "output": "in-place"}
PRECISIONS = ("U8", "U16", "U32", "HALF", "FLOAT", "DOUBLE")
SMALL: Box = (56, 48, 40, 24)  # whole blocks inside of the mosaic
FLOAT_STEP = 1e-6


def precision(name: str) -> Any:
    return getattr(Gimp.Precision, name)


def sides(layer: Any) -> tuple[int, int, int, int]:
    return *layer.get_offsets()[1:], layer.get_width(), layer.get_height()


def mask_of(layer: Any) -> bytes:
    return encoded(layer.get_mask(), "Y u8", (0, 0, layer.get_width(), layer.get_height()))


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
    for task, procedure in (("demosaic", DEMOSAIC), ("derain", DERAIN)):
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
    assert within([(y + row) * WIDTH + x + column for row in (0, height - 1) for column in (0, width - 1)], MOSAIC)
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


@case
def offsets_make_no_difference() -> None:
    results = []
    for offsets, canvas in (((0, 0), (WIDTH, HEIGHT)), ((-30, -20), (200, 90)), ((300, 170), (500, 400))):
        image, layer = make_image(offsets=offsets, canvas=canvas)
        x, y = MOSAIC[0] + offsets[0], MOSAIC[1] + offsets[1]
        select(image, (x + 8, y + 8, 24, 16))
        made = done(DEMOSAIC, image, layer, **QUICK)
        assert sides(made) == (x + 8, y + 8, 24, 16), sides(made)
        Gimp.Selection.none(image)
        done(DEMOSAIC, image, layer, **IN_PLACE)
        results.append((native(made), native(layer)))
        image.delete()
    assert results[0] == results[1] == results[2]


@case
def large_offsets_for_the_finder() -> None:
    image, layer = make_image(offsets=(20, 10), canvas=(400, 300))
    assert done(FIND, image, layer) == 1
    x, y, width, height = Gimp.Selection.bounds(image)[2:]
    expected = (MOSAIC[0] + 20, MOSAIC[1] + 10, MOSAIC[0] + MOSAIC[2] + 20, MOSAIC[1] + MOSAIC[3] + 10)
    assert all(abs(a - b) <= BLOCK for a, b in zip((x, y, width, height), expected, strict=True)), (x, y, width, height)


@case
def find_combines_selections() -> None:
    image, layer = make_image()
    before = native(layer)
    results = {}
    corner = (0, 0, 60, 60)  # overlaps the mosaic
    for operation in ("replace", "add", "subtract", "intersect"):
        select(image, corner)
        old = selection(image, layer)
        assert done(FIND, image, layer, operation=operation) == 1
        results[operation] = selection(image, layer)
        assert len(image.get_channels()) == 0
        assert [each.get_id() for each in image.get_selected_layers()] == [layer.get_id()]
    assert native(layer) == before
    found = results["replace"]
    assert 0.8 < sum(value == 255 for value in found) / (MOSAIC[2] * MOSAIC[3]) < 1.2
    for a, b, new in zip(old, found, results["add"], strict=True):
        assert new == max(a, b)
    for a, b, new in zip(old, found, results["subtract"], strict=True):
        assert new == (0 if b else a)
    for a, b, new in zip(old, found, results["intersect"], strict=True):
        assert new == min(a, b)


@case
def nothing_to_find() -> None:
    image, layer = make_image(mosaic=False)
    select(image, (10, 10, 20, 20))
    assert "No mosaic was found" in refused(FIND, image, layer)
    assert "No mosaic was found in the selection" in refused(DEMOSAIC, image, layer)
    assert done(DEMOSAIC, image, layer, measure=False, block_size=4.0, **QUICK) is not None  # the user must know
    Gimp.Selection.none(image)
    assert "No mosaic was found in the layer" in refused(DEMOSAIC, image, layer, measure=False)
    assert "No mosaic was found in the layer" in refused(DEMOSAIC, image, layer)


@case
def only_the_selected_mosaic() -> None:
    """A mosaic that is half selected is found, and changes in that half."""
    image, layer = make_image()
    half = (0, 0, 80, HEIGHT)
    before = native(layer)
    select(image, half)
    done(DEMOSAIC, image, layer, **IN_PLACE)
    differ = changed(before, native(layer), 3)
    assert differ
    assert within(differ, half)
    assert within(differ, MOSAIC)


@case
def selection_may_be_ignored() -> None:
    results = []
    for box in ((0, 0, 4, 4), None):
        image, layer = make_image()
        if box:
            select(image, box)
        selected = selection(image, layer)
        done(DEMOSAIC, image, layer, use_selection=False, **IN_PLACE)
        assert selection(image, layer) == selected
        assert len(image.get_channels()) == 0
        assert [each.get_id() for each in image.get_selected_layers()] == [layer.get_id()]
        results.append(native(layer))
    assert results[0] == results[1]


@case
def block_size_may_be_given() -> None:
    image, layer = make_image()
    before = native(layer)
    select(image, MOSAIC)
    done(DEMOSAIC, image, layer, measure=False, block_size=8.0, **IN_PLACE)
    measured_image, measured = make_image()
    select(measured_image, MOSAIC)
    done(DEMOSAIC, measured_image, measured, **IN_PLACE)
    assert native(layer) != before
    values = [max(abs(a - b) for a, b in zip(floats(layer), floats(measured), strict=True))]
    assert values[0] < 0.1, values


@case
def linear_light_matters() -> None:
    results = []
    for linear in (False, True):
        image, layer = make_image()
        select(image, MOSAIC)
        done(DEMOSAIC, image, layer, linear_light=linear, **IN_PLACE)
        results.append(native(layer))
    assert results[0] != results[1]


@case
def strength_is_a_share() -> None:
    results = []
    for strength in (1.0, 0.5):
        image, layer = make_image(precision=precision("FLOAT_NON_LINEAR"), mosaic=False)
        old = floats(layer)
        done(DERAIN, image, layer, output="in-place", strength=strength)
        results.append(floats(layer))
    for before, full, half in zip(old, *results, strict=True):
        assert abs(half - (before + full) / 2) < FLOAT_STEP
    image, layer = make_image()
    assert "unchanged" in refused(DERAIN, image, layer, strength=0.0)


@case
def derain_keeps_what_is_not_selected() -> None:
    for output in ("in-place", "new-layer"):
        for name in ("U8_NON_LINEAR", "U16_LINEAR"):
            image, layer = make_image(precision=precision(name), alpha=True)
            select(image, SMALL, feather=4)
            before, selected = native(layer), selection(image, layer)
            made = done(DERAIN, image, layer, output=output)
            differ = changed(before, native(layer), pixel_bytes(layer))
            assert bool(differ) == (output == "in-place")
            assert all(selected[number] for number in differ)
            assert (made.get_id() == layer.get_id()) == (output == "in-place")


@case
def layer_masks_stay() -> None:
    """The mask is being edited, as after the last call: the layer is meant. What it hides stays hidden."""
    image, layer = make_image()
    mask = layer.create_mask(Gimp.AddMaskType.WHITE)
    layer.add_mask(mask)
    black = b"\x00" * (80 * HEIGHT)
    mask.get_buffer().set(Gegl.Rectangle.new(0, 0, 80, HEIGHT), "Y u8", black)  # the left half is hidden
    mask.update(0, 0, 80, HEIGHT)
    layer.set_edit_mask(True)
    before, shown = native(layer), native(mask)
    made = done(DEMOSAIC, image, mask, **QUICK)
    x, _, width, _ = sides(made)
    for number, value in enumerate(mask_of(made)):
        if x + number % width < 80:
            assert value == 0
    assert 255 in mask_of(made)
    assert (native(layer), native(mask)) == (before, shown)
    assert not made.get_edit_mask()
    done(DEMOSAIC, image, layer, **IN_PLACE)
    assert native(mask) == shown
    assert native(layer) != before


@case
def groups_and_others_are_refused() -> None:
    image, layer = make_image()
    group = Gimp.GroupLayer.new(image, "group")
    image.insert_layer(group, None, 0)
    inner = add_layer(image)
    image.reorder_item(inner, group, 0)
    assert "group" in refused(DEMOSAIC, image, group)
    assert "one layer" in refused(DEMOSAIC, image, [layer, inner])
    assert "one layer" in refused(DERAIN, image, [])
    channel = Gimp.Channel.new(image, "channel", WIDTH, HEIGHT, 50.0, Gegl.Color.new("red"))
    image.insert_channel(channel, None, 0)
    assert "channel" in refused(DERAIN, image, channel)
    layer.set_lock_content(True)
    assert "locked" in refused(DEMOSAIC, image, layer, **IN_PLACE)
    assert done(DEMOSAIC, image, layer, **QUICK).get_parent() is None
    made = done(DEMOSAIC, image, inner, **QUICK)  # a layer in a group gets its repair into the group
    assert made.get_parent().get_id() == group.get_id()
    group.set_lock_content(True)
    assert "locked" in refused(DEMOSAIC, image, inner, **IN_PLACE)


@case
def floating_selections_are_refused() -> None:
    image, layer = make_image()
    select(image, SMALL)
    Gimp.edit_copy([layer])
    Gimp.edit_paste(layer, True)
    floating = image.get_floating_sel()
    if floating is not None:
        assert "floating" in refused(DEMOSAIC, image, floating)


@case
def text_stays_text() -> None:
    image, _ = make_image()
    font = Gimp.Font.get_by_name("Sans-serif") or Gimp.context_get_font()
    text = Gimp.TextLayer.new(image, "rain", font, 40.0, Gimp.Unit.pixel())
    image.insert_layer(text, None, 0)
    assert "text" in refused(DERAIN, image, text, output="in-place")
    assert done(DERAIN, image, text).get_name() == "De-rained"


@case
def indexed_images_are_refused() -> None:
    image, layer = make_image()
    image.convert_indexed(Gimp.ConvertDitherType.NONE, Gimp.ConvertPaletteType.GENERATE, 16, False, False, "")
    for procedure in (DEMOSAIC, DERAIN, FIND):
        outcome = call(procedure, image, layer)
        assert outcome.status.value_nick != "success", outcome
        assert outcome.text
    assert len(image.get_layers()) == 1


@case
def odd_selections() -> None:
    image, layer = make_image(offsets=(10, 10), canvas=(300, 300))
    select(image, (250, 250, 20, 20))
    assert "outside of the layer" in refused(DEMOSAIC, image, layer)
    assert "outside of the layer" in refused(DERAIN, image, layer, output="in-place")
    select(image, (20, 20, 1, 1))  # not in the mosaic
    assert "No mosaic was found in the selection" in refused(DEMOSAIC, image, layer)
    before = native(layer)
    select(image, (10 + MOSAIC[0] + 11, 10 + MOSAIC[1] + 11, 1, 1))  # in the mosaic
    outcome = call(DEMOSAIC, image, layer, **IN_PLACE)
    differ = changed(before, native(layer), 3)
    assert differ in ([], [(MOSAIC[1] + 11) * WIDTH + MOSAIC[0] + 11])
    assert (outcome.status.value_nick == "success") == bool(differ)
    before = native(layer)
    done(DERAIN, image, layer, output="in-place")
    assert len(changed(before, native(layer), 3)) <= 1
    Gimp.Selection.all(image)
    done(DERAIN, image, layer, output="in-place")


@case
def tiny_layers() -> None:
    image = Gimp.Image.new(1, 1, RGB)
    layer = Gimp.Layer.new(image, "one", 1, 1, Gimp.ImageType.RGB_IMAGE, 100.0, Gimp.LayerMode.NORMAL)
    image.insert_layer(layer, None, 0)
    layer.fill(Gimp.FillType.WHITE)
    refused(DEMOSAIC, image, layer)
    refused(FIND, image, layer)
    outcome = call(DERAIN, image, layer, output="in-place")
    assert outcome.status.value_nick == "success" or len(outcome.text) > 20


@case
def unknown_values_are_refused() -> None:
    image, layer = make_image()
    found = Gimp.get_pdb().lookup_procedure(DEMOSAIC)
    config = found.create_config()
    config.set_property("method", "wishful")
    assert config.get_property("method") != "wishful"
    config.set_property("image", image)
    config.set_core_object_array("drawables", [layer])
    assert found.run(config).index(0).value_nick == "success"


@case
def values_out_of_range_stay() -> None:
    """Float layers hold more than 0 to 1: outside the mosaic it stays, inside it does no harm."""
    image, layer = make_image(precision=precision("FLOAT_NON_LINEAR"))
    from array import array

    strange = array("f", [float("nan"), 7.5, -3.0] * 16)
    layer.get_buffer().set(Gegl.Rectangle.new(0, 0, 4, 4), in_space("R'G'B' float", layer), strange.tobytes())
    layer.get_buffer().set(Gegl.Rectangle.new(70, 60, 4, 4), in_space("R'G'B' float", layer), strange.tobytes())
    before = native(layer)
    select(image, MOSAIC)
    done(DEMOSAIC, image, layer, measure=False, block_size=8.0, **IN_PLACE)
    differ = changed(before, native(layer), 12)
    assert differ
    assert within(differ, MOSAIC)


def run() -> None:
    run_cases("cases")
