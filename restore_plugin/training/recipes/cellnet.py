"""Train CellNet, the de-mosaic network.

    python -m restore_plugin.training.recipes.cellnet --data PICTURES --out RUN --minutes 60

The loss, the logarithm of each crop's mean square error, is taken after the consistency projection, as the network is
used: without it the same network is worse than bicubic.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.mosaic import CELL
from restore_plugin.networks.cellnet import CellNet
from restore_plugin.training import data, export, loop, mosaics
from restore_plugin.training.muon import Muon
from restore_plugin.training.recipe import Recipe, decibel_loss, run, save_sheet

SHARES = {  # of the batches: pictures with detail first, plain ones seldom
    "photos/cq100": 5,
    "photos/wallpapers": 3,
    "photos/cars": 2,
    "photos/aerial": 1,
    "photos/gopr0477": 1,
    "photos/clothing": 1,
    "photos/grocery": 2,
    "faces/caltech": 15,
}
CELLS = (6, 12, 16, 24)  # side of a crop in cells; one for each batch
POSITIONS = 4608  # cells in a batch: the batch size follows from the crop's side; few, for many steps
LEAST = 1e-4  # mean square that is hardly worth mending: 40 dB
TOLERANCE = 0.5  # of the noise's standard deviation: cell means that were compressed are not exact


def to_linear(values: Tensor) -> Tensor:
    values = values.clamp(1e-6, 1)
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_gamma(values: Tensor) -> Tensor:
    values = values.clamp(1e-6, 1)
    return torch.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def project(picture: Tensor, mask: Tensor, means: Tensor, tolerance: Tensor) -> Tensor:
    """Move the hidden pixels of every cell together so that the cell has its mean (restore_plugin.consistency)."""
    miss = means - F.avg_pool2d(picture, CELL)
    miss = torch.sign(miss) * torch.relu(miss.abs() - tolerance)
    share = F.avg_pool2d(mask, CELL).clamp_min(0.25)
    return picture + mask * F.interpolate(miss / share, scale_factor=CELL, mode="nearest")


def restored(network: nn.Module, picture: Tensor, means: Tensor, condition: Tensor) -> Tensor:
    start, mask = picture[:, :3], picture[:, 3:]
    out = start + mask * network(picture, condition).float()
    tolerance = (condition[:, 2] / mosaics.NOISE_SCALE * TOLERANCE)[:, None, None, None]
    if bool(condition[0, 3]):  # a batch is of one kind
        return to_gamma(project(to_linear(out), mask, to_linear(means), tolerance))
    return project(out, mask, means, tolerance)


def mean_square(miss: Tensor, mask: Tensor) -> Tensor:
    """(N,): over the masked pixels of each picture."""
    return (miss**2 * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)) + 1)


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    picture, means, condition, truth = batch
    miss = restored(network, picture, means, condition) - truth
    return decibel_loss(mean_square(miss, picture[:, 3:]), LEAST)


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    cells = int(random.choice(CELLS))
    pictures = [library.choose(random) for _ in range(POSITIONS // cells**2)]
    return tuple(torch.from_numpy(array) for array in mosaics.batch(pictures, cells, random))


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    """PSNR over bicubic on fixed crops of photographs and of faces, and a picture of each to look at."""
    held: dict[str, list[data.Picture]] = {}
    for name, pictures in library.held_out.items():
        held.setdefault(name.partition("/")[0], []).extend(pictures)
    sets = {}
    for kind, pictures in held.items():
        random = np.random.default_rng(1)
        picks = random.integers(0, len(pictures), (4, 16))
        sets[kind] = [mosaics.batch([pictures[int(i)] for i in row], 16, random) for row in picks]

    @torch.no_grad()
    def validate(network: nn.Module) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for kind, batches in sets.items():
            ours: list[Tensor] = []
            base: list[Tensor] = []
            for index, arrays in enumerate(batches):
                picture, means, condition, truth = (torch.from_numpy(a).to(loop.device()) for a in arrays)
                out = restored(network, picture, means, condition).clamp(0, 1)
                mask = picture[:, 3:]
                for values, store in ((out, ours), (picture[:, :3].clamp(0, 1), base)):
                    error = ((values - truth) ** 2 * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)) + 1e-6)
                    store.append(-10 * torch.log10(error + 1e-6))
                if index == 0:
                    save_sheet(folder / f"{kind}.png", [list(values[:6, :3]) for values in (picture, out, truth)])
            result[kind] = round(float(torch.cat(ours).mean()), 3)
            result[kind + "_gain"] = round(float((torch.cat(ours) - torch.cat(base)).mean()), 3)
        return result

    return validate


def spec() -> export.Export:
    def inputs(cells_y: int, cells_x: int) -> dict[str, Tensor]:
        return {"picture": torch.rand(1, 4, CELL * cells_y, CELL * cells_x), "condition": torch.rand(1, 4)}

    sizes = {0: "batch", 2: "height", 3: "width"}
    return export.Export(
        inputs(12, 10),
        "residual",
        {"picture": sizes, "condition": {0: "batch"}, "residual": sizes},
        others=(inputs(1, 1), inputs(31, 7)),
    )


RECIPE = Recipe("cellnet", "demosaic", CellNet, SHARES, batch, loss, validator, spec, rate=2.5e-4, optimiser=Muon)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
