"""`restore-image`: restore still pictures from the command line. Nothing heavy is imported before there is work."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from restore_plugin import catalog
from restore_plugin.errors import InputError, NothingFound, RestoreError
from restore_plugin.image_options import HONESTY, PROGRAM, Options, parse_options, parser

if TYPE_CHECKING:
    from restore_plugin.stills import Still
    from restore_plugin.types import Finder, Mask, Region, Restorer

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
INTERRUPTED = 130  # as shells number a process that Ctrl-C ended


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path


class Tools:
    """What the pictures of a run share, each made when it is first needed."""

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        self.options = options
        self.tell = tell

    @cached_property
    def restorer(self) -> Restorer:
        from restore_plugin.types import HideOptions, RestoreOptions

        options = self.options
        wanted = RestoreOptions(options.linear_light, options.seed, HideOptions(picture=options.picture))
        return catalog.build_restorer(options.method, options.engine, wanted, self.tell)

    @cached_property
    def finder(self) -> Finder:
        finder = catalog.build_finder(catalog.task(self.options.method.task), self.options.engine, self.tell)
        if finder is None:
            name = self.options.method.name
            raise InputError(f"{name} does not find by itself what to restore; give --mask or --regions")
        return finder

    @cached_property
    def mask(self) -> Mask:
        """(H, W): True where the picture given with --mask is nearer to white than to black, and to solid than to
        clear."""
        assert self.options.mask is not None
        still = read(self.options.mask)
        half = 127 if still.pixels.itemsize == 1 else 32767
        white: Mask = still.pixels.mean(-1) > half
        if still.alpha is not None:
            white &= still.alpha > half
        if not white.any():
            raise NothingFound(f"{self.options.mask} is black, so there is nothing to restore; paint the places white")
        return white


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    try:
        return run(parser().parse_args(argv))
    except SystemExit as stop:  # --help and --version have said what they had to
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        return report(error)


def run(arguments: argparse.Namespace) -> int:
    options = parse_options(arguments)
    jobs = plan_jobs(arguments)

    def say(text: str) -> None:
        if not arguments.quiet:
            print(f"{PROGRAM}: {text}", file=sys.stderr)

    tools = Tools(options, catalog.once(say))
    if len(jobs) > 1 and not arguments.overwrite:
        jobs = unfinished(jobs, say)
    _ = tools.restorer, options.mask and tools.mask  # what fails here fails for all
    first_failure = 0
    for job in jobs:
        try:
            started = time.perf_counter()
            regions, left_out = restore(job, tools, arguments.overwrite)
            announce(job, regions, left_out, time.perf_counter() - started, arguments)
        except Exception as error:
            code = report(error, job.source)
            first_failure = first_failure or code
            if arguments.json:
                print(json.dumps({"input": str(job.source), "error": one_line(error), "exit_code": code}), flush=True)
    return first_failure


def plan_jobs(arguments: argparse.Namespace) -> list[Job]:
    """Every picture with its output; raises before any work where an output would be written onto an input."""
    sources: list[Path] = []
    helpers = [path for path in (arguments.mask, arguments.picture) if path]
    for given in arguments.inputs:
        found = pictures_in(given, helpers) if os.path.isdir(given) else [given]
        sources += [path for path in found if path not in sources]
    several = len(sources) > 1 or any(map(os.path.isdir, arguments.inputs))
    output: Path | None = arguments.output
    into = output is not None and os.path.isdir(output)
    if output is not None and several and not into and os.path.lexists(output):
        raise InputError(f"expected a folder after -o for several pictures, got the file {output}")
    jobs: dict[Path, Job] = {}
    for source in sources:
        beside = source.with_name(f"{source.stem}.restored{source.suffix}")
        target = beside if output is None else output / beside.name if several or into else output
        for other in (*sources, *helpers):
            if same_file(other, target):
                raise InputError(f"{target} is an input and is never written to; choose another output with -o")
        if target in jobs:
            raise InputError(f"{jobs[target].source} and {source} would both be written to {target}; run them apart")
        jobs[target] = Job(source, target)
    return list(jobs.values())


def unfinished(jobs: list[Job], say: Callable[[str], None]) -> list[Job]:
    """Of several pictures those whose outputs are not there yet: so a run that was cut off goes on."""
    left = []
    for job in jobs:
        if os.path.lexists(job.target):
            say(f"{job.target} is there already and stays; --overwrite replaces it")
        else:
            left.append(job)
    if not left:
        raise InputError("all outputs are there already; choose another folder with -o, or pass --overwrite")
    return left


def pictures_in(folder: Path, helpers: Sequence[Path] = ()) -> list[Path]:
    """Pictures of a folder by name, without hidden ones, `helpers` (a mask ...) and outputs beside what they were made
    of. Alone, in a folder of results, an output is the next task's input."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as error:
        raise InputError(f"expected a folder of pictures in {folder}, could not read it: {error.strerror}") from None
    shown = [path for path in files if not path.name.startswith(".")]
    made = {f"{path.stem}.restored" for path in shown}
    apart = [path for path in shown if any(same_file(path, helper) for helper in helpers)]
    found = [path for path in shown if path.stem not in made and path not in apart]
    if not found:
        ends, besides = ", ".join(SUFFIXES), "".join(f", besides {path}" for path in apart)
        raise InputError(f"expected pictures in the folder {folder}, found none that end in {ends}{besides}")
    return found


def same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


@contextmanager
def native_silence() -> Iterator[None]:
    """Nothing on stderr from the decoders, which print by themselves; what they complain of is raised as well."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def read(path: Path) -> Still:
    from restore_plugin import stills

    with native_silence():
        return stills.read(path)


def restore(job: Job, tools: Tools, overwrite: bool) -> tuple[list[Region], int]:
    """Restore one picture into its output; returns the regions, and how many bytes behind its end are left out."""
    from restore_plugin import stills
    from restore_plugin.pipeline import PictureRestorer

    still = read(job.source)
    stills.check(still, job.target)
    if os.path.isdir(job.target):
        raise InputError(f"{job.target} is a folder; name a file with -o")
    if os.path.lexists(job.target) and not overwrite:
        raise InputError(f"{job.target} is there already; choose another name with -o, or pass --overwrite")
    stills.check_place(job.target)
    regions = regions_of(still, tools)
    unseen = None if still.alpha is None else still.alpha == 0
    pixels = PictureRestorer(tools.restorer, None)(still.pixels, regions, unseen=unseen)
    by = f"by restore-plugin ({tools.options.method.task}, {tools.options.method.name})"
    mark = f"restored {by}: {HONESTY}" if catalog.task(tools.options.method.task).invents else f"changed {by}"
    if not stills.write(replace(still, pixels=pixels), job.target, mark):
        print(f"{PROGRAM}: {job.target}: no free place in its metadata to say that it was restored", file=sys.stderr)
    if still.left_out:
        what = "a motion photo's video, a gain map, old data"
        left = f"{still.left_out} bytes behind the picture's end are left out ({what})"
        print(f"{PROGRAM}: {job.source}: {left}", file=sys.stderr)
    return regions, still.left_out


def regions_of(still: Still, tools: Tools) -> list[Region]:
    """What to restore in a picture, with blocks and phase: given, measured, or found."""
    from restore_plugin.pipeline import ArrayFrame
    from restore_plugin.plan import check_inside
    from restore_plugin.regions import grown, measured, regions_under, union
    from restore_plugin.types import Box, Region

    options = tools.options
    height, width = still.pixels.shape[:2]
    regions = [Region(Box(*box), index) for index, box in enumerate(options.boxes)]
    check_inside(regions, (width, height))
    if options.mask is not None:
        if tools.mask.shape != (height, width):
            size = f"{tools.mask.shape[1]}x{tools.mask.shape[0]}"
            expected = f"expected a mask of the picture's size, {width}x{height} as it is shown"
            raise InputError(f"{expected}, got {size}; scale or turn the mask")
        regions = regions_under(tools.mask)
    if regions and (options.grow or options.feather):
        larger = grown(union(regions, height, width), options.grow + options.feather)
        soft = max(0, options.feather - 1)  # px: what was marked is wholly new
        regions = [replace(region, soft=soft) for region in regions_under(larger)]
    if not options.method.needs_mask:
        return regions or [Region(Box(0, 0, width, height))]
    frame = ArrayFrame(still.pixels)
    block, given = options.block, bool(regions)
    if not given:
        regions = tools.finder.find(frame)
        if not regions:
            raise NothingFound("nothing to restore was found in the picture; mark the place with --regions or --mask")
    if block is not None:
        corner = [options.phase or ((region.box.x, region.box.y) if given else region.phase) for region in regions]
        return [replace(region, block=block, phase=phase) for region, phase in zip(regions, corner, strict=True)]
    if not given or not catalog.task(options.method.task).measures:
        return regions
    return measured(regions, frame, tools.finder)


def announce(job: Job, regions: Sequence[Region], left_out: int, seconds: float, arguments: argparse.Namespace) -> None:
    from restore_plugin.plan import region_to_json

    if arguments.json:
        places = [region_to_json(region) for region in regions]
        done = {
            "input": str(job.source),
            "output": str(job.target),
            "regions": places,
            "left_out_bytes": left_out,
            "seconds": round(seconds, 3),
        }
        print(json.dumps(done), flush=True)
    elif not arguments.quiet:
        count = f"{len(regions)} region{'s' if len(regions) > 1 else ''}"
        note = f"; {HONESTY}" if catalog.task(arguments.task).invents else ""
        print(f"{job.source} -> {job.target}: {count}, {seconds:.1f} s{note}", flush=True)


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RestoreError):
        return text
    return f"unexpected error: {type(error).__name__}: {text}; please report this"


def report(error: Exception, source: Path | None = None) -> int:
    """Tell the user in one line on stderr; returns the exit code."""
    if os.environ.get("RESTORE_PLUGIN_DEBUG"):
        import traceback

        traceback.print_exception(error)
    text = one_line(error)
    about = "" if source is None or str(source) in text else f"{source}: "
    print(f"{PROGRAM}: {about}{text}", file=sys.stderr, flush=True)
    return error.exit_code if isinstance(error, RestoreError) else 1


if __name__ == "__main__":
    raise SystemExit(main())
