"""What the worker is told (docs/worker.md), read with suspicion; and how errors are answered. Loads nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeGuard

from restore_plugin import __version__, catalog
from restore_plugin.errors import InputError, MissingExtra, NothingFound, OutputError, Refused, RestoreError
from restore_plugin.worker_client import LONGEST_MESSAGE, PROTOCOL, SAMPLE_BYTES, Message

LARGEST_ID = 2**53  # what every JSON library keeps exactly
FURTHEST_PX = 1 << 20
SURROUNDINGS_PX = 320  # five cells of the largest usual blocks, or half of a network's field of view
MOST_REGIONS = 1000  # told of, where more would not fit into a message


class WorkerFault(RestoreError):
    """An error that only the worker knows."""

    kind = "error"


class Malformed(WorkerFault):
    kind, exit_code = "protocol", 2


class WrongVersion(WorkerFault):
    kind, exit_code = "version", 2


class NoAccess(WorkerFault):
    kind, exit_code = "access", 4


class Busy(WorkerFault):
    kind = "busy"


class Cancelled(WorkerFault):
    kind, exit_code = "cancelled", 130

    def __init__(self) -> None:
        super().__init__("cancelled")


KINDS: tuple[tuple[type[RestoreError], str], ...] = (
    (InputError, "input"),
    (NothingFound, "nothing_found"),
    (Refused, "refused"),
    (OutputError, "output"),
    (MissingExtra, "missing_extra"),
)


def error_reply(identity: int | None, error: BaseException) -> Message:
    """An error as its client reads it. What is not explained is a defect, and in the log."""
    kind, code, text = "defect", 1, f"unexpected error: {type(error).__name__}: {error}; please report this"
    if isinstance(error, MemoryError):
        kind, text = "error", "there is not enough memory for this picture; mark a smaller place"
    elif isinstance(error, RestoreError):
        kind = next((name for known, name in KINDS if isinstance(error, known)), getattr(error, "kind", "error"))
        code, text = error.exit_code, str(error)
    return {"id": identity, "reply": "error", "kind": kind, "text": " ".join(text.split()), "exit_code": code}


def encode(message: Message) -> bytes:
    line = json.dumps(message, allow_nan=False).encode() + b"\n"
    if len(line) > LONGEST_MESSAGE and "regions" in message:  # outlines say nothing that a mask does not
        short = [{key: value for key, value in region.items() if key != "outline"} for region in message["regions"]]
        line = json.dumps({**message, "regions": short[:MOST_REGIONS]}, allow_nan=False).encode() + b"\n"
    return line


def decode(line: bytes) -> Message:
    """Raises Malformed for what is no JSON object."""

    def refuse(text: str) -> None:
        raise ValueError(text)

    try:
        message = json.loads(line.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise Malformed("expected one JSON object on a line, got something else; see docs/worker.md")
    return message


def identity_of(message: Message) -> int:
    try:
        return number(message, "id", 0, LARGEST_ID)
    except InputError as error:
        raise Malformed(str(error)) from None


@dataclass(frozen=True)
class Area:
    """Bytes in a buffer."""

    buffer: str
    offset: int
    size: int


@dataclass(frozen=True)
class PixelArea:
    area: Area
    width: int
    height: int
    channels: int
    dtype: str


@dataclass(frozen=True)
class Options:
    """Of a request; docs/worker.md explains each."""

    engine: str = "auto"
    precision: str = "auto"
    linear_light: bool = False
    search: bool | None = None
    block: tuple[float, float] | None = None
    phase: tuple[float, float] | None = None
    strength: float = 1.0
    blend: bool = True
    seed: int = 0


@dataclass(frozen=True)
class RestoreRequest:
    """`regions`: as they came; whoever knows the picture reads them."""

    method: catalog.Method
    pixels: PixelArea
    mask: Area | None
    regions: tuple[Mapping[str, Any], ...] | None
    options: Options


@dataclass(frozen=True)
class FindRequest:
    finder: catalog.FinderRow
    pixels: PixelArea
    mask: Area | None
    options: Options


def restore_request(message: Message, most_pixels: int) -> RestoreRequest:
    """Raises InputError."""
    name = message.get("method", message.get("task"))
    if not isinstance(name, str):
        raise InputError(f"expected a task or a method, got {shown(name)}")
    pixels = pixel_area(message, most_pixels)
    regions = message.get("regions")
    if regions is not None and not (isinstance(regions, list) and all(isinstance(each, dict) for each in regions)):
        raise InputError(f"expected a list of regions, got {shown(regions)}")
    method, options = catalog.method(name[:100]), options_of(message)
    catalog.EngineOptions(options.engine, options.precision).check(method)
    if "task" in message and message["task"] not in (method.task, method.name):
        raise InputError(f"{method.name} is a method for {method.task}, got the task {shown(message['task'])}")
    catalog.task(method.task).check_mosaic_options({"block": options.block, "linear_light": options.linear_light})
    given = None if regions is None else tuple(regions)
    return RestoreRequest(method, pixels, mask_area(message, pixels), given, options)


def find_request(message: Message, most_pixels: int) -> FindRequest:
    """Raises InputError."""
    name = message.get("finder")
    row = next((row for row in catalog.FINDERS if row.name == name), None)
    if row is None:
        known = ", ".join(row.name for row in catalog.FINDERS)
        raise InputError(f"expected a finder out of {known}, got {shown(name)}")
    pixels = pixel_area(message, most_pixels)
    options = options_of(message, "engine", "precision")
    return FindRequest(row, pixels, mask_area(message, pixels), options)


def pixel_area(message: Message, most_pixels: int) -> PixelArea:
    given = message.get("pixels")
    if not isinstance(given, dict):
        raise InputError(f"expected pixels with buffer, width, height, channels and dtype, got {shown(given)}")
    width, height = number(given, "width", 1, most_pixels), number(given, "height", 1, most_pixels)
    if width * height > most_pixels:
        raise InputError(
            f"a picture of {width}x{height} is larger than the {most_pixels / 1e6:g} megapixels that the worker takes; "
            "mark a smaller place, or start it with a larger --max-megapixels"
        )
    channels, dtype = number(given, "channels", 1, 4), given.get("dtype")
    if not isinstance(dtype, str) or dtype not in SAMPLE_BYTES:
        raise InputError(f"expected a dtype out of {', '.join(SAMPLE_BYTES)}, got {shown(dtype)}")
    area = area_of(given, width * height * channels * SAMPLE_BYTES[dtype])
    return PixelArea(area, width, height, channels, dtype)


def mask_area(message: Message, pixels: PixelArea) -> Area | None:
    given = message.get("mask")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise InputError(f"expected a mask with buffer and offset, got {shown(given)}")
    mask = area_of(given, pixels.width * pixels.height)
    first, last = sorted((mask, pixels.area), key=lambda area: area.offset)
    if first.buffer == last.buffer and first.offset + first.size > last.offset:
        raise InputError("expected pixels and mask side by side in their buffer, got them one over the other")
    return mask


def area_of(given: Mapping[str, Any], size: int) -> Area:
    buffer = given.get("buffer")
    if not isinstance(buffer, str):
        raise InputError(f"expected the name of a buffer, got {shown(buffer)}")
    return Area(buffer, number(given, "offset", 0, LARGEST_ID) if "offset" in given else 0, size)


def real(value: object) -> bool:
    """A number that fits into a picture's coordinates."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= FURTHEST_PX


def whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(real, value))


def number(given: Mapping[str, Any], name: str, least: int, most: int) -> int:
    """A whole number. Raises InputError."""
    value = given.get(name)
    if not whole(value) or not least <= value <= most:
        raise InputError(f"expected {name} as a whole number from {least} to {most}, got {shown(value)}")
    return value


NAME = "a name", lambda value: isinstance(value, str) and len(value) <= 100
SWITCH = "true or false", lambda value: isinstance(value, bool)
CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "engine": NAME,
    "precision": NAME,
    "linear_light": SWITCH,
    "search": ("true, false or null", lambda value: value is None or isinstance(value, bool)),
    "block": ("[x, y] of at least 2 px", lambda value: value is None or (pair(value) and min(value) >= 2)),
    "phase": ("[x, y] in px", lambda value: value is None or pair(value)),
    "strength": ("a number from 0 to 1", lambda value: real(value) and 0 <= value <= 1),
    "blend": SWITCH,
    "seed": ("a whole number from 0 to 2^53", lambda value: whole(value) and 0 <= value <= LARGEST_ID),
}


def options_of(message: Message, *allowed: str) -> Options:
    """Raises InputError for an option that does not exist, or is none of `allowed`."""
    given = message.get("options", {})
    names = allowed or tuple(field.name for field in fields(Options))
    if not isinstance(given, dict):
        raise InputError(f"expected options as an object, got {shown(given)}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in names:
            raise InputError(f"expected options out of {', '.join(names)}, got {shown(name)}")
        if name == "block" and real(value):
            value = [value, value]
        what, right = CHECKS[name]
        if not right(value):
            raise InputError(f"expected {name} as {what}, got {shown(value)}")
        values[name] = tuple(map(float, value)) if isinstance(value, list) else value
    if values.get("phase") and not values.get("block"):
        raise InputError("phase says where a grid of known size lies; give block, too")
    return Options(**values)


def shown(value: object) -> str:
    """What came, short enough for a sentence."""
    try:
        text = json.dumps(value, default=str)
    except RecursionError:
        return "something that is nested too deeply"
    return text if len(text) <= 60 else text[:57] + "..."


def capabilities() -> Message:
    """What `hello` answers about the methods."""
    told = ("name", "summary", "default", "finder", "invents", "surroundings")
    return {
        "protocol": PROTOCOL,
        "version": __version__,
        "tasks": [{name: getattr(row, name) for name in told} for row in catalog.TASKS],
        "methods": [
            {"name": row.name, "task": row.task, "summary": row.summary, "needs_mask": row.needs_mask}
            for row in catalog.METHODS
        ],
        "finders": [row.name for row in catalog.FINDERS],
        "options": asdict(Options()),
        "surroundings_px": SURROUNDINGS_PX,
    }
