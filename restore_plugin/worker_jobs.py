"""What the worker does with pixels. The protocol and the processes are in worker_server and worker."""

from __future__ import annotations

import errno
import logging
import os
import pkgutil
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from engines import open_engine
from restore_plugin import catalog
from restore_plugin.errors import InputError, NothingFound, OutputError
from restore_plugin.mosaic import CELL
from restore_plugin.pipeline import LUMA, ArrayFrame
from restore_plugin.plan import region_to_json
from restore_plugin.regions import bounding_box, clustered, measured, regions_under, restore_frame, union, whole
from restore_plugin.types import (
    Box,
    Engine,
    Finder,
    Mask,
    Pixels,
    Region,
    RestoreOptions,
    Restorer,
    ScanOptions,
    Support,
)
from restore_plugin.worker_client import Message
from restore_plugin.worker_messages import Area, Cancelled, FindRequest, Options, PixelArea, RestoreRequest
from restore_plugin.worker_places import around, read_regions, touched

Array: TypeAlias = npt.NDArray[Any]
TYPES = {"u8": "u1", "u16": "u2", "f32": "f4"}  # as numpy names them, in the byte order of the machine
TILED = 1.5  # a network sees this much more than a large picture's pixels: tiles overlap
NOW = threading.local()  # .job: what this thread is doing

logger = logging.getLogger("restore_plugin.worker")


class Buffer:
    """A private file for pixels, made here. `users`: jobs that read or write it."""

    def __init__(self, path: Path, size: int) -> None:
        """Raises OutputError where there is no room: better now than in the middle."""
        self.path, self.size, self.users = path, size, 0
        try:
            if shutil.disk_usage(path.parent).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with open(path, "xb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
        except OSError as error:
            self.remove()
            raise OutputError(
                f"there is no room for {size / 1e6:.0f} MB of pixels in {path.parent}: {error.strerror}; mark a "
                "smaller place, make room, or set RESTORE_PLUGIN_RUNTIME to another folder"
            ) from None

    def remove(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:  # Windows: still open somewhere; the next worker removes it
            logger.info("%s stays: %s", self.path.name, error)

    def read(self, area: Area) -> Array:
        """With plain reads: a file that its client has cut gives an error here, a mapped one would end the process."""
        out = np.empty(area.size, np.uint8)
        with open(self.path, "rb") as file:
            file.seek(area.offset)
            if file.readinto(out.data) != area.size:
                raise InputError("the pixel file is shorter than it was made; do not change its size")
        return out

    def write(self, offset: int, values: Array) -> None:
        try:
            with open(self.path, "r+b") as file:
                file.seek(offset)
                file.write(np.ascontiguousarray(values).data)
        except OSError as error:
            raise OutputError(f"the result could not be handed over: {error.strerror}") from None


class Job:
    """One request under way: it is asked whether to go on, and told how far it is.

    `buffers`: by name. `progress`: a share of [0, 1] that never falls, and what is being done.
    """

    def __init__(self, buffers: Mapping[str, Buffer]) -> None:
        self.buffers = buffers
        self.notes: list[str] = []
        self.progress = (0.0, "waiting for other work to end")
        self._cancelled = threading.Event()
        self._from, self._to, self._expected, self._seen = 0.0, 0.0, 0.0, 0.0

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    def stage(self, start: float, stop: float, text: str, expected: float = 0.0) -> None:
        """From here to `stop` lie `expected` pixels that networks will see."""
        self.check()
        self._from, self._to, self._expected, self._seen = start, stop, expected, 0.0
        self.progress = (max(start, self.progress[0]), text)

    def step(self, pixels: float) -> None:
        """Before a network sees so many pixels."""
        self.check()
        if self._expected:
            share = self._from + (self._to - self._from) * min(0.95, self._seen / self._expected)  # of an estimate
            self.progress = (max(share, self.progress[0]), self.progress[1])
        self._seen += pixels

    def reach(self, share: float) -> None:
        """So much of this stage is done, as a restorer tells that does not leave the most of it to networks."""
        self.check()
        self.progress = (max(self._from + (self._to - self._from) * share, self.progress[0]), self.progress[1])


def note(text: str) -> None:
    """What engines and restorers have to say goes to whoever waits for them, and into the log."""
    logger.info("%s", text)
    job: Job | None = getattr(NOW, "job", None)
    if job is not None and text not in job.notes:
        job.notes.append(text)


class Watched:
    """An engine that asks the thread's job, before each call, whether to go on: so tiles are where jobs end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, inputs: Mapping[str, Array]) -> Any:
        step(inputs)
        return self._engine.run(inputs)

    def submit(self, inputs: Mapping[str, Array]) -> Any:
        step(inputs)
        return self._engine.submit(inputs)


def step(inputs: Mapping[str, Array]) -> None:
    job: Job | None = getattr(NOW, "job", None)
    if job is not None:
        job.step(max(array.shape[-1] * array.shape[-2] for array in inputs.values() if array.ndim > 1))


def reached(share: float) -> None:
    """The `check` of restorers' Support."""
    job: Job | None = getattr(NOW, "job", None)
    if job is not None:
        job.reach(share)


class Steps:
    """A Restorer that tells a job about each region before it restores it."""

    def __init__(self, restorer: Restorer, job: Job, count: int, start: float) -> None:
        self._restorer, self._job, self._count, self._start = restorer, job, count, start
        self._done = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._restorer, name)

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels:
        seen = 0.0 if self._restorer.needs.holes else TILED * pixels.shape[0] * pixels.shape[1]  # those tell shares
        if region is not None and region.block is not None:  # every cell is shown at one size
            seen *= CELL * CELL / (region.block[0] * region.block[1])
        start, stop = (self._start + (0.97 - self._start) * (self._done + more) / self._count for more in (0, 1))
        self._done += 1
        self._job.stage(start, stop, f"restoring region {self._done} of {self._count}", seen)
        return self._restorer(pixels, mask, neighbours, region)


@dataclass(frozen=True)
class Loaded:
    """What restorers and finders are kept by."""

    name: str
    engine: str
    precision: str
    linear_light: bool = False


class Kept:
    """Restorers and finders that stay loaded. One is made at a time, so each is made once.

    Of a restorer only the last seed's stays: each opens its network anew, and whoever tries one seed after the other
    would fill the memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Loaded, tuple[int, Any]] = {}  # with the seed

    def loaded(self) -> list[str]:
        return [f"{key.name} ({key.engine}, {key.precision})" for key in list(self._made)]

    def restorer(self, row: catalog.Method, options: Options) -> Restorer:
        key = Loaded(row.name, options.engine, options.precision, options.linear_light)
        return cast("Restorer", self._get(key, options.seed, lambda: build_restorer(row, key, options.seed)))

    def finder(self, row: catalog.FinderRow, options: Options) -> Finder:
        key = Loaded(f"{row.name} finder", options.engine, options.precision)

        def make() -> Any:
            engine = opened(row.file(), key.engine, key.precision)
            return pkgutil.resolve_name(row.build)(engine, ScanOptions())

        return cast("Finder", self._get(key, 0, make))

    def _get(self, key: Loaded, seed: int, make: Callable[[], Any]) -> Any:
        kept = self._made.get(key)
        if kept is None or kept[0] != seed:
            with self._lock:
                kept = self._made.get(key)
                if kept is None or kept[0] != seed:
                    kept = self._made[key] = seed, make()
        return kept[1]


def opened(onnx: Path, engine: str, precision: str) -> Engine:
    with catalog.explained(engine):
        return cast("Engine", Watched(open_engine(engine, onnx, precision, tell=note)))


def build_restorer(row: catalog.Method, key: Loaded, seed: int) -> Restorer:
    """As catalog.build_restorer, with engines that are watched."""
    options = RestoreOptions(key.linear_light, seed)
    weights, engine = row.weights, None
    fallbacks: tuple[Callable[[], Engine], ...] = ()
    if weights is not None:
        onnx = catalog.WEIGHTS / weights
        engine = opened(onnx, key.engine, key.precision)
        if key.engine == "auto":  # an engine asked for by name never falls back
            fallbacks = (lambda: opened(onnx, catalog.LAST_RESORT, "auto"),)
    return cast("Restorer", pkgutil.resolve_name(row.build)(engine, options, Support(note, fallbacks, reached)))


def read_picture(job: Job, pixels: PixelArea) -> Array:
    """(H, W, channels) as the client holds it."""
    samples: Array = job.buffers[pixels.area.buffer].read(pixels.area).view(TYPES[pixels.dtype])
    return samples.reshape(pixels.height, pixels.width, pixels.channels)


def colours(held: Array) -> Array:
    """RGB (H, W, 3) of a client's picture, a copy; floats clipped to what networks know."""
    rgb = held[..., :3] if held.shape[2] > 2 else np.repeat(held[..., :1], 3, axis=2)
    if rgb.dtype == np.float32:
        return np.clip(np.nan_to_num(rgb, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    return np.array(rgb, order="C")


def restore(request: RestoreRequest, job: Job, kept: Kept) -> Message:
    """Does it, in place; returns what `done` says."""
    begun = time.monotonic()
    row, mask = request.method, None
    job.stage(0.0, 0.02, "reading the pixels")
    held = read_picture(job, request.pixels)
    if request.mask is not None:
        mask = job.buffers[request.mask.buffer].read(request.mask).reshape(held.shape[:2])
        if not mask.any():
            raise NothingFound(
                "nothing is marked, so there is nothing to restore; mark the place, or leave the mask out"
            )
    frame = ArrayFrame(colours(held))
    job.stage(0.02, 0.1, f"loading {row.name}")
    restorer = kept.restorer(row, request.options)
    regions = regions_of(request, frame, mask, job, kept)
    if restorer.needs.holes and mask is not None:  # what is hidden beyond the mask would not be known, nor written
        regions = regions_under(union(regions, frame.height, frame.width) & (mask > 0))
        if not regions:
            raise NothingFound("the regions and the mask have no place in common; mark the same place in both")
    steps = Steps(restorer, job, calls(restorer, regions, frame), job.progress[0] + 0.1)
    restore_frame(frame, regions, cast("Restorer", steps))
    job.stage(0.97, 1.0, "writing the pixels")
    changed = write_back(job, request, held, around(regions, frame), frame.image, mask)
    return {
        "changed": None if changed is None else [changed.x, changed.y, changed.width, changed.height],
        "regions": [region_to_json(region) for region in regions],
        "seconds": round(time.monotonic() - begun, 3),
        "notes": job.notes,
    }


def calls(restorer: Restorer, regions: Sequence[Region], frame: ArrayFrame) -> int:
    """How often restore_frame will call the restorer, at most."""
    if not restorer.needs.holes:
        return len(regions)
    return len(clustered(union(regions, frame.height, frame.width), restorer))


def regions_of(request: RestoreRequest, frame: ArrayFrame, mask: Array | None, job: Job, kept: Kept) -> list[Region]:
    """Where to restore: given, found and touched by the mask, marked by the mask, or everywhere."""
    options, task = request.options, catalog.task(request.method.task)
    name = task.finder
    row = next((row for row in catalog.FINDERS if row.name == name), None)
    finder = None
    told = request.regions is not None or (mask is not None and options.search is False)
    if row is not None and (task.measures or not told):
        job.stage(0.1, 0.2, f"looking for {row.name}s")
        finder = kept.finder(row, options)
    if request.regions is not None:
        regions = read_regions(request.regions, frame)
    elif options.search or (finder is not None and (options.search is None or mask is None)):
        if finder is None:
            raise InputError(f"{request.method.name} does not find by itself what to restore; pass search: false")
        regions = touched(finder.find(frame), mask)
        if not regions:
            where = "in the picture" if mask is None else "in the marked place"
            raise NothingFound(f"no {name} was found {where}; mark it exactly and switch the search off")
        if options.block:
            return [replace(each, block=options.block, phase=options.phase or each.phase) for each in regions]
    elif mask is not None:
        regions = regions_under(mask > 0)
    elif request.method.needs_mask:
        raise InputError(f"{request.method.name} has to be told where to restore; pass a mask or regions")
    else:
        return whole(frame)
    if finder is None or all(region.block for region in regions):
        return regions
    if options.block:  # in a place that was given: its corner is where the grid begins
        return [
            replace(each, block=options.block, phase=options.phase or (float(each.box.x), float(each.box.y)))
            for each in regions
        ]
    return [each if each.block else measured([each], frame, finder)[0] for each in regions]


def write_back(
    job: Job, request: RestoreRequest, held: Array, box: Box, after: Array, mask: Array | None
) -> Box | None:
    """The pixels that changed in `box`, in the client's format; returns the box around them. Others keep their bits."""
    part = held[box.slices]
    before, after = colours(part), after[box.slices]
    changed: Mask = np.logical_or.reduce([after[..., channel] != before[..., channel] for channel in range(3)])
    if mask is not None:
        changed &= mask[box.slices] > 0
    strength = np.float32(request.options.strength)
    if not changed.any() or strength == 0:
        return None
    new: Array = after[changed].astype(np.float32)
    if held.shape[2] < 3:
        new = (new @ LUMA)[:, None]
    weight: Array = np.full((len(new), 1), strength, np.float32)
    if mask is not None and request.options.blend:
        weight *= mask[box.slices][changed][:, None] / np.float32(255)
    old = before[changed][:, : new.shape[1]].astype(np.float32)
    mixed = np.where(weight == 1, new, old + (new - old) * weight)
    if held.dtype != np.float32:
        mixed = np.round(np.clip(mixed, 0, np.iinfo(held.dtype).max))
    part[changed, : new.shape[1]] = mixed.astype(held.dtype)
    box = bounding_box(changed).shift(box.x, box.y)
    job.check()  # from here on the client's pixels change
    area = request.pixels.area
    job.buffers[area.buffer].write(area.offset + box.y * held[0].nbytes, held[box.y : box.bottom])
    return box


def find(request: FindRequest, job: Job, kept: Kept) -> Message:
    """Fills the client's mask; returns what `done` says."""
    begun = time.monotonic()
    job.stage(0.0, 0.05, "reading the pixels")
    frame = ArrayFrame(colours(read_picture(job, request.pixels)))
    job.stage(0.05, 0.95, f"looking for {request.finder.name}s", float(frame.width * frame.height))
    regions = kept.finder(request.finder, request.options).find(frame)
    job.check()
    if request.mask is not None:
        found = np.zeros((frame.height, frame.width), np.uint8)
        for region in regions:
            found[region.box.slices][region.mask()] = 255
        job.buffers[request.mask.buffer].write(request.mask.offset, found)
    return {
        "regions": [region_to_json(region) for region in regions],
        "seconds": round(time.monotonic() - begun, 3),
        "notes": job.notes,
    }
