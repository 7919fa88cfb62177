"""What a container or a decoder would drop without a word: kept all the same, refused before the work, or told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import BLOCK, BOX, CLIPS, FFV1, MATROSKA, PLAIN, QUICK_X264, Audio, Clip, build, decode, on_plane, planes

from ffmpeg_filters.cli import main
from ffmpeg_filters.encoders import ENCODERS, EncodeOptions
from ffmpeg_filters.mux import Muxer
from ffmpeg_filters.reader import VideoInfo, probe

REGION = ",".join(map(str, BOX))


def restore(source: Path, output: Path, *options: str) -> int:
    task = ("--task", "demosaic", "--method", "bicubic", "--block", str(BLOCK), "--regions", REGION)
    return main([str(source), "-o", str(output), *task, "--quiet", *options])


def refused(source: Path, output: Path, capfd: pytest.CaptureFixture[str], *options: str) -> str:
    """The line that says why; nothing is left behind."""
    before = set(source.parent.iterdir())
    capfd.readouterr()
    assert restore(source, output, *options) == 4
    (line,) = capfd.readouterr().err.splitlines()
    assert set(source.parent.iterdir()) == before
    return line


# Pictures

RAW = Clip(codec="rawvideo", options={}, frames=3)
UTVIDEO = replace(RAW, codec="utvideo")
RAW_FORMATS = {
    ".avi": ("yuv420p", "yuv422p", "gray", "bgr24", "bgra"),
    ".nut": ("yuv420p", "yuv422p10le", "bgr24", "rgb24", "bgra", "gray"),
    ".mov": ("rgb24", "bgra"),
}


@pytest.mark.parametrize(
    ("clip", "suffix", "pix_fmt"),
    [
        *((UTVIDEO, suffix, name) for suffix in (".avi", ".nut") for name in ("yuv420p", "yuv422p", "gbrp")),
        *((RAW, suffix, name) for suffix, names in RAW_FORMATS.items() for name in names),
    ],
    ids=lambda value: value.codec if isinstance(value, Clip) else value,
)
def test_codecs_whose_tag_tells_the_pixel_format(tmp_path: Path, clip: Clip, suffix: str, pix_fmt: str) -> None:
    source = build(tmp_path / "in", replace(clip, suffix=suffix, pix_fmt=pix_fmt))
    output = tmp_path / f"out{suffix}"
    assert restore(source, output) == 0
    before, after = decode(source), decode(output)
    assert [frame.format.name for frame in after] == [frame.format.name for frame in before]
    for one, other in zip(before, after, strict=True):
        for plane, restored in zip(planes(one), planes(other), strict=True):
            keep = np.ones(plane.shape, bool)
            keep[on_plane(BOX, plane, clip.size)] = False
            np.testing.assert_array_equal(restored[keep], plane[keep])


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("rawvideo", ".mov", ()),
        ("rawvideo", ".mov", ("--pix-fmt", "yuv422p")),
        ("rawvideo", ".mov", ("--pix-fmt", "yuv422p10le")),
        ("rawvideo", ".avi", ("--pix-fmt", "yuv422p10le")),
        ("vp9", ".ts", ()),
        ("ffv1", ".ts", ()),
    ],
)
def test_pictures_that_could_not_be_read_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], codec: str, suffix: str, options: tuple[str, ...]
) -> None:
    line = refused(build(tmp_path / "in", FFV1), tmp_path / f"out{suffix}", capfd, "--codec", codec, *options)
    assert "read back" in line


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt", "known_as"),
    [
        ("prores", ".mov", "yuv444p10le", "yuv444p12le"),
        ("h264", ".mp4", "gray", "yuv420p"),
        ("h264", ".mp4", "nv12", "yuv420p"),
        ("h264", ".mp4", "yuvj420p", "yuvj420p"),
        ("png", ".mov", "rgba", "rgba"),
    ],
)
def test_pictures_that_decoders_call_otherwise(
    tmp_path: Path, codec: str, suffix: str, pix_fmt: str, known_as: str
) -> None:
    source, output = build(tmp_path / "in", FFV1), tmp_path / f"out{suffix}"
    assert restore(source, output, "--codec", codec, "--pix-fmt", pix_fmt) == 0
    assert {frame.format.name for frame in decode(output)} == {known_as}


@pytest.mark.parametrize(
    ("clip", "suffix", "options"),
    [
        (Clip(".mp4", "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}), ".mp4", ()),
        (Clip(".mov", "prores_ks", "yuv422p10le", options={}), ".mov", ()),
        (PLAIN, ".mp4", ("--codec", "av1")),
        (PLAIN, ".mp4", ("--codec", "ffv1")),
        (PLAIN, ".mkv", ("--codec", "mjpeg", "--pix-fmt", "yuvj420p")),
    ],
    ids=["vp9", "prores", "to av1", "to ffv1", "to mjpeg in mkv"],
)
def test_sample_aspect_ratio(tmp_path: Path, clip: Clip, suffix: str, options: tuple[str, ...]) -> None:
    source = build(tmp_path / "in", replace(clip, frames=4, sample_aspect=Fraction(4, 3)))
    output = tmp_path / f"out{suffix}"
    assert restore(source, output, *options) == 0
    for path in (source, output):
        with av.open(str(path)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("codec", ["vp9", "vp8", "av1", "ffv1"])
def test_a_sample_aspect_ratio_that_matroska_is_not_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], codec: str
) -> None:
    """PyAV has no way to."""
    source = build(tmp_path / "in", replace(PLAIN, sample_aspect=Fraction(4, 3)))
    assert "sample aspect ratio 4:3" in refused(source, tmp_path / "out.mkv", capfd, "--codec", codec)


@pytest.mark.parametrize(
    ("codec", "named"),
    [("ffv1", {".mp4"}), ("vp9", {".mp4"}), ("av1", {".mp4"}), ("prores", {".mov"}), ("vp8", set())],
)
def test_containers_that_are_named_for_the_sample_aspect_ratio(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], codec: str, named: set[str]
) -> None:
    """Those that hold the codec."""
    pixel_format = "yuv422p10le" if codec == "prores" else "yuv420p"
    source = build(tmp_path / "in", replace(PLAIN, pix_fmt=pixel_format, frames=3, sample_aspect=Fraction(16, 15)))
    line = refused(source, tmp_path / "out.mkv", capfd, "--codec", codec)
    assert "--codec h264" in line
    assert {name for name in (".mp4", ".mov") if name in line} == named
    for suffix in named:
        assert restore(source, tmp_path / f"out{suffix}", "--codec", codec) == 0


def test_a_codec_that_a_container_cannot_hold_goes_by_its_own_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = build(tmp_path / "in", Clip(".mov", "prores_ks", "yuv422p10le", options={}, frames=3))
    line = refused(source, tmp_path / "out.mp4", capfd)
    assert "'prores'" in line
    assert "prores_ks" not in line


@pytest.mark.parametrize("codec", ["h264", "hevc", "ffv1"])
def test_a_container_is_tried_with_plain_pictures(tmp_path: Path, codec: str) -> None:
    """Which take the least time; the sample stays as it was."""
    info = probe(build(tmp_path / "in", replace(FFV1, pix_fmt="yuv422p10le")))
    sample = decode(info.path)[3]
    before = [plane.copy() for plane in planes(sample)]
    (row,) = [row for row in ENCODERS if row.codec == codec]
    tried = Muxer(tmp_path / "out.mkv", info, "")._first(row, EncodeOptions(codec), sample)
    assert sorted(coded.pts for coded in tried) == list(info.pts[:3])
    assert max(len(coded.data) for coded in tried) < 15_000
    assert sample.pts == info.pts[3]
    for one, other in zip(planes(sample), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
def test_alpha_that_the_decoder_drops(tmp_path: Path, capfd: pytest.CaptureFixture[str], codec: str) -> None:
    options = {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"}
    source = build(tmp_path / "in", Clip(".webm", codec, "yuva420p", options=options, frames=3))
    assert "alpha" in refused(source, tmp_path / "out.webm", capfd)


def without_first_packets(source: Path, target: Path, count: int) -> Path:
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for index, packet in enumerate(before.demux(video=0)):
            if index >= count and packet.size:
                packet.stream = stream
                after.mux(packet)
    return target


def test_frames_missing_at_the_start_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A clip cut off from its key frame: no picture is made up for what cannot be decoded."""
    options = {"deadline": "realtime", "cpu-used": "8", "g": "5", "lag-in-frames": "0"}
    whole = build(tmp_path / "whole", Clip(".webm", "libvpx-vp9", options=options, frames=20))
    source = without_first_packets(whole, tmp_path / "in.webm", 2)
    capfd.readouterr()
    assert restore(source, tmp_path / "out.webm") == 0
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "start" in line or "first" in line]
    assert "first 3 frames" in line
    assert "0.200 s" in line
    assert [frame.time for frame in decode(tmp_path / "out.webm")] == [f.time for f in decode(whole)][5:]


def exif(orientation: int) -> bytes:
    """A JPEG's APP1 segment with one tag."""
    entry = (0x0112).to_bytes(2, "little") + b"\3\0\1\0\0\0" + orientation.to_bytes(4, "little")
    data = b"Exif\0\0II*\0\x08\0\0\0\1\0" + entry + bytes(4)
    return b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data


@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_in_the_frames(tmp_path: Path, capfd: pytest.CaptureFixture[str], orientation: int) -> None:
    """A kind of side data that PyAV does not know."""
    source = build(tmp_path / "in", Clip(".mjpeg", "mjpeg", "yuvj420p", options={}))
    source.write_bytes(source.read_bytes().replace(b"\xff\xd8\xff", b"\xff\xd8" + exif(orientation) + b"\xff"))
    with pytest.raises(ValueError, match="not a valid Type"):
        len(decode(source)[0].side_data)
    if orientation == 6:
        assert "rotation" in refused(source, tmp_path / "out.mkv", capfd)
    else:
        assert restore(source, tmp_path / "out.mkv") == 0
        assert len(decode(tmp_path / "out.mkv")) == 10


# What a file says of itself

SAID: dict[str, Clip] = {
    "title": replace(PLAIN, metadata={"title": "A clip", "artist": "Nobody"}),
    "chapters": replace(PLAIN, chapters=("One", "Two")),
    "rotation": replace(PLAIN, rotation=(90, False, False)),
    "language": replace(PLAIN, video_metadata={"language": "ger"}),
    "title of stream 1": replace(PLAIN, audio=[Audio(metadata={"title": "Original"})]),
}
DROPPED = {
    ".ts": ("title", "chapters", "rotation", "language", "title of stream 1"),
    ".flv": ("chapters", "rotation", "language"),
    ".nut": ("rotation",),
    ".3gp": ("title",),
}


@pytest.mark.parametrize(("suffix", "what"), [(suffix, what) for suffix in DROPPED for what in DROPPED[suffix]])
def test_what_a_container_would_drop_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, what: str
) -> None:
    line = refused(build(tmp_path / "in", SAID[what]), tmp_path / f"out{suffix}", capfd)
    assert what in line
    assert ".mkv" in line


@pytest.mark.parametrize("before", [".mp4", ".mov", ".m4v", ".mkv"])
@pytest.mark.parametrize("after", [".mp4", ".mov", ".m4v", ".mkv"])
def test_containers_that_drop_nothing(tmp_path: Path, before: str, after: str) -> None:
    """French has two codes in ISO 639-2, of which MOV tells one."""
    audio = Audio(metadata={"language": "fra" if before == ".mov" else "fre", "title": "Original"})
    clip = replace(
        SAID["title"], suffix=before, chapters=("One", "Two"), rotation=(90, False, False), audio=[audio, Audio()]
    )
    source, output = build(tmp_path / "in", clip), tmp_path / f"out{after}"
    assert restore(source, output) == 0
    with av.open(str(output)) as container:
        assert container.metadata.get("title", container.metadata.get("TITLE")) == "A clip"
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One", "Two"]
        assert next(container.decode(video=0)).rotation == 90
        assert container.streams[1].metadata["language"] in ("fre", "fra")


PHONE = {"com.android.version": "14", "location": "+12.3456-098.7654/", "creation_time": "2021-03-04T05:06:07.000000Z"}


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("metadata", [PHONE, {"com.apple.quicktime.make": "Apple"}, {"title": "A", "rating": "5"}])
def test_tags_that_mp4_and_mov_have_no_name_for(tmp_path: Path, suffix: str, metadata: Mapping[str, str]) -> None:
    source = build(tmp_path / "in", replace(MATROSKA, metadata=metadata))
    assert restore(source, tmp_path / f"out{suffix}") == 0
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        there = {key.lower(): value for key, value in container.metadata.items()}  # Matroska writes capitals
        assert metadata.items() <= there.items()
        assert "plausible" in container.metadata["comment"]


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_tags_that_avi_reads_by_another_name_than_it_writes(tmp_path: Path, suffix: str) -> None:
    """Matroska has them in capitals."""
    tags = {"ISBJ": "A subject", "IPRD": "A product"}
    if suffix == ".mkv":
        tags = {"SUBJECT": tags["ISBJ"], "PRODUCT": tags["IPRD"]}
    source = build(tmp_path / "in", replace(FFV1, suffix=suffix, metadata={"title": "A clip", **tags}))
    assert restore(source, tmp_path / "out.avi") == 0
    with av.open(str(tmp_path / "out.avi")) as container:
        assert container.metadata["subject"] == "A subject"
        assert container.metadata["product"] == "A product"
        assert container.metadata["title"] == "A clip"


def with_cover_attached(source: Path, target: Path, name: str, picture: bytes) -> Path:
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        streams = [after.add_stream_from_template(stream) for stream in before.streams]
        after.add_attachment(name, "image/jpeg", picture)
        after.add_attachment("notes.txt", "text/plain", b"Hello")
        for packet in before.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                after.mux(packet)
    return target


def covers(path: Path) -> list[tuple[int, str, bytes]]:
    """(number, name, data) of each cover picture."""
    with av.open(str(path)) as container:
        return [
            (packet.stream_index, packet.stream.metadata.get("filename", ""), bytes(packet))
            for packet in container.demux()
            if packet.size and packet.stream.disposition & av.stream.Disposition.attached_pic
        ]


def test_a_cover_picture_in_matroska(tmp_path: Path) -> None:
    ((_, _, picture),) = covers(build(tmp_path / "with", CLIPS["cover"]))
    plain = build(tmp_path / "plain", replace(MATROSKA, audio=[Audio()]))
    source = with_cover_attached(plain, tmp_path / "in.mkv", "small_cover.jpg", picture)
    assert covers(source) == [(2, "small_cover.jpg", picture)]
    assert restore(source, tmp_path / "out.mkv") == 0
    assert covers(tmp_path / "out.mkv") == covers(source)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "video", "attachment"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_cover_picture_of_mp4(tmp_path: Path, suffix: str) -> None:
    source = build(tmp_path / "in", CLIPS["cover"])
    assert restore(source, tmp_path / f"out{suffix}") == 0
    ((_, name, picture),) = covers(tmp_path / f"out{suffix}")
    assert name == ("cover.jpg" if suffix == ".mkv" else "")
    assert picture == covers(source)[0][2]


@pytest.mark.parametrize("suffix", [".ts", ".mov", ".nut"])
def test_a_cover_picture_that_would_be_dropped(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str) -> None:
    source = build(tmp_path / "in", CLIPS["cover"])
    assert "cover picture" in refused(source, tmp_path / f"out{suffix}", capfd)


def with_data(source: Path, target: Path) -> Path:
    """A clip beside a stream of data."""
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        video, data = after.add_stream_from_template(before.streams.video[0]), after.add_data_stream("bin_data")
        for packet in before.demux(video=0):
            if packet.size:
                beside: av.Packet[Any] = av.Packet(b"somewhere")
                beside.pts, beside.dts, beside.time_base = packet.dts, packet.dts, packet.time_base
                packet.stream, beside.stream = video, data
                after.mux([packet, beside])
    return target


def test_packets_that_a_container_drops(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = with_data(build(tmp_path / "plain", PLAIN), tmp_path / "in.ts")
    line = refused(source, tmp_path / "out.mov", capfd)
    assert "cannot hold" in line
    assert "report" not in line


# Times


def test_avi_with_frames_left_out(tmp_path: Path) -> None:
    """As capture tools write it where they miss one."""
    times = [0, 1, 2, 5, 6, 9, 10, 11, 12, 13]
    source = build(tmp_path / "in", replace(FFV1, suffix=".avi", frames=10, times=times))
    assert restore(source, tmp_path / "out.avi") == 0
    for path in (source, tmp_path / "out.avi"):
        assert [frame.time for frame in decode(path)] == [time / 25 for time in times]


@pytest.mark.parametrize(
    ("rate", "time_base", "pts", "even"),
    [
        (Fraction(30000, 1001), Fraction(1, 1000), [0, 33, 67, 100, 133], True),
        (Fraction(30000, 1001), Fraction(1, 1000), [7, 40, 107, 207], True),
        (Fraction(30000, 1001), Fraction(1, 1000), [0, 33, 70, 100, 133], False),
        (Fraction(25), Fraction(1, 1000), [0, 1, 40, 80], False),
        (Fraction(25), Fraction(1, 25), [0, 1, 5, 6], True),
        (Fraction(25), Fraction(1, 50), [0, 2, 5, 6], False),
        (Fraction(23), Fraction(1, 25), list(range(25)), False),
    ],
)
def test_times_on_the_grid_of_a_rate(rate: Fraction, time_base: Fraction, pts: list[int], even: bool) -> None:
    info = VideoInfo(Path("x"), "avi", 0, "ffv1", "yuv420p", 16, 16, rate, time_base, tuple(pts))
    assert info.even is even


@pytest.mark.parametrize(
    ("name", "suffix", "options"),
    [
        ("rate_changes", ".avi", ("--codec", "ffv1")),
        ("starts_late", ".avi", ("--codec", "ffv1")),
        ("h264_mov", ".avi", ("--codec", "h264")),
        ("b_frames", ".h264", ()),
    ],
)
def test_times_that_a_container_cannot_hold(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, suffix: str, options: tuple[str, ...]
) -> None:
    line = refused(build(tmp_path / "in", replace(CLIPS[name], audio=())), tmp_path / f"out{suffix}", capfd, *options)
    assert ".mkv" in line


def test_even_times_from_mp4_to_avi(tmp_path: Path) -> None:
    source = build(tmp_path / "in", replace(PLAIN, rate=Fraction(30000, 1001)))
    assert restore(source, tmp_path / "out.avi", "--codec", "ffv1") == 0
    assert [f.pts * f.time_base for f in decode(tmp_path / "out.avi")] == [f.pts * f.time_base for f in decode(source)]


def test_h264_in_avi_has_no_frames_out_of_order(tmp_path: Path) -> None:
    source = build(tmp_path / "in", replace(PLAIN, suffix=".avi", options={**QUICK_X264, "bf": "0"}))
    output = tmp_path / "out.avi"
    assert restore(source, output) == 0
    assert [frame.time for frame in decode(output)] == [frame.time for frame in decode(source)]
    with av.open(str(output)) as container:
        assert [packet.dts for packet in container.demux(video=0) if packet.size] == list(range(10))


def test_a_raw_stream(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its output tells no times; into a container it gets even ones."""
    source = build(tmp_path / "in", replace(PLAIN, suffix=".h264"))
    assert "-o out.mkv" in refused(source, tmp_path / "out.h264", capfd)
    assert restore(source, tmp_path / "out.mkv") == 0
    assert [frame.time for frame in decode(tmp_path / "out.mkv")] == [index / 25 for index in range(10)]


# Names


@pytest.mark.parametrize("name", ["12:30:05.mp4", "http:x.mp4", "what? #1.mp4", "50% %03d.mp4", "ü 日本.mp4"])
@pytest.mark.parametrize("folder", [Path.cwd, lambda: Path()], ids=["absolute", "relative"])
def test_names_that_look_like_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: Callable[[], Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = build(tmp_path / "in", PLAIN).rename(tmp_path / name)
    assert restore(folder() / source.name, folder() / f"out {name}") == 0
    (tmp_path / f"out {name}").rename(tmp_path / "out.mp4")
    assert len(decode(tmp_path / "out.mp4")) == PLAIN.frames
