"""The deblurring restorer: a network adds what the blur took from the whole picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from restore_plugin.tiling import TiledNetwork, TileRule
from restore_plugin.types import Engine, Mask, Needs, Pixels, Region, RestoreOptions, Support

# reach: counted over the layers
BLURNET = TileRule(reach=231, multiple=16, largest=2048)
# Its normalisation takes statistics of all that it is shown: tiles differ from the whole, small ones more. Up to the
# largest size a picture is shown whole, and where memory is short, tiles stay large.
DEBLURGAN = TileRule(reach=96, multiple=8, largest=2048, minimum=1024)


class Deblur:
    """A Restorer for whole pictures. The network's answer is a residual to add."""

    def __init__(self, engine: Engine, rule: TileRule, support: Support) -> None:
        self._network = TiledNetwork(engine, "picture", "residual", rule, support.say, support.fallbacks)
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
        return out if mask is None or mask.all() else np.where(mask[..., None], out, pixels)


def blurnet(engine: Engine, options: RestoreOptions, support: Support) -> Deblur:
    return Deblur(engine, BLURNET, support)


def deblurgan(engine: Engine, options: RestoreOptions, support: Support) -> Deblur:
    return Deblur(engine, DEBLURGAN, support)
