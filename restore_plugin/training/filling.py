"""What the recipes of inpainting networks share: crops, their input, texture, and how a fill is judged.

Masks are (N, 1, H, W), 1 where hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.training import data, export, holes, loop
from restore_plugin.training.recipe import AT_ONCE, save_sheet, tensors
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
KINDS = {"strokes": 0.3, "boxes": 0.14, "outlines": 0.2, "writing": 0.08, "scratches": 0.06, "mixed": 0.22}  # shares
BANDS = {"small": (0.03, 0.1), "10-20": (0.1, 0.2), "20-40": (0.2, 0.4), "40-60": (0.4, 0.6)}  # of hole shares
TELEA_PX = 3  # radius


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
    """(side, side) bool: of any kind, hiding a share from the first to the second."""
    kind = str(random.choice(list(KINDS), p=list(KINDS.values())))
    return holes.hidden(side, side, kind, float(random.uniform(*share)), random)


def masked(truth: Tensor, mask: Tensor) -> Tensor:
    """The input of the papers' networks, (N, 4, H, W): grey where hidden, and the mask."""
    return torch.cat((torch.lerp(truth, torch.full_like(truth, 0.5), mask), mask), 1)


def masked_export(multiple: int) -> export.Export:
    """For networks from that input to RGB, whose sides are multiples of `multiple` px."""

    def inputs(height: int, width: int) -> dict[str, Tensor]:
        mask = torch.zeros(1, 1, height * multiple, width * multiple)
        mask[..., multiple // 2 : -(multiple // 4), : multiple // 2] = 1
        return {"picture": masked(torch.rand(1, 3, *mask.shape[2:]), mask)}

    sizes = {0: "batch", 2: "height", 3: "width"}
    return export.Export(inputs(1, 2), "rgb", {"picture": sizes, "rgb": sizes}, others=(inputs(1, 1), inputs(4, 9)))


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
    """The picture (H, W, 3) as OpenCV's fast marching (Telea 2004) fills it."""
    stored = np.round(truth * 255).astype(np.uint8)
    return cv2.inpaint(stored, mask.astype(np.uint8), TELEA_PX, cv2.INPAINT_TELEA).astype(np.float32) / 255


class Held(NamedTuple):
    """Pictures to judge with: true, hidden, and as Telea fills them."""

    truth: Tensor
    mask: Tensor
    telea: Tensor


def held(truth: list[Any], masks: list[Any]) -> Held:
    base = [telea(t, m) for t, m in zip(truth, masks, strict=True)]
    return Held(*tensors(np.stack(truth), np.stack(masks)[..., None].astype(np.float32), np.stack(base)))


def held_out(
    library: data.Library, kinds: Mapping[str, Callable[[np.random.Generator], Any]], count: int, side: int
) -> dict[str, Held]:
    """`count` held-out crops of each kind; `kinds` draw a mask (side, side). Always the same."""
    found = {}
    for name, draw in kinds.items():
        random = np.random.default_rng(1)
        truth = [crop(library.choose(random, held_out=True), side, random) for _ in range(count)]
        found[name] = held(truth, [draw(random) for _ in range(count)])
    return found


@torch.no_grad()
def answered(network: nn.Module, sets: Mapping[str, Held]) -> dict[str, Tensor]:
    """What a network of the papers' input answers, on the CPU, for the whole pictures."""
    found = {}
    for name, each in sets.items():
        parts = torch.split(masked(each.truth, each.mask), AT_ONCE)
        found[name] = torch.cat([network(part.to(loop.device())).float().cpu() for part in parts])
    return found


def judge(found: Mapping[str, Tensor], sets: Mapping[str, Held], folder: Path) -> dict[str, Any]:
    """PSNR in the hole, what that gains over Telea, and the texture's distance, ours and Telea's, for each kind.

    `found`: pictures of which the hole is used. Some are shown in `held_out.png`: hidden, Telea, ours, true.
    """
    result: dict[str, Any] = {}
    sheet = []
    for name, (truth, mask, base) in sets.items():
        out = torch.lerp(truth, found[name].clamp(0, 1), mask)
        ours, theirs = hole_psnr(out, truth, mask), hole_psnr(base, truth, mask)
        result[name] = round(float(ours.mean()), 2)
        result[name + "_gain"] = round(float((ours - theirs).mean()), 2)
        for end, picture in (("_texture", out), ("_texture_telea", base)):
            result[name + end] = round(float(texture_distance(picture, truth, mask).mean()), 1)
        sheet += [list(values[:6]) for values in (torch.lerp(truth, torch.ones(1), mask), base, out, truth)]
    save_sheet(folder / "held_out.png", sheet)
    return result
