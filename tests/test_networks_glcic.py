"""GLCIC: built as in its paper, trained in its phases, exported faithfully."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None and os.environ.get("REQUIRE_TORCH") != "1":
    pytest.skip("needs the extra `train`", allow_module_level=True)

import torch
import torch.nn.functional as F
import torch_tests
from fill_tests import damaged, drawn, hidden_input, left, lively
from torch import Tensor, nn
from torch_tests import convolution, count, field_of_view, learn

from restore_plugin import inpaint
from restore_plugin.networks.glcic import (
    ALPHA,
    MEAN_COLOUR,
    MULTIPLE,
    PHASES,
    CompletionNetwork,
    Discriminator,
    Discriminators,
    completion_loss,
    real_or_not,
    taken_for_real,
)
from restore_plugin.training import export, filling, loop
from restore_plugin.training.recipes import glcic

calm = pytest.fixture(autouse=True)(torch_tests.calm)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glcic, "WIDTH", 8)
    monkeypatch.setattr(glcic, "SIDE", 32)


def test_completion_network_is_table_1() -> None:
    table = [  # kernel, dilation, stride, outputs
        (5, 1, 1, 64),
        (3, 1, 2, 128),
        (3, 1, 1, 128),
        (3, 1, 2, 256),
        (3, 1, 1, 256),
        (3, 1, 1, 256),
        (3, 2, 1, 256),
        (3, 4, 1, 256),
        (3, 8, 1, 256),
        (3, 16, 1, 256),
        (3, 1, 1, 256),
        (3, 1, 1, 256),
        (4, 1, 0.5, 128),
        (3, 1, 1, 128),
        (4, 1, 0.5, 64),
        (3, 1, 1, 32),
        (3, 1, 1, 3),
    ]
    network = CompletionNetwork()
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    found = [
        (
            layer.kernel_size[0],
            layer.dilation[0],
            1 / layer.stride[0] if isinstance(layer, nn.ConvTranspose2d) else layer.stride[0],
            layer.out_channels,
        )
        for layer in layers
    ]
    assert found == table
    inputs = [4, *(row[3] for row in table[:-1])]
    convolutions = sum(convolution(one, row[3], row[0]) for one, row in zip(inputs, table, strict=True))
    normalisations = 2 * sum(row[3] for row in table[:-1])
    assert count(network) == convolutions + normalisations == 6_072_131
    with torch.no_grad():
        assert CompletionNetwork(8)(torch.rand(1, 4, 36, 52)).shape == (1, 3, 36, 52)


def test_completion_network_sees_300_px() -> None:
    """Counted over the layers: 5 px, then 2 for each 3x3 at its step, times the dilation; deconvolutions join two."""
    network = CompletionNetwork(4).eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.abs_()  # nothing cancels, no ReLU is off
    picture = torch.rand(1, 4, 340, 340, requires_grad=True)
    network.layers[:-1](picture)[0, :, 170, 170].sum().backward()
    assert picture.grad is not None
    rows = torch.nonzero(picture.grad[0].abs().sum((0, 2))).flatten()
    assert 297 <= int(rows[-1] - rows[0]) + 1 <= 307


def test_discriminators_are_tables_2_and_3() -> None:
    whole, part = Discriminator(256), Discriminator(128)

    def outputs(network: Discriminator) -> list[int]:
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        assert {(layer.kernel_size, layer.stride) for layer in layers} == {((5, 5), (2, 2))}
        return [layer.out_channels for layer in layers]

    assert outputs(whole) == [64, 128, 256, 512, 512, 512]
    assert outputs(part) == [64, 128, 256, 512, 512]
    for network in (whole, part):
        assert (network.connected.in_features, network.connected.out_features) == (4 * 4 * 512, 1024)
    both = Discriminators()
    assert count(both) == count(whole) + count(part) + 2 * 1024 + 1
    small = Discriminators(width=4, whole_px=32, part_px=16)
    assert small(torch.rand(3, 3, 32, 32), torch.rand(3, 3, 16, 16)).shape == (3,)
    with pytest.raises(ValueError, match="expected a side of 8, 16, 32"):
        Discriminator(100)


def test_completion_network_overfits_one_batch() -> None:
    truth, mask = damaged(32, 0.2, np.random.default_rng(8))
    network, picture = CompletionNetwork(8), filling.masked(truth, mask)
    assert left(learn(network, lambda: completion_loss(network(picture), truth, mask), 60, 1e-2)) < 0.3


def test_the_completion_network_sees_as_far_as_tiles_rely_on() -> None:
    network = CompletionNetwork(2).eval()
    network.layers[-1] = nn.Identity()  # the sigmoid is flat far out
    seen = field_of_view(network, MULTIPLE, 400, channels=4)
    assert 307 // 2 - 3 <= seen <= inpaint.GLCIC.reach  # 307 px in all, as the paper says


def test_discriminators_learn_what_was_completed() -> None:
    truth, mask = damaged(32, 0.4, np.random.default_rng(9), pictures=4)
    network = Discriminators(width=8, whole_px=32, part_px=16)

    def loss() -> Tensor:
        completed = torch.lerp(truth, torch.full_like(truth, 0.4), mask)
        answers = [network(each, F.interpolate(each, size=16)) for each in (truth, completed)]
        return real_or_not(*answers)

    assert left(learn(network, loss, 60, 2e-3)) < 0.3


def test_losses_of_glcic_by_hand() -> None:
    truth, mask = torch.zeros(1, 3, 2, 2), torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    found = torch.full((1, 3, 2, 2), 0.5)
    found[..., 1] = 9.0  # known: not asked
    assert completion_loss(found, truth, mask).item() == pytest.approx(0.25)
    undecided = torch.zeros(5)
    assert real_or_not(undecided, undecided).item() == pytest.approx(2 * np.log(2))
    assert taken_for_real(undecided).item() == pytest.approx(np.log(2))
    probability = 0.8
    answer = torch.tensor([np.log(probability / (1 - probability))], dtype=torch.float32)
    assert taken_for_real(answer).item() == pytest.approx(-np.log(probability), rel=1e-5)
    assert real_or_not(answer, answer).item() == pytest.approx(-np.log(0.8) - np.log(0.2), rel=1e-5)


def test_the_mean_colour_fills_the_hole() -> None:
    """What is hidden has no influence; what is given there instead is the paper's one colour."""
    network, (truth, mask) = CompletionNetwork(8).eval(), damaged(32, 0.3, np.random.default_rng(10))
    seen: list[Tensor] = []
    network.layers[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        answers = [network(torch.cat((torch.lerp(truth, torch.tensor(each), mask), mask), 1)) for each in (0.0, 7.0)]
    torch.testing.assert_close(*answers, atol=1e-5, rtol=0)
    hidden = (mask[0, 0] > 0).nonzero()[0].tolist()
    assert seen[0][0, :3, hidden[0], hidden[1]].tolist() == pytest.approx(MEAN_COLOUR)
    assert torch.equal(seen[0] * (1 - mask), torch.cat((truth, mask), 1) * (1 - mask))


# --- training


def test_phases_share_the_time_as_the_papers_steps() -> None:
    assert PHASES == (90_000, 10_000, 400_000)
    network, begin = glcic.network(), glcic.RECIPE.begin
    found = []
    for progress in (0.0, 0.179, 0.181, 0.199, 0.201, 0.999):
        begin(network, progress)
        found.append(network.phase)
    assert found == [glcic.COMPLETION] * 2 + [glcic.DISCRIMINATORS] * 2 + [glcic.JOINT] * 2


def batch(side: int = 32, pictures: int = 3) -> loop.Batch:
    random = np.random.default_rng(12)
    return glcic.samples([drawn(side, random) for _ in range(pictures)], random)


def test_one_box_is_hidden_and_its_part_lies_around_it() -> None:
    for seed in range(40):
        mask, (y, x) = glcic.box(64, np.random.default_rng(seed))
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        assert mask.sum() == len(rows) * len(columns)
        assert 24 <= len(rows) <= 32  # the paper's 96 to 128 px of 256
        assert 24 <= len(columns) <= 32
        assert mask[y : y + 32, x : x + 32].sum() == mask.sum()  # all of it is in the part
        assert 0 <= min(y, x) <= max(y, x) <= 32
        if 0 < y < 32:
            assert abs(rows.mean() - (y + 15.5)) <= 1


def test_parts_by_hand() -> None:
    pictures = torch.arange(2 * 16, dtype=torch.float32).reshape(2, 1, 4, 4)
    found = glcic.parts(pictures, torch.tensor([[0, 2], [1, 1]]))
    assert found.flatten().tolist() == [2, 3, 6, 7, 21, 22, 25, 26]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("phase", "learns"),
    [
        (glcic.COMPLETION, {"generator"}),
        (glcic.DISCRIMINATORS, {"critic"}),
        (glcic.JOINT, {"generator", "critic"}),
    ],
)
def test_each_phase_trains_what_algorithm_1_says(phase: int, learns: set[str]) -> None:
    network = glcic.network()
    network.phase = phase
    before = {name: value.clone() for name, value in network.named_parameters()}
    glcic.loss(network, batch()).backward()
    assert {name.split(".")[0] for name, value in network.named_parameters() if value.grad is not None} == learns
    torch.optim.AdamW(network.parameters(), lr=1e-3).step()
    moved = {name.split(".")[0] for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert moved == learns


@pytest.mark.usefixtures("small")
def test_losses_of_the_phases_by_hand() -> None:
    """Content, ALPHA times the discriminators' opinion, for the completion network; their own loss for them."""
    network = glcic.network()
    truth, mask, around, elsewhere = batch()
    with torch.no_grad():
        found = network(filling.masked(truth, mask))
        completed = mask * found + (1 - mask) * truth
        whole = network.critic(truth, glcic.parts(truth, elsewhere))
        fake = network.critic(completed, glcic.parts(completed, around))
        content = ((found - truth) ** 2 * mask).sum() / (3 * mask.sum())
        fooled = -torch.log(torch.sigmoid(fake)).mean()
        told = -torch.log(torch.sigmoid(whole)).mean() - torch.log(1 - torch.sigmoid(fake)).mean()
        values = []
        for network.phase in range(3):
            values.append(float(glcic.loss(network, (truth, mask, around, elsewhere))))
    expected = [float(each) for each in (content, told, content + ALPHA * fooled + told)]
    assert values == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("small")
def test_all_phases_learn_one_batch() -> None:
    network, drawn_batch = glcic.network(), batch()
    content = learn(network, lambda: glcic.loss(network, drawn_batch), 30, 3e-3)
    assert left(content) < 0.7
    network.phase = glcic.DISCRIMINATORS
    told = learn(network, lambda: glcic.loss(network, drawn_batch), 30, 1e-3)
    assert left(told) < 0.3
    network.phase = glcic.JOINT
    learn(network, lambda: glcic.loss(network, drawn_batch), 30, 1e-3)
    network.phase = glcic.COMPLETION
    with torch.no_grad():
        assert float(glcic.loss(network, drawn_batch)) < 1.1 * content[-1]  # not given up for the discriminators


def test_export_as_after_a_long_training(tmp_path: Path) -> None:
    network, spec = lively(CompletionNetwork(8)), glcic.spec()
    with torch.no_grad():
        assert float(network(hidden_input(32, 48)).std()) > 0.02
    export.write_onnx(network, spec, tmp_path / "glcic.onnx")  # raises where OpenVINO differs from torch
