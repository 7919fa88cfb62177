"""No output shows the old picture in its metadata: every kind of thumbnail, put together here byte by byte."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image, PngImagePlugin

from restore_plugin import image_cli, jpeg, stills

HIDE = ("--task", "automosaic", "--method", "solid", "--regions", "8,8,40,40", "--quiet")
SUFFIXES = (".jpg", ".png", ".webp", ".tif")
XMP = (
    "<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
    "<rdf:Description rdf:about='' xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmp:Rating='4'>{}"
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)
XMP_THUMBNAIL = (
    "<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType='Resource'><xmpGImg:image>{}</xmpGImg:image></rdf:li></rdf:Alt>"
    "</xmp:Thumbnails>"
)


def scene() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()[60:140, 180:276])


@lru_cache
def thumbnail() -> bytes:
    buffer = io.BytesIO()
    scene().resize((48, 40)).save(buffer, "JPEG")
    return buffer.getvalue()


def samples() -> bytes:
    return scene().resize((48, 40)).tobytes()


def exif_block(order: str = "<", strips: bool = False, preview: bytes = b"") -> bytes:
    """IFD0 with an artist and the EXIF IFD, in that a maker's note, which may hold a preview; IFD1 with a thumbnail.

    "after!" stands behind all of it: as what a maker's note points to might.
    """
    note = b"maker's note" + preview + b"end of note!"
    picture = samples() if strips else thumbnail()
    at = 8 + 2 + 2 * 12 + 4
    note_ifd, note_at = at, at + 2 + 12 + 4
    ifd1 = note_at + len(note)
    picture_at = ifd1 + 2 + 3 * 12 + 4
    tags = (273, 279) if strips else (513, 514)

    def entry(tag: int, kind: int, count: int, value: int | bytes) -> bytes:
        field = value if isinstance(value, bytes) else struct.pack(order + "I", value)
        return struct.pack(order + "HHI", tag, kind, count) + field

    count = struct.Struct(order + "H").pack
    return b"".join(
        (
            (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8),
            count(2) + entry(315, 2, 4, b"Ada\0") + entry(34665, 4, 1, note_ifd) + struct.pack(order + "I", ifd1),
            count(1) + entry(37500, 7, len(note), note_at) + bytes(4) + note,
            count(3) + entry(259, 3, 1, struct.pack(order + "HH", 1 if strips else 6, 0)),
            entry(tags[0], 4, 1, picture_at) + entry(tags[1], 4, 1, len(picture)) + bytes(4),
            picture + b"after!",
        )
    )


def shows(data: bytes, picture: bytes = b"") -> bool:
    """Whether any longer piece of the thumbnail's coded pixels stands in the data."""
    picture = picture or thumbnail()[thumbnail().index(b"\xff\xda") + 14 :]  # before it are tables, which others have
    return any(picture[at : at + 24] in data for at in range(0, len(picture) - 24, 24))


def hide(source: Path, target: Path) -> int:
    return image_cli.main([str(source), *HIDE, "-o", str(target), "--overwrite"])


def hidden(source: Path, target: Path) -> bytes:
    assert shows(source.read_bytes()) or shows(source.read_bytes(), samples()) or source.suffix == ".png"
    assert hide(source, target) == 0
    return target.read_bytes()


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", SUFFIXES[:3])
def test_exif_without_its_thumbnail_and_else_as_it_was(tmp_path: Path, suffix: str, order: str, strips: bool) -> None:
    block = exif_block(order, strips)
    source = tmp_path / f"in{suffix}"
    scene().save(source, exif=jpeg.EXIF + block, lossless=True, quality=90)
    for to in SUFFIXES:
        out = hidden(source, tmp_path / f"out{to}")
        assert not shows(out)
        assert not shows(out, samples()[:4000])
        assert b"maker's noteend of note!" in out
        with Image.open(tmp_path / f"out{to}") as image:
            assert image.getexif()[315] == "Ada"
            assert not image.getexif().get_ifd(1)
        if to != ".tif":
            kept = stills.read(tmp_path / f"out{to}").exif
            assert kept is not None
            assert len(kept) == len(block)
            picture = samples() if strips else thumbnail()
            at, link = block.index(picture), block.index(struct.pack(order + "I", block.index(picture) - 42))
            assert kept == block[:link] + bytes(4) + block[link + 4 : at] + bytes(len(picture)) + b"after!"


@pytest.mark.parametrize("suffix", SUFFIXES[:3])
def test_a_preview_in_the_makers_note(tmp_path: Path, suffix: str) -> None:
    nested = thumbnail()[:2] + jpeg.segment(0xE1, b"Exif\0\0" + exif_block()) + thumbnail()[2:]
    source = tmp_path / f"in{suffix}"
    scene().save(source, exif=jpeg.EXIF + exif_block(preview=nested), lossless=True)
    for to in SUFFIXES:
        out = hidden(source, tmp_path / f"out{to}")
        assert not shows(out)
        assert b"maker's note" + bytes(len(nested)) + b"end of note!" in out


def test_a_preview_that_does_not_end_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jpg"
    scene().save(source, exif=jpeg.EXIF + exif_block()[: -len(thumbnail()) // 2])
    data = source.read_bytes()
    assert hide(source, tmp_path / "out.jpg") == 0  # cut off, it is IFD1's all the same
    source.write_bytes(data[:2] + jpeg.segment(0xE4, b"note" + thumbnail()[:-20]) + data[2:])
    assert hide(source, tmp_path / "out.jpg") == 4
    assert "old picture" in capfd.readouterr().err


def test_numbers_that_look_like_a_jpeg_stay(tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    scene().save(source)
    data = source.read_bytes()
    block = jpeg.segment(0xE4, b"numbers \xff\xd8\xff\x12\x34\x56\xff\xd9 of no picture")
    source.write_bytes(data[:2] + block + data[2:])
    assert hide(source, tmp_path / "out.jpg") == 0
    assert block in (tmp_path / "out.jpg").read_bytes()


def resource(number: int, data: bytes, name: bytes = b"") -> bytes:
    label = bytes([len(name)]) + name
    padded = label + bytes(len(label) % 2)
    return b"8BIM" + struct.pack(">H", number) + padded + struct.pack(">I", len(data)) + data + bytes(len(data) % 2)


def resources() -> tuple[bytes, bytes]:
    """Photoshop's block, and what is to be left of it."""
    head = bytes(28)
    kept = resource(1028, b"IPTC!", b"x"), resource(1005, bytes(16), b"name")
    cut = resource(1036, head + thumbnail()), resource(1033, head + thumbnail()[:-1])
    return kept[0] + cut[0] + kept[1] + cut[1], kept[0] + kept[1]


def test_thumbnails_in_the_segments_of_a_jpeg(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    scene().save(source, dpi=(300, 300))
    data = source.read_bytes()
    tiny = scene().resize((40, 30))
    with_thumbnail = b"JFIF\0\1\2\1\1\x2c\1\x2c" + bytes(tiny.size) + tiny.tobytes()
    block, left = resources()
    xmp = XMP.format(XMP_THUMBNAIL.format(base64.b64encode(thumbnail()).decode()))
    added = [
        jpeg.segment(0xE0, with_thumbnail),
        jpeg.segment(0xE0, b"JFXX\0\x10" + thumbnail()),
        jpeg.segment(0xED, b"Photoshop 3.0\0" + block),
        jpeg.segment(0xE1, jpeg.XMP + xmp.encode()),
        jpeg.segment(0xE5, b"Preview " + thumbnail() + b" of some maker"),
    ]
    source.write_bytes(data[:2] + b"".join(added) + data[20:])  # in place of Pillow's own JFIF block
    out = hidden(source, target)
    assert not shows(out)
    assert not shows(out, tiny.tobytes())
    assert b"JFXX" not in out
    assert base64.b64encode(thumbnail())[300:400] not in out
    assert jpeg.segment(0xE0, with_thumbnail[:12] + bytes(2)) in out
    assert jpeg.segment(0xED, b"Photoshop 3.0\0" + left) in out
    assert jpeg.segment(0xE1, jpeg.XMP + XMP.format("").encode()) in out
    assert jpeg.segment(0xE5, b"Preview " + bytes(len(thumbnail())) + b" of some maker") in out
    with Image.open(target) as image:
        assert image.info["dpi"] == (300, 300)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_elsewhere_in_xmp_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str) -> None:
    source = tmp_path / f"in{suffix}"
    xmp = XMP.format("<GImage:Data>" + base64.b64encode(thumbnail()).decode() + "</GImage:Data>")
    if suffix == ".tif":
        tifffile.imwrite(source, np.array(scene()), photometric="rgb", extratags=[(700, 1, len(xmp), xmp.encode())])
    elif suffix == ".png":
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", xmp, zip=True)
        scene().save(source, pnginfo=texts)
    else:
        scene().save(source, xmp=xmp.encode(), lossless=True)
    assert hide(source, tmp_path / f"out{suffix}") == 4
    said = capfd.readouterr().err
    assert "picture in its XMP" in said
    assert "exiftool" in said
    assert not (tmp_path / f"out{suffix}").exists()


def test_a_thumbnail_in_extended_xmp_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jpg"
    scene().save(source)
    data = source.read_bytes()
    text = XMP_THUMBNAIL.format(base64.b64encode(thumbnail()).decode()).encode()
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32
    parts = [
        jpeg.segment(0xE1, head + struct.pack(">II", len(text), at) + text[at : at + 700])
        for at in range(0, len(text), 700)
    ]
    source.write_bytes(data[:2] + b"".join(parts) + data[2:])
    assert hide(source, tmp_path / "out.jpg") == 4
    assert "extended XMP" in capfd.readouterr().err


def test_signed_pictures_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jpg"
    scene().save(source)
    data = source.read_bytes()
    box = b"JP\0\1\0\0\0\1" + struct.pack(">I", 60) + b"jumb" + bytes(48)
    source.write_bytes(data[:2] + jpeg.segment(0xEB, box) + data[2:])
    assert hide(source, tmp_path / "out.jpg") == 4
    assert "C2PA" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["tEXt", "zTXt"])
def test_metadata_that_imagemagick_writes_as_text(tmp_path: Path, kind: str) -> None:
    def text(block: bytes) -> str:
        lines = [block[at : at + 36].hex() for at in range(0, len(block), 36)]
        return f"\nexif\n{len(block):8d}\n" + "\n".join(lines) + "\n"

    source, target, block = tmp_path / "in.png", tmp_path / "out.png", b"Exif\0\0" + exif_block()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Raw profile type exif", text(block), zip=kind == "zTXt")
    texts.add_text("Title", "kept")
    scene().save(source, pnginfo=texts)
    assert hide(source, target) == 0
    with Image.open(target) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        image.load()
        profile = bytes.fromhex("".join(image.text["Raw profile type exif"].split()[2:]))
        assert image.text["Title"] == "kept"
    assert not shows(profile)
    assert profile.endswith(bytes(len(thumbnail())) + b"after!")
    assert len(profile) == len(block)


def test_tags_of_a_tiff(tmp_path: Path) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    block, left = resources()
    xmp = XMP.format(XMP_THUMBNAIL.format(base64.b64encode(thumbnail()).decode())).encode()
    private = b"of a maker " + thumbnail() + b"."
    tifffile.imwrite(
        source,
        np.array(scene()),
        photometric="rgb",
        extratags=[(34377, 7, len(block), block), (700, 1, len(xmp), xmp), (65001, 7, len(private), private)],
    )
    assert not shows(hidden(source, target))
    with tifffile.TiffFile(target) as file:
        tags = file.pages.first.tags
        assert target.read_bytes()[tags[34377].valueoffset :][: tags[34377].count] == left
        assert tags[700].value == XMP.format("").encode()
        assert tags[65001].value == b"of a maker " + bytes(len(thumbnail())) + b"."


def test_damaged_texts_pass_through(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    source, target = tmp_path / "in.png", tmp_path / "out.png"
    scene().save(source)
    data = source.read_bytes()
    odd = chunk(b"zTXt", b"Comment\0\0not deflated") + chunk(b"iTXt", b"XML:com.adobe.xmp\0") + chunk(b"tEXt", b"none")
    source.write_bytes(data[:33] + odd + data[33:])
    assert hide(source, target) == 0
    assert odd in target.read_bytes()
