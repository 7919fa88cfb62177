"""Building in a process of its own: a compiler that crashes or hangs is an error message, and its memory comes back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.base import one_line, out_of_memory
from engines.contract import EngineError, OutOfMemory, Profile, Target

BUILD_SECONDS = 1800.0
LOOK_SECONDS = 0.2  # how often for `stop`
START = "import sys; sys.path[:] = {path!r}; from engines.building import child; child()"
FAILED = 3  # exit code: the reason stands in the result
KILLED = {-9, 137}  # as Linux ends a process when memory is short


@dataclass(frozen=True)
class Order:
    """What the child is told: which class builds what for whom, and where the result goes."""

    module: str
    type: str
    onnx: str
    target: dict[str, Any]
    result: str


def build_apart(
    module: str,
    type_: str,
    onnx: Path,
    target: Target,
    seconds: float = BUILD_SECONDS,
    stop: threading.Event | None = None,
) -> bytes:
    """What `Backend.build` returns. Raises EngineError within about `seconds`, OutOfMemory where memory was short.

    `stop`, set by another thread, ends the build with an EngineError.
    """
    with tempfile.TemporaryDirectory(prefix="restore-plugin-", ignore_cleanup_errors=True) as folder:
        result, said = Path(folder, "result"), Path(folder, "stderr")
        order = Order(module, type_, str(onnx.absolute()), asdict(target), str(result))
        command = [sys.executable, "-c", START.format(path=sys.path)]
        with said.open("wb") as stderr:
            # a session of its own, so that the whole of it can be ended, and Ctrl-C is left to us
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # it ended at once, and said why
                    process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
                    process.stdin.flush()  # and stays open: when we are gone the child sees its end
                code = wait(process, seconds, stop)
            finally:
                end(process)
        if code is None:
            why = "was stopped" if stop and stop.is_set() else f"took more than {seconds:g} s and was ended"
            raise EngineError(f"{what(order)} {why}")
        if code == 0:
            return result.read_bytes()
        if code == FAILED:
            told = json.loads(result.read_text())
            raise (OutOfMemory if told["memory"] else EngineError)(told["message"])
        lines = [line.strip() for line in said.read_text(errors="replace").splitlines() if line.strip()]
        why = f": {lines[-1][:300]}" if lines else ""
        if code in KILLED:
            raise OutOfMemory(f"{what(order)} was ended by the system, as it does when memory is short{why}")
        raise EngineError(f"{what(order)} crashed ({how(code)}){why}")


def wait(process: subprocess.Popen[bytes], seconds: float, stop: threading.Event | None) -> int | None:
    """The exit code; None where the time is over or it should stop."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not (stop and stop.is_set()):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(left, LOOK_SECONDS if stop else left))
    return None


def what(order: Order) -> str:
    return f"building {Path(order.onnx).name} with {order.type} in {order.target['precision']}"


def how(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def end(process: subprocess.Popen[bytes]) -> None:
    """The child and what it started, if anything of them still runs."""
    if process.poll() is None:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.wait()
    if process.stdin:
        with contextlib.suppress(OSError):
            process.stdin.close()


def child() -> None:
    """In the child: build what standard input says. Never returns where its parent is gone."""
    import importlib

    order = Order(**json.loads(sys.stdin.readline()))

    def until_parent_is_gone() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=until_parent_is_gone, daemon=True).start()
    code = 0
    try:
        backend = getattr(importlib.import_module(order.module), order.type)()
        Path(order.result).write_bytes(backend.build(Path(order.onnx), target_of(order.target)))
    except Exception as error:
        memory = isinstance(error, OutOfMemory) or out_of_memory(error)
        if isinstance(error, EngineError):
            message = one_line(error)
        else:
            message = f"{what(order)} " + ("ran out of memory" if memory else f"failed: {one_line(error)}")
        Path(order.result).write_text(json.dumps({"memory": memory, "message": message}))
        code = FAILED
    sys.stderr.flush()
    os._exit(code)  # a compiler's own threads and destructors are not waited for


def target_of(told: dict[str, Any]) -> Target:
    """Back from JSON, which knows no tuples."""
    profile = told["profile"]
    if profile is not None:
        shapes = ((name, *map(tuple, sizes)) for name, sizes in profile["shapes"])
        profile = Profile(tuple((name, (low, usual, high)) for name, low, usual, high in shapes))
    options = tuple((name, value) for name, value in told["options"])
    return Target(told["device"], told["precision"], profile, tuple(told["compute"]), options)
