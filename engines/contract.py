"""What every engine and every backend keeps. No engine is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
Shape: TypeAlias = tuple[int, ...]
STREAMS = "streams"  # a Target's option: how many calls are to be computed side by side
PRECISIONS = ("auto", "fp32", "fp16", "bf16")


class EngineError(Exception):
    """An engine could not be built, opened or run; the message says why and what to do."""


class UnknownEngine(EngineError):
    """There is no engine of that name, or it knows no such device or precision."""


class MissingPackage(EngineError):
    """An engine's package is not installed; `extra` brings it."""

    def __init__(self, message: str, extra: str) -> None:
        super().__init__(message)
        self.extra = extra


class OutOfMemory(EngineError):
    """The device's memory did not suffice for this call; a smaller batch or tile may fit."""


class WrongAnswer(EngineError):
    """An engine's answer to the stored input was not within tolerance; it must not be used."""


class Engine(Protocol):
    """A network that is ready to run; thread-safe. `run` and `submit` raise OutOfMemory and EngineError."""

    name: str  # of the backend
    device: str  # as the backend names it
    precision: str  # fp32, fp16 or bf16: what it computes in

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]: ...
    def submit(self, inputs: Arrays) -> Future[dict[str, npt.NDArray[Any]]]:
        """Start a run and return at once; several may be under way."""
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Engine: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True)
class Profile:
    """Sizes that a compiled engine serves: for every input by name the smallest, usual and largest shape."""

    shapes: tuple[tuple[str, tuple[Shape, Shape, Shape]], ...]


@dataclass(frozen=True)
class Target:
    """What to build for: everything besides the ONNX bytes and the machine that could change the answer.

    `device`: the backend's own name for it, empty for its default. `precision`: never "auto" here.
    `compute`: compute capabilities such as (86, 89) for engines that are made for other machines; empty: this one.
    `options`: a backend's further settings, sorted by name.
    """

    device: str = ""
    precision: str = "fp32"
    profile: Profile | None = None
    compute: tuple[int, ...] = ()
    options: tuple[tuple[str, str], ...] = ()


class Backend(Protocol):
    """One way to run networks. Building is apart from running; what `build` returns may be kept in the cache."""

    name: str
    extra: str | None  # of pyproject.toml; None: part of the default install
    precisions: tuple[str, ...]  # that it can compute in, its preferred one first
    builds: bool  # whether `build` makes something worth keeping

    def devices(self) -> tuple[str, ...]:
        """What it could run on here, the best first; empty where it is installed but finds no device."""
        ...

    def machine(self, device: str) -> dict[str, str]:
        """What of this machine enters the cache key: versions of backend and driver, device name, capability."""
        ...

    def build(self, onnx: Path, target: Target) -> bytes:
        """The compiled network; b"" where there is nothing to keep. May take minutes. Raises EngineError."""
        ...

    def load(self, onnx: Path, built: bytes, target: Target) -> Engine:
        """Ready to run. Raises EngineError, also where `built` is not what `build` returns."""
        ...
