"""Train FillNet, the compact inpainting network.

    python -m restore_plugin.training.recipes.fillnet --data PICTURES --out RUN --minutes 110

Holes of every kind (restore_plugin.training.holes) in crops of photographs, from details to whole scenes. The network
corrects one to three levels of the pyramid, as it is used. Loss, at each level and in the hole alone: the distance to
the truth (Charbonnier), that of the steps from pixel to pixel, seams included, and that of local statistics of the
texture.
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
from restore_plugin.training.filling import BANDS, SHARES, crop, held, hole, judge, texture
from restore_plugin.training.recipe import AT_ONCE, Recipe, run, tensors

SIDES = (128, 192, 256)  # px of a crop; one for each batch
PIXELS = 131072  # in a batch: how many crops it has follows from their side
LEVELS = (0.2, 0.3, 0.5)  # shares of batches in which one, two and three levels are corrected
HOLE = (0.03, 0.65)  # share of a crop
LEAST = 0.02  # of a crop: smaller holes count as much as this, together
STEPS, TEXTURE = 0.3, 0.1  # weights of the steps from pixel to pixel, and of the texture's statistics
COARSER = 0.5  # weight of a level, of that of the next finer one
HELD_OUT = (24, 256)  # crops of each band, and their side in px
SMOOTH = 5e-3  # tolerance of the smooth fill


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


def distance(found: Tensor, truth: Tensor) -> Tensor:
    return torch.sqrt((found - truth) ** 2 + 1e-6)


def mean(values: Tensor, where: Tensor) -> Tensor:
    """(N,): of `values` (N, C, H, W) where `where` (N, 1, H, W) is 1; of few places less."""
    total = (values * where).sum((1, 2, 3)) / values.shape[1]
    return total / (where.sum((1, 2, 3)) + LEAST * where.shape[2] * where.shape[3])


def level_loss(found: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
    loss = mean(distance(found, truth), hidden)
    for axis in (2, 3):
        steps, true = found.diff(dim=axis), truth.diff(dim=axis)
        near = torch.maximum(hidden.narrow(axis, 0, steps.shape[axis]), hidden.narrow(axis, 1, steps.shape[axis]))
        loss = loss + STEPS / 2 * mean(distance(steps, true), near)
    share = F.avg_pool2d(hidden, 8, 4)
    loss = loss + TEXTURE * mean((texture(found) - texture(truth)).abs(), share)
    return loss.mean()


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    levels = filled(network, batch)
    truth, mask = (pyramid(values, len(levels)) for values in batch[:2])
    losses = [level_loss(*level) for level in zip(levels, truth, mask, strict=True)]
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


RECIPE = Recipe("fillnet", "inpaint", FillNet, SHARES, batch, loss, validator, spec, rate=1e-3)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
