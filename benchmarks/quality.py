"""How much comes back: pictures of yours are pixelated and restored.

    python benchmarks/quality.py PICTURES --blocks 4,6.5,8,12,16,24,32 [--every N] [--sheet SHEET.png] [--json OUT.json]

For each block size PSNR and SSIM of the mosaic, of bicubic interpolation of its cells, of that with the projection
onto the cells' means, and of the network, all after rounding to 8 bits; the worst gain of any picture; and how far the
restored picture, pixelated again, is from the mosaic.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np

import restore_plugin
from restore_plugin import mosaic
from restore_plugin.metrics import psnr, ssim
from restore_plugin.training.data import picture_files, read_rgb
from restore_plugin.types import Box, Region

COLUMNS = ("mosaic", "bicubic", "bicubic + projection", "network")
SHEET_SIDE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--blocks", default="4,6.5,8,12,16,24,32")
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture, by name")
    parser.add_argument("--longest", type=int, default=1024, help="larger pictures are reduced first")
    parser.add_argument("--linear-light", action="store_true", help="average in linear light")
    parser.add_argument("--sheet", type=Path, help="write mosaic | bicubic | network | truth of some pictures")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    network, projected = restore_plugin.load("cellnet"), restore_plugin.load("bicubic")
    for restorer in (network.restorer, projected.restorer):
        restorer.options = restore_plugin.types.RestoreOptions(linear_light=options.linear_light)
    files = picture_files(options.pictures)[:: options.every]
    print(f"{len(files)} pictures, means in {'linear light' if options.linear_light else 'gamma'}\n")
    print("| block | mosaic | bicubic | bicubic + projection | network | gain | worst | off by | ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    summary, sheet = {}, []
    for block in (float(text) for text in options.blocks.split(",")):
        scores = {name: [] for name in COLUMNS}
        gains, off, spent = [], 0.0, 0.0
        for number, file in enumerate(files):
            truth = read_rgb(file, options.longest)
            height, width = truth.shape[:2]
            y_edges, x_edges = mosaic.axis_edges(0, height, block, 0), mosaic.axis_edges(0, width, block, 0)
            flat = mosaic.pixelate(truth.astype(np.float32) / 255, y_edges, x_edges, options.linear_light)
            shown = np.round(flat * 255).astype(np.uint8)
            cells = shown[np.ix_(y_edges[:-1], x_edges[:-1])].astype(np.float32)
            smooth = mosaic.resample(mosaic.cells_to_pixels(y_edges), mosaic.cells_to_pixels(x_edges), cells)
            region = [Region(Box(0, 0, width, height), 1, (block, block), (0.0, 0.0))]
            start = time.perf_counter()
            restored = network(shown, region)
            spent += time.perf_counter() - start
            pictures = {
                "mosaic": shown,
                "bicubic": np.round(np.clip(smooth, 0, 255)).astype(np.uint8),
                "bicubic + projection": projected(shown, region),
                "network": restored,
            }
            target = truth.astype(np.float32) / 255
            for name, picture in pictures.items():
                values = picture.astype(np.float32) / 255
                scores[name].append((min(psnr(values, target), 99.0), ssim(values, target)))
            gains.append(scores["network"][-1][0] - scores["bicubic"][-1][0])
            again = mosaic.pixelate(restored.astype(np.float32) / 255, y_edges, x_edges, options.linear_light)
            off = max(off, float(np.abs(again * 255 - shown).max()))
            if options.sheet and number % max(1, len(files) // 4) == 0:
                y, x = max(0, height - SHEET_SIDE) // 2, max(0, width - SHEET_SIDE) // 2
                crops = [
                    p[y : y + SHEET_SIDE, x : x + SHEET_SIDE] for p in (shown, pictures["bicubic"], restored, truth)
                ]
                row = np.zeros((SHEET_SIDE, 4 * SHEET_SIDE, 3), np.uint8)
                for index, crop in enumerate(crops):
                    row[: crop.shape[0], index * SHEET_SIDE : index * SHEET_SIDE + crop.shape[1]] = crop
                sheet.append(row)
        mean = {name: np.mean(values, axis=0) for name, values in scores.items()}
        cellsof = " | ".join(f"{mean[name][0]:.2f} / {mean[name][1]:.3f}" for name in COLUMNS)
        print(
            f"| {block:g} | {cellsof} | {np.mean(gains):+.2f} dB | {np.min(gains):+.2f} dB | {off:.2f} / 255 "
            f"| {spent / len(files) * 1000:.0f} |",
            flush=True,
        )
        summary[f"{block:g}"] = {
            **{name: [round(float(v), 4) for v in values] for name, values in mean.items()},
            "gain": round(float(np.mean(gains)), 3),
            "worst_gain": round(float(np.min(gains)), 3),
            "repixelated_off_by": round(off, 3),
        }
    if options.sheet:
        cv2.imwrite(str(options.sheet), np.vstack(sheet)[..., ::-1])
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
