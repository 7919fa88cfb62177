"""What `restore-video` does with what is asked of it: options that do not go together, several inputs, two runs."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from media import BLOCK, BOX, FFV1, build

from ffmpeg_filters.arguments import parser
from ffmpeg_filters.asked import ResumeFolder
from ffmpeg_filters.cli import main, make_jobs
from ffmpeg_filters.progress import Progress

REGION = ",".join(map(str, BOX))
FAST = ("--method", "bicubic", "--block", str(BLOCK), "--regions", REGION)

Fails = Callable[..., str]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return build(tmp_path / "in", replace(FFV1, frames=4))


@pytest.fixture
def fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Fails:
    """Runs what must fail in one line and leave the folder as it was; returns the line."""

    def call(code: int, *arguments: str | Path) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        capfd.readouterr()
        assert main([str(each) for each in arguments]) == code
        (line,) = capfd.readouterr().err.splitlines()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert not list(tmp_path.rglob(".*.resume"))
        return line

    return call


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--task", "derain", "--start", "100"), "no frame lies in the time"),
        (("--task", "deblur", "--regions", f"{REGION},50-60"), "no frame lies in the time"),
        ((*FAST, "--start", "100"), "no frame lies in the time"),
        ((*FAST, "--start", "nan"), "--start: expected a time in seconds"),
        ((*FAST, "--end", "soon"), "--end: expected a time in seconds"),
        ((*FAST, "--preview", "0.1", "--start", "0.12"), "expected a --preview between --start and --end"),
        ((*FAST, "--plan", "p.jsonl"), "either --plan or --regions"),
        (("--task", "derain", "--plan", "p.jsonl"), "without a plan"),
        (("--task", "derain", "--linear-light"), "--linear-light is about a mosaic's blocks"),
        (("--task", "inpaint", "--regions", REGION, "--block", "8"), "--block is about a mosaic's blocks"),
        ((*FAST, "--margin", "2"), "--margin is for faces"),
        (("--regions", REGION, "--block", "eight"), "--block: expected a block size"),
        ((*FAST, "--container", "../../zz"), "expected a --container such as mkv"),
        ((*FAST, "--unknown"), "unrecognized arguments: --unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_do_not_go_together(clip: Path, fails: Fails, options: tuple[str, ...], said: str) -> None:
    line = fails(2, clip, *options)
    assert line.startswith("restore-video: ")
    assert said in line


def test_an_output_of_another_container_than_asked_for(clip: Path, fails: Fails) -> None:
    assert "two containers" in fails(2, clip, *FAST, "--container", "mkv", "-o", clip.with_name("out.nut"))


def test_a_preview_is_a_png(clip: Path, fails: Fails) -> None:
    assert "ends in .png" in fails(2, clip, *FAST, "--preview", "0", "-o", clip.with_name("out.jpg"))
    target = clip.parent / "made" / "out.png"
    assert main([str(clip), *FAST, "--preview", "0", "-o", str(target)]) == 0
    assert target.read_bytes().startswith(b"\x89PNG")


def test_a_preview_of_a_time_without_a_region(clip: Path, fails: Fails) -> None:
    line = fails(3, clip, "--task", "inpaint", "--regions", f"{REGION},0.08-0.2", "--preview", "0")
    assert "nothing to restore was found at 0" in line


def test_nothing_that_was_given_is_written_to(clip: Path, fails: Fails) -> None:
    other = clip.with_name(f"in.restored{clip.suffix}")
    other.write_bytes(clip.read_bytes())
    plan = clip.with_name("plan.jsonl")
    assert main(["scan", str(clip), "--regions", REGION, "--block", str(BLOCK), "-o", str(plan)]) == 0
    assert f"{other} is an input" in fails(2, clip, other, *FAST, "--overwrite")
    assert f"{plan} is an input" in fails(2, clip, "--plan", plan, "-o", plan, "--overwrite")


def test_every_failure_of_several_inputs_is_told(
    clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [tmp_path / name for name in ("bad1.mkv", "bad2.mkv")]
    for path in bad:
        path.write_bytes(b"no video")
    arguments = [*map(str, (bad[0], clip, bad[1])), *FAST, "-o", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert [str(path) in line for path, line in zip(bad, capfd.readouterr().err.splitlines(), strict=True)] == [
        True
    ] * 2
    assert (tmp_path / "out" / f"in.restored{clip.suffix}").exists()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ffmpeg_filters.job.run", full)
    assert main([*arguments, "--overwrite"]) == 5
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("No space left on device; free some space" in line for line in lines)


def test_several_inputs_that_were_cut_off_go_on(clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a", "b", ".hidden"):
        (folder / f"{name}{clip.suffix}").write_bytes(clip.read_bytes())
    (folder / "sub.mp4").mkdir()
    done = folder / f"a.restored{clip.suffix}"
    done.write_bytes(b"done before")
    assert main([str(folder), *FAST]) == 0
    assert f"{done} is there already and stays" in capfd.readouterr().err
    assert done.read_bytes() == b"done before"
    assert sorted(path.name for path in folder.glob("*restored*")) == [done.name, f"b.restored{clip.suffix}"]
    assert main([str(folder), *FAST]) == 2
    assert "all outputs are there already" in capfd.readouterr().err


def test_the_method_review_is_the_option(clip: Path) -> None:
    """Its output must not look as if faces were hidden in it."""
    (job,) = make_jobs(parser().parse_args([str(clip), "--task", "automosaic", "--method", "review"]))
    assert (job.method, job.target.name) == ("review", f"in.review{clip.suffix}")


def test_two_runs_at_once(clip: Path, fails: Fails) -> None:
    target = clip.with_name("out.mkv")
    with ResumeFolder(target, {"run": 1}):
        code = main([str(clip), *FAST, "-o", str(target)])
        assert code == 5
    assert main([str(clip), *FAST, "-o", str(target)]) == 0


def test_a_resume_folder_that_is_damaged(clip: Path) -> None:
    target = clip.with_name("out.mkv")
    folder = target.with_name(f".{target.name}.resume")
    folder.mkdir()
    (folder / "job.json").write_bytes(b"\xff\xfe\x00")
    (folder / "video.spool").write_bytes(b"\xff\xfe\x00")
    assert main([str(clip), *FAST, "-o", str(target)]) == 0
    assert not folder.exists()


def test_whoever_reads_the_progress_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Closed())
    progress = Progress("restore-video")
    progress.say("first")
    progress.say("second")
    assert sys.stdout.name == os.devnull
    sys.stdout.close()


@pytest.mark.parametrize(("number", "code"), [(errno.ENOLCK, 0), (errno.ENOSPC, 5)])
def test_a_lock_that_cannot_be_had(clip: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """Some network folders know no locks: then it goes without one. On a full disk the work done so far stays."""
    target = clip.with_name("out.mkv")
    folder = target.with_name(f".{target.name}.resume")
    folder.mkdir()
    (folder / "video.spool").write_bytes(b"hours of work")

    def fails(_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("filelock.FileLock.acquire", fails)
    assert main([str(clip), *FAST, "-o", str(target)]) == code
    assert target.exists() == (code == 0)
    assert (folder / "video.spool").exists() == (code != 0)
