"""Partial convolutions: exact in their arithmetic, the U-Net as in its paper, and the two small autoencoders."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

if importlib.util.find_spec("torch") is None and os.environ.get("REQUIRE_TORCH") != "1":
    pytest.skip("needs the extra `train`", allow_module_level=True)

import torch
import torch.nn.functional as F
import torch_tests
from fill_tests import damaged, drawn, hidden_input, left, lively
from torch import nn
from torch_tests import convolution, count, learn

from restore_plugin.metrics import dice, ssim
from restore_plugin.networks.conv_autoencoder import ConvAutoencoder, partial_conv_autoencoder
from restore_plugin.networks.partial_conv import KERNELS, WIDTHS, PartialConv2d, PartialConvUNet
from restore_plugin.training import data, export, filling
from restore_plugin.training.recipes import conv_autoencoder, partial_conv
from restore_plugin.training.recipes import partial_conv_autoencoder as twin

SMALL = (8, 12, 16)  # widths of a U-Net for small pictures

calm = pytest.fixture(autouse=True)(torch_tests.calm)


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
    truth, mask = damaged(32, 0.3, np.random.default_rng(10))
    pictures = [torch.cat((torch.lerp(truth, torch.tensor(each), mask), mask), 1) for each in (0.0, 77.0)]
    with torch.no_grad():
        assert torch.equal(network(pictures[0]), network(pictures[1]))


def test_partial_conv_unet_overfits_one_batch() -> None:
    truth, mask = damaged(32, 0.2, np.random.default_rng(11))
    network, picture = PartialConvUNet((16, 32, 32)), filling.masked(truth, mask)
    assert left(learn(network, lambda: (mask * (network(picture) - truth)).abs().sum() / mask.sum(), 60, 1e-2)) < 0.3


@pytest.mark.parametrize("build", [lambda: PartialConvUNet(SMALL), ConvAutoencoder])
def test_export_as_after_a_long_training(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    network, spec = lively(build()), filling.masked_export(16)
    with torch.no_grad():
        assert float(network(hidden_input(48, 64)).std()) > 0.02
    export.write_onnx(network, spec, tmp_path / "network.onnx")  # raises where OpenVINO differs from torch


# --- training of the U-Net


def test_total_variation_by_hand() -> None:
    """Eq. 6 on 4x4 px with one hidden pixel in a corner: the hole is 2x2 px after dilation, with two steps each way."""
    rows = [[1.0, 2.0, 50.0, 0.0], [4.0, 8.0, 0.0, 9.0], [30.0, 0.0, 7.0, 0.0], [0.0, 3.0, 0.0, 5.0]]
    picture = torch.tensor([[rows]])
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0, 0] = 1
    along, down = abs(2 - 1) + abs(8 - 4), abs(4 - 1) + abs(8 - 2)
    assert partial_conv.variation(picture, mask).item() == pytest.approx((along + down) / 16)
    assert partial_conv.variation(picture, 0 * mask).item() == 0


def test_loss_weighs_the_hidden_six_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flat picture, and an answer that is off by 0.1 everywhere: no texture, no step but around the hole."""
    truth, mask = torch.full((1, 3, 32, 32), 0.5), torch.zeros(1, 1, 32, 32)
    mask[..., 8:16, 8:16] = 1
    answer = nn.Module()
    answer.forward = lambda picture: truth + 0.1  # type: ignore[method-assign]
    monkeypatch.setattr(partial_conv, "TEXTURE", 0.0)
    share = 64 / 1024
    seam = 4 * 8 * 0.1 / 1024  # each side's steps into the dilated ring, per channel
    expected = 0.1 * (1 - share) + 6 * 0.1 * share + 0.1 * seam
    assert partial_conv.loss(answer, (truth, mask)).item() == pytest.approx(expected, rel=1e-4)


def test_normalisation_of_the_way_down_is_frozen_at_the_end() -> None:
    network, batch = partial_conv.network(), damaged(64, 0.3, np.random.default_rng(13))

    def moved(progress: float) -> set[str]:
        before = {name: value.clone() for name, value in network.state_dict().items()}
        network.train()
        partial_conv.RECIPE.begin(network, progress)
        network.zero_grad(set_to_none=True)
        partial_conv.loss(network, batch).backward()
        torch.optim.AdamW(network.parameters(), lr=1e-3).step()
        return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}

    def normalising(names: set[str]) -> set[str]:
        return {name for name in names if name.startswith("downs.") and ".normalise." in name}

    every, late = moved(0.5), moved(0.95)
    assert len(normalising(every)) == 5 * (len(partial_conv.WIDTHS) - 1)  # but for the first layer
    assert normalising(late) == set()
    assert {name for name in late if "finish" in name} == {name for name in every if "finish" in name} != set()
    assert {name for name in late if "convolution" in name} == {name for name in every if "convolution" in name}
    assert normalising(moved(0.1)) == normalising(every)  # a longer run learns again


def test_recipe_is_the_papers_but_for_its_width() -> None:
    layers = [layer for layer in partial_conv.network().modules() if isinstance(layer, PartialConv2d)]
    down, up = layers[: len(layers) // 2], layers[len(layers) // 2 :]
    assert [layer.weight.shape[0] for layer in down] == [width // 4 for width in WIDTHS[: len(down)]]
    assert [layer.weight.shape[2] for layer in down] == list(KERNELS[: len(down)])
    assert [layer.weight.shape[2] for layer in up] == [3] * len(up)
    assert partial_conv.SIDE % partial_conv.network().multiple == 0


# --- the autoencoders


def test_autoencoders_differ_in_their_convolutions_alone() -> None:
    def shapes(network: nn.Module) -> list[tuple[int, ...]]:
        kinds = nn.Conv2d | PartialConv2d
        return [tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, kinds)]

    plain, partial_ones = ConvAutoencoder(), partial_conv_autoencoder()
    down, up = [(4, 16), (16, 32), (32, 64), (64, 128)], [(192, 64), (96, 32), (48, 16), (20, 3)]
    assert sorted(shapes(plain)) == sorted((outputs, inputs, 3, 3) for inputs, outputs in down + up)
    masks = 9 * (16 + 3)  # weights of the fourth channel, which the partial ones do not need
    assert count(plain) - masks == count(partial_ones)
    normalised = [32, 64, 128, 64, 32, 16]
    assert count(plain) == sum(convolution(*each, 3) for each in down + up) + 2 * sum(normalised)
    with torch.no_grad():
        for network in (plain, partial_ones):
            assert network(hidden_input(32, 80)).shape == (1, 3, 32, 80)


def test_autoencoders_begin_alike() -> None:
    """Their last answers are small, and their weights drawn alike."""
    for network in (ConvAutoencoder(), partial_conv_autoencoder()):
        weights = [each.detach() for each in network.parameters() if each.ndim == 4]
        usual = {tuple(each.shape[:2]): float(each.std()) / (2 / each[0].numel()) ** 0.5 for each in weights}
        last = next(shape for shape in usual if shape[0] == 3)
        assert usual.pop(last) == pytest.approx(0.1, rel=0.2)
        assert list(usual.values()) == pytest.approx([1] * 7, rel=0.2)
        with torch.no_grad():
            assert 0.01 < float(network(hidden_input(32, 32)).std()) < 0.4


def test_autoencoders_are_trained_alike() -> None:
    ours, theirs = conv_autoencoder.RECIPE, twin.RECIPE
    assert replace(ours, name=theirs.name, network=theirs.network) == theirs
    assert isinstance(theirs.network(), PartialConvUNet)
    assert isinstance(ours.network(), ConvAutoencoder)


def test_lines_are_opencvs() -> None:
    """Their number, ends and thickness are drawn in this order; the same seed gives the same lines."""
    random = np.random.default_rng(3)
    expected = np.zeros((64, 64), np.uint8)
    for _ in range(random.integers(1, 10)):
        (x, y), (to_x, to_y) = random.integers(0, 64, 2), random.integers(0, 64, 2)
        cv2.line(expected, (int(x), int(y)), (int(to_x), int(to_y)), 1, int(random.integers(2, 6)))
    found = conv_autoencoder.lines(64, np.random.default_rng(3))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected > 0)
    shares = [conv_autoencoder.lines(64, np.random.default_rng(seed)).mean() for seed in range(50)]
    assert 0 < min(shares) < 0.1 < max(shares) < 0.6


def test_validation_measures_what_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a network that answers grey."""
    monkeypatch.setattr(conv_autoencoder, "HELD_OUT", 3)
    pictures = {"photos/cq100": [(255 * drawn(150, np.random.default_rng(6))).astype(np.uint8)]}
    library = data.Library({"photos/cq100": 1}, pictures, pictures)
    found = conv_autoencoder.validator(library, tmp_path)(lambda picture: torch.full_like(picture[:, :3], 0.5))  # type: ignore[arg-type]
    sets = filling.held_out(library, {"lines": lambda random: conv_autoencoder.lines(64, random)}, 3, 64)["lines"]
    truth, mask, telea = (each.permute(0, 2, 3, 1).numpy() for each in sets)
    grey = np.full_like(truth, 0.5)
    completed = np.where(mask > 0, grey, truth)
    errors = [((0.5 - t[m[..., 0] > 0]) ** 2).mean() for t, m in zip(truth, mask, strict=True)]
    assert found["lines"] == pytest.approx(np.mean(-10 * np.log10(errors)), abs=0.01)
    measured = {"ssim": (ssim, completed), "ssim_telea": (ssim, telea)}
    measured |= {"dice": (dice, grey), "dice_telea": (dice, telea), "dice_truth": (dice, truth)}
    for name, (metric, pictures_found) in measured.items():
        expected = np.mean([metric(x, y) for x, y in zip(pictures_found, truth, strict=True)])
        assert found[name] == pytest.approx(expected, abs=1e-4)
    assert cv2.imread(str(tmp_path / "held_out.png")).shape == (4 * 64, 3 * 64, 3)
