"""Engines run an ONNX file: `run({name: array}) -> {name: array}`. They know nothing of pictures.

`open_engine(name, path)` is the only door; a further engine is one file here and one row of `ENGINES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]


class Engine(Protocol):
    """A network that is ready to run; thread-safe."""

    name: str

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]: ...
    def submit(self, inputs: Arrays) -> Future[dict[str, npt.NDArray[Any]]]:
        """Start a run and return at once; several may be under way."""
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Engine: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class EngineError(Exception):
    """An engine could not be opened; the message says why and what to do."""


class UnknownEngine(EngineError):
    """There is no engine of that name."""


class MissingPackage(EngineError):
    """An engine's package is not installed; `extra` brings it."""

    def __init__(self, message: str, extra: str) -> None:
        super().__init__(message)
        self.extra = extra


@dataclass(frozen=True)
class Row:
    """One engine: where it is, what it needs to be importable, and the extra that brings it."""

    module: str
    type: str
    package: str
    extra: str | None


ENGINES: dict[str, Row] = {
    "openvino": Row("engines.openvino_engine", "OpenVinoEngine", "openvino", None),
    "onnxruntime": Row("engines.onnxruntime_engine", "OnnxRuntimeEngine", "onnxruntime", "onnxruntime"),
}
DEFAULT = "openvino"


def open_engine(name: str, path: Path) -> Engine:
    """Open the network in an ONNX file; "auto" is the default engine. Raises EngineError; never falls back."""
    name = DEFAULT if name == "auto" else name
    if name not in ENGINES:
        raise UnknownEngine(f"expected an engine out of {', '.join(ENGINES)} or auto, got {name}")
    row = ENGINES[name]
    try:
        kind = getattr(importlib.import_module(row.module), row.type)
    except ImportError as error:
        what = f"the engine {name} needs {row.package}, which does not import ({error})"
        if row.extra is None:
            raise EngineError(f"{what}; install restore-plugin again") from error
        raise MissingPackage(f"{what}; pip install 'restore-plugin[{row.extra}]'", row.extra) from error
    engine: Engine = kind(path)
    return engine
