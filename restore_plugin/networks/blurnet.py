"""BlurNet: the compact deblurring network, a PlainUNet that starts at a quarter of the picture's size.

A blur of 40 px is undone from what lies within two or three of its lengths, so the field of view matters more than
features at full size. The picture is unshuffled by 4 (Shi et al. 2016): nothing is lost, all its detail is in the 48
channels that the head sees and, through the skips, in what the tail shuffles back; and wide layers at a quarter, an
eighth and a sixteenth of the size cost as much as thin ones at half of it, but fill a processor's registers.

Reach, counted over the layers, in px to either side: head and tail 4 + 4, four convolutions at a quarter 16, eight at
an eighth 64, eight at a sixteenth 128; 216 in all, and up to 16 - 1 as the coarsest grid is not centred on a pixel.
"""

from __future__ import annotations

from torch import nn

from restore_plugin.networks.plain_unet import PlainUNet

WIDTHS = (40, 64, 96)  # at a quarter, an eighth and a sixteenth of the picture's size
DEPTHS = (1, 2, 4)
UNSHUFFLE = 4
MULTIPLE = UNSHUFFLE * 2 ** (len(WIDTHS) - 1)  # sides of the input must be multiples of this
REACH = 231  # px


class BlurNet(PlainUNet):
    """`picture` (N, 3, H, W) RGB in [0, 1], blurred -> residual (N, 3, H, W) to add; H, W multiples of 16."""

    def __init__(self) -> None:
        super().__init__(WIDTHS, DEPTHS)
        values = 3 * UNSHUFFLE**2
        self.unshuffle, self.shuffle = nn.PixelUnshuffle(UNSHUFFLE), nn.PixelShuffle(UNSHUFFLE)
        self.head = nn.Conv2d(values, WIDTHS[0], 3, padding=1)
        self.tail = nn.Conv2d(WIDTHS[0], values, 3, padding=1)
        self.reset_parameters()
