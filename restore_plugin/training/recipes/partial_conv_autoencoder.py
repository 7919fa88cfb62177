"""Train the small autoencoder of partial convolutions (Liu et al. 2018), on lines missing from small pictures.

    python -m restore_plugin.training.recipes.partial_conv_autoencoder --data PICTURES --out RUN --minutes 5

All but the network is its plain twin's (`conv_autoencoder`), so that their figures can be compared.
"""

from __future__ import annotations

from dataclasses import replace

from restore_plugin.networks.conv_autoencoder import partial_conv_autoencoder
from restore_plugin.training.recipe import run
from restore_plugin.training.recipes import conv_autoencoder

RECIPE = replace(conv_autoencoder.RECIPE, name="partial_conv_autoencoder", network=partial_conv_autoencoder)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
