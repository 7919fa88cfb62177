"""Are all faces hidden? `--task automosaic` and the `deface` package on clips with known truth.

    python benchmarks/face_clips.py CLIPS ...          makes the clips
    python benchmarks/faces.py CLIPS --deface VENV/bin/python [--speed] [--json OUT.json]
    python benchmarks/faces.py CLIPS --deface VENV/bin/python --without-ours

A face-frame is one face in one frame, of which at least 30 % can be seen and which is at least 18 px high, brow to
chin. It is covered when at least 95 % of what can be seen of the inner face lies under what is hidden. Columns:

- *uncovered*: face-frames that are not; *covered*: share of those that are;
- *between sightings*: the same for face-frames with a sighting of ours before (or then) and after (or then) in one
  track; a sighting is a region of the plan that was found in its frame and covers half of the visible inner face;
- *false cover*: share of the picture that is hidden and farther than 0.6 face heights from any face, mean of frames;
- *longest run*: most face-frames of one person in a row that are uncovered;
- *frames/s* (with --speed): of the whole command that writes the hidden video, its start included.

deface: at its default threshold and at others; the best is the one that leaves fewest uncovered with a false cover
under 1 %. What it finds is kept beside the clips as CLIP.deface.json. *People*: labels of ours against true people.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage.draw import ellipse

from restore_plugin.plan import PlanReader
from restore_plugin.regions import clip as inside_picture
from restore_plugin.types import FOUND, Region

COVERED, SEEN = 0.95, 0.5  # of the visible inner face
NEAR = 0.6  # face heights: what is hidden so close to a face is not false
FALSE_COVER = 0.01  # of the picture, at most
THRESHOLDS, DEFAULT = (0.05, 0.1, 0.2, 0.3, 0.5), 0.2  # deface's
NOTHING_FOUND = 3  # exit code
OURS = "restore-video"
COMMAND = [sys.executable, "-c", "import sys; from ffmpeg_filters.cli import main; sys.exit(main())"]
SIZES = ((18, 30), (30, 60), (60, 10_000))  # px
Mask = np.ndarray
Hidden = Callable[[int], Mask]  # frame -> (H, W) bool
FaceFrame = dict[str, Any]


@dataclass
class Judged:
    """One method on one clip."""

    faces: list[FaceFrame] = field(default_factory=list)  # frame, person, covered and what the truth says of it
    false: list[float] = field(default_factory=list)  # share of the picture, one a frame

    def longest(self) -> int:
        runs: dict[int, int] = defaultdict(int)
        longest = 0
        for face in self.faces:
            runs[face["person"]] = 0 if face["covered"] else runs[face["person"]] + 1
            longest = max(longest, runs[face["person"]])
        return longest


# ---- what is hidden


def of_boxes(frames: list[list[list[float]]], threshold: float, shape: tuple[int, int]) -> Hidden:
    """deface's ellipses, drawn as `deface.draw_det` does."""

    def hidden(t: int) -> Mask:
        mask = np.zeros(shape, bool)
        for x1, y1, x2, y2, score in frames[t] if t < len(frames) else ():
            if score > threshold and x2 > x1 and y2 > y1:
                x1, y1, x2, y2 = int(x1), int(y1), int(x2), int(y2)
                half = ((y2 - y1) // 2, (x2 - x1) // 2)
                mask[y1:y2, x1:x2][ellipse(*half, *half)] = True
        return mask

    return hidden


def of_plan(plan: dict[int, list[Region]], shape: tuple[int, int]) -> Hidden:
    def hidden(t: int) -> Mask:
        mask = np.zeros(shape, bool)
        for region in plan.get(t, ()):
            within = inside_picture(region, shape[1], shape[0])
            if within is not None:
                mask[within.box.slices] |= within.mask()
        return mask

    return hidden


def deface_boxes(clip: Path, python: Path) -> list[list[list[float]]]:
    kept = clip.with_suffix(".deface.json")
    if not kept.exists() or kept.stat().st_mtime < clip.stat().st_mtime:
        script = Path(__file__).with_name("deface_boxes.py")
        subprocess.run([str(python), str(script), str(clip), str(kept)], check=True, stdout=subprocess.DEVNULL)
    return json.loads(kept.read_text())["frames"]


def our_plan(clip: Path, folder: Path) -> dict[int, list[Region]]:
    """The plan of a scan. Exit codes that report something are no errors as long as there is a plan."""
    path = folder / f"{clip.stem}.jsonl"
    path.unlink(missing_ok=True)
    command = [*COMMAND, "scan", str(clip), "--task", "automosaic", "-o", str(path), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if not path.exists():
        if done.returncode != NOTHING_FOUND:
            raise SystemExit(f"expected a plan of {clip.name}, got exit code {done.returncode}: {done.stderr[-2000:]}")
        return {}
    with PlanReader(path, "automosaic") as reader:
        return dict(reader)


# ---- judging


def filled(polygons: Sequence[Any], shape: tuple[int, int]) -> Mask:
    mask = np.zeros(shape, np.uint8)
    if polygons:
        cv2.fillPoly(mask, [np.array(polygon, np.int32) for polygon in polygons], 1)
    return mask.astype(bool)


def near_faces(faces: list[FaceFrame], shape: tuple[int, int]) -> Mask:
    """Up to NEAR face heights from any inner face, whether it can be seen or not."""
    mask = np.zeros(shape, np.uint8)
    for face in faces:
        outline = [np.array(face["outline"]).round().astype(np.int32)]
        cv2.fillPoly(mask, outline, 1)
        cv2.polylines(mask, outline, True, 1, max(1, round(2 * NEAR * face["height_px"])))
    return mask.astype(bool)


def judge(truth: dict[str, Any], methods: dict[str, Hidden]) -> dict[str, Judged]:
    shape = (truth["height"], truth["width"])
    judged = {name: Judged() for name in methods}
    for t, faces in enumerate(truth["frames"]):
        far = ~near_faces(faces, shape)
        counted = [(face, filled(face["visible"], shape)) for face in faces if face["counts"]]
        for name, hidden in methods.items():
            mask = hidden(t)
            judged[name].false.append(float((mask & far).sum() / mask.size))
            for face, visible in counted:
                share = float((mask & visible).sum() / visible.sum())
                known = {key: face[key] for key in ("person", "height_px", "share", "blur_px", "yaw", "roll")}
                judged[name].faces.append({"frame": t, **known, "hidden": share, "covered": share >= COVERED})
    return judged


def sightings(truth: dict[str, Any], plan: dict[int, list[Region]]) -> list[tuple[int, int, Region]]:
    """(frame, person, region) for every region that was found in its frame and covers a face by half."""
    shape, seen = (truth["height"], truth["width"]), []
    for t, faces in enumerate(truth["frames"]):
        for region in plan.get(t, ()):
            within = inside_picture(region, shape[1], shape[0])
            if region.origin != FOUND or within is None:
                continue
            best = (SEEN, -1)
            for face in faces:
                visible = filled(face["visible"], shape)
                if visible.any():
                    share = float((visible[within.box.slices] & within.mask()).sum() / visible.sum())
                    best = max(best, (share, face["person"]))
            if best[1] >= 0:
                seen.append((t, best[1], region))
    return seen


def mark_between(judged: Judged, seen: list[tuple[int, int, Region]]) -> None:
    """Which face-frames have sightings of one track on both sides (or then)."""
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    for t, person, region in seen:
        first, last = spans.get((person, region.id), (t, t))
        spans[person, region.id] = (min(first, t), max(last, t))
    for face in judged.faces:
        face["between"] = any(
            person == face["person"] and first <= face["frame"] <= last for (person, _), (first, last) in spans.items()
        )


def people(seen: list[tuple[int, int, Region]]) -> dict[str, Any]:
    """Labels of each person and people of each label that were seen together at least 3 times; splits and joins."""
    pairs = Counter((person, region.label or f"track {region.id}") for _, person, region in seen)
    pairs = Counter({pair: times for pair, times in pairs.items() if times >= 3})
    labels: dict[int, dict[str, int]] = defaultdict(dict)
    persons: dict[str, dict[int, int]] = defaultdict(dict)
    for (person, label), times in pairs.items():
        labels[person][label] = times
        persons[label][person] = times
    return {
        "labels_of_person": {str(person): found for person, found in sorted(labels.items())},
        "people_of_label": {label: {str(p): n for p, n in found.items()} for label, found in sorted(persons.items())},
        "splits": sum(len(found) - 1 for found in labels.values()),
        "joins": sum(len(found) - 1 for found in persons.values()),
    }


# ---- speed


def frames_a_second(command: list[str], out: Path, frames: int, rounds: int) -> float:
    """The best of several runs of a command that writes a video to `out`."""
    best = float("inf")
    for _ in range(rounds):
        out.unlink(missing_ok=True)
        start = time.perf_counter()
        done = subprocess.run([*command, "-o", str(out)], capture_output=True, text=True)
        best = min(best, time.perf_counter() - start)
        if not out.exists() and done.returncode != NOTHING_FOUND:
            raise SystemExit(f"expected {out} of {shlex.join(command)}, got: {done.stderr[-2000:]}")
    return frames / best


def speeds(clip: Path, frames: int, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """By row of the table; one command after the other, so that they are measured in the same minute."""
    commands = {}
    if not options.without_ours:
        commands[OURS] = [*COMMAND, str(clip), "--task", "automosaic", "--quiet"]
    if options.deface:
        commands[row_of(DEFAULT)] = [str(options.deface.with_name("deface")), str(clip)]
    return {
        name: frames_a_second(command, folder / f"{name.split()[0]}.mp4", frames, options.rounds)
        for name, command in commands.items()
    }


# ---- tables


def row_of(threshold: float) -> str:
    return f"deface {threshold:g}"


def summary(parts: list[Judged]) -> dict[str, Any]:
    faces = [face for part in parts for face in part.faces]
    between = [face for face in faces if face.get("between")]
    covered = sum(face["covered"] for face in faces)
    return {
        "face_frames": len(faces),
        "uncovered": len(faces) - covered,
        "covered": covered / len(faces) if faces else 1.0,
        "between": len(between),
        "between_uncovered": sum(not face["covered"] for face in between),
        "false_cover": float(np.mean([share for part in parts for share in part.false])),
        "longest_run": max((part.longest() for part in parts), default=0),
        "uncovered_by_height": {
            f"{low}-{high} px" if high < 10_000 else f"from {low} px": [
                sum(not face["covered"] for face in faces if low <= face["height_px"] < high),
                sum(low <= face["height_px"] < high for face in faces),
            ]
            for low, high in SIZES
        },
    }


def line(name: str, row: dict[str, Any], rate: float | None) -> str:
    between = (
        f"{1 - row['between_uncovered'] / row['between']:.2%} ({row['between_uncovered']} of {row['between']})"
        if row["between"]
        else "-"
    )
    heights = ", ".join(f"{left}" for left, _ in row["uncovered_by_height"].values())
    return (
        f"| {name} | {row['uncovered']} of {row['face_frames']} | {row['covered']:.2%} | {between} "
        f"| {row['false_cover']:.3%} | {row['longest_run']} | {heights} | {f'{rate:.1f}' if rate else '-'} |"
    )


def table(rows: dict[str, dict[str, Any]], rates: dict[str, float]) -> None:
    heights = ", ".join(f"{low}+" for low, _ in SIZES)
    print(
        f"| | uncovered | covered | between sightings | false cover | longest run | by height {heights} px | frames/s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        print(line(name, row, rates.get(name)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--deface", type=Path, metavar="PYTHON", help="the Python that deface is installed for")
    parser.add_argument("--without-ours", action="store_true")
    parser.add_argument("--only", action="append", help="only clips whose name has this in it")
    parser.add_argument("--plans", type=Path, help="keep our plans in this folder")
    parser.add_argument("--speed", action="store_true", help="time the whole commands, one after the other")
    parser.add_argument("--rounds", type=int, default=1, help="for --speed: the best of so many")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    clips = [
        path
        for path in sorted(options.clips.glob("*.mp4"))
        if path.with_suffix(".json").exists() and (not options.only or any(part in path.name for part in options.only))
    ]
    if not clips:
        raise SystemExit(
            f"expected clips with their truth in {options.clips}, found none; make some with face_clips.py"
        )
    results: dict[str, dict[str, Judged]] = {}
    report: dict[str, Any] = {"command": shlex.join(sys.argv), "machine": platform.platform(), "clips": {}}
    times: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])  # frames, seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.plans:
            options.plans.mkdir(parents=True, exist_ok=True)
        for clip in clips:
            truth = json.loads(clip.with_suffix(".json").read_text())
            shape, methods, seen = (truth["height"], truth["width"]), {}, []
            if not options.without_ours:
                plan = our_plan(clip, options.plans or folder)
                methods[OURS], seen = of_plan(plan, shape), sightings(truth, plan)
            if options.deface:
                boxes = deface_boxes(clip, options.deface)
                if len(boxes) != len(truth["frames"]):
                    raise SystemExit(f"expected {len(truth['frames'])} frames of {clip.name}, deface read {len(boxes)}")
                methods |= {row_of(threshold): of_boxes(boxes, threshold, shape) for threshold in THRESHOLDS}
            results[clip.name] = judge(truth, methods)
            if OURS in methods:
                mark_between(results[clip.name][OURS], seen)
            rates = speeds(clip, len(truth["frames"]), folder, options) if options.speed else {}
            for method, rate in rates.items():
                times[method][0] += len(truth["frames"])
                times[method][1] += len(truth["frames"]) / rate
            rows = {method: summary([judged]) for method, judged in results[clip.name].items()}
            print(f"\n{clip.name}, {len(truth['frames'])} frames\n", flush=True)
            table(rows, rates)
            entry: dict[str, Any] = {"kind": truth["kind"], "methods": rows, "frames_per_second": rates}
            entry["uncovered"] = {
                method: [
                    {k: v for k, v in face.items() if k != "covered"} for face in judged.faces if not face["covered"]
                ]
                for method, judged in results[clip.name].items()
            }
            if OURS in methods and len({face["person"] for faces in truth["frames"] for face in faces}) > 1:
                entry["people"] = people(seen)
                print(f"\npeople: {entry['people']['splits']} splits, {entry['people']['joins']} joins", flush=True)
            report["clips"][clip.name] = entry
    names = list(next(iter(results.values())))
    rows = {method: summary([clip[method] for clip in results.values()]) for method in names}
    rates = {method: frames / seconds for method, (frames, seconds) in times.items()}
    print(f"\nAll {len(clips)} clips\n")
    table(rows, rates)
    report |= {"all": rows, "frames_per_second": rates}
    swept = {method: row for method, row in rows.items() if method != OURS and row["false_cover"] < FALSE_COVER}
    if swept:
        report["best_deface"] = min(swept, key=lambda method: swept[method]["uncovered"])
        print(f"\ndeface leaves fewest with a false cover under {FALSE_COVER:.0%} at: {report['best_deface']}")
    counted = [entry["people"] for entry in report["clips"].values() if "people" in entry]
    if counted:
        report["people"] = {key: sum(entry[key] for entry in counted) for key in ("splits", "joins")}
        print(
            f"\npeople: {report['people']['splits']} splits, {report['people']['joins']} joins in {len(counted)} clips"
        )
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
