"""Train DeblurGAN (Kupyn et al. 2018) at a quarter of its width, on the blurs and the pictures of BlurNet.

    python -m restore_plugin.training.recipes.deblurgan --data PICTURES --out RUN --minutes 240

`WIDTH = 64` is the paper's generator, for a graphics card, of 99 GFLOP for 256x256. Loss: content and the critic
(WGAN-GP) at a hundredth of it, as in the paper. The paper's content is the distance of VGG19's features, which were
trained on ImageNet's pictures for research; here it is that of pixels (Charbonnier) and, smaller, of the Fourier
transforms' magnitudes and phases (as Cho et al. 2021): blur is what is missing there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore_plugin.networks.deblurgan import MULTIPLE, Critic, Generator
from restore_plugin.training import data, export, loop
from restore_plugin.training.adversarial import Adversaries, critic_loss, generator, judged
from restore_plugin.training.recipe import Recipe, residual_export, run, tensors
from restore_plugin.training.recipes import blurnet

WIDTH, BLOCKS = 16, 9
CRITIC_WIDTH = 16
DROPOUT = 0.0  # the paper's 0.5 is for a generator sixteen times as large
FREQUENCIES = 0.5  # weight of the Fourier transforms
ADVERSARIAL = 0.01  # weight, relative to the content's
BATCH = 4
SIDE = 160  # px


def network() -> Adversaries:
    return Adversaries(Generator(WIDTH, BLOCKS, DROPOUT), Critic(CRITIC_WIDTH))


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    return tensors(*blurnet.pairs(library, BATCH, SIDE, random))


def distances(miss: Tensor) -> Tensor:
    """(N,): Charbonnier, and the mean of the absolute parts of the Fourier transform, in units of a pixel's."""
    spectrum = torch.view_as_real(torch.fft.rfft2(miss, norm="ortho"))
    return torch.sqrt(miss**2 + 1e-6).mean((1, 2, 3)) + FREQUENCIES * spectrum.abs().mean((1, 2, 3, 4))


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    picture, truth = batch
    critic: Any = network.critic
    found = picture + network(picture).float()
    adversarial = critic_loss(critic, found, truth) - judged(critic, found)
    return distances(found - truth).mean() + ADVERSARIAL * adversarial


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    return blurnet.validator(library, folder)


def spec() -> export.Export:
    return residual_export(2 * MULTIPLE)  # the smallest example must have room for its reflected borders


RECIPE = Recipe("deblurgan", "deblur", network, blurnet.SHARES, batch, loss, validator, spec, generator, rate=3e-4)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
