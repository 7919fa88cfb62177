"""JPEG files (ITU-T T.81) by their segments: what stands in them besides the pixels, where they end, and their writing.

Knows no `Still`: a segment is marker, length and data in one, samples are arrays (H, W, 1 or 3).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image as Pillow
from PIL import JpegImagePlugin

from restore_plugin.errors import InputError
from restore_plugin.metadata import Metadata
from restore_plugin.png import Samples

EXIF = b"Exif\0\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
ICC = b"ICC_PROFILE\0"
QUALITY = 95  # of what was no JPEG before
INCH = {1: 1.0, 2: 2.54}  # in JFIF's units of length
ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
BEHIND_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # coded pixels hold no other marker than restarts


@dataclass(frozen=True)
class Coding:
    """How a JPEG was coded. `tables`: 64 steps each, row by row, for Y, Cb, Cr; the last serves the rest."""

    tables: tuple[tuple[int, ...], ...]
    subsampling: int  # as in Pillow: 0 = 4:4:4, 1 = 4:2:2, 2 = 4:2:0
    rgb: bool = False  # stored as R, G, B, not as Y, Cb, Cr


def segment(marker: int, data: bytes) -> bytes:
    """Raises InputError for more than fits."""
    if len(data) > 65533:
        raise InputError(f"its metadata hold a block of {len(data)} bytes, more than fits a JPEG; name the output .png")
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def segments(data: bytes) -> tuple[list[bytes], bytes]:
    """The segments before the scan; and the rest."""
    at, found = 2, []
    while data[at + 1] != 0xDA:
        if data[at] != 0xFF:
            raise ValueError("expected a marker between segments")
        if data[at + 1] == 0xFF:  # fill byte
            at += 1
            continue
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        found.append(data[at:end])
        at = end
    return found, data[at:]


def end(data: bytes, start: int = 0) -> int | None:
    """The byte behind the JPEG that starts at byte `start`; None where the data end before it does.

    Raises ValueError where something stands there that only starts as a JPEG does.
    """
    at = start + 2
    while at + 4 <= len(data) or data[at : at + 2] == b"\xff\xd9":
        marker = data[at + 1]
        if data[at] != 0xFF or not (marker in ALONE or marker >= 0xC0):
            raise ValueError("expected a marker between segments")
        if marker == 0xD9:
            return at + 2
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        at += 2 if marker in ALONE else 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker == 0xDA:
            found = BEHIND_SCAN.search(data, at)
            at = found.start() if found else len(data)
    return None


def coding(image: Pillow.Image) -> Coding:
    """Of an open JPEG."""
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    names = [layer[0] for layer in image.layer]
    tables = [tuple(image.quantization[layer[3]]) for layer in image.layer]
    rgb = "jfif" not in image.info and (names == list(b"RGB") or image.info.get("adobe_transform") == 0)
    # Pillow writes 4:4:4, 4:2:2 and 4:2:0; from anything rarer the finest loses nothing.
    return Coding(tuple(tables), max(0, JpegImagePlugin.get_sampling(image)), rgb and len(names) == 3)


def metadata_segments(data: bytes) -> list[bytes]:
    return [block for block in segments(data)[0] if 0xE0 <= block[1] <= 0xEF or block[1] == 0xFE]


def metadata(carried: list[bytes]) -> Metadata:
    """What the segments tell; of several of a kind the first counts."""
    named = [(block[1], block[4:]) for block in carried]
    parts = sorted(body[12:] for kind, body in named if kind == 0xE2 and body.startswith(ICC))
    jfif = next((body for kind, body in named if kind == 0xE0 and body.startswith(b"JFIF\0")), bytes(14))
    inch = INCH.get(jfif[7])
    return Metadata(
        exif=next((body[6:] for kind, body in named if kind == 0xE1 and body.startswith(EXIF)), None),
        icc=b"".join(part[2:] for part in parts) or None,
        xmp=next((body[len(XMP) :] for _, body in named if body.startswith(XMP)), None),
        dpi=(inch * int.from_bytes(jfif[8:10], "big"), inch * int.from_bytes(jfif[10:12], "big")) if inch else None,
        # The encoder says by itself how colours are coded (Adobe); an index of further pictures (MPF) has none to list.
        carried=tuple(block for block in carried if block[1] != 0xEE and not block[4:].startswith(b"MPF\0")),
    )


def blocks(
    exif: bytes | None, icc: bytes | None, xmp: bytes | None, dpi: tuple[float, float] | None
) -> tuple[bytes, ...]:
    """Metadata of another format as segments."""
    dots = [min(65535, round(value)) for value in dpi or ()]
    density = struct.pack(">BHH", 1, *dots) if dots else struct.pack(">BHH", 0, 1, 1)
    carried = [segment(0xE0, b"JFIF\0\1\1" + density + b"\0\0")]
    if exif:
        carried.append(segment(0xE1, EXIF + exif))
    if xmp:
        carried.append(segment(0xE1, XMP + xmp))
    pieces = [(icc or b"")[at : at + 65000] for at in range(0, len(icc or b""), 65000)]
    for index, piece in enumerate(pieces, 1):
        carried.append(segment(0xE2, ICC + bytes([index, len(pieces)]) + piece))
    return tuple(carried)


def marked(carried: Iterable[bytes], mark: str) -> tuple[bytes, ...]:
    """With `mark` as the first comment: readers that keep one comment keep the last."""
    blocks = list(carried)
    first_comment = next((i for i, block in enumerate(blocks) if block[1] == 0xFE), len(blocks))
    return (*blocks[:first_comment], segment(0xFE, mark.encode("ascii")), *blocks[first_comment:])


def encode(samples: Samples, coding: Coding | None, carried: Iterable[bytes]) -> bytes:
    """A whole file: grey or RGB; the segments before the pixels."""
    buffer = io.BytesIO()
    image = Pillow.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    if coding is None:
        image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    else:
        tables = [list(table) for table in dict.fromkeys(coding.tables)]
        if len(tables) == 2 and coding.tables[1] != coding.tables[2]:  # a table shared, but not by Cb and Cr
            tables = [list(table) for table in coding.tables]
        image.save(buffer, "JPEG", qtables=tables, subsampling=coding.subsampling, keep_rgb=coding.rgb)
    own, scan = segments(buffer.getvalue())
    return b"\xff\xd8" + b"".join((*carried, *(block for block in own if block[1] != 0xE0))) + scan
