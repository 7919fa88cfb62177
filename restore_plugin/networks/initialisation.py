"""How the networks without normalisation begin: nothing later restores the size of their features."""

from __future__ import annotations

from typing import Literal

from torch import nn


def keep_variance(network: nn.Module, nonlinearity: Literal["linear", "relu"]) -> None:
    """Every convolution keeps its input's variance, with `nonlinearity` around it; no biases (He et al. 2015)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity=nonlinearity)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
