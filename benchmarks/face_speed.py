"""Frames a second of `--task automosaic`, finding and hiding apart, beside the `deface` command on the same clips.

    python benchmarks/face_speed.py CLIPS [--deface VENV/bin/deface] [--frames 100] [--sizes 640x480,1280x720,1920x1080]
        [--faces 1,6]

CLIPS: a folder with clips that show one face each (benchmarks/face_clips.py makes some). They are scaled to each size,
one alone and six side by side. Whole commands are timed, their start included, one after the other on the same clip.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from benchmarks_media import write

from ffmpeg_filters.reader import probe, read_frames

COMMAND = [sys.executable, "-c", "import sys; from ffmpeg_filters.cli import main; sys.exit(main(sys.argv[1:]))"]
LOOK_AT_IT = 7


def pictures(path: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    for frame in read_frames(probe(path)):
        yield cv2.resize(frame.overview(max(frame.width, frame.height)), size, interpolation=cv2.INTER_AREA)


def side_by_side(paths: list[Path], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Three in each of two rows."""
    part = size[0] // 3, size[1] // 2
    for tiles in zip(*(pictures(path, part) for path in paths), strict=False):
        whole = np.zeros((size[1], size[0], 3), np.uint8)
        for place, tile in enumerate(tiles):
            y, x = place // 3 * part[1], place % 3 * part[0]
            whole[y : y + part[1], x : x + part[0]] = tile
        yield whole


def timed(command: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, LOOK_AT_IT):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--deface", help="its command")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--sizes", default="640x480,1280x720,1920x1080")
    parser.add_argument("--faces", type=lambda text: [int(part) for part in text.split(",")], default=[1, 6])
    options = parser.parse_args()
    paths = sorted(options.clips.glob("*.mp4"))
    if len(paths) < 6:
        raise SystemExit(f"expected at least six clips in {options.clips}, found {len(paths)}")
    print("| size | faces | finding | hiding | both, one command | deface | ratio |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for text in options.sizes.split(","):
            width, height = (int(side) for side in text.split("x"))
            for faces in options.faces:
                clip = folder / f"{text}-{faces}.mp4"
                shown = pictures(paths[0], (width, height)) if faces == 1 else side_by_side(paths[:6], (width, height))
                write(clip, itertools.islice(itertools.cycle(list(itertools.islice(shown, 150))), options.frames))
                plan, hidden = clip.with_suffix(".jsonl"), folder / "hidden.mp4"
                task = ["--task", "automosaic", "--quiet", "--overwrite"]
                scan = timed([*COMMAND, "scan", str(clip), *task, "-o", str(plan)])
                render = timed([*COMMAND, str(clip), *task, "--plan", str(plan), "-o", str(hidden)])
                whole = timed([*COMMAND, str(clip), *task, "-o", str(hidden)])
                theirs = timed([options.deface, str(clip), "-o", str(folder / "d.mp4")]) if options.deface else None
                rates = [options.frames / seconds for seconds in (scan, render, whole)]
                other = f"{options.frames / theirs:.1f} | {theirs / whole:.2f}" if theirs else "- | -"
                print(
                    f"| {text} | {faces} | " + " | ".join(f"{rate:.1f}" for rate in rates) + f" | {other} |", flush=True
                )


if __name__ == "__main__":
    main()
