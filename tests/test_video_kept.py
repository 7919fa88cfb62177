"""What a container or a decoder would drop without a word: kept all the same, refused before the work, or told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import BLOCK, BOX, CLIPS, FFV1, MATROSKA, PLAIN, QUICK_X264, Audio, Clip, build, decode, on_plane, planes

from ffmpeg_filters.cli import main

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


# Times


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
