"""What passes between the parts: boxes, regions, frames, and the protocols of restorers, finders and engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.contract import Engine as Engine  # part of what restorers are made of
from restore_plugin.arguments import LARGEST_SEED
from restore_plugin.errors import InputError

# element types stand in the comments: numpy's stubs widen float32 at every step
Pixels: TypeAlias = npt.NDArray[Any]  # (H, W, 3) float32 RGB in [0, 1], gamma-encoded
Mask: TypeAlias = npt.NDArray[np.bool_]  # (H, W), True = restore
Luma: TypeAlias = npt.NDArray[Any]  # (H, W) float32 in [0, 1]
Image: TypeAlias = npt.NDArray[Any]  # (H, W, 3) RGB uint8, uint16 or float32
Point: TypeAlias = tuple[int, int]

FOUND, BETWEEN, BEYOND = "found", "between", "beyond"  # seen; between two sightings; before the first, after the last
ORIGINS = (FOUND, BETWEEN, BEYOND)


@dataclass(frozen=True)
class Box:
    """Whole pixels: columns x to x + width, rows y to y + height, the ends not included."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def area(self) -> int:
        return self.width * self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of a (H, W) array."""
        return slice(self.y, self.bottom), slice(self.x, self.right)

    @staticmethod
    def between(x0: int, y0: int, x1: int, y1: int) -> Box:
        return Box(x0, y0, x1 - x0, y1 - y0)

    def intersect(self, other: Box) -> Box:
        """The common part; width or height is 0 where there is none."""
        x0, y0 = max(self.x, other.x), max(self.y, other.y)
        return Box(x0, y0, max(0, min(self.right, other.right) - x0), max(0, min(self.bottom, other.bottom) - y0))

    def grow(self, x: int, y: int, within: Box) -> Box:
        """Wider by x px and higher by y px on either side, as far as `within` goes."""
        return Box(self.x - x, self.y - y, self.width + 2 * x, self.height + 2 * y).intersect(within)

    def shift(self, x: int, y: int) -> Box:
        return Box(self.x + x, self.y + y, self.width, self.height)


@dataclass(frozen=True)
class Region:
    """One place to restore in one frame.

    `outline`: polygons in picture coordinates (filled, even-odd) inside `box`; empty = the whole box. `soft`: px inside
    of it over which the change fades in.
    `block`, `phase` (mosaics only): size of the blocks and position of one grid line, (x, y) in px; need not be whole.
    Faces only: `label`, who it is ("person-2"), empty where that is not known; `maybe`, others whom it may be as well;
    `origin`, how it is known in this frame, one of ORIGINS; `doubt`, why a person should look at this frame.
    """

    box: Box
    id: int = 0
    block: tuple[float, float] | None = None
    phase: tuple[float, float] = (0.0, 0.0)
    outline: tuple[tuple[Point, ...], ...] = ()
    confidence: float = 1.0
    label: str = ""
    origin: str = FOUND
    maybe: tuple[str, ...] = ()
    doubt: str = ""
    soft: int = 0

    def mask(self) -> Mask:
        """(box.height, box.width): True inside the outline."""
        if not self.outline:
            return np.ones((self.box.height, self.box.width), bool)
        import cv2

        drawn = np.zeros((self.box.height, self.box.width), np.uint8)
        origin = np.array([self.box.x, self.box.y])
        cv2.fillPoly(drawn, [np.array(polygon, np.int32) - origin for polygon in self.outline], 1)
        return drawn.astype(bool)

    def shift(self, x: int, y: int) -> Region:
        """The same region seen from an origin at (-x, -y)."""
        return replace(
            self,
            box=self.box.shift(x, y),
            phase=(self.phase[0] + x, self.phase[1] + y),
            outline=tuple(tuple((px + x, py + y) for px, py in polygon) for polygon in self.outline),
        )


class Frame(Protocol):
    """What was decoded, and its exact time. Pixels outside a written region stay as they are, to the bit."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def pts(self) -> int | None: ...
    @property
    def time_base(self) -> Fraction | None: ...
    @property
    def turns(self) -> int:
        """Quarter turns counter-clockwise that show the picture upright, 0 to 3; boxes are of the picture as stored."""
        ...

    def luma(self) -> Luma:
        """The whole picture's brightness, [0, 1], gamma-encoded."""
        ...

    def overview(self, longest: int) -> Image:
        """The whole picture as RGB uint8, its longer side reduced to `longest` px: to look at, not to restore."""
        ...

    def read_rgb(self, box: Box, clipped: bool = True) -> Pixels:
        """Unless `clipped`, whites beyond white and blacks beyond black are told as they are stored."""
        ...

    def write_rgb(self, box: Box, rgb: Pixels, mask: Mask) -> None:
        """Replace the pixels under `mask`; both are of the box's size."""
        ...


@dataclass(frozen=True)
class Needs:
    """What a restorer asks of its caller."""

    context: int = 0  # frames before and after
    minimum: int = 1  # px, smallest side
    multiple: int = 1  # px, sides are multiples of this
    scale: int = 1  # output px for an input px
    holes: bool = False  # what a mask hides says nothing: it is shown all that is hidden near a region, not it alone
    replaces: bool = False  # nothing of what was there stays, whites beyond white neither; else these stay beyond it
    upright: bool = False  # it knows what falls down: it gets sideways frames turned, and then no region


@dataclass(frozen=True)
class HideOptions:
    """How faces are hidden. `colour`: RGB in [0, 1], of the method solid. `picture`: the file that the method picture
    puts in their place."""

    colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    picture: Path | None = None


@dataclass(frozen=True)
class RestoreOptions:
    """What a user may tell every restorer; each uses what concerns it.

    `linear_light`: a mosaic's means were taken in linear light, as GIMP does, not of the stored values. `seed`: of what
    is drawn at random; the same seed gives the same picture.
    """

    linear_light: bool = False
    seed: int = 0
    hide: HideOptions = field(default_factory=HideOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.seed, (int, np.integer)) or not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"expected a seed that is a whole number from 0 to 2**53, got {self.seed}")


@dataclass(frozen=True)
class ScanOptions:
    """What a user may tell every finder; each uses what concerns it.

    `known`: portraits of people to look for. `margin`: how much larger than a face its cover is. `boxes`: covers are
    boxes, not ellipses.
    """

    known: tuple[Path, ...] = ()
    margin: float = 1.4
    boxes: bool = False


@dataclass(frozen=True)
class Support:
    """What a restorer does when its engine's memory is short: `say` it, and go on with what `fallbacks` open.

    `check` hears now and then which share of a call is done, and may raise to end it: restorers that compute long
    without an engine ask it.
    """

    say: Callable[[str], None] = lambda line: None
    fallbacks: tuple[Callable[[], Engine], ...] = ()
    check: Callable[[float], None] = lambda share: None


class Restorer(Protocol):
    """`(pixels, mask, neighbours, region) -> pixels`, without hidden state.

    `pixels`: RGB crop. `mask`: True = restore; None for tasks on whole frames. It marks more than the region where
    `needs.holes`; what comes back counts in the region alone. `neighbours`: crops of the frames before and after, as
    many as `needs.context` asks for. `region`: where the crop's region lies (in the crop's coordinates) and what is
    known about it.
    """

    @property
    def needs(self) -> Needs: ...
    def margin(self, region: Region) -> tuple[int, int]:
        """Surroundings (x, y in px) that it wants to see around a region."""
        ...

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels: ...


Sightings: TypeAlias = Iterable[tuple[int, Sequence[Region]]]  # (frame, its regions), frames growing


class Finder(Protocol):
    """Finds what a task restores."""

    def find(self, frame: Frame) -> list[Region]:
        """In one picture by itself."""
        ...

    def measure(self, frame: Frame, mask: Mask) -> Region | None:
        """The region that `mask` (of the picture's size) marks, with what the task needs to know; None if unclear."""
        ...

    def candidates(self, frame: Frame) -> list[Region]:
        """All that may be one, for `link` to judge."""
        ...

    def link(self, video: Video) -> Sightings:
        """Every frame's regions, judged over time: numbered, gaps filled, flashes dropped."""
        ...


@dataclass(frozen=True)
class Video:
    """A video between two passes. `candidates` and `frames` begin anew with every call; `rate`: frames a second."""

    candidates: Callable[[], Sightings]
    frames: Callable[[], Iterator[Frame]]
    rate: float
