"""`restore-video`: the command line. Imports nothing heavy before it has understood what is asked."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffmpeg_filters.arguments import COMMAND, FACES, MARGIN, SCAN, hand_region, parser
from restore_plugin import catalog
from restore_plugin.errors import NO_ROOM, InputError, OutputError, RestoreError

if TYPE_CHECKING:
    from ffmpeg_filters.asked import Builders, Job
    from ffmpeg_filters.progress import Progress

OURS = {".review", *(f".{row.done}" for row in catalog.TASKS)}  # before the suffix of what we have written
LOOK_AT_IT = 7  # exit code: done, but a person should look at some frames
SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".nut", ".mxf"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["demo"]:
            from ffmpeg_filters.demo import main as demo

            return demo(arguments[1:], main)
        if not arguments:
            arguments = ["--help"]
        command = arguments[0] if arguments[0] in (SCAN, FACES) else ""
        defaults = parser().parse_args(["-"])  # so that every command's options have every name
        if command == FACES:
            defaults.task = "automosaic"
        return several(parser(command).parse_args(arguments[bool(command) :], defaults), command)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    except RestoreError as error:
        return failed(error)
    except KeyboardInterrupt:
        print(f"{COMMAND}: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except Exception as error:
        return failed(error)


def failed(error: Exception) -> int:
    """One line for the user; the exit code."""
    if os.environ.get("RESTORE_PLUGIN_DEBUG"):
        raise error
    if isinstance(error, RestoreError):
        print(f"{COMMAND}: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    what = " ".join(f"{type(error).__name__}: {error}".split())
    print(
        f"{COMMAND}: internal error: {what}; please report this (RESTORE_PLUGIN_DEBUG=1 shows where)", file=sys.stderr
    )
    return 1


def several(options: argparse.Namespace, command: str) -> int:
    """Every input in turn; a failure is told and the next one follows. Returns the first exit code that is not 0."""
    from ffmpeg_filters.progress import Progress

    quiet_codecs()
    progress = Progress(COMMAND, options.quiet, options.json)
    jobs = make_jobs(options, command)
    if len(jobs) > 1:
        jobs = unfinished(jobs, options, command, progress)
    builders = make_builders(jobs[0], progress)
    code = 0
    for job in jobs:
        try:
            done = one(job, options, command, builders, progress)
            code = code or done
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                why = f"{error.strerror}; free some space and run the same command again"
                error = OutputError(f"{job.target} could not be written: {why}")
            progress.end()
            exit_code = error.exit_code if isinstance(error, RestoreError) else 1
            progress.event("error", input=str(job.source), exit_code=exit_code, text=str(error))
            failed(error)
            code = code or exit_code
    return code


def unfinished(jobs: list[Job], options: argparse.Namespace, command: str, progress: Progress) -> list[Job]:
    """Of several inputs those whose outputs are not there yet: so a run that was cut off goes on. Raises InputError
    where there is none left."""
    left = []
    for job in jobs:
        there = [path for path in (job.target, *companions(job.target, options, command)) if is_there(path)]
        if there and not options.overwrite:
            progress.warn(f"{there[0]} is there already and stays; --overwrite replaces it")
        else:
            left.append(job)
    if not left:
        raise InputError("all outputs are there already; choose another folder with -o, or pass --overwrite")
    return left


def is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise OutputError(f"{path} could not be looked at: {error.strerror}; choose another place with -o") from None


def one(job: Job, options: argparse.Namespace, command: str, builders: Builders, progress: Progress) -> int:
    from ffmpeg_filters import job as jobs

    if command == SCAN:
        frames = jobs.scan_only(job, builders, progress)
        progress.say(f"wrote {job.target} ({frames} frames with regions)")
        progress.event("done", input=str(job.source), output=str(job.target), frames=frames)
    elif command == FACES:
        result = jobs.faces(job, builders, progress)
        progress.say(f"wrote {result['page']} ({result['people']} people), {result['account']} and {job.target}")
        progress.event("done", input=str(job.source), output=str(job.target), **result)
    elif options.preview is not None:
        count = jobs.preview(job, builders, options.preview, job.target)
        progress.say(f"wrote {job.target} (before | after, {count} region{'s' * (count != 1)})")
        progress.event("done", input=str(job.source), output=str(job.target), regions=count)
    else:
        result = jobs.run(job, builders, progress)
        changed = "restored" if catalog.task(job.task).invents else "changed"
        progress.say(f"wrote {job.target} ({result['restored_frames']} of {result['frames']} frames {changed})")
        if suspects := result.get("suspects"):
            which = "1 frame needs" if suspects == 1 else f"{suspects} frames need"
            progress.warn(f"{which} a look before you publish this: see {result['report']}")
        progress.event("done", input=str(job.source), **result)
        return LOOK_AT_IT if suspects else 0
    return 0


def quiet_codecs() -> None:
    """FFmpeg's own chatter says nothing that a user could act on."""
    import av.logging

    av.logging.set_level(None)  # no callback into Python: it would take the interpreter lock from codec threads
    os.environ.setdefault("SVT_LOG", "0")


def make_jobs(options: argparse.Namespace, command: str = "") -> list[Job]:
    """One job an input. Raises InputError before any work starts."""
    from ffmpeg_filters.asked import Job, Span
    from ffmpeg_filters.encoders import EncodeOptions
    from ffmpeg_filters.voice import VoiceOptions
    from restore_plugin.choice import Choice
    from restore_plugin.types import HideOptions, RestoreOptions, ScanOptions

    if options.method == "review":  # it is the option under another name
        options.method, options.review = None, True
    method = "review" if options.review else options.method
    row = catalog.method(method or options.task)
    if row.task != catalog.task(options.task).name:
        raise InputError(
            f"the method {row.name} is for {row.task}, not for {options.task}; see `restore-plugin methods`"
        )
    check_face_options(options, row.task)
    check_places(options, row)
    sources = find_inputs(options.inputs)
    into_folder = len(sources) > 1 or options.inputs[0].is_dir()
    if into_folder and options.output and options.output.exists() and not options.output.is_dir():
        raise InputError(f"expected a folder for the outputs of several inputs, {options.output} is a file")
    if command and not row.needs_mask:
        raise InputError(f"{row.task} works on whole frames: there is nothing to scan; restore at once")
    engine = catalog.EngineOptions(options.engine, options.precision, options.deterministic)
    engine.check(row)
    hand = tuple(hand_region(text, options.block) for text in options.regions)
    read_only = [path for path in (*sources, options.plan, options.picture, *options.known) if path]
    jobs = []
    for source in sources:
        target = name_output(source, options, command, into_folder)
        if is_there(target) and target.is_dir():
            raise InputError(f"expected an output file, {target} is a folder; name the file in it")
        for path in (target, *companions(target, options, command)):
            if not is_there(path):
                continue
            if any(is_there(given) and path.samefile(given) for given in read_only):
                raise InputError(f"{path} is an input and is never written to; choose another name with -o")
            if len(sources) == 1 and not options.overwrite:
                raise InputError(f"{path} is there already; choose another name with -o, or pass --overwrite")
        jobs.append(
            Job(
                source,
                target,
                options.task,
                row.name,
                EncodeOptions(options.codec, options.quality, options.pix_fmt, options.preset),
                Span(options.start, options.end),
                hand,
                options.plan,
                engine,
                RestoreOptions(options.linear_light, hide=HideOptions(options.colour, options.picture)),
                ScanOptions(tuple(options.known), options.margin, options.boxes),
                Choice(options.only or (), options.spared or ()),
                VoiceOptions(tuple(options.mute), options.pitch),
            )
        )
    if len({job.target for job in jobs}) < len(jobs):
        raise InputError("two of the inputs would be written under the same name; restore them one by one")
    return jobs


def check_places(options: argparse.Namespace, row: catalog.Method) -> None:
    """Raises InputError for times and places that do not go together, or with the method."""
    if options.end <= options.start:
        raise InputError(f"expected --end after --start, got {options.start} to {options.end} s")
    if options.block and not options.regions:
        raise InputError("--block goes with --regions; without them block sizes are measured")
    if options.plan and options.regions:
        raise InputError("expected either --plan or --regions, got both; write the regions into the plan")
    if options.plan and not row.needs_mask:
        raise InputError(f"{row.task} works on whole frames, without a plan; use --regions, --start and --end")
    catalog.task(row.task).check_mosaic_options({"--block": options.block, "--linear-light": options.linear_light})
    if options.preview is not None and not options.start <= options.preview < options.end:
        raise InputError(f"expected a --preview between --start and --end, got {options.preview:g} s")


def check_face_options(options: argparse.Namespace, task: str) -> None:
    """Raises InputError for options that do not go together."""
    given = {
        "--only": options.only,
        "--except": options.spared,
        "--known": options.known,
        "--review": options.review,
        "--boxes": options.boxes,
        "--picture": options.picture,
        "--margin": options.margin != MARGIN,
    }
    if task != "automosaic":
        for name, value in given.items():
            if value:
                raise InputError(f"{name} is for faces; it goes with --task automosaic, not with {task}")
    if options.only and options.spared:
        raise InputError("expected either --only or --except, got both")
    for name, value in (("--known", options.known), ("--boxes", options.boxes), ("--margin", options.margin != MARGIN)):
        if value and options.plan:
            raise InputError(f"{name} is for the search; a plan says already who is where")
    for name, value, methods in (
        ("--colour", any(options.colour), "solid picture"),
        ("--picture", options.picture, "picture"),
    ):
        if value and options.method not in methods.split():
            raise InputError(f"{name} goes with --method {' or '.join(methods.split())}")
    if options.review and options.method:
        raise InputError("--review hides nothing; leave --method out")
    if not 1 <= options.margin <= 4:
        raise InputError(f"expected a --margin of 1 to 4 times the face, got {options.margin:g}")


def companions(target: Path, options: argparse.Namespace, command: str) -> tuple[Path, ...]:
    """What is written beside an output."""
    from ffmpeg_filters.job import people_pages, reports

    if command == FACES:
        return people_pages(target)
    return reports(target) if catalog.task(options.task).people and not command and options.preview is None else ()


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                videos = sorted(entry for entry in path.iterdir() if is_video(entry))
            except OSError as error:
                raise InputError(f"expected a folder of videos, could not read {path}: {error.strerror}") from None
            if not videos:
                raise InputError(f"expected videos in the folder {path}, found none ({', '.join(sorted(SUFFIXES))})")
            # what we made is left out beside what it was made of; alone, among results, it is the next task's input
            made = {video.stem + ours for video in videos for ours in OURS}
            found += [video for video in videos if video.stem not in made]
        else:
            found.append(path)
    return found


def is_video(path: Path) -> bool:
    """By its name; hidden files are left out."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def name_output(source: Path, options: argparse.Namespace, command: str, into_folder: bool) -> Path:
    suffix = source.suffix
    if command:
        name = f"{source.stem}.plan.jsonl"
    elif options.preview is not None:
        name = f"{source.stem}.preview.png"
    else:
        if options.container:
            suffix = f".{options.container.lstrip('.')}"
            if not suffix[1:].isalnum():
                raise InputError(f"expected a --container such as mkv or mp4, got {options.container}")
        name = f"{source.stem}.{'review' if options.review else catalog.task(options.task).done}{suffix}"
    output: Path | None = options.output
    if output is None:
        return source.with_name(name)
    if into_folder or (is_there(output) and output.is_dir()):
        return output / name
    if options.preview is not None and not command and output.suffix.lower() != ".png":
        raise InputError(f"a preview is a PNG picture: expected an output that ends in .png, got {output.name}")
    if options.container and output.suffix.lower() != suffix.lower():
        raise InputError(f"--container {options.container} and -o {output.name} ask for two containers; leave one out")
    return output


def make_builders(job: Job, progress: Progress) -> Builders:
    """What opens the networks, once for all inputs, when the first of them needs it."""
    from functools import lru_cache

    from ffmpeg_filters.asked import Builders
    from restore_plugin import catalog
    from restore_plugin.types import Finder, Restorer

    row = catalog.method(job.method)
    tell = catalog.once(progress.say)

    @lru_cache
    def restorer() -> Restorer:
        return catalog.build_restorer(row, job.engine, job.restore, tell)

    @lru_cache
    def finder() -> Finder:
        found = catalog.build_finder(catalog.task(job.task), job.engine, tell, job.scan)
        if found is None:
            raise InputError(f"{job.task} does not find by itself what to restore; give --regions or --plan")
        return found

    return Builders(restorer, finder, whole_frames=not row.needs_mask)
