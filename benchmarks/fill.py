"""Inpainting: what comes back of pictures with holes, methods side by side; how long it takes, and how much memory.

    python benchmarks/fill.py quality PICTURES [--methods fillnet,telea] [--bands 10-20,20-40,40-60] [--sheet out.png]
    python benchmarks/fill.py speed [--methods fillnet,telea]

`quality`: holes of every kind, drawn for each picture; a table a band of their share in %. PSNR in the hole alone and
how much better that is than Telea's, SSIM and GMSD of the whole picture, and how far the texture in the hole is from
the truth's (times 1000; restore_plugin.training.filling): of the last two, less is better. `biharmonic` is
scikit-image's. `speed`: a hole in the middle of a photograph; each size in a process of its own, and its peak memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import restore_plugin
from restore_plugin import catalog
from restore_plugin.metrics import gmsd, psnr, ssim
from restore_plugin.pipeline import as_pixels

KINDS = ("strokes", "outlines", "boxes", "mixed")
BASE = "telea"
COLUMNS = {"psnr": ("PSNR in the hole", "{:.2f}"), "gain": ("over Telea", "{:+.2f} dB"), "ssim": ("SSIM", "{:.4f}")}
COLUMNS |= {"gmsd": ("GMSD", "{:.4f}"), "texture": ("texture", "{:.1f}"), "seconds": ("s", "{:.2f}")}
# rows, columns, hole in px
SIZES = {
    "512x512": (512, 512, 128),
    "1280x720": (720, 1280, 180),
    "6000x4000": (4000, 6000, 600),
}
SHEET_SIDE = 320  # px
CHILD = """
import resource, sys
sys.path.insert(0, {folder!r})
import fill
print(*fill.timed({method!r}, {height}, {width}, {side}), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def biharmonic(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    from skimage.restoration import inpaint_biharmonic

    found = inpaint_biharmonic(picture.astype(np.float64) / 255, mask, channel_axis=-1, split_into_regions=True)
    return np.round(np.clip(found, 0, 1) * 255).astype(np.uint8)


def restorer(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    if name == "biharmonic":
        return biharmonic
    return restore_plugin.load(catalog.method(name).name)


def judged(found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """uint8 pictures; the scores of one fill."""
    import torch

    from restore_plugin.training.filling import texture_distance

    ours, theirs = as_pixels(found), as_pixels(truth)
    planes = [torch.from_numpy(np.ascontiguousarray(each.transpose(2, 0, 1)))[None] for each in (ours, theirs)]
    texture = texture_distance(*planes, torch.from_numpy(mask.astype(np.float32))[None, None])
    hole = psnr(ours[mask][None], theirs[mask][None])
    return {"psnr": hole, "ssim": ssim(ours, theirs), "gmsd": gmsd(ours, theirs), "texture": float(texture)}


def tile(picture: np.ndarray, name: str) -> np.ndarray:
    scale = SHEET_SIDE / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    drawn = np.zeros((SHEET_SIDE, SHEET_SIDE, 3), np.uint8)
    drawn[: small.shape[0], : small.shape[1]] = small
    return cv2.putText(drawn, name, (4, SHEET_SIDE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1)


def quality(options: Namespace) -> None:
    from restore_plugin.training.data import picture_files, read_rgb
    from restore_plugin.training.holes import hidden

    names = [BASE, *(name for name in options.methods.split(",") if name != BASE)]
    methods = {name: restorer(name) for name in names}
    files = picture_files(options.pictures)[:: options.every]
    print(f"{len(files)} pictures; weights of fillnet: {weights('fillnet.onnx')}\n")
    sheet = []
    for band in options.bands.split(","):
        low, high = (int(part) / 100 for part in band.split("-"))
        scores: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for number, path in enumerate(files):
            truth = read_rgb(path, options.longest)
            random = np.random.default_rng([options.seed, number])
            kind = KINDS[number % len(KINDS)]
            mask = hidden(*truth.shape[:2], kind, float(random.uniform(low, high)), random)
            shown = np.where(mask[..., None], np.uint8(255), truth)
            row = [tile(shown, f"{path.name} {band} %")]
            for name, fill in methods.items():
                start = time.perf_counter()
                found = fill(shown, mask)
                seconds = time.perf_counter() - start
                if not np.array_equal(found[~mask], truth[~mask]):
                    raise AssertionError(f"{name} changed {path} out of the hole")
                scores[name].append(judged(found, truth, mask) | {"seconds": seconds})
                row.append(tile(found, name))
            if number % max(1, len(files) // options.rows) == 0:
                sheet.append(np.hstack([*row, tile(truth, "truth")]))
        print(f"{band} %:\n\n| method |", " | ".join(heading for heading, _ in COLUMNS.values()), "|")
        print("|---" * (len(COLUMNS) + 1) + "|")
        for name, entries in scores.items():
            means = {key: float(np.mean([entry[key] for entry in entries])) for key in entries[0]}
            gains = [ours["psnr"] - base["psnr"] for ours, base in zip(entries, scores[BASE], strict=True)]
            means["gain"] = float(np.mean(gains))
            print(f"| {name} |", " | ".join(form.format(means[key]) for key, (_, form) in COLUMNS.items()), "|")
        print(flush=True)
    if options.sheet:
        cv2.imwrite(str(options.sheet), np.vstack(sheet)[..., ::-1])


def timed(method: str, height: int, width: int, side: int) -> tuple[float, float]:
    """Seconds of the first and of the second fill; the photograph is repeated to its size."""
    from skimage import data

    photograph = data.astronaut()
    times = (-(-height // 512), -(-width // 512), 1)
    picture = np.ascontiguousarray(np.tile(photograph, times)[:height, :width])
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 2, height // 2), side // 2, 1, -1)
    fill, spent = restorer(method), []
    for _ in range(2):
        start = time.perf_counter()
        fill(picture, mask.astype(bool))
        spent.append(time.perf_counter() - start)
    return spent[0], spent[1]


def speed(options: Namespace) -> None:
    print("| picture, hole |", " | ".join(options.methods.split(",")), "|")
    print("|---" * (len(options.methods.split(",")) + 1) + "|")
    for name, (height, width, side) in SIZES.items():
        cells = []
        for method in options.methods.split(","):
            folder = str(Path(__file__).parent)
            child = CHILD.format(folder=folder, method=method, height=height, width=width, side=side)
            done = subprocess.run([sys.executable, "-c", child], check=True, capture_output=True, text=True)
            _, seconds, memory = done.stdout.split()[-3:]
            cells.append(f"{float(seconds):.2f} s, {memory} MiB")
        print(f"| {name}, {side} px |", " | ".join(cells), "|", flush=True)


def weights(file: str) -> str:
    manifest: dict[str, Any] = json.loads((catalog.WEIGHTS / "manifest.json").read_text(encoding="utf-8"))
    return str(manifest[file]["sha256"])[:12]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    judge = commands.add_parser("quality", help="what comes back")
    judge.add_argument("pictures", type=Path)
    judge.add_argument("--methods", default="fillnet,patches,smooth,navier_stokes,biharmonic")
    judge.add_argument("--bands", default="10-20,20-40,40-60", help="shares hidden, in %%")
    judge.add_argument("--every", type=int, default=1, help="take every n-th picture")
    judge.add_argument("--longest", type=int, help="reduce larger pictures to this (px)")
    judge.add_argument("--seed", type=int, default=0)
    judge.add_argument("--sheet", type=Path, help="a PNG: some fills of each band")
    judge.add_argument("--rows", type=int, default=7, help="of the sheet, for each band")
    judge.set_defaults(run=quality)
    clock = commands.add_parser("speed", help="seconds and memory")
    clock.add_argument("--methods", default="fillnet,patches,smooth,telea")
    clock.set_defaults(run=speed)
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
