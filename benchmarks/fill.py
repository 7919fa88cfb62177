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
import re
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
from restore_plugin.errors import InputError, RestoreError
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
SMALLEST = 64  # px; in a smaller picture there may be no hole, or none that the texture's grid sees
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


def known(methods: str) -> list[str]:
    """The names in a list with commas. Raises InputError for one that fills no holes."""
    names = methods.split(",")
    for name in names:
        if name != "biharmonic" and (row := catalog.method(name)).task != "inpaint":
            raise InputError(f"expected methods that fill holes, got {name}, which is for {row.task}")
    return names


def restorer(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    if name == "biharmonic":
        return biharmonic
    return restore_plugin.load(catalog.method(name).name)


def band(text: str) -> tuple[float, float]:
    """Shares of the picture. Raises InputError."""
    low, high = map(int, found.groups()) if (found := re.fullmatch(r"(\d+)-(\d+)", text)) else (0, 0)
    if not 1 <= low <= high <= 70:  # more is not hidden, see training/holes.py
        raise InputError(f"expected --bands such as 10-20,20-40, in % from 1 to 70, got {text!r}")
    return low / 100, high / 100


def judged(found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """uint8 pictures; the scores of one fill."""
    import torch

    from restore_plugin.training.filling import texture_distance

    ours, theirs = as_pixels(found), as_pixels(truth)
    crop = tuple(slice(side - (side % 4 == 3)) for side in mask.shape)  # the texture's grid takes no sides of 4 n + 3
    planes = [np.ascontiguousarray(each[crop].transpose(2, 0, 1)) for each in (ours, theirs, mask[..., None])]
    texture = texture_distance(*(torch.from_numpy(each.astype(np.float32))[None] for each in planes))
    hole = psnr(ours[mask][None], theirs[mask][None])
    return {"psnr": hole, "ssim": ssim(ours, theirs), "gmsd": gmsd(ours, theirs), "texture": float(texture)}


def tile(picture: np.ndarray, name: str) -> np.ndarray:
    scale = SHEET_SIDE / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    drawn = np.zeros((SHEET_SIDE, SHEET_SIDE, 3), np.uint8)
    drawn[: small.shape[0], : small.shape[1]] = small
    return cv2.putText(drawn, name, (4, SHEET_SIDE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1)


def check(options: Namespace) -> None:
    """Before anything is computed. Raises InputError."""
    if min(options.every, options.rows) < 1 or options.seed < 0:
        raise InputError("expected --every and --rows of at least 1, and a --seed of at least 0")
    if options.longest is not None and options.longest < SMALLEST:
        raise InputError(f"expected --longest of at least {SMALLEST} px, got {options.longest}")
    if (path := options.sheet) and (path.suffix.lower() != ".png" or path.is_dir() or not path.parent.is_dir()):
        raise InputError(f"expected a --sheet ending in .png, in a folder that exists, got {path}")


def quality(options: Namespace) -> None:
    from restore_plugin.training.data import picture_files, read_rgb
    from restore_plugin.training.holes import hidden

    check(options)
    bands = {text: band(text) for text in options.bands.split(",")}
    names = [BASE, *(name for name in known(options.methods) if name != BASE)]
    methods = {name: restorer(name) for name in names}
    files = picture_files(options.pictures)[:: options.every]
    print(f"{len(files)} pictures; weights: {', '.join(filter(None, map(weights, names)))}\n")
    sheet = []
    for percents, (low, high) in bands.items():
        scores: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for number, path in enumerate(files):
            truth = read_rgb(path, options.longest)
            if min(truth.shape[:2]) < SMALLEST:
                raise InputError(f"expected pictures of at least {SMALLEST} px a side, got {truth.shape[:2]}: {path}")
            random = np.random.default_rng([options.seed, number])
            kind = KINDS[number % len(KINDS)]
            mask = hidden(*truth.shape[:2], kind, float(random.uniform(low, high)), random)
            shown = np.where(mask[..., None], np.uint8(255), truth)
            row = [tile(shown, f"{path.name} {percents} %")]
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
        print(f"{percents} %:\n\n| method |", " | ".join(heading for heading, _ in COLUMNS.values()), "|")
        print("|---" * (len(COLUMNS) + 1) + "|")
        for name, entries in scores.items():
            means = {key: float(np.mean([entry[key] for entry in entries])) for key in entries[0]}
            gains = [ours["psnr"] - base["psnr"] for ours, base in zip(entries, scores[BASE], strict=True)]
            means["gain"] = float(np.mean(gains))
            print(f"| {name} |", " | ".join(form.format(means[key]) for key, (_, form) in COLUMNS.items()), "|")
        print(flush=True)
    if options.sheet:
        options.sheet.write_bytes(cv2.imencode(".png", np.vstack(sheet)[..., ::-1])[1].tobytes())


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
    methods = known(options.methods)
    print("| picture, hole |", " | ".join(methods), "|")
    print("|---" * (len(methods) + 1) + "|", flush=True)
    for name, (height, width, side) in SIZES.items():
        cells = []
        for method in methods:
            folder = str(Path(__file__).parent)
            child = CHILD.format(folder=folder, method=method, height=height, width=width, side=side)
            done = subprocess.run([sys.executable, "-c", child], check=False, capture_output=True, text=True)
            if done.returncode:
                said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
                raise RestoreError(f"{method} failed on {name}: {said[-1]}")
            _, seconds, memory = done.stdout.split()[-3:]
            cells.append(f"{float(seconds):.2f} s, {memory} MiB")
        print(f"| {name}, {side} px |", " | ".join(cells), "|", flush=True)


def weights(name: str) -> str:
    """Of a method that has some: its name and the beginning of their SHA-256."""
    if name == "biharmonic" or not (file := catalog.method(name).weights):
        return ""
    manifest: dict[str, Any] = json.loads((catalog.WEIGHTS / "manifest.json").read_text(encoding="utf-8"))
    return f"{name} {manifest[file]['sha256'][:12]}"


def main(arguments: Sequence[str] | None = None) -> int:
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
    try:
        options.run(options)
    except (RestoreError, OSError) as error:
        print(f"fill.py: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
