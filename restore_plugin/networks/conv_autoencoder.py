"""The small convolutional autoencoder, and its twin of partial convolutions, for small pictures with lines missing.

What plain convolutions make of a hole, to compare partial ones (Liu et al. 2018) with: of the same layout, layer by
layer as in `PartialConvUNet`, and with the same training. Only the convolutions differ, and what follows from that:
this one is given grey in the hole and the mask as a fourth channel, which its twin knows by its masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.networks.initialisation import keep_variance
from restore_plugin.networks.partial_conv import BEGIN, SLOPE, PartialConvUNet

WIDTHS = (16, 32, 64, 128)  # after each layer down
KERNELS = (3, 3, 3, 3)
MULTIPLE = 2 ** len(WIDTHS)  # sides of the input must be multiples of this


def partial_conv_autoencoder() -> PartialConvUNet:
    return PartialConvUNet(WIDTHS, KERNELS)


class ConvAutoencoder(nn.Module):
    """`picture` (N, 4, H, W) -> (N, 3, H, W) RGB; H, W multiples of 16.

    The channels: RGB in [0, 1], grey in the hole; the mask, 1 where hidden.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        counts = (4, *widths)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, (above, below) in enumerate(zip(counts, widths, strict=False)):
            first = level == 0
            down = nn.Conv2d(above, below, 3, stride=2, padding=1)
            up = nn.Conv2d(below + above, 3 if first else above, 3, padding=1)
            self.downs.append(nn.Sequential(down, nn.Identity() if first else nn.BatchNorm2d(below), nn.ReLU()))
            self.ups.append(up if first else nn.Sequential(up, nn.BatchNorm2d(above), nn.LeakyReLU(SLOPE)))
        keep_variance(self, "relu")  # as partial convolutions begin
        with torch.no_grad():
            for parameter in self.ups[0].parameters():
                parameter.mul_(BEGIN)

    def forward(self, picture: Tensor) -> Tensor:
        skips = [picture]
        for down in self.downs:
            skips.append(down(skips[-1]))
        features = skips.pop()
        for up, skip in zip(reversed(self.ups), reversed(skips), strict=True):
            features = up(torch.cat((F.interpolate(features, scale_factor=2), skip), 1))
        return features
