"""Small copies of a picture among its metadata: they would still show the old one, hidden faces included.

They are cut out where that leaves all else as it was. Where it does not, the picture is refused.
"""

from __future__ import annotations

import re
import struct
import zlib

from restore_plugin import jpeg, png, tiff
from restore_plugin.errors import Refused

RESOURCES = b"Photoshop 3.0\0"
RESOURCE = (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR")
THUMBNAIL_RESOURCES = (b"\x04\x09", b"\x04\x0c")  # 1033, of Photoshop 4, and 1036
XMP_THUMBNAILS = re.compile(rb"<[\w.-]+:Thumbnails\b[^>]*/>|<([\w.-]+):Thumbnails\b.*?</\1:Thumbnails\s*>", re.DOTALL)
XMP_PICTURE = re.compile(rb"[^A-Za-z0-9+/](/9j/|iVBORw0KGgo)")  # how a JPEG and a PNG start in base64
XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
EXTENSION_HEAD = len(XMP_EXTENSION) + 32 + 8  # bytes: its number, its length, and where this part of it lies
RAW_PROFILE = re.compile(rb"(\n[^\n]+\n *)(\d+)\n([0-9a-fA-F\s]*)")  # as ImageMagick writes one as text
WHY = "and it would still show the old picture; take it out first"


def cut(data: bytes) -> bytes:
    """A block of metadata without pictures. What kind of block it is, its start tells.

    Nothing moves in EXIF, as camera makers point from place to place in it: there, pictures turn into zeros. Raises
    Refused for a picture that cannot be cut out.
    """
    if data.startswith((b"II*\0", b"MM\0*")):
        return _blank(tiff.without_thumbnail(data))
    if data.startswith(jpeg.EXIF):
        return jpeg.EXIF + cut(data[len(jpeg.EXIF) :])
    if data.startswith(RESOURCES):
        return RESOURCES + _cut_resources(data[len(RESOURCES) :])
    if data.startswith(RESOURCE):
        return _cut_resources(data)
    if data.startswith(b"JFIF\0") and len(data) > 14:
        return data[:12] + bytes(2)
    if b"jumb" in (data[4:8], data[12:16]):
        raise Refused(
            "is signed (content credentials, C2PA), which no changed picture can be; save it without them first"
        )
    if b":RDF" in data:
        return _cut_xmp(data)
    return _blank(data)


def cut_segments(segments: list[bytes]) -> list[bytes]:
    """Of a JPEG: segments of metadata, without pictures. Raises as `cut` does."""
    extension = b"".join(block[4 + EXTENSION_HEAD :] for block in segments if block[4:].startswith(XMP_EXTENSION))
    if _cut_xmp(extension) != extension:  # it is signed by a checksum
        raise Refused(f"holds a thumbnail in its extended XMP, {WHY}, with `exiftool -xmp:all= FILE`, say")
    kept = [block for block in segments if not block[4:].startswith(b"JFXX\0")]
    whole = (jpeg.ICC, XMP_EXTENSION)
    return [
        jpeg.segment(block[1], cut(block[4:])) if block[1] != 0xFE and not block[4:].startswith(whole) else block
        for block in kept
    ]


def cut_chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG: the data of a chunk, without pictures. Raises as `cut` does."""
    if kind in png.PIXEL_CHUNKS | png.COLOUR_CHUNKS:
        return body
    if kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return cut(body)
    try:
        head, text, packed = _text(kind, body)
        raw = RAW_PROFILE.fullmatch(text)
        profile = bytes.fromhex(raw[3].decode()) if raw else b""
    except (ValueError, LookupError, zlib.error):  # nobody can read it
        return body
    if raw:
        left = cut(profile)
        lines = [left[at : at + 36].hex().encode() + b"\n" for at in range(0, len(left), 36)]
        new = text if left == profile else raw[1] + str(len(left)).encode() + b"\n" + b"".join(lines)
    else:
        new = cut(text)
    return body if new == text else head + (zlib.compress(new) if packed else new)


def cut_tags(tags: tiff.Tags) -> tiff.Tags:
    """Of a TIFF: its tags, without pictures in their values. Raises as `cut` does."""
    return {
        tag: cut_tags(value)
        if isinstance(value, dict)
        else (value[0], cut(value[1]) if value[0] in (1, 7) and tag != tiff.ICC else value[1])
        for tag, value in tags.items()
    }


def _blank(data: bytes) -> bytes:
    """JPEG files in a block turn into zeros."""
    out, at = bytearray(data), 0
    while (at := data.find(b"\xff\xd8\xff", at)) >= 0:
        try:
            end = jpeg.end(data, at)
        except ValueError:  # numbers that happen to look so
            at += 3
            continue
        if end is None:
            raise Refused(f"holds a preview that cannot be told from other metadata, {WHY}")
        out[at:end] = bytes(end - at)
        at = end
    return bytes(out)


def _cut_xmp(data: bytes) -> bytes:
    left = XMP_THUMBNAILS.sub(b"", data)
    if XMP_PICTURE.search(left):
        raise Refused(f"holds a picture in its XMP, {WHY}, with `exiftool -xmp:all= FILE`, say")
    return left


def _cut_resources(data: bytes) -> bytes:
    """Photoshop's image resources: signature, number, name and data each; names and data are padded to even."""
    at, kept = 0, []
    while at + 12 <= len(data) and data.startswith(RESOURCE, at):
        number = data[at + 4 : at + 6]
        start = at + 6 + (data[at + 6] + 2) // 2 * 2 + 4
        if start > len(data):
            break
        (size,) = struct.unpack_from(">I", data, start - 4)
        end = start + size + size % 2
        body = data[start : start + size]
        if number not in THUMBNAIL_RESOURCES:
            left = cut(body)
            new = data[at : start - 4] + struct.pack(">I", len(left)) + left + bytes(len(left) % 2)
            kept.append(data[at:end] if left == body else new)
        elif len(body) < size:
            raise Refused(f"holds a thumbnail of Photoshop in several parts, {WHY}")
        at = end
    rest = data[at:]
    if any(b"8BIM" + number in rest for number in THUMBNAIL_RESOURCES):
        raise Refused(f"holds a thumbnail of Photoshop behind something unknown, {WHY}")
    return b"".join(kept) + _blank(rest)


def _text(kind: bytes, body: bytes) -> tuple[bytes, bytes, bool]:
    """What stands before a chunk's text; the text; whether it was compressed."""
    start, packed = body.index(b"\0") + 1, kind == b"zTXt"
    if kind == b"zTXt":
        start += 1
    if kind == b"iTXt":
        packed = body[start] == 1
        start = body.index(b"\0", body.index(b"\0", start + 2) + 1) + 1
    if not packed:
        return body[:start], body[start:], False
    unpack = zlib.decompressobj()
    text = unpack.decompress(body[start:], png.MAX_PROFILE_BYTES)
    if unpack.unconsumed_tail:
        raise Refused("holds a text that unpacks to more than 64 MiB; take it out first")
    return body[:start], text, True
