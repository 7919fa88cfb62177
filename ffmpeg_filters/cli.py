"""`restore-video`: the command line. Imports nothing heavy before it has understood what is asked."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restore_plugin import __version__, catalog
from restore_plugin.errors import InputError, RestoreError

if TYPE_CHECKING:
    from ffmpeg_filters.job import Builders, HandRegion, Job
    from ffmpeg_filters.progress import Progress

COMMAND = "restore-video"
SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".nut", ".mxf"}

USAGE = """\
  restore-video demo                                  make a small pixelated clip, restore it, show the result
  restore-video IN.mp4 [MORE ...] --task demosaic     restore videos, or all videos of a folder
  restore-video scan IN.mp4 [-o PLAN.jsonl]           only find what there is to restore, and write the plan
  restore-video IN.mp4 --plan PLAN.jsonl              restore what the (edited) plan says"""

EPILOG = """\
exit codes: 0 done, 1 internal error, 2 bad input or usage, 3 nothing found to restore, 4 refused: something in the
input could not be kept, 5 the output could not be written, 6 an extra is missing, 130 interrupted (run the same command
again to go on). Pixelation destroys detail: what comes back is plausible, not evidence of what was there."""


def parser(scan: bool = False) -> argparse.ArgumentParser:
    tasks = ", ".join(f"{row.name} ({row.summary})" for row in catalog.TASKS)
    known = argparse.ArgumentParser(
        prog=COMMAND + (" scan" if scan else ""),
        usage=None if scan else "\n" + USAGE,
        description="Write the plan of what there is to restore."
        if scan
        else "Restore video; all else in the file stays as it is.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="video files, or folders of them")
    known.add_argument("-o", "--output", type=Path, help="output file; a folder for several inputs")
    known.add_argument("--task", default="demosaic", help=f"{tasks}; default: demosaic")
    known.add_argument("--overwrite", action="store_true", help="replace an output that is there already")
    known.add_argument(
        "--start",
        type=seconds_of,
        default=0.0,
        metavar="T",
        help="restore from this time on; before it the video passes through",
    )
    known.add_argument("--end", type=seconds_of, default=float("inf"), metavar="T", help="restore up to this time")
    known.add_argument(
        "--regions",
        action="append",
        default=[],
        metavar="X,Y,W,H[,T0-T1]",
        help="restore here (pixels, seconds) instead of searching; may be repeated",
    )
    known.add_argument(
        "--block", type=block_of, metavar="N[xM]", help="block size in px, for --regions; measured if left out"
    )
    known.add_argument("--engine", default="auto", metavar="NAME[:DEVICE]", help=catalog.ENGINE_HELP)
    known.add_argument("--precision", default="auto", help=catalog.PRECISION_HELP)
    known.add_argument("--deterministic", action="store_true", help=catalog.DETERMINISTIC_HELP)
    known.add_argument("--quiet", action="store_true", help="say nothing but errors")
    known.add_argument("--json", action="store_true", help="progress and results as JSON lines on standard output")
    known.add_argument("--version", action="version", version=f"{COMMAND} {__version__}")
    if not scan:
        known.add_argument("--method", help="a method of the task (see `restore-plugin methods`); default: the task's")
        known.add_argument("--plan", type=Path, help="restore what this plan says instead of searching")
        known.add_argument(
            "--preview", type=seconds_of, metavar="T", help="only write one before/after picture of time T"
        )
        known.add_argument(
            "--linear-light", action="store_true", help="the mosaic was averaged in linear light (as GIMP does)"
        )
        known.add_argument("--codec", help="video codec or encoder; default: the input's")
        known.add_argument("--quality", type=int, help="the encoder's quality number (crf; smaller is better)")
        known.add_argument("--preset", help="the encoder's preset (fast, slow ...)")
        known.add_argument("--pix-fmt", help="pixel format; default: the input's")
        known.add_argument("--container", help="container, by its suffix (mkv, mp4 ...); default: the input's")
    return known


def seconds_of(text: str) -> float:
    """Seconds, or [hours:]minutes:seconds."""
    value = 0.0
    for part in text.split(":"):
        value = value * 60 + float(part)
    return value


def block_of(text: str) -> tuple[float, float]:
    x, _, y = text.partition("x")
    block = float(x), float(y or x)
    if not all(2 <= side <= 1024 for side in block):
        raise argparse.ArgumentTypeError(f"expected a block size from 2 to 1024 px, got {text}")
    return block


def hand_region(text: str, block: tuple[float, float] | None) -> HandRegion:
    """ "X,Y,W,H[,T0-T1]" as a region. Raises InputError."""
    from ffmpeg_filters.job import HandRegion, Span
    from restore_plugin.types import Box, Region

    parts = text.split(",")
    try:
        if len(parts) not in (4, 5):
            raise ValueError
        x, y, width, height = (int(part) for part in parts[:4])
        span = Span()
        if len(parts) == 5:
            first, _, last = parts[4].partition("-")
            span = Span(seconds_of(first), seconds_of(last))
            if not span.start < span.end:
                raise ValueError
    except ValueError:
        raise InputError(f"expected --regions x,y,width,height[,t0-t1] in pixels and seconds, got {text}") from None
    return HandRegion(Region(Box(x, y, width, height), 1, block, (float(x), float(y))), span)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["demo"]:
            from ffmpeg_filters.demo import main as demo

            return demo(arguments[1:], main)
        if not arguments:
            arguments = ["--help"]
        scan = arguments[:1] == ["scan"]
        return several(parser(scan).parse_args(arguments[1:] if scan else arguments), scan)
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


def several(options: argparse.Namespace, scan: bool) -> int:
    """Every input in turn; a failure is told and the next one follows. Returns the first failure's code."""
    from ffmpeg_filters.progress import Progress

    quiet_codecs()
    jobs = make_jobs(options, scan)
    progress = Progress(COMMAND, options.quiet, options.json)
    builders = make_builders(jobs[0], progress)
    code = 0
    for job in jobs:
        try:
            one(job, options, scan, builders, progress)
        except RestoreError as error:
            progress.end()
            progress.event("error", input=str(job.source), exit_code=error.exit_code, text=str(error))
            code = code or failed(error)
    return code


def one(job: Job, options: argparse.Namespace, scan: bool, builders: Builders, progress: Progress) -> None:
    from ffmpeg_filters import job as jobs

    if scan:
        frames = jobs.scan_only(job, builders, progress)
        progress.say(f"wrote {job.target} ({frames} frames with regions)")
        progress.event("done", input=str(job.source), output=str(job.target), frames=frames)
    elif options.preview is not None:
        count = jobs.preview(job, builders, options.preview, job.target)
        progress.say(f"wrote {job.target} (before | after, {count} region{'s' * (count != 1)})")
        progress.event("done", input=str(job.source), output=str(job.target), regions=count)
    else:
        result = jobs.run(job, builders, progress)
        progress.say(f"wrote {job.target} ({result['restored_frames']} of {result['frames']} frames restored)")
        progress.event("done", input=str(job.source), **result)


def quiet_codecs() -> None:
    """FFmpeg's own chatter says nothing that a user could act on."""
    import av.logging

    av.logging.set_level(None)  # no callback into Python: it would take the interpreter lock from codec threads
    os.environ.setdefault("SVT_LOG", "0")


def make_jobs(options: argparse.Namespace, scan: bool) -> list[Job]:
    """One job an input. Raises InputError before any work starts."""
    from ffmpeg_filters.encoders import EncodeOptions
    from ffmpeg_filters.job import Job, Span
    from restore_plugin import catalog

    method = None if scan else options.method
    row = catalog.method(method or options.task)
    if row.task != catalog.task(options.task).name:
        raise InputError(
            f"the method {row.name} is for {row.task}, not for {options.task}; see `restore-plugin methods`"
        )
    if options.end <= options.start:
        raise InputError(f"expected --end after --start, got {options.start} to {options.end} s")
    if options.block and not options.regions:
        raise InputError("--block goes with --regions; without them block sizes are measured")
    sources = find_inputs(options.inputs)
    into_folder = len(sources) > 1 or options.inputs[0].is_dir()
    if into_folder and options.output and options.output.exists() and not options.output.is_dir():
        raise InputError(f"expected a folder for the outputs of several inputs, {options.output} is a file")
    if scan and not row.needs_mask:
        raise InputError(f"{row.task} works on whole frames: there is nothing to scan; restore at once")
    engine = catalog.EngineOptions(options.engine, options.precision, options.deterministic)
    engine.check(row)
    hand = tuple(hand_region(text, options.block) for text in options.regions)
    jobs = []
    for source in sources:
        target = name_output(source, options, scan, into_folder)
        if target.exists():
            if target.resolve() == source.resolve():
                raise InputError(f"the output {target} is the input itself; choose another name with -o")
            if target.is_dir():
                raise InputError(f"expected an output file, {target} is a folder; name the file in it")
            if not options.overwrite:
                raise InputError(f"{target} is there already; choose another name with -o, or pass --overwrite")
        encode = (
            EncodeOptions() if scan else EncodeOptions(options.codec, options.quality, options.pix_fmt, options.preset)
        )
        plan = None if scan else options.plan
        linear = not scan and options.linear_light
        jobs.append(
            Job(
                source,
                target,
                options.task,
                row.name,
                encode,
                Span(options.start, options.end),
                hand,
                plan,
                linear,
                engine,
            )
        )
    if len({job.target for job in jobs}) < len(jobs):
        raise InputError("two of the inputs would be written under the same name; restore them one by one")
    return jobs


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and ".restored" not in p.suffixes)
            if not inside:
                raise InputError(f"expected videos in the folder {path}, found none ({', '.join(sorted(SUFFIXES))})")
            found += inside
        else:
            found.append(path)
    return found


def name_output(source: Path, options: argparse.Namespace, scan: bool, into_folder: bool) -> Path:
    suffix = source.suffix
    if scan:
        name = f"{source.stem}.plan.jsonl"
    elif options.preview is not None:
        name = f"{source.stem}.preview.png"
    else:
        suffix = f".{options.container.lstrip('.')}" if options.container else suffix
        name = f"{source.stem}.restored{suffix}"
    output: Path | None = options.output
    if output is None:
        return source.with_name(name)
    if into_folder or output.is_dir():
        return output / name
    return output


def make_builders(job: Job, progress: Progress) -> Builders:
    """What opens the networks, once for all inputs, when the first of them needs it."""
    from functools import lru_cache

    from ffmpeg_filters.job import Builders
    from restore_plugin import catalog
    from restore_plugin.types import Finder, RestoreOptions, Restorer

    row = catalog.method(job.method)
    tell = catalog.once(progress.say)

    @lru_cache
    def restorer() -> Restorer:
        return catalog.build_restorer(row, job.engine, RestoreOptions(linear_light=job.linear_light), tell)

    @lru_cache
    def finder() -> Finder:
        found = catalog.build_finder(catalog.task(job.task), job.engine, tell)
        if found is None:
            raise InputError(f"{job.task} does not find by itself what to restore; give --regions or --plan")
        return found

    return Builders(restorer, finder, whole_frames=not row.needs_mask)
