"""The visible table: one row a method. Everything that depends on a method stands in its row."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from restore_plugin.errors import InputError, MissingExtra, RestoreError

if TYPE_CHECKING:
    from restore_plugin.types import Engine, Finder, RestoreOptions, Restorer

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Method:
    """`build` is "module:function", called with the open engine (None where there are no weights) and
    RestoreOptions -> Restorer."""

    name: str
    task: str
    summary: str
    build: str
    source: str  # the paper or the idea
    weights: str | None = None  # a file in restore_plugin/weights
    needs_mask: bool = True
    context: int = 0  # frames before and after
    multiple: int = 1  # px; sides of the input
    engines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """`finder` is the method (a row of FINDERS) that finds what the task restores."""

    name: str
    summary: str
    default: str
    finder: str | None = None
    invents: bool = True  # what comes back is plausible, not evidence


METHODS = (
    Method(
        "cellnet",
        "demosaic",
        "network on the mosaic's cells, then projection onto their means",
        "restore_plugin.demosaic:Demosaic",
        "ours; residual blocks and sub-pixel tail as in EDSR (Lim et al. 2017)",
        weights="cellnet.onnx",
        engines=("openvino", "onnxruntime"),
    ),
    Method(
        "bicubic",
        "demosaic",
        "bicubic interpolation of the cells, then projection onto their means",
        "restore_plugin.demosaic:Demosaic",
        "Keys 1981",
    ),
)

TASKS = (Task("demosaic", "undo pixelation, found or given", default="cellnet", finder="mosaic"),)


@dataclass(frozen=True)
class FinderRow:
    """`build` is called with the open engine."""

    name: str
    build: str
    weights: str


FINDERS = (FinderRow("mosaic", "restore_plugin.masks.mosaic:MosaicFinder", "mosaic_finder.onnx"),)


def task(name: str) -> Task:
    for row in TASKS:
        if row.name == name:
            return row
    raise InputError(f"expected a task out of {', '.join(row.name for row in TASKS)}, got {name}")


def method(name: str) -> Method:
    """The method of that name, or the default method of the task of that name."""
    for row in TASKS:
        if row.name == name:
            name = row.default
    for candidate in METHODS:
        if candidate.name == name:
            return candidate
    names = [row.name for row in TASKS] + [row.name for row in METHODS]
    raise InputError(f"expected a task or method out of {', '.join(names)}, got {name}")


def build_restorer(row: Method, engine: str = "auto", options: RestoreOptions | None = None) -> Restorer:
    """Raises InputError for an engine that the method does not run on, RestoreError where it does not open."""
    from engines import ENGINES

    allowed = ("auto", *(row.engines or ENGINES))
    if engine not in allowed:
        raise InputError(f"expected an engine for {row.name} out of {', '.join(allowed)}, got {engine}")
    return cast("Restorer", _resolve(row.build)(_open(row.weights, engine), options))


def build_finder(of: Task, engine: str = "auto") -> Finder | None:
    for row in FINDERS:
        if row.name == of.finder:
            return cast("Finder", _resolve(row.build)(_open(row.weights, engine)))
    return None


def _resolve(name: str):  # type: ignore[no-untyped-def]
    module, attribute = name.split(":")
    return getattr(importlib.import_module(module), attribute)


def _open(weights: str | None, engine: str) -> Engine | None:
    if weights is None:
        return None
    from engines import EngineError, MissingPackage, UnknownEngine, open_engine

    try:
        return open_engine(engine, WEIGHTS / weights)
    except UnknownEngine as error:
        raise InputError(str(error)) from None
    except MissingPackage as error:
        raise MissingExtra(f"the engine {engine}", error.extra) from error
    except EngineError as error:
        raise RestoreError(str(error)) from error
