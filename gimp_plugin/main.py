#!/usr/bin/env python3
"""Filters > Restore in GIMP 3: the procedures of the table. GIMP starts this file for each call."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import gi

gi.require_version("Babl", "0.1")
gi.require_version("Gegl", "0.4")
gi.require_version("Gimp", "3.0")
from gi.repository import Gimp, GLib, GObject  # noqa: E402

from gimp_plugin import service, table  # noqa: E402
from gimp_plugin.problem import Problem  # noqa: E402
from gimp_plugin.table import Row  # noqa: E402

FLAGS = GObject.ParamFlags.READWRITE
DEFECT = "Something went wrong inside the Restore plug-in ({}). The image is as it was. Please report this."


class RestorePlugin(Gimp.PlugIn):  # type: ignore[misc]  # gi has no types
    def do_set_i18n(self, name: str) -> bool:
        return False

    def do_query_procedures(self) -> list[str]:
        return [row.procedure for row in table.offered(service.offers())]

    def do_create_procedure(self, name: str) -> Any:
        row = next(row for row in table.offered(service.offers()) if row.procedure == name)
        made = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, run, row)
        made.set_image_types("RGB*, GRAY*")
        made.set_sensitivity_mask(Gimp.ProcedureSensitivityMask.DRAWABLE)
        made.set_menu_label(row.label)
        made.add_menu_path(table.MENU)
        made.set_documentation(row.blurb, row.help, None)
        made.set_attribution("restore-plugin", "restore-plugin", "2026")
        add_arguments(made, row)
        return made


def add_arguments(made: Any, row: Row) -> None:
    """What the dialog asks and scripts may give; GIMP remembers the last values."""
    if row.finder:
        add_choice(made, "operation", "_Selection", "What becomes of the selection", table.OPERATIONS)
        made.add_int_return_value("places", "Places", "How many were found", 0, GLib.MAXINT, 0, FLAGS)
        return
    add_choice(made, "method", "_Method", "How it is restored", row.methods)
    if row.has_block:
        made.add_boolean_argument("measure", "Measure the _blocks", "Find out how large the blocks are", True, FLAGS)
        made.add_double_argument("block-size", "Block si_ze", "Side of a block in pixels", 2.0, 512.0, 8.0, FLAGS)
        text = "The blocks were averaged in linear light, as GIMP's own Pixelize does"
        made.add_boolean_argument("linear-light", "Mosaic made with _GIMP", text, False, FLAGS)
    if row.has_strength:
        text = "How far from the old pixels (0) to the restored ones (1)"
        made.add_double_argument("strength", "S_trength", text, 0.0, 1.0, 1.0, FLAGS)
    if row.has_seed:
        made.add_int_argument("seed", "S_eed", "Another number, another fill", 0, GLib.MAXINT, 0, FLAGS)
    add_choice(made, "output", "_Put the result into", "Where the repair goes", table.OUTPUTS)
    if not row.needs_selection:
        text = "Only what is selected changes, and a new layer gets the selection as its mask"
        made.add_boolean_argument("use-selection", "_Use the selection as mask", text, True, FLAGS)
    made.add_layer_return_value("layer", "Layer", "The layer with the result", True, FLAGS)


def add_choice(made: Any, name: str, label: str, blurb: str, values: tuple[tuple[str, str, str], ...]) -> None:
    choice = Gimp.Choice.new()
    for number, (nick, text, help_text) in enumerate(values):
        choice.add(nick, number, text, help_text)
    made.add_choice_argument(name, label, blurb, choice, values[0][0], FLAGS)


def run(procedure: Any, run_mode: Any, image: Any, drawables: list[Any], config: Any, row: Row) -> Any:
    """What GIMP calls. Whatever goes wrong becomes an error with a sentence: never success after a failure."""
    try:
        return run_checked(procedure, run_mode, image, list(drawables), config, row)
    except Problem as problem:
        return failed(procedure, str(problem))
    except MemoryError:
        return failed(procedure, "There is not enough memory for this. Select a smaller part of the layer.")
    except Exception as error:
        traceback.print_exc()
        return failed(procedure, DEFECT.format(f"{type(error).__name__}: {error}"))


def run_checked(procedure: Any, run_mode: Any, image: Any, drawables: list[Any], config: Any, row: Row) -> Any:
    from gimp_plugin import job

    layer = job.layer_of(image, drawables)
    if row.needs_selection and Gimp.Selection.is_empty(image):
        raise Problem(row.needs_selection)
    service.command()  # not after the user has filled in the dialog
    if run_mode == Gimp.RunMode.INTERACTIVE:
        from gimp_plugin import dialog

        if not dialog.ask(procedure, config, row, image):
            return procedure.new_return_values(Gimp.PDBStatusType.CANCEL, None)
    Gimp.progress_init(row.doing)
    settings = settings_of(procedure, config)
    if row.finder:
        result: Any = job.find(row, image, layer, settings, tell_progress(row))
    else:
        result = job.restore(row, image, layer, settings, tell_progress(row))
    Gimp.progress_update(1.0)
    Gimp.displays_flush()
    values = procedure.new_return_values(Gimp.PDBStatusType.SUCCESS, None)
    values.remove(1)
    if row.finder:
        values.insert(1, GObject.Value(GObject.TYPE_INT, result))
    else:
        values.insert(1, GObject.Value(Gimp.Layer, result))
    return values


def tell_progress(row: Row) -> Any:
    def tell(share: float, text: str) -> None:
        Gimp.progress_set_text(f"{row.doing}: {text}")
        Gimp.progress_update(share)

    return tell


def settings_of(procedure: Any, config: Any) -> Any:
    from gimp_plugin.job import Settings

    given, names = ("run-mode", "image", "drawables"), {"block-size": "block_px"}
    own = [each.name for each in procedure.get_arguments() if each.name not in given]
    values = {names.get(name, name.replace("-", "_")): config.get_property(name) for name in own}
    return Settings(**values)


def failed(procedure: Any, text: str) -> Any:
    domain = GLib.quark_to_string(Gimp.PlugIn.error_quark())
    return procedure.new_return_values(Gimp.PDBStatusType.EXECUTION_ERROR, GLib.Error(text, domain, 0))


if __name__ == "__main__":
    Gimp.main(RestorePlugin.__gtype__, sys.argv)
