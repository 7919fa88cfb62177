"""Muon: kernels move along orthogonal steps, all else as torch's AdamW moves it."""

import copy

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from restore_plugin.networks.plain_unet import PlainUNet
from restore_plugin.training.loop import adamw
from restore_plugin.training.muon import SIZE, Muon, orthogonal

RATE = 0.01


def network() -> PlainUNet:
    torch.manual_seed(0)
    return PlainUNet((4, 8), (1, 1))


def stepped(made: nn.Module, optimiser: torch.optim.Optimizer, steps: range = range(1)) -> dict[str, np.ndarray]:
    for step in steps:
        torch.manual_seed(100 + step)
        optimiser.zero_grad()
        (made(torch.rand(2, 3, 16, 16)) - torch.rand(2, 3, 16, 16)).square().mean().backward()
        optimiser.step()
    return {name: parameter.detach().numpy().copy() for name, parameter in made.named_parameters()}


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (32, 32)])
def test_orthogonal_keeps_the_directions(shape: tuple[int, int]) -> None:
    """Against numpy's singular value decomposition."""
    matrix = np.random.default_rng(0).normal(size=shape) * 1e-3
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(torch.from_numpy(matrix)).numpy()
    parts = left.T @ found @ right.T
    assert np.abs(parts - np.diag(np.diag(parts))).max() < 1e-6
    assert 0.6 < np.diag(parts).min() <= np.diag(parts).max() < 1.3


def test_what_is_no_inner_kernel_moves_as_with_adamw() -> None:
    """In the first step; from the second on gradients differ, since the inner kernels do."""
    ours, theirs = network(), network()
    mine, other = stepped(ours, Muon(ours, RATE)), stepped(theirs, adamw(theirs, RATE))
    same = {name for name in mine if np.array_equal(mine[name], other[name])}
    assert same == {name for name, value in mine.items() if value.ndim == 1 or name.startswith(("head", "tail"))}
    assert len(same) < len(mine)


def test_inner_kernels_move_by_the_rate() -> None:
    made = network()
    before = {name: parameter.detach().numpy().copy() for name, parameter in made.named_parameters()}
    after = stepped(made, Muon(made, RATE))
    for name in ("down_blocks.0.0.first.weight", "middle.0.second.weight", "ups.0.0.weight"):
        moved = after[name] - before[name]
        assert np.sqrt((moved**2).mean()) == pytest.approx(SIZE * RATE, rel=0.3)


def test_goes_on_from_its_state() -> None:
    whole, first, second = network(), network(), network()
    expected = stepped(whole, Muon(whole, RATE), range(4))
    optimiser, again = Muon(first, RATE), Muon(second, RATE)
    stepped(first, optimiser, range(2))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    again.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    found = stepped(second, again, range(2, 4))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
