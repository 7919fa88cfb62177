"""Train FillNet, the compact inpainting network.

    python -m restore_plugin.training.recipes.fillnet --data PICTURES --out RUN --minutes 110

Holes of every kind (restore_plugin.training.holes) in crops of photographs, from details to whole scenes. The network
corrects one to three levels of the pyramid, as it is used. Loss, at each level and in the hole alone: the logarithm of
each crop's mean square error. It is made to be right, not to look sharp: texture is what patches add to its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.classical.harmonic import harmonic
from restore_plugin.networks.fillnet import CHANNELS, MULTIPLE, FillNet, joined
from restore_plugin.training import data, export, loop
from restore_plugin.training.filling import BANDS, SHARES, crop, held, hole, judge
from restore_plugin.training.muon import Muon
from restore_plugin.training.recipe import AT_ONCE, Recipe, decibel_loss, run, tensors

SIDES = (128, 192, 256)  # px of a crop; one for each batch
PIXELS = 131072  # in a batch: how many crops it has follows from their side
LEVELS = (0.2, 0.3, 0.5)  # shares of batches in which one, two and three levels are corrected
HOLE = (0.03, 0.65)  # share of a crop
LEAST = 5e-4  # mean square that is hardly worth mending: 33 dB
COARSER = 0.5  # weight of a level, of that of the next finer one
HELD_OUT = (24, 256)  # crops of each band, and their side in px
SMOOTH = 2e-2  # tolerance of the smooth fill: off by one level of 255, on average


def samples(truth: list[Any], masks: list[Any], levels: int, random: np.random.Generator) -> loop.Batch:
    """(truth, mask, smooth fill, noise, how many levels are corrected)."""
    smooth = [harmonic(t, m, SMOOTH) for t, m in zip(truth, masks, strict=True)]
    mask = np.stack(masks)[..., None].astype(np.float32)
    noise = random.random(mask.shape, np.float32)
    return (*tensors(np.stack(truth), mask, np.stack(smooth), noise), torch.tensor(levels))


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    side = int(random.choice(SIDES))
    truth = [crop(library.choose(random), side, random) for _ in range(max(1, PIXELS // side**2))]
    levels = 1 + int(random.choice(len(LEVELS), p=LEVELS))
    return samples(truth, [hole(side, HOLE, random) for _ in truth], levels, random)


def pyramid(values: Tensor, count: int) -> list[Tensor]:
    levels = [values]
    for _ in range(count - 1):
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def filled(network: nn.Module, batch: loop.Batch) -> list[Tensor]:
    """What the network fills, the finest level first: each begins with the correction of the next coarser one."""
    _, mask, smooth, noise, count = batch
    levels = list(zip(pyramid(smooth, int(count)), pyramid(mask, int(count)), strict=True))
    found: list[Tensor] = []
    correction = torch.zeros_like(levels[-1][0])
    for smooth, mask in reversed(levels):
        if found:
            correction = mask * F.interpolate(correction, scale_factor=2, mode="bilinear", align_corners=False)
        height, width = mask.shape[2:]
        residual = network(joined(smooth + correction, mask, noise[..., :height, :width])).float()
        correction = correction + mask * residual
        found.insert(0, smooth + correction)
    return found


def mean_square(found: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
    """(N,): of the hidden pixels."""
    return ((found - truth) ** 2 * hidden).sum((1, 2, 3)) / (found.shape[1] * hidden.sum((1, 2, 3)) + 1e-6)


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    levels = filled(network, batch)
    truth, mask = (pyramid(values, len(levels)) for values in batch[:2])
    losses = [decibel_loss(mean_square(*level), LEAST) for level in zip(levels, truth, mask, strict=True)]
    return torch.stack([COARSER**number * each for number, each in enumerate(losses)]).sum()


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    """PSNR in the hole and the texture's distance, for each band of hole shares, ours and Telea's."""
    batches, sets = {}, {}
    count, side = HELD_OUT
    levels = min(len(LEVELS), 1 + int(np.log2(side // MULTIPLE)))
    for band, share in BANDS.items():
        random = np.random.default_rng(1)
        truth = [crop(library.choose(random, held_out=True), side, random) for _ in range(count)]
        masks = [hole(side, share, random) for _ in range(count)]
        batches[band], sets[band] = samples(truth, masks, levels, random), held(truth, masks)

    @torch.no_grad()
    def validate(network: nn.Module) -> dict[str, Any]:
        found = {}
        for band, drawn in batches.items():
            parts = zip(*(torch.split(tensor.to(loop.device()), AT_ONCE) for tensor in drawn[:-1]), strict=True)
            found[band] = torch.cat([filled(network, (*part, drawn[-1]))[0].cpu() for part in parts])
        return judge(found, sets, folder)

    return validate


def spec() -> export.Export:
    def inputs(height: int, width: int) -> dict[str, Tensor]:
        return {"picture": torch.rand(1, CHANNELS, height * MULTIPLE, width * MULTIPLE)}

    sizes = {0: "batch", 2: "height", 3: "width"}
    return export.Export(
        inputs(3, 4), "residual", {"picture": sizes, "residual": sizes}, others=(inputs(1, 1), inputs(4, 9))
    )


RECIPE = Recipe("fillnet", "inpaint", FillNet, SHARES, batch, loss, validator, spec, optimiser=Muon)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
