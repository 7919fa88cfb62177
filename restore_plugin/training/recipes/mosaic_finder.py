"""Train MosaicFinder.

    python -m restore_plugin.training.recipes.mosaic_finder --data PICTURES --out RUN --minutes 40

`PICTURES` as for `cellnet`. Loss: cross-entropy of the mask, and the block size where there is a mosaic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.catalog import WEIGHTS
from restore_plugin.networks.mosaic_finder import MosaicFinder
from restore_plugin.training import data, export, loop, scenes
from restore_plugin.training.recipes.cellnet import SHARES, load_sets

BATCH = 16


def make_batch(choose: Any, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    made = [scene for _ in range(BATCH // 2) for scene in scenes.make(choose, random)]
    return (
        torch.from_numpy(np.stack([scene.luma for scene in made])[:, None]),
        torch.from_numpy(np.stack([scene.hidden for scene in made])[:, None]),
        torch.from_numpy(np.stack([scene.blocks for scene in made])),
    )


def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    luma, hidden, blocks = batch
    found = network(luma).float()
    mask = F.binary_cross_entropy_with_logits(found[:, :1], hidden)
    inside = (hidden > 0.5).float()
    size = (F.smooth_l1_loss(found[:, 1:], blocks, reduction="none", beta=0.1) * inside).sum() / (inside.sum() * 2 + 1)
    return mask + 0.3 * size


def main() -> None:
    options = loop.arguments("Train MosaicFinder.").parse_args()
    sets = load_sets(options.data, options.limit)
    names = list(sets)
    shares = np.array([SHARES[name] for name in names], float)
    shares /= shares.sum()

    def chooser(part: int, random: np.random.Generator) -> Any:
        def choose() -> data.Picture:
            pictures = sets[names[int(random.choice(len(names), p=shares))]][part]
            return pictures[int(random.integers(len(pictures)))]

        return choose

    random = np.random.default_rng()
    choose = chooser(0, random)
    fixed = np.random.default_rng(1)
    choose_held = chooser(1, fixed)
    held = [make_batch(choose_held, fixed) for _ in range(6)]

    result: dict[str, Any] = {}

    @torch.no_grad()
    def validate(network: nn.Module) -> dict[str, Any]:
        found = torch.cat([network(luma.to(loop.device())).cpu() for luma, _, _ in held])
        hidden, blocks = (torch.cat([batch[i] for batch in held]) for i in (1, 2))
        yes, inside, outside = found[:, :1] > 0, hidden > 0.75, hidden < 0.25
        size = (found[:, 1:] - blocks).abs()[(inside & yes).expand(-1, 2, -1, -1)]
        result["held_loss"] = round(
            float(sum(loss(network, tuple(part.to(loop.device()) for part in batch)) for batch in held) / len(held)), 4
        )
        result["recall"] = round(float((yes & inside).sum() / inside.sum()), 4)
        result["false"] = round(float((yes & outside).sum() / outside.sum()), 5)
        result["log2_block_error"] = round(float(size.median()), 4)
        return result

    network = loop.train(
        MosaicFinder(),
        data.Background(lambda: make_batch(choose, random)),
        loss,
        validate,
        loop.Options(options.out, options.minutes, rate=5e-4, threads=options.threads),
    )
    if options.export:
        if not result:  # its time was used up by an earlier run
            validate(network)
        ship(options.out, names, result)


def ship(folder: Path, sets: list[str], measured: dict[str, Any]) -> None:
    """Export the averaged network of a run and enter it in the manifest."""
    network, how_far = loop.load_averaged(MosaicFinder(), folder)

    def inputs(height: int, width: int) -> dict[str, Tensor]:
        return {"luma": torch.rand(1, 1, height, width)}

    sizes = {0: "batch", 2: "height", 3: "width"}
    spec = export.Export(
        inputs(96, 128), "found", {"luma": sizes, "found": sizes}, others=(inputs(32, 32), inputs(64, 256))
    )
    export.write_onnx(network, spec, WEIGHTS / "mosaic_finder.onnx")
    export.enter(
        "mosaic_finder.onnx",
        {
            "task": "find mosaics",
            "licence": loop.LICENCE,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "data": {name: loop.PHOTOGRAPHS[name] for name in sets},
            "command": "python -m restore_plugin.training.recipes.mosaic_finder --data PICTURES --out RUN --export",
            "hardware": export.hardware(),
            "measured": measured,
            **how_far,
        },
    )


if __name__ == "__main__":
    main()
