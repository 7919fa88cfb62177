"""The de-raining restorer: a network takes the rain off whole pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore_plugin.tiling import TiledNetwork, TileRule
from restore_plugin.types import Engine, Mask, Needs, Pixels, Region, RestoreOptions

RAINNET = TileRule(reach=176, multiple=16, largest=2048)  # reach: 172 px, counted over its layers


class Derain:
    """A Restorer for whole pictures. The network's answer is a residual to add."""

    def __init__(self, engine: Engine, rule: TileRule) -> None:
        self._network = TiledNetwork(engine, "picture", "residual", rule)
        self._reach = rule.reach

    @property
    def needs(self) -> Needs:
        return Needs()

    def margin(self, region: Region) -> tuple[int, int]:
        return self._reach, self._reach

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels:
        residual = self._network(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        out: Pixels = np.clip(pixels + residual.transpose(1, 2, 0), 0, 1)
        return out if mask is None else np.where(mask[..., None], out, pixels)


def rainnet(engine: Engine, options: RestoreOptions | None = None) -> Derain:
    return Derain(engine, RAINNET)
