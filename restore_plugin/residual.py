"""What de-raining and deblurring share: a network sees the whole picture and answers what to add to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore_plugin.grey import keep_grey
from restore_plugin.tiling import TiledNetwork, TileRule
from restore_plugin.types import Engine, Mask, Needs, Pixels, Region, Support


class ResidualRestorer:
    """A Restorer for whole pictures. The network's answer is a residual to add to what was `known` before."""

    needs = Needs()

    def __init__(self, engine: Engine, rule: TileRule, support: Support) -> None:
        self._network = TiledNetwork(engine, "picture", "residual", rule, support.say, support.fallbacks)
        self._reach = rule.reach

    def margin(self, region: Region) -> tuple[int, int]:
        return self._reach, self._reach

    def known(self, pixels: Pixels, neighbours: Sequence[Pixels]) -> Pixels:
        """What the network is shown, of the size of `pixels`: where nothing else tells more, the picture itself."""
        return pixels

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels:
        known = self.known(pixels, neighbours)
        residual = self._network(np.ascontiguousarray(known.transpose(2, 0, 1))).transpose(1, 2, 0)
        out: Pixels = np.clip(known + keep_grey(residual, known), 0, 1)
        return out if mask is None or mask.all() else np.where(mask[..., None], out, pixels)
