"""Train FillNet, the compact inpainting network.

    python -m restore_plugin.training.recipes.fillnet --data PICTURES --out RUN --minutes 110

Holes of every kind (restore_plugin.training.holes) in crops of photographs, from details to whole scenes. The network
corrects one to three levels of the pyramid, as it is used. Loss, at each level and in the hole alone: the distance to
the truth (Charbonnier), that of the steps from pixel to pixel, seams included, and that of local statistics of the
texture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.classical.harmonic import harmonic
from restore_plugin.networks.fillnet import CHANNELS, MULTIPLE, FillNet, joined
from restore_plugin.training import data, export, holes, loop
from restore_plugin.training.recipe import Recipe, run, save_sheet, tensors
from restore_plugin.training.streaks import log_uniform

SHARES = {
    "photos/cq100": 6,
    "photos/wallpapers": 5,
    "photos/cars": 2,
    "photos/aerial": 2,
    "photos/gopr0477": 1,
    "photos/clothing": 3,
    "photos/grocery": 3,
    "faces/caltech": 4,
}
SIDES = (128, 192, 256)  # px of a crop; one for each batch
PIXELS = 131072  # in a batch: how many crops it has follows from their side
LEVELS = (0.2, 0.3, 0.5)  # shares of batches in which one, two and three levels are corrected
KINDS = {"strokes": 0.3, "boxes": 0.14, "outlines": 0.2, "writing": 0.08, "scratches": 0.06, "mixed": 0.22}  # shares
HOLE = (0.03, 0.65)  # share of a crop
LEAST = 0.02  # of a crop: smaller holes count as much as this, together
STEPS, TEXTURE = 0.3, 0.1  # weights of the steps from pixel to pixel, and of the texture's statistics
COARSER = 0.5  # weight of a level, of that of the next finer one
BANDS = {"small": (0.03, 0.1), "10-20": (0.1, 0.2), "20-40": (0.2, 0.4), "40-60": (0.4, 0.6)}  # to judge with
HELD_OUT = (24, 256)  # crops of each band, and their side in px
TELEA_PX = 3  # radius
SMOOTH = 5e-3  # tolerance of the smooth fill


def crop(picture: data.Picture, side: int, random: np.random.Generator) -> Any:
    """(side, side, 3) float32 in [0, 1]: from the picture's own size to all of its shorter side."""
    height, width = picture.shape[:2]
    take = int(log_uniform((min(side, height, width), min(height, width)), random))
    y, x = int(random.integers(height - take + 1)), int(random.integers(width - take + 1))
    how = cv2.INTER_AREA if take >= side else cv2.INTER_CUBIC
    found = cv2.resize(picture[y : y + take, x : x + take], (side, side), interpolation=how)
    if random.random() < 0.5:
        found = found[:, ::-1]
    return np.ascontiguousarray(found).astype(np.float32) / 255


def hole(side: int, share: tuple[float, float], random: np.random.Generator) -> Any:
    kind = str(random.choice(list(KINDS), p=list(KINDS.values())))
    return holes.hidden(side, side, kind, float(random.uniform(*share)), random)


def samples(truth: list[Any], masks: list[Any], levels: int, random: np.random.Generator) -> loop.Batch:
    """(truth, mask, smooth fill, noise, how many levels are corrected)."""
    smooth = [harmonic(t, m, SMOOTH) for t, m in zip(truth, masks, strict=True)]
    mask = np.stack(masks)[..., None].astype(np.float32)
    noise = random.random(mask.shape, np.float32)
    return (*tensors(np.stack(truth), mask, np.stack(smooth), noise), torch.tensor(levels))


def batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    side = int(random.choice(SIDES))
    truth = [crop(library.choose(random), side, random) for _ in range(max(1, PIXELS // side**2))]
    levels = 1 + int(random.choice(len(LEVELS), p=LEVELS))
    return samples(truth, [hole(side, HOLE, random) for _ in truth], levels, random)


def pyramid(values: Tensor, count: int) -> list[Tensor]:
    levels = [values]
    for _ in range(count - 1):
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def filled(network: nn.Module, batch: loop.Batch) -> list[Tensor]:
    """What the network fills, the finest level first: each begins with the correction of the next coarser one."""
    _, mask, smooth, noise, count = batch
    levels = list(zip(pyramid(smooth, int(count)), pyramid(mask, int(count)), strict=True))
    found: list[Tensor] = []
    correction = torch.zeros_like(levels[-1][0])
    for smooth, mask in reversed(levels):
        if found:
            correction = mask * F.interpolate(correction, scale_factor=2, mode="bilinear", align_corners=False)
        height, width = mask.shape[2:]
        residual = network(joined(smooth + correction, mask, noise[..., :height, :width])).float()
        correction = correction + mask * residual
        found.insert(0, smooth + correction)
    return found


class Texture(nn.Module):
    """Local statistics of a picture: mean strength, over 8 px, of what random filters answer at every second place.

    Two textures of one kind agree here, though not pixel by pixel. The filters have zero mean and are drawn once, so
    that no other network, and no licence, is needed.
    """

    def __init__(self, count: int = 24, size: int = 5, seed: int = 0) -> None:
        super().__init__()
        filters = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
        filters = filters * 0.3 + filters.mean(1, keepdim=True)  # brightness more than colour
        filters = filters - filters.mean((2, 3), keepdim=True)
        self.filters = nn.Buffer(filters / filters.flatten(1).norm(dim=1)[:, None, None, None])

    def forward(self, picture: Tensor) -> Tensor:
        answers = F.conv2d(picture, self.filters.to(picture.device), stride=2, padding=2)
        return F.avg_pool2d(torch.sqrt(answers**2 + 1e-4), 4, 2)


texture = Texture()


def distance(found: Tensor, truth: Tensor) -> Tensor:
    return torch.sqrt((found - truth) ** 2 + 1e-6)


def mean(values: Tensor, where: Tensor) -> Tensor:
    """(N,): of `values` (N, C, H, W) where `where` (N, 1, H, W) is 1; of few places less."""
    total = (values * where).sum((1, 2, 3)) / values.shape[1]
    return total / (where.sum((1, 2, 3)) + LEAST * where.shape[2] * where.shape[3])


def level_loss(found: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
    loss = mean(distance(found, truth), hidden)
    for axis in (2, 3):
        steps, true = found.diff(dim=axis), truth.diff(dim=axis)
        near = torch.maximum(hidden.narrow(axis, 0, steps.shape[axis]), hidden.narrow(axis, 1, steps.shape[axis]))
        loss = loss + STEPS / 2 * mean(distance(steps, true), near)
    if TEXTURE:
        share = F.avg_pool2d(hidden, 8, 4)
        loss = loss + TEXTURE * mean((texture(found) - texture(truth)).abs(), share)
    return loss.mean()


def loss(network: nn.Module, batch: loop.Batch) -> Tensor:
    levels = filled(network, batch)
    truth, mask = (pyramid(values, len(levels)) for values in batch[:2])
    losses = [level_loss(*level) for level in zip(levels, truth, mask, strict=True)]
    return torch.stack([COARSER**number * each for number, each in enumerate(losses)]).sum()


def hole_psnr(found: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """(N,) dB of the hidden pixels."""
    error = ((found.clamp(0, 1) - truth) ** 2 * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
    found_db: Tensor = -10 * torch.log10(error + 1e-8)
    return found_db


def texture_distance(found: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """(N,), times 1000: how far the texture's statistics in the hole are from the truth's; blur is far, too."""
    share = F.avg_pool2d(mask, 8, 4)
    miss = (texture(found) - texture(truth)).abs().mean(1, keepdim=True) * share
    return 1000 * miss.sum((1, 2, 3)) / share.sum((1, 2, 3))


def telea(truth: Any, mask: Any) -> Any:
    stored = np.round(truth * 255).astype(np.uint8)
    return cv2.inpaint(stored, mask.astype(np.uint8), TELEA_PX, cv2.INPAINT_TELEA).astype(np.float32) / 255


def validator(library: data.Library, folder: Path) -> Callable[[nn.Module], dict[str, Any]]:
    """PSNR in the hole and the texture's distance, for each band of hole shares, ours and Telea's."""
    sets = {}
    count, side = HELD_OUT
    levels = min(len(LEVELS), 1 + int(np.log2(side // MULTIPLE)))
    for band, share in BANDS.items():
        random = np.random.default_rng(1)
        truth = [crop(library.choose(random, held_out=True), side, random) for _ in range(count)]
        masks = [hole(side, share, random) for _ in range(count)]
        base = tensors(np.stack([telea(t, m) for t, m in zip(truth, masks, strict=True)]))[0]
        sets[band] = (samples(truth, masks, levels, random), base)

    @torch.no_grad()
    def validate(network: nn.Module) -> dict[str, Any]:
        result, sheet = {}, []
        for band, (drawn, base) in sets.items():
            found = []
            for first in range(0, count, 4):
                part = (*(tensor[first : first + 4].to(loop.device()) for tensor in drawn[:-1]), drawn[-1])
                found.append(filled(network, part)[0].clamp(0, 1).cpu())
            out, (truth, mask) = torch.cat(found), drawn[:2]
            ours, theirs = hole_psnr(out, truth, mask), hole_psnr(base, truth, mask)
            result[band] = round(float(ours.mean()), 2)
            result[band + "_gain"] = round(float((ours - theirs).mean()), 2)
            for name, picture in (("_texture", out), ("_texture_telea", base)):
                result[band + name] = round(float(texture_distance(picture, truth, mask).mean()), 1)
            sheet += [list(values[:6]) for values in (torch.lerp(truth, torch.ones(1), mask), base, out, truth)]
        save_sheet(folder / "held_out.png", sheet)
        return result

    return validate


def spec() -> export.Export:
    def inputs(height: int, width: int) -> dict[str, Tensor]:
        return {"picture": torch.rand(1, CHANNELS, height * MULTIPLE, width * MULTIPLE)}

    sizes = {0: "batch", 2: "height", 3: "width"}
    return export.Export(
        inputs(3, 4), "residual", {"picture": sizes, "residual": sizes}, others=(inputs(1, 1), inputs(4, 9))
    )


RECIPE = Recipe("fillnet", "inpaint", FillNet, SHARES, batch, loss, validator, spec, rate=1e-3)


def main() -> None:
    run(RECIPE)


if __name__ == "__main__":
    main()
