"""DeblurGAN: blind motion deblurring with a conditional adversarial network (Kupyn et al., CVPR 2018).

The *generator* (section 3.2 of the paper, the layout of Johnson et al. 2016): a 7x7 convolution, two of stride 2, nine
residual blocks at a quarter of the size, two transposed convolutions, a 7x7 convolution; instance normalisation and
ReLU throughout, dropout in the blocks, tanh at the end, and a global skip: it learns what to add to the picture.
At width 64 with nine blocks it has 11,378,179 parameters (the paper's 11.4 million, biases included; those before a
normalisation do nothing).

The *critic*: PatchGAN (Isola et al. 2017) with instance normalisation and LeakyReLU, without a bias in its last layer,
as a Wasserstein critic is only determined up to a constant.

Instance normalisation takes every channel's mean and variance over the whole picture: the answer depends on what else
is in the picture, and tiles differ from the whole. The generator is given whole pictures up to 2048 px.

Here the last layer's weights start at a hundredth of the published initialisation, so that training starts at the
identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MULTIPLE = 4  # sides of the input must be multiples of this
SLOPE = 0.2  # of LeakyReLU
DEVIATION = 0.02  # of all initial weights, as published


def initialise(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, DEVIATION)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ResidualBlock(nn.Module):
    """Convolution, normalisation, ReLU, dropout, convolution, normalisation; added to what came in."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class Generator(nn.Module):
    """`picture` (N, 3, H, W) RGB in [0, 1] -> residual (N, 3, H, W) to add, in (-1/2, 1/2); H, W multiples of 4, >= 8.

    The paper's pictures are in [-1, 1], and its tanh in their units: half as much in ours.
    """

    def __init__(self, width: int = 64, blocks: int = 9, dropout: float = 0.5) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU())
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for channels in (width, 2 * width):
            down += [
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
                nn.InstanceNorm2d(2 * channels),
                nn.ReLU(),
            ]
            up = [
                nn.ConvTranspose2d(2 * channels, channels, 3, stride=2, padding=1, output_padding=1),
                nn.InstanceNorm2d(channels),
                nn.ReLU(),
            ] + up
        self.down = nn.Sequential(*down)
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width, dropout) for _ in range(blocks)))
        self.up = nn.Sequential(*up)
        last = nn.Conv2d(width, 3, 7)
        self.tail = nn.Sequential(nn.ReflectionPad2d(3), last, nn.Tanh())
        initialise(self)
        with torch.no_grad():
            last.weight *= 0.01

    def forward(self, picture: Tensor) -> Tensor:
        residual: Tensor = self.tail(self.up(self.blocks(self.down(self.head(2 * picture - 1)))))
        return residual / 2


class Critic(nn.Module):
    """`picture` (N, 3, H, W) RGB in [0, 1] -> how real its patches of 70 px look (N, 1, h, w); H, W >= 32."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for inputs, outputs, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers += [
                nn.Conv2d(inputs * width, outputs * width, 4, stride=stride, padding=1),
                nn.InstanceNorm2d(outputs * width),
                nn.LeakyReLU(SLOPE),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1, bias=False))
        initialise(self)

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(2 * picture - 1)
