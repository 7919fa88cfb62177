"""Train the small convolutional autoencoder, on lines missing from small pictures.

    python -m restore_plugin.training.recipes.conv_autoencoder --data PICTURES --out RUN --minutes 5

It is there to be compared with its twin of partial convolutions (`partial_conv_autoencoder`), on the same crops and
lines, by the same loss: the distance (L1) of the whole pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin import metrics
from restore_plugin.networks.conv_autoencoder import MULTIPLE, ConvAutoencoder
from restore_plugin.training import data, export, loop
from restore_plugin.training.filling import SHARES, answered, crop, held_out, judge, masked, masked_export
from restore_plugin.training.recipe import Recipe, run, tensors

SIDE = 64  # px
BATCH = 16
LINES = (1, 10)  # how many there are, the last not included
THICKNESS_PX = (2, 6)  # of each, the last not included
HELD_OUT = 96  # crops to judge with


def lines(side: int, random: np.random.Generator) -> Any:
    """(side, side) bool: straight lines from anywhere to anywhere."""
    mask = np.zeros((side, side), np.uint8)
    for _ in range(int(random.integers(*LINES))):
        start, end = (tuple(random.integers(0, side, 2).tolist()) for _ in range(2))
        cv2.line(mask, start, end, 1, int(random.integers(*THICKNESS_PX)))
    return mask.astype(bool)


def samples(truth: list[Any], random: np.random.Generator) -> loop.Batch:
    """(truth, mask)."""
    masks = [lines(each.shape[0], random) for each in truth]
    return tensors(np.stack(truth), np.stack(masks)[..., None].astype(np.float32))


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    return samples([crop(library.choose(random), SIDE, random) for _ in range(BATCH)], random)


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    truth, mask = batch
    return F.l1_loss(network(masked(truth, mask)).float(), truth)


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    """PSNR in the lines and the texture's distance, ours and Telea's; SSIM of the completed pictures, ours and Telea's;
    Dice coefficient of the answers, of Telea's fill and of the true pictures with themselves, which is not 1."""
    sets = held_out(library, {"lines": lambda random: lines(SIDE, random)}, HELD_OUT, SIDE)
    truth, mask, telea = sets["lines"]

    def mean(metric: Callable[[Any, Any], float], pictures: Tensor) -> float:
        arrays = (values.permute(0, 2, 3, 1).numpy() for values in (pictures, truth))
        return round(float(np.mean([metric(x, y) for x, y in zip(*arrays, strict=True)])), 4)

    def validate(network: nn.Module) -> dict[str, Any]:
        found = answered(network, sets)
        answer = found["lines"].clamp(0, 1)
        return {
            **judge(found, sets, folder),
            "ssim": mean(metrics.ssim, torch.lerp(truth, answer, mask)),
            "ssim_telea": mean(metrics.ssim, telea),
            "dice": mean(metrics.dice, answer),
            "dice_telea": mean(metrics.dice, telea),
            "dice_truth": mean(metrics.dice, truth),
        }

    return validate


def spec() -> export.Export:
    return masked_export(MULTIPLE)


RECIPE = Recipe("conv_autoencoder", "inpaint", ConvAutoencoder, SHARES, batch, loss, validator, spec, rate=1e-3)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
