"""Muon: momentum whose every step is made orthogonal, for the kernels of plain convolutions.

A step of gradient descent is made of few directions; with all singular values of a kernel's step set to about one
(Jordan et al. 2024), the rare directions are learned as fast as the common ones. Biases, heads and tails are stepped as
AdamW does (Loshchilov & Hutter 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
SIZE = 0.4  # root mean square of a kernel's step, in learning rates; AdamW's is about 0.2 to 0.4 (Liu et al. 2025)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd polynomial whose iterates take all singular values to about one
ITERATIONS = 5
ENDS = {"head", "tail"}  # names of layers that speak of pixels


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices (..., M, N) whose singular values are all one, roughly: they end between 0.7 and 1.2.

    Every iterate is a polynomial of X Xt times X, so all but the last product is of the smaller side's square alone: a
    third of the time that kernels of nine times as many columns as rows take otherwise.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonal(matrices.mT).mT
    sizes = matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7
    square = matrices @ matrices.mT / sizes**2
    whole = torch.eye(square.shape[-1], dtype=square.dtype, device=square.device)
    a, b, c = COEFFICIENTS
    found = whole
    for _ in range(ITERATIONS):
        factor = a * whole + b * square + c * (square @ square)
        found = factor @ found
        square = factor @ square @ factor
    return found / sizes @ matrices


class Muon(torch.optim.AdamW):
    """Kernels between a network's ends are stepped along `orthogonal` momentum, everything else as AdamW does."""

    def __init__(self, network: nn.Module, rate: float) -> None:
        kernels: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            inner = parameter.ndim == 4 and not any(part in ENDS for part in name.split("."))
            (kernels if inner else others).append(parameter)
        super().__init__(others, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
        self.add_param_group({"params": kernels})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, from the gradients that are there; `closure` is not called."""
        kernels = self.param_groups.pop()
        super().step()
        self.param_groups.append(kernels)
        alike: dict[torch.Size, list[Tensor]] = {}  # by shape: their steps are computed together
        for kernel in kernels["params"]:
            if kernel.grad is not None:
                alike.setdefault(kernel.shape, []).append(kernel)
        for group in alike.values():
            ahead = torch.stack([self._ahead(kernel).flatten(1) for kernel in group])
            for kernel, move in zip(group, orthogonal(ahead), strict=True):
                kernel.add_(move.view_as(kernel), alpha=-kernels["lr"] * SIZE * math.sqrt(max(move.shape)))
        return None

    def _ahead(self, kernel: Tensor) -> Tensor:
        """The gradient with its momentum, Nesterov's."""
        state, gradient = self.state[kernel], kernel.grad
        assert gradient is not None
        if not state:  # AdamW, when it loads a state, looks for a step in each
            state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(kernel))
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(state["momentum"], MOMENTUM)
