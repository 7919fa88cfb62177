"""`restore-plugin engines`, and --engine and --precision of the other commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_backends
import numpy as np
import pytest

import engines
from engines import Row, cache, check
from engines.cache import Entry
from restore_plugin import catalog
from restore_plugin.cli import main
from restore_plugin.engines_cli import networks

Run = Callable[..., tuple[int, str, str]]
FILES = [path.name for path in networks()]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(("engines", *arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One shipped network, which the engine `fake` builds."""
    weights = tmp_path / "weights"
    weights.mkdir()
    path = weights / "good.onnx"
    path.write_bytes(b"good")
    check.store(path, {"a": np.float32([[-1, 2]])}, {"b": np.float32([[0, 2]])})
    monkeypatch.setattr(catalog, "WEIGHTS", weights)
    monkeypatch.setattr(catalog, "METHODS", (catalog.Method("m", "t", "", "", "", weights="good.onnx"),))
    monkeypatch.setattr(catalog, "TASKS", (catalog.Task("t", "", "m"),))
    monkeypatch.setattr(catalog, "FINDERS", ())
    monkeypatch.setitem(engines.ENGINES, "fake", Row("fake_backends", "Fake", "fake_backends", None))
    return path


def test_list_names_every_backend(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert all(name in out for name in (*engines.ENGINES, "auto", "cpu", "fp32"))
    told = json.loads(run("list", "--json")[1])
    assert [row["name"] for row in told["backends"]] == list(engines.ENGINES)
    default = told["backends"][0]
    assert default["problem"] is None
    assert "fp32" in default["precisions"]
    assert told["cached"] == []


def test_list_says_what_would_help(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.ENGINES, "fake", Row("engines.not_there", "Fake", "fake_backends", "fake"))
    assert "pip install 'restore-plugin[fake]'" in run("list")[1]
    monkeypatch.setitem(engines.ENGINES, "fake", Row("fake_backends", "OldDriver", "fake_backends", "fake"))
    code, out, _ = run("list")
    assert code == 0
    assert "CUDA driver version is insufficient" in out


def test_check_runs_every_network_everywhere(run: Run) -> None:
    code, out, _ = run("check", "--json")
    told = json.loads(out)
    assert code == told["wrong"] == 0
    assert {row["network"] for row in told["checked"] if row["engine"] == "openvino"} == set(FILES)
    assert all(row["mean"] <= row["largest"] <= row["limit"] for row in told["checked"] if row["network"])
    code, out, _ = run("check", "--engine", "openvino")
    assert code == 0
    assert len(out.splitlines()) == len(FILES)


def test_check_finds_what_is_wrong(run: Run, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends that cannot read the network, and one that answers something else."""
    code, out, _ = run("check", "--engine", "fake")
    assert (code, out.split()[0]) == (0, "right")
    network.rename(network.with_name("wrong.onnx"))
    check.path_of(network).rename(network.with_name("wrong.check.npz"))
    monkeypatch.setattr(catalog, "METHODS", (catalog.Method("m", "t", "", "", "", weights="wrong.onnx"),))
    code, out, _ = run("check")
    assert code == 1
    assert "WRONG  wrong.onnx fake gpu fp16: fake on gpu in fp16 answers wrongly for wrong.onnx: off by 0.5" in out
    network.with_name("wrong.check.npz").unlink()
    code, out, _ = run("check", "--engine", "fake", "--json")
    assert code == 1
    assert "nothing to check wrong.onnx against" in json.loads(out)["checked"][0]["problem"]
    assert run("check", "--engine", "magic")[0] == 2


def test_build_list_and_clear(run: Run, network: Path, folder: Path) -> None:
    code, out, err = run("build", "--target", "fake", "--precision", "fp32")
    assert code == 0
    assert str(folder) in out
    assert "building good.onnx for fake on gpu" in err
    assert run("build", "--target", "fake", "--precision", "fp32")[2] == ""  # it is there
    assert len(network.with_name(fake_backends.COUNT).read_text().splitlines()) == 1
    code, out, _ = run("list")
    assert "good.onnx in fp32 for gpu" in out
    (entry,) = json.loads(run("list", "--json")[1])["cached"]
    assert entry["check"] == {"largest": 0.0, "mean": 0.0}
    assert entry["bytes"] > 100
    (path,) = folder.glob("*.engine")
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged" in run("list")[1]
    (folder / "mine.txt").write_text("not the cache's")
    code, out, _ = run("clear")
    assert code == 0
    assert out.startswith("removed 1 file, ")
    assert [each.name for each in folder.iterdir()] == ["mine.txt"]


def test_build_for_other_machines(run: Run, network: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, _ = run("build", "--target", "fake", "--compute", "89,86", "--precision", "fp16", "-o", str(out))
    assert code == 0
    assert "for compute 86, 89" in said
    (path,) = out.glob("*.engine")
    entry = Entry.read(path)
    assert entry.check is None
    assert entry.facts["target"]["compute"] == [86, 89]
    assert entry.facts["machine"] == {"fake": "1.0"}
    assert not folder.exists()
    out.rename(folder)  # as on that other machine
    (choice,) = engines.choices("fake", "fp16")
    assert engines.is_ready(choice, network)
    engines.open_choice(choice, network).close()


def test_build_where_there_is_nothing_to_build(run: Run) -> None:
    code, out, _ = run("build", "--target", "openvino", "--methods", "demosaic", "--json")
    assert code == 0
    assert {row["network"] for row in json.loads(out)["built"]} == {"cellnet.onnx", "mosaic_finder.onnx"}


WRONG: dict[str, tuple[tuple[str, ...], int, str]] = {
    "unknown engine": (("--target", "magic"), 2, "got magic"),
    "unknown precision": (("--target", "fake", "--precision", "fp7"), 2, "got fp7"),
    "precision that it lacks": (("--target", "fake", "--precision", "bf16"), 2, "got bf16"),
    "no numbers": (("--target", "fake", "--compute", "new"), 2, "such as 86,89,120, got new"),
    "nothing built ahead": (("--target", "openvino", "--compute", "86"), 2, "cannot be built ahead"),
    "auto for others": (("--compute", "86"), 2, "expected --target"),
    "unknown method": (("--target", "fake", "--methods", "magic"), 2, "got magic"),
    "folder": (("--target", "fake", "--compute", "86", "-o", "file"), 5, "could not be written"),
    "folder, for here": (("--target", "fake", "-o", "file"), 5, "could not be written"),
}


@pytest.mark.parametrize(("arguments", "code", "said"), WRONG.values(), ids=WRONG)
def test_mistakes(
    run: Run, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    found, _, err = run("build", *arguments)
    assert found == code
    assert said in err
    assert len(err.splitlines()[-1:]) == 1


def test_a_missing_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.ENGINES, "fake", Row("engines.not_there", "Fake", "fake_backends", "fake"))
    for arguments in (("build", "--target", "fake"), ("check", "--engine", "fake")):
        code, _, err = run(*arguments)
        assert code == 6
        assert "pip install 'restore-plugin[fake]'" in err


def test_a_build_that_crashes(run: Run, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = network.rename(network.with_name("crash.onnx"))
    monkeypatch.setattr(catalog, "METHODS", (catalog.Method("m", "t", "", "", "", weights=crash.name),))
    code, _, err = run("build", "--target", "fake")
    assert code == 1
    assert "crashed" in err.splitlines()[-1]


def test_both_commands_know_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ffmpeg_filters.cli import make_jobs, parser
    from restore_plugin.image_cli import main as image

    options = parser().parse_args(["in.mp4", "--engine", "onnxruntime:cpu", "--precision", "fp32", "--deterministic"])
    (job,) = make_jobs(options, False)
    assert job.engine == catalog.EngineOptions("onnxruntime:cpu", "fp32", True)
    source = tmp_path / "in.png"
    from PIL import Image

    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(source)
    where = (str(source), "--regions", "0,0,16,16", "--block", "8")
    assert image((*where, "--precision", "fp7")) == 2
    assert "got fp7" in capsys.readouterr().err
    assert image((*where, "--engine", "openvino:abacus")) == 2
    assert "out of cpu" in capsys.readouterr().err
    assert image((*where, "-o", str(tmp_path / "out.png"))) == 0
    assert capsys.readouterr().err.count("engine openvino on cpu in fp32 (chosen by auto") == 1
    assert image((*where, "-o", str(tmp_path / "quiet.png"), "--quiet")) == 0
    assert capsys.readouterr().err == ""


def test_settings_of_a_job_that_resumes_hold_the_engine(tmp_path: Path) -> None:
    from dataclasses import replace

    from ffmpeg_filters.asked import Job

    source = tmp_path / "in.mp4"
    source.write_bytes(b"video")
    job = Job(source, tmp_path / "out.mp4", "demosaic", "cellnet")
    other = replace(job, engine=catalog.EngineOptions("auto", "bf16"))
    assert job.settings() != other.settings()
    assert job.settings()["engine"] == {"engine": "auto", "precision": "auto", "deterministic": False}
