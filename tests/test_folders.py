"""Which files of a folder `restore-video` and `restore-image` take, and where a seed does something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from media import BLOCK, BOX, FFV1, build
from PIL import Image

from ffmpeg_filters import cli
from restore_plugin import catalog, image_cli
from restore_plugin.errors import InputError
from restore_plugin.image_options import parse_options, parser
from restore_plugin.types import RestoreOptions

MOSAIC = ("--method", "bicubic", "--block", str(BLOCK), "--regions", ",".join(map(str, BOX)))
FILL = ("--task", "inpaint", "--method", "smooth")
PLACE = ("--regions", "16,16,24,24")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scene() -> np.ndarray:
    """(64, 64, 3)"""
    return np.ascontiguousarray(skimage.data.astronaut()[60:124, 180:244])


def save(path: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene()).save(path)
    return Path(path)


def restore_image(*arguments: object) -> int:
    return image_cli.main([str(argument) for argument in arguments])


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


# --- a folder of results is the next task's input

BESIDE = [  # what lies in a folder, and which of it is restored; EXT is a picture's or a video's
    (["one.restored"], ["one.restored"]),
    (["one", "one.restored"], ["one"]),
    (["one", "one.restored", "one.restored.restored"], ["one"]),
    (["one.restored", "one.restored.restored"], ["one.restored"]),
    (["one", "two.restored"], ["one", "two.restored"]),
    (["one", "one.restored.cut"], ["one", "one.restored.cut"]),
    (["a.b", "a.b.restored", "a.restored"], ["a.b", "a.restored"]),
]


@pytest.mark.parametrize(("there", "taken"), BESIDE)
@pytest.mark.parametrize("ending", ["mp4", "png"])
def test_a_result_is_left_out_only_beside_its_source(there: list[str], taken: list[str], ending: str) -> None:
    folder = Path("in")
    folder.mkdir()
    for name in there:
        (folder / f"{name}.{ending}").write_bytes(b"")
    found = cli.find_inputs([folder]) if ending == "mp4" else image_cli.pictures_in(folder)
    assert [path.name for path in found] == [f"{name}.{ending}" for name in taken]


def test_a_result_may_be_in_another_container_than_its_source() -> None:
    folder = Path("in")
    folder.mkdir()
    for name in ("one.avi", "one.restored.mkv", "two.hidden.mkv", "three.png", "three.review.mp4", "four.MOV"):
        (folder / name).write_bytes(b"")
    found = [path.name for path in cli.find_inputs([folder])]
    assert found == ["four.MOV", "one.avi", "three.review.mp4", "two.hidden.mkv"]
    (folder / "three.mp4").write_bytes(b"")
    (folder / "two.mp4").write_bytes(b"")
    assert [path.name for path in cli.find_inputs([folder])] == ["four.MOV", "one.avi", "three.mp4", "two.mp4"]


def test_a_second_task_on_restored_videos() -> None:
    Path("in").mkdir()
    clip = build(Path("in/one"), replace(FFV1, frames=2))
    assert cli.main(["in", *MOSAIC, "-o", "first", "--quiet"]) == 0
    assert cli.main(["first", *MOSAIC, "-o", "second", "--quiet"]) == 0
    assert names("second") == [f"one.restored.restored{clip.suffix}"]


def test_a_second_task_on_restored_pictures() -> None:
    save("in/one.png")
    assert restore_image("in", *FILL, *PLACE, "-o", "first") == 0
    assert restore_image("first", *FILL, *PLACE) == 0
    assert restore_image("first", *FILL, *PLACE, "--overwrite") == 0  # what is beside its source is no source
    assert names("first") == ["one.restored.png", "one.restored.restored.png"]


# --- a mask, or what hides faces, is not restored


def mask(path: str) -> Path:
    white = np.zeros((64, 64), np.uint8)
    white[16:40, 16:40] = 255
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(white).save(path)
    return Path(path)


def test_a_mask_in_the_folder_is_left_out() -> None:
    save("in/one.png")
    mask("in/hole.png")
    assert restore_image("in", *FILL, "--mask", Path("in/../in/hole.png"), "-o", "out") == 0
    assert names("out") == ["one.restored.png"]


def test_a_picture_that_hides_faces_is_left_out() -> None:
    save("in/one.png")
    save("in/cover.png")
    cover = ("--task", "automosaic", "--method", "picture", "--picture", "in/cover.png")
    assert restore_image("in", *cover, *PLACE, "-o", "out") == 0
    assert names("out") == ["one.restored.png"]


def test_a_mask_that_is_named_as_an_input_is_one() -> None:
    save("in/one.png")
    hole = mask("in/hole.png")
    assert restore_image("in", hole, *FILL, "--mask", hole, "-o", "out") == 0
    assert names("out") == ["hole.restored.png", "one.restored.png"]


def test_a_folder_with_nothing_but_the_mask(capfd: pytest.CaptureFixture[str]) -> None:
    hole = mask("in/hole.png")
    assert restore_image("in", *FILL, "--mask", hole, "-o", "out") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "expected pictures in the folder in" in line
    assert "hole.png" in line
    assert not Path("out").exists()


# --- seeds

METHODS = [row for row in catalog.METHODS if row.name != "review"]
FILLS = [row for row in METHODS if row.task == "inpaint"]


@pytest.mark.parametrize("row", FILLS, ids=lambda row: str(row.name))
def test_a_seed_makes_another_answer_where_the_table_says_so(row: catalog.Method) -> None:
    pixels = scene().astype(np.float32) / 255
    hole = np.zeros((64, 64), bool)
    hole[16:40, 16:40] = True
    one, other = (catalog.build_restorer(row, options=RestoreOptions(seed=seed))(pixels, hole) for seed in (1, 2))
    assert np.array_equal(one, other) is not row.draws


@pytest.mark.parametrize("row", METHODS, ids=lambda row: str(row.name))
@pytest.mark.parametrize("seed", ["0", "7"])
def test_a_seed_is_refused_where_nothing_is_drawn(row: catalog.Method, seed: str) -> None:
    asked = ["in.png", "--task", row.task, "--method", row.name]
    assert parse_options(parser().parse_args(asked)).seed == 0
    given = parser().parse_args([*asked, "--seed", seed])
    if row.name in ("fillnet", "patches"):
        assert parse_options(given).seed == int(seed)
    else:
        with pytest.raises(InputError, match=f"--seed goes with fillnet and patches; .*{row.name}"):
            parse_options(given)


def test_a_seed_that_is_refused_is_told_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert restore_image(save("in.png"), *FILL, *PLACE, "--seed", 7) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "--seed goes with" in line
    assert not Path("in.restored.png").exists()


def test_a_fill_without_a_place_names_both_ways(capfd: pytest.CaptureFixture[str]) -> None:
    assert restore_image(save("in.png"), *FILL) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "give --mask or --regions" in line
