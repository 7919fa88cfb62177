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
import logging.handlers
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from restore_plugin.errors import InputError, OutputError, RestoreError
from restore_plugin.worker_client import START_SECONDS, WorkerError, check_directory, connect, default_directory

LOG_BYTES = 1_000_000
LONGEST_PATH = 103  # bytes of a Unix socket's path, on macOS; Linux takes four more
READY = "ready"
GRACE_SECONDS = 10.0  # for jobs to notice that they are cancelled
NOT_RUNNING = "no restore worker is running"

logger = logging.getLogger("restore_plugin.worker")


def add_commands(commands: Any) -> None:
    """Enter `worker` and what stands below it. `commands`: what argparse's add_subparsers returned."""
    summary = "the service for GIMP and other hosts: start it, stop it, ask how it is"
    own = commands.add_parser("worker", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    add_actions(own)


def add_actions(parser: argparse.ArgumentParser) -> None:
    below = parser.add_subparsers(metavar="ACTION", required=True)
    for name, command, text in (
        ("start", start, "start it detached; returns when it answers"),
        ("run", run, "run it here, until Ctrl-C"),
        ("status", status, "what it is doing; exit code 1 where none runs"),
        ("stop", stop, "let it finish its work and leave"),
    ):
        made = below.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        made.add_argument("--directory", type=Path, default=default_directory(), help="default: %(default)s")
        made.set_defaults(command=command)
        if name in ("start", "run"):
            add = made.add_argument
            add(
                "--idle-minutes",
                type=float,
                default=15.0,
                help="it leaves after so long without work; 0: it stays (15)",
            )
            add("--jobs", type=int, default=2, help="done at once (2)")
            add("--max-megapixels", type=float, default=200.0, help="of one picture (200)")
            add(
                "--tcp", action="store_true", help="loopback TCP with a token, as on Windows, in place of a Unix socket"
            )
        elif name == "status":
            made.add_argument("--json", action="store_true", help="one JSON object on standard output")
        else:
            made.add_argument("--now", action="store_true", help="drop its work")


def check(options: argparse.Namespace) -> Path:
    """The directory, made where it is not there. Raises RestoreError."""
    if not (options.jobs >= 1 and options.idle_minutes >= 0 and 0 < options.max_megapixels <= 1e6):
        raise InputError("expected --jobs of at least 1, --idle-minutes of at least 0 and --max-megapixels above 0")
    folder = Path(os.path.abspath(options.directory))
    if unix(options) and len(os.fsencode(folder / "worker.sock")) > LONGEST_PATH:
        raise InputError(f"{folder} is too long a name for a socket; choose another --directory, or pass --tcp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        trusted(folder)
        (folder / "pixels").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be the worker's directory: {error.strerror}; choose another") from None
    return folder


def trusted(folder: Path) -> None:
    try:
        check_directory(folder)
    except WorkerError as error:
        raise InputError(str(error)) from None


def unix(options: argparse.Namespace) -> bool:
    return hasattr(socket, "AF_UNIX") and os.name != "nt" and not options.tcp


def start(options: argparse.Namespace) -> int:
    """Start a worker that outlives us, and wait until it answers."""
    folder = check(options)
    arguments = ["run", "--directory", str(folder), "--idle-minutes", str(options.idle_minutes)]
    arguments += ["--jobs", str(options.jobs), "--max-megapixels", str(options.max_megapixels)]
    # -P: not what lies in the current folder; the package is found where this process found it
    command = [sys.executable, "-P", "-m", "restore_plugin.worker", *arguments, *(["--tcp"] if options.tcp else [])]
    flags = getattr(subprocess, "DETACHED_PROCESS", 0) | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    package = str(Path(__file__).resolve().parent.parent)
    with open(folder / "worker.log", "ab") as log:
        worker = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # for one line; then it goes to the log
            stderr=log,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": package, "RESTORE_PLUGIN_DETACHED": "1"},
            start_new_session=True,
            creationflags=flags,
        )
    assert worker.stdout is not None
    with worker.stdout:
        said = worker.stdout.readline().decode(errors="replace").strip()
    if said == READY:
        worker.returncode = 0  # nobody waits for it here, nor should be warned of that
        return 0
    code = worker.wait()
    if code == 0:
        return 0  # another one answers
    raise WorkerFailed(said or f"it ended with code {code}; see {folder / 'worker.log'}", code)


class WorkerFailed(RestoreError):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code if 0 < code < 128 else 1


def run(options: argparse.Namespace) -> int:
    """Be the worker. Returns 0 at the end, at once where another one answers."""
    import asyncio

    from restore_plugin.worker_server import Server, Settings

    folder = check(options)
    os.umask(0o077)
    lock = Lock(folder / "worker.lock")
    end = time.monotonic() + START_SECONDS / 2
    while not lock.take():
        if answers(folder):
            print(f"a restore worker runs already in {folder}", file=sys.stderr)
            return 0
        if time.monotonic() > end:  # one that leaves may take a while to finish
            raise WorkerFailed(
                f"another restore worker holds {folder} and does not answer; end it: restore-plugin worker stop --now",
                1,
            )
        time.sleep(0.1)
    detached = os.environ.pop("RESTORE_PLUGIN_DETACHED", "") == "1"
    log = open_log(folder, detached)
    with log, lock:
        for old in (folder / "pixels").iterdir():  # of workers that were killed
            with contextlib.suppress(OSError):
                old.unlink()
        token = "" if unix(options) else secrets.token_hex(16)
        listening, address = listen(folder, token)
        identity = os.stat(address).st_ino
        settings = Settings(folder, options.idle_minutes * 60, options.jobs, round(options.max_megapixels * 1e6), token)

        def still_there() -> bool:
            try:
                return os.stat(address).st_ino == identity
            except OSError:
                return False

        def ready() -> None:
            logger.info("worker %d listens in %s", os.getpid(), folder)
            print(READY, flush=True)
            if detached:
                log.take_output()

        async def main() -> Server:
            server = Server(settings)
            interrupted = leave_on_signals(server.leave)
            await server.serve(listening, ready, still_there)
            if interrupted:
                logger.info("ended by a signal")
            return server

        try:
            asyncio.run(main())
        except KeyboardInterrupt:  # where there are no signal handlers
            pass
        finally:
            if still_there():
                os.unlink(address)
        logger.info("worker %d leaves", os.getpid())
    return 0


def leave_on_signals(leave: Callable[[bool], None]) -> list[int]:
    """SIGTERM and Ctrl-C drop the work and leave; one that hangs in its work is ended all the same."""
    import asyncio

    came: list[int] = []

    def come(number: int) -> None:
        came.append(number)
        leave(True)
        loop.call_later(GRACE_SECONDS, os._exit, 0)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, come, number)
    return came


def listen(folder: Path, token: str) -> tuple[socket.socket, Path]:
    """A listening socket and the file that leads to it. Called with the lock held: what is there is stale."""
    for name in ("worker.sock", "worker.json"):
        (folder / name).unlink(missing_ok=True)
    if not token:
        made, address = socket.socket(socket.AF_UNIX), folder / "worker.sock"
        made.bind(str(address))
        address.chmod(0o600)
    else:
        made, address = socket.socket(socket.AF_INET), folder / "worker.json"
        made.bind(("127.0.0.1", 0))
    made.listen(64)
    if token:  # under its name only when it is complete
        part = address.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(json.dumps({"port": made.getsockname()[1], "token": token}), encoding="utf-8")
        part.replace(address)
    return made, address


def answers(folder: Path) -> bool:
    try:
        connect(None, "restore-plugin worker", folder).close()
    except WorkerError as error:
        return error.kind == "version"  # it is there
    return True


def status(options: argparse.Namespace) -> int:
    """Print what the worker says of itself."""
    try:
        with connect(None, "restore-plugin worker status", options.directory) as worker:
            told = {key: value for key, value in worker.status().items() if key not in ("id", "reply")}
    except WorkerError as error:
        if error.kind != "not_running":
            raise WorkerFailed(str(error), error.exit_code) from None
        print(json.dumps({"running": False}) if options.json else NOT_RUNNING)
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
    try:
        with connect(None, "restore-plugin worker stop", options.directory) as worker:
            worker.leave(options.now)
    except WorkerError as error:
        if error.kind == "not_running":
            print(NOT_RUNNING)
        elif error.kind == "version":
            raise WorkerFailed(str(error), error.exit_code) from None
        elif not (options.now and error.kind == "silent" and kill(options.directory)):
            raise WorkerFailed(str(error), error.exit_code) from None
    return 0


def kill(folder: Path) -> bool:
    """End a worker that hangs, known by the lock that it holds."""
    lock = Lock(folder / "worker.lock")
    holder = lock.holder()
    if lock.take():
        lock.release()
        return False
    if holder:
        os.kill(holder, getattr(signal, "SIGKILL", signal.SIGTERM))
    return bool(holder)


class Lock:
    """Held as long as the process lives; the file holds its pid. It is not removed: that would race."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def take(self) -> bool:
        file = open(self._path, "a+b", buffering=0)  # noqa: SIM115 - held on to
        try:
            if sys.platform == "win32":
                import msvcrt

                file.seek(1 << 20)  # locked bytes cannot be read there; the pid can
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        self._file = file
        return True

    def release(self) -> None:
        if self._file:
            self._file.close()

    def holder(self) -> int:
        try:
            return int(self._path.read_bytes())
        except (OSError, ValueError):
            return 0


class Log(logging.handlers.RotatingFileHandler):
    """The worker's log. What libraries print by themselves goes there, too."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace")
        self._owns_output = False
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> Log:
        logger.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logger.removeHandler(self)
        self.close()

    def take_output(self) -> None:
        self._owns_output = True
        self._point()

    def doRollover(self) -> None:
        super().doRollover()
        if self._owns_output:
            self._point()

    def _point(self) -> None:
        """On Windows a file that is open elsewhere cannot be renamed, so there it goes nowhere."""
        stream = open(os.devnull, "ab") if os.name == "nt" else self.stream  # noqa: SIM115
        for number in (1, 2):
            os.dup2(stream.fileno(), number)


def open_log(folder: Path, detached: bool) -> Log:
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not detached:
        logger.addHandler(logging.StreamHandler())
    faulthandler.enable()
    return Log(folder / "worker.log")


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m restore_plugin.worker`; errors go to standard output, where `start` waits for a line."""
    parser = argparse.ArgumentParser("restore-plugin worker")
    add_actions(parser)
    options = parser.parse_args(argv)
    try:
        code: int = options.command(options)
    except RestoreError as error:
        print(" ".join(str(error).split()), flush=True)
        code = error.exit_code
    return code


if __name__ == "__main__":
    done = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(done)  # a job's thread that hangs in native code must not keep the process
