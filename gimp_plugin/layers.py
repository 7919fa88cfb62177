"""What happens to the image: each change is one undo step, and begins only when the result is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from gi.repository import Gegl, Gimp

from gimp_plugin import pixels, rows
from gimp_plugin.pixels import Box, Format


@dataclass(frozen=True)
class Repair:
    """Restored pixels of `box` (in the layer's coordinates), beside those that were sent.

    `mask`: the selection over the box, or None. `changed`: the part of the box (in the box's own coordinates) that
    holds all that was restored.
    """

    format: Format
    box: Box
    old: bytes
    new: bytes
    mask: bytes | None
    changed: Box

    @property
    def place(self) -> Box:
        """`changed`, in the layer's coordinates."""
        x, y, width, height = self.changed
        return self.box[0] + x, self.box[1] + y, width, height

    def part(self, data: bytes, pixel_bytes: int) -> bytes:
        return rows.crop(data, self.box[2], pixel_bytes, self.changed)


@contextmanager
def one_undo_step(image: Any) -> Iterator[None]:
    image.undo_group_start()
    try:
        yield
    finally:
        image.undo_group_end()


def add_layer(image: Any, layer: Any, repair: Repair, name: str, sparse: bool) -> Any:
    """The repair as a new layer above `layer`; returns it.

    Its mask is what was selected, and what the old layer's mask shows. `sparse`: of the rest only what differs.
    """
    form, box = repair.format, repair.place
    width = box[2]
    new = repair.part(repair.new, form.pixel_bytes)
    mask = repair.part(repair.mask, 1) if repair.mask is not None else None
    if mask is None and sparse:
        flags = rows.differing(repair.part(repair.old, form.pixel_bytes), new, width, form.pixel_bytes)
        mask = rows.mask_of(flags, width)
    old_mask = layer.get_mask()
    if old_mask is not None and layer.get_apply_mask():
        shown = pixels.read_mask(old_mask, box)
        mask = shown if mask is None else rows.multiply(mask, shown, width)
    x, y = pixels.shifted(box, layer)[:2]
    with one_undo_step(image):
        made = Gimp.Layer.new(image, name, width, box[3], layer.type(), 100.0, Gimp.LayerMode.NORMAL)
        made.set_offsets(x, y)
        pixels.write(made.get_buffer(), (0, 0, width, box[3]), form.babl, new, form.pixel_bytes)
        image.insert_layer(made, layer.get_parent(), image.get_item_position(layer))
        if mask is not None:
            of_layer = made.create_mask(Gimp.AddMaskType.WHITE)
            made.add_mask(of_layer)
            pixels.write(of_layer.get_buffer(), (0, 0, width, box[3]), pixels.MASK, mask, 1)
            of_layer.update(0, 0, width, box[3])
            made.set_edit_mask(False)  # so that the next filter meets the layer and not its mask
        made.update(0, 0, width, box[3])
        image.set_selected_layers([made])
    return made


def change_in_place(image: Any, layer: Any, repair: Repair) -> None:
    """Write what differs, and leave all other bits of the layer alone.

    Merging GIMP's shadow buffer is the way to make an undo step, but its blending rounds the pixels outside the
    selection, too, in more than 8 bits; so the exact pixels are then written over it.
    """
    form, box = repair.format, repair.place
    new = repair.part(repair.new, form.pixel_bytes)
    final = new
    if not form.exact:
        old = repair.part(repair.old, form.pixel_bytes)
        whole = (0, 0, box[2], box[3])
        converter = Gegl.Buffer.new(form.native, *whole)
        pixels.write(converter, whole, form.babl, new, form.pixel_bytes)
        converted = pixels.read(converter, whole, form.native, form.native_bytes)
        kept = pixels.read(layer.get_buffer(), box, form.native, form.native_bytes)
        flags = rows.differing(old, new, box[2], form.pixel_bytes)
        final = rows.put_where(kept, converted, flags, box[2], form.native_bytes)
    # a selection that was used has just this box; another one, or none, must not cut the undo step short
    scope = nullcontext() if repair.mask is not None else only_selected(image, pixels.shifted(box, layer))
    with one_undo_step(image), scope:
        shadow = layer.get_shadow_buffer()
        pixels.write(shadow, box, form.native, final, form.native_bytes)
        layer.merge_shadow(True)
        pixels.write(layer.get_buffer(), box, form.native, final, form.native_bytes)
        layer.update(*box)


@contextmanager
def only_selected(image: Any, box: Box) -> Iterator[None]:
    """The box is selected, and nothing else, for a moment."""
    chosen = image.get_selected_layers()  # entering a channel deselects them
    saved = None if Gimp.Selection.is_empty(image) else Gimp.Selection.save(image)
    image.select_rectangle(Gimp.ChannelOps.REPLACE, *box)
    try:
        yield
    finally:
        if saved is None:
            Gimp.Selection.none(image)
        else:
            image.select_item(Gimp.ChannelOps.REPLACE, saved)
            image.remove_channel(saved)
            image.set_selected_layers(chosen)


def select(image: Any, layer: Any, mask: bytes, operation: str) -> None:
    """Combine the selection with a mask of the layer's size."""
    x, y = layer.get_offsets()[1:]
    chosen = image.get_selected_layers()  # entering a channel deselects them
    with one_undo_step(image):
        color = Gegl.Color.new("black")
        channel = Gimp.Channel.new(image, "found", image.get_width(), image.get_height(), 100.0, color)
        image.insert_channel(channel, None, 0)
        try:
            # what lies outside the image cannot be selected: GEGL cuts it off
            size = layer.get_width(), layer.get_height()
            pixels.write(channel.get_buffer(), (x, y, *size), pixels.MASK, mask, 1)
            channel.update(0, 0, image.get_width(), image.get_height())
            Gimp.context_push()
            Gimp.context_set_feather(False)
            image.select_item(getattr(Gimp.ChannelOps, operation.upper()), channel)
            Gimp.context_pop()
        finally:
            image.remove_channel(channel)
            image.set_selected_layers(chosen)
