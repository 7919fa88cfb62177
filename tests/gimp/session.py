"""A real GIMP 3 for the tests: found, given a profile with the plug-in in it, and driven without a window.

`GIMP_ROOT` names a folder with a whole system, as `.ci/gimp-root` makes it (this needs root). Each GIMP then runs
inside of it, in a mount namespace of its own, so that all mounts vanish with it; the worker, which needs this Python
and its packages, steps outside again. Without `GIMP_ROOT` it is the `gimp-console` of this system.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import restore_plugin
from restore_plugin.install_gimp import Profile, install

HERE = Path(__file__).resolve().parent
PACKAGE = Path(restore_plugin.__file__).resolve().parent.parent
PLUG_INS = ("python-eval", "script-fu", "script-fu-server", "file-png")  # all others only take time to start
PYTHON = (sys.executable, "-c")
WORKER = f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); from restore_plugin.cli import main; sys.exit(main())"
OUTSIDE = "/host"  # where this system is found inside of GIMP's
MOUNT = """
set -e
root=$1 folders=$2
shift 2
mkdir -p "$root/host"
mount --make-rprivate /
mount --rbind / "$root/host"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
for path in $folders; do
    mkdir -p "$root$path"
    mount --rbind "$path" "$root$path"
done
exec /usr/sbin/chroot "$root" "$@"
"""


class NoGimp(Exception):
    """Why there is none."""


@dataclass(frozen=True)
class Host:
    """`root`: the folder with the whole system; None: this one."""

    root: Path | None
    version: str  # 3.0.4
    plug_ins: Path  # that GIMP brings, as seen by it

    @property
    def inside(self) -> Path:
        return self.root or Path("/")

    @property
    def leave(self) -> tuple[str, ...]:
        """Put before a command, it runs outside again: the worker, with this Python and its packages."""
        return ("/usr/sbin/chroot", OUTSIDE) if self.root else ()

    def path(self, path: Path) -> str:
        """Where GIMP finds a file of this system."""
        return f"{OUTSIDE}{path}" if self.root else str(path)

    def command(self, arguments: list[str], folders: list[Path]) -> list[str]:
        """`arguments`, run beside GIMP; `folders` (without blanks in their names) are there under their own names."""
        if self.root is None:
            return arguments
        return ["unshare", "-m", "bash", "-c", MOUNT, "-", str(self.root), " ".join(map(str, folders)), *arguments]


def find() -> Host:
    """Raises NoGimp."""
    given = os.environ.get("GIMP_ROOT")
    root = Path(given) if given else None
    if root and not (root / "usr/bin/gimp-console").exists():
        raise NoGimp(f"GIMP_ROOT={root} holds no GIMP; .ci/gimp-root makes one")
    if root is None and not shutil.which("gimp-console"):
        raise NoGimp("no GIMP here; .ci/gimp-root makes one, and GIMP_ROOT says where")
    enter = ["chroot", str(root)] if root else []
    said = subprocess.run([*enter, "gimp-console", "--version"], capture_output=True, text=True, timeout=60).stdout
    version = re.search(r"version (3\.\d+\.\d+)", said)
    if not version:
        raise NoGimp(f"expected GIMP 3, got {said.strip() or 'nothing'}")
    inside = root or Path("/")
    folders = [*inside.glob("usr/lib/*/gimp/3.*/plug-ins"), *inside.glob("usr/lib/gimp/3.*/plug-ins")]
    if not folders:
        raise NoGimp("GIMP's own plug-ins were not found")
    return Host(root, version[1], Path("/") / folders[0].relative_to(inside))


@dataclass
class Session:
    """A profile of its own in `folder`, with the plug-in, and a place of its own for the worker.

    `folder` must have a short name: a socket lies in it.
    """

    host: Host
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    mounted: tuple[Path, ...] = ()  # folders that GIMP sees beside its own

    def __post_init__(self) -> None:
        self.profile = Profile(self.folder / "profile")
        self.runtime = self.folder / "run"
        only = self.profile.folder / "only"
        only.mkdir(parents=True)
        (self.profile.folder / "plug-ins").mkdir()
        for name in PLUG_INS:
            (only / name).symlink_to(self.host.plug_ins / name)
        lines = [
            f'(plug-in-path "{only}:{self.profile.folder}/plug-ins")',
            f'(config-version "{self.host.version}")',  # no welcome
            "(show-welcome-dialog no)",
            "(check-updates no)",
        ]
        (self.profile.folder / "gimprc").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if not self.host.version.startswith("3.0."):  # where all would be in one window, with the layers beside it
            (self.profile.folder / "sessionrc").write_text("(single-window-mode yes)\n", encoding="utf-8")
        install(self.profile, self.worker)

    @property
    def worker(self) -> list[str]:
        """The command that the plug-in starts."""
        return [*self.host.leave, *PYTHON, WORKER]

    @property
    def variables(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "GIMP3_DIRECTORY": str(self.profile.folder),
            "RESTORE_PLUGIN_RUNTIME": str(self.runtime),
            "RESTORE_TEST_FOLDER": str(self.folder),
            "RESTORE_TEST_WORKER": json.dumps(self.worker),
            "RESTORE_TEST_FAKE": json.dumps([*self.host.leave, sys.executable, str(HERE / "fake_worker.py")]),
            "RESTORE_TEST_OUTSIDE": json.dumps(self.host.leave),
            **self.environment,
        }

    def command(self, arguments: list[str]) -> list[str]:
        given = [f"{name}={value}" for name, value in self.variables.items()]
        return self.host.command(["env", "-i", *given, *arguments], [self.folder, *self.mounted])

    def batch(self, interpreter: str, *code: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """GIMP without a window runs `code`, and ends. Returns its exit code and what it printed."""
        lines = [part for each in code for part in ("-b", each)]
        arguments = ["gimp-console", "-id", "--batch-interpreter", interpreter, *lines, "--quit"]
        return subprocess.run(
            self.command(arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )

    def python(self, code: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        return self.batch("python-fu-eval", code, seconds=seconds)

    def scheme(self, *code: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        return self.batch("plug-in-script-fu-eval", *code, seconds=seconds)

    def cases(self, file: str, seconds: float = 500) -> dict[str, Any]:
        """Run every case of a file beside this one; returns for each what it returned, or {"error": traceback}."""
        done = self.python(
            f"import sys; sys.path.insert(0, {self.host.path(HERE)!r}); import {file}; {file}.run()", seconds
        )
        return self._told(file, done)

    def window(self, file: str, *pictures: Path, seconds: float = 500) -> dict[str, Any]:
        """Run a file beside this one that drives GIMP's window; returns what it wrote, as `cases` does."""
        arguments = ["/usr/bin/python3", self.host.path(HERE / f"{file}.py"), *map(str, pictures)]
        done = subprocess.run(
            self.command(arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
        return self._told(file, done)

    def _told(self, file: str, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
        told = self.folder / f"{file}.json"
        if not told.exists():
            raise AssertionError(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        results: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
        return results

    def stop(self) -> None:
        """End the worker, if one runs."""
        arguments = ["worker", "stop", "--now", "--directory", str(self.runtime)]
        subprocess.run([*PYTHON, WORKER, *arguments], capture_output=True, timeout=60)
