"""What stands behind a picture's end is left out, and said: it may show the old picture. Odd metadata stay."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from restore_plugin import image_cli, jpeg

REGION = ("--method", "bicubic", "--regions", "8,8,24,24", "--block", "8", "--quiet")
SUFFIXES = (".jpg", ".png", ".webp")


def scene() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()[60:140, 180:276])


def run(source: Path, target: Path, *options: str) -> int:
    return image_cli.main([str(source), *REGION, "-o", str(target), "--overwrite", *options])


@pytest.mark.parametrize("behind", [b"\0\0\0\x18ftypmp42" + bytes(100), b"\xff\xd8\xff\xe0 a gain map", b"\0\0x"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_data_behind_the_end_are_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, behind: bytes
) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    scene().save(source)
    assert run(source, target) == 0
    plain = target.read_bytes()
    assert capfd.readouterr().err == ""
    source.write_bytes(source.read_bytes() + behind)
    assert run(source, target, "--json") == 0
    said = capfd.readouterr()
    assert len(said.err.splitlines()) == 1
    assert f"{source}: {len(behind)} bytes behind the picture's end are left out" in said.err
    assert json.loads(said.out)["left_out_bytes"] == len(behind)
    assert target.read_bytes() == plain


@pytest.mark.parametrize("padding", [bytes(4096), b"\r\n", b"\n", b"\xff" * 32])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_padding_behind_the_end_needs_no_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, padding: bytes
) -> None:
    source = tmp_path / f"in{suffix}"
    scene().save(source)
    source.write_bytes(source.read_bytes() + padding)
    assert run(source, tmp_path / f"out{suffix}") == 0
    assert capfd.readouterr().err == ""


def test_a_picture_that_fails_says_only_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jpg"
    scene().save(source)
    source.write_bytes(source.read_bytes() + b"a video")
    assert run(source, tmp_path / "out.gif") == 2
    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1
    assert ".png" in said


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 2}, {"optimize": True}])
def test_the_end_of_a_jpeg(options: dict[str, int]) -> None:
    buffer = io.BytesIO()
    nested = b"\xff\xd8\xff\xd9"  # in a segment it ends nothing
    scene().save(buffer, "JPEG", comment=nested, quality=97, **options)
    data = buffer.getvalue()
    assert jpeg.end(data) == len(data)
    assert jpeg.end(b"before" + data + b"behind\xff\xd9", 6) == len(data) + 6
    for length in range(2, len(data), 97):
        assert jpeg.end(data[:length]) is None
    padded = data[:2] + b"\xff\xff\xff" + data[2:]  # fill bytes before a marker
    assert jpeg.end(padded) == len(padded)


def test_what_only_starts_like_a_jpeg() -> None:
    for data in (b"\xff\xd8\xff\x12\0\4abcd", b"\xff\xd8\xff\xe0\0\4ab no marker", b"\xff\xd8text"):
        with pytest.raises(ValueError, match="expected a marker"):
            jpeg.end(data)


def test_an_index_of_further_pictures_goes_where_there_are_none(tmp_path: Path) -> None:
    """MPF points at bytes of the old file."""
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    scene().save(source)
    data = source.read_bytes()
    index = b"MPF\0MM\0*\0\0\0\10\0\1" + struct.pack(">HHII", 0xB001, 4, 1, 1) + bytes(4)
    source.write_bytes(data[:2] + jpeg.segment(0xE2, index) + data[2:])
    assert run(source, target) == 0
    assert b"MPF\0" not in target.read_bytes()


HEADS = [
    b"8BIM",
    b"8BIM\4\4\0",
    b"8BIM\4\4\0\0\0\0\0",
    b"8BIM\4\4\x09too long",
    b"8BIM\4\4\xff" + b"x" * 20,
]


@pytest.mark.parametrize("head", HEADS)
def test_photoshop_resources_that_end_inside_a_head(tmp_path: Path, head: bytes) -> None:
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    scene().save(source)
    data = source.read_bytes()
    whole = b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(range(16))
    block = jpeg.segment(0xED, b"Photoshop 3.0\0" + whole + head)
    source.write_bytes(data[:2] + block + data[2:])
    assert run(source, target) == 0
    assert block in target.read_bytes()


def test_a_picture_behind_photoshop_resources_turns_into_zeros(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    buffer = io.BytesIO()
    scene().resize((32, 24)).save(buffer, "JPEG")
    small = buffer.getvalue()
    scene().save(source)
    data = source.read_bytes()
    source.write_bytes(data[:2] + jpeg.segment(0xED, b"Photoshop 3.0\0odd" + small + b"end") + data[2:])
    assert run(source, target) == 0
    assert jpeg.segment(0xED, b"Photoshop 3.0\0odd" + bytes(len(small)) + b"end") in target.read_bytes()
