"""PlainUNet: a compact network for whole pictures, plain convolutions throughout.

A U-Net (Ronneberger et al. 2015) made to be fast: its first level already works on a picture unshuffled by 2 (Shi et
al. 2016), blocks are residual pairs of 3x3 convolutions (He et al. 2016) without normalisation, so that a picture in
tiles gives what the whole gives, and skips are added. Plain 3x3 convolutions reach several times the arithmetic rate of
depthwise or attention designs on processors and graphics cards alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from restore_plugin.networks.initialisation import keep_variance


class Block(nn.Module):
    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(torch.relu(self.first(features)))


def blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width) for _ in range(count)))


class PlainUNet(nn.Module):
    """`picture` (N, 3, H, W) RGB in [0, 1] -> residual (N, 3, H, W) to add to it; H and W multiples of 2 ** levels.

    `widths`: features of each level, the first at half of the picture's size; `depths`: blocks on the way down and
    again on the way up (the last level: once).
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], channels: int = 3) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(2)
        self.head = nn.Conv2d(4 * channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(blocks(w, d) for w, d in zip(widths[:-1], depths[:-1], strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.middle = blocks(widths[-1], depths[-1])
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(b, 4 * a, 1), nn.PixelShuffle(2)) for a, b in itertools.pairwise(widths)
        )
        self.up_blocks = nn.ModuleList(blocks(w, d) for w, d in zip(widths[:-1], depths[:-1], strict=True))
        self.tail = nn.Conv2d(widths[0], 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit variance through the body: it has no normalisation to restore it (He et al. 2015, Zhang et al. 2019)."""
        keep_variance(self, "linear")
        with torch.no_grad():
            self.head.weight *= 3.0  # its input's variance is about a tenth
            self.tail.weight *= 0.01
            for layer in self.modules():
                if isinstance(layer, Block):
                    layer.first.weight *= 2**0.5
                    layer.second.weight *= 0.1
            for up in self.ups:
                up[0].weight *= 0.5  # type: ignore[index]

    def forward(self, picture: Tensor) -> Tensor:
        features = self.head(self.unshuffle(picture) - 0.5)
        skips = []
        for level, down in zip(self.down_blocks, self.downs, strict=True):
            features = level(features)
            skips.append(features)
            features = down(features)
        features = self.middle(features)
        for skip, up, level in zip(reversed(skips), reversed(self.ups), reversed(self.up_blocks), strict=True):
            features = level(skip + up(features))
        residual: Tensor = self.shuffle(self.tail(features))
        return residual
