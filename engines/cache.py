"""Built engines on disk: used only where nothing has changed that could change the answer, and never when damaged.

A file is a line of magic, a line with the SHA-256 of all that follows, a line of JSON (what it was made from, when, how
long it took, how it answered its check), and what the backend built. Its name holds the key: the SHA-256 over the
network, the backend, the machine and the target. Two processes that want the same engine build it once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from engines.base import one_line
from engines.contract import Backend, EngineError, OutOfMemory, Target

MAGIC = b"restore-plugin engine, format 1\n"
SUFFIX, BAD, LOCK = ".engine", ".bad", ".lock"
HELPERS = (".timing", ".kernels")  # what compilers put beside their engines to be faster the next time
KEPT_BAD = 3  # files set aside, for whoever wants to know what went wrong
FOLDER = "RESTORE_PLUGIN_CACHE"

Ready = TypeVar("Ready")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Key:
    """Everything that could change what an engine answers."""

    network: str  # file name, for people
    facts: dict[str, Any]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()

    @property
    def file_name(self) -> str:
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", Path(self.network).stem)[:40]
        precision = self.facts["target"]["precision"]
        return f"{stem}.{self.facts['backend']}.{precision}.{self.digest[:32]}{SUFFIX}"


def key_of(onnx: Path, backend: Backend, target: Target) -> Key:
    """For a target with `compute` only the backend's versions count: it is for other machines than this one."""
    machine = backend.machine("" if target.compute else target.device)
    wanted = json.loads(json.dumps(asdict(target)))
    facts = {"onnx": network_sha256(onnx), "backend": backend.name, "machine": machine, "target": wanted}
    return Key(onnx.name, facts)


def network_sha256(onnx: Path) -> str:
    """Of the file, and of the weights that exporters put beside it when they are large. Raises EngineError."""
    digest = hashlib.sha256()
    try:
        for path in (onnx, onnx.with_name(f"{onnx.name}.data"), onnx.with_name(f"{onnx.name}_data")):
            if path == onnx or path.exists():
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise EngineError(f"the network {onnx} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


@dataclass(frozen=True)
class Entry:
    """One file of the cache. `check`: largest and mean error when it was made; None: made for another machine."""

    path: Path
    network: str
    facts: dict[str, Any]
    built: float  # seconds since 1970
    seconds: float
    check: dict[str, float] | None
    payload: bytes

    @staticmethod
    def read(path: Path) -> Entry:
        """Raises ValueError for anything but a whole entry, OSError where it cannot be read."""
        data = path.read_bytes()
        if not data.startswith(MAGIC):
            raise ValueError("it is not an engine of this format")
        digest, _, rest = data[len(MAGIC) :].partition(b"\n")
        if hashlib.sha256(rest).hexdigest().encode() != digest:
            raise ValueError("it is damaged")
        head, _, payload = rest.partition(b"\n")
        told = json.loads(head)
        return Entry(path, told["network"], told["facts"], told["built"], told["seconds"], told["check"], payload)

    def to_bytes(self) -> bytes:
        head = {key: value for key, value in vars(self).items() if key not in ("path", "payload")}
        rest = json.dumps(head, sort_keys=True).encode() + b"\n" + self.payload
        return MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def default_folder() -> Path:
    """$RESTORE_PLUGIN_CACHE, else where this system keeps what can be made again."""
    if given := os.environ.get(FOLDER):
        return Path(given).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "restore-plugin" / "engines"


def warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


class Cache:
    """A folder of entries. `tell` gets a sentence where the folder is of no use, or a file had to be set aside.

    Without it Python's warnings do: each is shown once.
    """

    def __init__(self, folder: Path | None = None, tell: Tell | None = None, wait_seconds: float = 3600.0) -> None:
        self.folder = folder or default_folder()
        self.tell = tell or warn
        self.wait_seconds = wait_seconds

    def has(self, key: Key) -> bool:
        return self._good(self.folder / key.file_name, key, set_aside=False) is not None

    def get(
        self,
        key: Key,
        build: Callable[[], bytes],
        accept: Callable[[bytes], tuple[Ready, dict[str, float] | None]],
    ) -> Ready:
        """The entry's engine, built if need be.

        `accept` loads what was built and checks it: it returns the engine and the errors that it found, and raises
        EngineError for one that must not be used. What is in the cache and not accepted is set aside and built anew,
        once. Raises what `build` and `accept` raise for a fresh one.
        """
        with self._lock(key):
            path = self.folder / key.file_name
            entry = self._good(path, key)
            if entry is not None:
                try:
                    return accept(entry.payload)[0]
                except OutOfMemory:
                    raise  # says nothing about the file
                except EngineError as error:
                    self._set_aside(path, one_line(error))
            started = time.monotonic()
            payload = build()
            seconds = round(time.monotonic() - started, 3)
            engine, errors = accept(payload)
            self.put(Entry(path, key.network, key.facts, time.time(), seconds, errors, payload))
            return engine

    def put(self, entry: Entry) -> bool:
        """Written whole or not at all; False, and told, where it cannot be."""
        part = None
        try:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
                part = Path(file.name)
                file.write(entry.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, entry.path)
            return True
        except OSError as error:
            self.tell(
                f"the engine for {entry.network} was not kept in {self.folder} ({error.strerror or error}), so it will "
                f"be built again next time; set {FOLDER} to a folder with room"
            )
            if part is not None:
                with contextlib.suppress(OSError):
                    part.unlink()
            return False

    def entries(self) -> Iterator[Entry | Path]:
        """Every entry; the path alone of a file that is damaged."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                yield Entry.read(path)
            except (OSError, ValueError, KeyError, TypeError):
                yield path

    def portable(self, key: Key, versions: dict[str, str]) -> Iterator[Entry]:
        """Entries made elsewhere, for several kinds of device, that are otherwise what `key` asks for."""
        for entry in self.entries():
            if isinstance(entry, Entry) and entry.facts["target"]["compute"]:
                target = {**entry.facts["target"], "compute": [], "device": key.facts["target"]["device"]}
                if {**entry.facts, "target": target, "machine": key.facts["machine"]} == key.facts and (
                    entry.facts["machine"] == versions
                ):
                    yield entry

    def clear(self) -> tuple[int, int]:
        """Remove everything; returns how many files and bytes that freed. Locks that are held stay."""
        count = size = 0
        for path in self.folder.glob("*"):
            if path.suffix not in (SUFFIX, BAD, LOCK, ".part", *HELPERS):
                continue  # not ours
            with contextlib.suppress(OSError):
                bytes_ = path.stat().st_size
                path.unlink()
                count, size = count + (path.suffix != LOCK), size + bytes_
        return count, size

    def _good(self, path: Path, key: Key, set_aside: bool = True) -> Entry | None:
        """The entry, if it is whole and is what `key` says; what is neither is set aside."""
        try:
            entry = Entry.read(path)
            if entry.facts != key.facts:
                raise ValueError("it was made for something else")
            return entry
        except OSError:  # there is none, or none that can be read
            return None
        except (ValueError, KeyError, TypeError) as error:
            if set_aside:
                self._set_aside(path, one_line(error))
            return None

    def _set_aside(self, path: Path, why: str) -> None:
        self.tell(f"the engine {path.name} in the cache is not used and is built again: {why}")
        with contextlib.suppress(OSError):
            os.replace(path, path.with_suffix(BAD))
            aside = sorted(self.folder.glob(f"*{BAD}"), key=lambda each: each.stat().st_mtime)
            for old in aside[:-KEPT_BAD]:
                old.unlink()

    @contextlib.contextmanager
    def _lock(self, key: Key) -> Iterator[None]:
        """Held while an engine is looked up, built and checked. Where no file can be locked, one goes on without."""
        import filelock

        path = self.folder / f"{key.file_name}{LOCK}"
        lock = filelock.FileLock(path)
        try:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)
            lock.acquire(timeout=self.wait_seconds)
        except filelock.Timeout:
            raise EngineError(
                f"another process has been building the engine for {key.network} for {self.wait_seconds:.0f} s; wait "
                f"for it or end it, or take another engine with --engine (its lock is {path})"
            ) from None
        except (OSError, NotImplementedError):
            yield  # `put` tells that the folder cannot be written to
            return
        try:
            yield
        finally:
            lock.release()
