"""Train the U-Net of partial convolutions (Liu et al. 2018) at a quarter of its width, on smaller pictures.

    python -m restore_plugin.training.recipes.partial_conv --data PICTURES --out RUN --minutes 240

`WIDTHS, SIDE = partial_conv.WIDTHS, 512` is the paper's, for a graphics card. Holes of every kind. Loss, with the
weights of eq. 7: the distance (L1) of the known pixels, six times that of the hidden ones, a tenth of the total
variation where the hole was, seam included. The paper's perceptual and style losses compare features of VGG16, which
was trained on ImageNet's pictures for research; here the statistics of texture take their place, which need no other
network, of the answer and of the completed picture. In the last tenth of the time the way down keeps its
normalisation as it is (section 4.2); the lower rate of then is that of every recipe's schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.networks.partial_conv import KERNELS, PartialConvUNet
from restore_plugin.training import data, export, loop
from restore_plugin.training.filling import (
    BANDS,
    SHARES,
    answered,
    crop,
    held_out,
    hole,
    judge,
    masked,
    masked_export,
    texture,
)
from restore_plugin.training.recipe import Recipe, run, tensors

WIDTHS = (16, 32, 64, 128, 128, 128)  # six layers down, for crops of 128 px
SIDE = 128  # px
BATCH = 8
HOLE = (0.01, 0.6)  # share of a crop
HIDDEN, VARIATION = 6.0, 0.1  # weights of eq. 7
TEXTURE = 1.0  # in place of the perceptual and style losses; not tuned
FROZEN_FROM = 0.9  # of the time
HELD_OUT = 24  # crops of each band


def network() -> PartialConvUNet:
    return PartialConvUNet(WIDTHS, KERNELS)


def begin(network: PartialConvUNet, progress: float) -> None:
    learns = progress < FROZEN_FROM
    for down in network.downs:
        down.normalise.train(learns).requires_grad_(learns)  # type: ignore[union-attr]


def samples(truth: list[Any], masks: list[Any]) -> loop.Batch:
    return tensors(np.stack(truth), np.stack(masks)[..., None].astype(np.float32))


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    truth = [crop(library.choose(random), SIDE, random) for _ in range(BATCH)]
    return samples(truth, [hole(SIDE, HOLE, random) for _ in truth])


def variation(picture: Tensor, mask: Tensor) -> Tensor:
    """Eq. 6: the steps between neighbours that both lie in the hole, dilated by 1 px; over the number of values."""
    near = F.max_pool2d(mask, 3, stride=1, padding=1)
    total = picture.new_zeros(())
    for axis in (2, 3):
        steps = picture.diff(dim=axis).abs()
        length = steps.shape[axis]
        total = total + (steps * near.narrow(axis, 0, length) * near.narrow(axis, 1, length)).sum()
    return total / picture.numel()


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    truth, mask = batch
    found = network(masked(truth, mask)).float()
    completed = torch.lerp(truth, found, mask)
    miss = (found - truth).abs()
    true = texture(truth)
    return (
        ((1 - mask) * miss).mean()
        + HIDDEN * (mask * miss).mean()
        + VARIATION * variation(completed, mask)
        + TEXTURE * (F.l1_loss(texture(found), true) + F.l1_loss(texture(completed), true))
    )


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    """PSNR in the hole and the texture's distance, for each band of hole shares, ours and Telea's."""
    kinds = {band: partial(hole, SIDE, share) for band, share in BANDS.items()}
    sets = held_out(library, kinds, HELD_OUT, SIDE)
    return lambda network: judge(answered(network, sets), sets, folder)


def spec() -> export.Export:
    return masked_export(network().multiple)


RECIPE = Recipe("partial_conv", "inpaint", network, SHARES, batch, loss, validator, spec, rate=1e-3, begin=begin)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
