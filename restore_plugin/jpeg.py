"""JPEG files (ITU-T T.81) by their segments: what stands in them besides the pixels, and where they end.

Knows no `Still`: a segment is marker, length and data in one.
"""

from __future__ import annotations

import re
import struct

from restore_plugin.errors import InputError

EXIF = b"Exif\0\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
ICC = b"ICC_PROFILE\0"
ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
BEHIND_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # coded pixels hold no other marker than restarts


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
