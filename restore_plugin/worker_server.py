"""The worker's side of docs/worker.md: connections, pixel files and jobs in one asyncio loop. Loads nothing heavy;
what restores (worker_jobs) is imported by its threads.
"""

from __future__ import annotations

import asyncio
import hmac
import importlib
import itertools
import logging
import os
import shutil
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_plugin.errors import InputError, OutputError, RestoreError
from restore_plugin.worker_client import HELLO_SECONDS, LONGEST_MESSAGE, PROTOCOL, Message
from restore_plugin.worker_messages import (
    LARGEST_ID,
    MOST_BUFFERS,
    MOST_CONNECTIONS,
    MOST_JOBS,
    Area,
    Busy,
    Cancelled,
    FindRequest,
    Malformed,
    NoAccess,
    RestoreRequest,
    WrongVersion,
    capabilities,
    decode,
    encode,
    error_reply,
    find_request,
    identity_of,
    number,
    restore_request,
    shown,
)

if TYPE_CHECKING:
    from restore_plugin.worker_jobs import Job

HEARTBEAT_SECONDS, LOOK_SECONDS = 1.0, 5.0
MOST_UNREAD = 8 << 20  # bytes of replies that a client has not taken; then it is given up
LARGEST_SAMPLES = 17  # bytes a pixel: RGBA in f32, and a mask
INSTALLED = ("__init__.py", "worker_server.py", "worker_jobs.py", "catalog.py")

logger = logging.getLogger("restore_plugin.worker")


@dataclass(frozen=True)
class Settings:
    """Of a worker. `idle_seconds` 0: it stays."""

    directory: Path
    idle_seconds: float = 900.0
    jobs: int = 2  # at once
    most_pixels: int = 200_000_000
    token: str = ""  # over TCP


@dataclass
class Buffer:
    path: Path
    size: int
    users: int = 0


@dataclass
class Task:
    """A job, and the pool's promise of its result."""

    job: Job
    result: Future[Message]

    def cancel(self) -> None:
        self.job.cancel()
        self.result.cancel()  # where it has not begun


def installation() -> tuple[tuple[int, int], ...]:
    """Changes when the package is upgraded under a running worker, whose modules would then no longer fit together."""
    folder = Path(__file__).parent
    try:
        return tuple((at.st_mtime_ns, at.st_size) for at in (os.stat(folder / name) for name in INSTALLED))
    except OSError:
        return ()


class Server:
    """Answers connections until it is told to leave, or has been idle."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connections: set[Connection] = set()
        self.tasks: set[Task] = set()
        self.pool = ThreadPoolExecutor(settings.jobs, "job")
        self.kept: Any = None  # worker_jobs.Kept, once that is imported
        self.begun = self.used = time.monotonic()
        self.installed = installation()
        self.names = itertools.count(1)
        self.leaving = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def serve(self, listening: socket.socket, ready: Callable[[], None], still_there: Callable[[], bool]) -> None:
        """Returns when it has left. `still_there`: whether clients can find the socket."""
        loop = asyncio.get_running_loop()
        start = asyncio.start_unix_server if listening.family != socket.AF_INET else asyncio.start_server
        self._server = await start(self._meet, sock=listening, limit=LONGEST_MESSAGE)
        ready()
        warm = loop.run_in_executor(None, importlib.import_module, "restore_plugin.worker_jobs")
        warm.add_done_callback(lambda done: done.exception())  # the first job meets it again, and tells its client
        look = min(LOOK_SECONDS, self.settings.idle_seconds / 4 or LOOK_SECONDS)
        while not self.leaving.is_set():
            try:
                await asyncio.wait_for(self.leaving.wait(), look)
            except TimeoutError:
                if not still_there() and not self.connections:
                    logger.info("the socket is gone, so nobody can reach this worker")
                    break
                if self.idle():
                    logger.info("idle for %g s", self.settings.idle_seconds)
                    break
        self.leaving.set()
        self._server.close()
        while self.tasks:
            await asyncio.sleep(0.05)
        for connection in list(self.connections):
            connection.close()
        self.pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.sleep(0)  # lets the connections go

    def idle(self) -> bool:
        if self.connections or self.tasks:
            self.used = time.monotonic()
        idle = self.settings.idle_seconds
        return idle > 0 and time.monotonic() - self.used > idle

    def leave(self, now: bool = False) -> None:
        """No new connections and jobs; those that are there are finished, or cancelled."""
        self.leaving.set()
        if now:
            for task in list(self.tasks):
                task.cancel()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, writer)
        self.connections.add(connection)
        try:
            connection.admit()
            await connection.listen(reader)
        except RestoreError as error:
            connection.send(error_reply(None, error))
        except OSError as error:
            logger.info("connection lost: %s", error)
        except Exception:
            logger.exception("a connection failed")
        finally:
            self.used = time.monotonic()
            self.connections.discard(connection)
            connection.close()

    def work(self, job: Job, request: RestoreRequest | FindRequest) -> Message:
        """In a thread of the pool."""
        from restore_plugin import worker_jobs

        worker_jobs.NOW.job = job
        try:
            job.check()
            if isinstance(request, RestoreRequest):
                return worker_jobs.restore(request, job, self.kept)
            return worker_jobs.find(request, job, self.kept)
        finally:
            worker_jobs.NOW.job = None


class Connection:
    """One client."""

    def __init__(self, server: Server, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.buffers: dict[str, Buffer] = {}
        self.tasks: dict[int, Task] = {}
        self.name = "?"
        self._writer = writer
        self._greeted = self._may_quit = self._closed = False
        self._following: set[asyncio.Task[None]] = set()

    def admit(self) -> None:
        """Raises NoAccess for other users, where the system tells who it is."""
        sock = self._writer.get_extra_info("socket")
        if hasattr(socket, "SO_PEERCRED") and sock.family == socket.AF_UNIX:
            size = struct.calcsize("3i")
            _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            if user != os.geteuid():
                logger.warning("refused user %d", user)
                raise NoAccess(
                    "this restore worker belongs to another user; start your own: restore-plugin worker start"
                )
        if self.server.leaving.is_set() or len(self.server.connections) > MOST_CONNECTIONS:
            raise Busy("the restore worker takes no more connections now; try again later")

    async def listen(self, reader: asyncio.StreamReader) -> None:
        while not self._closed:
            try:
                line = await asyncio.wait_for(reader.readline(), None if self._greeted else HELLO_SECONDS)
            except TimeoutError:
                raise Malformed(f"expected hello within {HELLO_SECONDS:g} seconds") from None
            except ValueError:
                raise Malformed(f"expected messages of at most {LONGEST_MESSAGE} bytes, got a longer one") from None
            if not line.endswith(b"\n"):  # closed; half a message is none
                return
            message = decode(line)
            identity: int | None = None
            try:
                identity = identity_of(message)
                if identity in self.tasks:
                    raise Malformed(f"a request with the id {identity} is under way; count on")
                answer = await self._answer(identity, message)
            except NoAccess:
                raise
            except Exception as error:
                if not isinstance(error, RestoreError | MemoryError):
                    logger.exception("a request failed")
                extra = {"protocol": PROTOCOL, "version": capabilities(0)["version"]}
                self.send({**error_reply(identity, error), **(extra if isinstance(error, WrongVersion) else {})})
            else:
                if answer is not None:
                    self.send({"id": identity, "reply": "done", **answer})
                if message["request"] == "quit":
                    self.server.leave(message.get("now") is True)

    async def _answer(self, identity: int, message: Message) -> Message | None:
        """What `done` says; None: that comes later."""
        request = message.get("request")
        if request == "hello":
            return self._hello(message)
        if request == "quit" and (self._greeted or self._may_quit):
            logger.info("%r said quit", self.name)
            return {}
        if not self._greeted:
            raise Malformed(f"expected hello, got {shown(request)}")
        if request == "buffer":
            return await self._make_buffer(message)
        if request == "release":
            return self._release(message)
        if request == "cancel":
            task = self.tasks.get(number(message, "job", 0, LARGEST_ID))
            if task:
                task.cancel()
            return {"found": task is not None}
        if request == "status":
            return self._status()
        if request in ("restore", "find"):
            await self._begin(identity, message)
            return None
        raise Malformed(f"expected a request that docs/worker.md knows, got {shown(request)}")

    def _hello(self, message: Message) -> Message:
        settings = self.server.settings
        token = message.get("token")
        if settings.token and not hmac.compare_digest(str(token).encode("utf-8", "replace"), settings.token.encode()):
            logger.warning("refused a wrong token")
            raise NoAccess("wrong token: read it from worker.json in the worker's directory")
        self.name = str(message.get("client"))[:100]
        self._may_quit = True
        if message.get("protocol") != PROTOCOL:
            asked = shown(message.get("protocol"))
            raise WrongVersion(
                f"this restore worker speaks protocol {PROTOCOL}, {self.name or 'the client'} asked for {asked}; update "
                "the older of the two"
            )
        if installation() != self.server.installed:
            raise WrongVersion(
                "restore-plugin was changed since this worker started; stop it: restore-plugin worker stop"
            )
        self._greeted = True
        return {"pid": os.getpid(), "log": str(settings.directory / "worker.log"), **capabilities(settings.most_pixels)}

    async def _make_buffer(self, message: Message) -> Message:
        size = number(message, "bytes", 1, self.server.settings.most_pixels * LARGEST_SAMPLES)
        if len(self.buffers) >= MOST_BUFFERS:
            raise Busy(f"a connection may hold {MOST_BUFFERS} buffers; release some")
        name = f"b{next(self.server.names)}"
        path = self.server.settings.directory / "pixels" / f"{os.getpid()}-{name}"
        await asyncio.to_thread(set_aside, path, size)
        if self._closed:
            remove(path)
        self.buffers[name] = Buffer(path, size)
        return {"buffer": name, "path": str(path)}

    def _release(self, message: Message) -> Message:
        name = message.get("buffer")
        buffer = self.buffers.get(name) if isinstance(name, str) else None
        if buffer is None:
            raise InputError(f"expected the name of a buffer of this connection, got {shown(name)}")
        if buffer.users:
            raise Busy("a job is using this buffer; cancel it, or wait")
        del self.buffers[name]  # type: ignore[arg-type]
        remove(buffer.path)
        return {}

    def _status(self) -> Message:
        server = self.server
        running = sum(task.result.running() for task in server.tasks)
        every = [buffer for connection in server.connections for buffer in connection.buffers.values()]
        return {
            "version": capabilities(0)["version"],
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - server.begun, 1),
            "running": running,
            "waiting": len(server.tasks) - running,
            "connections": len(server.connections),
            "buffers": len(every),
            "bytes": sum(buffer.size for buffer in every),
            "loaded": server.kept.loaded() if server.kept else [],
            "log": str(server.settings.directory / "worker.log"),
        }

    async def _begin(self, identity: int, message: Message) -> None:
        server, most = self.server, self.server.settings.most_pixels
        if server.leaving.is_set() or len(server.tasks) >= MOST_JOBS:
            raise Busy("the restore worker has too much to do, or is about to leave; try again later")
        request = await asyncio.to_thread(  # the engines' names are checked, which imports
            restore_request if message["request"] == "restore" else find_request, message, most
        )
        buffers = [self._buffer(area) for area in (request.pixels.area, request.mask) if area is not None]
        worker_jobs = await asyncio.to_thread(importlib.import_module, "restore_plugin.worker_jobs")
        if server.kept is None:
            server.kept = worker_jobs.Kept()
        loop, news = asyncio.get_running_loop(), News()

        def tell(share: float, text: str) -> None:
            if news.update(share, text):
                loop.call_soon_threadsafe(news.changed.set)

        job = worker_jobs.Job({name: buffer.path for name, buffer in self.buffers.items()}, tell)
        task = Task(job, server.pool.submit(server.work, job, request))
        self.tasks[identity] = task
        server.tasks.add(task)
        for buffer in buffers:
            buffer.users += 1
        pixels = request.pixels
        logger.info("%r: %s %dx%dx%d %s", self.name, message["request"], pixels.width, pixels.height, pixels.channels,
                    pixels.dtype)  # fmt: skip
        following = asyncio.create_task(self._follow(identity, task, news, buffers))
        self._following.add(following)  # or it might be collected
        following.add_done_callback(self._following.discard)
        if self._closed:
            task.cancel()

    def _buffer(self, area: Area) -> Buffer:
        buffer = self.buffers.get(area.buffer)
        if buffer is None:
            raise InputError(f"expected the name of a buffer of this connection, got {shown(area.buffer)}")
        if area.offset + area.size > buffer.size:
            raise InputError(
                f"expected {area.size} bytes from {area.offset} on in a buffer of {buffer.size}; make a larger one"
            )
        return buffer

    async def _follow(self, identity: int, task: Task, news: News, buffers: list[Buffer]) -> None:
        """Pass on what a job says, until its end."""
        result = asyncio.wrap_future(task.result)
        result.add_done_callback(lambda done: news.changed.set())
        begun = time.monotonic()
        while not result.done():
            self.send({"id": identity, "reply": "progress", "share": round(news.share, 4), "text": news.text})
            news.changed.clear()
            try:
                await asyncio.wait_for(news.changed.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                continue
        try:
            reply = {"id": identity, "reply": "done", **result.result()}
            end = "done"
        except (asyncio.CancelledError, Exception) as error:
            if isinstance(error, asyncio.CancelledError) or (self._closed and isinstance(error, OSError)):
                error = Cancelled()  # before it began; or its pixels went with the client
            elif not isinstance(error, RestoreError):
                logger.error("a job failed", exc_info=error)
            reply = error_reply(identity, error)
            end = f"{reply['kind']}: {reply['text']}"
        logger.info("%r: %.2f s: %s", self.name, time.monotonic() - begun, end)
        del self.tasks[identity]
        for buffer in buffers:
            buffer.users -= 1
        self.send(reply)
        self.server.used = time.monotonic()
        self.server.tasks.discard(task)

    def send(self, message: Message) -> None:
        if self._closed or self._writer.transport.is_closing():
            return
        self._writer.write(encode(message))
        if self._writer.transport.get_write_buffer_size() > MOST_UNREAD:
            logger.info("%r does not read its replies", self.name)
            self._writer.transport.abort()

    def close(self) -> None:
        """Drop the client's jobs, and remove its pixels."""
        if self._closed:
            return
        self._closed = True
        for task in self.tasks.values():
            task.cancel()
        for buffer in self.buffers.values():
            remove(buffer.path)
        self._writer.close()


class News:
    """What a job said last; small steps are not worth a message."""

    def __init__(self) -> None:
        self.share, self.text = 0.0, "waiting for other work to end"
        self.changed = asyncio.Event()
        self._said = -1.0

    def update(self, share: float, text: str) -> bool:
        worth = text != self.text or share >= self._said + 0.01
        self.share, self.text = max(self.share, min(share, 1.0)), text
        if worth:
            self._said = self.share
        return worth


def set_aside(path: Path, size: int) -> None:
    """A private file of that size. Raises OutputError where there is no room: better now than in the middle."""
    descriptor = -1
    try:
        if shutil.disk_usage(path.parent).free < size:
            raise OSError(0, "the disk is full")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.ftruncate(descriptor, size)
    except OSError as error:
        if descriptor >= 0:
            remove(path)
        raise OutputError(
            f"there is no room for {size / 1e6:.0f} MB of pixels in {path.parent}: {error.strerror}; mark a smaller "
            "place, make room, or set RESTORE_PLUGIN_RUNTIME to another folder"
        ) from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # Windows: still open somewhere; the next worker removes it
        logger.info("%s stays: %s", path.name, error)
