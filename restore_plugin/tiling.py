"""A convolutional network over a picture of any size, in overlapping tiles; smaller ones where memory is short.

Every tile sees all that its kept part depends on, lies on the network's own grid of strides and ends where the padded
picture ends, so that a tiled picture is the untiled one up to rounding. That holds for networks whose field of view is
bounded; one with statistics of the whole picture (instance normalisation, global means) must not be cut.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.contract import Engine, EngineError, OutOfMemory
from restore_plugin.errors import InputError

Array: TypeAlias = npt.NDArray[Any]
Run: TypeAlias = Callable[[Array], Array]

BLEND_PX = 8  # to either side of a seam: hides it where a network sees further than its `reach`


@dataclass(frozen=True)
class TileRule:
    """How a network's pictures are cut. `reach` too small shows at the seams, blended; too large costs time only."""

    reach: int  # px: half of the network's field of view; tiles overlap by this on every side
    multiple: int  # px: sides of what the network is given are multiples of this
    largest: int  # px: side of the largest tile, overlap included; an oblong one may have the same area
    minimum: int = 64  # px: side of the smallest tile that is tried when memory is short
    batch: int = 1  # tiles in one call, at first
    longest: int = 2048  # px: no side is longer, however oblong: compiled engines serve sizes up to this

    def __post_init__(self) -> None:
        if self.reach < 0 or self.multiple < 1 or self.batch < 1 or not 1 <= self.minimum <= self.largest:
            raise InputError(f"expected reach >= 0, multiple, batch >= 1 and 1 <= minimum <= largest, got {self}")


@dataclass(frozen=True)
class Tiles:
    """Where the tiles of one picture lie: all of one size, each at every pair of `rows` and `columns`."""

    height: int
    width: int
    rows: tuple[int, ...]  # first row of each
    columns: tuple[int, ...]

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def count(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return itertools.product(self.rows, self.columns)


def plan_tiles(height: int, width: int, rule: TileRule, largest: int | None = None) -> Tiles:
    """Tiles of at most `largest`^2 px over a padded picture that cost the least; the smallest possible if none is.

    Two neighbours share at least twice the rule's reach and the blended band.
    """
    area = (largest or rule.largest) ** 2
    overlap = up(2 * (rule.reach + BLEND_PX), rule.multiple)
    if height * width <= area and max(height, width) <= rule.longest:
        return Tiles(height, width, (0,), (0,))
    best: tuple[int, int, int] | None = None  # total cost, rows, columns
    smallest_width = side(width, most(width, overlap, rule.multiple), overlap, rule.multiple)
    for rows in range(1, most(height, overlap, rule.multiple) + 1):
        tall = side(height, rows, overlap, rule.multiple)
        wide = min(area // tall, rule.longest)
        if tall > rule.longest or wide < smallest_width:
            continue
        columns = 1 if wide >= width else math.ceil((width - overlap) / (down(wide, rule.multiple) - overlap))
        cost = rows * columns * tall * side(width, columns, overlap, rule.multiple)
        if best is None or cost < best[0]:
            best = cost, rows, columns
    multiple = rule.multiple
    counts = best[1:] if best else (most(height, overlap, multiple), most(width, overlap, multiple))
    tall, wide = side(height, counts[0], overlap, multiple), side(width, counts[1], overlap, multiple)
    return Tiles(tall, wide, starts(height, counts[0], tall, multiple), starts(width, counts[1], wide, multiple))


def up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def down(length: int, multiple: int) -> int:
    return length // multiple * multiple


def most(length: int, overlap: int, multiple: int) -> int:
    """The largest number of tiles along an axis: seams lie so far apart that no two blended bands meet."""
    return max(1, (length - overlap) // up(2 * BLEND_PX, multiple))


def side(length: int, count: int, overlap: int, multiple: int) -> int:
    """The shortest tile of which `count` cover an axis."""
    return length if count == 1 else up(math.ceil((length - overlap) / count), multiple) + overlap


def starts(length: int, count: int, tile: int, multiple: int) -> tuple[int, ...]:
    """Evenly spread, on the network's grid: no step is longer than a tile less its overlap."""
    return tuple(down(index * (length - tile) // max(1, count - 1), multiple) for index in range(count))


def ramps(length: int, tile: int, positions: Sequence[int]) -> dict[int, Array]:
    """For each start: weights (tile,) of its pixels along an axis; those of all tiles add up to 1 at every pixel."""
    weights = {start: np.ones(tile, np.float32) for start in positions}
    for before, after in itertools.pairwise(positions):
        seam = (after + before + tile) // 2
        rising = np.clip((np.arange(length) - seam + BLEND_PX + 0.5) / (2 * BLEND_PX), 0, 1).astype(np.float32)
        weights[before] *= 1 - rising[before : before + tile]
        weights[after] *= rising[after : after + tile]
    return weights


def pad(picture: Array, multiple: int) -> Array:
    """Below and to the right, by reflection; by repeating the last line where the picture is too small for that."""
    for axis in (1, 2):
        size = picture.shape[axis]
        missing = up(size, multiple) - size
        if missing:
            amount = [(0, missing if each == axis else 0) for each in range(3)]
            picture = np.pad(picture, amount, mode="reflect" if missing < size else "edge")
    return picture


def checked(picture: Array) -> Array:
    if picture.ndim != 3 or picture.dtype != np.float32 or 0 in picture.shape:
        raise InputError(f"expected a picture (C, H, W) in float32, got {picture.shape} in {picture.dtype}")
    return picture


class Canvas:
    """The padded picture, cut into batches of tiles, and the result that they are blended into."""

    def __init__(self, picture: Array, rule: TileRule, largest: int | None = None) -> None:
        self.size = checked(picture).shape[1:]
        self.picture = pad(picture, rule.multiple)
        self.height, self.width = self.picture.shape[1:]
        self.tiles = plan_tiles(self.height, self.width, rule, largest)
        self._row_weights = ramps(self.height, self.tiles.height, self.tiles.rows)
        self._column_weights = ramps(self.width, self.tiles.width, self.tiles.columns)
        self._out: Array | None = None

    def batches(self, size: int) -> Iterator[list[tuple[int, int]]]:
        places = iter(self.tiles)
        while batch := list(itertools.islice(places, size)):
            yield batch

    def cut(self, places: Sequence[tuple[int, int]]) -> Array:
        """(N, C, h, w)"""
        tall, wide = self.tiles.height, self.tiles.width
        return np.stack([self.picture[:, y : y + tall, x : x + wide] for y, x in places])

    def paste(self, places: Sequence[tuple[int, int]], found: Array) -> None:
        tall, wide = self.tiles.height, self.tiles.width
        if found.ndim != 4 or found.shape[0] != len(places) or found.shape[2:] != (tall, wide):
            raise InputError(f"expected a network that answers ({len(places)}, C, {tall}, {wide}), got {found.shape}")
        if self.tiles.count == 1:
            self._out = found[0]
            return
        if self._out is None:
            self._out = np.zeros((found.shape[1], self.height, self.width), np.float32)
        for (y, x), tile in zip(places, found, strict=True):
            weights = self._row_weights[y][:, None] * self._column_weights[x]
            self._out[:, y : y + tall, x : x + wide] += tile * weights

    def result(self) -> Array:
        """(C2, H, W) float32, without the padding."""
        assert self._out is not None
        return np.ascontiguousarray(self._out[:, : self.size[0], : self.size[1]], np.float32)


def run_tiled(run: Run, picture: Array, rule: TileRule) -> Array:
    """`run` (1, C, h, w) -> (1, C2, h, w) over a picture (C, H, W) float32 of any size; returns (C2, H, W) float32.

    What `run` raises is raised: `TiledNetwork` is what makes do with less memory.
    """
    canvas = Canvas(picture, rule)
    for places in canvas.batches(1):
        canvas.paste(places, run(canvas.cut(places)))
    return canvas.result()


@dataclass(frozen=True)
class Pace:
    """What is asked of the device at once."""

    largest: int  # px, as in TileRule
    batch: int
    in_flight: int = 2  # calls: while one computes, the next is cut and copied


class Held:
    """An engine and how many calls are using it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.users = 0
        self.retired = False
        self.told = False  # that it runs in smaller tiles


class TiledNetwork:
    """`(C, H, W) float32 -> (C2, H, W) float32` through an engine; may be called from several threads.

    Where memory runs out the picture is done again with smaller batches, then in smaller tiles, and at last on the
    engines that `fallbacks` open (another precision, the CPU), in their order; what fitted is remembered and `say` is
    told once where it ended. The answer stays the same within rounding: tiles never become smaller than the network's
    reach allows. Without a fallback that is left, OutOfMemory is raised. The engine belongs to the network from now on.
    """

    def __init__(
        self,
        engine: Engine,
        input_name: str,
        output_name: str,
        rule: TileRule,
        say: Callable[[str], None] = lambda line: None,
        fallbacks: Sequence[Callable[[], Engine]] = (),
    ) -> None:
        self.rule = rule
        self._names = input_name, output_name
        self._say = say
        self._fallbacks = list(fallbacks)
        self._lock = threading.Lock()
        self._held = Held(engine)
        self._pace = Pace(rule.largest, rule.batch)
        self._news = ""  # which engine ran out of memory, until it is said
        self._ended = False

    @property
    def engine(self) -> Engine:
        """The one in use."""
        return self._held.engine

    def __call__(self, picture: Array) -> Array:
        """Raises InputError for what is not a float32 picture, EngineError, and OutOfMemory where nothing fitted."""
        while True:
            with self._lock:
                if self._ended:
                    raise EngineError("this network was closed; open it again")
                held, pace = self._held, self._pace
                held.users += 1
            canvas = Canvas(picture, self.rule, pace.largest)
            failure: OutOfMemory | None = None
            try:
                self._run(held.engine, canvas, pace)
            except OutOfMemory as error:
                failure = error
            finally:
                self._leave(held)
            if failure is None:
                self._tell()
                return canvas.result()
            self._step_down(held, pace, canvas, failure)

    def close(self) -> None:
        with self._lock:
            self._ended = True
            self._held.retired = True
            idle = self._held.users == 0
        if idle:
            self._held.engine.close()

    def _run(self, engine: Engine, canvas: Canvas, pace: Pace) -> None:
        asked, answer = self._names
        pending: deque[tuple[list[tuple[int, int]], Future[dict[str, Array]]]] = deque()
        try:
            for places in canvas.batches(pace.batch):
                if len(pending) == pace.in_flight:
                    earlier, future = pending.popleft()
                    canvas.paste(earlier, future.result()[answer])
                pending.append((places, engine.submit({asked: canvas.cut(places)})))
            while pending:
                earlier, future = pending.popleft()
                canvas.paste(earlier, future.result()[answer])
        finally:
            wait([future for _, future in pending])  # what is still under way holds memory that the next try needs

    def _leave(self, held: Held) -> None:
        with self._lock:
            held.users -= 1
            last = held.retired and held.users == 0
        if last:
            held.engine.close()

    def _step_down(self, held: Held, pace: Pace, canvas: Canvas, failure: OutOfMemory) -> None:
        with self._lock:
            if self._ended or held is not self._held or pace != self._pace:
                return  # another thread was faster
            tiles = canvas.tiles
            batch = min(pace.batch, tiles.count)
            if batch > 1:
                self._pace = replace(pace, batch=batch // 2)
            elif pace.in_flight > 1 and tiles.count > 1:
                self._pace = replace(pace, batch=1, in_flight=1)
            else:
                largest = max(self.rule.minimum, math.isqrt(tiles.area) // 2)
                if plan_tiles(canvas.height, canvas.width, self.rule, largest).area < tiles.area:
                    self._pace = Pace(largest, 1, 1)
                else:
                    self._replace_engine(failure)
            if not self._held.told:
                self._news = self._news or describe(held.engine)

    def _replace_engine(self, failure: OutOfMemory) -> None:
        """Called with the lock held. The old engine goes first: the new one may need its memory."""
        old, reasons = self._held, [str(failure)]
        if self._fallbacks:
            old.retired = True
            if old.users == 0:
                old.engine.close()
        while self._fallbacks:
            try:
                self._held = Held(self._fallbacks.pop(0)())
            except EngineError as error:
                reasons.append(str(error))
            else:
                self._pace = Pace(self.rule.largest, self.rule.batch)
                return
        self._ended = old.retired
        raise OutOfMemory(
            f"out of memory on {describe(old.engine)}, in the smallest tiles too ({'; '.join(reasons)}); close other "
            "programs or choose another device"
        ) from failure

    def _tell(self) -> None:
        with self._lock:
            if not self._news:
                return
            full, self._news, self._held.told = self._news, "", True
            now = describe(self._held.engine)
            largest, batch = self._pace.largest, self._pace.batch
        parts = [] if now == full else [f"with {now}"]
        if largest < self.rule.largest:
            parts.append(f"in tiles of at most {largest}x{largest} px")
        elif now == full:
            parts.append("one tile at a time" if batch == 1 else f"{batch} tiles at a time")
        self._say(f"out of memory on {full}; going on {' '.join(parts)}")


def describe(engine: Engine) -> str:
    return f"{engine.name} ({engine.device}, {engine.precision})"
