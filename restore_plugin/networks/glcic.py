"""GLCIC: globally and locally consistent image completion (Iizuka, Simo-Serra & Ishikawa, SIGGRAPH 2017).

Table 1 to 3 of the paper, at width 64: the *completion network* of 17 convolutions, four of them at a quarter of the
size with growing dilation, so that a pixel sees 307 px square of the picture; batch normalisation and ReLU
after all but the last, which ends in a sigmoid. Two *discriminators*, one of the whole picture and one of the part
around the hole, whose answers of 1024 numbers each are joined and weighed by one last layer.

Training is Algorithm 1: the completion network alone with the loss of eq. 2, the discriminators alone, then both, the
discriminators' part weighed by ALPHA. Numbers of features scale with `width`; the paper's is 64.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLE = 4  # sides of the completion network's input must be multiples of this
WHOLE_PX, PART_PX = 256, 128  # sides of what the discriminators see
FEATURES = 1024  # of each discriminator's answer
MEAN_COLOUR = (0.50, 0.44, 0.38)  # of the training pictures, as often as each is drawn; it fills the hole
ALPHA = 0.0004  # weight of the discriminators in phase three
PHASES = (90_000, 10_000, 400_000)  # steps of Algorithm 1 with 96 pictures each: T_C, T_D, T_train - T_C - T_D


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def upward(inputs: int, outputs: int) -> nn.Sequential:
    """The table's deconvolution of stride 1/2."""
    layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class CompletionNetwork(nn.Module):
    """`picture` (N, 4, H, W) -> (N, 3, H, W) RGB in (0, 1), of which only the hole is used; H, W multiples of 4.

    The channels: RGB in [0, 1], anything in the hole, where the mean colour is put; the mask, 1 where hidden.
    """

    colour: Tensor

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("colour", torch.tensor(MEAN_COLOUR)[None, :, None, None], persistent=False)
        one, two, four = width, 2 * width, 4 * width
        self.layers = nn.Sequential(
            convolution(4, one, kernel=5),
            convolution(one, two, stride=2),
            convolution(two, two),
            convolution(two, four, stride=2),
            convolution(four, four),
            convolution(four, four),
            convolution(four, four, dilation=2),
            convolution(four, four, dilation=4),
            convolution(four, four, dilation=8),
            convolution(four, four, dilation=16),
            convolution(four, four),
            convolution(four, four),
            upward(four, two),
            convolution(two, two),
            upward(two, one),
            convolution(one, one // 2),
            nn.Conv2d(one // 2, 3, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, picture: Tensor) -> Tensor:
        rgb, mask = picture[:, :3], picture[:, 3:]
        return self.layers(torch.cat((rgb + mask * (self.colour - rgb), mask), 1))


class Discriminator(nn.Module):
    """`picture` (N, 3, side, side) in [0, 1] -> (N, 1024): halved by 5x5 convolutions to 4x4 px, then connected."""

    def __init__(self, side_px: int, width: int = 64) -> None:
        super().__init__()
        halvings = side_px.bit_length() - 3
        if halvings < 1 or side_px != 4 * 2**halvings:
            raise ValueError(f"expected a side of 8, 16, 32, ... px, got {side_px}")
        counts = [3, *(width * min(2**number, 8) for number in range(halvings))]
        layers = [convolution(inputs, outputs, kernel=5, stride=2) for inputs, outputs in pairwise(counts)]
        self.convolutions = nn.Sequential(*layers)
        self.connected = nn.Linear(counts[-1] * 4 * 4, FEATURES)

    def forward(self, picture: Tensor) -> Tensor:
        return torch.relu(self.connected(self.convolutions(picture).flatten(1)))


class Discriminators(nn.Module):
    """The whole (N, 3, 256, 256) and the part around the hole (N, 3, 128, 128) -> (N,) how real they look together.

    The answers are before the paper's sigmoid, as the loss wants them (`real_or_not`).
    """

    def __init__(self, width: int = 64, whole_px: int = WHOLE_PX, part_px: int = PART_PX) -> None:
        super().__init__()
        self.whole = Discriminator(whole_px, width)
        self.part = Discriminator(part_px, width)
        self.joined = nn.Linear(2 * FEATURES, 1)

    def forward(self, whole: Tensor, part: Tensor) -> Tensor:
        return self.joined(torch.cat((self.whole(whole), self.part(part)), 1))[:, 0]


def completion_loss(found: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Eq. 2, as a mean: the squared error in the hole. `mask` (N, 1, H, W), 1 where hidden."""
    return ((mask * (found - truth)) ** 2).sum() / (truth.shape[1] * mask.sum())


def real_or_not(real: Tensor, completed: Tensor) -> Tensor:
    """What the discriminators minimise: minus log D(real) minus log(1 - D(completed)) (eq. 3), from their answers."""
    return F.softplus(-real).mean() + F.softplus(completed).mean()


def taken_for_real(completed: Tensor) -> Tensor:
    """What the completion network minimises of it, in the form that does not saturate: minus log D(completed)."""
    return F.softplus(-completed).mean()
