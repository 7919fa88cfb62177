"""Options of `restore-image` that do nothing are refused, masks count as they look, and outputs are tried out first."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from restore_plugin import image_cli, stills
from restore_plugin.regions import grown

PLACE = ("--regions", "16,16,24,24")
FILL = ("--task", "inpaint", "--method", "smooth")


def scene() -> np.ndarray:
    """(64, 64, 3)"""
    return np.ascontiguousarray(skimage.data.astronaut()[60:124, 180:244])


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene()).save("in.png")
    return Path("in.png")


def run(*arguments: object) -> int:
    return image_cli.main([str(argument) for argument in arguments])


def load(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_what_is_clear_in_a_mask_is_not_white(source: Path) -> None:
    white = np.full((64, 64, 3), 255, np.uint8)
    alpha = np.zeros((64, 64), np.uint8)
    alpha[16:40, 16:40], alpha[0:8, 0:8] = 128, 127
    Image.fromarray(np.dstack((white, alpha))).save("mask.png")
    assert run(source, *FILL, "--mask", "mask.png", "-o", "out.png") == 0
    differ = (load("out.png") != scene()).any(-1)
    assert differ[16:40, 16:40].mean() > 0.9
    differ[16:40, 16:40] = False
    assert not differ.any()


def test_a_mask_that_is_clear_all_over_marks_nothing(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.dstack((np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64), np.uint8)))).save("mask.png")
    assert run(source, *FILL, "--mask", "mask.png") == 3
    assert "nothing to restore" in capfd.readouterr().err


MOSAICS = [("--block", "8"), ("--block", "8", "--phase", "1,1"), ("--phase", "1,1"), ("--linear-light",)]
REFUSED = [
    *(((*task, *option), option[0]) for task in (FILL, ("--task", "derain")) for option in MOSAICS),
    (("--task", "automosaic", "--method", "review"), "review"),
    (("--task", "automosaic", "--method", "picture"), "--picture FILE"),
    (("--task", "automosaic", "--method", "solid", "--picture", "in.png"), "--method picture"),
    ((*FILL, "--picture", "in.png"), "--method picture"),
    ((*FILL, "--seed", "-1"), "--seed"),
    ((*FILL, "--seed", "1e3"), "--seed"),
    ((*FILL, "--seed", str(2**53 + 1)), "9007199254740992"),
    ((*FILL, "--feather", "1"), "--grow 1"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_options_that_do_nothing(
    source: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert run(source, *PLACE, *arguments) == 2
    said = capfd.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not Path("in.restored.png").exists()


def test_the_largest_seed(source: Path) -> None:
    assert run(source, "--task", "inpaint", "--method", "patches", *PLACE, "--seed", 2**53) == 0


def test_hidden_under_a_picture(source: Path) -> None:
    Image.new("RGB", (5, 5), (10, 200, 30)).save("cover.png")
    hide = ("--task", "automosaic", "--method", "picture", "--picture", "cover.png")
    assert run(source, *hide, *PLACE, "-o", "out.png") == 0
    out = load("out.png")
    assert (out[16:40, 16:40] == (10, 200, 30)).all()
    assert run(source, *hide, *PLACE, "-o", "cover.png", "--overwrite") == 2  # an input is never replaced


def test_feather_fades_over_all_but_its_innermost_px(source: Path) -> None:
    hole = np.zeros((64, 64), bool)
    hole[16:40, 16:40] = True
    assert run(source, *FILL, *PLACE, "--feather", 2, "-o", "soft.png") == 0
    assert run(source, *FILL, *PLACE, "--grow", 2, "-o", "hard.png") == 0
    soft, hard, old = load("soft.png").astype(int), load("hard.png").astype(int), scene().astype(int)
    assert np.array_equal(soft[hole], hard[hole])
    rim = np.zeros_like(hole)
    rim[20:36, 14] = True  # the outer of two px, away from corners
    assert (grown(hole, 2) & rim).sum() == 16
    assert np.abs(soft[rim] - (hard[rim] + old[rim]) / 2).max() <= 1
    assert np.abs(hard[rim] - old[rim]).max() > 10


def test_a_missing_folder_is_made(source: Path) -> None:
    assert run(source, *FILL, *PLACE, "-o", "new/deeper/out.png") == 0
    assert [path.name for path in Path("new/deeper").iterdir()] == ["out.png"]


@pytest.mark.parametrize(("inputs", "output"), [(["in.png"], "new/deeper/out.png"), (["in.png", "other.png"], "new")])
def test_a_missing_folder_is_not_made_for_nothing(source: Path, inputs: list[str], output: str) -> None:
    Image.fromarray(scene()).save("other.png")
    Image.fromarray(scene()[:32]).save("mask.png")  # of another size
    assert run(*inputs, *FILL, "--mask", "mask.png", "-o", output) == 2
    assert not Path("new").exists()


def test_trying_the_place_out_leaves_the_file_of_another_run(source: Path) -> None:
    part = Path(".out.png.part")
    part.write_bytes(b"half of another run")
    stills.check_place(Path("out.png"))
    stills.check_place(Path("new/out.png"))
    assert part.read_bytes() == b"half of another run"
    assert sorted(path.name for path in Path().iterdir()) == [".out.png.part", "in.png"]


@pytest.mark.parametrize(
    ("target", "words"), [("n" * 300 + ".png", "too long"), ("n" * 252 + ".png", "too long"), ("in.png/x.png", "Not a")]
)
def test_what_cannot_be_written_is_told_before_the_work(
    source: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, target: str, words: str
) -> None:
    monkeypatch.setattr(image_cli, "regions_of", lambda *_: pytest.fail("that was the work"))
    assert run(source, *FILL, *PLACE, "-o", target) == 5
    said = capfd.readouterr().err
    assert words in said
    assert "choose another" in said
    assert "space" not in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["in.png"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="all folders are open to root")
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_folder_that_is_closed(source: Path, capfd: pytest.CaptureFixture[str], mode: int) -> None:
    closed = Path("closed")
    closed.mkdir()
    closed.chmod(mode)
    try:
        assert run(source, *FILL, *PLACE, "-o", closed / "y.png") == 5
    finally:
        closed.chmod(0o700)
    said = capfd.readouterr().err
    assert "Permission denied" in said
    assert len(said.splitlines()) == 1


def test_of_several_pictures_those_that_are_done_stay(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """So the same command again goes on after one that was cut off."""
    again = (source, "two.png", *FILL, *PLACE, "-o", "out")
    Path("two.png").write_bytes(source.read_bytes())
    assert run(*again) == 0
    done, other = Path("out/in.restored.png"), Path("out/two.restored.png")
    wanted = other.read_bytes()
    other.unlink()
    done.write_bytes(b"of the run before")
    capfd.readouterr()
    assert run(*again) == 0
    assert f"{done} is there already and stays" in capfd.readouterr().err
    assert (done.read_bytes(), other.read_bytes()) == (b"of the run before", wanted)
    assert run(*again) == 2
    assert "all outputs are there already" in capfd.readouterr().err
    assert run(*again, "--overwrite") == 0
    assert done.read_bytes() == wanted
