"""One video: scan (what is to restore), render (restore it), finish (the output file). Scan and render both resume.

What is done so far lies in a folder beside the output, `.NAME.resume`: the scan's detections, the plan, and the encoded
video. It is removed when the output is complete, and used by the next run of the same job.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffmpeg_filters.asked import Builders, Job, ResumeFolder
from ffmpeg_filters.encoders import choose, open_encoder, pixel_format_for
from ffmpeg_filters.frames import PlanesFrame
from ffmpeg_filters.mux import Muxer
from ffmpeg_filters.progress import Progress
from ffmpeg_filters.reader import VideoInfo, first_frame, open_input, probe, read_frames, video_stream
from ffmpeg_filters.render import regions_without_plan, render
from ffmpeg_filters.scan import look, make_plan
from ffmpeg_filters.spool import Spool
from restore_plugin import plan as plans
from restore_plugin.catalog import task
from restore_plugin.choice import Choice
from restore_plugin.errors import InputError, NothingFound, OutputError
from restore_plugin.regions import restore_frame
from restore_plugin.types import Box

LOOK_BACK_SECONDS = (0, 2, 20)  # for a key frame to begin at, where a container seeks to somewhere near only


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
    if not job.plan:
        check_time(job, info)
    with ResumeFolder(job.target, job.settings()) as folder:
        muxer.check(row, job.encode, sample, extradata)
        if folder.resumed and (kept := folder.kept):
            progress.say(f"going on with the run that was cut off, {kept} ({folder.path})")
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
    return {"output": str(job.target), "frames": len(times), "restored_frames": frames, **told}


def check_time(job: Job, info: VideoInfo) -> None:
    """Raises InputError where no frame lies in the time that was asked for."""
    spans = [hand.span for hand in job.hand] or [job.span]
    if not any(job.span.holds(at) and any(span.holds(at) for span in spans) for at in info.times()):
        raise InputError("no frame lies in the time given; check --start, --end and the times of --regions")


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
    check_time(job, info)
    with ResumeFolder(job.target, job.settings()) as folder:
        made = make_plan(job, info, folder, build, progress)
        os.replace(made, job.target)
    return plans.check(job.target, job.task, job.source, (info.width, info.height))


def preview(job: Job, build: Builders, seconds: float, picture: Path) -> int:
    """Write a before/after picture of the frame at a time; returns how many regions it shows."""
    info = probe(job.source)
    if not 0 <= seconds <= info.seconds:
        raise InputError(f"expected a time within the video's {info.seconds:.2f} s, got {seconds}")
    frame = frame_at(info, seconds)
    at = info.seconds_of(frame)
    whole = Box(0, 0, frame.width, frame.height)
    before = frame.read_rgb(whole)
    if job.plan:
        plans.check(job.plan, job.task, job.source, (info.width, info.height))
        job.choice.check(plans.labels(job.plan, job.task), job.plan.name)
        with plans.PlanReader(job.plan, job.task) as plan:
            regions = job.choice.of(plan.at(frame.index))
    else:
        plans.check_inside([hand.region for hand in job.hand], (info.width, info.height))
        given = [hand.region for hand in job.hand if hand.span.holds(at)]
        if build.whole_frames:
            regions = regions_without_plan(job, frame, at)
        elif job.hand and job.measured:
            regions = given
        else:
            finder = build.finder()
            regions = look(job, finder, finder.find, frame, at)
    if not regions or not job.span.holds(at):
        raise NothingFound(
            f"nothing to restore was found at {seconds} s in {job.source} (frame of {at:.2f} s); nothing was written"
        )
    restorer = build.restorer()
    restore_frame(frame, regions, restorer, (before,) * (2 * restorer.needs.context))
    pair = np.concatenate((before, frame.read_rgb(whole)), axis=1)
    ok, data = cv2.imencode(".png", np.round(pair[..., ::-1] * 255).astype(np.uint8))
    assert ok
    part = picture.with_name(f".{picture.name}.part")
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data.tobytes())
        os.replace(part, picture)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(f"{picture} could not be written: {error.strerror}; choose another place with -o") from None
    return len(regions)


def frame_at(info: VideoInfo, seconds: float) -> PlanesFrame:
    """The frame that a run shows at a time (from the first frame's). Raises InputError where there is none."""
    target = round((seconds + info.start_seconds) / info.time_base)
    starts = [target - round(back / info.time_base) for back in LOOK_BACK_SECONDS]
    for since in (*starts, None):  # None: from the start of the file
        found = None
        for frame in read_frames(info, since=since):
            if (frame.pts or 0) > target:
                break
            found = frame
        if found is not None:
            return found
    raise InputError(
        f"expected a frame at {seconds} s of {info.path}, nothing up to there can be decoded; choose a later time"
    )
