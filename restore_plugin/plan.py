"""The plan: which regions to restore in which frame, as JSON lines that a person can read and edit.

The first line describes the plan and the video it is for; every further line is one frame that has regions:

    {"plan": 1, "task": "demosaic", "source": {...}}
    {"frame": 12, "seconds": 0.48, "regions": [{"id": 1, "box": [x, y, width, height], "block": [8.0, 8.0],
                                                "phase": [3.0, 1.0], "confidence": 0.97, "outline": [[[x, y], ...]]}]}

All in pixels of the stored frame. `outline`, `id` and `confidence` may be left out. Faces also have a `label` (who it
is), `maybe` (others whom it may be), an `origin` (how it is known in this frame: "found", where it is left out;
"between" two sightings; "beyond" the first or last), a `doubt` in frames that a person should look at, and `soft`
edges, in px.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from restore_plugin import catalog
from restore_plugin.errors import InputError, OutputError
from restore_plugin.types import FOUND, ORIGINS, Box, Region

VERSION = 1
SAMPLE_BYTES = 1 << 20
FARTHEST = 1 << 20  # px that a point may be from the picture's corner


def fingerprint(path: Path) -> dict[str, Any]:
    """What tells one file from another: its size and a SHA-256 of its first and last MiB."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(SAMPLE_BYTES))
        file.seek(max(SAMPLE_BYTES, size - SAMPLE_BYTES))
        digest.update(file.read(SAMPLE_BYTES))
    return {"bytes": size, "sha256": digest.hexdigest()}


def region_to_json(region: Region) -> dict[str, Any]:
    box = region.box
    entry: dict[str, Any] = {"id": region.id, "box": [box.x, box.y, box.width, box.height]}
    if region.block:
        entry["block"] = [round(value, 4) for value in region.block]
        entry["phase"] = [round(value, 3) for value in region.phase]
    entry["confidence"] = round(region.confidence, 3)
    if region.label:
        entry["label"] = region.label
    if region.maybe:
        entry["maybe"] = list(region.maybe)
    if region.origin != FOUND:
        entry["origin"] = region.origin
    if region.soft:
        entry["soft"] = region.soft
    if region.doubt:
        entry["doubt"] = region.doubt
    if region.outline:
        entry["outline"] = [[list(point) for point in polygon] for polygon in region.outline]
    return entry


def region_from_json(entry: Mapping[str, Any]) -> Region:
    """Raises KeyError, TypeError or ValueError for anything that is not a region."""
    x, y, width, height = (int(value) for value in entry["box"])
    if width <= 0 or height <= 0:
        raise ValueError(f"expected a box with a positive size, got {width}x{height}")
    block = tuple(float(value) for value in entry["block"]) if entry.get("block") else None
    if block is not None and not (len(block) == 2 and all(1 <= value < math.inf for value in block)):
        raise ValueError(f"expected a block [x, y] of at least 1 px, got {entry['block']}")
    phase_x, phase_y = (float(value) for value in entry.get("phase", (x, y)))
    if not (math.isfinite(phase_x) and math.isfinite(phase_y)):
        raise ValueError(f"expected a phase [x, y] in px, got {entry['phase']}")
    outline = tuple(tuple((int(px), int(py)) for px, py in polygon) for polygon in entry.get("outline", ()))
    if any(not polygon for polygon in outline):
        raise ValueError("expected polygons with points in the outline, got an empty one")
    if any(abs(value) > FARTHEST for polygon in outline for point in polygon for value in point):
        raise ValueError(f"expected points of the outline within {FARTHEST} px")
    confidence = float(entry.get("confidence", 1.0))
    if not math.isfinite(confidence):
        raise ValueError(f"expected a number as the confidence, got {confidence}")
    origin, label, doubt = entry.get("origin", FOUND), entry.get("label", ""), entry.get("doubt", "")
    maybe = entry.get("maybe", [])
    if origin not in ORIGINS:
        raise ValueError(f"expected an origin out of {', '.join(ORIGINS)}, got {origin}")
    if not isinstance(maybe, list) or not all(isinstance(name, str) and is_label(name) for name in maybe):
        raise ValueError(f"expected a list of names in maybe, got {maybe}")
    if not isinstance(label, str) or not (label == "" or is_label(label)):
        raise ValueError(f"expected a name without commas as the label, got {label}")
    if not isinstance(doubt, str):
        raise ValueError(f"expected words as the doubt, got {doubt}")
    return Region(
        Box(x, y, width, height),
        int(entry.get("id", 0)),
        (block[0], block[1]) if block else None,
        (phase_x, phase_y),
        outline,
        confidence,
        label,
        origin,
        tuple(maybe),
        doubt,
        max(0, int(entry.get("soft", 0))),
    )


def is_label(text: str) -> bool:
    """Whether a person may be called that: names are joined with commas on a command line."""
    return bool(text) and "," not in text and not text.startswith("-") and text == text.strip()


class PlanWriter:
    """Writes a plan frame by frame; the file appears under its name when it is complete."""

    def __init__(self, path: Path, task: str, source: Mapping[str, Any]) -> None:
        self.path = path
        self.frames = 0
        self._ids: set[int] = set()
        self._part = path.with_name(f".{path.name}.part")
        try:
            self._file = self._part.open("w", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path} could not be written: {error.strerror}; choose another place") from None
        self._file.write(json.dumps({"plan": VERSION, "task": task, "source": dict(source)}) + "\n")

    def add(self, index: int, seconds: float | None, regions: Sequence[Region]) -> None:
        """The regions of one frame; indices must grow. A frame without regions has no line."""
        if not regions:
            return
        entry: dict[str, Any] = {"frame": index}
        if seconds is not None:
            entry["seconds"] = round(seconds, 4)
        entry["regions"] = [region_to_json(region) for region in regions]
        self._file.write(json.dumps(entry) + "\n")
        self.frames += 1
        self._ids.update(region.id for region in regions)

    @property
    def tracks(self) -> int:
        """How many ids there are so far."""
        return len(self._ids)

    def __enter__(self) -> PlanWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


class PlanReader:
    """Reads a plan along with the video: only one line at a time is in memory."""

    def __init__(self, path: Path, task: str) -> None:
        self.path = path
        try:
            self._file = path.open(encoding="utf-8-sig")  # editors on Windows put a mark first
        except OSError as error:
            raise InputError(
                f"expected a plan in {path}, could not open it: {error.strerror}; check its name"
            ) from None
        try:
            head = json.loads(self._file.readline())
            if head["plan"] != VERSION or head["task"] != task:
                raise ValueError(f"expected plan version {VERSION} for {task}, got {head['plan']} for {head['task']}")
        except (ValueError, KeyError, TypeError) as error:
            self.close()
            raise InputError(
                f"expected a plan for {task} in {path}: {_what(error)}; write one with `restore-video scan`"
            ) from None
        self.source: Mapping[str, Any] = head.get("source", {})
        if not isinstance(self.source, dict):
            self.close()
            raise InputError(f"{path}, line 1: expected a source with names and values, got {self.source}; scan again")
        self._number = 1
        self._next = self._read()

    def _read(self) -> tuple[int, list[Region]] | None:
        while line := self._line():
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                return int(entry["frame"]), [region_from_json(region) for region in entry["regions"]]
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                self.close()
                raise InputError(
                    f"{self.path}, line {self._number} is not a line of a plan: {_what(error)}; mend it or scan again"
                ) from None
        self.close()
        return None

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> PlanReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _line(self) -> str:
        self._number += 1
        try:
            return self._file.readline()
        except UnicodeDecodeError:
            self.close()
            raise InputError(f"{self.path}, line {self._number} is no text; mend it or scan again") from None

    def __iter__(self) -> Iterator[tuple[int, list[Region]]]:
        while self._next is not None:
            yield self._next
            self._next = self._read()

    @property
    def line(self) -> int:
        """Number of the line that was read last."""
        return self._number

    def at(self, index: int) -> Sequence[Region]:
        """The regions of a frame; indices must not go back."""
        while self._next is not None and self._next[0] < index:
            self._next = self._read()
        return self._next[1] if self._next is not None and self._next[0] == index else ()


def check(path: Path, task: str, source: Path, size: tuple[int, int]) -> int:
    """Read a whole plan once and return its number of frames.

    Raises InputError for anything but a plan for this task and this video, with all regions inside the picture and all
    frames in order.
    """
    with PlanReader(path, task) as plan:
        if plan.source.get("sha256") not in (None, fingerprint(source)["sha256"]):
            raise InputError(
                f"the plan {path} was made for another video than {source}; scan this one, or pass its own plan"
            )
        frames, last = 0, -1
        for index, regions in plan:
            if index <= last:
                where = f"{path}, line {plan.line}"
                raise InputError(f"{where}: frame {index} comes after frame {last}; put the lines in order")
            last = index
            try:
                if catalog.task(task).measures and not all(region.block for region in regions):
                    raise InputError("a region has no block [x, y], the size of the mosaic's blocks in px; add it")
                check_inside(regions, size)
            except InputError as error:
                raise InputError(f"{path}, line {plan.line}: {error}") from None
            frames += 1
    return frames


def labels(path: Path, task: str) -> set[str]:
    """Everybody whom a plan names."""
    with PlanReader(path, task) as plan:
        return {name for _, regions in plan for region in regions for name in (region.label, *region.maybe) if name}


def _what(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "brackets in brackets"
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def check_inside(regions: Iterable[Region], size: tuple[int, int]) -> None:
    """Raises InputError for a region that is empty or reaches outside a picture of (width, height)."""
    whole = Box(0, 0, *size)
    for region in regions:
        box = region.box
        if box.width <= 0 or box.height <= 0:
            raise InputError(f"expected a region with a positive size, got {box.width}x{box.height} at {box.x},{box.y}")
        if box.intersect(whole) != box:
            raise InputError(
                f"region {box.x},{box.y},{box.width},{box.height} reaches outside the picture of {size[0]}x{size[1]}; "
                "give x,y,width,height inside it"
            )
