"""Engines run an ONNX file: `run({name: array}) -> {name: array}`. They know nothing of pictures.

`open_engine(engine, path)` is the only door; a further engine is one file here and one row of `ENGINES`. What it does:
choose (`choices`), build where the backend builds (in a process of its own, kept in the `engines.cache`), load, and
check the engine against a known answer before anything is restored with it.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.contract import (
    PRECISIONS,
    STREAMS,
    Arrays,
    Backend,
    Engine,
    EngineError,
    MissingPackage,
    OutOfMemory,
    Profile,
    Target,
    UnknownEngine,
    WrongAnswer,
)

if TYPE_CHECKING:
    from engines.cache import Cache

__all__ = [
    "AUTO",
    "DEFAULT",
    "ENGINES",
    "PRECISIONS",
    "Arrays",
    "Backend",
    "Choice",
    "Engine",
    "EngineError",
    "MissingPackage",
    "OutOfMemory",
    "Profile",
    "Row",
    "Target",
    "UnknownEngine",
    "WrongAnswer",
    "backend_of",
    "choices",
    "is_ready",
    "open_choice",
    "open_engine",
    "split",
]

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One backend: where it is, what it needs to be importable, and the extra that brings it."""

    module: str
    type: str
    package: str
    extra: str | None


ENGINES: dict[str, Row] = {
    "openvino": Row("engines.openvino_engine", "OpenVinoBackend", "openvino", None),
    "onnxruntime": Row("engines.onnxruntime_engine", "OnnxRuntimeBackend", "onnxruntime", "onnxruntime"),
    "tensorrt": Row("engines.tensorrt_engine", "TensorRt", "tensorrt", "tensorrt"),
    "tensorrt_rtx": Row("engines.tensorrt_engine", "TensorRtRtx", "tensorrt_rtx_bindings", "rtx"),
    "torch": Row("engines.torch_engine", "TorchBackend", "torch", "torch"),
}
DEFAULT = "openvino"
# For an NVIDIA GPU, the fastest first. Everywhere else the default: on CPUs it was the fastest in fp32, or within 14 %
# of the fastest, for every network (docs/engines.md); a race at every start would cost more than it could win.
AUTO = ("tensorrt", "tensorrt_rtx", "onnxruntime", "torch")
ALIASES = {"rtx": "tensorrt_rtx"}


@dataclass(frozen=True)
class Choice:
    """What would run a network, in which precision, and why in half a sentence."""

    backend: str
    device: str
    precision: str
    reason: str

    def __str__(self) -> str:
        return f"engine {self.backend} on {self.device} in {self.precision} ({self.reason})"


def split(engine: str) -> tuple[str, str]:
    """ "NAME[:device]" as (name, device or ""). Raises UnknownEngine; loads no backend."""
    name, _, device = engine.partition(":")
    name = ALIASES.get(name, name)
    if name not in (*ENGINES, "auto") or (name == "auto" and device):
        raise UnknownEngine(f"expected an engine out of {', '.join(ENGINES)} or auto, got {engine}")
    return name, device.lower()


def backend_of(name: str) -> Backend:
    """Raises MissingPackage, and EngineError where the backend is installed but does not start."""
    return _backend(name, ENGINES[name])


@functools.lru_cache
def _backend(name: str, row: Row) -> Backend:
    try:
        backend: Backend = getattr(importlib.import_module(row.module), row.type)()
    except ImportError as error:
        what = f"the engine {name} needs {row.package}, which does not import ({' '.join(str(error).split())})"
        if row.extra is None:
            raise EngineError(f"{what}; install restore-plugin again") from error
        raise MissingPackage(f"{what}; pip install 'restore-plugin[{row.extra}]'", row.extra) from error
    except EngineError:
        raise
    except Exception as error:  # a driver that is too old, a library that does not load
        raise EngineError(f"the engine {name} does not start: {' '.join(str(error).split())}") from error
    return backend


def choices(engine: str = "auto", precision: str = "auto") -> list[Choice]:
    """What could run here, the best first; with a name, that alone. Raises EngineError where there is nothing.

    The precision "auto" is the backend's own preference: fp32 on CPUs, so that every machine gives the same picture,
    also where bf16 would be faster.
    """
    name, device = split(engine)
    if precision not in PRECISIONS:
        raise UnknownEngine(f"expected a precision out of {', '.join(PRECISIONS)}, got {precision}")
    if name != "auto":
        return [_choice(name, device, precision, "as asked for")]
    found, passed = [], []
    gpu = nvidia_driver()
    for candidate in AUTO if gpu else ():
        try:
            choice = _choice(candidate, "", precision, "chosen by auto: the fastest for this GPU")
        except MissingPackage:
            continue
        except EngineError as error:
            passed.append(f"{candidate} was passed over: {error}")
            continue
        if not choice.device.startswith("cpu"):
            found.append(choice)
    why = "; ".join(passed) or ("no installed engine uses this GPU" if gpu else "the choice without an NVIDIA GPU")
    if found:
        found = [replace(each, reason="; ".join([each.reason, *passed])) for each in found]
        why = "the choice without a GPU"
    try:
        return [*found, _choice(DEFAULT, "", precision, f"chosen by auto: {why}")]
    except UnknownEngine:
        if found:
            return found
        raise


def nvidia_driver() -> bool:
    """Whether one is there; so cheap a look that torch and others need not be imported to find out."""
    if any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg")):
        return True
    import ctypes.util
    import sys

    return sys.platform == "win32" and ctypes.util.find_library("nvcuda") is not None


def _choice(name: str, device: str, precision: str, reason: str) -> Choice:
    backend = backend_of(name)
    there = backend.devices()
    if not there:
        raise EngineError(f"the engine {name} is installed, but finds no device here that it runs on")
    if device and device not in there:
        raise UnknownEngine(f"expected a device of {name} out of {', '.join(there)}, got {device}")
    if precision not in ("auto", *backend.precisions):
        can = ", ".join(backend.precisions)
        raise UnknownEngine(f"expected a precision of {name} on this machine out of auto, {can}, got {precision}")
    return Choice(name, device or there[0], backend.precisions[0] if precision == "auto" else precision, reason)


def open_engine(
    engine: str,
    path: Path,
    precision: str = "auto",
    *,
    profile: Profile | None = None,
    tell: Tell | None = None,
    deterministic: bool = False,
    streams: int = 1,
) -> Engine:
    """Open the network in an ONNX file. Raises EngineError.

    `engine`: "auto", "NAME" or "NAME:device"; one asked for by name never falls back. `precision`: auto, fp32, fp16 or
    bf16. `tell` gets a sentence about what was chosen and why, and about all that did not go as it should.
    `deterministic`: one backend for good; without it, auto answers with the fastest that is ready while it builds a
    faster one in the background. `streams`: so many calls come side by side; OpenVINO on a CPU shares its cores out
    among them, which is faster for small networks.
    """
    first, *others = choices(engine, precision)
    if not others:
        return _first_of([first], path, profile, tell, streams)
    say = tell or quiet
    try:
        if deterministic or is_ready(first, path, profile=profile):
            return _first_of([first], path, profile, tell, streams)
    except EngineError as error:
        say(f"{first.backend} was passed over: {error}")
        return _first_of(others, path, profile, tell, streams)
    now = _first_of(others, path, profile, tell, streams)
    say(f"building {first.backend} for {first.device} in {first.precision} meanwhile")
    return _switching(now, first, path, profile, tell)


def quiet(text: str) -> None:
    """For callers that want to hear nothing; the cache then uses Python's warnings."""


def _first_of(candidates: list[Choice], path: Path, profile: Profile | None, tell: Tell | None, streams: int) -> Engine:
    """The first that opens without a build, or else the last one; the last one's error is the caller's."""
    say = tell or quiet
    *before, last = candidates
    for choice in before:
        try:
            if not is_ready(choice, path, profile=profile):
                continue  # the first one is being built already
            opened = open_choice(choice, path, profile=profile, tell=tell, streams=streams)
        except EngineError as error:
            say(f"{choice.backend} was passed over: {error}")
            continue
        say(str(choice))
        return opened
    opened = open_choice(last, path, profile=profile, tell=tell, streams=streams)
    say(str(last))
    return opened


def _switching(now: Engine, later: Choice, path: Path, profile: Profile | None, tell: Tell | None) -> Engine:
    from engines.switching import SwitchingEngine

    stop = threading.Event()
    return SwitchingEngine(
        now, lambda: open_choice(later, path, profile=profile, tell=tell, stop=stop), tell or quiet, cancel=stop.set
    )


def is_ready(choice: Choice, path: Path, *, profile: Profile | None = None) -> bool:
    """Whether `open_choice` would not have to build. Raises EngineError."""
    from engines.cache import Cache, key_of

    backend = backend_of(choice.backend)
    target = Target(choice.device, choice.precision, profile)
    if not backend.builds:
        return True
    key, cache = key_of(path, backend, target), Cache()
    return cache.has(key) or any(True for _ in cache.portable(key, backend.machine("")))


def open_choice(
    choice: Choice,
    path: Path,
    *,
    profile: Profile | None = None,
    tell: Tell | None = None,
    cache: Cache | None = None,
    build_seconds: float | None = None,
    stop: threading.Event | None = None,
    streams: int = 1,
) -> Engine:
    """One of `choices`, built if need be, and checked. `stop`, set from elsewhere, ends a build. `streams`: as for
    `open_engine`. Raises EngineError."""
    from engines.building import BUILD_SECONDS, build_apart
    from engines.cache import Cache, key_of
    from engines.check import check

    row, backend = ENGINES[choice.backend], backend_of(choice.backend)
    target = Target(choice.device, choice.precision, profile)
    if streams > 1 and not backend.builds:  # what is built is the same for one
        target = replace(target, options=((STREAMS, str(streams)),))

    def accept(built: bytes) -> tuple[Engine, dict[str, float] | None]:
        engine = backend.load(path, built, target)
        if choice.backend == DEFAULT and choice.device == "cpu" and choice.precision == "fp32":
            return engine, None  # it is what others are checked against
        try:
            errors = check(engine, path, profile)
        except BaseException:
            engine.close()
            raise
        return engine, {"largest": errors.largest, "mean": errors.mean}

    if not backend.builds:
        return accept(b"")[0]
    cache, key = cache or Cache(tell=tell), key_of(path, backend, target)
    if not cache.has(key):
        for entry in cache.portable(key, backend.machine("")):
            try:
                return accept(entry.payload)[0]
            except OutOfMemory:
                raise
            except EngineError as error:  # made for other devices than this, or wrong
                if tell is not None and isinstance(error, WrongAnswer):
                    tell(f"the engine {entry.path.name} in the cache is not used: {error}")
    seconds = BUILD_SECONDS if build_seconds is None else build_seconds

    def build() -> bytes:
        if tell is not None:
            tell(f"building {path.name} for {choice.backend} on {choice.device}; it is kept for the next time")
        return build_apart(row.module, row.type, path, target, seconds, stop)

    return cache.get(key, build, accept)
