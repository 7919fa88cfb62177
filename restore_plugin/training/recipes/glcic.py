"""Train GLCIC (Iizuka et al. 2017) at a quarter of its width, on smaller pictures.

    python -m restore_plugin.training.recipes.glcic --data PICTURES --out RUN --minutes 240

`WIDTH, SIDE, BATCH = 64, 256, 96` is the paper's, for graphics cards. One box is hidden in each crop. Three phases
(Algorithm 1), which share the time as the paper's steps: the completion network alone, which learns the hidden pixels
(eq. 2); the discriminators alone, which learn to tell completed crops from true ones, by the whole and by the part
around the hole; both, the completion network also by what the discriminators say, times ALPHA. That this is little,
and that the pixels' loss stays, is what keeps it from making the same of every hole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore_plugin.networks.glcic import (
    ALPHA,
    MULTIPLE,
    PHASES,
    CompletionNetwork,
    Discriminators,
    completion_loss,
    real_or_not,
    taken_for_real,
)
from restore_plugin.training import adversarial, data, export, loop
from restore_plugin.training.filling import SHARES, answered, crop, held_out, judge, masked, masked_export
from restore_plugin.training.recipe import Recipe, run, tensors

WIDTH = 16
SIDE = 128  # px; the part around the hole has half of it
BATCH = 16
HOLE = (0.375, 0.5)  # sides, as shares of the crop's: the paper's 96 to 128 px of 256
COMPLETION, DISCRIMINATORS, JOINT = range(3)
ENDS = [end / sum(PHASES) for end in accumulate(PHASES[:-1])]  # of the first two phases, as shares of the time
HELD_OUT = 48  # crops to judge with


def network() -> adversarial.Adversaries:
    return adversarial.Adversaries(CompletionNetwork(WIDTH), Discriminators(WIDTH, SIDE, SIDE // 2))


def begin(network: adversarial.Adversaries, progress: float) -> None:
    network.phase = bisect_right(ENDS, progress)


def box(side: int, random: np.random.Generator) -> tuple[Any, tuple[int, int]]:
    """A mask (side, side) that hides one box, and where the part of half a side around it begins: row, column."""
    mask = np.zeros((side, side), bool)
    height, width = (round(side * float(random.uniform(*HOLE))) for _ in range(2))
    y, x = int(random.integers(side - height + 1)), int(random.integers(side - width + 1))
    mask[y : y + height, x : x + width] = True
    row, column = (int(np.clip(at, 0, side // 2)) for at in (y + height // 2 - side // 4, x + width // 2 - side // 4))
    return mask, (row, column)


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    return samples([crop(library.choose(random), SIDE, random) for _ in range(BATCH)], random)


def samples(truth: list[Any], random: np.random.Generator) -> loop.Batch:
    """(truth, mask, parts around the holes, parts of the true crops to compare with)."""
    side = len(truth[0])
    masks, around = zip(*(box(side, random) for _ in truth), strict=True)
    elsewhere = [box(side, random)[1] for _ in truth]  # M_d of Algorithm 1
    mask = np.stack(masks)[..., None].astype(np.float32)
    return (*tensors(np.stack(truth), mask), torch.tensor(around), torch.tensor(elsewhere))


def parts(pictures: Tensor, corners: Tensor) -> Tensor:
    side = pictures.shape[2] // 2
    places = zip(pictures, corners.tolist(), strict=True)
    return torch.stack([picture[:, y : y + side, x : x + side] for picture, (y, x) in places])


def loss(network: Any, batch: loop.Batch) -> Tensor:
    truth, mask, around, elsewhere = batch
    with torch.set_grad_enabled(network.phase != DISCRIMINATORS):
        found = network(masked(truth, mask)).float()
    content = completion_loss(found, truth, mask)
    if network.phase == COMPLETION:
        return content
    completed = torch.lerp(truth, found, mask)
    constant = completed.detach()
    real = network.critic(truth, parts(truth, elsewhere))
    told = real_or_not(real.float(), network.critic(constant, parts(constant, around)).float())
    if network.phase == DISCRIMINATORS:
        return told
    opinion = adversarial.opinion(network.critic, completed, parts(completed, around))
    return content + ALPHA * taken_for_real(opinion.float()) + told


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    """PSNR in boxes and the texture's distance, ours and Telea's."""
    sets = held_out(library, {"boxes": lambda random: box(SIDE, random)[0]}, HELD_OUT, SIDE)
    return lambda network: judge(answered(network, sets), sets, folder)


def spec() -> export.Export:
    return masked_export(MULTIPLE)


RECIPE = Recipe(
    "glcic",
    "inpaint",
    network,
    SHARES,
    batch,
    loss,
    validator,
    spec,
    adversarial.generator,
    rate=1e-3,
    begin=begin,
)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
