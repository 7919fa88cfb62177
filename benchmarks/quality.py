"""How much comes back: pictures are damaged and restored, or damaged ones with their truth are; methods side by side.

    python benchmarks/quality.py --clean PICTURES --degradation rain-light,rain-heavy --methods rainnet,did_mdn
    python benchmarks/quality.py --clean PICTURES --degradation mosaic-4,mosaic-6.5,mosaic-8 --methods cellnet,bicubic
    python benchmarks/quality.py --pairs DAMAGED CLEAN --methods rainnet [--match '^rain-(\\d+)' '^norain-(\\d+)']

Pairs share a name, or what the group of --match finds in it; several damaged pictures may share a clean one. A table a
degradation: PSNR, SSIM, VIF and GMSD (a distance: 0 is best) after rounding to 8 bits, means over the pictures; the
gain in PSNR over the damaged picture, mean and worst; milliseconds, median. Of a mosaic made here (any size of blocks,
told to methods that take regions) also bicubic interpolation without the projection onto the cells' means, the gain
over it, and *off by*: how far the picture, pixelated again, is from the mosaic, at most. Of several, an overview.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import sys
import time
import zlib
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import restore_plugin
from restore_plugin import catalog, mosaic
from restore_plugin.errors import InputError, NothingFound, RestoreError
from restore_plugin.metrics import VIF_MINIMUM, gmsd, psnr, ssim, vif
from restore_plugin.training.data import Picture, picture_files, read_rgb
from restore_plugin.training.degradations import DEGRADATIONS, degrade
from restore_plugin.types import Box, Pixels, Region, RestoreOptions

DAMAGED, INTERPOLATED = "damaged", "bicubic, not projected"  # rows before the methods'
MOSAIC = re.compile(r"mosaic-([1-9]\d*(?:\.\d+)?)")  # px
SHEET_ROWS, SHEET_SIDE, LABEL = 4, 256, 20  # pictures of a degradation; px
METRICS: dict[str, Callable[[Pixels, Pixels], float]] = {"psnr": psnr, "ssim": ssim, "vif": vif, "gmsd": gmsd}
COLUMNS = {
    **{"psnr": ("PSNR", "{:.2f}"), "ssim": ("SSIM", "{:.3f}"), "vif": ("VIF", "{:.3f}"), "gmsd": ("GMSD", "{:.3f}")},
    **{"gain": ("gain", "{:+.2f} dB"), "gain_worst": ("worst", "{:+.2f} dB")},
    **{"over_bicubic": ("over bicubic", "{:+.2f} dB"), "over_bicubic_worst": ("worst", "{:+.2f} dB")},
    **{"off_by": ("off by", "{:.2f} / 255"), "ms": ("ms", "{:.0f}")},
}
POOLS: dict[str, Any] = {"off_by": np.max, "ms": np.median}  # over the pictures; the mean of all others
Pair = tuple[str, Path, Path | None]  # name, clean, damaged; None: made of the clean one
Scores = dict[str, list[dict[str, float]]]  # row -> one entry a picture
Summary = dict[str, dict[str, Any]]  # row -> means, gains, worst cases


class Grid:
    """A mosaic over a whole picture: how it is made, and what methods are told of it."""

    def __init__(self, height: int, width: int, block: float, linear_light: bool) -> None:
        self.rows, self.columns = mosaic.axis_edges(0, height, block, 0), mosaic.axis_edges(0, width, block, 0)
        self.regions = [Region(Box(0, 0, width, height), 1, (block, block))]
        self.linear_light = linear_light

    def pixelate(self, picture: Picture) -> np.ndarray:  # float32 in [0, 255]
        return mosaic.pixelate(picture.astype(np.float32) / 255, self.rows, self.columns, self.linear_light) * 255

    def interpolate(self, shown: Picture) -> Picture:
        flat = shown[np.ix_(self.rows[:-1], self.columns[:-1])].astype(np.float32)
        smooth = mosaic.resample(mosaic.cells_to_pixels(self.rows), mosaic.cells_to_pixels(self.columns), flat)
        return np.round(np.clip(smooth, 0, 255)).astype(np.uint8)


def damage(truth: Picture, degradation: str, seed: int, linear_light: bool) -> tuple[Picture, Grid | None]:
    """The damaged picture and, of a mosaic, its grid."""
    if found := MOSAIC.fullmatch(degradation):
        grid = Grid(truth.shape[0], truth.shape[1], float(found[1]), linear_light)
        return np.round(grid.pixelate(truth)).astype(np.uint8), grid
    return degrade(degradation, truth, seed), None


def keyed(folder: Path, pattern: str) -> dict[str, list[Path]]:
    """Pictures by what the pattern's group finds in their names without the ending; others are left out."""
    if re.compile(pattern).groups != 1:
        raise InputError(f"expected a pattern with one group for --match, such as '(\\d+)', got {pattern!r}")
    keys: dict[str, list[Path]] = {}
    for path in picture_files(folder):
        if found := re.search(pattern, path.stem):
            keys.setdefault(found[1], []).append(path)
    return keys


def matched(damaged: Path, clean: Path, patterns: Sequence[str]) -> list[Pair]:
    """Every damaged picture with its clean one; several may share one."""
    ours, theirs = keyed(damaged, patterns[0]), keyed(clean, patterns[-1])
    lonely = sorted(str((ours.get(key) or theirs[key])[0]) for key in ours.keys() ^ theirs.keys())
    if lonely or not ours:
        found = f"no partner for {', '.join(lonely[:5])} ({len(lonely)} in all)" if lonely else "none"
        raise InputError(f"expected pairs by name in {damaged} and {clean}, found {found}; see --match")
    if twice := [paths for paths in theirs.values() if len(paths) > 1]:
        raise InputError(f"expected one clean picture a name, got {twice[0][0]} and {twice[0][1]}; see --match")
    return [(path.relative_to(damaged).as_posix(), theirs[key][0], path) for key in ours for path in ours[key]]


def read(path: Path, longest: int | None) -> Picture:
    picture = read_rgb(path, longest)
    if min(picture.shape[:2]) < VIF_MINIMUM:
        raise InputError(f"expected pictures of at least {VIF_MINIMUM} px a side, got {picture.shape[:2]}: {path}")
    return picture


def measure(kind: str, pairs: list[Pair], methods: dict[str, Any], options: Namespace, sheet: list[Picture]) -> Scores:
    """Each row's scores under one kind of degradation; adds to the rows of the sheet."""
    rows: Scores = {}
    picked = set(np.linspace(0, len(pairs) - 1, min(SHEET_ROWS, len(pairs))).round().astype(int))
    for number, (file, clean, damaged) in enumerate(pairs):
        truth = read(clean, options.longest)
        if damaged is None:
            seed = zlib.crc32(f"{options.seed} {file}".encode())  # a picture's own, whatever --every leaves out
            shown, grid = damage(truth, kind, seed, options.linear_light)
        else:
            shown, grid = read(damaged, options.longest), None
            if shown.shape != truth.shape:
                raise InputError(f"expected pairs of one size, got {shown.shape} and {truth.shape}: {damaged}")
        pictures = {DAMAGED: shown} | ({INTERPOLATED: grid.interpolate(shown)} if grid else {})
        spent = {}
        for name, restore in methods.items():
            pictures[name], start = shown, time.perf_counter()
            with suppress(NothingFound):
                pictures[name] = restore(shown, grid.regions if grid and restore.needs_place else None)
            spent[name] = {"ms": (time.perf_counter() - start) * 1000}
        for name, picture in pictures.items():
            compared = picture.astype(np.float32) / 255, truth.astype(np.float32) / 255
            scores = {key: min(metric(*compared), 99.0) for key, metric in METRICS.items()}  # dB, where all is equal
            scores |= {"off_by": float(np.abs(grid.pixelate(picture) - shown).max())} if grid else {}
            rows.setdefault(name, []).append(scores | spent.get(name, {}))
        if number in picked:
            labelled = {f"{DAMAGED}: {kind}": pictures.pop(DAMAGED), **pictures, "truth": truth}
            sheet.append(np.hstack([tile(name, picture) for name, picture in labelled.items()]))
    return rows


def tile(name: str, picture: Picture) -> Picture:
    """The middle of a picture at 100 %, under its name."""
    drawn = np.zeros((LABEL + SHEET_SIDE, SHEET_SIDE, 3), np.uint8)
    y, x = (max(0, side - SHEET_SIDE) // 2 for side in picture.shape[:2])
    crop = picture[y : y + SHEET_SIDE, x : x + SHEET_SIDE]
    drawn[LABEL : LABEL + crop.shape[0], : crop.shape[1]] = crop
    return cv2.putText(drawn, name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)


def summed(rows: Scores) -> Summary:
    summary = {}
    for name, scores in rows.items():
        means = {key: float(POOLS.get(key, np.mean)([s[key] for s in scores])) for key in scores[0]}
        for baseline, key in ((DAMAGED, "gain"), (INTERPOLATED, "over_bicubic")):
            if baseline in rows and name not in (DAMAGED, baseline):
                gains = [s["psnr"] - b["psnr"] for s, b in zip(scores, rows[baseline], strict=True)]
                means |= {key: float(np.mean(gains)), f"{key}_worst": min(gains)}
        summary[name] = means
    return summary


def cells(means: dict[str, Any], keys: Sequence[str]) -> list[str]:
    return [COLUMNS[key][1].format(means[key]) if key in means else "" for key in keys]


def table(heading: str, columns: list[str], lines: dict[str, list[str]]) -> None:
    print("|", " | ".join([heading, *columns]), "|\n|" + "---|" * (len(columns) + 1))
    print("".join(f"| {name} | {' | '.join(line)} |\n" for name, line in lines.items()), flush=True)


def overview(summaries: dict[str, Summary], first: str) -> None:
    """PSNR / SSIM of every row; of the first method the gain over the damaged or interpolated picture, off by, ms."""
    names = list(dict.fromkeys(name for summary in summaries.values() for name in summary))
    lines = {}
    for degradation, summary in summaries.items():
        over = "over_bicubic" if INTERPOLATED in summary else "gain"
        lines[degradation] = [" / ".join(cells(summary[n], ("psnr", "ssim"))) if n in summary else "" for n in names]
        lines[degradation] += cells(summary[first], (over, f"{over}_worst", "off_by", "ms"))
    table("degradation", [*names, f"gain of {first}", "worst", "off by", "ms"], lines)


def check(options: Namespace) -> None:
    """Before anything is computed. Raises InputError for what cannot be, and for what would have no effect."""
    if any(number is not None and number < 1 for number in (options.every, options.limit, options.longest)):
        raise InputError("expected --every, --limit and --longest of at least 1")
    if options.pairs and options.degradation is not None:
        raise InputError("expected --degradation with --clean only: --pairs are damaged already")
    if options.match and (options.clean or len(options.match) > 2):
        raise InputError("expected one pattern or two for --match, with --pairs only")
    for path in filter(None, (options.sheet, options.json)):
        if path.is_dir() or not path.parent.is_dir():
            raise InputError(f"expected a file in a folder that exists, got {path}; make the folder first")
    if options.sheet and options.sheet.suffix.lower() != ".png":
        raise InputError(f"expected a name ending in .png for --sheet, got {options.sheet}")


def run(options: Namespace) -> None:
    check(options)
    if options.pairs:
        degradations, pairs = ["pairs"], matched(options.pairs[0], options.pairs[1], options.match or ["(.*)"])
    else:
        degradations = (options.degradation or "").split(",")
        for name in degradations:
            if not MOSAIC.fullmatch(name) and name not in DEGRADATIONS:
                raise InputError(f"expected a degradation out of {', '.join(DEGRADATIONS)}, mosaic-SIZE, got {name!r}")
        pairs = [(path.relative_to(options.clean).as_posix(), path, None) for path in picture_files(options.clean)]
    pairs = pairs[:: options.every][: options.limit]
    chosen = [catalog.method(name) for name in options.methods.split(",")]
    told = options.pairs and any(row.task == "demosaic" for row in chosen)
    if options.linear_light and not (told or any(map(MOSAIC.fullmatch, degradations))):
        raise InputError("expected mosaics for --linear-light: --degradation mosaic-SIZE, or --pairs of them")
    methods: dict[str, Any] = {row.name: restore_plugin.load(row.name) for row in chosen}
    for method in methods.values() if options.linear_light else ():
        method.restorer.options = RestoreOptions(linear_light=True)
    manifest = json.loads((catalog.WEIGHTS / "manifest.json").read_text(encoding="utf-8"))
    weights = {row.name: manifest[row.weights]["sha256"] for row in chosen if row.weights}
    hashes = ", ".join(f"{name} {sha256[:12]}" for name, sha256 in weights.items()) or "none"
    print(f"{len(pairs)} pictures. Weights: {hashes}.\n")
    results, sheet = dict[str, Summary](), list[Picture]()
    for degradation in degradations:
        rows = measure(degradation, pairs, methods, options, sheet)
        summary = results[degradation] = summed(rows)
        keys = [key for key in COLUMNS if any(key in means for means in summary.values())]
        table(degradation, [COLUMNS[key][0] for key in keys], {name: cells(summary[name], keys) for name in rows})
        for name, scores in rows.items():
            summary[name]["pictures"] = {pair[0]: each for pair, each in zip(pairs, scores, strict=True)}
    if len(degradations) > 1:
        overview(results, chosen[0].name)
    if options.json:
        about = {"command": shlex.join(["python", *sys.argv]), "machine": platform.platform(), "weights": weights}
        options.json.write_text(json.dumps(about | {"results": results}, indent=1) + "\n", encoding="utf-8")
    if options.sheet:
        widest = max(row.shape[1] for row in sheet)
        whole = np.vstack([np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in sheet])
        options.sheet.write_bytes(cv2.imencode(".png", whole[..., ::-1])[1].tobytes())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--clean", type=Path, help="pictures to damage; needs --degradation")
    source.add_argument("--pairs", type=Path, nargs=2, metavar=("DAMAGED", "CLEAN"), help="folders, matched by name")
    parser.add_argument("--match", nargs="+", help="regex (or two): its group is what names share")
    parser.add_argument("--degradation", help=f"some of {', '.join(DEGRADATIONS)}, mosaic-SIZE")
    parser.add_argument("--methods", required=True, help="methods or tasks of the catalogue, such as cellnet,bicubic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture, by name")
    parser.add_argument("--limit", type=int, help="take this many pictures at most")
    parser.add_argument("--longest", type=int, help="reduce larger pictures to this (px)")
    parser.add_argument("--linear-light", action="store_true", help="mosaics are averaged in linear light")
    parser.add_argument("--sheet", type=Path, help="a PNG: damaged | each method | truth of some pictures")
    parser.add_argument("--json", type=Path, help="everything, picture by picture")
    try:
        run(parser.parse_args(arguments))
    except (RestoreError, OSError, re.error) as error:
        print(f"quality.py: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
