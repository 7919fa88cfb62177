"""What the tests of hiding faces share: clips with a known truth, a finder that knows it, and looks at what came of it.

A photograph's face lies in another photograph. Outputs are compared with the plan sample by sample.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media import QUICK_X264
from skimage import data

from ffmpeg_filters.cli import main
from restore_plugin import catalog
from restore_plugin import plan as plans
from restore_plugin.account import Account
from restore_plugin.errors import MissingExtra
from restore_plugin.masks.covers import cover
from restore_plugin.masks.people import Describer
from restore_plugin.types import BETWEEN, BEYOND, FOUND, Box, Finder, Frame, Mask, Region, ScanOptions, Sightings, Video

SIZE = (320, 240)
HEAD_PX = 90
HEAD = Box(125, 20, 200, 200)  # of the astronaut, with hair and collar
INNER = Box(26, 22, 40, 50)  # brow to chin, in HEAD_PX; CenterFace's own box is larger
TASK = ("--task", "automosaic")
RATE = 25
Place = tuple[int, int]


# --- pictures and clips


@lru_cache
def background() -> np.ndarray:
    return cv2.resize(data.coffee(), SIZE, interpolation=cv2.INTER_AREA)


@lru_cache
def head() -> np.ndarray:
    return cv2.resize(data.astronaut()[HEAD.slices], (HEAD_PX, HEAD_PX), interpolation=cv2.INTER_AREA)


def scene(*places: Place) -> np.ndarray:
    """The face with its upper left corner in these places, as far as the picture goes."""
    picture = background().copy()
    for x, y in places:
        inside = Box(x, y, HEAD_PX, HEAD_PX).intersect(Box(0, 0, *SIZE))
        picture[inside.slices] = head()[inside.shift(-x, -y).slices]
    return picture


def way(frames: int, start: Place = (15, 30), step: tuple[float, float] = (3.0, 1.5)) -> list[Place]:
    return [(round(start[0] + at * step[0]), round(start[1] + at * step[1])) for at in range(frames)]


def film(path: Path, pictures: Sequence[np.ndarray], codec: str = "ffv1", turns: int = 0, sound: bool = False) -> Path:
    """`turns`: stored so that a display matrix of as many quarter turns shows the pictures upright."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=QUICK_X264 if codec == "libx264" else {})
        stored = [np.ascontiguousarray(np.rot90(picture, -turns)) for picture in pictures]
        stream.height, stream.width = stored[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if turns:
            stream.set_display_rotation(90 * turns)
        voice = container.add_stream("pcm_s16le", rate=48000) if sound else None
        for number, picture in enumerate(stored):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if voice is not None:
            tone = 9000 * np.sin(np.arange(len(pictures) * 48000 // RATE) * 0.06)
            frame = av.AudioFrame.from_ndarray(
                np.stack([tone, tone], 1).reshape(1, -1).astype(np.int16), "s16", "stereo"
            )
            frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), 0
            container.mux(voice.encode(frame) + voice.encode())
    return path


def planes_of(path: Path) -> Iterator[list[np.ndarray]]:
    """Y, U, V of every frame."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            rows = frame.to_ndarray()  # yuv420p: U and V below Y
            height, width = frame.height, frame.width
            size = (height // 2, width // 2)
            u, v = rows[height:].reshape(2, *size)
            yield [rows[:height], u, v]
            assert rows.shape == (height * 3 // 2, width)


def shown(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def hear(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in container.decode(audio=0)])


# --- finders


@dataclass
class Truth:
    """A Finder that knows: regions by frame."""

    regions: dict[int, list[Region]]
    looked: int = 0

    def find(self, frame: Frame) -> list[Region]:
        return self.regions.get(frame.index, [])

    def measure(self, frame: Frame, mask: Mask) -> Region | None:
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        return Region(Box(x, y, width, height))

    def candidates(self, frame: Frame) -> list[Region]:
        self.looked += 1
        return self.find(frame)

    def link(self, video: Video) -> Sightings:
        return ((frame, regions) for frame, regions in video.candidates() if regions)


def face_at(place: Place, number: int = 1, label: str = "", origin: str = FOUND, doubt: str = "") -> Region:
    box = INNER.shift(*place)
    made = cover((box.x, box.y, box.right, box.bottom), *SIZE, ScanOptions())
    return replace(made, id=number, label=label, origin=origin, doubt=doubt, confidence=0.9)


@lru_cache
def detector() -> Finder:
    """The real one, with all that following and recognising need. Skips where that is not installed."""
    try:
        Describer()
        found = catalog.build_finder(catalog.task("automosaic"))
    except MissingExtra:
        if os.environ.get("REQUIRE_FACES") == "1":
            raise
        pytest.skip("needs the extra `faces`")
    assert found is not None
    return found


# --- what came of it


def regions_of(plan: Path) -> dict[int, list[Region]]:
    with plans.PlanReader(plan, "automosaic") as reader:
        return dict(reader)


def mask_of(regions: Sequence[Region], size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros((size[1], size[0]), bool)
    for region in regions:
        mask[region.box.slices] |= region.mask()
    return mask


def check_only_inside(
    source: Path, output: Path, hidden: dict[int, list[Region]], size: tuple[int, int] = SIZE
) -> None:
    """Outside of the regions every sample is as it was; inside most are not."""
    count = 0
    for index, (before, after) in enumerate(zip(planes_of(source), planes_of(output), strict=True)):
        mask = mask_of(hidden.get(index, ()), size)
        blocks = mask.reshape(size[1] // 2, 2, size[0] // 2, 2).any((1, 3))
        for old, new, inside in zip(before, after, (mask, blocks, blocks), strict=True):
            np.testing.assert_array_equal(old[~inside], new[~inside])
        if mask.any():
            assert (before[0] != after[0])[mask].mean() > 0.8, index
            count += 1
    assert count == len(hidden)


def account_of(report: Path) -> Account:
    told = Account.from_json(json.loads(report.with_name(report.name + ".json").read_text(encoding="utf-8")))
    page = report.with_name(report.name + ".html").read_text(encoding="utf-8")
    assert told.source in page
    return told


def check_counts(account: Account, plan: Path) -> None:
    """The account says what the plan says."""
    regions = regions_of(plan)
    every = [region for frame in regions.values() for region in {each.id: each for each in frame}.values()]
    assert account.frames_with_faces == len(regions)
    for origin, count in ((FOUND, account.found), (BETWEEN, account.between), (BEYOND, account.beyond)):
        assert count == sum(region.origin == origin for region in every)
    assert sum(person.frames for person in account.people) == len(every)
    assert {track for person in account.people for track in person.tracks} == {region.id for region in every}
    assert {suspect.frame for suspect in account.suspects} == {
        frame for frame, found in regions.items() if any(region.doubt for region in found)
    }


def run(*arguments: object) -> int:
    return main([str(each) for each in arguments])


def fails(capfd: pytest.CaptureFixture[str], folder: Path, code: int, *arguments: object) -> str:
    """Returns the one line that says why; nothing was written."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capfd.readouterr()
    assert run(*arguments) == code
    lines = capfd.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("restore-video") and ": error: argument" not in line] or lines[
        -1:
    ]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not list(folder.rglob(".*.resume"))
    return line


@dataclass(frozen=True)
class Done:
    """A clip after `restore-video faces` and after the task itself."""

    source: Path
    plan: Path
    output: Path
    code: int

    @property
    def report(self) -> Account:
        return account_of(self.output.with_name(f"{self.output.name}.report"))


def both(source: Path, *options: object) -> Done:
    plan, output = (
        source.with_name(f"{source.stem}.plan.jsonl"),
        source.with_name(f"{source.stem}.hidden{source.suffix}"),
    )
    assert run("faces", source, "--quiet") == 0
    return Done(source, plan, output, run(source, *TASK, *options, "--quiet"))
