"""What a run keeps that is cut off early, what the next one says of it, and what it does not go on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from media import BLOCK, BOX, CLIPS, FFV1, Clip, build, decode, planes

from ffmpeg_filters import render
from ffmpeg_filters.asked import Job, ResumeFolder
from ffmpeg_filters.cli import main
from ffmpeg_filters.progress import Progress
from ffmpeg_filters.spool import Coded, Spool
from restore_plugin import catalog

ROOT = Path(__file__).parent.parent
FAST = ("--method", "bicubic", "--block", str(BLOCK), "--regions", ",".join(map(str, BOX)))
FRAMES = 10
FRAME_SECONDS = 20.0  # of the slow clock


class PowerCut(BaseException):
    """Unlike Ctrl-C, nothing is done about it."""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return build(tmp_path / "in", replace(FFV1, frames=FRAMES))


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames were done when a part was closed."""
    closed: list[int] = []
    close = Spool.close_part
    monkeypatch.setattr(Spool, "close_part", lambda self, frames: (closed.append(frames), close(self, frames)))
    return closed


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The frames that were encoded; on a clock by which each takes FRAME_SECONDS."""
    made: list[int] = []
    add = render.PartEncoder.add

    def slow(self: Any, frame: Any, *when: Any) -> None:
        add(self, frame, *when)
        made.append(frame.index)

    clock = SimpleNamespace(monotonic=lambda: float(len(made) * FRAME_SECONDS))
    monkeypatch.setattr(render, "time", clock, raising=False)
    monkeypatch.setattr(render, "FEWEST_FRAMES", 2)
    monkeypatch.setattr(render.PartEncoder, "add", slow)
    return made


def restore(source: Path) -> int:
    return main([str(source), "-o", str(source.with_name(f"out{source.suffix}")), *FAST])


def cut_off(source: Path, made: list[int], at: int, error: type[BaseException]) -> None:
    """Frame `at` is encoded, then the run ends while it waits for the next."""
    with pytest.MonkeyPatch.context() as patch:

        def step(_: Progress) -> None:
            if made[-1] == at:
                raise error

        patch.setattr(Progress, "step", step)
        if error is KeyboardInterrupt:
            assert restore(source) == 130
        else:
            with pytest.raises(error):
                restore(source)
    made.clear()


def test_a_slow_run_keeps_what_it_made_every_minute(clip: Path, parts: list[int], encoded: list[int]) -> None:
    assert restore(clip) == 0
    assert parts == [3, 6, 9, 10]
    assert encoded == list(range(FRAMES))


def test_the_slowest_run_has_parts_of_some_frames(
    clip: Path, parts: list[int], encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "FEWEST_FRAMES", 7)
    assert restore(clip) == 0
    assert parts == [7, 10]


def test_a_fast_run_has_few_parts(tmp_path: Path, parts: list[int]) -> None:
    source = build(tmp_path / "in", replace(FFV1, frames=620, size=(32, 16), box=(0, 0, 16, 16)))
    assert main([str(source), *FAST[:4], "--regions", "0,0,16,16"]) == 0
    assert parts == [300, 600, 620]


@pytest.mark.parametrize(("error", "first"), [(PowerCut, 3), (KeyboardInterrupt, 5)])
def test_what_was_made_early_is_gone_on_with(
    clip: Path, encoded: list[int], capfd: pytest.CaptureFixture[str], error: type[BaseException], first: int
) -> None:
    cut_off(clip, encoded, 4, error)
    capfd.readouterr()
    assert restore(clip) == 0
    assert encoded == list(range(first, FRAMES))
    assert f"going on with the run that was cut off, from frame {first} " in capfd.readouterr().out
    after, once = decode(clip.with_name("out.mkv")), clip.with_name("once.mkv")
    assert main([str(clip), "-o", str(once), *FAST]) == 0
    for one, other in zip(after, decode(once), strict=True):
        assert one.time == other.time
        assert all(np.array_equal(*pair) for pair in zip(planes(one), planes(other), strict=True))


def test_a_part_that_was_cut_off_in_the_encoder_is_made_anew(
    clip: Path, encoded: list[int], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder may have kept what it was about to give: closed, the part would lack a frame."""
    append = Spool.append

    def interrupted(self: Spool, packet: Coded) -> None:
        if len(encoded) == 4:
            raise KeyboardInterrupt
        append(self, packet)

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "append", interrupted)
        assert restore(clip) == 130
    encoded.clear()
    assert restore(clip) == 0
    assert encoded == list(range(3, FRAMES))
    assert "going on with the run that was cut off, from frame 3 " in capfd.readouterr().out
    assert len(decode(clip.with_name("out.mkv"))) == FRAMES


def test_where_nothing_was_kept_nothing_is_gone_on_with(
    clip: Path, encoded: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    cut_off(clip, encoded, 1, PowerCut)
    assert (clip.parent / f".out{clip.suffix}.resume" / "plan.jsonl").exists()  # of the regions given, not of a scan
    capfd.readouterr()
    assert restore(clip) == 0
    assert encoded == list(range(FRAMES))
    assert "going on" not in capfd.readouterr().out


def test_what_is_said_of_a_scan_that_was_cut_off(tmp_path: Path) -> None:
    with ResumeFolder(tmp_path / "out.mkv", {}) as folder:
        assert folder.kept == ""
        folder.detections.touch()
        assert folder.kept == ""
        folder.detections.write_text('{"frame": 0}\n{"frame": 1}\n{"fra')
        assert folder.kept == "with its scan, from frame 2"
        folder.plan.touch()
        Spool(folder.spool).close()
        assert folder.kept == "with what it found"


@pytest.mark.parametrize("made", [CLIPS[name] for name in ("b_frames", "hevc_10_bit", "vp9_odd", "av1")])
def test_the_shortest_parts_make_a_whole_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Clip) -> None:
    """Of one frame each."""
    monkeypatch.setattr(render, "PART_SECONDS", 0.0)
    monkeypatch.setattr(render, "FEWEST_FRAMES", 1)
    source = build(tmp_path / "in", made)
    assert restore(source) == 0
    before, after = decode(source), decode(source.with_name(f"out{made.suffix}"))
    assert [frame.time for frame in after] == [frame.time for frame in before]
    assert all(frame.key_frame for frame in after)
    for one, other in zip(before, after, strict=True):
        top = (1 << one.format.components[0].bits) - 1
        assert np.abs(planes(one)[0] / top - planes(other)[0] / top).mean() < 0.02


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_after_a_few_slow_frames(tmp_path: Path) -> None:
    source = build(tmp_path / "in", replace(FFV1, frames=20))
    arguments = [str(source), "--task", "inpaint", "--method", "telea", "--regions", ",".join(map(str, BOX))]
    program = "import sys; from ffmpeg_filters.cli import main; sys.exit(main(sys.argv[1:]))"
    slow = (
        "import time; from ffmpeg_filters import render; fast = render.restore_frame; "
        f"render.restore_frame = lambda *given: (time.sleep(0.4), fast(*given))[1]; {program}"
    )
    started = subprocess.Popen(
        [sys.executable, "-B", "-c", slow, *arguments, "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    for line in started.stdout:
        if json.loads(line).get("done", 0) >= 2:
            break
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert (started.returncode, said.count("run the same command again to go on")) == (130, 1)
    again = subprocess.run(
        [sys.executable, "-B", "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (again.returncode, again.stderr) == (0, "")
    (told,) = (line for line in again.stdout.splitlines() if "going on" in line)
    assert int(told.partition("from frame ")[2].split()[0]) >= 2
    assert "20 of 20 frames restored" in again.stdout


# Other networks


@pytest.fixture
def retrain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the manifest say that a network is another one."""
    manifest = json.loads((catalog.WEIGHTS / "manifest.json").read_text())
    folder = tmp_path / "weights"
    folder.mkdir()

    def change(name: str) -> None:
        manifest[name]["sha256"] = manifest[name]["sha256"][::-1]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        monkeypatch.setattr(catalog, "WEIGHTS", folder)

    return change


@pytest.mark.parametrize(
    ("job", "networks"),
    [
        (("demosaic", "cellnet"), ("cellnet.onnx", "mosaic_finder.onnx")),
        (("demosaic", "bicubic"), ("mosaic_finder.onnx",)),
        (("derain", "rainnet"), ("rainnet.onnx",)),
    ],
)
def test_a_job_is_another_with_other_networks(
    tmp_path: Path, retrain: Callable[[str], None], job: tuple[str, str], networks: tuple[str, ...]
) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(b"video")
    asked = Job(source, tmp_path / "out.mp4", *job)
    shipped = json.loads((catalog.WEIGHTS / "manifest.json").read_text())
    known = asked.settings()
    assert known["networks"] == {name: shipped[name]["sha256"][:12] for name in networks}
    retrain("fillnet.onnx")
    assert asked.settings() == known
    for name in networks:
        retrain(name)
        assert asked.settings() != known
        known = asked.settings()


def test_a_job_without_networks_of_ours_asks_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "WEIGHTS", tmp_path)
    assert Job(tmp_path, tmp_path, "automosaic", "blocks").networks() == {}


def test_a_run_begun_with_another_network_is_not_gone_on_with(
    clip: Path, encoded: list[int], retrain: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    cut_off(clip, encoded, 4, PowerCut)
    retrain("mosaic_finder.onnx")
    capfd.readouterr()
    assert restore(clip) == 0
    assert encoded == list(range(FRAMES))
    assert "going on" not in capfd.readouterr().out


def test_telling_networks_apart_loads_no_engine(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ffmpeg_filters.asked import Job; "
        "assert Job(Path(), Path(), 'demosaic', 'cellnet').networks(); "
        "print(*{'torch', 'openvino', 'onnxruntime', 'tensorrt', 'onnx'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
