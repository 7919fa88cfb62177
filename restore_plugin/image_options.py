"""The options of `restore-image`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from restore_plugin import __version__, catalog
from restore_plugin.arguments import LARGEST_SEED, Parser, numbers, whole
from restore_plugin.errors import InputError

PROGRAM = "restore-image"
HONESTY = "restored pixels are plausible, not evidence"
FOR_VIDEO = "review"  # a method that needs a video
MOST_PX = 1000  # that a mask is grown by
DRAWN = " and ".join(row.name for row in catalog.METHODS if row.draws)

EPILOG = f"""\
Restoring invents what was destroyed: {HONESTY}. Each output says so in its metadata. Of
several pictures, those whose outputs are there already are left out.

examples:
  {PROGRAM} in.png --task demosaic -o out.png
  {PROGRAM} in.jpg --regions 120,80,64,64 --block 8 -o out.png
  {PROGRAM} photo.jpg --task inpaint --mask hole.png -o out.png
  {PROGRAM} scans/ --task inpaint --mask logo.png --grow 2 -o restored/

exit codes (of several pictures, the first failure's):
  0  done                                4  something in the input could not be kept
  1  the restorer or its engine failed   5  the output could not be written
  2  an input or option is wrong         6  a package is not installed
  3  nothing to restore was found      130  interrupted; nothing half-written stays
"""


@dataclass(frozen=True)
class Options:
    """What holds for all pictures of a run. `boxes`: (x, y, width, height) in px; `block`, `phase`: (x, y) in px."""

    method: catalog.Method
    engine: catalog.EngineOptions = field(default_factory=catalog.EngineOptions)
    linear_light: bool = False
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    mask: Path | None = None
    grow: int = 0  # px, around the mask or boxes
    feather: int = 0  # px further, over which the repair fades out
    seed: int = 0
    block: tuple[float, float] | None = None
    phase: tuple[float, float] | None = None
    picture: Path | None = None  # of the method that hides under a picture


def parser() -> Parser:
    tasks = ", ".join(f"{row.name} ({row.summary})" for row in catalog.TASKS)
    methods = "; ".join(f"{row.name} ({row.summary})" for row in catalog.METHODS if row.name != FOR_VIDEO)
    made = Parser(
        PROGRAM,
        description=f"Restore still pictures (PNG, JPEG, TIFF, WebP). Note that {HONESTY}.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("inputs", nargs="+", type=Path, metavar="PICTURE", help="pictures, or folders of pictures (not their folders)")
    add("--task", default=catalog.TASKS[0].name, help=f"out of {tasks}; default: {catalog.TASKS[0].name}")
    add("--method", metavar="NAME", help=f"instead of the task's default, out of {methods}")
    where_to = "file; for several pictures a folder, made if needed (default: NAME.restored.EXT beside the picture)"
    add("-o", "--output", type=Path, metavar="PATH", help=where_to)
    add("--overwrite", action="store_true", help="replace outputs that exist; an input is never replaced")
    where = made.add_mutually_exclusive_group()
    place = "a place to restore, in px of the picture as it is shown; may be given again (default: found)"
    where.add_argument("--regions", action="append", default=[], metavar="X,Y,W,H", help=place)
    where.add_argument("--mask", type=Path, metavar="PICTURE", help="white = restore; of the picture's size")
    add(
        "--grow",
        type=whole(MOST_PX),
        default=0,
        metavar="PX",
        help="restore so much more around the mask or the regions",
    )
    soft = "restore so much more, too, and fade into the old pixels over it; at least 2"
    add("--feather", type=whole(MOST_PX), default=0, metavar="PX", help=soft)
    # no default, so that a seed that does nothing is told from none
    add("--seed", type=whole(LARGEST_SEED), metavar="N", help=f"of what is drawn at random, by {DRAWN} (default: 0)")
    add("--block", metavar="B or XxY", help="size of the mosaic's blocks in px, such as 8 or 8x6.5 (default: measured)")
    add("--phase", metavar="X,Y", help="with --block: where in px two grid lines cross (default: the region's corner)")
    add("--linear-light", action="store_true", help="the mosaic was averaged in linear light, as GIMP does")
    add("--picture", type=Path, metavar="FILE", help="for the method picture: what hides the faces")
    add("--engine", default="auto", metavar="NAME[:DEVICE]", help=catalog.ENGINE_HELP)
    add("--precision", default="auto", help=catalog.PRECISION_HELP)
    add("--deterministic", action="store_true", help=catalog.DETERMINISTIC_HELP)
    add("--json", action="store_true", help="one JSON object a line on stdout for each picture")
    add("--quiet", action="store_true", help="report errors only")
    add("--version", action="version", version=f"{PROGRAM} {__version__}")
    return made


def parse_options(arguments: argparse.Namespace) -> Options:
    method = catalog.method(arguments.method or arguments.task)
    if method.task != catalog.task(arguments.task).name:
        raise InputError(f"{method.name} is a method for {method.task}, not for {arguments.task}; change one of them")
    engine = catalog.EngineOptions(arguments.engine, arguments.precision, arguments.deterministic)
    engine.check(method)
    if method.name == FOR_VIDEO:
        raise InputError("the method review shows the faces and who they are, for restore-video; take another one")
    if arguments.seed is not None and not method.draws:
        raise InputError(f"--seed goes with {DRAWN}; no seed changes what {method.name} does")
    if arguments.picture and method.name != "picture":
        raise InputError("--picture goes with --task automosaic --method picture")
    blocks = {"--block": arguments.block, "--phase": arguments.phase, "--linear-light": arguments.linear_light}
    catalog.task(method.task).check_mosaic_options(blocks)
    if arguments.phase and not arguments.block:
        raise InputError("--phase says where a grid of known size lies; give --block, too")
    if (arguments.grow or arguments.feather) and not (arguments.mask or arguments.regions):
        raise InputError("--grow and --feather widen the places that are given; give --mask or --regions, too")
    if arguments.feather == 1:  # of what is filled more, the innermost px is wholly new, so that nothing shows through
        raise InputError("--feather 1 has no px to fade over; give 2 or more, or --grow 1")
    boxes = []
    for text in arguments.regions:
        x, y, width, height = numbers(text, ",", 4, "--regions x,y,w,h in whole px")
        if any(value % 1 for value in (x, y, width, height)):
            raise InputError(f"expected --regions x,y,w,h in whole px, got {text}")
        boxes.append((int(x), int(y), int(width), int(height)))
    block = None
    if arguments.block:
        pair = arguments.block if "x" in arguments.block else f"{arguments.block}x{arguments.block}"
        x, y = numbers(pair, "x", 2, "--block b or --block XxY in px")
        if min(x, y) < 2:
            raise InputError(f"expected a --block of at least 2 px, got {arguments.block}")
        block = x, y
    phase = None
    if arguments.phase:
        x, y = numbers(arguments.phase, ",", 2, "--phase x,y in px")
        phase = x, y
    return Options(
        method,
        engine,
        arguments.linear_light,
        tuple(boxes),
        arguments.mask,
        arguments.grow,
        arguments.feather,
        arguments.seed or 0,
        block,
        phase,
        arguments.picture,
    )
