"""One call of a procedure: read the pixels, ask the worker, put the result into the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gi.repository import Gimp

from gimp_plugin import layers, pixels, rows, service
from gimp_plugin.pixels import Box, Format
from gimp_plugin.problem import Problem
from gimp_plugin.table import IN_PLACE, Row

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Settings:
    """What the user chose; each procedure has those that its row speaks of."""

    method: str = ""
    output: str = ""
    use_selection: bool = True
    measure: bool = True
    block_px: float = 0.0
    linear_light: bool = False
    strength: float = 1.0
    seed: int = 0
    operation: str = "replace"


@dataclass(frozen=True)
class Source:
    """`box`: the part of the layer that is sent; `selected`: the selection's own part, None where it does not count."""

    format: Format
    box: Box
    old: bytes
    selected: Box | None
    mask: bytes | None


def layer_of(image: Any, drawables: list[Any]) -> Any:
    """The layer to work on. Raises Problem for what cannot be worked on."""
    if image.get_base_type() == Gimp.ImageBaseType.INDEXED or (drawables and drawables[0].is_indexed()):
        raise Problem("This image has a palette. Choose Image > Mode > RGB first, then try again.")
    if len(drawables) != 1:
        raise Problem(f"Choose one layer in the Layers dialog: {len(drawables) or 'none'} are chosen.")
    drawable = drawables[0]
    if drawable.is_layer_mask():  # the mask is being edited; what it belongs to is meant
        drawable = Gimp.Layer.from_mask(drawable)
    if not drawable.is_layer():
        raise Problem("Choose a layer in the Layers dialog: a channel cannot be restored.")
    if drawable.is_group():
        raise Problem("This is a layer group. Choose a layer inside of it, or merge the group first.")
    if image.get_floating_sel() is not None:
        raise Problem("There is a floating selection. Anchor it first (Layer > Anchor Layer), then try again.")
    return drawable


def check_writable(layer: Any) -> None:
    """Raises Problem where a change in place would be lost or is not allowed."""
    parent = layer
    while parent is not None:
        if parent.get_lock_content():
            raise Problem("The layer's pixels are locked. Unlock them in the Layers dialog, or choose 'New layer'.")
        parent = parent.get_parent()
    for kind in ("text_layer", "link_layer", "vector_layer"):  # the latter two since GIMP 3.2
        if getattr(layer, f"is_{kind}", bool)():
            raise Problem(
                "This layer is made of text, paths or a linked file, which a change in place would lose. Choose "
                "'New layer', or discard that information first."
            )


def read_source(image: Any, layer: Any, use_selection: bool, margin_px: Callable[[int], int]) -> Source:
    """The layer's pixels, or the selected ones and their surroundings. Raises Problem where nothing is selected.

    `margin_px`: how much is sent around a place whose shorter side is so long (px).
    """
    size = layer.get_width(), layer.get_height()
    form = pixels.format_of(layer)
    box: Box = (0, 0, *size)
    selected = mask = None
    if use_selection and not Gimp.Selection.is_empty(image):
        there, *found = layer.mask_intersect()
        if not there:
            raise Problem("The selection lies outside of the layer. Select a part of the layer, or another layer.")
        selected = (found[0], found[1], found[2], found[3])
        box = rows.grow(selected, margin_px(min(selected[2:])), *size)
        mask = pixels.read_selection(image, layer, box)
        if not any(mask):
            raise Problem("Nothing of the layer is selected well enough to be changed. Select a part of it.")
    old = pixels.read(layer.get_buffer(), box, form.babl, form.pixel_bytes)
    return Source(form, box, old, selected, mask)


def restore(row: Row, image: Any, layer: Any, settings: Settings, progress: Progress) -> Any:
    """Returns the layer with the result. Raises Problem; then the image is as it was."""
    in_place = settings.output == IN_PLACE
    if in_place:
        check_writable(layer)
    if row.needs_selection and Gimp.Selection.is_empty(image):
        raise Problem(row.needs_selection)
    use_selection = settings.use_selection or bool(row.needs_selection)
    selected = use_selection and not Gimp.Selection.is_empty(image)
    error = service.client().WorkerError
    try:
        with service.connect() as worker:
            source = read_source(image, layer, use_selection, partial(service.surroundings_px, worker, row.task))
            form, (width, height) = source.format, source.box[2:]
            with worker.picture(width, height, form.channels, form.dtype, source.old, source.mask) as picture:
                changed = ask(worker, picture, row, settings, source, in_place, progress)
                new = picture.pixels()
    except error as failure:
        raise Problem(service.sentence(failure.kind, str(failure), row, selected)) from failure
    if in_place and source.selected is not None:  # GIMP merges, and keeps for undo, what is selected
        x, y, width, height = source.selected
        changed = (x - source.box[0], y - source.box[1], width, height)
    repair = layers.Repair(form, source.box, source.old, new, source.mask, changed)
    if in_place:
        layers.change_in_place(image, layer, repair)
        return layer
    return layers.add_layer(image, layer, repair, row.layer_name, row.searches)


def ask(
    worker: Any, picture: Any, row: Row, settings: Settings, source: Source, blend: bool, progress: Progress
) -> Box:
    """Let the worker restore the picture; returns what it changed. Raises its WorkerError, or Problem."""
    options: dict[str, Any] = {"blend": blend, "search": row.searches}
    if row.has_strength:
        options["strength"] = settings.strength
    if row.has_seed:
        options["seed"] = settings.seed
    if row.has_block:
        options["linear_light"] = settings.linear_light
        options["block"] = None if settings.measure else settings.block_px
    method = settings.method or row.task
    try:
        done = worker.restore(picture, method, options, progress=progress)
    except service.client().WorkerError as error:
        if error.kind != "nothing_found" or not row.searches or source.mask is None or settings.measure:
            raise
        # the user says that there is one, and how it was made: then the selection itself is taken for it
        done = worker.restore(picture, method, {**options, "search": False}, progress=progress)
    if done["changed"] is None:
        where = " in the selection" if source.mask is not None else " in the layer"
        raise Problem(row.nothing_found.format(where=where))
    x, y, width, height = done["changed"]
    return x, y, width, height


def find(row: Row, image: Any, layer: Any, settings: Settings, progress: Progress) -> int:
    """Make a selection of what is found; returns the number of places. Raises Problem; then it is as it was."""
    error = service.client().WorkerError
    try:
        with service.connect() as worker:
            source = read_source(image, layer, False, lambda shorter_px: 0)
            form, (width, height) = source.format, source.box[2:]
            empty = bytes(width * height)
            with worker.picture(width, height, form.channels, form.dtype, source.old, empty) as picture:
                found = len(worker.find(picture, row.finder, progress=progress)["regions"])
                mask = picture.mask()
    except error as failure:
        raise Problem(service.sentence(failure.kind, str(failure), row, False)) from failure
    if not found:
        raise Problem(row.nothing_found.format(where=" in the layer"))
    layers.select(image, layer, mask, settings.operation)
    return found
