"""The procedures' dialog: GIMP's own, so that it remembers, resets and looks as all others."""

from __future__ import annotations

from typing import Any

import gi

gi.require_version("GimpUi", "3.0")
from gi.repository import Gimp, GimpUi  # noqa: E402

from gimp_plugin.table import PLAUSIBLE, Row  # noqa: E402

LINE_CHARACTERS = 52


def ask(procedure: Any, config: Any, row: Row, image: Any) -> bool:
    """True where the user wants it; the choices are in `config`."""
    GimpUi.init(row.procedure)
    dialog = GimpUi.ProcedureDialog.new(procedure, config, row.label.replace("_", "").removesuffix("..."))
    names = [each.name for each in procedure.get_arguments() if each.name not in ("run-mode", "image", "drawables")]
    if row.has_block:
        dialog.set_sensitive("block-size", True, config, "measure", True)  # only where it is not measured
    if "use-selection" in names and Gimp.Selection.is_empty(image):
        dialog.set_sensitive("use-selection", False, None, None, False)
    if row.invents:
        label = dialog.get_label("plausible", PLAUSIBLE, False, False)
        label.set_line_wrap(True)
        label.set_max_width_chars(LINE_CHARACTERS)
        label.set_xalign(0)
        names.append("plausible")
    dialog.fill(names)
    wanted = bool(dialog.run())
    dialog.destroy()
    return wanted
