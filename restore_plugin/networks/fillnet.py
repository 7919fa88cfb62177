"""FillNet: the compact inpainting network. It corrects a smooth fill, level by level of a pyramid.

The harmonic fill (restore_plugin.classical.harmonic) has the right colours, but neither edges nor texture. FillNet says
what to add to it: first in a picture that is reduced by 2 several times, where a large hole is small, then in each
finer one, which begins with what was added before, enlarged. All levels share the weights, so a hole of any size is
filled by a network that learnt on small crops: structure at the coarse levels, detail at the finer ones.

At each level it works on the picture unshuffled by 4 (Shi et al. 2016), down to a sixteenth of it, where convolutions
are dilated (Yu & Koltun 2016). Plain 3x3 convolutions, without normalisation: nothing depends on what lies out of
reach. Noise is an input: texture that nothing near a hole determines is made from it, so the same noise gives the same
fill.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restore_plugin.networks.plain_unet import Block, PlainUNet

WIDTHS = (48, 80, 128)  # at a quarter, an eighth and a sixteenth of the picture's size
DEPTHS = (1, 2, 0)
DILATIONS = (1, 2, 4, 2, 1)  # of the blocks at a sixteenth
UNSHUFFLE = 4
MULTIPLE = UNSHUFFLE * 2 ** (len(WIDTHS) - 1)  # sides of the input must be multiples of this
CHANNELS = 5  # red, green, blue, mask, noise


class FillNet(PlainUNet):
    """`picture` (N, 5, H, W) -> residual (N, 3, H, W) to add inside of the hole; H, W multiples of 16.

    The channels: RGB in [0, 1], filled where hidden and true elsewhere; the share of each pixel that is hidden, which
    is 0 or 1 but in reduced pictures; noise, uniform in [0, 1], times that share.
    """

    def __init__(self) -> None:
        super().__init__(WIDTHS, DEPTHS)
        self.unshuffle, self.shuffle = nn.PixelUnshuffle(UNSHUFFLE), nn.PixelShuffle(UNSHUFFLE)
        self.head = nn.Conv2d(CHANNELS * UNSHUFFLE**2, WIDTHS[0], 3, padding=1)
        self.middle = nn.Sequential(*(Block(WIDTHS[-1], dilation) for dilation in DILATIONS))
        self.tail = nn.Conv2d(WIDTHS[0], 3 * UNSHUFFLE**2, 3, padding=1)
        self.reset_parameters()


def joined(filled: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
    """The network's input from (N, 3, H, W), (N, 1, H, W) and (N, 1, H, W)."""
    return torch.cat((filled, mask, noise * mask), 1)
