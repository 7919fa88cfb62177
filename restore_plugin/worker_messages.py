"""What the worker is told (docs/worker.md), read with suspicion; and how errors are answered. Loads nothing heavy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from restore_plugin import __version__, catalog
from restore_plugin.errors import InputError, MissingExtra, NothingFound, OutputError, Refused, RestoreError
from restore_plugin.worker_client import LONGEST_MESSAGE, PROTOCOL, SAMPLE_BYTES, Message

LARGEST_ID = 2**53  # what every JSON library keeps exactly
FURTHEST_PX = 1 << 20
MOST_BUFFERS, MOST_JOBS, MOST_CONNECTIONS = 16, 16, 32
SURROUNDINGS_PX = 320  # five cells of the largest usual blocks, or half of a network's field of view


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
        line = json.dumps({**message, "regions": short[:1000]}, allow_nan=False).encode() + b"\n"
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
    identity = message.get("id")
    if not whole(identity) or not 0 <= identity <= LARGEST_ID:  # type: ignore[operator]
        raise Malformed(f"expected an id from 0 to 2^53, got {shown(identity)}")
    return int(identity)  # type: ignore[arg-type]


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
    finder: str
    pixels: PixelArea
    mask: Area | None
    within: bool
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
    return RestoreRequest(
        method, pixels, mask_area(message, pixels), None if regions is None else tuple(regions), options
    )


def find_request(message: Message, most_pixels: int) -> FindRequest:
    """Raises InputError."""
    finder, within = message.get("finder"), message.get("within", False)
    if finder not in [row.name for row in catalog.FINDERS]:
        raise InputError(
            f"expected a finder out of {', '.join(row.name for row in catalog.FINDERS)}, got {shown(finder)}"
        )
    pixels = pixel_area(message, most_pixels)
    mask = mask_area(message, pixels)
    if not isinstance(within, bool) or (within and mask is None):
        raise InputError(f"expected within to be true or false, and a mask with it, got {shown(within)}")
    return FindRequest(str(finder), pixels, mask, within, options_of(message, "engine", "precision"))


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


def options_of(message: Message, *allowed: str) -> Options:
    """Raises InputError for an option that does not exist, or is none of `allowed`."""
    given = message.get("options", {})
    names = allowed or tuple(field.name for field in fields(Options))
    if not isinstance(given, dict):
        raise InputError(f"expected options as an object, got {shown(given)}")
    for name in given:
        if name not in names:
            raise InputError(f"expected options out of {', '.join(names)}, got {shown(name)}")
    values = {**asdict(Options()), **given}
    for name in ("engine", "precision"):
        if not isinstance(values[name], str) or len(values[name]) > 100:
            raise InputError(f"expected a name for {name}, got {shown(values[name])}")
    for name in ("linear_light", "blend"):
        if not isinstance(values[name], bool):
            raise InputError(f"expected true or false for {name}, got {shown(values[name])}")
    if values["search"] is not None and not isinstance(values["search"], bool):
        raise InputError(f"expected true, false or null for search, got {shown(values['search'])}")
    if not real(values["strength"]) or not 0 <= values["strength"] <= 1:
        raise InputError(f"expected a strength from 0 to 1, got {shown(values['strength'])}")
    if real(values["block"]):
        values["block"] = [values["block"], values["block"]]
    values["block"], values["phase"] = pair(values, "block", 2), pair(values, "phase", -math.inf)
    if values["phase"] and not values["block"]:
        raise InputError("phase says where a grid of known size lies; give block, too")
    return Options(**values)


def pair(values: Mapping[str, Any], name: str, least: float) -> tuple[float, float] | None:
    given = values[name]
    if given is None:
        return None
    if not (isinstance(given, list) and len(given) == 2 and all(real(each) and each >= least for each in given)):
        more = f" of at least {least} px" if math.isfinite(least) else ""
        raise InputError(f"expected {name} as [x, y]{more}, got {shown(given)}")
    return float(given[0]), float(given[1])


def number(given: Mapping[str, Any], name: str, least: int, most: int) -> int:
    """A whole number. Raises InputError."""
    value = given.get(name)
    if not whole(value) or not least <= value <= most:  # type: ignore[operator]
        raise InputError(f"expected {name} as a whole number from {least} to {most}, got {shown(value)}")
    return int(value)  # type: ignore[arg-type]


def whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def real(value: object) -> bool:
    """A number that fits into a picture's coordinates."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= FURTHEST_PX


def shown(value: object) -> str:
    """What came, short enough for a sentence."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def capabilities(most_pixels: int) -> Message:
    """What `hello` answers about the methods; a task without methods is not offered."""
    return {
        "protocol": PROTOCOL,
        "version": __version__,
        "tasks": [
            {
                key: value
                for key, value in asdict(row).items()
                if key in ("name", "summary", "default", "finder", "invents")
            }
            for row in catalog.TASKS
        ],
        "methods": [
            {"name": row.name, "task": row.task, "summary": row.summary, "needs_mask": row.needs_mask}
            for row in catalog.METHODS
        ],
        "finders": [row.name for row in catalog.FINDERS],
        "options": asdict(Options()),
        "surroundings_px": SURROUNDINGS_PX,
        "limits": {
            "message_bytes": LONGEST_MESSAGE,
            "pixels": most_pixels,
            "buffers": MOST_BUFFERS,
            "jobs": MOST_JOBS,
        },
    }
