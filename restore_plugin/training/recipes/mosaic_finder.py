"""Train MosaicFinder.

    python -m restore_plugin.training.recipes.mosaic_finder --data PICTURES --out RUN --minutes 40

Loss: cross-entropy of the mask, and the block size where there is a mosaic.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.networks.mosaic_finder import MosaicFinder
from restore_plugin.training import data, export, loop, scenes
from restore_plugin.training.recipe import Recipe, run
from restore_plugin.training.recipes.cellnet import SHARES

BATCH = 16


def batch(library: data.Library, random: np.random.Generator, held_out: bool = False) -> loop.Batch:
    made = [scene for _ in range(BATCH // 2) for scene in scenes.make(lambda: library.choose(random, held_out), random)]
    return (
        torch.from_numpy(np.stack([scene.luma for scene in made])[:, None]),
        torch.from_numpy(np.stack([scene.hidden for scene in made])[:, None]),
        torch.from_numpy(np.stack([scene.blocks for scene in made])),
    )


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    luma, hidden, blocks = batch
    found = network(luma).float()
    mask = F.binary_cross_entropy_with_logits(found[:, :1], hidden)
    inside = (hidden > 0.5).float()
    size = (F.smooth_l1_loss(found[:, 1:], blocks, reduction="none", beta=0.1) * inside).sum() / (inside.sum() * 2 + 1)
    return mask + 0.3 * size


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    random = np.random.default_rng(1)
    held = [batch(library, random, held_out=True) for _ in range(6)]

    @torch.no_grad()
    def validate(network: nn.Module) -> dict[str, Any]:
        where = loop.device()
        found = torch.cat([network(luma.to(where)).cpu() for luma, _, _ in held])
        hidden, blocks = (torch.cat([each[i] for each in held]) for i in (1, 2))
        yes, inside, outside = found[:, :1] > 0, hidden > 0.75, hidden < 0.25
        size = (found[:, 1:] - blocks).abs()[(inside & yes).expand(-1, 2, -1, -1)]
        losses = [float(loss(network, tuple(part.to(where) for part in each))) for each in held]
        return {
            "held_loss": round(sum(losses) / len(losses), 4),
            "recall": round(float((yes & inside).sum() / inside.sum()), 4),
            "false": round(float((yes & outside).sum() / outside.sum()), 5),
            "log2_block_error": round(float(size.median()), 4),
        }

    return validate


def spec() -> export.Export:
    def inputs(height: int, width: int) -> dict[str, Tensor]:
        return {"luma": torch.rand(1, 1, height, width)}

    sizes = {0: "batch", 2: "height", 3: "width"}
    return export.Export(
        inputs(96, 128), "found", {"luma": sizes, "found": sizes}, others=(inputs(32, 32), inputs(64, 256))
    )


RECIPE = Recipe("mosaic_finder", "find mosaics", MosaicFinder, SHARES, batch, loss, validator, spec)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
