"""CellNet: the de-mosaic network. One cell of the mosaic is one position of its convolutions.

Nothing that a mosaic hides lies between the cells' values, so the body runs at one position a cell, plain 3x3
convolutions throughout, and its cost follows the number of cells, not of pixels. Residual blocks without normalisation
and a sub-pixel tail, as in EDSR (Lim et al. 2017, fig. 2c and 3); the uniform grid in front of it makes one network
serve every block size, unequal and fractional ones too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restore_plugin.networks.initialisation import keep_variance

CELL = 8
CONDITIONS = 4


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(torch.relu(self.first(features)))


class CellNet(nn.Module):
    """Residual that turns an interpolated mosaic into a plausible picture, on the uniform grid.

    `picture` (N, 4, 8h, 8w): RGB in [0, 1], interpolated where masked and true elsewhere, then the mask (1 = hidden).
    `condition` (N, 4): log2(block x / 8), log2(block y / 8), noise of the cells (standard deviation of their pixels,
    [0, 1] scale, times 20), 1 if the means were taken in linear light.
    Returns the residual (N, 3, 8h, 8w) to add to the RGB of `picture`.
    """

    def __init__(self, width: int = 64, blocks: int = 10) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, width, CELL, stride=CELL)
        self.condition = nn.Linear(CONDITIONS, width)
        self.blocks = [ResidualBlock(width) for _ in range(blocks)]
        self.body = nn.Sequential(*self.blocks)
        self.fuse = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 3 * CELL * CELL, 3, padding=1)
        self.shuffle = nn.PixelShuffle(CELL)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit variance through the body: it has no normalisation to restore it (He et al. 2015, Zhang et al. 2019)."""
        keep_variance(self, "relu")
        with torch.no_grad():
            self.head.weight *= 3.0  # its input's variance is about a tenth
            self.condition.weight *= 0.3
            self.tail.weight *= 0.01
            for block in self.blocks:
                block.second.weight *= 0.05

    def forward(self, picture: Tensor, condition: Tensor) -> Tensor:
        head = self.head(picture - 0.5) + self.condition(condition)[:, :, None, None]
        features = head + self.fuse(self.body(head))
        residual: Tensor = self.shuffle(self.tail(features))
        return residual
