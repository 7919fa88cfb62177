"""Beside GIMP: what its user sees. tests/test_gimp_window.py runs these on one picture with a mosaic, in this order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress

from window import (
    FOLDER,
    RUNTIME,
    SCREEN,
    ask,
    choose,
    click,
    fingerprint,
    focus,
    key,
    layers,
    main,
    picture,
    run_in_gimp,
    shoot,
    titles,
    until,
    windows,
    worker_status,
)

CASES: dict[str, Callable[[], object]] = {}
LARGE = """
from gi.repository import Gimp, Gegl
image = Gimp.Image.new(6000, 4000, 0)
layer = Gimp.Layer.new(image, "large", 6000, 4000, 0, 100.0, Gimp.LayerMode.NORMAL)
image.insert_layer(layer, None, 0)
tile = bytes(range(256)) * 6000
for y in range(0, 4000, 80):
    layer.get_buffer().set(Gegl.Rectangle.new(0, y, 6000, 80), "R'G'B' u8", (tile[y:] + tile[:y])[:6000 * 80 * 3])
layer.update(0, 0, 6000, 4000)
Gimp.Display.new(image)
Gimp.displays_flush()
"""
FACE = """
from gi.repository import Gimp, Gio
Gimp.Display.new(Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path({path!r})))
Gimp.displays_flush()
"""
IN_PLACE = """
from gi.repository import Gimp
image = max(Gimp.get_images(), key=lambda each: each.get_id())
found = Gimp.get_pdb().lookup_procedure("plug-in-restore-demosaic")
config = found.create_config()
config.set_property("image", image)
config.set_core_object_array("drawables", image.get_selected_layers())
config.set_property("output", "in-place")
assert found.run(config).index(0).value_nick == "success"
Gimp.displays_flush()
"""
PATCH = "128, 342, 92, 92"  # sewn on the suit of the same photograph
# the button has no key; it stands at the right end of the status bar, which the layers may stand beside
CANCEL = ((1000, SCREEN[1] - 22), (1230, SCREEN[1] - 22))
IMAGE = "from gi.repository import Gimp\nimage = max(Gimp.get_images(), key=lambda each: each.get_id())\n"


def case(function: Callable[[], object]) -> Callable[[], object]:
    CASES[function.__name__] = function
    return function


def dialog(title: str) -> str:
    return str(until(f"the dialog {title}", lambda: windows(f"^{title}$"), 20)[0])


def undo() -> None:
    focus(picture())
    key("ctrl+z", pause=0.5)


def redo() -> None:
    focus(picture())
    key("ctrl+y", pause=0.5)


@case
def in_the_menu() -> None:
    focus(picture())
    key("alt+r")
    key("Up", "Right", pause=0.5)
    shoot("menu")
    key("Escape", "Escape", "Escape")


@case
def dialog_and_cancel() -> None:
    before = fingerprint()
    choose("m")
    focus(dialog("De-mosaic"))
    time.sleep(1)
    shoot("dialog")
    key("Escape")
    until("the dialog's end", lambda: not windows("^De-mosaic$"))
    assert fingerprint() == before
    assert not ask("image.is_dirty()")


@case
def run_undo_redo_repeat() -> None:
    before = fingerprint()
    choose("m")
    focus(dialog("De-mosaic"))
    key("Return")
    until("the new layer", lambda: layers() == 2, 60)
    time.sleep(0.5)
    shoot("done")
    after = fingerprint()
    undo()
    assert layers() == 1
    assert fingerprint() == before
    assert not ask("image.is_dirty()")  # so it was one step
    redo()
    assert fingerprint() == after
    undo()
    key("ctrl+f")  # repeats it without the dialog
    until("the new layer", lambda: layers() == 2, 60)
    assert fingerprint() == after
    assert not windows("^De-mosaic$")
    undo()
    assert fingerprint() == before


def in_place_undone_and_redone() -> None:
    """One step each way. The picture is left as it was."""
    before = fingerprint()
    run_in_gimp(IN_PLACE)
    after = fingerprint()
    assert after != before
    undo()
    assert fingerprint() == before
    redo()
    assert fingerprint() == after
    undo()
    assert fingerprint() == before


@case
def in_place_is_one_step() -> None:
    for precision in ("U8_NON_LINEAR", "U16_LINEAR"):
        run_in_gimp(
            f"{IMAGE}image.get_precision() == Gimp.Precision.{precision} or "
            f"image.convert_precision(Gimp.Precision.{precision})\n"
            "image.select_ellipse(Gimp.ChannelOps.REPLACE, 170, 60, 110, 130)\nGimp.Selection.feather(image, 9)"
        )
        in_place_undone_and_redone()
    undo()
    undo()


@case
def in_place_where_nothing_is_selected() -> None:
    """The plug-in selects for a moment: that must not be seen, nor be a step."""
    run_in_gimp(f"{IMAGE}Gimp.Selection.none(image)")
    in_place_undone_and_redone()


@case
def find_is_one_step() -> None:
    run_in_gimp(f"{IMAGE}image.select_rectangle(Gimp.ChannelOps.REPLACE, 5, 5, 30, 30)")
    before = fingerprint()
    choose("f")
    focus(dialog("Find Mosaics"))
    key("Return")
    until("the selection", lambda: fingerprint() != before, 60)
    shoot("found")
    undo()
    assert fingerprint() == before


@case
def error_box() -> object:
    """The corner is selected, and there is no mosaic in it."""
    before = fingerprint()
    choose("m")
    focus(dialog("De-mosaic"))
    key("Return")
    time.sleep(4)
    shoot("error")
    told = titles()
    key("Escape")
    time.sleep(0.5)
    assert fingerprint() == before
    assert layers() == 1
    return told


def started_and_cancelled(mnemonic: str, title: str, shown: str, seconds: float = 3) -> float:
    """How many seconds it took until the worker let go of it."""
    before = ask("image.get_layers()[0].get_id()")
    assert worker_status()["running"] == 0
    choose(mnemonic)
    focus(dialog(title))
    key("Return")
    until("the worker to be at work", lambda: worker_status()["running"] == 1, 60)
    time.sleep(seconds)
    focus(picture())
    shoot(shown)
    begun = time.monotonic()
    for place in CANCEL:
        click(*place)
        with suppress(AssertionError):
            until("the worker to have dropped the job", lambda: worker_status()["running"] == 0, 12)
            break
    dropped = time.monotonic() - begun
    shoot("cancelled")
    assert layers() == 1
    assert ask("image.get_layers()[0].get_id()") == before
    assert not [title for title in titles() if "Message" in title]
    status = worker_status()
    assert (status["buffers"], status["bytes"]) == (0, 0)
    assert list((RUNTIME / "pixels").iterdir()) == []
    assert dropped < 24, dropped
    return dropped


@case
def progress_and_cancel() -> float:
    run_in_gimp(LARGE)
    time.sleep(2)
    assert ask("image.get_width()") == 6000
    dropped = started_and_cancelled("r", "De-rain", "progress")
    choose("r")  # the plug-in works on
    dialog("De-rain")
    key("Escape")
    return dropped


@case
def remove_object_is_one_step() -> object:
    run_in_gimp(FACE.format(path=str(FOLDER / "face.png")))
    time.sleep(1)
    choose("o")
    time.sleep(3)
    shoot("nothing-selected")
    told = titles()
    assert not windows("^Remove Object$"), told  # that nothing is selected is said before anything is asked
    key("Escape")
    time.sleep(0.5)
    assert layers() == 1
    run_in_gimp(f"{IMAGE}image.select_ellipse(Gimp.ChannelOps.REPLACE, {PATCH})")
    before = fingerprint()
    choose("o")
    focus(dialog("Remove Object"))
    time.sleep(1)
    shoot("remove-dialog")
    key("Return")
    until("the new layer", lambda: layers() == 2, 120)
    time.sleep(0.5)
    shoot("removed")
    after = fingerprint()
    undo()
    assert layers() == 1
    assert fingerprint() == before
    redo()
    assert fingerprint() == after
    undo()
    return told


@case
def hide_faces_is_one_step() -> None:
    run_in_gimp(FACE.format(path=str(FOLDER / "face.png")))
    time.sleep(1)
    before = fingerprint()
    choose("h")
    focus(dialog("Hide Faces"))
    key("Return")
    until("the new layer", lambda: layers() == 2, 60)
    time.sleep(0.5)
    shoot("hidden")
    after = fingerprint()
    undo()
    assert layers() == 1
    assert fingerprint() == before
    redo()
    assert fingerprint() == after
    undo()
    choose("a")
    focus(dialog("Find Faces"))
    key("Return")
    until("the selection", lambda: fingerprint() != before, 60)
    undo()
    assert fingerprint() == before


@case
def cancel_in_the_middle_of_a_hole() -> float:
    """The worker has loaded the method before, so it is at no network then but fills."""
    run_in_gimp(LARGE)
    time.sleep(2)
    run_in_gimp(f"{IMAGE}image.select_rectangle(Gimp.ChannelOps.REPLACE, 2000, 1000, 900, 900)")
    return started_and_cancelled("o", "Remove Object", "progress-hole", 8)


if __name__ == "__main__":
    main(CASES, "window_cases", *sys.argv[1:])
