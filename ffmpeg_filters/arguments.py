"""The options of `restore-video` and of its commands. Imports nothing heavy."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from restore_plugin import __version__, catalog
from restore_plugin.arguments import Parser
from restore_plugin.errors import InputError

if TYPE_CHECKING:
    from ffmpeg_filters.asked import HandRegion

COMMAND = "restore-video"
SCAN, FACES = "scan", "faces"
MARGIN = 1.4  # times a face, of its cover

USAGE = """\
  restore-video demo                                  make a small pixelated clip, restore it, show the result
  restore-video IN.mp4 [MORE ...] --task demosaic     restore videos, or all videos of a folder
  restore-video scan IN.mp4 [-o PLAN.jsonl]           only find what there is to restore, and write the plan
  restore-video IN.mp4 --plan PLAN.jsonl              restore what the (edited) plan says
  restore-video faces IN.mp4                          find the people, and write a page to choose from whom to hide
  restore-video IN.mp4 --task automosaic              hide all faces, or only some, and write an account of it"""

EPILOG = """\
exit codes: 0 done, 1 internal error, 2 bad input or usage, 3 nothing found to restore, 4 refused: something in the
input could not be kept, 5 the output could not be written, 6 an extra is missing, 7 faces are hidden, but some frames
need a look (see the report), 130 interrupted (run the same command again to go on). Pixelation destroys detail: what
comes back is plausible, not evidence of what was there."""

DESCRIPTIONS = {
    "": "Restore video; all else in the file stays as it is.",
    SCAN: "Write the plan of what there is to restore.",
    FACES: "Find the people in a video: write the plan, and a page with their pictures to choose from whom to hide.",
}


def parser(command: str = "") -> argparse.ArgumentParser:
    """Of `restore-video` itself, or of one of its commands."""
    known = Parser(
        prog=f"{COMMAND} {command}".strip(),
        usage=None if command else "\n" + USAGE,
        description=DESCRIPTIONS[command],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(known)
    if command != FACES:
        add_places(known)
    add_face_search(known)
    if not command:
        add_restoring(known)
        add_hiding(known)
    return known


def add_common(known: argparse.ArgumentParser) -> None:
    known.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="video files, or folders of them")
    known.add_argument("-o", "--output", type=Path, help="output file; a folder for several inputs")
    known.add_argument("--overwrite", action="store_true", help="replace an output that is there already")
    known.add_argument(
        "--start",
        type=time_of,
        default=0.0,
        metavar="T",
        help="restore from this time on; before it the video passes through",
    )
    known.add_argument("--end", type=time_of, default=float("inf"), metavar="T", help="restore up to this time")
    known.add_argument("--engine", default="auto", metavar="NAME[:DEVICE]", help=catalog.ENGINE_HELP)
    known.add_argument("--precision", default="auto", help=catalog.PRECISION_HELP)
    known.add_argument("--deterministic", action="store_true", help=catalog.DETERMINISTIC_HELP)
    known.add_argument("--quiet", action="store_true", help="say nothing but errors")
    known.add_argument("--json", action="store_true", help="progress and results as JSON lines on standard output")
    known.add_argument("--version", action="version", version=f"{COMMAND} {__version__}")


def add_places(known: argparse.ArgumentParser) -> None:
    tasks = ", ".join(f"{row.name} ({row.summary})" for row in catalog.TASKS)
    known.add_argument("--task", default="demosaic", help=f"{tasks}; default: demosaic")
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


def add_face_search(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group("faces (task automosaic)")
    group.add_argument(
        "--known",
        action="append",
        type=Path,
        default=[],
        metavar="PORTRAIT",
        help="a picture with one face: this person is named as the file; may be repeated",
    )
    group.add_argument(
        "--margin", type=float, default=MARGIN, help=f"how much larger than a face its cover is; default: {MARGIN}"
    )
    group.add_argument("--boxes", action="store_true", help="cover faces with boxes, not with ellipses")


def add_restoring(known: argparse.ArgumentParser) -> None:
    known.add_argument("--method", help="a method of the task (see `restore-plugin methods`); default: the task's")
    known.add_argument("--plan", type=Path, help="restore what this plan says instead of searching")
    known.add_argument("--preview", type=time_of, metavar="T", help="only write one before/after picture of time T")
    known.add_argument(
        "--linear-light", action="store_true", help="the mosaic was averaged in linear light (as GIMP does)"
    )
    known.add_argument("--codec", help="video codec or encoder; default: the input's")
    known.add_argument("--quality", type=int, help="the encoder's quality number (crf; smaller is better)")
    known.add_argument("--preset", help="the encoder's preset (fast, slow ...)")
    known.add_argument("--pix-fmt", help="pixel format; default: the input's")
    known.add_argument("--container", help="container, by its suffix (mkv, mp4 ...); default: the input's")


def add_hiding(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group("hiding (task automosaic)")
    group.add_argument(
        "--only", type=labels_of, metavar="WHO[,WHO]", help="hide only these people, and who is not sure"
    )
    group.add_argument("--except", type=labels_of, dest="spared", metavar="WHO[,WHO]", help="hide all but these people")
    group.add_argument(
        "--colour", type=colour_of, default=(0.0, 0.0, 0.0), metavar="RRGGBB", help="of the method solid"
    )
    group.add_argument("--picture", type=Path, metavar="FILE", help="for the method picture")
    group.add_argument("--review", action="store_true", help="hide nothing: draw the outlines, in IN.review.mp4")
    group = known.add_argument_group("sound")
    group.add_argument(
        "--mute", action="append", type=span_of, default=[], metavar="T0-T1", help="silence this time; may be repeated"
    )
    group.add_argument("--pitch", type=float, default=0.0, metavar="N", help="shift voices by N semitones, -12 to 12")


def labels_of(text: str) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not labels:
        raise argparse.ArgumentTypeError("expected names such as person-1,person-3")
    return labels


def colour_of(text: str) -> tuple[float, float, float]:
    digits = text.removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        red, green, blue = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a colour as RRGGBB, such as 336699, got {text}") from None
    return red, green, blue


def span_of(text: str) -> tuple[float, float]:
    first, _, last = text.partition("-")
    try:
        start, end = seconds_of(first), seconds_of(last)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a time as T0-T1 in seconds, got {text}") from None
    return start, end


def seconds_of(text: str) -> float:
    """Seconds, or [hours:]minutes:seconds. Raises ValueError for anything else."""
    value = 0.0
    for part in text.split(":"):
        value = value * 60 + float(part)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def time_of(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a time in seconds, or as [hours:]minutes:seconds, got {text}"
        ) from None


def block_of(text: str) -> tuple[float, float]:
    x, _, y = text.partition("x")
    try:
        block = float(x), float(y or x)
        if not all(2 <= side <= 1024 for side in block):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a block size from 2 to 1024 px, such as 8 or 8x6.5, got {text}"
        ) from None
    return block


def hand_region(text: str, block: tuple[float, float] | None) -> HandRegion:
    """ "X,Y,W,H[,T0-T1]" as a region. Raises InputError."""
    from ffmpeg_filters.asked import HandRegion, Span
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
