"""The way to the worker (docs/worker.md), and its errors in a GIMP user's words."""

from __future__ import annotations

import importlib
import json
import math
import os
from pathlib import Path
from typing import Any

from gimp_plugin import VERSION
from gimp_plugin.problem import Problem
from gimp_plugin.table import Row

SETTINGS = "settings.json"  # written by `restore-plugin install-gimp`, beside the main file
SURROUNDINGS_PX = 320  # where the worker does not tell
AGAIN = "run 'restore-plugin install-gimp' in a terminal, and start GIMP again"
DOCTOR = "'restore-plugin doctor' in a terminal tells more"


def client() -> Any:
    """The worker's own client, a copy of which the installer put beside this file."""
    return importlib.import_module("gimp_plugin.worker_client")


def settings() -> dict[str, Any]:
    """What the installer noted; empty where that cannot be read."""
    path = Path(__file__).parent.parent / SETTINGS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def texts(key: str) -> list[str] | None:
    """A list of the settings; None where it is not there, or not of texts."""
    found = settings().get(key)
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


def command() -> list[str]:
    """How restore-plugin is started. Raises Problem where the installer has not been."""
    found = texts("command")
    if not found:
        raise Problem(f"The plug-in was not installed completely: {AGAIN}.")
    return found


def offers() -> list[str] | None:
    """The methods and finders that restore-plugin has; None where the installer did not say."""
    return texts("offers")


def confined() -> str | None:
    """The folder of the worker that the user starts, where GIMP may not start programs (Flatpak, Snap)."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.environ.get("FLATPAK_ID"):
        return f"{runtime}/app/{os.environ['FLATPAK_ID']}/restore-plugin"  # GIMP and the host both see this one
    if os.environ.get("SNAP_NAME"):
        return f"{runtime}/restore-plugin"
    return None


def connect() -> Any:
    """A connection to the worker, which is started if need be. Raises the client's WorkerError, or Problem."""
    how, folder = command(), os.environ.get("RESTORE_PLUGIN_RUNTIME") or confined()
    return client().connect(how, f"gimp-plugin {VERSION}", folder, start=confined() is None)


def surroundings_px(worker: Any, task: str, shorter_px: int) -> int:
    """How much picture the task wants to see around a place whose shorter side is so long."""
    told = worker.capabilities
    shares = {each["name"]: each.get("surroundings", 0.0) for each in told.get("tasks", ())}
    return max(int(told.get("surroundings_px", SURROUNDINGS_PX)), math.ceil(shares.get(task, 0.0) * shorter_px))


def sentence(kind: str, text: str, row: Row, selected: bool) -> str:
    """What is told for the client's error of that kind. `text`: the worker's own words."""
    text = text.strip().rstrip(".")
    told = {
        "nothing_found": row.nothing_found.format(where=" in the selection" if selected else " in the layer"),
        "not_started": f"The program that does the restoring did not start: {text}. {DOCTOR}.",
        "died": f"The program that does the restoring ended unexpectedly. Try again; if that does not help, {DOCTOR}. "
        f"({text})",
        "silent": f"The program that does the restoring no longer answers. 'restore-plugin worker stop --now' in a "
        f"terminal ends it; then try again. ({text})",
        "version": f"The plug-in and the restoring program belong to different versions: {AGAIN}.",
        "protocol": f"The plug-in and the restoring program do not understand each other: {AGAIN}. ({text})",
        "output": f"The pixels could not be handed to the program that does the restoring: there is not enough room on "
        f"the disk, or something else took them away. Free some room, and try again. ({text})",
        "busy": f"The program that does the restoring has too much to do at the moment. Try again later. ({text})",
        "cancelled": "Cancelled.",
    }
    if kind == "not_running" and (folder := confined()):
        return (
            "This GIMP may not start other programs. Start the restoring program yourself, in a terminal outside of "
            f"GIMP: restore-plugin worker start --idle-minutes 0 --directory {folder}"
        )
    return told.get(kind) or f"It did not work: {text}. The image is as it was."
