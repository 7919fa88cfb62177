"""What `restore-video` does with bad input, bad options and bad luck.

It ends with the right code and one line that says why; inputs and earlier outputs stay untouched, and nothing is left
behind but the resume folder beside the output, where there is work to go on with.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import media
import numpy as np
import pytest
from media import BLOCK, BOX, CLIPS, FFV1, PLAIN, Audio, Clip, build, decode, planes

from ffmpeg_filters.cli import main
from ffmpeg_filters.encoders import EncodeOptions, choose, open_encoder
from ffmpeg_filters.mux import Muxer
from ffmpeg_filters.reader import probe
from restore_plugin.errors import OutputError

ROOT = Path(__file__).parent.parent
REGION = ",".join(map(str, BOX))
TASK = ("--task", "demosaic", "--method", "bicubic", "--block", str(BLOCK))


def arguments(source: Path, output: Path, *options: str) -> list[str]:
    given = any(option.startswith(("--regions", "--plan")) for option in options)
    return [str(source), "-o", str(output), *TASK, *(() if given else ("--regions", REGION)), *options]


def run(source: Path, output: Path, *options: str) -> int:
    try:
        return main(arguments(source, output, *options))
    except SystemExit as end:  # argparse ends so
        return int(end.code or 0)


def complaints(text: str) -> list[str]:
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("restore-video: ")]


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


class Attempt:
    """Runs that must fail, and leave the folder as it was."""

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.captured = captured

    def fails(self, code: int, source: Path, output: Path, *options: str) -> str:
        """Returns the line that says why."""
        before = contents(self.folder)
        self.captured.readouterr()
        assert run(source, output, *options) == code
        (line,) = complaints(self.captured.readouterr().err)
        assert contents(self.folder) == before
        return line


@pytest.fixture
def attempt(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Attempt:
    return Attempt(tmp_path, capfd)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return build(tmp_path / "in", PLAIN)


# Bad input


def empty(folder: Path) -> Path:
    path = folder / "in.mp4"
    path.touch()
    return path


def without_its_end(folder: Path) -> Path:
    """An MP4 has its index, the moov box, at the end."""
    return media.truncate(build(folder / "in", PLAIN), 0.6)


def text(folder: Path) -> Path:
    path = folder / "in.mp4"
    path.write_text("This is not a video.\n" * 100)
    return path


def noise(folder: Path) -> Path:
    path = folder / "in.mkv"
    path.write_bytes(np.random.default_rng(0).bytes(10_000))
    return path


def audio_only(folder: Path) -> Path:
    return media.build_audio_only(folder / "in.m4a")


def a_folder(folder: Path) -> Path:
    path = folder / "in.mp4"
    path.mkdir()
    return path


def missing(folder: Path) -> Path:
    return folder / "nowhere.mp4"


@pytest.mark.parametrize("make", [empty, without_its_end, text, noise, audio_only, a_folder, missing])
def test_input_that_is_no_video(tmp_path: Path, attempt: Attempt, make: Callable[[Path], Path]) -> None:
    source = make(tmp_path)
    assert str(source) in attempt.fails(2, source, tmp_path / "out.mp4")


def test_a_file_that_ends_early_is_restored_as_far_as_it_goes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Matroska can be read without its end."""
    source = media.truncate(build(tmp_path / "in", replace(FFV1, frames=10)), 0.6)
    capfd.readouterr()
    assert run(source, tmp_path / "out.mkv") == 0
    assert 4 <= len(decode(tmp_path / "out.mkv")) <= 6


@pytest.mark.parametrize("damage", ["flip", "erase"])
@pytest.mark.parametrize("kind", [PLAIN, FFV1, CLIPS["vp9_odd"], CLIPS["hevc_10_bit"]], ids=lambda clip: clip.codec)
def test_a_corrupt_frame(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: Clip, damage: str) -> None:
    """Every frame is there at its time, and a line names the bad one."""
    whole = replace(kind, frames=10)
    times = [frame.time for frame in decode(build(tmp_path / "whole", whole))]
    source = build(tmp_path / "in", replace(whole, damage=damage))
    before = source.read_bytes()
    output = (tmp_path / "out").with_suffix(kind.suffix)
    capfd.readouterr()
    assert run(source, output) == 0
    lines = complaints(capfd.readouterr().err)
    assert [frame.time for frame in decode(output)] == times
    assert source.read_bytes() == before
    if damage == "erase" or kind.codec == "ffv1":  # elsewhere flipped bits may well decode to something
        assert any("0.200 s" in line for line in lines)


# Bad options


@pytest.mark.parametrize(
    "region",
    [
        *("32,16,0,48", "32,16,64,0", "32,16,-8,48", "-8,16,64,48"),  # empty, or left of the picture
        *("120,16,64,48", "32,80,64,48", "1000,1000,8,8"),  # outside
        *("", "32,16,64", "a,b,c,d", "32,16,64,48,half", "32 16 64 48", "32,16,64,48,2-1", "1e9,0,8,8", "nan,0,8,8"),
    ],
)
def test_a_region_that_cannot_be(tmp_path: Path, clip: Path, attempt: Attempt, region: str) -> None:
    attempt.fails(2, clip, tmp_path / "out.mp4", f"--regions={region}")


@pytest.mark.parametrize(
    "options",
    [
        ("--codec", "nonsense"),
        ("--pix-fmt", "nonsense"),
        ("--quality", "good"),
        ("--method", "nonsense"),
        ("--task", "nonsense"),
        ("--block", "0"),
        ("--block", "-8"),
        ("--block", "nan"),
        ("--start", "late"),
        ("--start", "0.3", "--end", "0.2"),
        ("--start", "100"),
        ("--preview", "100"),
        ("--nonsense",),
    ],
    ids=" ".join,
)
def test_an_option_that_cannot_be(tmp_path: Path, clip: Path, attempt: Attempt, options: tuple[str, ...]) -> None:
    attempt.fails(2, clip, tmp_path / "out.mp4", *options)


def write_plan(path: Path, source: dict[str, object], task: str = "demosaic", box: tuple[int, ...] = BOX) -> Path:
    head = {"plan": 1, "task": task, "source": source}
    frame = {"frame": 0, "regions": [{"id": 1, "box": list(box), "block": [BLOCK, BLOCK]}]}
    path.write_text(f"{json.dumps(head)}\n{json.dumps(frame)}\n")
    return path


@pytest.mark.parametrize("fault", ["another video", "another task", "outside", "not json", "empty", "missing"])
def test_a_plan_that_does_not_fit(tmp_path: Path, clip: Path, attempt: Attempt, fault: str) -> None:
    plan = tmp_path / "plan.jsonl"
    match fault:
        case "another video":
            write_plan(plan, {"bytes": 1, "sha256": "0" * 64})
        case "another task":
            write_plan(plan, {}, task="inpaint")
        case "outside":
            write_plan(plan, {}, box=(120, 16, 64, 48))
        case "not json":
            write_plan(plan, {})
            plan.write_text(plan.read_text() + "{broken\n")
        case "empty":
            plan.touch()
    attempt.fails(2, clip, tmp_path / "out.mp4", "--plan", str(plan))


def test_an_output_that_exists(tmp_path: Path, clip: Path, attempt: Attempt) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    assert "--overwrite" in attempt.fails(2, clip, output)
    assert run(clip, output, "--overwrite") == 0
    assert len(decode(output)) == PLAIN.frames


@pytest.mark.parametrize("name", ["in.mp4", "./in.mp4", "link.mp4"])
def test_an_output_that_is_the_input(tmp_path: Path, clip: Path, attempt: Attempt, name: str) -> None:
    (tmp_path / "link.mp4").symlink_to(clip)
    attempt.fails(2, clip, tmp_path / name, "--overwrite")


@pytest.mark.parametrize("name", ["out", "out.txt", "out.nonsense"])
def test_an_output_that_names_no_container(tmp_path: Path, clip: Path, attempt: Attempt, name: str) -> None:
    before = contents(tmp_path)
    assert run(clip, tmp_path / name) in (2, 4)
    assert len(complaints(attempt.captured.readouterr().err)) == 1
    assert contents(tmp_path) == before


def test_a_codec_that_cannot_be_written_is_refused(tmp_path: Path, attempt: Attempt) -> None:
    """FFmpeg reads more codecs than it writes; no other one is chosen unasked."""
    source = build(tmp_path / "in", Clip(".ts", "mpeg2video", options={}, audio=[Audio("mp2")]))
    assert "--codec" in attempt.fails(4, source, tmp_path / "out.ts")
    assert run(source, tmp_path / "out.ts", "--codec", "h264") == 0
    assert len(decode(tmp_path / "out.ts")) == len(decode(source))


# Bad luck


@pytest.mark.parametrize("folder", ["in.mp4/below", "in.mp4"])
def test_an_output_folder_that_is_a_file(tmp_path: Path, clip: Path, attempt: Attempt, folder: str) -> None:
    """Tests may run as root, whom permissions do not stop."""
    attempt.fails(5, clip, tmp_path / folder / "out.mp4")


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="a folder where nobody may write")
def test_an_output_that_cannot_be_opened(clip: Path) -> None:
    """It is no fault of the container's."""
    info = probe(clip)
    options = EncodeOptions()
    row = choose(info, options)
    sample = decode(clip)[0]
    encoder = open_encoder(row, options, info, sample, global_header=True)
    with pytest.raises(OutputError, match="another place"):
        Muxer(Path("/sys/kernel/out.mp4"), info, "note").check(row, options, sample, encoder.extradata)


def start(source: Path, output: Path, *options: str, file_limit: int | None = None) -> subprocess.Popen[str]:
    """The command as a process; `file_limit` (bytes) makes its writes fail as on a full disk."""
    program = "import sys; from ffmpeg_filters.cli import main; sys.exit(main(sys.argv[1:]))"
    if file_limit is not None:
        program = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({file_limit},) * 2); {program}"
    return subprocess.Popen(
        [sys.executable, "-B", "-c", program, *arguments(source, output, *options)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def leftovers(folder: Path, source: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {source.name}


LOUD = [Audio("pcm_s16le")] * 3  # so that the output is far larger than its video


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize(
    ("made", "limit"),
    [
        (FFV1, 1000),
        (replace(FFV1, attachment=bytes(200_000)), 30_000),
        (FFV1, 30_000),
        (replace(PLAIN, suffix=".mkv", audio=LOUD), 150_000),
    ],
    ids=["before the header", "at the header", "in the frames", "in the output"],
)
def test_a_full_disk(tmp_path: Path, made: Clip, limit: int) -> None:
    source = build(tmp_path / "in", made)
    before = source.read_bytes()
    output = tmp_path / "out.mkv"
    process = start(source, output, file_limit=limit)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 5, said
    assert len(complaints(said)) == 1
    assert leftovers(tmp_path, source) <= {".out.mkv.resume"}
    assert source.read_bytes() == before
    assert run(source, output) == 0  # there is space again
    assert len(decode(output)) == made.frames
    assert leftovers(tmp_path, source) == {"out.mkv"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_cut_off_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    """After Ctrl-C, or a power cut, the same command goes on and makes every frame once."""
    made = replace(FFV1, frames=700, size=(96, 64), box=(16, 8, 64, 48))
    source, output = build(tmp_path / "in", made), tmp_path / "out.mkv"
    options = ("--regions", "16,8,64,48")
    process = start(source, output, *options)
    spool = tmp_path / ".out.mkv.resume" / "video.spool"
    deadline = time.monotonic() + 60
    while process.poll() is None and not (spool.exists() and b"MARK" in spool.read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -how), said
    assert len(complaints(said)) == (how == signal.SIGINT)
    assert leftovers(tmp_path, source) == {".out.mkv.resume"}
    assert b"MARK" in spool.read_bytes()

    again = start(source, output, *options)
    told, said = again.communicate(timeout=120)
    assert (again.returncode, said) == (0, "")
    assert "going on" in told
    assert f"{made.frames} of {made.frames} frames restored" in told
    assert leftovers(tmp_path, source) == {"out.mkv"}
    before, after = decode(source), decode(output)
    assert [frame.time for frame in after] == [frame.time for frame in before]
    for one, other in zip(before, after, strict=True):
        luma, restored = planes(one)[0], planes(other)[0]
        same = luma == restored
        assert same[:8].all()
        assert same[56:].all()
        assert same[8:56, 16:80].mean() < 0.5


def test_a_resume_folder_of_another_job_is_not_used(tmp_path: Path, clip: Path) -> None:
    """Nor does a broken one do harm."""
    folder = tmp_path / ".out.mp4.resume"
    folder.mkdir()
    (folder / "job.json").write_text("{broken")
    (folder / "video.spool").write_bytes(os.urandom(1000))
    assert run(clip, tmp_path / "out.mp4") == 0
    assert len(decode(tmp_path / "out.mp4")) == PLAIN.frames
    assert leftovers(tmp_path, clip) == {"out.mp4"}


# Odd, but good


@pytest.mark.parametrize(
    "made",
    [
        replace(FFV1, size=(161, 97)),
        replace(FFV1, size=(16, 16), box=(0, 0, 16, 16)),
        replace(FFV1, size=(2, 2), box=(0, 0, 2, 2)),
        replace(PLAIN, frames=1),
        replace(PLAIN, frames=1, size=(7680, 4320), box=(7616, 4272, 64, 48)),
    ],
    ids=["odd size", "16x16", "2x2", "one frame", "8K"],
)
def test_unusual_sizes(tmp_path: Path, capfd: pytest.CaptureFixture[str], made: Clip) -> None:
    source = build(tmp_path / "in", made)
    output = (tmp_path / "out").with_suffix(made.suffix)
    options = ("--preset", "ultrafast", "--quality", "40") if made.size[0] > 4096 else ()
    capfd.readouterr()
    assert run(source, output, "--regions", ",".join(map(str, made.box)), *options) == 0
    assert complaints(capfd.readouterr().err) == []
    frames = decode(output)
    assert [(frame.width, frame.height) for frame in frames] == [made.size] * made.frames


@pytest.mark.parametrize("name", ["ein Film mit Ümlaut.mp4", "-dash.mp4", "a'b\"c$(d).mp4", "100%.mp4"])
def test_unusual_names(tmp_path: Path, clip: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = clip.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert run(source, Path(f"./out {name}")) == 0
    assert len(decode(tmp_path / f"out {name}")) == PLAIN.frames
