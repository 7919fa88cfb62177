"""DID-MDN: density-aware removal of rain streaks with a multi-stream dense network (Zhang and Patel, CVPR 2018).

Two networks. The *residual-aware classifier* estimates the rain streaks (the residual: rainy minus clean) and from them
how dense the rain is: light, medium or heavy. The *multi-stream dense network* takes the streaks away; it is told the
density as a map of one value. Both estimate streaks with three streams of six dense blocks, with kernels of 7, 5 and 3
pixels at decreasing depth, so that streaks of several sizes are seen.

Sizes: sides must be multiples of 32 (three halvings in Dense1; means over squares of up to 32 px near the end).

Where this follows what, at width 1.0:

- Streams, kernels, transitions, label map, subtraction, refinement by two convolutions: the paper, section 3.2. Channel
  numbers, BatchNorm, the pyramid of means: the authors' published code, as the paper does not give them.
- The paper states no parameter count. Comparisons by others quote 372,839. That is the published de-raining network
  (without the classifier), of which 5,647 parameters lie in layers that never run; here they are left out: 367,192.
- The published code joins the first block's features five times where the paper joins each block's (s = cat[DB1, ...,
  DB6]); its layers for doing so are there. Here the paper is followed: the count is the same.
- Classifier: Conv(3, 24), Conv(24, 64), Conv(64, 24), average pooling, FC(512), FC(3) after a multi-stream network
  without label. The paper's pooling leaves 24 x 73 x 73 = 127,896 values, which ties it to pictures of 512 px (and is
  65 million parameters); here each channel's mean over the picture is taken, so that FC(24, 512) serves every size.
- The label map holds the *expected* label, sum of p * (-1, 0, 1), not the most likely one: the same where the
  classifier is certain, but it does not jump between frames or tiles. The paper's 1, 2, 3 differ from it by a shift,
  which the next layer's bias takes. No gradient passes through the map; the authors train with the true label, see
  `DIDMDN`.
- The refinement adds its two convolutions' answer to the coarse picture instead of replacing it, so that training
  starts at the identity.

BatchNorm (BN) uses a batch's own statistics in training; in eval() it is a fixed scale and shift. Whoever averages
weights must take its buffers (running_mean, running_var) along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLE = 32  # sides of the input must be multiples of this
DENSITIES = ("light", "medium", "heavy")
BOTTLENECK = 4  # channels between a dense block's convolutions, in units of what it adds
LABEL_CHANNELS = 8  # of the label map; all alike
SCALE_CHANNELS = 2  # of each mean in the pyramid
POOLS = (4, 8, 16, 32)  # px
SLOPE = 0.2  # of LeakyReLU


@dataclass(frozen=True)
class Layout:
    """One stream: a kernel; for each of six dense blocks what it adds, its transition's outputs and change of scale."""

    kernel: int
    growth: tuple[int, ...]
    outputs: tuple[int, ...]
    scale: tuple[int, ...]  # -1 transition down (half), 0 no sampling, 1 transition up (double)


STREAMS = {
    "Dense1": Layout(7, (13, 16, 16, 16, 8, 8), (8, 16, 16, 16, 8, 4), (-1, -1, -1, 1, 1, 1)),
    "Dense2": Layout(5, (13, 16, 16, 16, 8, 8), (8, 16, 16, 16, 8, 4), (-1, -1, 0, 0, 1, 1)),
    "Dense3": Layout(3, (5, 8, 4, 4, 8, 8), (4, 12, 12, 12, 4, 4), (-1, 0, 0, 0, 0, 1)),
}


def scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def enlarge(features: Tensor, factor: int) -> Tensor:
    return F.interpolate(features, scale_factor=float(factor), mode="nearest") if factor > 1 else features


def initialise(network: nn.Module) -> None:
    """He et al. (2015) for convolutions and full connections; BN starts as unit scale without shift by itself."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class DenseBlock(nn.Module):
    """BN, ReLU, 1x1 convolution, BN, ReLU, convolution with the stream's kernel; joined to what came in."""

    def __init__(self, inputs: int, growth: int, kernel: int) -> None:
        super().__init__()
        between = BOTTLENECK * growth
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, between, 1, bias=False),
            nn.BatchNorm2d(between),
            nn.ReLU(),
            nn.Conv2d(between, growth, kernel, padding=kernel // 2, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat((features, self.layers(features)), 1)


class Transition(nn.Module):
    """BN, ReLU, 1x1 convolution; then half the size (mean of 2x2), the same, or double (nearest)."""

    def __init__(self, inputs: int, outputs: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.normalise = nn.BatchNorm2d(inputs)
        self.convolution = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        features = torch.relu(self.normalise(features))
        if self.scale < 0:  # before the convolution: the order does not matter to the result, only to the time
            features = F.avg_pool2d(features, 2)
        return enlarge(self.convolution(features), 2 if self.scale > 0 else 1)


class Stream(nn.Module):
    """Dense1, Dense2 or Dense3: `picture` (N, 3, H, W) -> its rain features (N, `self.outputs`, H, W).

    The fifth block gets the second's output beside the fourth's, the sixth the first's beside the fifth's. All six
    blocks' features are joined: the last in full, the others as one channel each, with the picture itself.
    """

    def __init__(self, layout: Layout, width: float) -> None:
        super().__init__()
        growth = [scaled(channels, width) for channels in layout.growth]
        outputs = [scaled(channels, width) for channels in layout.outputs]
        joined = [*outputs[:3], outputs[3] + outputs[1], outputs[4] + outputs[0]]  # what the next block gets
        inputs = [3, *joined]
        self.blocks = nn.ModuleList(
            DenseBlock(start, add, layout.kernel) for start, add in zip(inputs, growth, strict=True)
        )
        self.transitions = nn.ModuleList(
            Transition(start + add, end, scale)
            for start, add, end, scale in zip(inputs, growth, outputs, layout.scale, strict=True)
        )
        self.summaries = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=1) for channels in joined)
        self.reductions = [
            2 ** -sum(layout.scale[: end + 1]) for end in range(5)
        ]  # of the five outputs before the last
        self.outputs = outputs[5] + 5 + 3

    def forward(self, picture: Tensor) -> Tensor:
        outputs = [picture]
        for index, (block, transition) in enumerate(zip(self.blocks, self.transitions, strict=True)):
            features = transition(block(outputs[-1]))
            if index in (3, 4):
                features = torch.cat((features, outputs[5 - index]), 1)
            outputs.append(features)
        summaries = [
            enlarge(F.leaky_relu(summary(features), SLOPE), int(factor))
            for features, summary, factor in zip(outputs[1:6], self.summaries, self.reductions, strict=True)
        ]
        return torch.cat((outputs[6], *summaries, picture), 1)


class MultiStreamDenseNetwork(nn.Module):
    """Rain streaks of a picture: three streams, joined with the picture and, with `guided`, with the label map.

    `picture` (N, 3, H, W) in [-1, 1]; `label` (N,) in [-1, 1] from light to heavy, needed where `guided`.
    Returns the residual (N, 3, H, W) in (-1, 1), in units of a picture in [0, 1]: rainy minus clean.
    """

    def __init__(self, width: float = 1.0, guided: bool = True) -> None:
        super().__init__()
        self.label_channels = scaled(LABEL_CHANNELS, width) if guided else 0
        streams = [Stream(layout, width) for layout in STREAMS.values()]
        joined = sum(stream.outputs for stream in streams) + 3 + self.label_channels
        fused = scaled(47 if guided else 39, width)  # at width 1.0 as many as it joins
        self.streams = nn.ModuleDict(dict(zip(STREAMS, streams, strict=True)))
        self.fuse = nn.Conv2d(joined, fused, 3, padding=1)
        self.pyramid = nn.ModuleList(nn.Conv2d(fused, SCALE_CHANNELS, 1) for _ in POOLS)
        self.residual = nn.Conv2d(fused + SCALE_CHANNELS * len(POOLS), 3, 3, padding=1)
        initialise(self)
        with torch.no_grad():
            self.residual.weight *= 0.01

    def forward(self, picture: Tensor, label: Tensor | None = None) -> Tensor:
        parts = [stream(picture) for stream in self.streams.values()] + [picture]
        if label is not None:
            level = label.to(picture.dtype)[:, None, None, None]
            parts.append(level.expand(-1, self.label_channels, picture.shape[2], picture.shape[3]))
        features = F.leaky_relu(self.fuse(torch.cat(parts, 1)), SLOPE)
        means, side, levels = features, 1, []
        for pool, layer in zip(POOLS, self.pyramid, strict=True):
            means, side = F.avg_pool2d(means, pool // side), pool
            levels.append(enlarge(F.leaky_relu(layer(means), SLOPE), pool))
        return torch.tanh(self.residual(torch.cat((features, *levels), 1)))


class ResidualAwareRainDensityClassifier(nn.Module):
    """`picture` (N, 3, H, W) in [-1, 1] -> logits of light, medium, heavy (N, 3), and the residual that they are of."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        first, second, hidden = scaled(24, width), scaled(64, width), scaled(512, width)
        start, end = nn.Conv2d(3, first, 3, padding=1), nn.Linear(hidden, len(DENSITIES))
        self.feature_extraction = MultiStreamDenseNetwork(width, guided=False)
        self.convolutions = nn.Sequential(
            start,
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, first, 3, padding=1),
            nn.ReLU(),
        )
        self.connected = nn.Sequential(nn.Linear(first, hidden), nn.ReLU(), end)
        initialise(self.convolutions)
        initialise(self.connected)
        with torch.no_grad():
            start.weight *= 8.0  # a residual is about an eighth of unit size
            end.weight *= 0.1  # no opinion at first

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        residual = self.feature_extraction(picture)
        return self.connected(self.convolutions(residual).mean((2, 3))), residual


class Estimate(NamedTuple):
    """Everything that a loss may want."""

    derained: Tensor  # (N, 3, H, W), about [0, 1]
    density: Tensor  # (N, 3): logits of DENSITIES
    residual: Tensor  # (N, 3, H, W): the de-raining network's rain streaks, rainy minus clean
    classified: Tensor  # (N, 3, H, W): the classifier's own estimate of the same


class DIDMDN(nn.Module):
    """`picture` (N, 3, H, W), RGB in [0, 1], sides multiples of 32 -> (derained, density).

    `derained` has the picture's shape and is not clamped; `density` (N, 3) are logits of light, medium, heavy.
    `label` (N,): how dense the rain is, 0 light, 1 medium, 2 heavy, whole or between; without it the classifier's
    expected label is used. The authors train the de-raining network with the true label: pass it in training.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.classifier = ResidualAwareRainDensityClassifier(width)
        self.deraining = MultiStreamDenseNetwork(width)
        end = nn.Conv2d(scaled(8, width), 3, 3, padding=1)
        self.refinement = nn.Sequential(nn.Conv2d(3, scaled(8, width), 7, padding=3), nn.LeakyReLU(SLOPE), end)
        initialise(self.refinement)
        with torch.no_grad():
            end.weight *= 0.01

    def estimate(self, picture: Tensor, label: Tensor | None = None) -> Estimate:
        """`forward` with the rain streaks that it found on the way."""
        centred = 2 * picture - 1
        density, classified = self.classifier(centred)
        if label is None:
            light, _, heavy = density.detach().float().softmax(1).unbind(1)
            label = heavy - light + 1
        residual = self.deraining(centred, label - 1)
        coarse = picture - residual
        derained = coarse + self.refinement(2 * coarse - 1)
        return Estimate(derained, density, residual, classified)

    def forward(self, picture: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found = self.estimate(picture, label)
        return found.derained, found.density


class Residual(nn.Module):
    """What a DIDMDN adds to the picture, as all our de-raining networks are exported."""

    def __init__(self, network: DIDMDN) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> Tensor:
        return self.network.estimate(picture).derained - picture
