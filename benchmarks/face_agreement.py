"""Real clips: how many of the faces that two other detectors see, set to be sensitive, lie under our covers.

    python benchmarks/face_agreement.py CLIPS --yunet yunet.onnx [--every 2] [--sheet MISSED.png] [--json OUT.json]

The detectors: YuNet (a model file for cv2.FaceDetectorYN) and dlib's HOG. A face counts as covered where the middle
part of its box, four fifths of each side, is covered by nine tenths. Both have false alarms at these thresholds, so
what is not covered is shown on a sheet to look at. Needs the extra `faces`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np

from ffmpeg_filters.cli import main as restore_video
from ffmpeg_filters.reader import probe, read_frames
from restore_plugin.plan import PlanReader
from restore_plugin.types import Box, Region

YUNET_SCORE, HOG_SCORE = 0.5, -0.1
INNER, ENOUGH = 0.8, 0.9
TILE = (160, 120)


def others(rgb: np.ndarray, yunet: Any, hog: Any) -> dict[str, list[Box]]:
    """What the two detectors see in a frame."""
    yunet.setInputSize((rgb.shape[1], rgb.shape[0]))
    _, rows = yunet.detect(np.ascontiguousarray(rgb[..., ::-1]))
    seen = [Box(*(round(float(value)) for value in row[:4])) for row in (rows if rows is not None else [])]
    found, scores, _ = hog.run(rgb, 1, HOG_SCORE)
    boxes = [Box.between(each.left(), each.top(), each.right(), each.bottom()) for each in found]
    return {"YuNet": seen, "HOG": [box for box, score in zip(boxes, scores, strict=True) if score > HOG_SCORE]}


def covered(box: Box, hidden: np.ndarray) -> bool:
    x, y = round(box.width * (1 - INNER) / 2), round(box.height * (1 - INNER) / 2)
    inner = Box.between(box.x + x, box.y + y, box.right - x, box.bottom - y)
    inner = inner.intersect(Box(0, 0, hidden.shape[1], hidden.shape[0]))
    return inner.area == 0 or bool(hidden[inner.slices].mean() >= ENOUGH)


def same(box: Box, places: list[Box]) -> bool:
    return any(box.intersect(other).area > 0.4 * min(box.area, other.area) for other in places)


def measure(path: Path, yunet: Any, every: int, folder: Path) -> tuple[Counter[str], list[tuple[Path, int, Box]]]:
    plan = folder / f"{path.stem}.plan.jsonl"
    code = restore_video(["scan", str(path), "--task", "automosaic", "-o", str(plan), "--quiet", "--overwrite"])
    regions: dict[int, list[Region]] = {}
    if code == 0:
        with PlanReader(plan, "automosaic") as reader:
            regions = dict(reader)
    counts: Counter[str] = Counter()
    missed = []
    hog = dlib.get_frontal_face_detector()
    for frame in read_frames(probe(path)):
        counts["frames with covers"] += frame.index in regions
        counts["frames"] += 1
        if frame.index % every:
            continue
        rgb = frame.overview(max(frame.width, frame.height))
        hidden = np.zeros(rgb.shape[:2], bool)
        for region in regions.get(frame.index, ()):
            hidden[region.box.slices] |= region.mask()
        seen = others(rgb, yunet, hog)
        for name, other in (("YuNet", "HOG"), ("HOG", "YuNet")):
            for box in seen[name]:
                both = same(box, seen[other])
                if both and name == "HOG":
                    continue
                kind = "both" if both else f"{name} alone"
                counts[kind] += 1
                if covered(box, hidden):
                    counts[f"{kind}, covered"] += 1
                else:
                    missed.append((path, frame.index, box))
    return counts, missed


def tile(path: Path, index: int, box: Box) -> np.ndarray:
    """The place that was not covered, marked, with the frame's number."""
    rgb = next(frame.overview(10_000) for frame in read_frames(probe(path)) if frame.index == index).copy()
    cv2.rectangle(rgb, (box.x, box.y), (box.right, box.bottom), (255, 0, 0), 2)
    around = box.grow(2 * box.width, 2 * box.height, within=Box(0, 0, rgb.shape[1], rgb.shape[0]))
    small = cv2.resize(rgb[around.slices], TILE, interpolation=cv2.INTER_AREA)
    cv2.putText(small, f"{path.stem[:12]} {index}", (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 0), 1)
    return small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+", help="clips, or a folder of them")
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="compare every n-th frame")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    yunet = cv2.FaceDetectorYN.create(str(options.yunet), "", (320, 240), YUNET_SCORE)
    files = [file for path in options.clips for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    kinds = ("both", "YuNet alone", "HOG alone")
    print("| clip | frames | with covers | " + " | ".join(f"{kind}: covered" for kind in kinds) + " |")
    print("|---|---|---|" + "---|" * len(kinds))
    total: Counter[str] = Counter()
    missed: list[tuple[Path, int, Box]] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            counts, uncovered = measure(path, yunet, options.every, Path(folder))
            total += counts
            missed += uncovered
            print(line(path.stem, counts, kinds), flush=True)
    print(line("all", total, kinds))
    if options.json:
        places = [[str(path.name), index, [box.x, box.y, box.width, box.height]] for path, index, box in missed]
        options.json.write_text(json.dumps({"counts": total, "missed": places}))
    if options.sheet and missed:
        step = max(1, len(missed) // 80)
        tiles = [tile(*place) for place in missed[::step][:80]]
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 8)
        rows = [np.hstack(tiles[at : at + 8]) for at in range(0, len(tiles), 8)]
        cv2.imwrite(str(options.sheet), np.vstack(rows)[..., ::-1])


def line(name: str, counts: Counter[str], kinds: tuple[str, ...]) -> str:
    cells = [f"{counts[f'{kind}, covered']} of {counts[kind]}" for kind in kinds]
    return f"| {name} | {counts['frames']} | {counts['frames with covers']} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
