"""The deblurring restorer: a network adds what the blur took from the whole picture."""

from __future__ import annotations

from restore_plugin.residual import ResidualRestorer
from restore_plugin.tiling import TileRule
from restore_plugin.types import Engine, RestoreOptions, Support

# reach: counted over the layers
BLURNET = TileRule(reach=235, multiple=16, largest=2048)
# Its normalisation takes statistics of all that it is shown: tiles differ from the whole, small ones more. Up to the
# largest size a picture is shown whole, and where memory is short, tiles stay large.
DEBLURGAN = TileRule(reach=96, multiple=8, largest=2048, minimum=1024)


class Deblur(ResidualRestorer):
    """Every picture by itself, as it is."""


def blurnet(engine: Engine, options: RestoreOptions, support: Support) -> Deblur:
    return Deblur(engine, BLURNET, support)


def deblurgan(engine: Engine, options: RestoreOptions, support: Support) -> Deblur:
    return Deblur(engine, DEBLURGAN, support)
