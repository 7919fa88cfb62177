"""MosaicFinder: where a frame is pixelated, and with which block size.

A small U-Net (Ronneberger et al. 2015) of plain convolutions on luma. Its first layer reads 8x8 pixels at every fourth,
so that the grid's lines are seen at full resolution; its deepest level sees about 400 px, several cells of 64 px.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 4  # pixels to one position of the output
MULTIPLE = 32  # sides of the input must be multiples of this
WIDTHS = (32, 48, 64, 64)


def double(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, 1, 1), nn.ReLU()
    )


def edges(luma: Tensor, axis: int) -> Tensor:
    """Steps to the next pixel, compressed: whether a cell is flat shows in steps of one or two levels of 255."""
    size = luma.shape[axis]
    step = luma.narrow(axis, 1, size - 1) - luma.narrow(axis, 0, size - 1)
    pad = (0, 1, 0, 0) if axis == 3 else (0, 0, 0, 1)
    return F.pad(torch.log1p(255.0 * step.abs()) / 4.0, pad)


class MosaicFinder(nn.Module):
    """`luma` (N, 1, H, W) in [0, 1], sides multiples of 32 -> (N, 3, H/4, W/4): logit, log2(block / 8) in x, y."""

    def __init__(self, widths: tuple[int, int, int, int] = WIDTHS) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.Conv2d(3, widths[0], 8, STRIDE, 2), nn.ReLU(), nn.Conv2d(widths[0], widths[0], 3, 1, 1), nn.ReLU()
        )
        self.down = nn.ModuleList(double(a, b, 2) for a, b in itertools.pairwise(widths))
        self.bottom = double(widths[3], widths[3])
        self.lateral = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(nn.Sequential(nn.Conv2d(a, a, 3, 1, 1), nn.ReLU()) for a in widths[:3])
        self.out = nn.Conv2d(widths[0], 3, 1)
        for layer in self.modules():  # no normalisation: keep the variance from layer to layer (He et al. 2015)
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, luma: Tensor) -> Tensor:
        levels = [self.head(torch.cat((luma - 0.5, edges(luma, 3), edges(luma, 2)), 1))]
        for stage in self.down:
            levels.append(stage(levels[-1]))
        features = self.bottom(levels[-1])
        for skip, lateral, up in zip(levels[-2::-1], list(self.lateral)[::-1], list(self.up)[::-1], strict=True):
            features = up(skip + F.interpolate(lateral(features), scale_factor=2.0, mode="nearest"))
        found: Tensor = self.out(features)
        return found
