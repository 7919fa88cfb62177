"""What stands behind a picture's end would be lost: it is refused, not dropped."""

from __future__ import annotations

import io
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


def run(source: Path, target: Path) -> int:
    return image_cli.main([str(source), *REGION, "-o", str(target), "--overwrite"])


@pytest.mark.parametrize("behind", [b"\0\0\0\x18ftypmp42" + bytes(100), b"\xff\xd8\xff\xe0 a gain map", b"\0\0x"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_data_behind_the_end_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, behind: bytes
) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    scene().save(source)
    source.write_bytes(source.read_bytes() + behind)
    assert run(source, target) == 4
    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1
    assert "behind the picture's end" in said
    assert "save it as a plain picture first" in said
    assert not target.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_zeros_behind_the_end_are_none(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"in{suffix}"
    scene().save(source)
    source.write_bytes(source.read_bytes() + bytes(4096))
    assert run(source, tmp_path / f"out{suffix}") == 0


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
