"""A file that was cut off is restored as far as it goes, and one line says how much is missing. Sound files pass."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import media
import pytest
from media import BLOCK, BOX, CLIPS, FFV1, MATROSKA, PLAIN, UNEVEN, Audio, Clip, build, decode, truncate

from ffmpeg_filters.cli import main
from ffmpeg_filters.reader import probe

REGION = ("--task", "demosaic", "--method", "bicubic", "--regions", ",".join(map(str, BOX)))
GIVEN = (*REGION, "--block", str(BLOCK))
EARLY = re.compile(r"the file ends early: ([\d.]+) of ([\d.]+) (frames|s) are there")


def remux(source: Path, target: Path, shift: int = 0, last: int | None = None, **options: str) -> Path:
    """Copy a video's packets, `shift` frames earlier, the last one shown for `last` ticks."""
    with av.open(str(source)) as before, av.open(str(target), "w", options=options) as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        packets = [packet for packet in before.demux(video=0) if packet.size]
        if last is not None:
            packets[-1].duration = last
        for packet in packets:
            earlier = shift * (packet.duration or 0)
            packet.pts, packet.dts = packet.pts - earlier, packet.dts - earlier
            packet.stream = stream
            after.mux(packet)
    return target


def with_long_sound(path: Path, seconds: int) -> Path:
    """Two seconds of video."""
    clip = replace(PLAIN, frames=50)
    with av.open(str(path), "w") as container:
        video, sound = media._add_video(container, clip), media._add_audio(container, Audio())
        container.start_encoding()
        container.mux(media._video_packets(video, clip))
        container.mux(media._audio_packets(sound, Fraction(seconds), Fraction(0)))
    return path


@pytest.fixture
def fast_start(tmp_path: Path) -> Path:
    """An MP4 with its index before the frames, so that it can be read without its end."""
    return remux(build(tmp_path / "whole", replace(PLAIN, frames=40)), tmp_path / "in.mp4", movflags="faststart")


def test_an_mp4_says_how_many_frames_are_there(
    tmp_path: Path, fast_start: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truncate(fast_start, 0.5)
    capfd.readouterr()
    assert main([str(fast_start), "-o", str(tmp_path / "out.mp4"), *GIVEN]) == 0
    (there,) = EARLY.findall(capfd.readouterr().err)
    assert there == (str(len(decode(tmp_path / "out.mp4"))), "40", "frames")
    assert 10 < int(there[0]) < 30


@pytest.mark.parametrize("options", [GIVEN, REGION], ids=["given", "scanned"])
def test_a_matroska_says_how_many_seconds_are_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    source = truncate(build(tmp_path / "in", replace(MATROSKA, frames=20)), 0.55)
    capfd.readouterr()
    assert main([str(source), "-o", str(tmp_path / "out.mkv"), *options]) == 0
    (there,) = EARLY.findall(capfd.readouterr().err)
    assert there == (f"{len(decode(tmp_path / 'out.mkv')) / 25:.2f}", "0.80", "s")


def test_machines_are_told(tmp_path: Path, fast_start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    truncate(fast_start, 0.5)
    capfd.readouterr()
    assert main([str(fast_start), "-o", str(tmp_path / "out.mp4"), *GIVEN, "--json"]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert sum(bool(EARLY.search(event["text"])) for event in events if event["event"] == "warning") == 1


@pytest.mark.parametrize(
    "clip",
    [
        replace(FFV1, frames=10),
        replace(FFV1, suffix=".avi", frames=10),
        replace(CLIPS["vp9_odd"], frames=20),
        replace(PLAIN, suffix=".flv", frames=80, audio=[Audio()]),
        replace(MATROSKA, time_base=Fraction(1, 1000), times=UNEVEN),
        Clip(".mxf", "mpeg2video", options={}, frames=80),
    ],
    ids=["mkv", "avi", "webm", "flv", "uneven times", "mxf"],
)
def test_a_cut_is_seen(tmp_path: Path, clip: Clip) -> None:
    source = build(tmp_path / "in", clip)
    assert probe(source).lacking == ""
    found = EARLY.fullmatch(probe(truncate(source, 0.5)).lacking)
    assert found
    assert 0 < float(found[1]) < 0.8 * float(found[2])


@pytest.mark.parametrize(
    "name",
    ["starts_late", "starts_late_mkv", "starts_after_audio", "b_frames", "b_frames_mkv", "tracks_mkv", "tracks_mp4"]
    + ["rate_changes", "rate_changes_mkv", "rate_changes_fine", "interlaced", "h264_ts", "ffv1_avi", "one_frame"],
)
def test_a_sound_file_is_not_accused(tmp_path: Path, name: str) -> None:
    assert probe(build(tmp_path / "in", CLIPS[name])).lacking == ""


def test_an_avi_with_frames_left_out(tmp_path: Path) -> None:
    clip = replace(FFV1, suffix=".avi", frames=5, times=(0, 1, 5, 6, 30))
    assert probe(build(tmp_path / "in", clip)).lacking == ""


def test_frames_that_an_edit_list_cuts_off(tmp_path: Path) -> None:
    """They stand in an MP4's index, and are not shown."""
    options = {"use_editlist": "1", "avoid_negative_ts": "disabled"}
    source = remux(build(tmp_path / "whole", replace(PLAIN, frames=40)), tmp_path / "in.mp4", shift=15, **options)
    info = probe(source)
    assert info.frames < 40
    assert info.lacking == ""


def test_a_last_frame_that_stays(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", replace(MATROSKA, time_base=Fraction(1, 1000), times=range(0, 400, 40)))
    assert probe(remux(whole, tmp_path / "in.mkv", last=5000)).lacking == ""
    assert probe(remux(whole, tmp_path / "in.mp4", last=5000)).lacking == ""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".flv", ".mov"])
@pytest.mark.parametrize("statistics", [True, False])
def test_sound_that_goes_on_after_the_video(tmp_path: Path, suffix: str, statistics: bool) -> None:
    source = with_long_sound(tmp_path / f"in{suffix}", 6)
    if not statistics:  # as Matroska muxers write it that make none
        source.write_bytes(source.read_bytes().replace(b"DURATION", b"ELSEWISE"))
    assert probe(source).lacking == ""


def test_a_matroska_without_statistics(tmp_path: Path) -> None:
    """Then the file's own length tells, if much is missing."""
    source = with_long_sound(tmp_path / "in.mkv", 6)
    source.write_bytes(source.read_bytes().replace(b"DURATION", b"ELSEWISE"))
    assert EARLY.fullmatch(probe(truncate(source, 0.5)).lacking)


def test_statistics_of_an_earlier_longer_file(tmp_path: Path) -> None:
    source = build(tmp_path / "in", MATROSKA)
    data = source.read_bytes()
    assert b"00:00:00.400000000" in data
    source.write_bytes(data.replace(b"00:00:00.400000000", b"00:00:09.400000000"))
    assert probe(source).lacking == ""
