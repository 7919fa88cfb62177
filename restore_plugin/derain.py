"""The de-raining restorer: what stands still comes from neighbouring frames, a network takes the rain off the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore_plugin.steady import steady
from restore_plugin.tiling import TiledNetwork, TileRule
from restore_plugin.types import Engine, Mask, Needs, Pixels, Region, RestoreOptions, Support

# reach: counted over the layers
RAINNET = TileRule(reach=176, multiple=16, largest=2048)
DID_MDN = TileRule(reach=160, multiple=32, largest=2048)  # its density is an average over what it is shown


class Derain:
    """A Restorer for whole pictures. The network's answer is a residual to add."""

    def __init__(self, engine: Engine, rule: TileRule, support: Support) -> None:
        self._network = TiledNetwork(engine, "picture", "residual", rule, support.say, support.fallbacks)
        self._reach = rule.reach

    @property
    def needs(self) -> Needs:
        return Needs(context=2)

    def margin(self, region: Region) -> tuple[int, int]:
        return self._reach, self._reach

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels:
        """Without neighbours, as for stills, the network does it alone."""
        known = steady(pixels, neighbours)
        residual = self._network(np.ascontiguousarray(known.transpose(2, 0, 1)))
        out: Pixels = np.clip(known + residual.transpose(1, 2, 0), 0, 1)
        return out if mask is None or mask.all() else np.where(mask[..., None], out, pixels)


def rainnet(engine: Engine, options: RestoreOptions, support: Support) -> Derain:
    return Derain(engine, RAINNET, support)


def did_mdn(engine: Engine, options: RestoreOptions, support: Support) -> Derain:
    return Derain(engine, DID_MDN, support)
