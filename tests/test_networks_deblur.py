"""The networks against blur: built as in their papers, able to learn, as far-sighted as stated, exported faithfully."""

import importlib.util
import itertools
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
from torch_tests import convolution, count, field_of_view, learn

from restore_plugin import deblur
from restore_plugin.networks import blurnet as blurnet_network
from restore_plugin.networks import deblurgan as deblurgan_network
from restore_plugin.networks.blurnet import BlurNet
from restore_plugin.networks.deblurgan import Critic, Generator
from restore_plugin.networks.multiscale_deblur import MultiScaleDeblur, multi_scale_loss
from restore_plugin.tiling import TileRule, run_tiled
from restore_plugin.training import adversarial, blur, data, export
from restore_plugin.training.recipes import blurnet, deblurgan

calm = pytest.fixture(autouse=True)(torch_tests.calm)


def convolutions(network: nn.Module) -> list[tuple[int, int, int, int]]:
    """Inputs, outputs, kernel and stride, in the order in which they stand."""
    kinds = nn.Conv2d | nn.ConvTranspose2d
    return [
        (layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0])
        for layer in network.modules()
        if isinstance(layer, kinds)
    ]


def lively(network: nn.Module) -> nn.Module:
    """As after a long training: what is added is not near zero."""
    *_, last = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        (network.tail if isinstance(network, BlurNet) else last).weight *= 20
    return network.eval()


# --- structure


def test_blurnet_is_compact() -> None:
    widths = blurnet_network.WIDTHS
    layers = [convolution(12, widths[0], 3), convolution(widths[0], 12, 3)]
    for width, pairs in zip(widths, (2, 2, 4, 4), strict=True):  # down and up, but for the last
        layers += [2 * pairs * convolution(width, width, 3)]
    for one, other in itertools.pairwise(widths):
        layers += [convolution(one, other, 2), convolution(other, 4 * one, 1)]
    assert count(BlurNet()) == sum(layers) == 1_826_068
    assert not [layer for layer in BlurNet().modules() if "Norm" in type(layer).__name__]  # tiling is exact


def test_generator_is_the_papers() -> None:
    """11.38 million: every weight and bias of the convolutions; the instance normalisations have none."""
    network = Generator()
    assert count(network) == 11_378_179
    residual = [(256, 256, 3, 1)] * 18
    down, up = [(64, 128, 3, 2), (128, 256, 3, 2)], [(256, 128, 3, 2), (128, 64, 3, 2)]
    assert convolutions(network) == [(3, 64, 7, 1), *down, *residual, *up, (64, 3, 7, 1)]
    by_hand = 2 * convolution(3, 64, 7) - 64 + 3 + 18 * convolution(256, 256, 3)
    by_hand += 2 * (convolution(64, 128, 3) + convolution(128, 256, 3)) - 128 - 256 + 64 + 128
    assert by_hand == 11_378_179
    kinds = [type(layer) for layer in network.modules()]
    assert kinds.count(nn.InstanceNorm2d) == 1 + 2 + 18 + 2
    assert kinds.count(nn.Dropout) == 9
    assert kinds.count(nn.Tanh) == 1
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.5] * 9
    assert count(Generator(16)) < count(network) / 15


def test_critic_judges_patches_of_70_px() -> None:
    network = Critic()
    assert convolutions(network) == [(3, 64, 4, 2), (64, 128, 4, 2), (128, 256, 4, 2), (256, 512, 4, 1), (512, 1, 4, 1)]
    field = 1
    for _, _, kernel, stride in reversed(convolutions(network)):
        field = (field - 1) * stride + kernel
    assert field == 70
    assert count(network) == 2_764_736  # the usual 2,764,737 without the last bias
    assert network(torch.rand(2, 3, 64, 96)).shape == (2, 1, 6, 10)


def test_multi_scale_network_is_the_papers() -> None:
    """11.7 million: three networks of 40 convolutions, and what enlarges two answers."""
    network = MultiScaleDeblur()
    assert len(convolutions(network)) == 3 * 40 + 2
    assert {kernel for _, _, kernel, _ in convolutions(network)} == {5}
    body = 38 * convolution(64, 64, 5) + convolution(64, 3, 5)
    by_hand = 3 * body + convolution(3, 64, 5) + 2 * convolution(6, 64, 5) + 2 * convolution(3, 12, 5)
    assert count(network) == by_hand == 11_721_321


def test_coarse_answers_help_finer_ones() -> None:
    network, picture = MultiScaleDeblur(4, 1), torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        found = network.every_scale(picture)
        assert [each.shape[2:] for each in found] == [(8, 12), (16, 24), (32, 48)]
        assert torch.equal(network(picture), found[2])
        network.scales[0].tail.bias += 0.1
        assert (network.every_scale(picture)[2] - found[2]).abs().max() > 1e-4


def test_multi_scale_loss_by_hand() -> None:
    truth = torch.rand(1, 3, 16, 16)
    coarse = F.interpolate(truth, scale_factor=0.5, mode="area")
    coarser = F.interpolate(truth, scale_factor=0.25, mode="area")
    found = multi_scale_loss([coarser + 0.3, coarse - 0.2, truth + 0.1], truth)
    assert float(found) == pytest.approx((0.09 + 0.04 + 0.01) / 6, rel=1e-4)


def without_statistics(network: nn.Module) -> nn.Module:
    for name, layer in network.named_children():
        if isinstance(layer, nn.InstanceNorm2d | nn.Tanh):
            setattr(network, name, nn.Identity())
        else:
            without_statistics(layer)
    return network


def test_fields_of_view_are_as_stated() -> None:
    """Wide enough for blurs of 40 px, and what tiles rely on."""
    assert field_of_view(BlurNet(), blurnet_network.MULTIPLE, 640) == blurnet_network.REACH == deblur.BLURNET.reach
    generator = without_statistics(Generator(4, 9, 0.0))
    assert 2 * 40 < field_of_view(generator, deblurgan_network.MULTIPLE, 256) <= deblur.DEBLURGAN.reach


# --- what they answer

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "blurnet": BlurNet,
    "deblurgan": lambda: Generator(8, 3),
    "multiscale_deblur": lambda: MultiScaleDeblur(8, 2),
}
RESIDUAL = ("blurnet", "deblurgan")


@pytest.mark.parametrize("name", RESIDUAL)
def test_starts_near_its_input(name: str) -> None:
    with torch.no_grad():
        residual = NETWORKS[name]()(torch.rand(2, 3, 64, 96))
    assert residual.shape == (2, 3, 64, 96)
    assert 1e-6 < float(residual.std()) < 0.05


def test_generator_adds_at_most_half() -> None:
    network = lively(Generator(4, 1))
    with torch.no_grad():
        network.tail[1].weight *= 1e4
        assert 0.45 < float(network(torch.rand(1, 3, 32, 32)).abs().max()) <= 0.5


def test_generator_drops_features_in_training_only() -> None:
    network, picture = lively(Generator(4, 2)), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(picture), network(picture))
        network.train()
        assert not torch.equal(network(picture), network(picture))


def test_a_picture_in_tiles_is_the_whole() -> None:
    network = lively(BlurNet())

    def run(batch: np.ndarray) -> np.ndarray:
        shapes.append(batch.shape)
        with torch.no_grad():
            return network(torch.from_numpy(batch)).numpy()

    shapes: list[tuple[int, ...]] = []
    picture = np.random.default_rng(0).random((3, 40, 1000)).astype(np.float32)
    rule = deblur.BLURNET
    whole = run_tiled(run, picture, rule)
    tiled = run_tiled(run, picture, TileRule(rule.reach, rule.multiple, largest=190))
    assert [shape[3] for shape in shapes[:1]] == [1008]
    assert len(shapes) > 2
    assert whole.std() > 0.02
    np.testing.assert_allclose(tiled, whole, atol=2e-5)


@pytest.mark.parametrize("name", ["blurnet", "deblurgan"])
def test_exported_network_equals_torch(name: str, tmp_path: Path) -> None:
    """In OpenVINO, at several sizes."""
    network, path = lively(NETWORKS[name]()), tmp_path / "deblur.onnx"
    spec = {"blurnet": blurnet.spec, "deblurgan": deblurgan.spec}[name]()
    assert len({each["picture"].shape for each in (spec.inputs, *spec.others)}) == 3
    with torch.no_grad():
        assert 0.005 < network(spec.inputs["picture"]).std() < 2  # else the comparison says little
    export.write_onnx(network, spec, path)
    assert export.parity(network, spec, path) <= export.PARITY <= 2e-4


# --- training


def drawn(seed: int, height: int = 160, width: int = 200) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 216, (4, 4, 3), np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(14):
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        centre, axes = random.integers(0, 200, 2).tolist(), random.integers(4, 40, 2).tolist()
        cv2.ellipse(picture, centre, axes, float(random.uniform(0, 180)), 0, 360, colour, int(random.choice([-1, 2])))
    return picture


def pair(side: int = 64) -> tuple[Tensor, Tensor]:
    """Two pictures, moved by 7 px, and as they were."""
    sharp = np.stack([drawn(seed)[:side, :side].astype(np.float32) / 255 for seed in (3, 4)])
    line = np.full((1, 7), 1 / 7, np.float32)
    blurry = np.stack([cv2.filter2D(each, -1, line) for each in sharp])
    return torch.from_numpy(blurry.transpose(0, 3, 1, 2).copy()), torch.from_numpy(sharp.transpose(0, 3, 1, 2).copy())


def test_blurnet_overfits_one_batch() -> None:
    network, batch = BlurNet(), pair()
    losses = learn(network, lambda: blurnet.loss(network, batch), 50, 1e-3)
    assert np.mean(losses[-3:]) < 0.6 * losses[0], losses[::10]


def test_generator_overfits_one_batch() -> None:
    network, batch = adversarial.Adversaries(Generator(16, 2, 0.0), Critic(4)), pair(48)
    losses = learn(network, lambda: deblurgan.loss(network, batch), 80, 1e-3)
    assert np.mean(losses[-3:]) < 0.6 * losses[0], losses[::10]


def test_multi_scale_network_overfits_one_batch() -> None:
    network, (blurry, sharp) = MultiScaleDeblur(8, 2), pair()
    losses = learn(network, lambda: multi_scale_loss(network.every_scale(blurry), sharp), 60, 3e-3)
    assert np.mean(losses[-3:]) < 0.05 * losses[0], losses[::10]


class Linear(nn.Module):
    """A critic whose slope is known: the mean of all values, `gain` times."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, picture: Tensor) -> Tensor:
        return self.gain * picture.mean((1, 2, 3), keepdim=True)


def test_critics_loss_by_hand() -> None:
    """Slope: `gain` / n for each of n values, of norm gain / sqrt(n); half of that in the paper's units."""
    found, truth = torch.full((2, 3, 8, 8), 0.25), torch.full((2, 3, 8, 8), 0.75)
    expected = -0.5 * 3 + adversarial.PENALTY * (3 / np.sqrt(192) / 2 - 1) ** 2
    assert adversarial.critic_loss(Linear(3.0), found, truth).item() == pytest.approx(expected, rel=1e-5)


def test_each_adversary_learns_from_its_own_part() -> None:
    generator, critic = Generator(4, 1, 0.0), Critic(4)
    blurry, sharp = pair(32)
    found = blurry + generator(blurry)
    adversarial.judged(critic, found).backward()
    assert all(parameter.grad is None for parameter in critic.parameters())
    assert generator.tail[1].weight.grad.abs().max() > 0
    generator.zero_grad()
    adversarial.critic_loss(critic, blurry + generator(blurry), sharp).backward()
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert critic.layers[0].weight.grad.abs().max() > 0


def test_critic_learns_to_tell_sharp_from_blurry() -> None:
    critic, (blurry, sharp) = Critic(8), pair()
    learn(critic, lambda: adversarial.critic_loss(critic, blurry, sharp), 25, 1e-3)
    with torch.no_grad():
        assert float(critic(sharp).mean()) > float(critic(blurry).mean()) + 0.05


@pytest.mark.parametrize(("progress", "learning"), [(0.4, {"generator"}), (0.6, {"generator", "critic"})])
def test_deblurgans_critic_comes_later(progress: float, learning: set[str]) -> None:
    network = deblurgan.network()
    deblurgan.begin(network, progress)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learn(network, lambda: deblurgan.loss(network, pair(32)), 2, 1e-3)
    moved = {name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == learning
    assert deblurgan.RECIPE.exported(network) is network.generator
    picture = torch.rand(1, 3, 32, 32)
    assert torch.equal(network(picture), network.generator(picture))


# --- data


@pytest.fixture(scope="module")
def library() -> data.Library:
    """Photographs, and 60 frames of a video whose first value is their number."""
    frames = [drawn(9) for _ in range(60)]
    for number, frame in enumerate(frames):
        frame[:8, :8] = number
    indices = {True: range(0, 60, data.HOLD_OUT_EVERY), False: range(60)}
    kept = [frames[n] for n in indices[False] if n % data.HOLD_OUT_EVERY]
    held = [frames[n] for n in indices[True]]
    photos = [drawn(seed, 300, 400) for seed in range(4)]
    names = {"photos/cq100": photos, "faces/caltech": photos[:1]}
    return data.Library(blurnet.SHARES, {blurnet.SEQUENCE: kept, **names}, {blurnet.SEQUENCE: held, **names})


def test_the_videos_end_is_held_out(library: data.Library) -> None:
    numbers = [int(frame[0, 0, 0]) for frame in blurnet.sequence(library)]
    held = [int(frame[0, 0, 0]) for frame in blurnet.sequence(library, held_out=True)]
    assert numbers == list(range(len(numbers)))
    assert numbers + held == list(range(60))
    assert len(held) == min(blurnet.HELD_OUT_FRAMES, 30)


def test_pairs_are_deterministic_and_aligned(library: data.Library) -> None:
    blurry, sharp = blurnet.pairs(library, 24, 64, np.random.default_rng(5))
    again = blurnet.pairs(library, 24, 64, np.random.default_rng(5))
    assert blurry.shape == sharp.shape == (24, 64, 64, 3)
    assert blurry.dtype == sharp.dtype == np.float32
    assert 0 <= min(blurry.min(), sharp.min()) <= max(blurry.max(), sharp.max()) <= 1
    np.testing.assert_array_equal(blurry, again[0])
    np.testing.assert_array_equal(sharp, again[1])
    same = [bool((b == s).all()) for b, s in zip(blurry, sharp, strict=True)]
    assert 0 < sum(same) < 12  # sharp ones, to be left alone
    assert np.abs(blurry.mean((1, 2, 3)) - sharp.mean((1, 2, 3))).max() < 0.12


@pytest.mark.parametrize("kind", blurnet.KINDS)
@pytest.mark.parametrize("size", [(40, 50), (300, 220)])
def test_pairs_of_small_and_large_photographs(kind: str, size: tuple[int, int]) -> None:
    found, sharp = blurnet.photograph_pair(drawn(1, *size), 64, kind, np.random.default_rng(1))
    assert found.shape == sharp.shape == (64, 64, 3)
    assert found.dtype == sharp.dtype == np.uint8
    assert (found == sharp).all() == (kind == "sharp")
    assert kind == "sharp" or kind in blur.BLURS


def test_pairs_without_a_video(library: data.Library) -> None:
    photos = blurnet.photographs(library)
    assert blurnet.SEQUENCE not in photos.training
    assert blurnet.pairs(photos, 2, 32, np.random.default_rng(0))[0].shape == (2, 32, 32, 3)
    assert set(blurnet.held_out_pairs(photos)) == set(blurnet.KINDS)
    only_video = data.Library(library.shares, {blurnet.SEQUENCE: library.training[blurnet.SEQUENCE]}, {})
    with pytest.raises(FileNotFoundError, match=r"photographs beside .*photos/cq100"):
        blurnet.photographs(only_video)


def test_validation_tells_gains(library: data.Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blurnet, "HELD_OUT", (2, 64))
    found = blurnet.validator(library, tmp_path)(torch.zeros_like)
    kinds = [kind for kind in (*blurnet.KINDS, "frames") if kind != "sharp"]
    assert set(found) == {"sharp", *kinds, *(f"{kind}_gain" for kind in kinds)}
    assert found["sharp"] > 75  # nothing was added
    assert [found[f"{kind}_gain"] for kind in kinds] == [0] * len(kinds)
    assert all(10 < found[kind] < 60 for kind in ("motion", "defocus"))
    sheet = cv2.imread(str(tmp_path / "held_out.png"))
    assert sheet.shape == (3 * len(kinds) * 64, 2 * 64, 3)
