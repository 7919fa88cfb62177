"""How exact are the face finder's boxes? By score: how often one had to be larger to cover its face, and by how much.

    python benchmarks/face_margins.py CLIPS [--only NAME] [--every 1]

CLIPS have known truth (face_clips.py makes them). Of each face of which 90 % can be seen, the surest box with its
middle within 0.45 face heights is covered as `restore-video` does by default, without regard to its score. The box is
then made larger until 97 % of what can be seen of the inner face is covered.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from faces import filled

from ffmpeg_filters.reader import probe, read_frames
from restore_plugin import catalog
from restore_plugin.masks.covers import cover
from restore_plugin.masks.quads import quad_of, resized
from restore_plugin.types import Region, ScanOptions

LARGER = (1.0, 1.03, 1.06, 1.09, 1.12, 1.15, 1.2, 1.3, 1.5, 2.0)
SCORES = (0.06, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 1.01)
SEEN, ENOUGH, NEAR = 0.9, 0.97, 0.45
HEIGHTS = (0.7, 1.9)  # of a box, over the inner face's: others are of something else


def box_of(face: dict[str, Any], candidates: list[Region]) -> Region | None:
    x, y = np.array(face["outline"]).mean(0)
    near = [
        region
        for region in candidates
        if max(abs(region.box.x + region.box.width / 2 - x), abs(region.box.y + region.box.height / 2 - y))
        < NEAR * face["height_px"]
        and HEIGHTS[0] < region.box.height / face["height_px"] < HEIGHTS[1]
    ]
    return max(near, key=lambda region: region.confidence, default=None)


def larger(region: Region, visible: np.ndarray) -> float:
    height, width = visible.shape
    for by in LARGER[:-1]:
        covered = cover(resized(quad_of(region.box), by), width, height, ScanOptions())
        if visible[covered.box.slices][covered.mask()].sum() >= ENOUGH * visible.sum():
            return by
    return LARGER[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--only", default="", help="clips whose name has this in it")
    parser.add_argument("--every", type=int, default=1, help="frames")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    finder = catalog.build_finder(catalog.task("automosaic"))
    assert finder is not None
    rows = []
    for clip in sorted(options.clips.glob(f"*{options.only}*.mp4")):
        truth = json.loads(clip.with_suffix(".json").read_text())["frames"]
        for frame in read_frames(probe(clip)):
            faces = [face for face in truth[frame.index] if face["counts"] and face["share"] >= SEEN]
            candidates = finder.candidates(frame) if faces and frame.index % options.every == 0 else []
            for face in faces:
                region = box_of(face, candidates)
                if region is not None:
                    rows.append(
                        (region.confidence, larger(region, filled(face["visible"], (frame.height, frame.width))))
                    )
    scores, needed = np.array(rows).reshape(-1, 2).T
    print("| score of the box | boxes | had to be larger | by this much for 99 of 100 |\n|---|---|---|---|")
    for low, high in itertools.pairwise(SCORES):
        part = needed[(scores >= low) & (scores < high)]
        if len(part):
            most = np.quantile(part, 0.99) - 1
            print(f"| {low:g} to {min(high, 1):g} | {len(part)} | {(part > 1).mean():.1%} | {most:.0%} |")


if __name__ == "__main__":
    main()
