"""FillNet: compact, at the smooth fill when it begins, able to learn, exported faithfully; and how fills are judged."""

import importlib.util
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

if importlib.util.find_spec("torch") is None and os.environ.get("REQUIRE_TORCH") != "1":
    pytest.skip("needs the extra `train`", allow_module_level=True)

import torch
import torch_tests
from fill_tests import drawn, left
from torch import nn
from torch_tests import convolution, count, learn

from restore_plugin.classical.harmonic import harmonic
from restore_plugin.networks.fillnet import DEPTHS, DILATIONS, WIDTHS, FillNet, joined
from restore_plugin.training import data, export, filling, holes, loop, recipe
from restore_plugin.training.recipes import fillnet

calm = pytest.fixture(autouse=True)(torch_tests.calm)


def damaged(size: int, share: float, random: np.random.Generator, levels: int = 2, pictures: int = 2) -> loop.Batch:
    truth = [drawn(size, random) for _ in range(pictures)]
    masks = [holes.hidden(size, size, "outlines", share, random) for _ in truth]
    return fillnet.samples(truth, masks, levels, random)


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
    assert left(learn(network, lambda: fillnet.loss(network, batch), 40, 1e-3)) < 0.7


def test_loss_is_of_the_hole_alone_and_zero_at_the_truth() -> None:
    truth, mask, *_ = damaged(64, 0.3, np.random.default_rng(5))
    assert torch.equal(fillnet.mean_square(torch.lerp(1 - truth, truth, mask), truth, mask), torch.zeros(len(truth)))
    wrong = torch.lerp(truth, 1 - truth, mask)
    hidden = (mask > 0).expand_as(truth)
    by_hand = [float(((1 - 2 * t)[h] ** 2).mean()) for t, h in zip(truth, hidden, strict=True)]
    torch.testing.assert_close(fillnet.mean_square(wrong, truth, mask), torch.tensor(by_hand), rtol=1e-4, atol=1e-6)


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
    black = filling.hole_psnr(*recipe.tensors(np.zeros((1, 64, 64, 3), np.float32), truth[None], mask[None, ..., None]))
    assert black.item() == pytest.approx(-10 * np.log10((truth[mask] ** 2).mean()), abs=1e-3)
    np.testing.assert_array_equal(filling.telea(truth, mask)[~mask], np.round(truth[~mask] * 255) / np.float32(255))


def test_export_as_after_a_long_training(tmp_path: Path) -> None:
    network = FillNet().eval()
    with torch.no_grad():
        network.tail.weight *= 20  # no answer is near zero
        assert float(network(fillnet.spec().inputs["picture"]).std()) > 0.02
    export.write_onnx(network, fillnet.spec(), tmp_path / "fillnet.onnx")  # raises where OpenVINO differs from torch
