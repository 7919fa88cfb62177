"""The plan of a video: every frame is looked at, then what was found is linked over time. Goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ffmpeg_filters.asked import Builders, Job, ResumeFolder
from ffmpeg_filters.frames import PlanesFrame
from ffmpeg_filters.progress import Progress
from ffmpeg_filters.reader import VideoInfo, read_frames
from restore_plugin import plan as plans
from restore_plugin.catalog import task
from restore_plugin.errors import NothingFound
from restore_plugin.pipeline import staged
from restore_plugin.regions import clip
from restore_plugin.types import Finder, Region, Video

Look = Callable[[PlanesFrame], list[Region]]


def look(job: Job, finder: Finder, find: Look, frame: PlanesFrame, seconds: float) -> list[Region]:
    """What there is to restore in one frame: found, or measured in the places given by hand."""
    if not job.span.holds(seconds):
        return []
    if not job.hand:
        return find(frame)
    regions = []
    for hand in job.hand:
        if not hand.span.holds(seconds):
            continue
        mask = np.zeros((frame.height, frame.width), bool)
        mask[hand.region.box.slices] = True
        region = hand.region if hand.region.block else finder.measure(frame, mask)
        if region is not None:
            regions.append(region)
    return regions


def make_plan(job: Job, info: VideoInfo, folder: ResumeFolder, build: Builders, progress: Progress) -> Path:
    """The plan file in the resume folder: from regions that were given whole, or from a scan."""
    if folder.plan.exists():
        return folder.plan
    if job.hand and job.measured:
        write_hand_plan(job, info, folder.plan)
        return folder.plan
    return scan(job, info, folder.plan, folder.detections, build.finder(), progress)


def write_hand_plan(job: Job, info: VideoInfo, path: Path) -> None:
    with plans.PlanWriter(path, job.task, plans.fingerprint(job.source)) as writer:
        for index, seconds in enumerate(info.times()):
            regions = [hand.region for hand in job.hand if hand.span.holds(seconds) and job.span.holds(seconds)]
            writer.add(index, seconds, regions)


def scan(job: Job, info: VideoInfo, plan: Path, detections: Path, finder: Finder, progress: Progress) -> Path:
    """Look at every frame, link what was found over time, write the plan. Raises NothingFound."""
    seen = _detections_so_far(detections)
    progress.stage("scanning", info.frames, seen)
    with detections.open("a", encoding="utf-8") as file:

        def work(frame: PlanesFrame) -> tuple[PlanesFrame, list[Region] | None]:
            if frame.index < seen:
                return frame, None
            return frame, look(job, finder, finder.candidates, frame, info.seconds_of(frame))

        for frame, regions in staged(read_frames(info, progress.warn), work, 4):
            if regions is None:
                continue
            entry = {"frame": frame.index, "seconds": round(info.seconds_of(frame), 4)}
            file.write(json.dumps({**entry, "regions": [plans.region_to_json(region) for region in regions]}) + "\n")
            progress.step()
    rate = progress.end()

    def frames() -> Iterator[PlanesFrame]:
        progress.stage("following", info.frames)
        for frame in read_frames(info):  # the scan has told what is wrong with the input
            yield frame
            progress.step()
        progress.end()

    name = task(job.task).finder
    times = dict(_detection_times(detections))
    video = Video(lambda: _read_detections(detections), frames, float(info.rate))
    with plans.PlanWriter(plan, job.task, plans.fingerprint(job.source)) as writer:
        for index, linked in finder.link(video):
            inside = (clip(region, info.width, info.height) for region in linked)
            writer.add(index, times.get(index), [region for region in inside if region is not None])
        if not writer.frames:
            raise NothingFound(f"no {name} was found in {job.source}; nothing was written (give places with --regions)")
    progress.say(
        f"found {writer.tracks} {name}{'s' * (writer.tracks != 1)} in {writer.frames} frames ({rate:.1f} frames/s)"
    )
    return plan


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a file that a run may have left in the middle of a word."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            yield json.loads(line)


def _detections_so_far(path: Path) -> int:
    """How many frames were looked at; what follows the last complete line is cut off."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        count = end = 0
        for line in file:
            if line.endswith(b"\n"):
                count, end = count + 1, end + len(line)
        file.truncate(end)
    return count


def _read_detections(path: Path) -> Iterator[tuple[int, list[Region]]]:
    for entry in _lines(path):
        yield entry["frame"], [plans.region_from_json(region) for region in entry["regions"]]


def _detection_times(path: Path) -> Iterator[tuple[int, float]]:
    for entry in _lines(path):
        yield entry["frame"], entry["seconds"]
