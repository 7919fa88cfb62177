"""GIMP's window on a screen that nobody sees. Runs beside GIMP (in its root), on the standard library alone.

Windows are found by their titles and used by keys. What is on the screen is read from the X server's own memory file;
what is in the image is asked through GIMP's Script-Fu server, by Python that runs in GIMP.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SCREEN, TITLE_BAR = (1280, 800), 24
FOLDER = Path(os.environ["RESTORE_TEST_FOLDER"])
RUNTIME = Path(os.environ["RESTORE_PLUGIN_RUNTIME"])
WORKER: list[str] = json.loads(os.environ["RESTORE_TEST_WORKER"])
SERVER_PORT = 10008
ASK = """
import json
from gi.repository import Gimp
image = {image}
value = {expression}
open({path!r}, "w").write(json.dumps(value))
"""


def until(what: str, look: Callable[[], Any], seconds: float = 30.0, every: float = 0.1) -> Any:
    """The first thing that `look` gives that is not nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(every)
    raise AssertionError(f"waited {seconds:g} s for {what}; windows: {titles()}")


def tool(*arguments: str) -> str:
    return subprocess.run(["xdotool", *arguments], capture_output=True, text=True, timeout=30).stdout


def windows(pattern: str) -> list[str]:
    return tool("search", "--onlyvisible", "--name", pattern).split()


def titles() -> list[str]:
    return [tool("getwindowname", number).strip() for number in windows(".+")]


def focus(window: str) -> None:
    tool("windowactivate", "--sync", window)


def key(*names: str, pause: float = 0.15) -> None:
    for name in names:
        tool("key", "--clearmodifiers", name)
        time.sleep(pause)


def shoot(name: str) -> None:
    """Keep the screen, as an XWD file, for the host to look at."""
    time.sleep(0.3)
    (FOLDER / f"{name}.xwd").write_bytes((FOLDER / "screen" / "Xvfb_screen0").read_bytes())


def scheme(expression: str) -> str:
    """What GIMP's Script-Fu server answers."""
    with socket.create_connection(("127.0.0.1", SERVER_PORT), 60) as connection:
        data = expression.encode()
        connection.sendall(b"G" + struct.pack(">H", len(data)) + data)
        head = b""
        while len(head) < 4:
            head += connection.recv(4 - len(head)) or b"\x00" * 4
        size, answer = struct.unpack(">H", head[2:4])[0], b""
        while len(answer) < size:
            answer += connection.recv(size - len(answer))
        if head[1]:
            raise AssertionError(answer.decode(errors="replace"))
        return answer.decode(errors="replace")


def ask(expression: str) -> Any:
    """The value of a Python expression inside GIMP; `image` is the newest image there."""
    path = FOLDER / "answer.json"
    path.unlink(missing_ok=True)
    newest = "max(Gimp.get_images(), key=lambda each: each.get_id(), default=None)"
    code = ASK.format(image=newest, expression=expression, path=str(path))
    scheme(f"(python-fu-eval RUN-NONINTERACTIVE {json.dumps(code)})")
    return json.loads(path.read_text(encoding="utf-8"))


def run_in_gimp(code: str) -> None:
    scheme(f"(python-fu-eval RUN-NONINTERACTIVE {json.dumps(code)})")


def layers() -> int:
    return int(ask("len(image.get_layers())"))


def fingerprint() -> str:
    """Of all pixels, masks, offsets and the selection."""
    return str(
        ask(
            "__import__('hashlib').sha256(b''.join("
            "bytes(d.get_buffer().get(d.get_buffer().get_extent(), 1.0, None, 0)) + repr(d.get_offsets()).encode()"
            " for l in image.get_layers() for d in (l, l.get_mask(), image.get_selection()) if d)).hexdigest()"
        )
    )


def worker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*WORKER, "worker", *arguments, "--directory", str(RUNTIME)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def worker_status() -> dict[str, Any]:
    return json.loads(worker("status", "--json").stdout)


@contextlib.contextmanager
def started(command: list[str], log: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with open(FOLDER / log, "wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def gimp_window(*pictures: str) -> Iterator[None]:
    """A screen, a window manager, and GIMP on it with these pictures open."""
    (FOLDER / "screen").mkdir(exist_ok=True)
    display = ":47"
    size = f"{SCREEN[0]}x{SCREEN[1]}x24"
    screen = ["Xvfb", display, "-screen", "0", size, "-fbdir", str(FOLDER / "screen"), "-nolisten", "tcp"]
    os.environ["DISPLAY"] = display
    serve = f'(plug-in-script-fu-server RUN-NONINTERACTIVE "127.0.0.1" {SERVER_PORT} "")'
    gimp = ["gimp", "-s", "-d", "--batch-interpreter", "plug-in-script-fu-eval", "-b", serve, *pictures]
    with started(screen, "screen.log"):
        until("the screen", lambda: Path(f"/tmp/.X11-unix/X{display[1:]}").exists())
        with started(["openbox"], "openbox.log"), started(gimp, "gimp.log"):
            until("GIMP's window", lambda: windows("GIMP"), 90)

            def listens() -> bool:
                with contextlib.suppress(OSError):
                    return bool(scheme("(+ 1 1)"))
                return False

            until("GIMP's server", listens, 60)
            tool("windowmove", picture(), "0", "0")
            tool("windowsize", "--sync", picture(), str(SCREEN[0]), str(SCREEN[1] - TITLE_BAR))
            tool("mousemove", "620", "740")  # out of the way of tooltips
            time.sleep(1)
            yield


def picture() -> str:
    """The window with the images."""
    return str(until("the image's window", lambda: windows("GIMP built-in.* GIMP$"))[-1])


def click(x: int, y: int) -> None:
    tool("mousemove", str(x - 200), str(y - 200))  # a button that came up under the pointer hears no click
    time.sleep(0.2)
    tool("mousemove", "--sync", str(x), str(y), "click", "1")


def choose(mnemonic: str) -> None:
    """Run a command of Filters > Restore, which stands at the end of the menu, by its underlined letter."""
    focus(picture())
    time.sleep(0.3)
    key("alt+r")
    key("Up", "Right", mnemonic, pause=0.5)


def main(cases: dict[str, Callable[[], object]], name: str, *pictures: str) -> None:
    """Run the cases one after another in one GIMP, and write what came of them."""
    told: dict[str, Any] = {}
    try:
        with gimp_window(*pictures):
            for key_, function in cases.items():
                try:
                    told[key_] = {"returned": function()}
                except BaseException:
                    told[key_] = {"error": traceback.format_exc()}
                    shoot(f"failed-{key_}")
    except BaseException:
        told["window"] = {"error": traceback.format_exc()}
    part = FOLDER / f"{name}.part"
    part.write_text(json.dumps(told), encoding="utf-8")
    part.rename(FOLDER / f"{name}.json")
    sys.stdout.flush()
