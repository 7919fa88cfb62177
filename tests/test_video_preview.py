"""A preview shows the frame that a run shows at that time, whatever the container makes of a seek."""

from __future__ import annotations

import bisect
from dataclasses import replace
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
import pytest
from media import BLOCK, BOX, PLAIN, Audio, Clip, build

from ffmpeg_filters.cli import main
from ffmpeg_filters.job import frame_at
from ffmpeg_filters.reader import probe

REGION = ",".join(map(str, BOX))
BICUBIC = ("--task", "demosaic", "--method", "bicubic", "--block", str(BLOCK))
X264 = "threads=1:keyint=12:min-keyint=6:scenecut=0:bframes=2"
LONG = replace(PLAIN, frames=40, options={"preset": "veryfast", "x264-params": X264})
KINDS = {
    "short ts": replace(PLAIN, suffix=".ts"),
    "ts": replace(LONG, suffix=".ts", audio=[Audio()]),
    "m2ts": replace(LONG, suffix=".m2ts", audio=[Audio()]),
    "open groups": replace(LONG, suffix=".ts", options={"preset": "veryfast", "x264-params": f"{X264}:open-gop=1"}),
    "no key frames": replace(
        LONG, suffix=".ts", options={"preset": "veryfast", "x264-params": f"{X264}:intra-refresh=1"}
    ),
    "ps": Clip(".mpg", "mpeg2video", options={"g": "12", "bf": "2"}, frames=40),
    "raw": replace(LONG, suffix=".h264"),
    "mp4": LONG,
    "mkv": replace(LONG, suffix=".mkv"),
    "damaged": replace(LONG, damage="erase"),
}


def frames_in_order(path: Path) -> list[av.VideoFrame]:
    """From the start, one by one; packets that cannot be decoded are left out."""
    frames: list[av.VideoFrame] = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                frames += packet.decode()
            except av.error.InvalidDataError:
                continue
    return frames


@pytest.mark.parametrize("kind", KINDS)
def test_the_frame_of_a_time(tmp_path: Path, kind: str) -> None:
    source = build(tmp_path / "in", KINDS[kind])
    frames = frames_in_order(source)
    info = probe(source)
    first = info.start_seconds
    starts = list(info.times()) if kind == "raw" else [frame.time - first for frame in frames]
    for seconds in np.arange(0, info.seconds, 0.13):
        shown = frame_at(info, seconds)
        place = bisect.bisect_right(starts, seconds + 1e-6) - 1
        assert np.array_equal(shown.frame.to_ndarray(), frames[place].to_ndarray()), seconds
        assert shown.index == bisect.bisect_right(list(info.times()), seconds + 1e-6) - 1


@pytest.mark.parametrize("kind", ["short ts", "ts", "raw", "damaged"])
@pytest.mark.parametrize("seconds", [0, 0.24])
def test_the_picture(tmp_path: Path, kind: str, seconds: float) -> None:
    source = build(tmp_path / "in", KINDS[kind])
    options = (*BICUBIC, "--regions", REGION, "--preview", str(seconds), "-o", str(tmp_path / "shown.png"))
    assert main([str(source), *options]) == 0
    before, _ = np.hsplit(cv2.imread(str(tmp_path / "shown.png")).astype(int), 2)
    frame = frames_in_order(source)[round(seconds * 25)].to_ndarray(format="bgr24")
    assert np.abs(before - frame).mean() < 2


def test_the_last_moment(tmp_path: Path) -> None:
    source = build(tmp_path / "in", KINDS["ts"])
    info = probe(source)
    assert frame_at(info, info.seconds).index == info.frames - 1


def test_before_the_first_frame_that_can_be_decoded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A clip that was cut off from its key frame has nothing to show there."""
    whole, source = build(tmp_path / "whole", replace(LONG, suffix=".ts")), tmp_path / "in.ts"
    with av.open(str(whole)) as before, av.open(str(source), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in [packet for packet in before.demux(video=0) if packet.size][3:]:
            packet.stream = stream
            after.mux(packet)
    target = tmp_path / "shown.png"
    options = (*BICUBIC, "--regions", REGION, "-o", str(target))
    capfd.readouterr()
    assert main([str(source), *options, "--preview", "0"]) == 2
    assert "choose a later time" in capfd.readouterr().err
    assert not target.exists()
    assert main([str(source), *options, "--preview", "1"]) == 0


@pytest.mark.parametrize(("span", "code"), [("0.08-0.1", 0), ("0.1-0.2", 3)])
def test_the_regions_are_those_of_the_frame_shown(tmp_path: Path, span: str, code: int) -> None:
    """At 0.11 s that is the frame of 0.08 s, so a run restores in it what is given for 0.08 s."""
    source = build(tmp_path / "in", PLAIN)
    options = (*BICUBIC, "--regions", f"{REGION},{span}", "-o", str(tmp_path / "shown.png"))
    assert main([str(source), *options, "--preview", "0.11"]) == code


def test_a_frame_that_began_before_the_time_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A run does not touch it."""
    source = build(tmp_path / "in", PLAIN)
    options = (*BICUBIC, "--regions", REGION, "-o", str(tmp_path / "shown.png"))
    capfd.readouterr()
    assert main([str(source), *options, "--start", "0.1", "--preview", "0.11"]) == 3
    assert "0.08 s" in capfd.readouterr().err
    assert main([str(source), *options, "--start", "0.1", "--preview", "0.12"]) == 0
