"""The account of the faces in a video, from its plan and its pictures, and the pages that show it."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffmpeg_filters.asked import Span
from ffmpeg_filters.frames import PlanesFrame
from ffmpeg_filters.reader import VideoInfo, read_frames
from restore_plugin import plan as plans
from restore_plugin.account import Account, Person, Shot, Suspect, merged
from restore_plugin.choice import Choice
from restore_plugin.errors import OutputError
from restore_plugin.types import BETWEEN, BEYOND, FOUND, Box, Region

SHOTS = 6  # pictures of a person
SHOT_PX, SUSPECT_PX = 160, 480
MOST_SUSPECTS = 200  # with a picture
APART_SECONDS = 0.4  # between two pictures of one track
AROUND = 0.35  # of a face's cover is seen around it


@dataclass
class Track:
    """What a plan says of one id."""

    label: str = ""
    frames: int = 0
    spans: list[tuple[float, float]] = field(default_factory=list)
    best: list[tuple[float, int, Region]] = field(default_factory=list)  # worth, frame; a heap of the best

    def add(self, frame: int, start: float, end: float, region: Region, apart: int) -> None:
        self.label = region.label
        self.frames += 1
        self.spans = list(merged([*self.spans, (start, end)], gap_seconds=1e-3))
        worth = region.confidence * min(150.0, region.box.area**0.5) if region.origin == FOUND else 0.0
        near = [entry for entry in self.best if abs(entry[1] - frame) < apart]
        if near and near[0][0] >= worth:
            return
        for entry in near:
            self.best.remove(entry)
        self.best.append((worth, frame, region))
        self.best = heapq.nlargest(SHOTS, self.best, key=lambda entry: (entry[0], -entry[1]))


def account_of(info: VideoInfo, plan: Path, task: str, choice: Choice, span: Span) -> Account:
    """Of what a plan says of a span. Reads the plan, then the video once for the pictures."""
    tracks: dict[int, Track] = {}
    doubtful: list[tuple[int, Region]] = []
    counts = dict.fromkeys((FOUND, BETWEEN, BEYOND), 0)
    frames_with_faces = spared = 0
    times = [*info.times(), info.seconds]
    apart = max(1, round(APART_SECONDS * info.rate))
    with plans.PlanReader(plan, task) as reader:
        for index, regions in reader:
            if index >= info.frames or not span.holds(times[index]):
                continue
            frames_with_faces += 1
            faces: dict[int, Region] = {}
            for region in regions:
                faces.setdefault(region.id, region)  # one face may be under two covers
            for region in faces.values():
                track = tracks.setdefault(region.id, Track())
                track.add(index, times[index], times[index + 1], region, apart)
                if not choice.hides(region):
                    spared += 1
                    continue
                counts[region.origin] += 1
                if region.doubt:
                    doubtful.append((index, region))
    pictures = {index: [region for at, region in doubtful if at == index] for index, _ in doubtful[:MOST_SUSPECTS]}
    chosen = {number: track.best for number, track in tracks.items()}
    shots, frames = photographed(info, chosen, pictures)
    people: dict[Any, list[int]] = {}
    for number, track in sorted(tracks.items()):
        people.setdefault(track.label or number, []).append(number)
    return Account(
        info.path.name,
        info.width,
        info.height,
        info.seconds,
        info.frames,
        frames_with_faces,
        counts[FOUND],
        counts[BETWEEN],
        counts[BEYOND],
        spared,
        tuple(person(numbers, tracks, shots) for numbers in people.values()),
        tuple(
            Suspect(index, times[index], region.id, region.label, region.doubt, frames.get(index, b""))
            for index, region in doubtful
        ),
        hidden_labels(choice, (track.label for track in tracks.values())),
    )


def hidden_labels(choice: Choice, labels: Iterable[str]) -> tuple[str, ...] | None:
    if not choice.only and not choice.spared:
        return None
    return tuple(
        dict.fromkeys(label for label in labels if label and choice.hides(Region(Box(0, 0, 1, 1), label=label)))
    )


def person(numbers: list[int], tracks: dict[int, Track], shots: dict[int, list[tuple[float, Shot]]]) -> Person:
    mine = [tracks[number] for number in numbers]
    best = sorted((entry for number in numbers for entry in shots.get(number, [])), key=lambda entry: -entry[0])
    return Person(
        mine[0].label,
        tuple(numbers),
        sum(track.frames for track in mine),
        merged((span for track in mine for span in track.spans), gap_seconds=1e-3),
        tuple(shot for _, shot in best[:SHOTS]),
    )


def photographed(
    info: VideoInfo, chosen: dict[int, list[tuple[float, int, Region]]], pictures: dict[int, list[Region]]
) -> tuple[dict[int, list[tuple[float, Shot]]], dict[int, bytes]]:
    """Pictures of the chosen faces by track, and of whole frames with their doubtful places marked."""
    wanted: dict[int, list[tuple[int, float, Region]]] = {}
    for number, best in chosen.items():
        for worth, index, region in best:
            wanted.setdefault(index, []).append((number, worth, region))
    last = max([*wanted, *pictures], default=-1)
    shots: dict[int, list[tuple[float, Shot]]] = {}
    frames: dict[int, bytes] = {}
    for frame in until(read_frames(info), last):
        for number, worth, region in wanted.get(frame.index, ()):
            shot = Shot(frame.index, info.seconds_of(frame), face_picture(frame, region))
            shots.setdefault(number, []).append((worth, shot))
        if frame.index in pictures:
            frames[frame.index] = frame_picture(frame, pictures[frame.index])
    return shots, frames


def until(frames: Iterator[PlanesFrame], last: int) -> Iterator[PlanesFrame]:
    for frame in frames:
        if frame.index > last:
            return
        yield frame


def face_picture(frame: PlanesFrame, region: Region) -> bytes:
    box = region.box
    whole = Box(0, 0, frame.width, frame.height)
    around = box.grow(round(AROUND * box.width), round(AROUND * box.height), within=whole)
    rgb = np.rot90(np.round(frame.read_rgb(around) * 255).astype(np.uint8), frame.turns)
    scale = SHOT_PX / max(rgb.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return jpeg(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=how))


def frame_picture(frame: PlanesFrame, regions: list[Region]) -> bytes:
    rgb = frame.overview(SUSPECT_PX).copy()
    scale = rgb.shape[1] / frame.width
    for region in regions:
        corners = np.array([[region.box.x, region.box.y], [region.box.right, region.box.bottom]]) * scale
        (x0, y0), (x1, y1) = corners.round().astype(int).tolist()
        cv2.rectangle(rgb, (x0, y0), (x1, y1), (255, 60, 40), 2)
    return jpeg(np.rot90(rgb, frame.turns))


def jpeg(rgb: Any) -> bytes:
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85]
    )
    assert ok
    return data.tobytes()


def write_text(path: Path, text: str) -> None:
    """Under its name only when complete. Raises OutputError."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written: {error.strerror}; choose another place with -o") from None


def write_account(account: Account, page: str, path: Path) -> None:
    """`path` with the suffixes .html and .json."""
    write_text(path.with_name(path.name + ".html"), page)
    write_text(path.with_name(path.name + ".json"), json.dumps(account.to_json(), indent=1) + "\n")
