"""How well mosaics are found: clips of yours are pixelated by a generator, compressed, and scanned.

    python benchmarks/finder.py CLIPS --frames 24 [--json OUT.json]

For each codec and quality: the share of mosaicked pixels found, the false pixels on the same clips untouched, and the
block size's error. Mosaics are laid where there is detail to hide: of twelve random places, the one that loses most;
two of them do not lie on each other. The generator is the finder's training generator with seeds of its own; the clips
were not trained on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from ffmpeg_filters.reader import probe, read_frames
from restore_plugin import catalog
from restore_plugin.masks.tracks import link, linked
from restore_plugin.regions import clip
from restore_plugin.training.scenes import Patch
from restore_plugin.types import Region

TRIES = 12
VISIBLE = 3.0  # levels of 255, mean change around a pixel: compression alone changes about as much
CODECS = {
    "H.264 crf 18": ("libx264", {"crf": "18", "preset": "fast"}),
    "H.264 crf 23": ("libx264", {"crf": "23", "preset": "fast"}),
    "H.264 crf 28": ("libx264", {"crf": "28", "preset": "fast"}),
    "HEVC crf 23": ("libx265", {"crf": "23", "preset": "fast", "x265-params": "log-level=none"}),
}


def pictures(path: Path, count: int, longest: int) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index >= count:
                return
            scale = min(1.0, longest / max(frame.width, frame.height))
            width, height = (int(side * scale) // 2 * 2 for side in (frame.width, frame.height))
            yield frame.reformat(width, height, "rgb24").to_ndarray()


def detailed_patch(frame: np.ndarray, side: int, random: np.random.Generator) -> Patch:
    """Of several random mosaics, the one that hides most: people pixelate faces and plates, not bare walls."""
    patches = [Patch.random(side, int(side * 0.7), random) for _ in range(TRIES)]
    hides = []
    for patch in patches:
        shown, where = patch.cover(frame, 0)
        hides.append(np.abs(shown.astype(float) - frame)[where].mean())
    # the largest blocks hide most anywhere: choose among places, for a block drawn first
    wanted = patches[0].block
    order = sorted(range(TRIES), key=lambda i: -hides[i])
    best = patches[order[0]]
    return replace(best, block=wanted, phase=best.phase if best.phase == (best.x, best.y) else patches[0].phase)


def separate_patches(frame: np.ndarray, side: int, random: np.random.Generator) -> list[Patch]:
    """One or two mosaics that do not lie on each other."""
    patches = [detailed_patch(frame, side, random)]
    if random.random() < 0.5:
        for _ in range(TRIES):
            other = detailed_patch(frame, side, random)
            if not (patches[0].cover(frame, 0)[1] & other.cover(frame, 0)[1]).any():
                return [*patches, other]
    return patches


def encode(frames: list[np.ndarray], path: Path, codec: str, options: dict[str, str]) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))


def scan(path: Path, finder: Any) -> dict[int, list[Region]]:
    seen = [(frame.index, finder.find(frame)) for frame in read_frames(probe(path))]
    return dict(linked(seen, link(seen)))


def covered(regions: list[Region], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape[:2], bool)
    for region in regions:
        inside = clip(region, shape[1], shape[0])
        if inside is not None:
            mask[inside.box.slices] |= inside.mask()
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--longest", type=int, default=960, help="larger clips are reduced to this many pixels")
    parser.add_argument("--every", type=int, default=1, help="take every n-th clip only")
    parser.add_argument("--codec", action="append", choices=list(CODECS), help="only these")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    finder = catalog.build_finder(catalog.task("demosaic"))
    files = sorted(p for p in options.clips.iterdir() if p.suffix in (".mp4", ".mkv", ".mov", ".webm"))[
        :: options.every
    ]
    names = options.codec or list(CODECS)
    rows = {
        name: {"found": [0, 0], "visible": [0, 0], "extra": [0, 0], "false": [0, 0], "block_errors": []}
        for name in names
    }
    with tempfile.TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            clean = list(pictures(file, options.frames, options.longest))
            random = np.random.default_rng(1000 + number)
            side = min(clean[0].shape[:2])
            patches = separate_patches(clean[0], side, random)
            frames, truth = [], []
            for time, frame in enumerate(clean):
                where = np.zeros(frame.shape[:2], bool)
                owner = np.full(frame.shape[:2], -1)
                for index, patch in enumerate(patches):
                    frame, mask = patch.cover(frame, time)
                    where |= mask
                    owner[mask] = index
                frames.append(frame)
                # what the mosaic changed: on a bare wall it cannot be seen, and hides nothing
                change = np.abs(frame.astype(np.float32) - clean[time]).mean(2)
                seen = where & (cv2.blur(change, (9, 9)) > VISIBLE)
                truth.append((where, seen, owner))
            for name in names:
                row: Any = rows[name]
                path = Path(folder) / "clip.mkv"
                encode(frames, path, *CODECS[name])
                plan = scan(path, finder)
                got = [0, 0]
                for index, (where, seen, owner) in enumerate(truth):
                    regions = plan.get(index, [])
                    found = covered(regions, where.shape)
                    got[0] += int((found & where).sum())
                    got[1] += int(where.sum())
                    row["visible"][0] += int((found & seen).sum())
                    row["visible"][1] += int(seen.sum())
                    row["extra"][0] += int((found & ~where).sum())
                    row["extra"][1] += int((~where).sum())
                    for region in filter(None, (clip(r, where.shape[1], where.shape[0]) for r in regions)):
                        inside = owner[region.box.slices][region.mask()]
                        own = np.bincount(inside[inside >= 0], minlength=1)
                        if own.sum() and region.block:
                            block = patches[int(own.argmax())].block
                            row["block_errors"] += [abs(a / b - 1) for a, b in zip(region.block, block, strict=False)]
                encode(clean, path, *CODECS[name])
                wrong = scan(path, finder)
                bad = sum(int(covered(regions, clean[0].shape).sum()) for regions in wrong.values())
                row["false"][0] += bad
                row["false"][1] += len(clean) * clean[0].shape[0] * clean[0].shape[1]
                for part in (0, 1):
                    row["found"][part] += got[part]
                blocks = ", ".join(f"{p.block[0]:.1f}x{p.block[1]:.1f}" for p in patches)
                print(
                    f"{file.name:28s} {name:13s} blocks {blocks:24s} found {got[0] / max(got[1], 1):7.2%}  false {bad}",
                    flush=True,
                )
    print("\n| codec | found | of what it changed | false, untouched | beside | block error | within 2 % |")
    print("|---|---|---|---|---|---|---|")
    summary = {}
    for name, row in rows.items():
        errors = np.array(row["block_errors"] or [np.nan])
        share = {key: row[key][0] / max(row[key][1], 1) for key in ("found", "visible", "false", "extra")}
        summary[name] = {
            **share,
            "block_error_median": float(np.median(errors)),
            "within_2_percent": float((errors < 0.02).mean()),
        }
        print(
            f"| {name} | {share['found']:.2%} | {share['visible']:.2%} | {share['false']:.3%} | {share['extra']:.3%} "
            f"| {np.median(errors):.3%} | {(errors < 0.02).mean():.2%} |"
        )
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
