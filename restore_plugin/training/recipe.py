"""What every recipe is made of, and the command that they share.

    python -m restore_plugin.training.recipes.NAME --data PICTURES --out RUN --minutes 60 [--export]

`PICTURES` holds a folder for each set that the recipe draws from (`shares`); those that are missing are left out. A
run goes on where it stopped. `RUN` holds the checkpoint, `log.jsonl` (loss, rate, what validation found) and pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from restore_plugin.arguments import whole
from restore_plugin.catalog import WEIGHTS
from restore_plugin.errors import InputError, RestoreError
from restore_plugin.training import data, export, loop

AT_ONCE = 4  # pictures through the network, where it is judged
# of folders and files that the options name; any other OSError is no mistake of the user's
WRONG_PLACES = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


@dataclass(frozen=True)
class Recipe:
    """One network's training.

    `batch(library, random)` draws a batch; `loss(network, batch)`; `validator(library, folder)` prepares fixed held-out
    samples and returns what judges a network on them, writing pictures into the folder; `spec()` tells how to export,
    `exported(network)` is the part of it that is needed to restore. `begin(network, progress)`: before each step, for
    training in phases.
    """

    name: str  # of this recipe's file, and of the ONNX file
    task: str
    network: Callable[[], nn.Module]
    shares: Mapping[str, float]
    batch: Callable[[data.Library, np.random.Generator], loop.Batch]
    loss: Callable[[nn.Module, loop.Batch], Tensor]
    validator: Callable[[data.Library, Path], Callable[[nn.Module], dict[str, Any]]]
    spec: Callable[[], export.Export]
    exported: Callable[[Any], nn.Module] = lambda network: network
    rate: float = 5e-4  # without normalisation AdamW diverges at 1e-3
    optimiser: Callable[[nn.Module, float], torch.optim.Optimizer] = loop.adamw
    begin: Callable[[Any, float], None] = lambda network, progress: None


def minutes(text: str) -> float:
    """An option's type."""
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"expected minutes above 0, got {text}")
    return float(text)


def arguments(recipe: Recipe) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Train {recipe.name} ({recipe.task}).")
    parser.add_argument("--data", type=Path, required=True, help="folder with the training pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, log and pictures")
    parser.add_argument("--minutes", type=minutes, default=60, help="training time in all; the schedule fits it")
    parser.add_argument("--threads", type=whole(1024), default=0, help="0 (default): torch's own choice")
    parser.add_argument("--seed", type=whole(), default=0, help="of the batches")
    parser.add_argument("--export", action="store_true", help="write the trained network into restore_plugin/weights")
    parser.add_argument("--shipped", action="store_true", help="begin with the weights that are shipped, not at random")
    parser.add_argument("--limit", type=whole(least=1), help="use only so many pictures of each set (for a quick try)")
    return parser.parse_args()


def run(recipe: Recipe, weights: Path = WEIGHTS) -> None:
    """The command: train, and export if asked to. What the user can mend is said in one line, with exit code 2."""
    options = arguments(recipe)
    try:
        train_and_export(recipe, options, weights)
    except (RestoreError, *WRONG_PLACES) as error:
        print(f"{recipe.name}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def train_and_export(recipe: Recipe, options: argparse.Namespace, weights: Path) -> None:
    """Raises RestoreError, or one of WRONG_PLACES, for what the user can mend."""
    if options.out.exists() and not options.out.is_dir():  # before the pictures are read, which takes a while
        raise InputError(f"expected a folder for --out, got the file {options.out}")
    library = data.load_library(options.data, recipe.shares, options.limit)
    options.out.mkdir(parents=True, exist_ok=True)
    judge = recipe.validator(library, options.out)
    network = recipe.network()
    begun_with: Mapping[str, Any] = {}
    if options.shipped and not (options.out / "checkpoint.pt").exists():  # else the run goes on as it began
        begun_with = export.load_shipped(recipe.exported(network), weights / f"{recipe.name}.onnx")
    loop.train(
        network,
        lambda random: recipe.batch(library, random),
        recipe.loss,
        judge,
        loop.Options(
            options.out,
            options.minutes,
            recipe.name,
            recipe.rate,
            recipe.optimiser,
            threads=options.threads,
            seed=options.seed,
            begun_with=begun_with,
        ),
        recipe.begin,
    )
    if options.export:
        given = {"seed": options.seed, "limit": options.limit}
        drawn = "".join(f" --{name} {value}" for name, value in given.items() if value)
        ship(recipe, options.out, set(library.training), drawn, weights)


def ship(recipe: Recipe, folder: Path, sets: set[str], drawn: str = "", weights: Path = WEIGHTS) -> None:
    """Export the averaged network of a run and enter it in the manifest, with what its last validation found.

    `sets`: the pictures' names in data.SETS. `drawn`: the command's options that say which of them were taken.
    """
    network, how_far = loop.load_averaged(recipe.network(), folder)
    file = f"{recipe.name}.onnx"
    command = f"python -m restore_plugin.training.recipes.{recipe.name} --data PICTURES --out RUN"
    command += f" --minutes {max(1, math.ceil(how_far['minutes']))}{drawn} --export"
    if begun_with := how_far.pop("begun_with"):  # steps, minutes and pictures are those of all runs
        command += " --shipped"
        how_far = {name: round(how_far[name] + begun_with[name], 1) for name in ("steps", "minutes")}
        how_far["begun_with"] = begun_with["sha256"]
        sets = sets | set(begun_with["data"])
    entry = {  # all of it first: a file is replaced only where its entry will be
        "task": recipe.task,
        "licence": export.LICENCE,
        "parameters": sum(parameter.numel() for parameter in recipe.exported(network).parameters()),
        "data": {name: licence for name, licence in data.SETS.items() if name in sets},
        "command": command,
        "hardware": export.hardware(),
        "measured": last_measured(folder),
        **how_far,
    }
    export.write_onnx(recipe.exported(network), recipe.spec(), weights / file)
    export.enter(file, entry, weights)


def last_measured(folder: Path) -> dict[str, Any]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found = [entry for entry in entries if "loss" not in entry]  # the others are the training's own
    return {key: value for key, value in found[-1].items() if key not in ("step", "minutes")} if found else {}


def tensors(*arrays: Any) -> loop.Batch:
    """Pictures (N, H, W, C) as (N, C, H, W), all else as it is."""
    return tuple(torch.from_numpy(np.ascontiguousarray(a.transpose(0, 3, 1, 2) if a.ndim == 4 else a)) for a in arrays)


def psnr(found: Tensor, truth: Tensor) -> Tensor:
    """(N,) dB of pictures (N, C, H, W) in [0, 1]."""
    return -10 * torch.log10(((found.clamp(0, 1) - truth) ** 2).mean((1, 2, 3)) + 1e-8)


def decibel_loss(mean_squares: Tensor, least: float) -> Tensor:
    """The mean of log(1 + e / `least`) over the pictures' mean square errors e (N,).

    It is what mean PSNR counts: an error halved is worth the same in a light and in a heavy damage, until it is hardly
    worth mending, which `least` says.
    """
    return torch.log1p(mean_squares / least).mean()


def residual_loss(network: nn.Module, batch: loop.Batch, least: float) -> Tensor:
    """`decibel_loss` of pairs (damaged, true), where the network answers with what to add."""
    picture, truth = batch
    return decibel_loss(((picture + network(picture).float() - truth) ** 2).mean((1, 2, 3)), least)


@torch.no_grad()
def judge_pairs(
    residual: Callable[[Tensor], Tensor], pairs: Mapping[str, loop.Batch], intact: str, folder: Path
) -> dict[str, Any]:
    """The PSNR of every kind of held-out pairs (damaged, true), repaired, and what that gained.

    `residual`: what a network adds to damaged pictures. `intact`: the kind without damage, where there is no gain. Some
    of the others are shown in `held_out.png`: damaged, repaired, true.
    """
    result: dict[str, Any] = {}
    sheet: list[list[Tensor]] = []
    for kind, pair in pairs.items():
        damaged, truth = (each.to(loop.device()) for each in pair)
        out = torch.cat([part + residual(part) for part in torch.split(damaged, AT_ONCE)]).clamp(0, 1)
        result[kind] = round(float(psnr(out, truth).mean()), 2)
        if kind != intact:
            result[f"{kind}_gain"] = round(float((psnr(out, truth) - psnr(damaged, truth)).mean()), 2)
            sheet += [list(values[:6]) for values in (damaged, out, truth)]
    save_sheet(folder / "held_out.png", sheet)
    return result


def residual_export(multiple: int) -> export.Export:
    """For networks from a picture to a residual, whose sides are multiples of `multiple` px."""

    def inputs(height: int, width: int) -> dict[str, Tensor]:
        return {"picture": torch.rand(1, 3, height * multiple, width * multiple)}

    sizes = {0: "batch", 2: "height", 3: "width"}
    return export.Export(
        inputs(3, 4), "residual", {"picture": sizes, "residual": sizes}, others=(inputs(1, 1), inputs(4, 9))
    )


def save_sheet(path: Path, rows: list[list[Tensor]]) -> None:
    """Pictures (3, H, W) in [0, 1] of one size, in rows."""
    sheet = torch.cat([torch.cat(row, 2) for row in rows], 1)
    array = (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    cv2.imwrite(str(path), array[..., ::-1])
