"""What the tests of networks share; only for where torch is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import torch
from torch import Tensor, nn


def calm() -> Iterator[None]:
    """One thread, as two that wait for each other are slow beside others; the other tests keep theirs. A fixture."""
    torch.manual_seed(0)
    threads, theirs = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    cv2.setNumThreads(theirs)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(inputs: int, outputs: int, kernel: int) -> int:
    """Its weights and biases."""
    return inputs * outputs * kernel**2 + outputs


def learn(network: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float) -> list[float]:
    """The losses of all steps."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.99))
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 10)
        value = loss()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(value.item())
    return losses
