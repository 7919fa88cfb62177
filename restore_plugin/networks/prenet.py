"""PReNet: the progressive recurrent network that takes rain streaks away stage by stage (Ren et al., CVPR 2019).

One small network is run six times with the same weights. Every stage sees the rainy picture and the last stage's
answer, remembers features in a convolutional LSTM, and predicts what to add to the rainy picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STAGES = 6
BLOCKS = 5
WIDTH = 32


class ResBlock(nn.Module):
    """Two 3x3 convolutions, each with its ReLU, and a ReLU on the sum, as in the authors' published weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(features + torch.relu(self.second(torch.relu(self.first(features)))))


class ConvLSTM(nn.Module):
    """f_recurrent: the LSTM of Shi et al. (2015) without peepholes; its four 3x3 convolutions are one of four times the
    channels, in the order input gate, forget gate, candidate, output gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * width, 4 * width, 3, padding=1)

    def forward(self, features: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        take, keep, candidate, show = self.gates(torch.cat((features, hidden), 1)).chunk(4, 1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(take) * torch.tanh(candidate)
        return torch.sigmoid(show) * torch.tanh(cell), cell


class PReNet(nn.Module):
    """`picture` (N, 3, H, W), RGB in [0, 1], any size -> the picture without rain, same shape, not clamped.

    168,963 parameters with the defaults, the paper's number: f_in 1,760, LSTM 73,856, five ResBlocks 92,480, f_out 867.
    They do not depend on `stages`; the time does. Nothing is down-sampled: a picture may have any size.
    """

    def __init__(self, stages: int = STAGES, blocks: int = BLOCKS, width: int = WIDTH) -> None:
        super().__init__()
        self.stages = stages
        self.f_in = nn.Conv2d(6, width, 3, padding=1)
        self.f_recurrent = ConvLSTM(width)
        self.blocks = [ResBlock(width) for _ in range(blocks)]
        self.f_res = nn.Sequential(*self.blocks)
        self.f_out = nn.Conv2d(width, 3, 3, padding=1)
        self.reset_parameters(width)

    def reset_parameters(self, width: int) -> None:
        """Keep the features' size from layer to layer (He et al. 2015), and begin close to the identity."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.f_in.weight *= 3.0  # its input's variance is about a tenth
            self.f_recurrent.gates.weight *= 0.5**0.5  # no ReLU follows
            # the forget gate is open at first (Jozefowicz et al. 2015)
            self.f_recurrent.gates.bias[width : 2 * width] = 1.0  # type: ignore[index]
            for block in self.blocks:
                block.second.weight *= 0.1  # learns several times faster than with 1
            self.f_out.weight *= 0.01

    def every_stage(self, picture: Tensor) -> list[Tensor]:
        """The answers of all stages, the last one last: for the paper's recursive supervision."""
        derained, answers = picture, []
        hidden = cell = None
        for _ in range(self.stages):
            features = torch.relu(self.f_in(torch.cat((picture, derained), 1) - 0.5))
            if hidden is None or cell is None:
                hidden = cell = torch.zeros_like(features)
            hidden, cell = self.f_recurrent(features, hidden, cell)
            derained = picture + self.f_out(self.f_res(hidden))
            answers.append(derained)
        return answers

    def forward(self, picture: Tensor) -> Tensor:
        return self.every_stage(picture)[-1]
