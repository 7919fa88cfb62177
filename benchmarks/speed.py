"""How fast the pipeline is against its own parts, in one run.

    python benchmarks/speed.py [CLIP] [--frames 150] [--rounds 3]

Decoding alone, the finder alone, restoring alone and encoding alone are timed on the same frames as `scan` and `render`
end to end. No pipeline can be faster than its slowest part, nor than the sum of its parts' CPU time over the cores: the
last column is the share of that bound which is reached, the median over the rounds of what each round shows by itself,
since machines are faster at one time than at another. Without a clip, a 1280x720 one with two mosaics is made.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ffmpeg_filters import asked
from ffmpeg_filters.cli import quiet_codecs
from ffmpeg_filters.encoders import EncodeOptions, choose, open_encoder
from ffmpeg_filters.progress import Progress
from ffmpeg_filters.reader import probe, read_frames
from ffmpeg_filters.render import render
from ffmpeg_filters.scan import scan
from restore_plugin import catalog, mosaic
from restore_plugin import plan as plans
from restore_plugin.regions import restore_frame

SIZE = (1280, 720)
BOXES = ((420, 160, 192, 240), (900, 300, 128, 128))


def make_clip(path: Path, frames: int) -> None:
    """A picture that pans under two mosaics of 8 px that stay."""
    from benchmarks_media import write
    from skimage import data

    width, height = SIZE
    picture = cv2.resize(data.astronaut(), (width + 200, width + 200), interpolation=cv2.INTER_CUBIC)
    shown = []
    for index in range(frames):
        left, top = index % 200, (index * 2) % 400
        frame = np.ascontiguousarray(picture[top : top + height, left : left + width])
        for x, y, w, h in BOXES:
            crop = frame[y : y + h, x : x + w].astype(np.float32) / 255
            flat = mosaic.pixelate(crop, mosaic.axis_edges(0, h, 8, 0), mosaic.axis_edges(0, w, 8, 0))
            frame[y : y + h, x : x + w] = np.round(flat * 255)
        shown.append(frame)
    write(path, shown)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--frames", type=int, default=150, help="of the clip that is made")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quiet_codecs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = options.clip or folder / "clip.mp4"
        if not options.clip:
            make_clip(clip, options.frames)
        measure(clip, folder, options.rounds)


def measure(clip: Path, folder: Path, rounds: int) -> None:
    info = probe(clip)
    task = catalog.task("demosaic")
    finder, restorer = catalog.build_finder(task), catalog.build_restorer(catalog.method("cellnet"))
    assert finder is not None
    row = choose(info, EncodeOptions())
    decoded = list(read_frames(info))
    sample = decoded[0].frame
    progress = Progress("speed", quiet=True)
    job = asked.Job(clip, folder / "out.mp4", "demosaic", "cellnet")
    plan = folder / "plan.jsonl"
    scan(job, info, plan, folder / "first.jsonl", finder, progress)
    regions = dict(plans.PlanReader(plan, "demosaic"))

    def encode() -> None:
        encoder = open_encoder(row, EncodeOptions(), info, sample, True)
        for frame in decoded:
            frame.frame.pict_type = 0
            encoder.encode(frame.frame)
        encoder.encode(None)

    def restore() -> None:
        for frame in decoded:
            restore_frame(frame, regions.get(frame.index, ()), restorer)

    def render_all() -> None:
        target = folder / "render"
        target.mkdir(exist_ok=True)
        made = asked.ResumeFolder(target / "out.mp4", {"run": time.time()})
        render(
            job,
            info,
            plan,
            made,
            lambda: open_encoder(row, EncodeOptions(), info, sample, True),
            info.pixel_format,
            restorer,
            progress,
        )
        made.remove()

    def scan_all() -> None:
        found = folder / "detections.jsonl"
        found.unlink(missing_ok=True)
        scan(job, info, folder / "again.jsonl", found, finder, progress)

    parts: dict[str, Callable[[], object]] = {
        "decode alone": lambda: sum(1 for _ in read_frames(info)),
        "finder alone": lambda: [finder.find(frame) for frame in decoded],
        "scan, end to end": scan_all,
        "restore alone": restore,
        "encode alone": encode,
        "render, end to end": render_all,
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
    for _ in range(rounds):
        decoded[:] = read_frames(info)  # restoring changes them, and then there is nothing left to find
        for name, work in parts.items():
            seen[name].append(timed(work))
    cores = len(os.sched_getaffinity(0))
    count = len(decoded)
    print(f"{info.width}x{info.height}, {count} frames, {row.name}, {cores} cores, median of {rounds}\n")
    print("| part | frames/s | CPU ms a frame | share of what its parts allow |")
    print("|---|---|---|---|")
    wall = {name: statistics.median(w for w, _ in values) for name, values in seen.items()}
    cpu = {name: statistics.median(c for _, c in values) for name, values in seen.items()}
    made_of = {
        "scan, end to end": ("decode alone", "finder alone"),
        "render, end to end": ("decode alone", "restore alone", "encode alone"),
    }
    for name in parts:
        share = ""
        if name in made_of:
            reached = []
            for number, (whole, _) in enumerate(seen[name]):
                walls, works = zip(*(seen[part][number] for part in made_of[name]), strict=True)
                reached.append(max(*walls, sum(works) / cores) / whole)
            share = f"{statistics.median(reached):.0%}"
        print(f"| {name} | {count / wall[name]:.1f} | {cpu[name] / count * 1000:.1f} | {share} |")


if __name__ == "__main__":
    main()
