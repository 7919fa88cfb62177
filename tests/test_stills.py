"""Still pictures and `restore-image`.

Inputs are written and outputs read back by other libraries than the ones that `stills` uses for them, or compared with
arrays that never went through a file.
"""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.color
import skimage.data
import tifffile
from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin

from restore_plugin import catalog, image_cli, stills
from restore_plugin.errors import InputError, OutputError, Refused, RestoreError
from restore_plugin.regions import regions_under
from restore_plugin.types import Box, Frame, Mask, Region

Samples = np.ndarray[Any, Any]

BLOCK, BOX = 8, Box(24, 16, 48, 40)
REGION = ("--method", "bicubic", "--regions", "24,16,48,40", "--block", "8")
MARK = "restored by restore-plugin (demosaic, bicubic): restored pixels are plausible, not evidence"
EXIF_IFD, TAKEN, ARTIST, ORIENTATION = 0x8769, 0x9003, 315, 274


@lru_cache
def scene(dtype: str = "uint8") -> Samples:
    """(80, 96, 3): a face whose eyes are pixelated, and noise in the low byte of 16 bits."""
    values = skimage.data.astronaut()[60:140, 180:276].astype(np.float64) / 255
    cells = values[BOX.slices].reshape(5, BLOCK, 6, BLOCK, 3).mean((1, 3))
    top = np.iinfo(dtype).max
    out: Samples = np.round(values * top).astype(dtype)
    if dtype == "uint16":
        out ^= np.random.default_rng(1).integers(0, 256, out.shape, dtype=np.uint16)
    out[BOX.slices] = np.round(cells * top).astype(dtype).repeat(BLOCK, 0).repeat(BLOCK, 1)
    return out


def samples_of(dtype: str, channels: int) -> Samples:
    """The scene as (H, W, channels): grey or RGB, then a ramp of alpha with transparent places."""
    colour = scene(dtype) if channels > 2 else scene(dtype)[..., 1:2]
    ramp = np.linspace(0, np.iinfo(dtype).max, colour.shape[0] * colour.shape[1]).astype(dtype)
    alpha = ramp.reshape(*colour.shape[:2], 1)
    alpha[:9] = 0
    return np.concatenate((colour, alpha), -1) if channels in (2, 4) else colour


def outside() -> Mask:
    mask = np.ones((80, 96), bool)
    mask[BOX.slices] = False
    return mask


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def plain_png(samples: Samples, depth: int, extra: bytes = b"") -> bytes:
    """A PNG without filters: rows of ready bytes from 16-bit samples, or 8 bits and less."""
    height, width, channels = samples.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    flat = samples.reshape(height, -1)
    if depth < 8:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1), axis=1)
    else:
        rows = flat.astype(">u2").view(np.uint8) if depth == 16 else flat
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = png_chunk(b"IDAT", zlib.compress(body)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + extra + end


def save(path: Path, samples: Samples) -> Path:
    """Write without any help of `stills`."""
    if path.suffix == ".tif":
        extra = {2: ["unassalpha"], 4: ["unassalpha"]}.get(samples.shape[2], [])
        photometric = "rgb" if samples.shape[2] > 2 else "minisblack"
        squeezed = samples[..., 0] if samples.shape[2] == 1 else samples
        tifffile.imwrite(path, squeezed, photometric=photometric, extrasamples=extra, planarconfig="contig")
    elif path.suffix == ".png":
        path.write_bytes(plain_png(samples, 8 * samples.itemsize))
    else:
        Image.fromarray(samples.squeeze()).save(path, lossless=True, exact=True)
    return path


def load(path: Path) -> Samples:
    """(H, W, channels) as stored, by a library that had no part in writing it; OpenCV spreads grey with alpha."""
    if path.suffix == ".tif":
        found = tifffile.imread(path)
    elif path.suffix == ".png":
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert found is not None
        if found.ndim == 3:
            found = found[..., [2, 1, 0, 3][: found.shape[2]]]
        if path.read_bytes()[25] == 4:  # colour type of IHDR
            found = found[..., 2:]
    else:
        with Image.open(path) as image:
            found = np.array(image)
    out: Samples = found.reshape(*found.shape[:2], -1)
    return out


def run(*arguments: object) -> int:
    return image_cli.main([str(argument) for argument in arguments])


LAYOUTS = [(".png", t, c) for t in ("uint8", "uint16") for c in (1, 2, 3, 4)]
LAYOUTS += [(".tif", t, c) for t in ("uint8", "uint16") for c in (1, 2, 3, 4)]
LAYOUTS += [(".webp", "uint8", 3), (".webp", "uint8", 4)]


@pytest.mark.parametrize(("suffix", "dtype", "channels"), LAYOUTS)
def test_restored_inside_and_bit_exact_elsewhere(tmp_path: Path, suffix: str, dtype: str, channels: int) -> None:
    samples = samples_of(dtype, channels)
    source, target = save(tmp_path / f"in{suffix}", samples), tmp_path / f"out{suffix}"
    before = source.read_bytes()
    assert run(source, *REGION, "-o", target) == 0
    out = load(target)
    assert out.dtype == samples.dtype
    assert out.shape == samples.shape
    assert np.array_equal(out[outside()], samples[outside()])
    colours = 3 if channels > 2 else 1
    assert np.array_equal(out[..., colours:], samples[..., colours:])  # alpha, inside as well
    cells, was = (values[BOX.slices][..., :colours].reshape(5, BLOCK, 6, BLOCK, colours) for values in (out, samples))
    assert cells.astype(float).std((1, 3)).mean() > 0
    scale = np.iinfo(dtype).max
    assert np.abs(cells.mean((1, 3)) - was.mean((1, 3))).max() / scale < 1.5 / 255
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, target.name])


@pytest.mark.parametrize(("suffix", "dtype", "channels"), LAYOUTS)
def test_pillow_and_opencv_open_what_was_written(tmp_path: Path, suffix: str, dtype: str, channels: int) -> None:
    samples = samples_of(dtype, channels)
    target = tmp_path / f"out{suffix}"
    stills.write(stills.read(save(tmp_path / f"in{suffix}", samples)), target, MARK)
    if (suffix, dtype, channels) != (".tif", "uint16", 2):  # which neither of them knows
        with Image.open(target) as image:
            image.load()
            assert image.size == (96, 80)
            if dtype == "uint8":
                assert np.array_equal(np.array(image).reshape(samples.shape), samples)
    if channels != 2 or suffix == ".png":
        found = cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
        assert found is not None
        assert found.dtype == samples.dtype
        if channels == 3:
            assert np.array_equal(found[..., ::-1], samples)


def test_png_filters_save_space_and_survive_every_width(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for height, width, channels in ((1, 1, 1), (1, 7, 4), (300, 1, 2), (5, 3, 3), (600, 2, 3)):
        samples = random.integers(0, 65536, (height, width, channels), dtype=np.uint16)
        target = tmp_path / "out.png"
        stills.write(stills.read(save(tmp_path / "in.png", samples)), target, MARK)
        assert np.array_equal(load(target), samples)
    picture = save(tmp_path / "in.png", skimage.data.astronaut())
    stills.write(stills.read(picture), target, MARK)
    Image.fromarray(skimage.data.astronaut()).save(picture)
    assert target.stat().st_size < 1.05 * picture.stat().st_size


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_palette_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "in.png"
    palette = Image.fromarray(scene()).quantize(64)
    palette.save(source, transparency=3)
    expected = palette.convert("RGB")
    still = stills.read(source)
    assert np.array_equal(still.pixels, np.array(expected))
    assert still.alpha is not None
    assert np.array_equal(still.alpha == 0, np.array(palette) == 3)
    stills.write(still, tmp_path / f"out{suffix}", MARK)
    assert np.array_equal(load(tmp_path / f"out{suffix}")[..., :3], np.array(expected))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_transparent_grey_of_png(tmp_path: Path, depth: int) -> None:
    values = np.random.default_rng(depth).integers(0, 2 ** min(depth, 8), (6, 10, 1), dtype=np.uint16)
    values = values if depth == 16 else values.astype(np.uint8)
    key = int(values[2, 3, 0])
    path = tmp_path / "in.png"
    path.write_bytes(plain_png(values, depth, png_chunk(b"tRNS", struct.pack(">H", key))))
    still = stills.read(path)
    assert still.grey
    assert still.alpha is not None
    assert np.array_equal(still.alpha == 0, values[..., 0] == key)
    top = 65535 if depth == 16 else 255
    assert np.array_equal(still.pixels[..., 1], values[..., 0].astype(int) * (top // (2**depth - 1)))


def exif_bytes(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION], exif[ARTIST] = orientation, "Ada"
    exif.get_ifd(EXIF_IFD)[TAKEN] = "2024:02:29 12:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def exif_of(path: Path) -> tuple[Any, ...]:
    with Image.open(path) as image:
        exif = image.getexif()
        taken, north = exif.get_ifd(EXIF_IFD).get(TAKEN), exif.get_ifd(0x8825).get(1)
        return exif.get(ORIENTATION), exif.get(ARTIST), taken, north


@lru_cache  # it holds the time
def icc_bytes() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_metadata(path: Path) -> Path:
    image = Image.fromarray(scene())
    image.save(path, exif=exif_bytes(), icc_profile=icc_bytes(), dpi=(300, 150), lossless=True, quality=90)
    return path


SUFFIXES = (".png", ".jpg", ".tif", ".webp")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("to", SUFFIXES)
def test_metadata_pass_from_every_format_to_every_format(tmp_path: Path, suffix: str, to: str) -> None:
    source, target = with_metadata(tmp_path / f"in{suffix}"), tmp_path / f"out{to}"
    assert run(source, *REGION, "-o", target) == 0
    assert exif_of(target) == (6, "Ada", "2024:02:29 12:00:00", "N")
    with Image.open(target) as image:
        assert image.info["icc_profile"] == icc_bytes()
        if ".webp" not in (suffix, to):  # WebP knows no resolution
            assert image.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    assert stills.read(target).pixels.shape == (96, 80, 3)  # as shown: turned by a quarter


def test_png_blocks_stay_byte_by_byte(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "Grace")
    texts.add_itxt("Author", "Grüße", zip=True)
    texts.add_text("Software", "a camera")
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(scene()).save(source, pnginfo=texts, exif=exif_bytes(), icc_profile=icc_bytes(), dpi=(72, 72))
    assert run(source, *REGION, "-o", target) == 0
    with Image.open(target) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        image.load()
        assert image.text == {"Title": "Grace", "Author": "Grüße", "Software": "a camera", "Comment": MARK}

    def blocks(path: Path) -> set[bytes]:
        data, at, found = path.read_bytes(), 8, set()
        while at < len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            found.add(data[at:end])
            at = end
        return {block for block in found if block[4:8] not in (b"IDAT", b"IHDR")}

    assert blocks(source) < blocks(target)


def test_jpeg_blocks_stay_byte_by_byte(tmp_path: Path) -> None:
    iptc = b"\xff\xed\x00\x12Photoshop 3.0\0ab"
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    Image.fromarray(scene()).save(source, exif=exif_bytes(), icc_profile=icc_bytes(), comment=b"hello", xmp=xmp)
    data = source.read_bytes()
    source.write_bytes(data[:2] + iptc + data[2:])
    assert run(source, *REGION, "-o", target) == 0
    out = target.read_bytes()
    assert iptc in out
    assert b"\xff\xfe" + struct.pack(">H", len(MARK) + 2) + MARK.encode() in out
    with Image.open(target) as image:
        assert image.info["comment"] == b"hello"
        assert image.info["exif"].removeprefix(b"Exif\0\0") == exif_bytes().removeprefix(b"Exif\0\0")
        assert image.info["xmp"] == xmp
        assert image.info["icc_profile"] == icc_bytes()


def test_tiff_tags_keep_type_and_byte_order(tmp_path: Path) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    geo = (33550, "d", 3, (0.5, 0.25, 0.0), False)
    private = (65000, "H", 4, (1, 2, 3, 65535), False)
    tifffile.imwrite(
        source,
        scene("uint16"),
        byteorder=">",
        photometric="rgb",
        software="scanner",
        description="a plate",
        metadata=None,
        resolution=(300.5, 300.5),
        resolutionunit="CENTIMETER",
        iccprofile=icc_bytes(),
        extratags=[geo, private],
    )
    assert run(source, *REGION, "-o", target) == 0
    assert target.read_bytes()[:2] == b"MM"
    with tifffile.TiffFile(source) as before, tifffile.TiffFile(target) as after:
        for tag in (270, 282, 283, 296, 305, 33550, 34675, 65000):
            was, now = before.pages.first.tags[tag], after.pages.first.tags[tag]
            assert (was.dtype, was.count, was.value) == (now.dtype, now.count, now.value)
        assert MARK in after.pages.first.tags[700].value.decode()  # both other places were taken
    assert stills.read(target).dpi == pytest.approx((300.5 * 2.54, 300.5 * 2.54))


def test_16_bit_tiff_as_other_programs_write_it(tmp_path: Path) -> None:
    values, path = scene("uint16"), tmp_path / "in.tif"
    cv2.imwrite(str(path), values[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])  # LZW
    assert np.array_equal(stills.read(path).pixels, values)
    tifffile.imwrite(path, np.moveaxis(values, -1, 0), photometric="rgb", planarconfig="separate", byteorder=">")
    assert np.array_equal(stills.read(path).pixels, values)
    tifffile.imwrite(path, values, photometric="rgb", compression="zlib", predictor=True, tile=(16, 16))
    assert np.array_equal(stills.read(path).pixels, values)


def test_every_output_is_marked_where_it_harms_nothing(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        target = tmp_path / f"out{suffix}"
        assert run(save(tmp_path / "in.png", scene()), *REGION, "-o", target) == 0
        assert MARK.encode() in target.read_bytes()
    with Image.open(tmp_path / "out.tif") as image:
        assert image.getexif()[305] == MARK
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.info["comment"].decode() == MARK


def test_mark_that_finds_no_place_is_told(tmp_path: Path) -> None:
    still = replace(stills.read(with_metadata(tmp_path / "in.webp")), xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    assert not stills.write(still, tmp_path / "out.webp", MARK)
    with Image.open(tmp_path / "out.webp") as image:
        assert image.info["xmp"] == still.xmp


STEPS = [[low + (i % 8) + i // 8 for i in range(64)] for low in (3, 9, 20)]


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("tables", [STEPS[:1], STEPS[:2], STEPS])
def test_jpeg_keeps_tables_and_subsampling(tmp_path: Path, subsampling: int, tables: list[list[int]]) -> None:
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    Image.fromarray(scene()).save(source, qtables=tables, subsampling=subsampling)
    assert run(source, *REGION, "-o", target) == 0
    with Image.open(source) as before, Image.open(target) as after:
        assert isinstance(before, JpegImagePlugin.JpegImageFile)
        assert isinstance(after, JpegImagePlugin.JpegImageFile)
        steps = [[image.quantization[layer[3]] for layer in image.layer] for image in (before, after)]
        assert steps[0] == steps[1]
        assert JpegImagePlugin.get_sampling(after) == subsampling
        # What the coding had left out is not there to be lost again: far regions hardly change.
        far = np.abs(np.array(before).astype(int) - np.array(after))[64:]
        assert far.mean() < 0.7
    assert cv2.imread(str(target)) is not None


def test_grey_and_rgb_coded_jpeg(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    Image.fromarray(scene()[..., 1]).save(source, quality=37)
    assert run(source, *REGION, "-o", target) == 0
    with Image.open(source) as before, Image.open(target) as after:
        assert after.mode == "L"
        assert isinstance(before, JpegImagePlugin.JpegImageFile)
        assert isinstance(after, JpegImagePlugin.JpegImageFile)
        assert before.quantization == after.quantization
    Image.fromarray(scene()).save(source, quality=95, keep_rgb=True)
    assert run(source, *REGION, "-o", target, "--overwrite") == 0
    with Image.open(source) as before, Image.open(target) as after:
        assert isinstance(after, JpegImagePlugin.JpegImageFile)
        assert [layer[0] for layer in after.layer] == list(b"RGB")
        assert np.abs(np.array(before).astype(int) - np.array(after))[64:].max() <= 4
    assert run(save(tmp_path / "in.png", scene()), *REGION, "-o", target, "--overwrite") == 0
    with Image.open(target) as image:
        assert JpegImagePlugin.get_sampling(image) == 0


def make_bad(path: Path, what: str) -> None:
    picture = Image.fromarray(scene())
    buffer = io.BytesIO()
    match what:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("hello")
        case "gif":
            picture.quantize().save(path, "GIF")
        case "heic":
            path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        case "broken png" | "broken 16-bit png":
            data = bytearray(plain_png(scene("uint16"), 16) if "16" in what else plain_png(scene(), 8))
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "short 16-bit png":
            whole = plain_png(scene("uint16")[:40], 16)
            size = struct.pack(">II", 96, 80) + whole[24:29]
            path.write_bytes(whole[:8] + png_chunk(b"IHDR", size) + whole[33:])
        case "bomb":
            head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
            blank = png_chunk(b"IDAT", zlib.compress(b"\0")) + png_chunk(b"IEND", b"")
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + blank)
        case "pages":
            picture.save(path, "TIFF", save_all=True, append_images=[picture])
        case "stack":
            tifffile.imwrite(path, np.zeros((3, 20, 30), np.uint16), imagej=True)
        case "float":
            tifffile.imwrite(path, scene().astype(np.float32), photometric="rgb")
        case "premultiplied":
            tifffile.imwrite(path, samples_of("uint8", 4), photometric="rgb", extrasamples=["assocalpha"])
        case "bigtiff":
            tifffile.imwrite(path, scene(), photometric="rgb", bigtiff=True)
        case "cmyk":
            picture.convert("CMYK").save(path, "JPEG")
        case "cmyk tiff":
            picture.convert("CMYK").save(path, "TIFF")
        case "apng" | "webp":
            frames = [picture.rotate(90), picture.rotate(180)]
            picture.save(path, "PNG" if what == "apng" else "WEBP", save_all=True, append_images=frames)
        case "mpo":
            picture.save(path, "MPO", save_all=True, append_images=[picture])
        case _:
            picture.save(buffer, what.removeprefix("short "))
            path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3])


BAD = {
    "empty": (2, "0 bytes"),
    "text": (2, "not a picture"),
    "gif": (2, "GIF"),
    "heic": (2, "HEIC"),
    "broken png": (2, "damaged"),
    "broken 16-bit png": (2, "damaged"),
    "short 16-bit png": (2, "damaged"),
    "short PNG": (2, "damaged"),
    "short JPEG": (2, "damaged"),
    "short TIFF": (2, "damaged"),
    "short WEBP": (2, "damaged"),
    "bomb": (2, "60000x60000"),
    "pages": (4, "several pages"),
    "stack": (4, "several pages"),
    "float": (4, "floating point"),
    "premultiplied": (4, "premultiplied"),
    "bigtiff": (4, "BigTIFF"),
    "cmyk": (4, "CMYK"),
    "cmyk tiff": (4, "SEPARATED"),
    "apng": (4, "animated"),
    "webp": (4, "animated"),
    "mpo": (4, "several pictures"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    code, words = BAD[what]
    source = tmp_path / "in.png"
    make_bad(source, what)
    assert run(source, *REGION, "-o", tmp_path / "out.tif") == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"restore-image: {source} ")
    assert words in lines[0]
    assert list(tmp_path.iterdir()) == [source]


MISTAKES: list[tuple[tuple[str, ...], int, str]] = [
    (("missing.png", *REGION), 2, "No such file"),
    (("in.png", "--method", "bicubic", "--block", "8", "--regions", "60,0,48,8"), 2, "reaches outside"),
    (("in.png", "--method", "bicubic", "--block", "8", "--regions", "4,4,0,8"), 2, "positive size"),
    (("in.png", "--method", "bicubic", "--block", "8", "--regions", "4,4,8"), 2, "x,y,w,h"),
    (("in.png", "--method", "bicubic", "--block", "8", "--regions", "4,4,8.5,9"), 2, "whole px"),
    (("in.png", *REGION[:-1], "0.5"), 2, "at least 2 px"),
    (("in.png", *REGION[:-1], "8x9x7"), 2, "--block"),
    (("in.png", *REGION[:-1], "nan"), 2, "--block"),
    (("in.png", *REGION, "--phase", "3"), 2, "--phase x,y"),
    (("in.png", "--method", "bicubic", "--regions", "0,0,8,8", "--phase", "3,3"), 2, "give --block"),
    (("in.png", *REGION, "--mask", "in.png"), 2, "not allowed with"),
    (("in.png", *REGION, "--no-such-option"), 2, "--no-such-option"),
    (("in.png", *REGION, "--method", "magic"), 2, "magic"),
    (("in.png", *REGION, "--task", "magic"), 2, "magic"),
    (("in.png", *REGION, "--engine", "magic"), 2, "engine"),
    (("in.png", *REGION, "-o", "in.png", "--overwrite"), 2, "is an input"),
    (("in.png", *REGION, "-o", "link.png", "--overwrite"), 2, "is an input"),
    (("in.png", *REGION, "-o", "there.png"), 2, "--overwrite"),
    (("in.png", *REGION, "-o", "out.bmp"), 2, ".webp"),
    (("in.png", *REGION, "-o", "there.png/out.png"), 5, "Not a directory"),
    (("in.png", "there.png", *REGION, "-o", "there.png"), 2, "folder"),
    (("deep.png", *REGION, "-o", "out.jpg"), 2, "16"),
    (("deep.png", *REGION, "-o", "out.webp"), 2, "16"),
    (("clear.png", *REGION, "-o", "out.jpg"), 2, "transparency"),
    (("in.png", "--method", "bicubic", "--block", "8", "--mask", "small.png"), 2, "96x80"),
    (("in.png", "--method", "bicubic", "--block", "8", "--mask", "black.png"), 3, "black"),
    (("in.png", "--method", "bicubic", "--block", "8", "--mask", "missing.png"), 2, "No such file"),
    (("in.png", "--method", "bicubic", "--mask", "mask.png", "--block", "8", "-o", "mask.png"), 2, "is an input"),
    (("empty-folder", *REGION), 2, "found none"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES, ids=lambda value: None)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, samples in {
        "in.png": scene(),
        "there.png": scene()[:32],
        "deep.png": scene("uint16"),
        "clear.png": samples_of("uint8", 4),
        "small.png": scene()[:9, :9],
        "black.png": np.zeros((80, 96, 1), np.uint8),
        "mask.png": np.full((80, 96, 1), 255, np.uint8),
    }.items():
        save(tmp_path / name, samples)
    os.link("in.png", "link.png")
    (tmp_path / "empty-folder").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert run(*arguments) == code
    said = capfd.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("restore-image: ")
    assert words in said.err
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_default_name_json_and_overwrite(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = save(tmp_path / "in.png", scene())
    assert run(source, *REGION, "--json") == 0
    said = capfd.readouterr()
    assert said.err == ""
    entry = json.loads(said.out)
    assert entry.pop("seconds") >= 0
    box = [BOX.x, BOX.y, BOX.width, BOX.height]
    region = {"id": 0, "box": box, "block": [8, 8], "phase": [24, 16], "confidence": 1}
    output = str(tmp_path / "in.restored.png")
    assert entry == {"input": str(source), "output": output, "regions": [region], "left_out_bytes": 0}
    assert run(source, *REGION, "--quiet") == 2
    assert run(source, *REGION, "--quiet", "--overwrite") == 0
    assert capfd.readouterr().out == ""


def test_several_pictures_go_on_after_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "made" / "here"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.png", "c.tif", "b.webp", "a.restored.png", ".hidden.png", "deeper/d.png"):
        save(folder / name, scene())
    (folder / "b2.png").write_bytes(b"")
    make_bad(folder / "b3.png", "pages")
    (folder / "notes.txt").write_text("no picture")
    assert run(folder, *REGION, "-o", out, "--json") == 2  # of the first that failed
    said = capfd.readouterr()
    assert sorted(path.name for path in out.iterdir()) == ["a.restored.png", "b.restored.webp", "c.restored.tif"]
    entries = [json.loads(line) for line in said.out.splitlines()]
    assert [Path(entry["input"]).name for entry in entries] == ["a.png", "b.webp", "b2.png", "b3.png", "c.tif"]
    assert [entry.get("exit_code") for entry in entries] == [None, None, 2, 4, None]
    assert len(said.err.splitlines()) == 2


def test_two_inputs_never_share_an_output(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "a.png", scene())
    out = tmp_path / "out"
    assert run(tmp_path / "one", tmp_path / "two", *REGION, "-o", out) == 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 5, "No space left"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("no\nidea"), 1, "unexpected error: RuntimeError: no idea; please report this"),
    ],
)
def test_nothing_half_written_stays(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    words: str,
) -> None:
    source, target = save(tmp_path / "in.png", scene()), save(tmp_path / "out.png", scene()[:32])
    before = target.read_bytes()

    def fail(_: int) -> None:
        assert (tmp_path / ".out.png.part").exists()
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    assert run(source, *REGION, "-o", target, "--overwrite") == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png"]


def test_errors_of_the_library_are_typed(tmp_path: Path) -> None:
    still = stills.read(save(tmp_path / "in.png", scene()))
    with pytest.raises(OutputError):
        stills.write(still, tmp_path / "in.png" / "out.png", MARK)
    with pytest.raises(InputError):
        stills.write(replace(still, pixels=np.zeros((2, 16384, 3), np.uint8)), tmp_path / "out.webp", MARK)
    with pytest.raises(InputError, match="fits a JPEG"):
        stills.write(replace(still, exif=bytes(70000)), tmp_path / "out.jpg", MARK)
    with pytest.raises(InputError, match="EXIF"):
        stills.write(replace(still, exif=b"II*\0\xff\xff\0\0"), tmp_path / "out.tif", MARK)
    grey = replace(still, grey=True, icc=bytes(16) + b"GRAY" + bytes(100))
    with pytest.raises(Refused):
        stills.write(grey, tmp_path / "out.webp", MARK)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png"]


def test_no_damage_makes_anything_but_an_explained_error(tmp_path: Path) -> None:
    random, path = np.random.default_rng(5), tmp_path / "in"
    for suffix in SUFFIXES:
        whole = with_metadata(tmp_path / f"in{suffix}").read_bytes()
        for _ in range(40):
            data = bytearray(whole)
            for at in random.integers(4, min(len(data), 600), 3):
                data[at] = random.integers(0, 256)
            path.write_bytes(data[: random.integers(8, 2 * len(data))])
            with suppress(RestoreError):  # anything else fails the test
                stills.write(stills.read(path), tmp_path / f"out{suffix}", MARK)


class Measuring:
    """A Finder that knows where the mosaic is."""

    def find(self, frame: Frame) -> list[Region]:
        return [Region(BOX, 0, (8.0, 8.0), (24.0, 16.0))]

    def measure(self, frame: Frame, mask: Mask) -> Region | None:
        assert (frame.height, frame.width) == mask.shape
        return None if mask[0, 0] else replace(self.find(frame)[0], confidence=0.5)


@pytest.mark.parametrize("where", [("--regions", "24,16,48,40"), ("--mask", "mask.png"), ()])
def test_without_block_the_finder_measures(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: Iterable[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalog, "build_finder", lambda task, *how: Measuring())
    save(tmp_path / "mask.png", np.where(outside(), 0, 255).astype(np.uint8)[..., None])
    source = save(tmp_path / "in.png", scene())
    assert run(source, "--method", "bicubic", *where, "-o", "out.png", "--json") == 0
    said = capfd.readouterr()
    entry = json.loads(said.out)["regions"][0]
    assert (entry["box"], entry["block"], entry["phase"]) == ([24, 16, 48, 40], [8, 8], [24, 16])
    assert run(source, *REGION, "-o", "given.png") == 0
    assert np.array_equal(load(tmp_path / "out.png"), load(tmp_path / "given.png"))
    assert run(source, "--method", "bicubic", "--regions", "0,0,20,20", "-o", "other.png", "--quiet") == 2
    assert "--block" in capfd.readouterr().err


def test_mask_is_kept_to_the_pixel(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    mask = cv2.GaussianBlur(random.random((80, 96)).astype(np.float32), (9, 9), 0) > 0.5  # blobs with holes
    save(tmp_path / "mask.png", np.where(mask, 255, 0).astype(np.uint8)[..., None])
    source, target = save(tmp_path / "in.png", scene()), tmp_path / "out.png"
    options = ("--method", "bicubic", "--mask", tmp_path / "mask.png", "--block", "8", "--phase", "24,16")
    assert run(source, *options, "-o", target) == 0
    changed = (load(target) != scene()).any(-1)
    assert not changed[~mask].any()
    assert changed[mask].mean() > 0.5
    drawn = np.zeros(mask.shape, int)
    for region in regions_under(mask):
        drawn[region.box.slices] += region.mask()
    assert np.array_equal(drawn, mask)


def test_linear_light_keeps_the_means_of_light(tmp_path: Path) -> None:
    source = save(tmp_path / "in.png", scene())
    error = {}
    for name, option in (("gamma", ()), ("light", ("--linear-light",))):
        target = tmp_path / f"{name}.png"
        assert run(source, *REGION, *option, "-o", target) == 0
        light, was = (
            skimage.color.rgb2xyz(values[BOX.slices]) for values in (load(target), scene())
        )  # linear in light
        error[name] = np.abs((light - was).reshape(5, BLOCK, 6, BLOCK, 3).mean((1, 3))).mean()
    assert error["light"] < 0.001
    assert error["light"] < error["gamma"] / 2


def test_help_is_honest_and_light() -> None:
    code = (
        "import sys; from restore_plugin.image_cli import main; code = main(['--help']);"
        "print([name for name in ('numpy', 'cv2', 'PIL', 'tifffile', 'engines') if name in sys.modules], code)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[] 0"
    assert "plausible, not evidence" in said
    assert "130  interrupted" in said
