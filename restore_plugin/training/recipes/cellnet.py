"""Train CellNet, the de-mosaic network.

    python -m restore_plugin.training.recipes.cellnet --data PICTURES --out RUN --minutes 60

`PICTURES` holds a folder for each set named in `SHARES`; those that are missing are left out. The loss is taken after
the consistency projection, as the network is used: without it the same network is worse than bicubic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.catalog import WEIGHTS
from restore_plugin.mosaic import CELL
from restore_plugin.networks.cellnet import CellNet
from restore_plugin.training import data, export, loop, mosaics

SHARES = {  # of the batches: pictures with detail first, plain ones seldom
    "photos/cq100": 5,
    "photos/wallpapers": 3,
    "photos/cars": 2,
    "photos/aerial": 1,
    "photos/gopr0477": 1,
    "photos/clothing": 1,
    "photos/grocery": 2,
    "faces/caltech": 5,
}
CELLS = (12, 16, 24)  # side of a crop in cells; one for each batch
POSITIONS = 9216  # cells in a batch: the batch size follows from the crop's side
TOLERANCE = 0.5  # of the noise's standard deviation: cell means that were compressed are not exact


def to_linear(values: Tensor) -> Tensor:
    values = values.clamp(1e-6, 1)
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_gamma(values: Tensor) -> Tensor:
    values = values.clamp(1e-6, 1)
    return torch.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def project(picture: Tensor, mask: Tensor, means: Tensor, tolerance: Tensor) -> Tensor:
    """Move the hidden pixels of every cell together so that the cell has its mean (restore_plugin.consistency)."""
    miss = means - F.avg_pool2d(picture, CELL)
    miss = torch.sign(miss) * torch.relu(miss.abs() - tolerance)
    share = F.avg_pool2d(mask, CELL).clamp_min(0.25)
    return picture + mask * F.interpolate(miss / share, scale_factor=CELL, mode="nearest")


def restored(network: nn.Module, picture: Tensor, means: Tensor, condition: Tensor) -> Tensor:
    start, mask = picture[:, :3], picture[:, 3:]
    out = start + mask * network(picture, condition).float()
    tolerance = (condition[:, 2] / mosaics.NOISE_SCALE * TOLERANCE)[:, None, None, None]
    if bool(condition[0, 3]):  # a batch is of one kind
        return to_gamma(project(to_linear(out), mask, to_linear(means), tolerance))
    return project(out, mask, means, tolerance)


def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    picture, means, condition, truth = batch
    mask = picture[:, 3:]
    miss = (restored(network, picture, means, condition) - truth) * mask
    return torch.sqrt(miss**2 + 1e-6).sum() / (3 * mask.sum() + 1)


def validator(held: dict[str, list[data.Picture]], folder: Path) -> Any:
    """PSNR over bicubic on fixed crops, and a picture to look at."""
    sets = {}
    for name, pictures in held.items():
        random = np.random.default_rng(1)
        picks = random.integers(0, len(pictures), (4, 16))
        sets[name] = [mosaics.batch([pictures[int(i)] for i in row], 16, random) for row in picks]

    @torch.no_grad()
    def validate(network: nn.Module) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, batches in sets.items():
            ours: list[Tensor] = []
            base: list[Tensor] = []
            for index, arrays in enumerate(batches):
                picture, means, condition, truth = (torch.from_numpy(a).to(loop.device()) for a in arrays)
                out = restored(network, picture, means, condition).clamp(0, 1)
                mask = picture[:, 3:]
                for values, store in ((out, ours), (picture[:, :3].clamp(0, 1), base)):
                    error = ((values - truth) ** 2 * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)) + 1e-6)
                    store.append(-10 * torch.log10(error + 1e-6))
                if index == 0:
                    sheet = torch.cat([torch.cat(list(v[:6, :3]), 2) for v in (picture, out, truth)], 1)
                    save_picture(folder / f"{name}.png", sheet)
            result[name] = round(float(torch.cat(ours).mean()), 3)
            result[name + "_gain"] = round(float((torch.cat(ours) - torch.cat(base)).mean()), 3)
        return result

    return validate


def save_picture(path: Path, rgb: Tensor) -> None:
    import cv2

    array = (rgb.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    cv2.imwrite(str(path), array[..., ::-1])


def load_sets(folder: Path, limit: int | None) -> dict[str, tuple[list[data.Picture], list[data.Picture]]]:
    """(training, held out) pictures of every set there is."""
    sets = {}
    for name in SHARES:
        if (folder / name).is_dir():
            kept, held = data.split(data.picture_files(folder / name))
            sets[name] = (
                [data.read_rgb(p, 1600) for p in kept[:limit]],
                [data.read_rgb(p, 1600) for p in held[:limit]],
            )
    if not sets:
        raise FileNotFoundError(f"expected one of {', '.join(SHARES)} in {folder}, found none")
    return sets


def main() -> None:
    options = loop.arguments("Train CellNet, the de-mosaic network.").parse_args()
    sets = load_sets(options.data, options.limit)
    names = list(sets)
    shares = np.array([SHARES[name] for name in names], float)
    random = np.random.default_rng()

    def make() -> tuple[Tensor, ...]:
        cells = int(random.choice(CELLS))
        picks = random.choice(len(names), POSITIONS // cells**2, p=shares / shares.sum())
        pictures = [sets[names[i]][0][int(random.integers(len(sets[names[i]][0])))] for i in picks]
        return tuple(torch.from_numpy(array) for array in mosaics.batch(pictures, cells, random))

    held = {kind: [p for name in names if name.startswith(kind) for p in sets[name][1]] for kind in ("photos", "faces")}
    options.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}

    def validate(network: nn.Module) -> dict[str, Any]:
        result.update(judge(network))
        return result

    judge = validator({kind: pictures for kind, pictures in held.items() if pictures}, options.out)
    network = loop.train(
        CellNet(),
        data.Background(make),
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
    network, how_far = loop.load_averaged(CellNet(), folder)

    def inputs(cells_y: int, cells_x: int) -> dict[str, Tensor]:
        return {"picture": torch.rand(1, 4, CELL * cells_y, CELL * cells_x), "condition": torch.rand(1, 4)}

    sizes = {0: "batch", 2: "height", 3: "width"}
    spec = export.Export(
        inputs(12, 10),
        "residual",
        {"picture": sizes, "condition": {0: "batch"}, "residual": sizes},
        others=(inputs(1, 1), inputs(31, 7)),
    )
    export.write_onnx(network, spec, WEIGHTS / "cellnet.onnx")
    export.enter(
        "cellnet.onnx",
        {
            "task": "demosaic",
            "licence": loop.LICENCE,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "data": {name: loop.PHOTOGRAPHS[name] for name in sets},
            "command": "python -m restore_plugin.training.recipes.cellnet --data PICTURES --out RUN --export",
            "hardware": export.hardware(),
            "measured": measured,
            **how_far,
        },
    )


if __name__ == "__main__":
    main()
