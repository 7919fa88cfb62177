"""The worker as a process: one for a user, detached, with a lock, a log and an end (docs/worker.md).

`restore-plugin worker start|run|status|stop` is its command line. What it says is in worker_server, what it does in
worker_jobs; nothing heavy is imported before there is work.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from restore_plugin.commands import add_actions
from restore_plugin.errors import InputError, OutputError, RestoreError
from restore_plugin.worker_client import START_SECONDS, WorkerError, check_directory, connect, default_directory, reach

SOCKET, ADDRESS, PIXELS = "worker.sock", "worker.json", "pixels"
LOCK, LOG = "worker.lock", "worker.log"
LOG_BYTES = 1_000_000  # a longer log is set aside at the next start
LONGEST_PATH = 103  # bytes of a Unix socket's path, on macOS; Linux takes four more
PREDECESSOR_SECONDS = START_SECONDS / 3  # one that leaves may take a while to finish
ANSWER_SECONDS = START_SECONDS * 2 / 3
NOT_RUNNING = "no restore worker is running"

logger = logging.getLogger("restore_plugin.worker")


class WorkerFailed(RestoreError):
    """The worker did not do what its command asked."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = code if 0 < code < 128 else 1


def add_commands(commands: Any) -> None:
    """Enter `worker` and what stands below it. `commands`: what argparse's add_subparsers returned."""
    summary = "the service for GIMP and other hosts: start it, stop it, ask how it is"
    actions = (
        ("start", start, "start it detached; returns when it answers"),
        ("run", run, "run it here, until Ctrl-C"),
        ("status", status, "what it is doing; exit code 1 where none runs"),
        ("stop", stop, "let it finish its work and leave"),
    )
    made = add_actions(commands, "worker", summary, actions)
    for action in made.values():
        action.add_argument("--directory", type=Path, default=default_directory(), help="default: %(default)s")
    for name in ("start", "run"):
        add = made[name].add_argument
        add("--idle-minutes", type=float, default=15.0, help="it leaves after so long without work; 0: it stays (15)")
        add("--jobs", type=int, default=2, help="done at once (2)")
        add("--max-megapixels", type=float, default=200.0, help="of one picture (200)")
        add("--tcp", action="store_true", help="loopback TCP with a token, as on Windows, instead of a Unix socket")
    made["run"].add_argument("--detached", action="store_true", help=argparse.SUPPRESS)  # for `start`
    made["status"].add_argument("--json", action="store_true", help="one JSON object on standard output")
    made["stop"].add_argument("--now", action="store_true", help="drop its work")


def check(options: argparse.Namespace) -> Path:
    """The directory, made where it is not there. Raises RestoreError."""
    if not (options.jobs >= 1 and options.idle_minutes >= 0 and 0 < options.max_megapixels <= 1e6):
        raise InputError("expected --jobs of at least 1, --idle-minutes of at least 0 and --max-megapixels above 0")
    folder = Path(os.path.abspath(options.directory))
    if unix(options) and len(os.fsencode(folder / SOCKET)) > LONGEST_PATH:
        raise InputError(f"{folder} is too long a name for a socket; choose another --directory, or pass --tcp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        check_directory(folder)
        (folder / PIXELS).mkdir(mode=0o700, exist_ok=True)
    except WorkerError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise OutputError(f"{folder} cannot be the worker's directory: {error.strerror}; choose another") from None
    return folder


def unix(options: argparse.Namespace) -> bool:
    return hasattr(socket, "AF_UNIX") and os.name != "nt" and not options.tcp


def answers(folder: Path) -> bool:
    try:
        connect(None, "restore-plugin worker", folder).close()
    except WorkerError as error:
        return error.kind == "version"  # it is there
    return True


def start(options: argparse.Namespace) -> int:
    """Start a worker that outlives us, and wait until it answers."""
    folder = check(options)
    try:
        connect(None, "restore-plugin worker start", folder).close()
        return 0
    except WorkerError as error:
        if error.kind == "version":
            stop(argparse.Namespace(directory=folder, now=False))
    # -P: not what lies in the current folder; the package is found where this process found it
    command = [sys.executable, "-P", "-m", "restore_plugin.cli", "worker", "run", "--detached"]
    command += ["--directory", str(folder), "--idle-minutes", str(options.idle_minutes), "--jobs", str(options.jobs)]
    command += ["--max-megapixels", str(options.max_megapixels), *(["--tcp"] if options.tcp else [])]
    log = folder / LOG
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
    with open(log, "ab", opener=private) as output:
        worker = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,  # why it could not start; later it goes to the log, too
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
            start_new_session=True,
            creationflags=getattr(subprocess, "DETACHED_PROCESS", 0)
            | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    assert worker.stderr is not None
    with worker.stderr:
        end = time.monotonic() + ANSWER_SECONDS
        while worker.poll() is None and not answers(folder):
            if time.monotonic() > end:
                worker.kill()
                worker.wait()
                raise WorkerFailed(f"it did not answer within {ANSWER_SECONDS:.0f} s; see {log}")
            time.sleep(0.02)
        if not worker.returncode:  # None: it runs; 0: another one does
            worker.returncode = 0  # nobody waits for it here, nor should be warned of that
            return 0
        said = worker.stderr.read().decode(errors="replace").strip().splitlines()
    text = said[-1].removeprefix("restore-plugin: ") if said else f"it ended with code {worker.returncode}; see {log}"
    raise WorkerFailed(text, worker.returncode)


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def run(options: argparse.Namespace) -> int:
    """Be the worker. Returns 0 at the end, at once where another one answers."""
    import asyncio

    folder = check(options)
    lock = Lock(folder)
    end = time.monotonic() + PREDECESSOR_SECONDS
    while not lock.take():
        if answers(folder):
            print(f"a restore worker runs already in {folder}", file=sys.stderr)
            return 0
        if time.monotonic() > end:
            how = f"restore-plugin worker stop --now --directory {folder}"
            raise WorkerFailed(f"another restore worker holds {folder} and does not answer; end it with: {how}")
        time.sleep(0.1)
    with lock:
        lock.sign()
        os.umask(0o077)
        from restore_plugin.worker_server import Server, Settings

        for old in (folder / PIXELS).iterdir():  # of workers that were killed
            with contextlib.suppress(OSError):
                old.unlink()
        token = "" if unix(options) else secrets.token_hex(16)
        listening, address = listen(folder, token)
        identity = os.stat(address).st_ino
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
        logger.setLevel(logging.INFO)
        faulthandler.enable()
        if options.detached:
            os.dup2(1, 2)  # what goes wrong from here on is for the log

        def still_there() -> bool:
            try:
                return os.stat(address).st_ino == identity
            except OSError:
                return False

        async def main() -> bool:
            most_pixels = round(options.max_megapixels * 1e6)
            server = Server(Settings(folder, options.idle_minutes * 60, options.jobs, most_pixels, token))
            leave_on_signals(server.leave)
            logger.info("worker %d listens in %s", os.getpid(), folder)
            return await server.serve(listening, still_there)

        finished = True
        try:
            finished = asyncio.run(main())
        except KeyboardInterrupt:  # where there are no signal handlers
            pass
        finally:
            if still_there():
                os.unlink(address)
        logger.info("worker %d leaves", os.getpid())
        if not finished:
            os._exit(1)  # a job that hangs in native code must not keep the process
    return 0


class Lock:
    """Held as long as the process lives, however it ends; the file holds its id. It stays: removing it would race."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()

    def take(self) -> bool:
        """Whether nobody else holds it."""
        self._file = open(self._path, "a+b", buffering=0, opener=private)  # noqa: SIM115 - held on to
        try:
            if sys.platform == "win32":
                import msvcrt

                self._file.seek(1 << 20)  # locked bytes cannot be read there; the id can
                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            return False
        return True

    def sign(self) -> None:
        assert self._file
        self._file.truncate(0)
        self._file.write(str(os.getpid()).encode())

    def holder(self) -> int:
        """The process that holds it; 0 where none does."""
        if not self._path.exists():
            return 0
        with self:
            return 0 if self.take() else int(self._path.read_bytes() or b"0")


def leave_on_signals(leave: Callable[[bool], None]) -> None:
    """SIGTERM and Ctrl-C drop the work."""
    import asyncio

    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(number, leave, True)


def listen(folder: Path, token: str) -> tuple[socket.socket, Path]:
    """A listening socket and the file that leads to it. Called with the lock held: what is there is stale."""
    for name in (SOCKET, ADDRESS):
        (folder / name).unlink(missing_ok=True)
    if not token:
        made, address = socket.socket(socket.AF_UNIX), folder / SOCKET
        made.bind(str(address))
        made.listen(64)
        return made, address
    # the protocol is named so that asyncio sends small messages at once
    made, address = socket.socket(socket.AF_INET, proto=socket.IPPROTO_TCP), folder / ADDRESS
    made.bind(("127.0.0.1", 0))
    made.listen(64)
    part = address.with_suffix(".part")  # under its name only when it is complete
    part.write_text(json.dumps({"port": made.getsockname()[1], "token": token}), encoding="utf-8")
    part.replace(address)
    return made, address


def status(options: argparse.Namespace) -> int:
    """Print what the worker says of itself."""
    try:
        with connect(None, "restore-plugin worker status", options.directory) as worker:
            told = {key: value for key, value in worker.status().items() if key not in ("id", "reply")}
    except WorkerError as error:
        if error.kind != "not_running":
            raise WorkerFailed(str(error), error.exit_code) from None
        print(json.dumps({"pid": None}) if options.json else NOT_RUNNING)
        return 1
    if options.json:
        print(json.dumps(told))
        return 0
    print(f"worker {told['pid']}, version {told['version']}, up for {told['uptime_seconds'] / 60:.0f} minutes")
    print(f"{told['running']} jobs running, {told['waiting']} waiting, {told['connections']} connections")
    print(f"loaded: {', '.join(told['loaded']) or 'nothing yet'}")
    print(f"log: {told['log']}")
    return 0


def stop(options: argparse.Namespace) -> int:
    """Ask the worker to leave and wait for it; with --now one that does not answer is killed."""
    folder = options.directory
    try:
        with reach(folder) as worker:
            try:
                worker.greet("restore-plugin worker stop")
            except WorkerError as error:
                if error.kind != "version":
                    raise
            worker.leave(options.now)
    except WorkerError as error:
        if error.kind not in ("silent", "not_running"):
            raise WorkerFailed(str(error), error.exit_code) from None
        holder = Lock(folder).holder()
        if not holder:
            print(NOT_RUNNING)
        elif options.now:
            os.kill(holder, getattr(signal, "SIGKILL", signal.SIGTERM))
        else:
            raise WorkerFailed(f"process {holder}, the restore worker, does not answer; --now ends it") from None
    return 0
