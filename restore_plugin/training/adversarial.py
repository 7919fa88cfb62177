"""A generator and its critic, trained by the loop that trains everything else.

Both learn in every step, from one loss: the generator's part sees the critic's weights as constants, the critic's part
sees the generator's pictures as constants. (Gulrajani et al. 2017 take five of the critic's steps for each of the
generator's; on two cores that time goes to the generator.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

PENALTY = 10.0  # weight of the gradient penalty, as in Gulrajani et al. 2017


class Adversaries(nn.Module):
    """What the generator alone is; the critic is there to be trained, kept and continued with it."""

    phase = 0  # of the training, where it has several

    def __init__(self, generator: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.critic = critic

    def forward(self, picture: Tensor) -> Tensor:
        answer: Tensor = self.generator(picture)
        return answer


def generator(network: Any) -> nn.Module:
    """The part of `Adversaries` that is needed to restore."""
    found: nn.Module = network.generator
    return found


def opinion(critic: nn.Module, *pictures: Tensor) -> Tensor:
    """What the critic says of them; the gradient goes to the pictures, not to the critic."""
    constants = {name: parameter.detach() for name, parameter in critic.named_parameters()}
    found: Tensor = functional_call(critic, constants, pictures)
    return found


def judged(critic: nn.Module, picture: Tensor) -> Tensor:
    """The critic's mean opinion, as `opinion`."""
    return opinion(critic, picture).mean()


def critic_loss(critic: nn.Module, found: Tensor, truth: Tensor) -> Tensor:
    """Wasserstein: E[D(found)] - E[D(truth)] + penalty (eq. 3 of Gulrajani et al. 2017), in full precision."""
    with torch.autocast(found.device.type, enabled=False):
        found, truth = found.detach().float(), truth.float()
        share = torch.rand(len(found), 1, 1, 1, device=found.device)
        between = torch.lerp(found, truth, share).requires_grad_()
        slope = torch.autograd.grad(critic(between).mean((1, 2, 3)).sum(), between, create_graph=True)[0]
        # of a patch's opinion, in the paper's units: its pictures lie in [-1, 1]
        penalty = ((slope.flatten(1).norm(dim=1) / 2 - 1) ** 2).mean()
        distance: Tensor = critic(found).mean() - critic(truth).mean()
        return distance + PENALTY * penalty
