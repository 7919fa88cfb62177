"""Arithmetic on rows of raw pixels: GIMP's Python has no numpy, so these lean on what runs in C for whole rows."""

from __future__ import annotations

import operator
import re
from typing import Literal

RUN = re.compile(rb"[^\x00]+")
WORDS: tuple[tuple[int, Literal["Q", "I", "H", "B"]], ...] = ((8, "Q"), (4, "I"), (2, "H"), (1, "B"))
NONE, ALL = b"\x00", b"\xff"


def crop(data: bytes, width: int, pixel_bytes: int, box: tuple[int, int, int, int]) -> bytes:
    """The pixels of `box` (x, y, width, height) out of a picture of that width."""
    x, y, columns, lines = box
    row = width * pixel_bytes
    if columns == width:
        return data[y * row : (y + lines) * row]
    view, start, length = memoryview(data), x * pixel_bytes, columns * pixel_bytes
    return b"".join([view[at + start : at + start + length] for at in range(y * row, (y + lines) * row, row)])


def differing(old: bytes, new: bytes, width: int, pixel_bytes: int) -> list[bytes | None]:
    """For each row: one byte a pixel, not 0 where the two pictures differ in any bit; None where the rows are alike."""
    size, code = next((size, code) for size, code in WORDS if pixel_bytes % size == 0)
    words = pixel_bytes // size
    a, b, row = memoryview(old), memoryview(new), width * pixel_bytes
    found: list[bytes | None] = []
    for at in range(0, len(old), row):
        one, other = a[at : at + row], b[at : at + row]
        if one == other:
            found.append(None)
            continue
        flags = bytes(map(operator.ne, one.cast(code), other.cast(code)))
        together = 0
        for word in range(words):  # a pixel of several words differs where any of them does
            together |= int.from_bytes(flags[word::words], "little")
        found.append(together.to_bytes(width, "little"))
    return found


def mask_of(flags: list[bytes | None], width: int) -> bytes:
    """255 where `differing` saw a difference, else 0."""
    table = NONE + ALL * 255
    return b"".join([NONE * width if row is None else row.translate(table) for row in flags])


def put_where(old: bytes, new: bytes, flags: list[bytes | None], width: int, pixel_bytes: int) -> bytes:
    """`new` where `differing` saw a difference, elsewhere the bits of `old`."""
    row = width * pixel_bytes
    out, source = bytearray(old), memoryview(new)
    for index, line in enumerate(flags):
        if line is not None:
            for run in RUN.finditer(line):
                start, stop = (index * row + end * pixel_bytes for end in run.span())
                out[start:stop] = source[start:stop]
    return bytes(out)


def multiply(one: bytes, other: bytes, width: int) -> bytes:
    """The product of two masks of 0 (none) to 255 (all)."""
    out = []
    for at in range(0, len(one), width):
        a, b = one[at : at + width], other[at : at + width]
        if a.count(ALL) == width or b.count(NONE) == width:
            out.append(b)
        elif b.count(ALL) == width or a.count(NONE) == width:
            out.append(a)
        else:
            out.append(bytes([(p * q + 127) // 255 for p, q in zip(a, b, strict=True)]))
    return b"".join(out)


def grow(box: tuple[int, int, int, int], by: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Wider by `by` px on each side, as far as a picture of that size goes."""
    x, y = max(0, box[0] - by), max(0, box[1] - by)
    return x, y, min(width, box[0] + box[2] + by) - x, min(height, box[1] + box[3] + by) - y
