"""PNG files (ISO/IEC 15948) by their chunks: what stands in them besides the pixels, and the writing of both.

Knows no `Still`: blocks are kind and data of a chunk in one, samples are arrays (H, W, 1 to 4).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from restore_plugin.metadata import Metadata

Samples: TypeAlias = npt.NDArray[Any]  # uint8 or uint16

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_CHUNK = b"XML:com.adobe.xmp"
METRE = 0.0254  # of an inch
MAX_PROFILE_BYTES = 1 << 26
# Besides the chunks that the PNG standard calls safe to copy: what gives the samples their meaning.
COLOUR_CHUNKS = {b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"sCAL"}
PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each chunk up to the end; raises ValueError for a damaged one."""
    at, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        if struct.unpack_from(">I", data, at + 8 + length)[0] != zlib.crc32(kind + body):
            raise ValueError(f"checksum of the {kind.decode('latin-1')} chunk does not match")
        yield kind, body
        at += 12 + length


def end(chunks: Iterable[tuple[bytes, bytes]]) -> int:
    """The byte behind the last chunk of a file."""
    return len(SIGNATURE) + sum(12 + len(body) for _, body in chunks)


def bare(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A file of only what makes the pixels: nothing in the metadata can then keep a decoder from them."""
    return SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks if kind in PIXEL_CHUNKS)


def metadata(chunks: list[tuple[bytes, bytes]]) -> Metadata:
    """What the chunks tell; of several of a kind the first counts. Raises ValueError or zlib.error for damaged ones."""
    found = dict(reversed(chunks))
    profile = found.get(b"iCCP")
    density = struct.unpack(">IIB", found[b"pHYs"]) if len(found.get(b"pHYs", b"")) == 9 else (0, 0, 0)
    return Metadata(
        exif=found.get(b"eXIf"),
        icc=zlib.decompressobj().decompress(profile[profile.index(b"\0") + 2 :], MAX_PROFILE_BYTES)
        if profile
        else None,
        xmp=next((body.split(b"\0", 5)[5] for kind, body in chunks if kind == b"iTXt" and _plain_xmp(body)), None),
        dpi=(density[0] * METRE, density[1] * METRE) if density[2] == 1 else None,
        carried=tuple(kind + body for kind, body in chunks if kind in COLOUR_CHUNKS or _safe_to_copy(kind)),
    )


def blocks(
    exif: bytes | None, icc: bytes | None, xmp: bytes | None, dpi: tuple[float, float] | None
) -> tuple[bytes, ...]:
    """Metadata of another format as blocks."""
    carried = []
    if icc:
        carried.append(b"iCCPICC profile\0\0" + zlib.compress(icc))
    if dpi:
        carried.append(b"pHYs" + struct.pack(">IIB", *(round(value / METRE) for value in dpi), 1))
    if exif:
        carried.append(b"eXIf" + exif)
    if xmp:
        carried.append(b"iTXt" + XMP_CHUNK + b"\0\0\0\0\0" + xmp)
    return tuple(carried)


def mark_block(carried: Iterable[bytes], mark: str) -> bytes | None:
    """A block with `mark` under a keyword that `carried` leaves free; None where it leaves none."""
    taken = {block[4:].split(b"\0")[0] for block in carried if block[:4] in (b"tEXt", b"zTXt", b"iTXt")}
    place = next((key for key in (b"Software", b"Comment", b"Restoration") if key not in taken), None)
    return b"tEXt" + place + b"\0" + mark.encode("ascii") if place else None


def encode(samples: Samples, carried: Iterable[bytes]) -> bytes:
    """A whole file: grey or RGB, with alpha or without, 8 or 16 bits; the blocks before the pixels."""
    height, width, count = samples.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, samples.itemsize * 8, colour, 0, 0, 0))]
    chunks += [_chunk(block[:4], block[4:]) for block in carried]
    chunks += [_chunk(b"IDAT", _rows(samples)), _chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _plain_xmp(text: bytes) -> bool:
    return text.startswith(XMP_CHUNK + b"\0\0\0\0\0")  # not compressed, no language, no translated keyword


def _safe_to_copy(kind: bytes) -> bool:
    """ISO/IEC 15948, 5.4: letters in lower case tell an ancillary chunk that outlives a change of the pixels."""
    return kind[:1].islower() and kind[3:].islower()


def _rows(samples: Samples) -> bytes:
    """Rows filtered and deflated, in bands to save memory; each row by the filter of the least sum (12.8)."""
    height, width, count = samples.shape
    step, band = count * samples.itemsize, 256
    squeeze = zlib.compressobj(6, strategy=zlib.Z_FILTERED)
    above, out = np.zeros((1, width * step), np.uint8), []
    for y in range(0, height, band):
        part = samples[y : y + band]
        rows = part.astype(part.dtype.newbyteorder(">")).reshape(len(part), -1).view(np.uint8)
        up = np.concatenate((above, rows[:-1]))
        left, corner = (np.pad(values, ((0, 0), (step, 0)))[:, :-step] for values in (rows, up))
        filtered = np.stack((rows - left, rows - up, rows - _paeth(left, up, corner)))
        costs = np.abs(filtered.view(np.int8).astype(np.int16)).sum(-1)
        best = costs.argmin(0)
        kinds = np.array([1, 2, 4], np.uint8)[best]
        chosen = filtered[best, np.arange(len(rows))]
        out.append(squeeze.compress(np.column_stack((kinds, chosen)).tobytes()))
        above = rows[-1:]
    return b"".join(out) + squeeze.flush()


def _paeth(left: Samples, up: Samples, corner: Samples) -> Samples:
    """The neighbour nearest to left + up - corner (9.4)."""
    a, b, c = (values.astype(np.int16) for values in (left, up, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
