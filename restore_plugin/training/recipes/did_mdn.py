"""Train DID-MDN (Zhang & Patel 2018) at half width, on the rain and the pictures of RainNet.

    python -m restore_plugin.training.recipes.did_mdn --data PICTURES --out RUN --minutes 120

`WIDTH = 1.0` is the paper's network, for a graphics card. Loss, in the manner of the paper's eq. 2 and 3: the distance
to the clean crop, that of both estimated residuals to the rain, and the cross-entropy of the density. The de-raining
part is given the true density while it learns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.networks.did_mdn import DIDMDN, MULTIPLE, Residual
from restore_plugin.training import data, export, loop
from restore_plugin.training.recipe import Recipe, residual_export, run, tensors
from restore_plugin.training.recipes import rainnet

WIDTH = 0.5
KINDS = {"dry": 0.08, "light": 0.28, "medium": 0.26, "heavy": 0.22, "very heavy": 0.16}  # shares
LABELS = {"dry": 0, "light": 0, "medium": 1, "heavy": 2, "very heavy": 2}
BATCH = 4
SIDE = 64  # px


def network() -> DIDMDN:
    return DIDMDN(WIDTH)


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    wet, clean, kinds = rainnet.pairs(library, BATCH, SIDE, KINDS, random)
    return (*tensors(wet, clean), torch.tensor([LABELS[kind] for kind in kinds]))


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    picture, truth, label = batch
    rain = picture - truth
    found = network.estimate(picture, label)  # type: ignore[operator]
    return (
        F.l1_loss(found.derained, truth)
        + 0.2 * (F.l1_loss(found.residual, rain) + F.l1_loss(found.classified, rain))
        + 0.01 * F.cross_entropy(found.density, label)
    )


def validator(library: data.Library, folder: Path) -> Callable[[Any], dict[str, Any]]:
    judge = rainnet.validator(library, folder)
    return lambda network: judge(Residual(network))


def spec() -> export.Export:
    return residual_export(MULTIPLE)


RECIPE = Recipe("did_mdn", "derain", network, rainnet.SHARES, batch, loss, validator, spec, Residual, rate=1e-3)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
