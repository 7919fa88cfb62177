"""Partial convolutions: inpainting of irregular holes (Liu et al., ECCV 2018).

A convolution that sees known values alone, weighs its answer by how few they were, and knows afterwards where it had
any (eq. 1 and 2). The network is the paper's U-Net of 16 layers: eight of stride 2 down, and eight up, each on what the
nearest-neighbour upsampling gives together with what the way down had there, both with their own masks. The last layer
is given the picture with its hole itself. What lies outside of the picture is a hole, too.

Masks in this file are the paper's: 1 where known. `PartialConvUNet` takes ours, 1 where hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 512, 512, 512, 512)  # after each layer down
KERNELS = (7, 5, 5, 3, 3, 3, 3, 3)
SLOPE = 0.2  # of the LeakyReLU on the way up
BEGIN = 0.1  # of the last layer's usual weights: short trainings should not spend their time on undoing noise


class PartialConv2d(nn.Module):
    """Features (N, C, H, W) and what is known of them (N, G, H, W), 1 or 0 -> the same of the answer, with one mask.

    `groups`: how many features share each of the G masks; they sum to C. Features where nothing is known have no
    influence, whatever they hold.
    """

    area: Tensor

    def __init__(self, groups: Sequence[int], outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.groups = tuple(groups)
        self.stride, self.padding = stride, kernel // 2
        self.weight = nn.Parameter(torch.empty(outputs, sum(groups), kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.weight)
        counts = torch.tensor(self.groups, dtype=torch.float32)
        self.register_buffer("area", counts[None, :, None, None].repeat(1, 1, kernel, kernel), persistent=False)

    def forward(self, features: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        every = torch.cat([known[:, i : i + 1].expand(-1, count, -1, -1) for i, count in enumerate(self.groups)], 1)
        there = F.conv2d(known, self.area, stride=self.stride, padding=self.padding)  # sum(M)
        answer = F.conv2d(features * every, self.weight, stride=self.stride, padding=self.padding)
        valid = (there > 0).to(answer.dtype)
        # eq. 1: W^T (X * M) sum(1) / sum(M) + b where anything is known, else 0; eq. 2: the new mask
        scale = self.area.sum() / there.clamp_min(1)
        return (answer * scale + self.bias[None, :, None, None]) * valid, valid


class Down(nn.Module):
    """Partial convolution of stride 2, batch normalisation (not in the first), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, normalise: bool) -> None:
        super().__init__()
        self.convolution = PartialConv2d((inputs,), outputs, kernel, stride=2)
        self.normalise = nn.BatchNorm2d(outputs) if normalise else nn.Identity()

    def forward(self, features: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        answer, known = self.convolution(features, known)
        return torch.relu(self.normalise(answer)), known


class Up(nn.Module):
    """Nearest upsampling, joined with the skip; partial convolution; normalisation and LeakyReLU but for the last."""

    def __init__(self, inputs: int, skip: int, outputs: int, last: bool) -> None:
        super().__init__()
        self.convolution = PartialConv2d((inputs, skip), outputs, 3)
        self.finish = nn.Identity() if last else nn.Sequential(nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE))

    def forward(self, below: tuple[Tensor, Tensor], skip: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        joined = (
            torch.cat((F.interpolate(one, scale_factor=2), other), 1) for one, other in zip(below, skip, strict=True)
        )
        answer, known = self.convolution(*joined)
        return self.finish(answer), known


class PartialConvUNet(nn.Module):
    """`picture` (N, 4, H, W) -> (N, 3, H, W) RGB, of which only the hole is used; H, W multiples of 2 ** layers down.

    The channels: RGB in [0, 1], anything in the hole; the mask, 1 where hidden. The paper's network has eight layers
    down, for 512 px; fewer `widths` (with their `kernels`) serve smaller pictures.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, kernels: Sequence[int] = KERNELS) -> None:
        super().__init__()
        counts = (3, *widths)
        self.downs = nn.ModuleList(
            Down(counts[i], counts[i + 1], kernel, normalise=i > 0) for i, kernel in enumerate(kernels[: len(widths)])
        )
        self.ups = nn.ModuleList(
            Up(counts[i + 1], counts[i], counts[i], last=i == 0) for i in reversed(range(len(widths)))
        )
        with torch.no_grad():
            for parameter in self.ups[-1].parameters():
                parameter.mul_(BEGIN)

    @property
    def multiple(self) -> int:
        return 2 ** len(self.downs)

    def forward(self, picture: Tensor) -> Tensor:
        found: Tensor = self.steps(picture)[-1][0]
        return found

    def steps(self, picture: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features and mask after every layer, in order."""
        skips = [(picture[:, :3], 1 - picture[:, 3:])]
        for down in self.downs:
            skips.append(down(*skips[-1]))
        steps = [*skips[1:]]
        for up, skip in zip(self.ups, reversed(skips[:-1]), strict=True):
            steps.append(up(steps[-1], skip))
        return steps
