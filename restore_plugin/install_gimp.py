"""`restore-plugin install-gimp`: puts the plug-in into every GIMP 3 profile of this user, and takes it out again."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_plugin import __version__, catalog
from restore_plugin.errors import InputError, NothingFound, OutputError, RestoreError

NAME = "restore-plugin"  # of the folder and of the main file in it: GIMP wants them alike
MAIN_FILE, CLIENT = "main.py", "worker_client.py"
SETTINGS = "settings.json"  # the plug-in reads it; it also marks the folder as ours
SERIES = re.compile(r"3\.\d+")
NORMAL, FLATPAK, SNAP = "GIMP", "GIMP from Flatpak", "GIMP from Snap"
MENU = "Filters > Restore"
TRY_SECONDS = 60


@dataclass(frozen=True)
class Profile:
    """Where a GIMP keeps what is its user's."""

    folder: Path
    kind: str = NORMAL

    @property
    def plug_in(self) -> Path:
        return self.folder / "plug-ins" / NAME


def places(environment: Mapping[str, str], home: Path, platform: str) -> list[tuple[Path, str, str]]:
    """(folder, pattern of what is in it, kind of GIMP), whether they are there or not. `platform`: sys.platform."""
    if platform == "win32":
        roaming = Path(environment.get("APPDATA") or home / "AppData/Roaming")
        local = Path(environment.get("LOCALAPPDATA") or home / "AppData/Local")
        store = "*GIMP*/LocalCache/Roaming/GIMP/*"  # from Microsoft's store; it sees a copy of AppData
        return [(roaming / "GIMP", "*", NORMAL), (local / "Packages", store, NORMAL)]
    if platform == "darwin":
        return [(home / "Library/Application Support/GIMP", "*", NORMAL)]
    return [
        (Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "GIMP", "*", NORMAL),
        (home / ".var/app", "org.gimp.GIMP*/config/GIMP/*", FLATPAK),
        (home / "snap/gimp/current/.config/GIMP", "*", SNAP),
    ]


def profiles(
    environment: Mapping[str, str] | None = None, home: Path | None = None, platform: str = ""
) -> list[Profile]:
    """Every GIMP 3 profile of this user."""
    environment = os.environ if environment is None else environment
    found: dict[Path, Profile] = {}  # a Flatpak's may be a link to the usual one
    if given := environment.get("GIMP3_DIRECTORY"):
        found[Path(given).resolve()] = Profile(Path(given))
    for folder, pattern, kind in places(environment, home or Path.home(), platform or sys.platform):
        for path in sorted(folder.glob(pattern)):
            if SERIES.fullmatch(path.name) and path.is_dir():
                found.setdefault(path.resolve(), Profile(path, kind))
    return list(found.values())


def own_command() -> list[str]:
    """How GIMP's plug-in starts this program, wherever that is."""
    return [sys.executable, "-m", "restore_plugin.cli"]


def check_command(command: Sequence[str]) -> None:
    """Raises RestoreError where it does not start by itself, as it must for GIMP: this copy is not installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as elsewhere:
        try:
            done = subprocess.run(
                [*command, "--version"], cwd=elsewhere, env=environment, capture_output=True, timeout=TRY_SECONDS
            )
            wrong = done.returncode != 0
        except (OSError, subprocess.TimeoutExpired):
            wrong = True
    if wrong:
        raise RestoreError(f"{' '.join(command)} does not start outside of this folder; pip install this copy first")


def offers() -> list[str]:
    """The methods and finders whose networks are there: the plug-in offers these and no others."""
    rows = (*catalog.METHODS, *catalog.FINDERS)
    return [row.name for row in rows if row.weights is None or (catalog.WEIGHTS / row.weights).exists()]


def install(profile: Profile, command: Sequence[str]) -> Path:
    """Put this version's plug-in into a profile, in place of an older one; returns its folder. Raises OutputError."""
    package = Path(__file__).parent.parent / "gimp_plugin"
    target = profile.plug_in
    check_ours(target)
    part = profile.folder / f".{NAME}.part"  # GIMP looks into every folder of plug-ins/
    try:
        shutil.rmtree(part, ignore_errors=True)
        inner = part / package.name
        inner.mkdir(parents=True)
        for source in sorted(package.glob("*.py")):
            if source.name != MAIN_FILE:
                (inner / source.name).write_bytes(source.read_bytes())
        (inner / CLIENT).write_bytes((Path(__file__).parent / CLIENT).read_bytes())
        settings = {"version": __version__, "command": list(command), "offers": offers()}
        (part / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        main = part / f"{NAME}.py"
        main.write_bytes((package / MAIN_FILE).read_bytes())  # new, so that GIMP asks it again for its procedures
        main.chmod(0o755)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(f"could not write {error.filename or target}: {error.strerror}") from None
    return target


def uninstall(profile: Profile) -> bool:
    """True where there was something to remove. Raises OutputError."""
    target = profile.plug_in
    if not target.is_dir():
        return False
    check_ours(target)
    try:
        shutil.rmtree(target)
    except OSError as error:
        raise OutputError(f"could not remove {error.filename or target}: {error.strerror}") from None
    return True


def check_ours(target: Path) -> None:
    """Raises OutputError for a folder that this program did not make."""
    if target.is_symlink() or (target.exists() and not (target / SETTINGS).is_file()):
        raise OutputError(f"{target} was not made by restore-plugin install-gimp; move it away first")


def installed(profile: Profile) -> dict[str, Any] | None:
    """What the installer noted in a profile; None where the plug-in is not there, {} where its notes are unreadable."""
    if not profile.plug_in.is_dir():
        return None
    try:
        found = json.loads((profile.plug_in / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def advice(kind: str) -> str:
    """What a user of a GIMP that may not start programs has to do; empty for the others."""
    folder = {
        FLATPAK: '"$XDG_RUNTIME_DIR/app/org.gimp.GIMP/restore-plugin"',
        SNAP: '"$XDG_RUNTIME_DIR/snap.gimp/restore-plugin"',
    }.get(kind)
    return f"restore-plugin worker start --idle-minutes 0 --directory {folder}" if folder else ""


def add_command(commands: Any) -> None:
    """Enter `install-gimp`. `commands`: what argparse's add_subparsers returned."""
    summary = "put the plug-in into every GIMP 3 of this user"
    own = commands.add_parser("install-gimp", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    own.add_argument("--uninstall", action="store_true", help="take it out again")
    text = "a GIMP profile to use instead of those that are found; may be given again"
    own.add_argument("--profile", action="append", type=Path, default=[], metavar="FOLDER", help=text)
    own.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Do it for all profiles; says what was done. Raises RestoreError."""
    chosen = [Profile(folder.absolute()) for folder in options.profile] or profiles()
    for profile in chosen:
        if not profile.folder.is_dir():
            raise InputError(f"expected a GIMP profile, but {profile.folder} is no folder; start GIMP once to make it")
    if not chosen:
        raise NothingFound(
            "no profile of GIMP 3 was found; start GIMP 3 once (2.10 will not do), or name its folder with --profile "
            "(in GIMP: Edit > Preferences > Folders)"
        )
    if options.uninstall:
        for profile in chosen:
            did = "removed from" if uninstall(profile) else "was not in"
            print(f"{did} {profile.plug_in.parent}")
        return 0
    command = own_command()
    check_command(command)
    for profile in chosen:
        print(f"installed into {install(profile, command)} ({profile.kind})")
    print(f"Start GIMP again; the commands are under {MENU}.")
    for kind in dict.fromkeys(profile.kind for profile in chosen):
        if told := advice(kind):
            print(f"{kind} may not start programs. Before you use it there, run:\n  {told}")
    return 0
