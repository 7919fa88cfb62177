"""The command that recipes share: what it says of options that cannot be, how a run goes on and ends, what is shipped.

With a recipe of one layer; the real ones are in test_networks.py.
"""

import importlib.util
import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import cv2
import numpy as np
import pytest

if importlib.util.find_spec("torch") is None and os.environ.get("REQUIRE_TORCH") != "1":
    pytest.skip("needs the extra `train`", allow_module_level=True)

import torch
import torch_tests
from torch import nn

from engines import check
from restore_plugin.training import data, export, loop, recipe

SET, OTHER = "photos/cq100", "photos/cars"
SECONDS = 0.05  # of training

calm = pytest.fixture(autouse=True)(torch_tests.calm)


def tiny_loss(network: nn.Module, batch: loop.Batch) -> torch.Tensor:
    return recipe.residual_loss(network, batch, 1e-3)


def tiny_batch(library: data.Library, random: np.random.Generator) -> loop.Batch:
    truth = library.choose(random)[None, :8, :8].astype(np.float32) / 255
    return recipe.tensors(truth * 0.9, truth)


TINY = recipe.Recipe(
    "tiny",
    "derain",
    lambda: nn.Conv2d(3, 3, 1),
    {SET: 1},
    tiny_batch,
    tiny_loss,
    lambda library, folder: lambda network: {"score": 1.0},
    lambda: recipe.residual_export(8),
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / SET
    folder.mkdir(parents=True)
    for number in range(3):
        assert cv2.imwrite(str(folder / f"{number}.png"), np.full((12, 16, 3), 60 * number, np.uint8))
    return tmp_path / "pictures"


@pytest.fixture
def train(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command with these options; it answers with the checkpoint."""

    def run(*options: str, of: recipe.Recipe = TINY) -> dict[str, Any]:
        usual = {"--data": str(pictures), "--out": str(tmp_path / "run"), "--minutes": str(SECONDS / 60)}
        given = [word for name, value in usual.items() if name not in options for word in (name, value)]
        monkeypatch.setattr(sys, "argv", ["tiny.py", *given, *options])
        recipe.run(of, tmp_path / "weights")
        state: dict[str, Any] = torch.load(tmp_path / "run" / "checkpoint.pt")
        return state

    (tmp_path / "weights").mkdir()
    return run


@pytest.fixture
def refused(train: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command with these options, which it refuses; the one line that it says."""

    def run(*options: str, of: recipe.Recipe = TINY) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            train(*options, of=of)
        assert ended.value.code == 2
        line = capsys.readouterr().err
        assert line.startswith(f"{of.name}: ")
        assert line.count("\n") == 1
        return line

    return run


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--minutes", value) for value in ("0", "-1", "nan", "inf", "long")),
        *(("--threads", value) for value in ("-2", "1000000")),
        *(("--limit", value) for value in ("0", "-1", "1.5")),
        *(("--seed", value) for value in ("-1", "99999999999")),
    ],
)
def test_numbers_that_cannot_be(option: str, value: str, train: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        train(f"{option}={value}")
    said = capsys.readouterr().err
    assert option in said
    assert said.rstrip().endswith(value) or repr(value) in said


def test_pictures_that_are_not_there(refused: Any, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / SET).mkdir(parents=True)
    assert f"{SET} in {tmp_path / 'nowhere'}, found none" in refused("--data", str(tmp_path / "nowhere"))
    assert "expected pictures below" in refused("--data", str(tmp_path / "empty"))
    (pictures / SET / "1.png").unlink()
    (pictures / SET / "2.png").unlink()
    assert "at least two pictures" in (line := refused())
    assert SET in line
    for content in (b"", b"no picture"):
        (pictures / SET / "1.png").write_bytes(content)
        assert "could not decode" in (line := refused())
        assert "1.png" in line
    assert not (tmp_path / "run").exists()


def test_a_set_is_divided(pictures: Path) -> None:
    library = data.load_library(pictures, {SET: 1}, limit=1)
    assert [len(sets[SET]) for sets in (library.training, library.held_out)] == [1, 1]


def test_out_is_a_file(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    assert "expected a folder for --out" in refused()
    assert "run" in refused("--out", str(tmp_path / "run" / "below"))


def test_what_a_run_was_begun_with(train: Any, refused: Any) -> None:
    state = train("--seed", "7")
    assert (state["recipe"], state["seed"]) == ("tiny", 7)
    assert "of the seed 0, it is of 7" in (line := refused())
    assert "--out" in line
    other = replace(TINY, name="other")
    assert "of the recipe other, it is of tiny" in refused("--seed", "7", of=other)
    assert train("--seed", "7")["step"] == state["step"]


def test_checkpoints_of_earlier_versions(train: Any, refused: Any, tmp_path: Path) -> None:
    """They hold neither recipe nor seed; what they hold is still compared."""
    state = train()
    torch.save({key: value for key, value in state.items() if key not in ("recipe", "seed")}, tmp_path / "old.pt")
    (tmp_path / "old.pt").replace(tmp_path / "run" / "checkpoint.pt")
    wider = replace(TINY, network=lambda: nn.Conv2d(3, 3, 3, padding=1))
    deeper = replace(TINY, network=lambda: nn.Sequential(nn.Conv2d(3, 3, 1)))
    assert "another network" in refused("--seed", "9", of=wider)
    assert "another network" in refused("--seed", "9", of=deeper)
    longer = train("--seed", "9", "--minutes", str(2 * SECONDS / 60))
    assert longer["step"] > state["step"]
    assert longer["seed"] == 9


def test_damaged_checkpoint(train: Any, refused: Any, tmp_path: Path) -> None:
    train()
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    for damaged in (b"", b"no checkpoint", whole[: len(whole) // 2]):
        checkpoint.write_bytes(damaged)
        assert "could not read" in (line := refused())
        assert str(checkpoint) in line
    torch.save(torch.zeros(3), checkpoint)
    refused()


def test_a_used_budget_is_said(train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = train()
    capsys.readouterr()
    assert train("--export")["step"] == state["step"]
    said = capsys.readouterr().out
    assert "this run has used its" in said
    assert "give a larger --minutes" in said
    assert (tmp_path / "weights" / "tiny.onnx").exists()


def test_a_run_cut_off_before_it_was_judged(train: Any, tmp_path: Path) -> None:
    train()
    log = tmp_path / "run" / "log.jsonl"
    before = log.read_text()
    train()  # nothing is left to do
    assert log.read_text() == before
    log.write_text("".join(line for line in before.splitlines(True) if "score" not in line))
    train("--export")
    assert json.loads((tmp_path / "weights" / "manifest.json").read_text())["tiny.onnx"]["measured"] == {"score": 1.0}


def test_the_shipped_command_says_what_was_drawn(train: Any, tmp_path: Path) -> None:
    train("--export", "--limit", "1", "--seed", "7")
    entry = json.loads((tmp_path / "weights" / "manifest.json").read_text())["tiny.onnx"]
    assert entry["command"].endswith("--minutes 1 --seed 7 --limit 1 --export")


def test_the_shipped_command_says_how_long(train: Any, tmp_path: Path) -> None:
    state = train()

    def command(minutes: float) -> str:
        torch.save(state | {"seconds": 60 * minutes}, tmp_path / "run" / "checkpoint.pt")
        train("--export")
        manifest = json.loads((tmp_path / "weights" / "manifest.json").read_text())
        assert manifest["tiny.onnx"]["minutes"] == round(minutes, 1)
        return str(manifest["tiny.onnx"]["command"])

    assert "tiny --data PICTURES --out RUN --minutes 1 --export" in command(0.01)
    assert "--minutes 210 " in command(210.01)
    assert "--minutes 211 " in command(210.2)


@pytest.mark.parametrize("fails", [False, True])
def test_no_thread_is_left(fails: bool, train: Any) -> None:
    """One inside of OpenCV when the process ends aborts it."""

    def loss(network: nn.Module, batch: loop.Batch) -> torch.Tensor:
        if fails:
            raise InterruptedError("the first step")
        return tiny_loss(network, batch)

    before = threading.active_count()
    for _ in range(2):  # the second time there is nothing to train
        if fails:
            with pytest.raises(InterruptedError):
                train(of=replace(TINY, loss=loss))
        else:
            train(of=replace(TINY, loss=loss))
        assert threading.active_count() == before


def test_batches_are_in_order_and_their_errors_are_raised() -> None:
    def make(number: int) -> int:
        if number == 9:
            raise ZeroDivisionError("the ninth")
        return number

    batches = data.batches(make, 5)
    assert [next(batches) for _ in range(4)] == [5, 6, 7, 8]
    with pytest.raises(ZeroDivisionError):
        next(batches)


class Wrong(nn.Module):
    """Answers in torch otherwise than in ONNX; `by` is added to what is exported."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return picture + self.by if torch.onnx.is_in_onnx_export() else picture * 1


@pytest.mark.parametrize("by", [0.5, float("nan")])
def test_a_network_that_fails_its_check_replaces_nothing(by: float, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    export.write_onnx(Wrong(0.0), recipe.residual_export(8), path)
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    assert set(before) == {path, check.path_of(path)}
    assert check.stored(path) is not None
    with pytest.raises(ValueError, match=r"tiny\.onnx differs from torch"):
        export.write_onnx(Wrong(by), recipe.residual_export(8), path)
    assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_a_run_that_cannot_be_entered_replaces_nothing(train: Any, tmp_path: Path, refused: Any) -> None:
    train("--export")
    before = {each: each.read_bytes() for each in (tmp_path / "weights").iterdir()}
    assert {each.name for each in before} == {"tiny.onnx", "tiny.check.npz", "manifest.json"}
    train("--minutes", str(2 * SECONDS / 60))
    (tmp_path / "run" / "log.jsonl").unlink()
    (tmp_path / "run" / "log.jsonl").mkdir()
    assert "log.jsonl" in refused("--export")
    assert {each: each.read_bytes() for each in (tmp_path / "weights").iterdir()} == before


def test_begin_with_what_is_shipped(train: Any, tmp_path: Path) -> None:
    """A run that goes on from shipped weights; the entry counts what went before."""

    def entry() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / "weights" / "manifest.json").read_text())["tiny.onnx"]
        return found

    first = train("--minutes", str(20 * SECONDS / 60), "--export")
    before, other = entry(), ("--out", str(tmp_path / "other"), "--shipped")
    assert "begun_with" not in before
    assert "--shipped" not in before["command"]
    told = {name: before[name] for name in ("sha256", "steps", "minutes", "data")}
    other = (*other, "--data", str(tmp_path / "others"))  # pictures of another set
    copytree(tmp_path / "pictures" / SET, tmp_path / "others" / OTHER)
    begun: list[torch.Tensor] = []
    again = replace(
        TINY, shares={SET: 1, OTHER: 1}, begin=lambda network, progress: begun.append(network.weight.detach().clone())
    )
    train(*other, of=again)
    torch.testing.assert_close(begun[0], first["averaged"]["weight"], rtol=0, atol=0)

    assert not torch.equal(begun[-1], begun[0])
    train(*other, "--minutes", str(2 * SECONDS / 60), "--export", of=again)  # goes on, and does not begin again
    state = torch.load(tmp_path / "other" / "checkpoint.pt")
    assert state["begun_with"] == told
    assert entry()["begun_with"] == before["sha256"] != entry()["sha256"]
    assert entry()["steps"] == before["steps"] + state["step"]
    assert entry()["command"].endswith("--export --shipped")
    assert set(entry()["data"]) == {SET, OTHER}


def test_nothing_to_begin_with(train: Any, refused: Any, tmp_path: Path) -> None:
    assert "there is no tiny.onnx" in refused("--shipped")
    train("--export")
    wide = replace(TINY, network=lambda: nn.Conv2d(3, 3, 3, padding=1))
    for path in (tmp_path / "run").iterdir():
        path.unlink()
    assert "its layers are others" in refused("--shipped", of=wide)
    assert not list((tmp_path / "run").iterdir())
