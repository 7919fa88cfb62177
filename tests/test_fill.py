"""benchmarks/fill.py, run in this process on small drawn pictures."""

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "fill.py"
COLUMNS = ["PSNR in the hole", "over Telea", "SSIM", "GMSD", "texture", "s"]


@pytest.fixture(scope="module")
def fill() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fill", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """One of them of 4 n + 3 px, which the texture's grid does not take."""
    (tmp_path / "pictures").mkdir()
    for number, size in enumerate([(72, 96), (75, 83)]):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
        assert cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), cv2.resize(coarse, size[::-1]))
    return tmp_path / "pictures"


@pytest.fixture
def fails(fill: ModuleType, pictures: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The one line that a run ends with."""

    def run(*options: str, code: int = 2) -> str:
        capsys.readouterr()
        assert fill.main(options) == code
        printed = capsys.readouterr().err
        assert printed.startswith("fill.py: ")
        assert printed.count("\n") == 1
        return printed

    return run


def test_quality(fill: ModuleType, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("torch") is None and os.environ.get("REQUIRE_TORCH") != "1":
        pytest.skip("needs the extra `train`")
    sheet = tmp_path / "sheet.png"
    options = ["--methods", "smooth", "--bands", "5-10,20-30", "--sheet", str(sheet)]
    assert fill.main(["quality", str(pictures), *options]) == 0
    out = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if "| " in line]
    assert [line[0] for line in lines] == ["method", "telea", "smooth"] * 2
    assert lines[0][1:] == COLUMNS
    assert all(np.isfinite(float(line[5])) for line in lines if line[0] != "method")
    drawn = cv2.imread(str(sheet))
    assert drawn is not None
    assert drawn.shape == (4 * fill.SHEET_SIDE, 4 * fill.SHEET_SIDE, 3)


def test_options_that_cannot_be(fails: Any, pictures: Path, tmp_path: Path) -> None:
    quality = ("quality", str(pictures), "--methods", "smooth")
    for bands in ("x", "20-10", "0-0", "0-10", "10-90", "10", "", "10-20,"):
        assert "expected --bands" in fails(*quality, "--bands", bands)
    for option, value in (("--every", "0"), ("--rows", "0"), ("--rows", "-1"), ("--seed", "-1")):
        assert option in fails(*quality, option, value)
    for value in ("0", "-5", "8"):
        assert "--longest of at least" in fails(*quality, "--longest", value)
    for name in ("nowhere/x.png", "sheet", "sheet.jpg"):
        assert "--sheet ending in .png" in fails(*quality, "--sheet", str(tmp_path / name))


def test_methods_that_fill_no_holes(fails: Any, pictures: Path) -> None:
    for command in (("quality", str(pictures)), ("speed",)):
        assert "got bogus" in fails(*command, "--methods", "smooth,bogus")
        assert "got rainnet, which is for derain" in fails(*command, "--methods", "rainnet")


def test_pictures_that_are_none(fails: Any, pictures: Path, tmp_path: Path) -> None:
    assert "expected pictures below" in fails("quality", str(tmp_path / "nowhere"), "--methods", "smooth")
    assert cv2.imwrite(str(pictures / "0.png"), np.zeros((20, 200, 3), np.uint8))
    assert "0.png" in fails("quality", str(pictures), "--methods", "smooth")
    (pictures / "0.png").write_bytes(b"no picture")
    assert "could not decode" in fails("quality", str(pictures), "--methods", "smooth")


def test_what_a_process_that_is_timed_says(fill: ModuleType, fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = SimpleNamespace(returncode=1, stdout="", stderr="Traceback\nMemoryError: 24 MP\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    assert "smooth failed on 512x512: MemoryError: 24 MP" in fails("speed", "--methods", "smooth", code=1)
