"""Deep multi-scale deblurring (Nah et al., CVPR 2017): coarse to fine, each scale helped by the coarser one's answer.

Three networks of 40 convolutions of 5x5 and 64 channels each (19 residual blocks without normalisation, and without a
ReLU after the sum: section 3.1), at a quarter, half and full size. The coarser answer is enlarged by a learned layer
and joined to the blurred picture. The paper leaves open how that layer is made; here, as in the authors' own later
code, a convolution to twelve channels and a shuffle. 11,721,321 parameters; 11.7 million are quoted.

Pictures are reduced by means over squares of 2x2. Without normalisation the field of view is bounded, but wide: 575 px
to either side (80 for a network at each of three scales, 2 for each enlargement, in the scale's own pixels).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALES = 3
MULTIPLE = 2 ** (SCALES - 1)  # sides of the input must be multiples of this
KERNEL = 5


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, KERNEL, padding=KERNEL // 2)


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = convolution(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(torch.relu(self.first(features)))


class Scale(nn.Module):
    """One scale's network: (N, 3 or 6, H, W) -> (N, 3, H, W)."""

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.head = convolution(inputs, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.tail = convolution(width, 3)

    def forward(self, picture: Tensor) -> Tensor:
        return self.tail(self.blocks(self.head(picture)))


class MultiScaleDeblur(nn.Module):
    """`picture` (N, 3, H, W) RGB in [0, 1], blurred -> sharp, the same shape, not clamped; H, W multiples of 4."""

    def __init__(self, width: int = 64, blocks: int = 19) -> None:
        super().__init__()
        self.scales = nn.ModuleList(Scale(6 if scale else 3, width, blocks) for scale in range(SCALES))
        self.enlarge = nn.ModuleList(nn.Sequential(convolution(3, 12), nn.PixelShuffle(2)) for _ in range(SCALES - 1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            if isinstance(layer, ResidualBlock):  # the sums of 19 blocks stay of unit scale
                with torch.no_grad():
                    layer.second.weight *= 0.1

    def every_scale(self, picture: Tensor) -> list[Tensor]:
        """Sharp pictures, the coarsest first."""
        pyramid = [picture - 0.5]
        for _ in range(SCALES - 1):
            pyramid.insert(0, F.avg_pool2d(pyramid[0], 2))
        found = [self.scales[0](pyramid[0])]
        for blurry, network, enlarge in zip(pyramid[1:], self.scales[1:], self.enlarge, strict=True):
            found.append(network(torch.cat((blurry, enlarge(found[-1])), 1)))
        return [each + 0.5 for each in found]

    def forward(self, picture: Tensor) -> Tensor:
        return self.every_scale(picture)[-1]


def multi_scale_loss(found: Sequence[Tensor], truth: Tensor) -> Tensor:
    """Half the mean squared error, averaged over the scales (eq. 4); `found` is the coarsest first."""
    total = torch.zeros((), device=truth.device)
    for each in reversed(found):
        total = total + F.mse_loss(each, truth)
        truth = F.avg_pool2d(truth, 2)
    return total / (2 * len(found))
