"""Train DeblurGAN (Kupyn et al. 2018) at a quarter of its width, on the blurs and the pictures of BlurNet.

    python -m restore_plugin.training.recipes.deblurgan --data PICTURES --out RUN --minutes 240

`WIDTH = 64` is the paper's generator, for a graphics card, of 99 GFLOP for 256x256. Loss: content, and in the second
half of the time the critic (WGAN-GP). The paper's content is the distance of VGG19's features, which were trained on
ImageNet's pictures for research; here it is BlurNet's, the logarithm of each crop's mean square error: with a plain
mean of distances small blurs came back worse.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from restore_plugin.networks.deblurgan import MULTIPLE, Critic, Generator
from restore_plugin.training import data, export, loop
from restore_plugin.training.adversarial import Adversaries, critic_loss, generator, judged
from restore_plugin.training.muon import Muon
from restore_plugin.training.recipe import Recipe, decibel_loss, residual_export, run, tensors
from restore_plugin.training.recipes import blurnet

WIDTH, BLOCKS = 16, 9
CRITIC_WIDTH = 16
DROPOUT = 0.0  # the paper's 0.5 is for a generator sixteen times as large
ADVERSARIAL = 0.03  # weight of the critic's opinion
ADVERSARIAL_FROM = 0.5  # of the time
BATCH = 4
SIDE = 160  # px


def network() -> Adversaries:
    return Adversaries(Generator(WIDTH, BLOCKS, DROPOUT), Critic(CRITIC_WIDTH))


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    return tensors(*blurnet.pairs(library, BATCH, SIDE, random))


def begin(network: Adversaries, progress: float) -> None:
    network.phase = int(progress >= ADVERSARIAL_FROM)


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    picture, truth = batch
    critic: Any = network.critic
    found = picture + network(picture).float()
    content = decibel_loss(((found - truth) ** 2).mean((1, 2, 3)), blurnet.LEAST)
    if not network.phase:
        return content
    return content + ADVERSARIAL * (critic_loss(critic, found, truth) - judged(critic, found))


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    return blurnet.validator(library, folder)


def spec() -> export.Export:
    return residual_export(2 * MULTIPLE)  # the smallest example must have room for its reflected borders


RECIPE = Recipe(
    "deblurgan", "deblur", network, blurnet.SHARES, batch, loss, validator, spec, generator, optimiser=Muon, begin=begin
)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
