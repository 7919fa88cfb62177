"""What the worker does with pixels. The protocol and the processes are in worker_server and worker."""

from __future__ import annotations

import logging
import math
import pkgutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from engines import open_engine
from restore_plugin import catalog
from restore_plugin.errors import InputError, NothingFound, OutputError
from restore_plugin.mosaic import CELL
from restore_plugin.pipeline import LUMA, ArrayFrame
from restore_plugin.plan import check_inside, region_from_json, region_to_json
from restore_plugin.regions import regions_under, restore_frame, whole
from restore_plugin.types import (
    Box,
    Engine,
    Finder,
    Luma,
    Mask,
    Needs,
    Pixels,
    Region,
    RestoreOptions,
    Restorer,
    Support,
)
from restore_plugin.worker_client import Message
from restore_plugin.worker_messages import FURTHEST_PX, Area, Cancelled, FindRequest, Options, PixelArea, RestoreRequest

Array: TypeAlias = npt.NDArray[Any]
TYPES = {"u8": np.dtype(np.uint8), "u16": np.dtype(np.uint16), "f32": np.dtype(np.float32)}
TILED = 1.5  # a network sees this much more than a large picture's pixels: tiles overlap
MOST_AT_ONCE = 1 << 30  # bytes; systems read and write no more than about two of these

logger = logging.getLogger("restore_plugin.worker")


class Job:
    """One request under way: it is asked whether to go on, and told how far it is.

    `files`: the buffers by name. `tell` gets a share of [0, 1] that never falls, and a sentence.
    """

    def __init__(self, files: Mapping[str, Path], tell: Callable[[float, str], None]) -> None:
        self.files = files
        self.notes: list[str] = []
        self._tell = tell
        self._cancelled = threading.Event()
        self._text = ""
        self._from, self._to, self._expected, self._seen = 0.0, 0.0, 0.0, 0.0

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    def stage(self, start: float, stop: float, text: str, expected: float = 0.0) -> None:
        """From here to `stop` lie `expected` pixels that networks will see."""
        self.check()
        self._from, self._to, self._text, self._expected, self._seen = start, stop, text, expected, 0.0
        self._tell(start, text)

    def step(self, pixels: float) -> None:
        """Before a network sees so many pixels."""
        self.check()
        if self._expected and self._seen:
            done = min(0.95, self._seen / self._expected)  # of an estimate
            self._tell(self._from + (self._to - self._from) * done, self._text)
        self._seen += pixels


NOW = threading.local()  # .job: of this thread


def current() -> Job | None:
    return cast("Job | None", getattr(NOW, "job", None))


def note(text: str) -> None:
    """What engines and restorers have to say goes to whoever waits for them, and into the log."""
    logger.info("%s", text)
    job = current()
    if job is not None and text not in job.notes:
        job.notes.append(text)


class Watched:
    """An engine that asks the thread's job, before each call, whether to go on: so tiles are where jobs end."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def device(self) -> str:
        return self.engine.device

    @property
    def precision(self) -> str:
        return self.engine.precision

    def run(self, inputs: Any) -> dict[str, Array]:
        self._step(inputs)
        return self.engine.run(inputs)

    def submit(self, inputs: Any) -> Future[dict[str, Array]]:
        self._step(inputs)
        return self.engine.submit(inputs)

    def close(self) -> None:
        self.engine.close()

    def __enter__(self) -> Engine:
        return cast("Engine", self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _step(self, inputs: Any) -> None:
        job = current()
        if job is not None:
            job.step(max(array.shape[-1] * array.shape[-2] for array in inputs.values() if array.ndim > 1))


class Steps:
    """A restorer that tells a job about each region before it restores it."""

    def __init__(self, restorer: Restorer, job: Job, count: int, start: float) -> None:
        self._restorer, self._job, self._count, self._start = restorer, job, count, start
        self._done = 0

    @property
    def needs(self) -> Needs:
        return self._restorer.needs

    def margin(self, region: Region) -> tuple[int, int]:
        return self._restorer.margin(region)

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels:
        seen = float(pixels.shape[0] * pixels.shape[1])
        if region is not None and region.block is not None:  # every cell is shown at one size
            seen *= CELL * CELL / (region.block[0] * region.block[1])
        begun = min(self._done, self._count - 1)
        self._done += 1
        places = [self._start + (0.97 - self._start) * step / self._count for step in (begun, begun + 1)]
        self._job.stage(places[0], places[1], f"restoring region {begun + 1} of {self._count}", seen * TILED)
        return self._restorer(pixels, mask, neighbours, region)


@dataclass(frozen=True)
class Loaded:
    """What restorers and finders are kept by."""

    name: str
    engine: str
    precision: str
    options: RestoreOptions | None = None


class Kept:
    """Restorers and finders that stay loaded. Each is made once, though two jobs ask for it at the same moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Loaded, Future[Any]] = {}

    def loaded(self) -> list[str]:
        with self._lock:
            return [f"{key.name} ({key.engine}, {key.precision})" for key, made in self._made.items() if made.done()]

    def restorer(self, row: catalog.Method, options: Options) -> Restorer:
        told = RestoreOptions(linear_light=options.linear_light)
        key = Loaded(row.name, options.engine, options.precision, told)
        return cast("Restorer", self._get(key, lambda: build_restorer(row, key, told)))

    def finder(self, name: str, options: Options) -> Finder:
        row = next(row for row in catalog.FINDERS if row.name == name)
        key = Loaded(f"{name} finder", options.engine, options.precision)
        return cast("Finder", self._get(key, lambda: pkgutil.resolve_name(row.build)(opened(row.weights, key))))

    def _get(self, key: Loaded, make: Callable[[], Any]) -> Any:
        with self._lock:
            made = self._made.get(key)
            mine = made is None
            if made is None:
                made = self._made[key] = Future()
        if mine:
            try:
                made.set_result(make())
            except BaseException as error:
                with self._lock:
                    del self._made[key]  # the next one tries again
                made.set_exception(error)
        return made.result()


def opened(weights: str, wanted: Loaded, engine: str | None = None) -> Engine:
    with catalog.explained(engine or wanted.engine):
        path = catalog.WEIGHTS / weights
        made = open_engine(engine or wanted.engine, path, "auto" if engine else wanted.precision, tell=note)
        return cast("Engine", Watched(made))


def build_restorer(row: catalog.Method, wanted: Loaded, options: RestoreOptions) -> Restorer:
    """As catalog.build_restorer, with engines that are watched."""
    weights = row.weights
    if weights is None:
        return cast("Restorer", pkgutil.resolve_name(row.build)(None, options, Support(note)))
    fallbacks: tuple[Callable[[], Engine], ...] = ()
    if wanted.engine == "auto":  # an engine asked for by name never falls back
        fallbacks = (lambda: opened(weights, wanted, catalog.LAST_RESORT),)
    return cast("Restorer", pkgutil.resolve_name(row.build)(opened(weights, wanted), options, Support(note, fallbacks)))


def read_bytes(job: Job, area: Area) -> Array:
    """With plain reads: a file that its client has cut gives an error here, where a mapped one ends the process."""
    out = np.empty(area.size, np.uint8)
    view = memoryview(out)
    with open(job.files[area.buffer], "rb", buffering=0) as file:
        file.seek(area.offset)
        while view:
            got = file.readinto(view[:MOST_AT_ONCE])
            if not got:
                raise InputError("the pixel file is shorter than it was made; do not change its size")
            view = view[got:]
    return out


def write_bytes(job: Job, area: Area, values: Array, skipped: int = 0) -> None:
    view = memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
    try:
        with open(job.files[area.buffer], "r+b", buffering=0) as file:
            file.seek(area.offset + skipped)
            while view:
                view = view[file.write(view[:MOST_AT_ONCE]) :]
    except OSError as error:
        raise OutputError(f"the result could not be handed over: {error.strerror}") from None


def read_picture(job: Job, pixels: PixelArea) -> Array:
    """(H, W, channels) as the client holds it."""
    samples = read_bytes(job, pixels.area).view(TYPES[pixels.dtype])
    return samples.reshape(pixels.height, pixels.width, pixels.channels)


def colours(held: Array) -> Array:
    """RGB (H, W, 3) of a client's picture; floats clipped to what networks know."""
    rgb = held[..., :3] if held.shape[2] > 2 else np.repeat(held[..., :1], 3, axis=2)
    if rgb.dtype == np.float32:
        return np.clip(np.nan_to_num(rgb, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    return np.ascontiguousarray(rgb)


def restore(request: RestoreRequest, job: Job, kept: Kept) -> Message:
    """Does it, in place; returns what `done` says."""
    begun = time.monotonic()
    row, options = request.method, request.options
    job.stage(0.0, 0.02, "reading the pixels")
    held = read_picture(job, request.pixels)
    mask = None
    if request.mask is not None:
        mask = read_bytes(job, request.mask).reshape(held.shape[:2])
        if not mask.any():
            raise NothingFound(
                "nothing is marked, so there is nothing to restore; mark the place, or leave the mask out"
            )
    rgb = colours(held)
    frame = ArrayFrame(rgb.copy())
    job.stage(0.02, 0.1, f"loading {row.name}")
    restorer = kept.restorer(row, options)
    regions = regions_of(request, frame, mask, job, kept)
    restore_frame(frame, regions, Steps(restorer, job, len(regions), 0.3 if row.needs_mask else 0.1))
    job.stage(0.97, 1.0, "writing the pixels")
    changed = write_back(job, request, held, rgb, frame.image, mask)
    return {
        "changed": None if changed is None else [changed.x, changed.y, changed.width, changed.height],
        "regions": [region_to_json(region) for region in regions],
        "seconds": round(time.monotonic() - begun, 3),
        "notes": job.notes,
    }


def regions_of(request: RestoreRequest, frame: ArrayFrame, mask: Array | None, job: Job, kept: Kept) -> list[Region]:
    """Where to restore: given, found and touched by the mask, marked by the mask, or everywhere."""
    options, name = request.options, catalog.task(request.method.task).finder
    finder: Finder | None = None
    if name is not None:
        job.stage(0.1, 0.2, f"loading the {name} finder")
        finder = kept.finder(name, options)
        job.stage(0.2, 0.3, f"looking for {name}s")
    luma = frame.luma()
    if request.regions is not None:
        regions = read_regions(request.regions, frame)
        return with_blocks(regions, luma, finder, options)
    search = options.search if options.search is not None else finder is not None
    if search or (mask is None and finder is not None):
        if finder is None:
            raise InputError(f"{request.method.name} does not find by itself what to restore; pass search: false")
        regions = touched(finder.find(luma), mask)
        if not regions:
            where = "in the picture" if mask is None else "in the marked place"
            raise NothingFound(f"no {name} was found {where}; mark it exactly and switch the search off")
        if options.block:
            return [replace(each, block=options.block, phase=options.phase or each.phase) for each in regions]
        return regions
    if mask is not None:
        return with_blocks(regions_under(mask > 0), luma, finder, options)
    if request.method.needs_mask:
        raise InputError(f"{request.method.name} has to be told where to restore; pass a mask or regions")
    return whole(frame)


def read_regions(given: Sequence[Any], frame: ArrayFrame) -> list[Region]:
    try:
        regions = [region_from_json(entry) for entry in given]
        for region in regions:
            points = [value for polygon in region.outline for point in polygon for value in point]
            if not all(abs(value) <= FURTHEST_PX for value in (*points, *region.phase, *(region.block or ()))):
                raise ValueError(f"expected places within {FURTHEST_PX} px")
            if not math.isfinite(region.confidence):
                raise ValueError("expected a confidence from 0 to 1")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"expected regions as the worker writes them: {type(error).__name__}: {error}") from None
    if not regions:
        raise NothingFound("an empty list of regions was given, so there is nothing to restore")
    check_inside(regions, (frame.width, frame.height))
    return regions


def with_blocks(regions: Sequence[Region], luma: Luma, finder: Finder | None, options: Options) -> list[Region]:
    """Regions of a task with a finder, with what it measures, or what is given. Raises InputError where it cannot."""
    out = []
    for region in regions:
        box = region.box
        if finder is not None and options.block:
            region = replace(region, block=options.block, phase=options.phase or (float(box.x), float(box.y)))
        elif finder is not None and region.block is None:
            marked: Mask = np.zeros(luma.shape, bool)
            marked[box.slices] = region.mask()
            grid = finder.measure(luma, marked)
            if grid is None:
                raise InputError(
                    f"no mosaic's blocks could be measured in the place of {box.width}x{box.height} px at {box.x},"
                    f"{box.y}; mark the mosaic exactly, or give the size of its blocks"
                )
            region = replace(region, block=grid.block, phase=grid.phase, confidence=grid.confidence)
        out.append(region)
    return out


def touched(regions: Sequence[Region], mask: Array | None) -> list[Region]:
    if mask is None:
        return list(regions)
    return [region for region in regions if (region.mask() & (mask[region.box.slices] > 0)).any()]


def write_back(
    job: Job, request: RestoreRequest, held: Array, before: Array, after: Array, mask: Array | None
) -> Box | None:
    """The changed pixels, in the client's format; returns the box around them. All others keep their bits."""
    changed: Mask = (after != before).any(axis=2)
    if mask is not None:
        changed &= mask > 0
    strength = np.float32(request.options.strength)
    if not changed.any() or strength == 0:
        return None
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    box = Box.between(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    part, where = held[box.slices], changed[box.slices]
    new: Array = after[box.slices][where].astype(np.float32)
    if held.shape[2] < 3:
        new = (new @ LUMA)[:, None]
    weight: Array = np.full((len(new), 1), strength, np.float32)
    if mask is not None and request.options.blend:
        weight *= mask[box.slices][where][:, None] / np.float32(255)
    old = before[box.slices][where][:, : new.shape[1]].astype(np.float32)
    mixed = np.where(weight == 1, new, old + (new - old) * weight)
    if held.dtype != np.float32:
        mixed = np.round(np.clip(mixed, 0, np.iinfo(held.dtype).max))
    part[where, : new.shape[1]] = mixed.astype(held.dtype)
    job.check()  # from here on the client's pixels change
    area, row_bytes = request.pixels.area, held[0].nbytes
    write_bytes(job, area, held[box.y : box.bottom], box.y * row_bytes)
    return box


def find(request: FindRequest, job: Job, kept: Kept) -> Message:
    """Fills the client's mask; returns what `done` says."""
    begun = time.monotonic()
    job.stage(0.0, 0.05, "reading the pixels")
    frame = ArrayFrame(colours(read_picture(job, request.pixels)))
    within = None
    if request.within and request.mask is not None:
        within = read_bytes(job, request.mask).reshape(frame.height, frame.width)
    job.stage(0.05, 0.3, f"loading the {request.finder} finder")
    finder = kept.finder(request.finder, request.options)
    job.stage(0.3, 0.95, f"looking for {request.finder}s", float(frame.width * frame.height))
    regions = touched(finder.find(frame.luma()), within)
    if request.mask is not None:
        found = np.zeros((frame.height, frame.width), np.uint8)
        for region in regions:
            found[region.box.slices][region.mask()] = 255
        if within is not None:
            found[within == 0] = 0
        job.check()
        write_bytes(job, request.mask, found)
    return {
        "regions": [region_to_json(region) for region in regions],
        "seconds": round(time.monotonic() - begun, 3),
        "notes": job.notes,
    }
