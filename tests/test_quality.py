"""benchmarks/quality.py, run in this process on small drawn pictures."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from restore_plugin import mosaic
from restore_plugin.catalog import WEIGHTS

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "quality.py"


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quality", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(seed: int, height: int = 61, width: int = 80) -> np.ndarray:
    """Discs on a slope of brightness, (H, W, 3) uint8 RGB."""
    random = np.random.default_rng(seed)
    picture = np.tile(np.linspace(30, 220, width).astype(np.uint8)[None, :, None], (height, 1, 3))
    for _ in range(8):
        centre = (int(random.integers(0, width)), int(random.integers(0, height)))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        cv2.circle(picture, centre, int(random.integers(4, 15)), colour, -1, cv2.LINE_AA)
    return picture


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[..., ::-1])


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    for seed in range(3):
        save(tmp_path / "clean" / f"{seed}.png", drawn(seed))
    return tmp_path / "clean"


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every markdown table."""
    found = [block.splitlines() for block in text.split("\n\n") if block.lstrip().startswith("|")]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in block if line] for block in found]


def test_mosaics(quality: ModuleType, clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet, report = tmp_path / "sheet.png", tmp_path / "out.json"
    options = ["--clean", str(clean), "--degradation", "mosaic-8,mosaic-5.5", "--methods", "demosaic,bicubic"]
    assert quality.main([*options, "--sheet", str(sheet), "--json", str(report)]) == 0
    first, second, overview = tables(capsys.readouterr().out)
    columns = ["PSNR", "SSIM", "VIF", "GMSD", "gain", "worst", "over bicubic", "worst", "off by", "ms"]
    assert first[0] == ["mosaic-8", *columns]
    assert second[0] == ["mosaic-5.5", *columns]
    assert [line[0] for line in first[2:]] == ["damaged", "bicubic, not projected", "cellnet", "bicubic"]
    assert [line[0] for line in overview] == ["degradation", "---", "mosaic-8", "mosaic-5.5"]

    kept = json.loads(report.read_text())
    manifest = json.loads((WEIGHTS / "manifest.json").read_text())
    assert kept["weights"] == {"cellnet": manifest["cellnet.onnx"]["sha256"]}
    assert kept["command"].startswith("python ")
    rows = kept["results"]["mosaic-8"]
    assert list(rows["cellnet"]["pictures"]) == ["0.png", "1.png", "2.png"]
    each = [picture["psnr"] for picture in rows["cellnet"]["pictures"].values()]
    base = [picture["psnr"] for picture in rows["damaged"]["pictures"].values()]
    assert rows["cellnet"]["psnr"] == pytest.approx(np.mean(each))
    assert rows["cellnet"]["gain"] == pytest.approx(np.mean(np.subtract(each, base)))
    assert rows["cellnet"]["gain_worst"] == pytest.approx(np.min(np.subtract(each, base)))
    for method in ("cellnet", "bicubic"):  # the projection keeps the means, interpolation does not
        assert rows[method]["off_by"] < 0.6 < rows["bicubic, not projected"]["off_by"]
    # worked out here: what a mosaic of 8 px loses of the first picture
    truth = drawn(0).astype(np.float64) / 255
    edges = [np.append(np.arange(0, side, 8), side) for side in truth.shape[:2]]
    shown = np.round(mosaic.pixelate(truth, *edges) * 255) / 255
    assert base[0] == pytest.approx(-10 * np.log10(np.mean((shown - truth) ** 2)), abs=1e-3)

    drawn_sheet = cv2.imread(str(sheet))
    assert drawn_sheet is not None
    labelled = quality.SHEET_SIDE + quality.LABEL
    assert drawn_sheet.shape == (2 * 3 * labelled, 5 * quality.SHEET_SIDE, 3)
    assert drawn_sheet[: quality.LABEL].max() > 128  # the labels
    crop = drawn_sheet[quality.LABEL : quality.LABEL + 61, 4 * quality.SHEET_SIDE :][:, :80, ::-1]
    assert np.array_equal(crop, drawn(0))  # the truth, last, at 100 %


def test_linear_light(quality: ModuleType, clean: Path, tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    options = ["--clean", str(clean), "--degradation", "mosaic-8", "--methods", "bicubic", "--linear-light"]
    assert quality.main([*options, "--json", str(report)]) == 0
    assert json.loads(report.read_text())["results"]["mosaic-8"]["bicubic"]["off_by"] < 1.0


def test_what_is_no_mosaic(quality: ModuleType, clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No regions, no columns of mosaics; a method that finds nothing leaves the picture as it is; equal is 99 dB."""
    options = ["--clean", str(clean), "--degradation", "none", "--methods", "cellnet", "--limit", "1"]
    assert quality.main(options) == 0
    (table,) = tables(capsys.readouterr().out)
    assert table[0] == ["none", "PSNR", "SSIM", "VIF", "GMSD", "gain", "worst", "ms"]
    assert table[2] == ["damaged", "99.00", "1.000", "1.000", "0.000", "", "", ""]
    assert table[3][:7] == ["cellnet", "99.00", "1.000", "1.000", "0.000", "+0.00 dB", "+0.00 dB"]


def test_a_picture_s_damage_is_its_own(quality: ModuleType, clean: Path, tmp_path: Path) -> None:
    """The same whatever other pictures are taken; another with another seed."""
    results = []
    for extra in ([], ["--every", "2"], ["--seed", "5"]):
        report = tmp_path / "out.json"
        options = ["--clean", str(clean), "--degradation", "rain-heavy", "--methods", "cellnet", *extra]
        assert quality.main([*options, "--json", str(report)]) == 0
        results.append(json.loads(report.read_text())["results"]["rain-heavy"]["damaged"]["pictures"])
    assert list(results[1]) == ["0.png", "2.png"]
    assert results[1]["2.png"] == results[0]["2.png"] != results[2]["2.png"]


@pytest.mark.parametrize(
    ("damaged", "truth", "match"),
    [
        ("{}.jpg", "{}.png", []),
        ("rain-{}.png", "norain-{}.png", ["--match", r"^rain-(\d+)", r"^norain-(\d+)"]),
        ("{}_0.png", "{}.png", ["--match", r"^(\d+)"]),
    ],
)
def test_pairs(
    damaged: str, truth: str, match: list[str], quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    for seed in range(2):
        save(tmp_path / "a" / damaged.format(seed), cv2.blur(drawn(seed), (5, 5)))
        save(tmp_path / "b" / truth.format(seed), drawn(seed))
    report = tmp_path / "out.json"
    options = ["--pairs", str(tmp_path / "a"), str(tmp_path / "b"), "--methods", "cellnet", *match]
    assert quality.main([*options, "--json", str(report)]) == 0
    assert tables(capsys.readouterr().out)[0][0][0] == "pairs"
    pictures = json.loads(report.read_text())["results"]["pairs"]["damaged"]["pictures"]
    assert sorted(pictures) == [damaged.format(seed) for seed in range(2)]
    assert all(15 < scores["psnr"] < 40 for scores in pictures.values())


def test_several_damaged_share_a_clean_one(quality: ModuleType, tmp_path: Path) -> None:
    for name in ("7_0.png", "7_1.png"):
        save(tmp_path / "a" / name, cv2.blur(drawn(7), (3, 3)))
    save(tmp_path / "b" / "7.png", drawn(7))
    pairs = quality.matched(tmp_path / "a", tmp_path / "b", [r"^(\d+)"])
    assert [(name, clean.name) for name, clean, _ in pairs] == [("7_0.png", "7.png"), ("7_1.png", "7.png")]


def fails(quality: ModuleType, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line that a run ends with."""
    assert quality.main(options) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("quality.py: ")
    assert printed.count("\n") == 1
    return printed


def test_without_a_partner(
    quality: ModuleType, clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1, 2, 9):
        save(tmp_path / "damaged" / f"{seed}.png", drawn(seed))
    pairs = ("--pairs", str(tmp_path / "damaged"), str(clean), "--methods", "bicubic")
    assert "no partner for" in (line := fails(quality, capsys, *pairs))
    assert "9.png" in line
    assert "0.png" not in line
    assert "found none" in fails(quality, capsys, *pairs, "--match", "(nothing)")
    assert "one group" in fails(quality, capsys, *pairs, "--match", "rain")
    assert "unterminated" in fails(quality, capsys, *pairs, "--match", "(")


def test_pairs_that_cannot_be(quality: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = ("--pairs", str(tmp_path / "a"), str(tmp_path / "b"), "--methods", "bicubic")
    save(tmp_path / "a" / "1.png", drawn(1))
    save(tmp_path / "b" / "1.png", drawn(1)[:50])
    assert "of one size" in fails(quality, capsys, *pairs)
    save(tmp_path / "b" / "1.jpg", drawn(1))
    assert "one clean picture" in fails(quality, capsys, *pairs)


def test_what_is_not_there(
    quality: ModuleType, clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mosaics = ("--degradation", "mosaic-8", "--methods")
    (tmp_path / "empty").mkdir()
    assert "expected pictures below" in fails(quality, capsys, "--clean", str(tmp_path / "empty"), *mosaics, "bicubic")
    assert "got magic" in fails(quality, capsys, "--clean", str(clean), *mosaics, "bicubic,magic")
    for name in ("fog", "mosaic-0.5", ""):
        options = ("--clean", str(clean), "--methods", "bicubic", "--degradation", name)
        assert f"got '{name}'" in fails(quality, capsys, *options)
    for option in ("--every", "--limit", "--longest"):
        for value in ("0", "-1"):
            assert "at least 1" in fails(quality, capsys, "--clean", str(clean), *mosaics, "bicubic", option, value)
    save(clean / "small.png", drawn(4, 40, 80))
    assert "small.png" in fails(quality, capsys, "--clean", str(clean), *mosaics, "bicubic")
    (clean / "0.png").write_bytes(b"no picture")
    assert "could not decode" in fails(quality, capsys, "--clean", str(clean), *mosaics, "bicubic")


def test_what_would_have_no_effect(quality: ModuleType, clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = ("--clean", str(clean), "--methods", "bicubic", "--degradation")
    pairs = ("--pairs", str(clean), str(clean), "--methods", "rainnet")
    assert "expected mosaics for --linear-light" in fails(quality, capsys, *made, "rain-light,none", "--linear-light")
    assert "expected mosaics for --linear-light" in fails(quality, capsys, *pairs, "--linear-light")
    assert "--degradation with --clean only" in fails(quality, capsys, *pairs, "--degradation", "rain-light")
    assert "one pattern or two" in fails(quality, capsys, *pairs, "--match", "(.)", "(.)", "(.)")
    assert "with --pairs only" in fails(quality, capsys, *made, "mosaic-8", "--match", "(.)")


def test_outputs_are_looked_at_first(
    quality: ModuleType, clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--clean", str(clean), "--degradation", "mosaic-8", "--methods", "bicubic")
    for option, name in (("--sheet", "nowhere/s.png"), ("--json", "nowhere/out.json"), ("--json", "")):
        assert "in a folder that exists" in fails(quality, capsys, *options, option, str(tmp_path / name))
    for name in ("s.jpg", "s"):
        assert "ending in .png" in fails(quality, capsys, *options, "--sheet", str(tmp_path / name))
    assert quality.main(["--limit", "1", *options]) == 0
    assert capsys.readouterr().out.startswith("1 pictures")  # the others had printed nothing


def test_a_failing_sheet_keeps_the_figures(
    quality: ModuleType,
    clean: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    options = ("--clean", str(clean), "--degradation", "none", "--methods", "bicubic", "--limit", "1")
    outputs = ("--sheet", str(tmp_path / "s.png"), "--json", str(tmp_path / "out.json"))
    assert "No space left" in fails(quality, capsys, *options, *outputs)
    assert "none" in json.loads((tmp_path / "out.json").read_text())["results"]


def test_usage(quality: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["quality.py"])
    with pytest.raises(SystemExit, match="2"):
        quality.main()
    assert "--clean" in capsys.readouterr().err
