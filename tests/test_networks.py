"""The networks and their recipes: of the size they claim, able to learn, and trained by the command that is printed."""

import importlib.util
import itertools
import json
import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from engines import open_engine
from restore_plugin.catalog import WEIGHTS

if importlib.util.find_spec("torch") is None and os.environ.get("REQUIRE_TORCH") != "1":
    pytest.skip("needs the extra `train`", allow_module_level=True)

import torch
import torch_tests
from torch import nn

from restore_plugin.networks.cellnet import CellNet
from restore_plugin.networks.mosaic_finder import MosaicFinder
from restore_plugin.training import holes, loop, mosaics, recipe, recipes, scenes
from restore_plugin.training.recipes import (
    blurnet,
    cellnet,
    conv_autoencoder,
    deblurgan,
    did_mdn,
    fillnet,
    glcic,
    mosaic_finder,
    partial_conv,
    rainnet,
)

# every recipe there is: a new one is tested by being in the folder
RECIPES: dict[str, ModuleType] = {
    f"{module.name}.onnx": importlib.import_module(f"{recipes.__name__}.{module.name}")
    for module in pkgutil.iter_modules(recipes.__path__)
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {file: module.RECIPE.network for file, module in RECIPES.items()}
SECONDS = 2.0  # of training, in each run


def manifest() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((WEIGHTS / "manifest.json").read_text())
    return loaded


def drawn(random: np.random.Generator) -> np.ndarray:
    """256x256 with edges, curves and soft shading."""
    picture = cv2.resize(random.integers(40, 216, (4, 4, 3), np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        centre, axes = random.integers(0, 256, 2).tolist(), random.integers(6, 50, 2).tolist()
        cv2.ellipse(
            picture, centre, axes, float(random.uniform(0, 180)), 0, 360, colour, int(random.choice([-1, 2, 4]))
        )
    return picture


def cellnet_batch(random: np.random.Generator) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(each) for each in mosaics.batch([drawn(random) for _ in range(2)], 10, random))


def finder_batch(random: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Corners of scenes of which about half is hidden."""
    while True:
        made = scenes.make(lambda: drawn(random), random)
        luma = np.stack([scene.luma for scene in made])[:, None, :128, :128]
        hidden = np.stack([scene.hidden for scene in made])[:, None, :32, :32]
        blocks = np.stack([scene.blocks for scene in made])[:, :, :32, :32]
        if 0.3 < hidden.mean() < 0.7:
            return torch.from_numpy(luma), torch.from_numpy(hidden), torch.from_numpy(blocks)


def rainy_batch(random: np.random.Generator) -> tuple[torch.Tensor, ...]:
    crops = np.stack([drawn(random)[:64, :64].astype(np.float32) / 255 for _ in range(2)])
    return recipe.tensors(np.stack([rainnet.rainy(crop, "heavy", random) for crop in crops]), crops)


def blurry_batch(random: np.random.Generator) -> tuple[torch.Tensor, ...]:
    made = [blurnet.photograph_pair(drawn(random), 64, "motion", random) for _ in range(2)]
    return recipe.tensors(*(np.stack(each).astype(np.float32) / 255 for each in zip(*made, strict=True)))


def holes_batch(random: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two crops and their holes."""
    crops = [drawn(random)[:64, :64].astype(np.float32) / 255 for _ in range(2)]
    return crops, [holes.hidden(64, 64, "outlines", 0.2, random) for _ in crops]


BATCHES = {  # small ones, to learn by heart
    "cellnet.onnx": cellnet_batch,
    "mosaic_finder.onnx": finder_batch,
    "rainnet.onnx": rainy_batch,
    "did_mdn.onnx": lambda random: (*rainy_batch(random), torch.tensor([did_mdn.LABELS["heavy"]] * 2)),
    "blurnet.onnx": blurry_batch,
    "deblurgan.onnx": blurry_batch,
    "fillnet.onnx": lambda random: fillnet.samples(*holes_batch(random), 1, random),
    "glcic.onnx": lambda random: glcic.samples(holes_batch(random)[0], random),
    "partial_conv.onnx": lambda random: partial_conv.samples(*holes_batch(random)),
    "conv_autoencoder.onnx": lambda random: conv_autoencoder.samples(holes_batch(random)[0], random),
    "partial_conv_autoencoder.onnx": lambda random: conv_autoencoder.samples(holes_batch(random)[0], random),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that a machine without a graphics card makes and learns in seconds."""
    monkeypatch.setattr(cellnet, "POSITIONS", 600)
    monkeypatch.setattr(mosaic_finder, "BATCH", 2)
    monkeypatch.setattr(rainnet, "BATCH", 2)
    monkeypatch.setattr(rainnet, "SIDE", 64)
    monkeypatch.setattr(rainnet, "HELD_OUT", (2, 64))
    monkeypatch.setattr(blurnet, "BATCH", 2)
    monkeypatch.setattr(blurnet, "SIDE", 64)
    monkeypatch.setattr(blurnet, "HELD_OUT", (2, 64))
    monkeypatch.setattr(deblurgan, "BATCH", 2)
    monkeypatch.setattr(deblurgan, "SIDE", 64)
    monkeypatch.setattr(fillnet, "SIDES", (64,))
    monkeypatch.setattr(fillnet, "PIXELS", 2 * 64**2)
    monkeypatch.setattr(fillnet, "HELD_OUT", (2, 64))
    for module in (glcic, partial_conv, conv_autoencoder):
        monkeypatch.setattr(module, "BATCH", 2)
        monkeypatch.setattr(module, "SIDE", 64)
        monkeypatch.setattr(module, "HELD_OUT", 2)


calm = pytest.fixture(autouse=True)(torch_tests.calm)


def test_every_recipe_is_tested_and_every_shipped_network_has_one() -> None:
    """A recipe may await its weights; none are shipped without the recipe that made them."""
    assert set(RECIPES) == set(BATCHES)
    assert set(manifest()) <= set(RECIPES)
    assert [f"{module.RECIPE.name}.onnx" for module in RECIPES.values()] == list(RECIPES)


@pytest.mark.parametrize("file", manifest())
def test_parameter_count_of_shipped_networks(file: str) -> None:
    network = RECIPES[file].RECIPE.exported(NETWORKS[file]())
    assert torch_tests.count(network) == manifest()[file]["parameters"]


@pytest.mark.parametrize("file", NETWORKS)
def test_overfits_one_batch(file: str) -> None:
    batch, network = BATCHES[file](np.random.default_rng(4)), NETWORKS[file]()
    losses = torch_tests.learn(network, lambda: RECIPES[file].RECIPE.loss(network, batch), 60, 1e-3)
    assert np.mean(losses[-3:]) < 0.6 * losses[0], losses[::10]


def test_cellnet_starts_near_its_input() -> None:
    """A network that adds a residual begins with almost none, whatever it sees."""
    with torch.no_grad():
        residual = CellNet()(torch.rand(1, 4, 96, 96), torch.zeros(1, 4))
    assert residual.shape == (1, 3, 96, 96)
    assert 1e-6 < float(residual.std()) < 0.05


@pytest.mark.parametrize("size", [(32, 32), (96, 64)])
def test_mosaic_finder_answers_at_a_quarter(size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert MosaicFinder()(torch.rand(2, 1, *size)).shape == (2, 3, size[0] // 4, size[1] // 4)


SETS = ("photos/cq100", "photos/gopr0477", "faces/caltech")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(1)
    for name in SETS:
        (folder / name).mkdir(parents=True)
        for number in range(6):
            cv2.imwrite(str(folder / name / f"{number}.png"), drawn(random))
    return folder


@pytest.mark.parametrize("file", RECIPES)
def test_recipe_trains_and_goes_on(
    file: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in WEIGHTS.iterdir()}

    def run(minutes: float) -> dict[str, Any]:
        arguments = ["--data", str(pictures), "--out", str(tmp_path), "--threads", "1", "--minutes", str(minutes)]
        monkeypatch.setattr(sys, "argv", [file, *arguments])
        RECIPES[file].main()
        state: dict[str, Any] = torch.load(tmp_path / "checkpoint.pt")
        return state

    def log() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]

    first = run(SECONDS / 60)
    assert first["step"] >= 1
    assert first["seconds"] >= SECONDS
    entries = log()
    assert [entry["step"] for entry in entries] == [first["step"]] * 2
    assert entries[0]["loss"] > 0
    assert len(entries[1]) > 3  # what was measured on held-out pictures
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == entries

    again = run(SECONDS / 60)  # its time is used: nothing is trained
    assert again["step"] == first["step"]
    assert all(torch.equal(again["network"][name], value) for name, value in first["network"].items())

    longer = run(2 * SECONDS / 60)
    assert longer["step"] > first["step"]
    assert longer["seconds"] >= 2 * SECONDS
    assert log()[: len(entries)] == entries
    network, how_far = loop.load_averaged(NETWORKS[file](), tmp_path)
    assert how_far["steps"] == longer["step"]
    moved = [not torch.equal(value, first["averaged"][name]) for name, value in network.state_dict().items()]
    assert all(moved)
    assert {path: path.read_bytes() for path in WEIGHTS.iterdir()} == before  # shipped files only with --export


@pytest.mark.parametrize("file", RECIPES)
def test_interrupted_run_ends_as_one_that_was_not(
    file: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which every step takes a minute: of four, the third fails, after the checkpoint of the second."""
    steps = 0
    told = []

    def begin(network: nn.Module, progress: float) -> None:
        told.append(progress)
        RECIPES[file].RECIPE.begin(network, progress)

    def loss(network: nn.Module, batch: loop.Batch) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == fails_at:
            raise InterruptedError("the third step")
        value: torch.Tensor = RECIPES[file].RECIPE.loss(network, batch)
        return value

    def run(name: str) -> dict[str, Any]:
        torch.manual_seed(0)
        monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=itertools.count(0, 60).__next__))
        arguments = ["--data", str(pictures), "--out", str(tmp_path / name), "--threads", "1", "--minutes", "4"]
        monkeypatch.setattr(sys, "argv", [file, *arguments])
        changed = replace(RECIPES[file].RECIPE, loss=loss, begin=begin, validator=lambda *_: lambda network: {})
        recipe.run(changed)
        state: dict[str, Any] = torch.load(tmp_path / name / "checkpoint.pt")
        return state

    fails_at = 0
    whole = run("whole")
    steps, fails_at = 0, 3
    with pytest.raises(InterruptedError):
        run("interrupted")
    torch.rand(3)  # what else was random in between
    steps, fails_at = 0, 0
    resumed = run("interrupted")
    assert (whole["step"], resumed["step"], steps) == (4, 4, 2)
    assert told == [0, 0.25, 0.5, 0.75, 0, 0.25, 0.5, 0.5, 0.75]
    for part in ("network", "averaged"):
        differ = [name for name, value in whole[part].items() if not torch.equal(resumed[part][name], value)]
        assert differ == []
    curves = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "interrupted")]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("file", RECIPES)
def test_export_of_a_finished_run(file: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command writes runs, at any size, as torch does; its entry is as full as those of shipped networks."""
    arguments = ["--data", str(pictures), "--out", str(tmp_path / "run"), "--threads", "1", "--minutes", "0.001"]
    monkeypatch.setattr(sys, "argv", [file, *arguments])
    recipe.run(RECIPES[file].RECIPE, tmp_path)
    assert not (tmp_path / file).exists()
    monkeypatch.setattr(sys, "argv", [file, *arguments, "--export"])
    recipe.run(RECIPES[file].RECIPE, tmp_path)
    entry, shipped = json.loads((tmp_path / "manifest.json").read_text())[file], manifest()
    assert all(entry.keys() == one.keys() - {"begun_with"} for one in shipped.values())
    if file in shipped:
        assert entry["parameters"] == shipped[file]["parameters"]
        assert entry["measured"].keys() == shipped[file]["measured"].keys()
    assert entry["measured"]
    with open_engine("openvino", tmp_path / file) as engine:  # `ship` has compared the answers at the spec's sizes
        spec = RECIPES[file].RECIPE.spec()
        shapes = [tuple(next(iter(each.values())).shape) for each in (spec.inputs, *spec.others)]
        assert len(set(shapes)) >= 3
        for each in (spec.inputs, *spec.others):
            found = engine.run({name: tensor.numpy() for name, tensor in each.items()})[spec.output]
            assert np.isfinite(found).all()
    assert set(entry["data"]) == set(SETS) & set(RECIPES[file].RECIPE.shares)  # what it was trained on, no more
    assert (tmp_path / file).stat().st_size == entry["bytes"]


def test_projection_of_the_recipe_is_the_librarys() -> None:
    """The loss is taken after the same projection that the restorer uses."""
    from restore_plugin.consistency import keep_means

    random = np.random.default_rng(2)
    picture = random.uniform(0.3, 0.7, (16, 24, 3)).astype(np.float32)
    means = random.uniform(0.4, 0.6, (2, 3, 3)).astype(np.float32)
    mask = np.ones((16, 24), bool)
    mask[:, 20:] = False  # half of the last cells
    ours = keep_means(picture, mask, means, np.arange(0, 17, 8), np.arange(0, 25, 8))

    def channels_first(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)[None]))

    theirs = cellnet.project(
        channels_first(picture),
        channels_first(mask[..., None].astype(np.float32)),
        channels_first(means),
        torch.zeros(1),
    )
    np.testing.assert_allclose(theirs[0].numpy().transpose(1, 2, 0), ours, atol=1e-4)


def test_crops_in_another_light() -> None:
    """Within range, of the same order of brightness, the same for a seed, and never twice the same light."""
    ramp = np.repeat(np.linspace(0, 1, 32, dtype=np.float32)[None, :, None], 3, axis=2)
    lit = [mosaics.relit(ramp, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(lit[0], lit[1])
    assert np.abs(lit[0] - lit[2]).max() > 0.02
    for each in lit:
        assert each.dtype == np.float32
        assert each.min() >= 0
        assert each.max() <= 1
        steps = np.diff(each, axis=1)
        assert (steps >= 0).mean() > 0.5  # lit from the right or from the left, it stays a ramp for the most


def test_bent_crops() -> None:
    """Within range, the same for a seed, never twice the same, and nothing is far from where it was."""
    across = np.repeat(np.linspace(0, 1, 64, dtype=np.float32)[None, :, None], 64, axis=0).repeat(3, axis=2)
    found = [mosaics.bent(across, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 0.02
    for each in found:
        assert (each.shape, each.dtype, each.min() >= 0, each.max() <= 1) == (across.shape, np.float32, True, True)
        assert np.abs(each - across).max() < 0.15


def test_cellnets_loss_counts_decibels_and_only_what_is_hidden() -> None:
    """Of two crops with the same decibels to gain, the plain one counts as much as the busy one."""
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., :8] = 1
    miss = torch.tensor([0.5, 0.05])[:, None, None, None].expand(2, 3, 16, 16)
    found = cellnet.mean_square(miss, mask)
    torch.testing.assert_close(found, torch.tensor([0.25, 0.0025]), rtol=1e-2, atol=0)
    torch.testing.assert_close(cellnet.mean_square(miss * mask, mask), found)
    before, after = (torch.log1p(cellnet.mean_square(part * miss, mask) / cellnet.LEAST) for part in (1.0, 0.5))
    assert 0.8 < float((before - after)[1] / (before - after)[0]) < 1


def test_rainnets_loss_counts_drizzle_as_a_downpour() -> None:
    truth = torch.full((1, 3, 16, 16), 0.5)

    def lost(rain: float, left: float) -> float:
        picture = truth + rain
        return float(rainnet.loss(lambda given: truth + left - given, (picture, truth)))  # type: ignore[arg-type]

    light, heavy = (lost(rain, rain) - lost(rain, rain / 2) for rain in (0.02, 0.2))
    assert 0.5 < light / heavy < 1  # the plain mean: 0.1
