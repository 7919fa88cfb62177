"""One video: scan (what is to restore), render (restore it), finish (the output file). Scan and render both resume.

What is done so far lies in a folder beside the output, `.NAME.resume`: the scan's detections, the plan, and the encoded
video. It is removed when the output is complete, and used by the next run of the same job.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np

import restore_plugin
from ffmpeg_filters.encoders import EncodeOptions, choose, open_encoder, pixel_format_for
from ffmpeg_filters.frames import PlanesFrame
from ffmpeg_filters.mux import Muxer
from ffmpeg_filters.progress import Progress
from ffmpeg_filters.reader import VideoInfo, first_frame, open_input, probe, read_frames, reason, video_stream
from ffmpeg_filters.spool import PART_FRAMES, Coded, Spool
from ffmpeg_filters.voice import VoiceOptions
from restore_plugin import plan as plans
from restore_plugin.catalog import EngineOptions, task
from restore_plugin.choice import Choice
from restore_plugin.errors import InputError, NothingFound, OutputError, RestoreError
from restore_plugin.pipeline import flow, staged, with_neighbours
from restore_plugin.regions import clip, restore_frame, whole
from restore_plugin.types import Box, Finder, Pixels, Region, RestoreOptions, Restorer, ScanOptions, Video

RESTORED = "restored by restore-plugin {version} ({task}, {method}): restored pixels are plausible, not evidence"
CHANGED = "changed by restore-plugin {version} ({task}, {method})"  # where nothing is invented


@dataclass(frozen=True)
class Span:
    """Seconds of the video, from its first frame's time zero; frames outside pass through."""

    start: float = 0.0
    end: float = float("inf")

    def holds(self, seconds: float) -> bool:
        return self.start - 1e-6 <= seconds < self.end


@dataclass(frozen=True)
class HandRegion:
    """A region that the user gave, for a span of time."""

    region: Region
    span: Span = Span()


@dataclass(frozen=True)
class Job:
    """What to do with one file; everything that changes the result is here."""

    source: Path
    target: Path
    task: str
    method: str
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    span: Span = Span()
    hand: tuple[HandRegion, ...] = ()
    plan: Path | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    restore: RestoreOptions = field(default_factory=RestoreOptions)
    scan: ScanOptions = field(default_factory=ScanOptions)
    choice: Choice = field(default_factory=Choice)
    voice: VoiceOptions = field(default_factory=VoiceOptions)

    def settings(self) -> dict[str, Any]:
        """For the resume folder: a run with other settings starts anew."""
        plan = plans.fingerprint(self.plan) if self.plan else None
        told = {key: value for key, value in asdict(self).items() if key not in ("source", "target", "plan")}
        source = plans.fingerprint(self.source)
        settings = {"version": restore_plugin.__version__, "source": source, "plan": plan, **told}
        return json.loads(json.dumps(settings, default=str))

    @property
    def note(self) -> str:
        """What the output's metadata say."""
        text = RESTORED if task(self.task).invents else CHANGED
        return text.format(version=restore_plugin.__version__, task=self.task, method=self.method)

    @property
    def measured(self) -> bool:
        """Whether places that were given by hand are known well enough, or need no measuring."""
        return not task(self.task).measures or all(hand.region.block for hand in self.hand)


@dataclass(frozen=True)
class Builders:
    """Built when first needed: opening a network takes a second, and much bad input is told before."""

    restorer: Callable[[], Restorer]
    finder: Callable[[], Finder]
    whole_frames: bool = False  # the method need not be told where: without regions it restores all of a frame


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


class ResumeFolder:
    """`.NAME.resume` beside the output. Raises OutputError where it cannot be made."""

    def __init__(self, target: Path, settings: dict[str, Any]) -> None:
        self.path = target.with_name(f".{target.name}.resume")
        state = self.path / "job.json"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and not (state.exists() and state.read_text() == json.dumps(settings)):
                shutil.rmtree(self.path)
            self.resumed = self.path.exists()
            self.path.mkdir(exist_ok=True)
            state.write_text(json.dumps(settings))
        except OSError as error:
            raise OutputError(
                f"{target} could not be written: {error.strerror}; choose another place with -o"
            ) from None
        self.detections = self.path / "detections.jsonl"
        self.plan = self.path / "plan.jsonl"
        self.spool = self.path / "video.spool"
        self.report = self.path / "report"
        self.suspects = self.path / "suspects"

    @property
    def holds_work(self) -> bool:
        return self.detections.exists() or self.spool.exists()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def run(job: Job, build: Builders, progress: Progress) -> dict[str, Any]:
    """Restore one video. Returns what was done, for a report. Raises RestoreError; then no output is there."""
    info = probe(job.source)
    row = choose(info, job.encode)
    with open_input(job.source) as container:
        sample = first_frame(container, video_stream(container, job.source), job.source)
    muxer = Muxer(job.target, info, job.note, job.voice)
    pixel_format = pixel_format_for(row, job.encode, info)

    def open_next() -> Any:
        return open_encoder(row, job.encode, info, sample, global_header=True)

    extradata = open_next().extradata
    if job.plan:
        plans.check(job.plan, job.task, job.source, (info.width, info.height))
        job.choice.check(plans.labels(job.plan, job.task), job.plan.name)
    plans.check_inside([hand.region for hand in job.hand], (info.width, info.height))
    folder = ResumeFolder(job.target, job.settings())
    try:
        muxer.check(row, job.encode, sample, extradata)
        if folder.resumed and folder.holds_work:
            progress.say(f"going on with the run that was cut off ({folder.path})")
        restorer = build.restorer()  # what is wrong with its options is told before a long search
        plan = job.plan or (None if build.whole_frames else make_plan(job, info, folder, build, progress))
        if plan and not job.plan:
            job.choice.check(plans.labels(plan, job.task), "`restore-video faces`")
        if plan:
            check_planned(job, info, plan)
        frames = render(job, info, plan, folder, open_next, pixel_format, restorer, progress)
        if plan and task(job.task).people:
            write_account(job, info, plan, folder, progress)
        spool = Spool(folder.spool)
        spool.close()
        times = [packet.pts for packet in spool.packets()]
        progress.say(f"writing {job.target}")
        if shift := muxer.finish(spool.packets(), times, row, job.encode, sample, extradata):
            progress.say(f"all times moved by {shift * 1000:.0f} ms: {job.target.suffix} cannot start before zero")
        told = give_account(job, folder) if folder.suspects.exists() else {}
    except (InputError, NothingFound):
        folder.remove()
        raise
    except BaseException:
        if not folder.holds_work:
            folder.remove()
        raise
    folder.remove()
    return {"output": str(job.target), "frames": len(times), "restored_frames": frames, **told}


def check_planned(job: Job, info: VideoInfo, plan: Path) -> None:
    """Raises NothingFound where the plan has nothing to change in the time, or of the people, that were asked for."""
    times = list(info.times())
    with plans.PlanReader(plan, job.task) as reader:
        for index, regions in reader:
            if index < len(times) and job.span.holds(times[index]) and job.choice.of(regions):
                return
    raise NothingFound(
        f"nothing of {plan.name} lies in the time, or belongs to the people, asked for; nothing was written"
    )


def write_account(job: Job, info: VideoInfo, plan: Path, folder: ResumeFolder, progress: Progress) -> None:
    """The report's files, in the resume folder until the video is there."""
    from ffmpeg_filters import people
    from restore_plugin.face_pages import report_page

    progress.say("writing the report")
    account = people.account_of(info, plan, job.task, job.choice, job.span)
    people.write_account(account, report_page(account), folder.report)
    folder.suspects.write_text(str(len({suspect.frame for suspect in account.suspects})))


def give_account(job: Job, folder: ResumeFolder) -> dict[str, Any]:
    """Put the report beside the output; returns its name, and how many frames need a look."""
    pages = reports(job.target)
    for page in pages:
        os.replace(folder.report.with_suffix(page.suffix), page)
    return {"report": str(pages[0]), "suspects": int(folder.suspects.read_text())}


def reports(target: Path) -> tuple[Path, Path]:
    """What is written beside a video whose faces were hidden."""
    return target.with_name(f"{target.name}.report.html"), target.with_name(f"{target.name}.report.json")


def people_pages(plan: Path) -> tuple[Path, Path]:
    """What `restore-video faces` writes beside a plan."""
    name = plan.name.removesuffix(".jsonl").removesuffix(".plan")
    return plan.with_name(f"{name}.faces.html"), plan.with_name(f"{name}.faces.json")


def faces(job: Job, build: Builders, progress: Progress) -> dict[str, Any]:
    """Write the plan as the job's target, and beside it a page and JSON of the people found."""
    from ffmpeg_filters import people
    from restore_plugin.face_pages import people_page

    scan_only(job, build, progress)
    account = people.account_of(probe(job.source), job.target, job.task, Choice(), job.span)
    page, data = people_pages(job.target)
    people.write_account(account, people_page(account, str(job.source), str(job.target)), page.with_suffix(""))
    return {"page": str(page), "account": str(data), "people": len(account.people)}


def scan_only(job: Job, build: Builders, progress: Progress) -> int:
    """Write the plan alone, as the job's target; returns how many frames have regions."""
    info = probe(job.source)
    plans.check_inside([hand.region for hand in job.hand], (info.width, info.height))
    folder = ResumeFolder(job.target, job.settings())
    try:
        made = make_plan(job, info, folder, build, progress)
        os.replace(made, job.target)
    except RestoreError:
        folder.remove()
        raise
    folder.remove()
    return plans.check(job.target, job.task, job.source, (info.width, info.height))


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
    if not writer.frames:
        raise InputError("no frame lies in the time given for the regions; check --regions, --start and --end")


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


def render(
    job: Job,
    info: VideoInfo,
    plan: Path | None,
    folder: ResumeFolder,
    open_next: Callable[[], Any],
    pixel_format: str,
    restorer: Restorer,
    progress: Progress,
) -> int:
    """Decode, restore and encode side by side, into the spool. Returns how many frames were restored.

    Without a plan whole frames are restored, or in each the regions given by hand.
    """
    spool = Spool(folder.spool)
    reader = plans.PlanReader(plan, job.task) if plan else None
    done = spool.frames
    restored = 0
    progress.stage("restoring", info.frames, done)

    def planned() -> Iterator[tuple[PlanesFrame, Sequence[Region], Sequence[Pixels]]]:
        for frame, neighbours in with_neighbours(read_frames(info, warn), whole_rgb, restorer.needs.context):
            seconds = info.seconds_of(frame)
            regions = job.choice.of(reader.at(frame.index)) if reader else regions_without_plan(job, frame, seconds)
            wanted = frame.index >= done and job.span.holds(seconds)
            yield frame, regions if wanted else (), neighbours

    def work(item: tuple[PlanesFrame, Sequence[Region], Sequence[Pixels]]) -> tuple[PlanesFrame, int]:
        frame, regions, neighbours = item
        return frame, restore_frame(frame, regions, restorer, neighbours)

    # a scan has told what is wrong with the input
    warn = (lambda _: None) if folder.detections.exists() else progress.warn
    encoder = PartEncoder(spool, open_next, pixel_format)

    def sink(result: tuple[PlanesFrame, int]) -> None:
        nonlocal restored
        frame, regions = result
        if frame.index < done:
            return
        restored += bool(regions)
        pts = frame.pts or 0
        encoder.add(frame, pts, frame.frame.duration or info.gap_after(pts))
        progress.step()
        if (frame.index + 1) % PART_FRAMES == 0:
            encoder.close_part()

    try:
        flow(planned(), work, sink)
        encoder.close_part()
    except OSError as error:
        raise OutputError(
            f"{job.target} could not be written: {reason(error)}; free some space and run the same command again"
        ) from None
    finally:
        if reader:
            reader.close()
        spool.close()
    progress.end()
    return restored


def whole_rgb(frame: PlanesFrame) -> Pixels:
    return frame.read_rgb(Box(0, 0, frame.width, frame.height))


def regions_without_plan(job: Job, frame: PlanesFrame, seconds: float) -> list[Region]:
    if not job.hand:
        return whole(frame)
    return [hand.region for hand in job.hand if hand.span.holds(seconds)]


class PartEncoder:
    """Encodes frames into a spool, with an encoder of its own for every part."""

    def __init__(self, spool: Spool, open_next: Callable[[], Any], pixel_format: str) -> None:
        self.spool = spool
        self._open_next = open_next
        self._pixel_format = pixel_format
        self._encoder: Any = None
        self._durations: dict[int, int] = {}  # encoders do not all hand them on
        self._last = 0

    def add(self, frame: PlanesFrame, pts: int, duration: int) -> None:
        if self._encoder is None:
            self._encoder = self._open_next()
        self._durations[pts] = duration
        self._last = frame.index + 1
        picture = frame.frame
        picture.pict_type = 0  # the encoder chooses its own key frames
        if picture.format.name != self._pixel_format:
            picture = picture.reformat(format=self._pixel_format)
        self._drain(picture)

    def close_part(self) -> None:
        """The frames so far can be decoded without any that follow, and are safe."""
        if self._encoder is not None:
            self._drain(None)
            self.spool.close_part(self._last)
            self._encoder = None

    def _drain(self, frame: av.VideoFrame | None) -> None:
        try:
            packets = self._encoder.encode(frame)
        except av.error.FFmpegError as error:
            raise RestoreError(f"the encoder failed: {reason(error)}; try another --codec") from None
        for packet in packets:
            pts = packet.pts if packet.pts is not None else packet.dts
            self.spool.append(Coded(pts, pts, self._durations.pop(pts, 0), packet.is_keyframe, bytes(packet)))


def preview(job: Job, build: Builders, seconds: float, picture: Path) -> int:
    """Write a before/after picture of the frame at a time; returns how many regions it shows."""
    info = probe(job.source)
    if not 0 <= seconds <= info.seconds:
        raise InputError(f"expected a time within the video's {info.seconds:.2f} s, got {seconds}")
    frame = frame_at(info, seconds)
    whole = Box(0, 0, frame.width, frame.height)
    before = frame.read_rgb(whole)
    if job.plan:
        plans.check(job.plan, job.task, job.source, (info.width, info.height))
        job.choice.check(plans.labels(job.plan, job.task), job.plan.name)
        with plans.PlanReader(job.plan, job.task) as plan:
            regions = job.choice.of(plan.at(frame.index))
    else:
        plans.check_inside([hand.region for hand in job.hand], (info.width, info.height))
        given = [hand.region for hand in job.hand if hand.span.holds(seconds)]
        if build.whole_frames:
            regions = regions_without_plan(job, frame, seconds)
        elif given and job.measured:
            regions = given
        else:
            finder = build.finder()
            regions = look(job, finder, finder.find, frame, seconds)
    if not regions:
        raise NothingFound(f"nothing to restore was found at {seconds} s in {job.source}; nothing was written")
    restorer = build.restorer()
    restore_frame(frame, regions, restorer, (before,) * (2 * restorer.needs.context))
    pair = np.concatenate((before, frame.read_rgb(whole)), axis=1)
    ok, data = cv2.imencode(".png", np.round(pair[..., ::-1] * 255).astype(np.uint8))
    assert ok
    part = picture.with_name(f".{picture.name}.part")
    try:
        part.write_bytes(data.tobytes())
        os.replace(part, picture)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{picture} could not be written: {error.strerror}; choose another place with -o") from None
    return len(regions)


def frame_at(info: VideoInfo, seconds: float) -> PlanesFrame:
    """The last frame that is shown at or before a time (from the first frame's), by way of the key frame before it."""
    with open_input(info.path) as container:
        stream = container.streams[info.stream]
        target = round((seconds + info.start_seconds) / info.time_base)
        container.seek(target, stream=stream, backward=True)
        found = None
        for frame in container.decode(stream):
            if found is not None and frame.pts is not None and frame.pts > target:
                break
            found = frame
    if found is None:
        raise InputError(f"no frame could be decoded at {seconds} s of {info.path}")
    return PlanesFrame(found, info.index_of(found.pts or 0))
