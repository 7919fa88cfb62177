"""The networks against rain: built as in their papers, able to learn, guided by the density, the same once exported."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

if importlib.util.find_spec("torch") is None and os.environ.get("REQUIRE_TORCH") != "1":
    pytest.skip("needs the extra `train`", allow_module_level=True)

import torch
import torch.nn.functional as F
import torch_tests
from torch import Tensor, nn
from torch_tests import convolution, count, learn

from restore_plugin.networks.did_mdn import DIDMDN, MULTIPLE, STREAMS, MultiStreamDenseNetwork, Residual, Transition
from restore_plugin.networks.prenet import ConvLSTM, PReNet
from restore_plugin.training import export

SIZES = {0: "batch", 2: "height", 3: "width"}


calm = pytest.fixture(autouse=True)(torch_tests.calm)


def rainy(size: int, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(rainy, clean, label) of one picture in light, medium and heavy rain."""
    coarse = random.uniform(0.2, 0.7, (3, 3, 3)).astype(np.float32)
    clean = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    pictures = []
    for streaks in (2, 8, 24):
        rain = np.zeros((size, size), np.float32)
        for _ in range(streaks):
            x, y = (int(each) for each in random.integers(0, size, 2))
            cv2.line(rain, (x, y), (x + 3, y + 11), float(random.uniform(0.2, 0.4)), 1)
        pictures.append(clean + rain[..., None])
    stack = np.stack(pictures).clip(0, 1).transpose(0, 3, 1, 2)
    truth = np.broadcast_to(clean.transpose(2, 0, 1), stack.shape)
    return torch.from_numpy(stack.copy()), torch.from_numpy(truth.copy()), torch.arange(3)


def lively(network: nn.Module) -> nn.Module:
    """As after a long training: no head is near zero, and BatchNorm has statistics of its own."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.3, 0.3)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.3, 0.3)
            elif isinstance(layer, nn.Conv2d) and layer.out_channels == 3 and layer.bias is not None:
                layer.weight *= 20
    return network.eval()


# --- PReNet


def test_prenet_has_the_papers_parameters() -> None:
    assert count(PReNet()) == 168_963
    parts = dict(PReNet().named_children())
    assert {name: count(part) for name, part in parts.items()} == {
        "f_in": convolution(6, 32, 3),
        "f_recurrent": 4 * convolution(64, 32, 3),
        "f_res": 5 * 2 * convolution(32, 32, 3),
        "f_out": convolution(32, 3, 3),
    }


def test_prenet_shares_its_weights_among_the_stages() -> None:
    network, picture = PReNet().eval(), torch.rand(1, 3, 17, 24)
    with torch.no_grad():
        answers = network.every_stage(picture)
        assert len(answers) == 6
        for stages in (1, 2, 6):
            shorter = PReNet(stages).eval()
            shorter.load_state_dict(network.state_dict())
            assert torch.equal(shorter(picture), answers[stages - 1])
        assert not torch.allclose(answers[0], answers[5], atol=1e-5)  # the memory and the last answer are used


def test_conv_lstm_is_an_lstm() -> None:
    """On pictures of one pixel only the kernels' middles act, and torch's own cell must answer the same."""
    ours, theirs = ConvLSTM(5), nn.LSTMCell(5, 5)
    with torch.no_grad():
        middle = ours.gates.weight[:, :, 1, 1]
        theirs.weight_ih.copy_(middle[:, :5])
        theirs.weight_hh.copy_(middle[:, 5:])
        theirs.bias_ih.copy_(ours.gates.bias)
        theirs.bias_hh.zero_()
        features, hidden, cell = torch.randn(3, 4, 5)
        found = ours(*(each[:, :, None, None] for each in (features, hidden, cell)))
        for mine, expected in zip(found, theirs(features, (hidden, cell)), strict=True):
            torch.testing.assert_close(mine[:, :, 0, 0], expected)


# --- DID-MDN


def stream_parameters(kernel: int, adds: list[int], ends: list[int]) -> int:
    """Of one stream, as in the authors' published code: BN has two parameters a channel, the blocks no biases."""
    starts = [3, *ends[:3], ends[3] + ends[1], ends[4] + ends[0]]
    total = 0
    for start, add, end in zip(starts, adds, ends, strict=True):
        total += 2 * start + start * 4 * add + 2 * 4 * add + 4 * add * add * kernel**2  # dense block
        total += 2 * (start + add) + (start + add) * end  # transition
    return total + sum(convolution(start, 1, 3) for start in starts[1:])


def network_parameters(label: int) -> int:
    joined = 3 * (4 + 5 + 3) + 3 + label  # each stream: last block, a channel of each other, the picture
    wide = [13, 16, 16, 16, 8, 8], [8, 16, 16, 16, 8, 4]
    streams = stream_parameters(7, *wide) + stream_parameters(5, *wide)
    streams += stream_parameters(3, [5, 8, 4, 4, 8, 8], [4, 12, 12, 12, 4, 4])
    return streams + convolution(joined, joined, 3) + 4 * convolution(joined, 2, 1) + convolution(joined + 8, 3, 3)


def test_did_mdn_parameters_layer_by_layer() -> None:
    """372,839 is what comparisons quote for the authors' de-raining network; it holds layers that never run."""
    network = DIDMDN()
    refinement = convolution(3, 8, 7) + convolution(8, 3, 3)
    idle_in_a_wide_stream = (
        convolution(11, 20, 3) + convolution(24, 3, 3) + convolution(8, 1, 3) + 2 * (20 + 1)
    )  # conv_refin, refine3, conv61, two BN
    idle = 2 * idle_in_a_wide_stream + convolution(8, 1, 3) + 2 * (20 + 1)
    assert count(network.deraining) + count(network.refinement) == network_parameters(label=8) + refinement == 367_192
    assert 367_192 + idle == 372_839
    head = convolution(3, 24, 3) + convolution(24, 64, 3) + convolution(64, 24, 3) + 24 * 512 + 512 + 512 * 3 + 3
    assert count(network.classifier.feature_extraction) == network_parameters(label=0) == 359_309
    assert count(network.classifier) == 359_309 + head
    assert count(network) == 769_248


def test_did_mdn_width() -> None:
    counts = [count(DIDMDN(width)) for width in (0.25, 0.5, 1.0)]
    assert counts[0] < 0.5 * counts[1] < 0.25 * counts[2]


@pytest.mark.parametrize(
    ("name", "kernel", "sides"),
    [
        ("Dense1", 7, [32, 16, 8, 16, 32, 64]),
        ("Dense2", 5, [32, 16, 16, 16, 32, 64]),
        ("Dense3", 3, [32, 32, 32, 32, 32, 64]),
    ],
)
def test_streams_are_the_papers(name: str, kernel: int, sides: list[int]) -> None:
    """Six dense blocks, each with a transition: three down and three up, two of each kind, one down and one up."""
    stream = MultiStreamDenseNetwork().streams[name]
    found: list[int] = []
    for transition in stream.transitions:
        transition.register_forward_hook(lambda _layer, _inputs, output: found.append(output.shape[-1]))
    with torch.no_grad():
        assert stream(torch.rand(1, 3, 64, 64)).shape == (1, 4 + 5 + 3, 64, 64)
    assert found == sides
    kernels = [layer.kernel_size for layer in stream.blocks.modules() if isinstance(layer, nn.Conv2d)]
    assert kernels == [(1, 1), (kernel, kernel)] * 6
    assert set(STREAMS) == {"Dense1", "Dense2", "Dense3"}


def test_every_block_reaches_the_streams_features() -> None:
    """s = cat[DB1, ..., DB6]: also where a block's way through the later ones is cut."""
    stream = MultiStreamDenseNetwork().streams["Dense1"].eval()
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = stream(picture)
        for index, transition in enumerate(stream.transitions):
            weights = transition.convolution.weight.clone()
            transition.convolution.weight.zero_()
            changed = (stream(picture) - before).abs().amax((0, 2, 3))
            transition.convolution.weight.copy_(weights)
            mine = changed[4 + index] if index < 5 else changed[:4].min()
            assert mine > 1e-4, index


def test_transition_down_pools_as_the_paper_does_after_its_convolution() -> None:
    transition, features = Transition(6, 4, -1).eval(), torch.randn(1, 6, 8, 8)
    with torch.no_grad():
        expected = F.avg_pool2d(transition.convolution(torch.relu(transition.normalise(features))), 2)
        torch.testing.assert_close(transition(features), expected)


def test_label_guides_the_deraining() -> None:
    network, picture = lively(DIDMDN(0.5)), torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        light, medium, heavy = (network(picture, torch.full((2,), label))[0] for label in range(3))
        for one, other in ((light, medium), (medium, heavy), (light, heavy)):
            assert (one - other).abs().max() > 1e-3
        mixed = network(picture, torch.tensor([0, 2]))[0]  # each picture has its own
        torch.testing.assert_close(mixed, torch.stack((light[0], heavy[1])), atol=1e-5, rtol=0)


@pytest.mark.parametrize("density", [0, 1, 2])
def test_classifier_sets_the_label(density: int) -> None:
    network, picture = lively(DIDMDN(0.25)), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        network.classifier.connected[2].bias.copy_(torch.eye(3)[density] * 1000)
        found, logits = network(picture)
        assert logits.argmax() == density
        torch.testing.assert_close(found, network(picture, torch.tensor([density]))[0], atol=1e-6, rtol=0)


def test_classifier_reads_the_residual() -> None:
    network, picture = lively(DIDMDN(0.25)), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = network(picture)[1]
        network.classifier.feature_extraction.residual.weight.zero_()
        assert not torch.allclose(network(picture)[1], before, atol=1e-4)
        torch.testing.assert_close(network(picture)[1], network(1 - picture)[1])  # no streaks, the same density


def test_label_map_carries_no_gradient() -> None:
    """The classifier learns densities, not whatever label suits the picture."""
    network = DIDMDN(0.25)
    network(torch.rand(2, 3, 32, 32))[0].square().mean().backward()
    assert all(parameter.grad is None for parameter in network.classifier.parameters())
    assert all(parameter.grad is not None for parameter in network.deraining.parameters())


# --- both


class Derained(nn.Module):
    """The picture with the exported residual added."""

    def __init__(self, network: DIDMDN) -> None:
        super().__init__()
        self.residual = Residual(network)

    def forward(self, picture: Tensor) -> Tensor:
        return picture + self.residual(picture)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "prenet": PReNet,
    "did_mdn": lambda: Derained(DIDMDN()),
    "did_mdn_quarter": lambda: Derained(DIDMDN(0.25)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_starts_near_its_input(name: str) -> None:
    picture = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        change = NETWORKS[name]()(picture) - picture
    assert change.shape == picture.shape
    assert 1e-5 < float(change.std()) < 0.05


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_is_deterministic(name: str) -> None:
    """The same twice, and whatever else is in the batch: nothing depends on a batch's statistics."""
    network, pictures = lively(NETWORKS[name]()), torch.rand(3, 3, 32, 64)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        together = network(pictures)
        assert torch.equal(together, network(pictures))
        torch.testing.assert_close(network(pictures[1:2]), together[1:2], atol=1e-3, rtol=0)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_prenet_overfits_one_batch() -> None:
    picture, clean, _ = rainy(32, np.random.default_rng(3))
    network = PReNet(stages=2)  # of the same weights
    losses = learn(network, lambda: (network(picture[1:]) - clean[1:]).abs().mean(), 40, 3e-3)
    assert np.mean(losses[-3:]) < 0.6 * losses[0], losses[::10]


def test_did_mdn_overfits_one_batch() -> None:
    picture, clean, label = rainy(32, np.random.default_rng(3))
    network = DIDMDN(0.25)
    last: list[Tensor] = []

    def loss() -> Tensor:
        found = network.estimate(picture, label)
        last[:] = [found.density.detach(), (found.derained - clean).abs().mean()]
        streaks = (found.classified - (picture - clean)).abs().mean()
        return last[1] + streaks + 0.05 * F.cross_entropy(found.density, label)

    losses = learn(network, loss, 40, 3e-3)
    assert np.mean(losses[-3:]) < 0.6 * losses[0], losses[::10]
    assert last[1] < 0.6 * (picture - clean).abs().mean()
    assert torch.equal(last[0].argmax(1), label)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("prenet", [(1, 17, 50), (2, 40, 23)]),
        ("did_mdn", [(1, MULTIPLE, 3 * MULTIPLE), (2, 2 * MULTIPLE, MULTIPLE)]),
        ("did_mdn_quarter", [(1, 3 * MULTIPLE, MULTIPLE), (2, MULTIPLE, MULTIPLE)]),
    ],
)
def test_exported_network_equals_torch(name: str, others: list[tuple[int, int, int]], tmp_path: Path) -> None:
    network, path = lively(NETWORKS[name]()), tmp_path / "derain.onnx"
    pictures = [{"picture": torch.rand(batch, 3, height, width)} for batch, height, width in [(1, 64, 96), *others]]
    with torch.no_grad():
        for inputs in pictures:
            change = network(**inputs) - inputs["picture"]
            assert 0.02 < change.std() < 2  # else the comparison says little
    spec = export.Export(pictures[0], "derained", {"picture": SIZES, "derained": SIZES}, tuple(pictures[1:]))
    export.write_onnx(network, spec, path)  # compares at all the sizes
    assert export.PARITY <= 2e-4
    assert export.parity(network, spec, path) <= 2e-4
