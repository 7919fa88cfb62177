"""FillNet: the compact inpainting network. It corrects a smooth fill, level by level of a pyramid.

Pushing known pixels down a pyramid and pulling holes full from its coarser levels (Gortler et al. 1996) gives a fill
that is smooth and has the right colours (restore_plugin.classical.push_pull). FillNet corrects what was pulled, at one
level after another, with the same weights: structure at the coarse levels, where a large hole is small, and detail at
the finer ones, which begin with the corrected fill. So its field of view grows with the levels, and a hole of any size
is filled by a network that learnt on small crops.

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

    The channels: RGB in [0, 1], smoothly filled where hidden and true elsewhere; the mask, 1 where hidden and 0
    elsewhere; noise, uniform in [0, 1] where hidden and 0 elsewhere.
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
