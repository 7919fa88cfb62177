"""The de-raining restorer: what stands still comes from neighbouring frames, a network takes the rain off the rest."""

from __future__ import annotations

from collections.abc import Sequence

from restore_plugin.residual import ResidualRestorer
from restore_plugin.steady import steady
from restore_plugin.tiling import TileRule
from restore_plugin.types import Engine, Needs, Pixels, RestoreOptions, Support

# reach: counted over the layers
RAINNET = TileRule(reach=176, multiple=16, largest=2048)
DID_MDN = TileRule(reach=160, multiple=32, largest=2048)  # its density is an average over what it is shown


class Derain(ResidualRestorer):
    """Without neighbours, as for stills, the network does it alone."""

    needs = Needs(context=2, upright=True)

    def known(self, pixels: Pixels, neighbours: Sequence[Pixels]) -> Pixels:
        return steady(pixels, neighbours)


def rainnet(engine: Engine, options: RestoreOptions, support: Support) -> Derain:
    return Derain(engine, RAINNET, support)


def did_mdn(engine: Engine, options: RestoreOptions, support: Support) -> Derain:
    return Derain(engine, DID_MDN, support)
