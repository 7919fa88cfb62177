"""RainNet: the compact de-raining network, a PlainUNet that subtracts the rain."""

from __future__ import annotations

from restore_plugin.networks.plain_unet import PlainUNet

WIDTHS = (16, 32, 64, 96)
DEPTHS = (1, 1, 2, 2)
MULTIPLE = 2 ** len(WIDTHS)  # sides of the input must be multiples of this


class RainNet(PlainUNet):
    """`picture` (N, 3, H, W) RGB in [0, 1] with rain -> residual (N, 3, H, W) to add; H, W multiples of 16."""

    def __init__(self) -> None:
        super().__init__(WIDTHS, DEPTHS)
