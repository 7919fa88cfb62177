"""The worker's side of docs/worker.md: connections, pixel files and jobs, in one asyncio loop and a pool of threads."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import logging
import math
import os
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore_plugin import __version__, worker_jobs
from restore_plugin.errors import InputError, RestoreError
from restore_plugin.worker_client import HELLO_SECONDS, LONGEST_MESSAGE, PROTOCOL, Message
from restore_plugin.worker_jobs import Buffer
from restore_plugin.worker_messages import (
    LARGEST_ID,
    Area,
    Busy,
    Cancelled,
    Malformed,
    NoAccess,
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

MOST_BUFFERS, MOST_JOBS, MOST_CONNECTIONS = 16, 16, 32
TICK_SECONDS, HEARTBEAT_SECONDS, LOOK_SECONDS = 0.1, 1.0, 2.0
GRACE_SECONDS = 10.0  # for jobs to notice that they are cancelled
MOST_UNREAD = 8 << 20  # bytes of replies that a client has not taken; then it is given up
LARGEST_SAMPLES = 17  # bytes a pixel: RGBA in f32, and a mask

logger = logging.getLogger("restore_plugin.worker")


@dataclass(frozen=True)
class Settings:
    """Of a worker. `idle_seconds` 0: it stays. `jobs`: at once. `token`: over TCP."""

    directory: Path
    idle_seconds: float
    jobs: int
    most_pixels: int
    token: str = ""


@dataclass(eq=False)
class Task:
    """A job, and the pool's promise of its result."""

    job: worker_jobs.Job
    result: Future[Message]

    def cancel(self) -> None:
        self.job.cancel()
        self.result.cancel()  # where it has not begun


def installation() -> int:
    """Changes when the package is upgraded under a running worker, whose modules would then no longer fit together."""
    try:
        return os.stat(__file__).st_mtime_ns
    except OSError:
        return 0


class Server:
    """Answers connections until it is told to leave, or has been idle."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connections: set[Connection] = set()
        self.tasks: set[Task] = set()
        self.pool = ThreadPoolExecutor(settings.jobs, "job")
        self.kept = worker_jobs.Kept()
        self.begun = self.used = time.monotonic()
        self.installed = installation()
        self.names = itertools.count(1)
        self.leaving = asyncio.Event()
        self.patience = math.inf  # until when it waits for jobs

    async def serve(self, listening: socket.socket, still_there: Callable[[], bool]) -> bool:
        """Returns when it leaves: False where a job did not end though it was cancelled.

        `still_there`: whether clients can find the socket.
        """
        start = asyncio.start_unix_server if listening.family != socket.AF_INET else asyncio.start_server
        server = await start(self._meet, sock=listening, limit=LONGEST_MESSAGE)
        look = min(LOOK_SECONDS, self.settings.idle_seconds / 4 or LOOK_SECONDS)
        while not self.leaving.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.leaving.wait(), look)
            if self.connections or self.tasks:
                self.used = time.monotonic()
            elif not still_there():
                logger.info("the socket is gone, so nobody can reach this worker")
                self.leaving.set()
            elif 0 < self.settings.idle_seconds < time.monotonic() - self.used:
                logger.info("idle for %g s", self.settings.idle_seconds)
                self.leaving.set()
        server.close()
        while self.tasks and time.monotonic() < self.patience:
            await asyncio.sleep(TICK_SECONDS)
        for connection in list(self.connections):
            connection.close()
        self.pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.sleep(0)  # lets the connections go
        return not self.tasks

    def leave(self, now: bool = False) -> None:
        """No new connections and jobs; those that are there are finished, or cancelled."""
        self.leaving.set()
        if now:
            self.patience = min(self.patience, time.monotonic() + GRACE_SECONDS)
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
        """Until the client closes. Raises RestoreError where the connection cannot go on."""
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
                    identity = None  # an answer to it would be taken for the job's
                    raise Malformed("a request with this id is under way; count on")
                answer = await self._answer(identity, message)
            except NoAccess:
                raise
            except Exception as error:
                if not isinstance(error, RestoreError | MemoryError):
                    logger.exception("a request failed")
                known = {"protocol": PROTOCOL, "version": __version__} if isinstance(error, WrongVersion) else {}
                self.send({**error_reply(identity, error), **known})
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
        if request == "quit" and self._may_quit:
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
            self._begin(identity, message)
            return None
        raise Malformed(f"expected a request that docs/worker.md knows, got {shown(request)}")

    def _hello(self, message: Message) -> Message:
        settings = self.server.settings
        token = str(message.get("token")).encode("utf-8", "replace")
        if settings.token and not hmac.compare_digest(token, settings.token.encode()):
            logger.warning("refused a wrong token")
            raise NoAccess("wrong token: read it from worker.json in the worker's directory")
        self.name = str(message.get("client"))[:100]
        self._may_quit = True
        if message.get("protocol") != PROTOCOL:
            raise WrongVersion(
                f"this restore worker speaks protocol {PROTOCOL}, the client asked for "
                f"{shown(message.get('protocol'))}; update the older of the two"
            )
        if installation() != self.server.installed:
            raise WrongVersion(
                "restore-plugin was changed since this worker started; stop it: restore-plugin worker stop"
            )
        self._greeted = True
        return {
            **capabilities(),
            "pid": os.getpid(),
            "log": str(settings.directory / "worker.log"),
            "limits": {
                "message_bytes": LONGEST_MESSAGE,
                "pixels": settings.most_pixels,
                "buffers": MOST_BUFFERS,
                "jobs": MOST_JOBS,
            },
        }

    async def _make_buffer(self, message: Message) -> Message:
        size = number(message, "bytes", 1, self.server.settings.most_pixels * LARGEST_SAMPLES)
        if len(self.buffers) >= MOST_BUFFERS:
            raise Busy(f"a connection may hold {MOST_BUFFERS} buffers; release some")
        name = f"b{next(self.server.names)}"
        path = self.server.settings.directory / "pixels" / f"{os.getpid()}-{name}"
        self.buffers[name] = await asyncio.to_thread(Buffer, path, size)
        return {"buffer": name, "path": str(path)}

    def _release(self, message: Message) -> Message:
        name = message.get("buffer")
        buffer = self._buffer(name)
        if buffer.users:
            raise Busy("a job is using this buffer; cancel it, or wait")
        buffer.remove()
        self.buffers = {key: other for key, other in self.buffers.items() if other is not buffer}
        return {}

    def _status(self) -> Message:
        server = self.server
        running = sum(task.result.running() for task in server.tasks)
        every = [buffer for connection in server.connections for buffer in connection.buffers.values()]
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - server.begun, 1),
            "running": running,
            "waiting": len(server.tasks) - running,
            "connections": len(server.connections),
            "buffers": len(every),
            "bytes": sum(buffer.size for buffer in every),
            "loaded": server.kept.loaded(),
            "log": str(server.settings.directory / "worker.log"),
        }

    def _begin(self, identity: int, message: Message) -> None:
        server, name = self.server, message["request"]
        if server.leaving.is_set() or len(server.tasks) >= MOST_JOBS:
            raise Busy("the restore worker has too much to do, or is about to leave; try again later")
        read: Callable[[Message, int], Any] = restore_request if name == "restore" else find_request
        do: Callable[..., Message] = worker_jobs.restore if name == "restore" else worker_jobs.find
        request = read(message, server.settings.most_pixels)
        areas: list[Area] = [area for area in (request.pixels.area, request.mask) if area is not None]
        buffers = [self._buffer(area.buffer) for area in areas]
        for area, buffer in zip(areas, buffers, strict=True):
            if area.offset + area.size > buffer.size:
                raise InputError(
                    f"expected {area.size} bytes from {area.offset} on in a buffer of {buffer.size}; make a larger one"
                )
        job = worker_jobs.Job(dict(self.buffers))

        def work() -> Message:
            worker_jobs.NOW.job = job
            try:
                return do(request, job, server.kept)
            finally:
                worker_jobs.NOW.job = None

        task = Task(job, server.pool.submit(work))
        self.tasks[identity] = task
        server.tasks.add(task)
        for buffer in buffers:
            buffer.users += 1
        pixels = request.pixels
        size = f"{pixels.width}x{pixels.height}x{pixels.channels} {pixels.dtype}"
        logger.info("%r: %s %d, %s", self.name, name, identity, size)
        following = asyncio.create_task(self._follow(identity, task, buffers))
        self._following.add(following)  # or it might be collected
        following.add_done_callback(self._following.discard)

    def _buffer(self, name: object) -> Buffer:
        buffer = self.buffers.get(name) if isinstance(name, str) else None
        if buffer is None:
            raise InputError(f"expected the name of a buffer of this connection, got {shown(name)}")
        return buffer

    async def _follow(self, identity: int, task: Task, buffers: list[Buffer]) -> None:
        """Pass on what a job says, until its end."""
        result = asyncio.wrap_future(task.result)
        begun, said, told = time.monotonic(), (-1.0, ""), 0.0
        while not result.done():
            now = task.job.progress
            if now != said or time.monotonic() - told >= HEARTBEAT_SECONDS:
                said, told = now, time.monotonic()
                self.send({"id": identity, "reply": "progress", "share": round(now[0], 4), "text": now[1]})
            await asyncio.wait([result], timeout=TICK_SECONDS)
        try:
            reply = {"id": identity, "reply": "done", **result.result()}
        except (asyncio.CancelledError, Exception) as error:
            if isinstance(error, asyncio.CancelledError) or (self._closed and isinstance(error, OSError)):
                error = Cancelled()  # before it began; or its pixels went with the client
            elif not isinstance(error, RestoreError):
                logger.error("a job failed", exc_info=error)
            reply = error_reply(identity, error)
        end = reply.get("text", "done")
        logger.info("%r: %d took %.2f s: %s", self.name, identity, time.monotonic() - begun, end)
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
            buffer.remove()
        self._writer.close()
