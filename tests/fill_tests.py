"""What the tests of inpainting networks share; only for where torch is."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from restore_plugin.training import holes, loop
from restore_plugin.training.recipes import partial_conv


def drawn(size: int, random: np.random.Generator) -> np.ndarray:
    """(size, size, 3) float32 in [0, 1]: soft shading, discs and edges."""
    picture = cv2.resize(random.random((3, 3, 3), np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    for _ in range(6):
        centre, colour = random.integers(0, size, 2).tolist(), random.random(3).tolist()
        cv2.circle(picture, centre, int(random.integers(4, size // 4)), colour, -1)
    return picture


def damaged(size: int, share: float, random: np.random.Generator, pictures: int = 2) -> loop.Batch:
    """(truth, mask)."""
    truth = [drawn(size, random) for _ in range(pictures)]
    return partial_conv.samples(truth, [holes.hidden(size, size, "outlines", share, random) for _ in truth])


def left(losses: list[float]) -> float:
    """What is left of the loss at the end."""
    return float(np.mean(losses[-3:]) / losses[0])


def lively(network: nn.Module) -> nn.Module:
    """As after a long training: no answer is near zero, and normalisation has statistics of its own."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight)
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
                layer.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network.eval()


def hidden_input(*size: int) -> Tensor:
    """RGB and a mask with a hole in its middle."""
    mask = torch.zeros(1, 1, *size)
    mask[..., size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 1
    return torch.cat((torch.rand(1, 3, *size), mask), 1)
