"""The worker's client (docs/worker.md): standard library only and of one file, so that any host can carry a copy."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PROTOCOL = 1
LONGEST_MESSAGE = 1 << 20  # bytes
SILENCE_SECONDS, HELLO_SECONDS, START_SECONDS, LEAVE_SECONDS = 30.0, 10.0, 60.0, 60.0
TICK_SECONDS = 0.1  # between two looks at `cancelled`
FOR_THE_HOST = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "GI_TYPELIB_PATH")  # not for the worker
SAMPLE_BYTES = {"u8": 1, "u16": 2, "f32": 4}

Progress = Callable[[float, str], object]
Asked = Callable[[], bool]
Message = dict[str, Any]


class WorkerError(Exception):
    """What a user should read. `kind`: as docs/worker.md lists them."""

    def __init__(self, kind: str, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.kind = kind
        self.exit_code = exit_code


class Cancelled(WorkerError):
    """As the host asked."""

    def __init__(self) -> None:
        super().__init__("cancelled", "cancelled", 130)


def default_directory() -> Path:
    """Where this user's worker is found."""
    if given := os.environ.get("RESTORE_PLUGIN_RUNTIME"):
        return Path(given)
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(given, "restore-plugin")
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home(), "restore-plugin", "run")
    return Path(tempfile.gettempdir(), f"restore-plugin-{os.geteuid()}")


def check_directory(folder: Path) -> None:
    """Raises WorkerError where somebody else could have made the directory, or may enter it."""
    status = os.lstat(folder)
    wrong = "is not a folder" if not stat.S_ISDIR(status.st_mode) else ""
    if hasattr(os, "geteuid") and not wrong:
        wrong = "belongs to another user" if status.st_uid != os.geteuid() else wrong
        wrong = "may be entered by other users" if status.st_mode & 0o077 else wrong
    if wrong:
        raise WorkerError(
            "access",
            f"{folder} {wrong}, so a restore worker there is not trusted; remove it, or choose another folder",
            4,
        )


def connect(
    command: Sequence[str] | None, client: str = "", directory: str | Path | None = None, start: bool = True
) -> Worker:
    """A connection to the user's worker, which is started where there is none (see docs/worker.md)."""
    folder = Path(directory) if directory else default_directory()
    may_start = bool(command) and start
    try:
        return _greeted(folder, client, replace=may_start)
    except WorkerError as error:
        if not (command and may_start) or error.kind not in ("not_running", "version", "died"):
            raise
    start_worker(command, folder)
    return _greeted(folder, client)


def _greeted(folder: Path, client: str, replace: bool = False) -> Worker:
    """Raises WorkerError. `replace`: a worker of another version is told to leave."""
    worker = reach(folder)
    try:
        worker.greet(client)
    except WorkerError as error:
        if replace and error.kind == "version":
            worker.leave()
        worker.close()
        raise
    return worker


def start_worker(command: Sequence[str], folder: Path) -> None:
    """Returns when it answers. Raises WorkerError with what kept it from starting."""
    environment = {name: value for name, value in os.environ.items() if name not in FOR_THE_HOST}
    try:
        done = subprocess.run(
            [*command, "worker", "start", "--directory", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            timeout=START_SECONDS,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired:
        raise WorkerError("not_started", f"the restore worker did not start within {START_SECONDS:.0f} s") from None
    except OSError as error:
        why = f"{command[0]}: {error.strerror}; is restore-plugin still installed there?"
        raise WorkerError("not_started", f"the restore worker could not be started: {why}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise WorkerError("not_started", f"the restore worker did not start: {lines[-1]}", done.returncode)


def reach(folder: Path) -> Worker:
    """A connection that has to `greet`. Raises WorkerError."""
    token, sock = "", None
    try:
        check_directory(folder)
        if hasattr(socket, "AF_UNIX") and (folder / "worker.sock").exists():
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(HELLO_SECONDS)
            sock.connect(str(folder / "worker.sock"))
        else:
            address = json.loads((folder / "worker.json").read_bytes())
            token = str(address["token"])
            sock = socket.create_connection(("127.0.0.1", int(address["port"])), HELLO_SECONDS)
        return Worker(sock, folder, token)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if sock:
            sock.close()
        if isinstance(error, PermissionError):
            why = f"{folder} is not yours, so the restore worker there cannot be used"
            raise WorkerError("access", why, 4) from None
        if isinstance(error, TimeoutError):
            raise WorkerError("silent", f"the restore worker does not answer; see {folder / 'worker.log'}") from None
        why = "the restore worker is not running; start it with: restore-plugin worker start"
        raise WorkerError("not_running", why) from None


class Worker:
    """A connection; for one thread. Closing it drops what is under way.

    `silence_seconds`: after so long without a word from it, not even of progress, the worker is taken for hung.
    """

    def __init__(self, sock: socket.socket, folder: Path, token: str = "") -> None:
        self.folder = folder
        self.capabilities: Message = {}
        self.silence_seconds = HELLO_SECONDS
        self._socket, self._token = sock, token
        self._received = b""
        self._last_id = -1

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def greet(self, client: str) -> None:
        """Say hello. Raises WorkerError; one of the kind `version` will still `leave`."""
        hello = {"request": "hello", "protocol": PROTOCOL, "client": client, "token": self._token}
        self.capabilities = self.ask(hello)
        self.silence_seconds = SILENCE_SECONDS

    def picture(
        self, width: int, height: int, channels: int, dtype: str, pixels: bytes, mask: bytes | None = None
    ) -> Picture:
        """Pixels for the worker, until closed. `mask`: 0 = leave to 255 = restore, one byte a pixel."""
        return Picture(self, (width, height, channels), dtype, pixels, mask)

    def restore(
        self,
        picture: Picture,
        task: str,
        options: Mapping[str, Any] | None = None,
        regions: Sequence[Mapping[str, Any]] | None = None,
        progress: Progress | None = None,
        cancelled: Asked | None = None,
    ) -> Message:
        """Restore in place, with a task's default method, or with the method of that name."""
        known = any(row["name"] == task for row in self.capabilities["tasks"])
        request: Message = {"request": "restore", "task" if known else "method": task, "options": dict(options or {})}
        if regions is not None:
            request["regions"] = [dict(region) for region in regions]
        return self.ask({**request, **picture.described(picture.masked)}, progress, cancelled)

    def find(
        self,
        picture: Picture,
        finder: str,
        options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        cancelled: Asked | None = None,
    ) -> Message:
        """Find; where is written into the picture's mask."""
        request: Message = {"request": "find", "finder": finder, "options": dict(options or {})}
        return self.ask({**request, **picture.described(True)}, progress, cancelled)

    def status(self) -> Message:
        return self.ask({"request": "status"})

    def leave(self, now: bool = False, within: float = LEAVE_SECONDS) -> None:
        """Tell it to, and wait until it is gone. Raises WorkerError where it is not `within` so many seconds."""
        self.ask({"request": "quit", "now": now})
        end = time.monotonic() + within
        try:
            while time.monotonic() < end:
                self._next(end)
        except WorkerError as error:
            if error.kind == "died":
                return
        finally:
            self.close()
        raise WorkerError("busy", "the restore worker is still working; try again when it is done")

    def ask(
        self,
        request: Message,
        progress: Progress | None = None,
        cancelled: Asked | None = None,
    ) -> Message:
        """Send a request and wait for its end. Raises WorkerError."""
        identity = self._send(request)
        reply: Message = {}
        asked = over = False
        try:
            while not over:
                came = self._next(time.monotonic() + self.silence_seconds, None if asked else cancelled)
                if came is None:
                    asked = True
                    self._send({"request": "cancel", "job": identity})
                elif came.get("id") in (identity, None):
                    reply, over = came, came["reply"] in ("done", "error")
                    if progress and not (asked or over):
                        progress(float(reply["share"]), str(reply["text"]))
        except WorkerError:
            if asked:
                raise Cancelled from None
            raise
        finally:
            if not over:
                self.close()  # the job is dropped; a late answer would be taken for another request's
        if reply["reply"] == "done":
            return reply
        if reply.get("kind") == "cancelled":
            raise Cancelled
        raise WorkerError(str(reply.get("kind")), str(reply.get("text")), int(reply.get("exit_code", 1)))

    def _send(self, request: Message) -> int:
        self._last_id += 1
        line = json.dumps({"id": self._last_id, **request}, allow_nan=False).encode() + b"\n"
        if len(line) > LONGEST_MESSAGE:
            raise WorkerError("input", f"a request of {len(line)} bytes is too long for the restore worker", 2)
        try:
            self._socket.settimeout(SILENCE_SECONDS)
            self._socket.sendall(line)
        except OSError:
            pass  # why, or an answer that came before, is seen when receiving
        return self._last_id

    def _next(self, end: float, cancelled: Asked | None = None) -> Message | None:
        """The next reply; None where `cancelled` says so."""
        while b"\n" not in self._received:
            if cancelled and cancelled():
                return None
            left = end - time.monotonic()
            if left <= 0:
                raise WorkerError("silent", f"the restore worker does not answer; see {self.folder / 'worker.log'}")
            try:
                self._socket.settimeout(min(left, TICK_SECONDS))
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            if not data or len(self._received) > LONGEST_MESSAGE:
                raise WorkerError("died", f"the restore worker ended in the middle; see {self.folder / 'worker.log'}")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        try:
            reply = json.loads(line)
            if not isinstance(reply["reply"], str):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise WorkerError("protocol", "what answers is not the restore worker of this version", 2) from None
        return dict(reply)


class Picture:
    """Pixels in a file that the worker made; a mask's bytes follow them."""

    def __init__(
        self, worker: Worker, size: tuple[int, int, int], dtype: str, pixels: bytes, mask: bytes | None
    ) -> None:
        width, height, channels = size
        self._worker = worker
        self._pixels_bytes, self._mask_bytes = width * height * channels * SAMPLE_BYTES[dtype], width * height
        if len(pixels) != self._pixels_bytes or (mask is not None and len(mask) != self._mask_bytes):
            got = f"{len(pixels)} and {'no mask' if mask is None else len(mask)}"
            raise ValueError(f"expected {self._pixels_bytes} bytes of pixels and {self._mask_bytes} of mask, got {got}")
        self.masked = mask is not None
        self._format = {"width": width, "height": height, "channels": channels, "dtype": dtype}
        made = worker.ask({"request": "buffer", "bytes": self._pixels_bytes + self._mask_bytes})
        self.buffer, self._path = str(made["buffer"]), str(made["path"])
        try:
            with open(self._path, "r+b") as file:
                file.write(pixels)
                file.write(mask or b"")
        except OSError as error:
            self.close()
            raise WorkerError("output", f"the pixels could not be handed over: {error.strerror}", 5) from None

    def __enter__(self) -> Picture:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._worker._socket.fileno() >= 0:  # otherwise the worker has removed it already
            self._worker.ask({"request": "release", "buffer": self.buffer})

    def described(self, with_mask: bool) -> Message:
        place: Message = {"pixels": {"buffer": self.buffer, "offset": 0, **self._format}}
        return {**place, "mask": {"buffer": self.buffer, "offset": self._pixels_bytes}} if with_mask else place

    def pixels(self) -> bytes:
        return self._read(0, self._pixels_bytes)

    def mask(self) -> bytes:
        return self._read(self._pixels_bytes, self._mask_bytes)

    def _read(self, offset: int, size: int) -> bytes:
        try:
            with open(self._path, "rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise WorkerError("output", f"the result could not be read: {error.strerror}", 5) from None
        if len(data) != size:
            raise WorkerError("output", "the restore worker's pixel file was cut short", 5)
        return data
