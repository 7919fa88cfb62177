"""Inside GIMP: layers, masks, arguments, and what is refused (tests/test_gimp_procedures.py)."""

from __future__ import annotations

from bench import (
    BLOCK,
    DEMOSAIC,
    DERAIN,
    FIND,
    HEIGHT,
    IN_PLACE,
    MOSAIC,
    NEAR,
    QUICK,
    RGB,
    SMALL,
    WIDTH,
    add_layer,
    call,
    case,
    changed,
    done,
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

FLOAT_STEP = 1e-6


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
    assert within(differ, NEAR)


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
    outcome = call(DERAIN, image, layer, output="in-place")
    differ = changed(before, native(layer), 3)
    assert len(differ) <= 1
    assert (outcome.status.value_nick == "success") == bool(differ)  # one pixel may look dry
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
    run_cases("image_cases")
