"""BlurNet: the compact deblurring network, a PlainUNet of four levels.

A blur of 40 px is undone from what lies within two or three of its lengths, so most of the work is done at an eighth
and a sixteenth of the picture's size. A thin level at half of it undoes the small blurs of a hand and of the focus:
without one, starting at a quarter, the network gained less on these however long it was trained.

Reach, counted over the layers, in px to either side: head and tail 2 + 2, four convolutions at half size 8, four at a
quarter 16, eight at an eighth 64, eight at a sixteenth 128; 220 in all, and up to 16 - 1 as the coarsest grid is not
centred on a pixel.
"""

from __future__ import annotations

from restore_plugin.networks.plain_unet import PlainUNet

WIDTHS = (16, 40, 80, 128)  # at a half, a quarter, an eighth and a sixteenth of the picture's size
DEPTHS = (1, 1, 2, 4)
MULTIPLE = 2 ** len(WIDTHS)  # sides of the input must be multiples of this
REACH = 235  # px


class BlurNet(PlainUNet):
    """`picture` (N, 3, H, W) RGB in [0, 1], blurred -> residual (N, 3, H, W) to add; H, W multiples of 16."""

    def __init__(self) -> None:
        super().__init__(WIDTHS, DEPTHS)
