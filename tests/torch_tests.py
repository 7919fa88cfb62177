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


def field_of_view(network: nn.Module, multiple: int, width: int, channels: int = 3) -> int:
    """How far to the side an answer's pixel looks, the furthest of all places on the grid; nothing cancels out."""
    for layer in network.double().modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    furthest = 0
    for place in range(multiple):
        picture = torch.full((1, channels, 16, width), 0.75, dtype=torch.double, requires_grad=True)
        column = width // 2 // multiple * multiple + place
        network(picture)[0, :, 8, column].sum().backward()
        assert picture.grad is not None
        seen = picture.grad.abs().sum((0, 1, 2)).nonzero()[:, 0]
        assert 0 < seen.min() <= seen.max() < width - 1
        furthest = max(furthest, column - int(seen.min()), int(seen.max()) - column)
    return furthest
