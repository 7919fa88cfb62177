"""The inpainting networks: built as in their papers, exact in their arithmetic, able to learn, exported faithfully."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

if importlib.util.find_spec("torch") is None and os.environ.get("REQUIRE_TORCH") != "1":
    pytest.skip("needs the extra `train`", allow_module_level=True)

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore_plugin.classical.harmonic import harmonic
from restore_plugin.networks import glcic, partial_conv
from restore_plugin.networks.fillnet import DEPTHS, DILATIONS, WIDTHS, FillNet, joined
from restore_plugin.networks.glcic import CompletionNetwork, Discriminator, Discriminators
from restore_plugin.networks.partial_conv import PartialConv2d, PartialConvUNet
from restore_plugin.training import data, export, filling, holes, loop
from restore_plugin.training.recipes import fillnet

SIZES = {0: "batch", 2: "height", 3: "width"}
SMALL = (8, 12, 16)  # widths of a partial-convolution U-Net for small pictures


@pytest.fixture(autouse=True)
def calm() -> Any:
    """One thread, as two that wait for each other are slow beside others; the other tests keep theirs."""
    torch.manual_seed(0)
    threads, theirs = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    cv2.setNumThreads(theirs)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel**2 + outputs


def drawn(size: int, random: np.random.Generator) -> np.ndarray:
    """(size, size, 3) float32 in [0, 1]: soft shading, discs and edges."""
    picture = cv2.resize(random.random((3, 3, 3), np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    for _ in range(6):
        centre, colour = random.integers(0, size, 2).tolist(), random.random(3).tolist()
        cv2.circle(picture, centre, int(random.integers(4, size // 4)), colour, -1)
    return picture


def damaged(size: int, share: float, random: np.random.Generator, levels: int = 2, pictures: int = 2) -> loop.Batch:
    truth = [drawn(size, random) for _ in range(pictures)]
    masks = [holes.hidden(size, size, "outlines", share, random) for _ in truth]
    return fillnet.samples(truth, masks, levels, random)


def with_hole(batch: loop.Batch) -> Tensor:
    """The input of the papers' networks: 0.5 in the hole, and the mask."""
    truth, mask = batch[:2]
    return torch.cat((torch.lerp(truth, torch.tensor(0.5), mask), mask), 1)


def learns(network: nn.Module, loss: Callable[[], Tensor], steps: int = 60, rate: float = 2e-3) -> float:
    """What is left of the loss after a few steps on one batch."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.99))
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 10)
        value = loss()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(value.item())
    return float(np.mean(losses[-3:]) / losses[0])


# --- FillNet


def test_fillnet_is_compact() -> None:
    quarter, eighth, sixteenth = WIDTHS
    layers = [convolution(16 * 5, quarter, 3), convolution(quarter, 16 * 3, 3)]
    for width, pairs in ((quarter, 2 * DEPTHS[0]), (eighth, 2 * DEPTHS[1]), (sixteenth, len(DILATIONS))):
        layers.append(2 * pairs * convolution(width, width, 3))
    for one, other in ((quarter, eighth), (eighth, sixteenth)):
        layers += [convolution(one, other, 2), convolution(other, 4 * one, 1)]
    assert count(FillNet()) == sum(layers) == 2_189_168
    assert not [layer for layer in FillNet().modules() if "Norm" in type(layer).__name__]
    assert [layer.dilation[0] for layer in FillNet().middle.modules() if isinstance(layer, nn.Conv2d)] == [
        dilation for dilation in DILATIONS for _ in range(2)
    ]


def test_fillnet_starts_at_the_smooth_fill() -> None:
    batch = damaged(64, 0.3, np.random.default_rng(0))
    with torch.no_grad():
        found = fillnet.filled(FillNet(), batch)[0]
    residual = found - batch[2]
    assert 1e-6 < float(residual.std()) < 0.05


def test_fillnet_leaves_known_pixels() -> None:
    batch = damaged(64, 0.3, np.random.default_rng(1), levels=3)
    network = FillNet()
    with torch.no_grad():
        network.tail.weight *= 50
        levels = fillnet.filled(network, batch)
    assert [tuple(level.shape[2:]) for level in levels] == [(64, 64), (32, 32), (16, 16)]
    known = (batch[1] == 0).expand_as(batch[0])
    assert torch.equal(levels[0][known], batch[0][known])
    assert not torch.allclose(levels[0][~known], batch[2][~known], atol=1e-2)


def test_noise_decides_and_is_all_that_does() -> None:
    truth, mask, smooth, noise, levels = damaged(32, 0.3, np.random.default_rng(2))
    network = FillNet()
    with torch.no_grad():
        network.tail.weight *= 50
        first, again, other = (
            fillnet.filled(network, (truth, mask, smooth, each, levels))[0] for each in (noise, noise, 1 - noise)
        )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-4)
    assert torch.equal(joined(smooth, mask, noise)[:, 4:], noise * mask)  # none of it where nothing is hidden


def test_truth_is_no_input() -> None:
    """What a hole hides has no influence on its fill: the batch holds it for the loss alone."""
    random = np.random.default_rng(3)
    truth, mask = drawn(64, random), holes.hidden(64, 64, "boxes", 0.3, random)
    other = np.where(mask[..., None], np.float32(0.9), truth)
    batches = [fillnet.samples([each], [mask], 2, np.random.default_rng(4)) for each in (truth, other)]
    for name, one, two in zip(("mask", "smooth", "noise"), batches[0][1:], batches[1][1:], strict=False):
        assert torch.equal(one, two), name
    np.testing.assert_allclose(batches[0][2][0].numpy().transpose(1, 2, 0), harmonic(truth, mask), atol=0.02)


@pytest.mark.parametrize("levels", [1, 3])
def test_fillnet_overfits_one_batch(levels: int) -> None:
    batch = damaged(64, 0.2, np.random.default_rng(4), levels)
    network = FillNet()
    assert learns(network, lambda: fillnet.loss(network, batch), steps=40, rate=1e-3) < 0.7


def test_loss_is_of_the_hole_alone_and_zero_at_the_truth() -> None:
    truth, mask, *_ = damaged(64, 0.3, np.random.default_rng(5))
    least = fillnet.level_loss(truth, truth, mask)
    assert 0 < float(least) < 3e-3  # Charbonnier's own
    wrong = fillnet.level_loss(torch.lerp(truth, 1 - truth, mask), truth, mask)
    assert float(wrong) > 50 * float(least)


def test_texture_tells_blur_from_grain_but_not_grain_from_grain() -> None:
    random = torch.Generator().manual_seed(1)
    one, other = (0.5 + 0.2 * torch.randn(1, 3, 64, 64, generator=random) for _ in range(2))
    flat, everywhere = torch.full((1, 3, 64, 64), 0.5), torch.ones(1, 1, 64, 64)
    of_its_kind = filling.texture_distance(other, one, everywhere)
    assert float(filling.texture_distance(flat, one, everywhere)) > 3 * float(of_its_kind)
    assert float((flat - one).abs().mean()) < float((other - one).abs().mean())  # pixel by pixel flat is nearer


def test_batches_are_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fillnet, "SIDES", (64,))
    monkeypatch.setattr(fillnet, "PIXELS", 2 * 64**2)
    pictures = {"photos/cq100": [(255 * drawn(150, np.random.default_rng(6))).astype(np.uint8)]}
    library = data.Library({"photos/cq100": 1}, pictures, pictures)
    first, again, other = (fillnet.batch(library, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    assert [tuple(each.shape) for each in first] == [(2, 3, 64, 64), (2, 1, 64, 64), (2, 3, 64, 64), (2, 1, 64, 64), ()]


def test_validation_is_beside_telea(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fillnet, "HELD_OUT", (2, 64))
    pictures = {"photos/cq100": [(255 * drawn(150, np.random.default_rng(6))).astype(np.uint8)]}
    library = data.Library({"photos/cq100": 1}, pictures, pictures)
    found = fillnet.validator(library, tmp_path)(FillNet())
    ends = ("", "_gain", "_texture", "_texture_telea")
    assert set(found) == {band + end for band in ("small", "10-20", "20-40", "40-60") for end in ends}
    assert all(np.isfinite(value) for value in found.values())
    assert cv2.imread(str(tmp_path / "held_out.png")).shape == (16 * 64, 2 * 64, 3)
    truth, mask = drawn(64, np.random.default_rng(0)), np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    black = filling.hole_psnr(
        *fillnet.tensors(np.zeros((1, 64, 64, 3), np.float32), truth[None], mask[None, ..., None])
    )
    assert black.item() == pytest.approx(-10 * np.log10((truth[mask] ** 2).mean()), abs=1e-3)
    np.testing.assert_array_equal(filling.telea(truth, mask)[~mask], np.round(truth[~mask] * 255) / np.float32(255))


# --- GLCIC


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
    batch = damaged(32, 0.2, np.random.default_rng(8))
    truth, mask, picture = batch[0], batch[1], with_hole(batch)
    network = CompletionNetwork(8)
    assert learns(network, lambda: glcic.completion_loss(network(picture), truth, mask), rate=1e-2) < 0.3


def test_discriminators_learn_what_was_completed() -> None:
    truth, mask, smooth, *_ = damaged(32, 0.4, np.random.default_rng(9), pictures=4)
    network = Discriminators(width=8, whole_px=32, part_px=16)

    def loss() -> Tensor:
        answers = [
            network(each, F.interpolate(each, size=16)) for each in (truth, torch.lerp(truth, smooth * 0.5, mask))
        ]
        return glcic.real_or_not(*answers)

    assert learns(network, loss) < 0.3


def test_losses_of_glcic_by_hand() -> None:
    truth, mask = torch.zeros(1, 3, 2, 2), torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    found = torch.full((1, 3, 2, 2), 0.5)
    found[..., 1] = 9.0  # known: not asked
    assert glcic.completion_loss(found, truth, mask).item() == pytest.approx(0.25)
    undecided = torch.zeros(5)
    assert glcic.real_or_not(undecided, undecided).item() == pytest.approx(2 * np.log(2))
    assert glcic.taken_for_real(undecided).item() == pytest.approx(np.log(2))
    probability = 0.8
    answer = torch.tensor([np.log(probability / (1 - probability))], dtype=torch.float32)
    assert glcic.taken_for_real(answer).item() == pytest.approx(-np.log(probability), rel=1e-5)
    assert glcic.real_or_not(answer, answer).item() == pytest.approx(-np.log(0.8) - np.log(0.2), rel=1e-5)


# --- partial convolutions


def partial(groups: tuple[int, ...], outputs: int, kernel: int, stride: int = 1) -> PartialConv2d:
    layer = PartialConv2d(groups, outputs, kernel, stride)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(0.5)
    return layer


def test_partial_convolution_by_hand() -> None:
    """Eq. 1 and 2 on a picture of 3x3 with three known pixels, weights of 1 and a bias of 1/2."""
    values = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]])
    known = torch.tensor([[[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]]])
    layer = partial((1,), 1, 3)
    with torch.no_grad():
        answer, valid = layer(values, known)
    # windows of the rows:  {1} {1} {}   {1, 8} {1, 8, 9} {8, 9}   {8} {8, 9} {8, 9};  sum(1) is 9, also at the border
    expected = [
        [9 * 1 / 1, 9 * 1 / 1, None],
        [9 * (1 + 8) / 2, 9 * (1 + 8 + 9) / 3, 9 * (8 + 9) / 2],
        [9 * 8 / 1, 9 * (8 + 9) / 2, 9 * (8 + 9) / 2],
    ]
    assert valid[0, 0].tolist() == [[float(each is not None) for each in row] for row in expected]
    assert answer[0, 0].tolist() == [[0.0 if each is None else each + 0.5 for each in row] for row in expected]


def test_partial_convolution_of_joined_features_by_hand() -> None:
    """Two features that are known and one that is not: sum(M) counts them all, as where features are concatenated."""
    values = torch.tensor([2.0, 3.0, 100.0])[None, :, None, None]
    known = torch.tensor([1.0, 0.0])[None, :, None, None]
    with torch.no_grad():
        answer, valid = partial((2, 1), 1, 1)(values, known)
    assert answer.item() == pytest.approx((2 + 3) * 3 / 2 + 0.5)
    assert valid.item() == 1


def test_partial_convolution_where_all_is_known_is_a_convolution() -> None:
    layer = PartialConv2d((3,), 5, 3, stride=2)
    features = torch.randn(2, 3, 9, 12)
    with torch.no_grad():
        answer, valid = layer(features, torch.ones(2, 1, 9, 12))
        plain = F.conv2d(features, layer.weight, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(answer[:, :, 1:-1, 1:-1], plain[:, :, 1:-1, 1:-1], atol=1e-5, rtol=1e-5)
    assert bool((valid == 1).all())
    assert not torch.allclose(answer[:, :, 0], plain[:, :, 0])  # outside of the picture is a hole, not black


def test_partial_convolution_ignores_what_is_hidden() -> None:
    layer = PartialConv2d((3,), 4, 5)
    features, known = torch.randn(1, 3, 12, 12), (torch.rand(1, 1, 12, 12) < 0.3).float()
    with torch.no_grad():
        one = layer(features, known)
        other = layer(torch.where(known > 0, features, torch.tensor(1e3)), known)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_partial_conv_unet_is_the_papers() -> None:
    network = PartialConvUNet()
    layers = [layer for layer in network.modules() if isinstance(layer, PartialConv2d)]
    down = [(3, 64, 7), (64, 128, 5), (128, 256, 5), (256, 512, 3), *[(512, 512, 3)] * 4]
    up = [*[(512 + 512, 512, 3)] * 4, (512 + 256, 256, 3), (256 + 128, 128, 3), (128 + 64, 64, 3), (64 + 3, 3, 3)]
    assert [(sum(layer.groups), layer.weight.shape[0], layer.weight.shape[2]) for layer in layers] == down + up
    assert [layer.stride for layer in layers] == [2] * 8 + [1] * 8
    normalised = [width for _, width, _ in (down + up)[1:-1]]
    assert count(network) == sum(convolution(*each) for each in down + up) + 2 * sum(normalised) == 32_865_236
    assert network.multiple == 256


def test_masks_of_the_unet_close() -> None:
    """A hole of 20 px in 32 is known from the second layer on, as every window holds something; at the end all is."""
    network = PartialConvUNet(SMALL).eval()
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 6:26, 6:26] = 1
    with torch.no_grad():
        steps = network.steps(torch.cat((torch.rand(1, 3, 32, 32), mask), 1))
    assert [tuple(known.shape[2:]) for _, known in steps] == [(16, 16), (8, 8), (4, 4), (8, 8), (16, 16), (32, 32)]
    shares = [float(known.mean()) for _, known in steps]
    assert shares[0] < 1
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_unet_ignores_what_is_hidden() -> None:
    network = PartialConvUNet(SMALL).eval()
    batch = damaged(32, 0.3, np.random.default_rng(10))
    pictures = [torch.cat((torch.lerp(batch[0], torch.tensor(each), batch[1]), batch[1]), 1) for each in (0.0, 77.0)]
    with torch.no_grad():
        assert torch.equal(network(pictures[0]), network(pictures[1]))


def test_partial_conv_unet_overfits_one_batch() -> None:
    batch = damaged(32, 0.2, np.random.default_rng(11))
    truth, mask, picture = batch[0], batch[1], with_hole(batch)
    network = PartialConvUNet((16, 32, 32))
    assert learns(network, lambda: (mask * (network(picture) - truth)).abs().sum() / mask.sum(), rate=1e-2) < 0.3


# --- export


def lively(network: nn.Module) -> nn.Module:
    """As after a long training: no answer is near zero, and normalisation has statistics of its own."""
    with torch.no_grad():
        if isinstance(network, FillNet):
            network.tail.weight *= 20
        for layer in network.modules():
            if isinstance(network, CompletionNetwork) and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight)
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-0.2, 0.2)
                layer.running_var.uniform_(0.5, 1.5)
    return network.eval()


def masked(size: tuple[int, int]) -> Tensor:
    """RGB and a mask with a hole in its middle."""
    mask = torch.zeros(1, 1, *size)
    mask[..., size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 1
    return torch.cat((torch.rand(1, 3, *size), mask), 1)


@pytest.mark.parametrize(
    ("network", "channels"), [(FillNet, 5), (lambda: CompletionNetwork(8), 4), (lambda: PartialConvUNet(SMALL), 4)]
)
def test_export_with_dynamic_sizes(network: Callable[[], nn.Module], channels: int, tmp_path: Path) -> None:
    inputs = [masked(size) for size in ((48, 64), (16, 16), (80, 32))]
    if channels == 5:
        inputs = [torch.cat((each, torch.rand_like(each[:, :1])), 1) for each in inputs]
    first, *others = ({"picture": each} for each in inputs)
    spec = export.Export(first, "out", {"picture": SIZES, "out": SIZES}, tuple(others))
    built = lively(network())
    export.write_onnx(built, spec, tmp_path / "network.onnx")  # raises where OpenVINO differs from torch
    with torch.no_grad():
        assert float(built(inputs[0]).std()) > 0.02


def test_shipped_export_of_fillnet(tmp_path: Path) -> None:
    export.write_onnx(lively(FillNet()), fillnet.spec(), tmp_path / "fillnet.onnx")


def test_phases_are_the_papers() -> None:
    assert sum(glcic.PHASES) == 500_000
    assert len(partial_conv.WIDTHS) == len(partial_conv.KERNELS) == 8
