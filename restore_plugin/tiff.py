"""TIFF 6.0 files, and EXIF, which is built alike: reading and writing their tags, and which files can be kept whole.

Knows no `Still`: metadata are tags, samples are arrays (H, W, 1 to 4). Pages are those of tifffile.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from restore_plugin.errors import Refused

Samples: TypeAlias = npt.NDArray[Any]  # uint8 or uint16
Tags: TypeAlias = (
    "dict[int, tuple[int, bytes] | Tags]"  # of an IFD: (type, raw value), or the IFD that the tag points to
)

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
POINTERS: dict[int, Any] = {34665: {40965: {}}, 34853: {}}  # EXIF with interoperability; GPS
DESCRIPTION, SOFTWARE, ORIENTATION, XMP, ICC = 270, 305, 274, 700, 34675
EXIF_TAGS = {270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 316, 33432, 34665, 34853, *range(40091, 40096)}
# Tags that describe how the samples lie in the file, or copies of the picture: written anew, or left out.
LAYOUT_TAGS = {254, 255, *range(256, 260), *range(262, 267), 273, *range(277, 282), 284, 288, 289, *range(290, 294)}
LAYOUT_TAGS |= {297, 317, 320, *range(322, 326), 330, 338, 339, 340, 341, 347, *range(512, 522), *range(529, 533), 400}
# Orientation -> steps down and to the right, after rows and columns are swapped where it says so (EXIF 2.32, 4.6.4).
TURNS = {1: (1, 1, False), 2: (1, -1, False), 3: (-1, -1, False), 4: (-1, 1, False)}
TURNS |= {5: (1, 1, True), 6: (1, -1, True), 7: (-1, -1, True), 8: (-1, 1, True)}


def parse(data: bytes) -> tuple[str, Tags]:
    """Byte order ("<" or ">") and tags; raises LookupError, ValueError or struct.error for no whole TIFF structure."""
    order = _byte_order(data)
    return order, _tags(data, order, struct.unpack_from(order + "I", data, 4)[0])


def build(tags: Tags, order: str, between: bytes = b"") -> bytes:
    """A whole file: header, the data between, the IFD."""
    at = 8 + len(between) + len(between) % 2
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", at) + between + bytes(len(between) % 2) + _ifd(tags, order, at)


def without_layout(tags: Tags) -> Tags:
    """The tags that outlive a change of the pixels."""
    return {tag: value for tag, value in tags.items() if tag not in LAYOUT_TAGS}


def exif(tags: Tags, order: str) -> bytes | None:
    """What of the tags belongs to EXIF, as a TIFF structure of its own."""
    found = {tag: value for tag, value in tags.items() if tag in EXIF_TAGS}
    return build(found, order) if found else None


def raw(tags: Tags, tag: int) -> bytes | None:
    """The value of a tag as it lies in the file."""
    value = tags.get(tag)
    return value[1] if isinstance(value, tuple) else None


def orientation(exif: bytes | None) -> int:
    """How the stored pixels lie, 1 to 8 as EXIF numbers it; 1, upright, where it is not told."""
    data = (exif or b"").removeprefix(b"Exif\0\0")
    try:
        order = _byte_order(data)
        found = _numbers(data, order, struct.unpack_from(order + "I", data, 4)[0])[0].get(ORIENTATION, [1])[0]
    except (LookupError, struct.error):
        return 1
    return found if found in TURNS else 1


def upright(samples: Samples, orientation: int) -> Samples:
    """Stored samples (H, W, ...) as a viewer shows them: turned and mirrored, to the bit."""
    down, right, swapped = TURNS[orientation]
    return np.ascontiguousarray((samples.swapaxes(0, 1) if swapped else samples)[::down, ::right])


def as_stored(samples: Samples, orientation: int) -> Samples:
    """What `upright` was given."""
    down, right, swapped = TURNS[orientation]
    flipped = samples[::down, ::right]
    return np.ascontiguousarray(flipped.swapaxes(0, 1) if swapped else flipped)


def without_thumbnail(exif: bytes) -> bytes:
    """The block without what follows its first IFD: the link there and the thumbnail turn into zeros. Nothing moves."""
    out = bytearray(exif)
    try:
        order = _byte_order(exif)
        _, link = _numbers(exif, order, struct.unpack_from(order + "I", exif, 4)[0])
        (at,) = struct.unpack_from(order + "I", exif, link)
        out[link : link + 4] = bytes(4)
        thumbnail, _ = _numbers(exif, order, at) if at else ({}, 0)
    except (LookupError, struct.error):  # it cannot be followed, by nobody
        return bytes(out)
    for starts, sizes in ((513, 514), (273, 279)):  # as a JPEG; as strips of samples
        for start, size in zip(thumbnail.get(starts, []), thumbnail.get(sizes, []), strict=False):
            out[start : start + size] = bytes(len(out[start : start + size]))
    return bytes(out)


def resolution(tags: Tags, order: str) -> tuple[float, float] | None:
    """Dots an inch, (x, y), as they stand there, however odd."""
    x, y, unit = raw(tags, 282), raw(tags, 283), raw(tags, 296)
    inch = {2: 1.0, 3: 2.54}.get(struct.unpack(order + "H", unit)[0] if unit else 2)
    if not x or not y or not inch:
        return None
    (over_x, under_x), (over_y, under_y) = struct.unpack(order + "II", x), struct.unpack(order + "II", y)
    return (inch * over_x / under_x, inch * over_y / under_y) if under_x and under_y else None


def add(tags: Tags, order: str, icc: bytes | None, xmp: bytes | None, dpi: tuple[float, float] | None) -> None:
    """Put metadata of another format among the tags; a resolution that is there already stays."""
    tags |= {ICC: (7, icc)} if icc else {}
    tags |= {XMP: (1, xmp)} if xmp else {}
    if dpi and 282 not in tags:
        for tag, value in zip((282, 283), dpi, strict=True):
            tags[tag] = 5, struct.pack(order + "II", round(value * 10000), 10000)
        tags[296] = 3, struct.pack(order + "H", 2)


def add_mark(tags: Tags, mark: str, xmp: bytes) -> bool:
    """Put `mark` into the first free place, or `xmp`, a packet that holds it; False where no place was free."""
    values: Iterable[tuple[int, int, bytes]] = (
        (SOFTWARE, 2, mark.encode("ascii") + b"\0"),
        (DESCRIPTION, 2, mark.encode("ascii") + b"\0"),
        (XMP, 1, xmp),
    )
    for tag, kind, value in values:
        if tag not in tags:
            tags[tag] = kind, value
            return True
    return False


@contextmanager
def opened(data: bytes) -> Iterator[Any]:
    """The file by tifffile, whose errors, here and in the block, turn into ValueError."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            yield file
    except (tifffile.TiffFileError, TypeError, AttributeError) as error:  # the latter where a tag's type is damaged
        raise ValueError(str(error)) from error


def check_pages(file: Any, data: bytes, tags: Tags) -> None:
    """Raises Refused for what is more or other than one plain picture, ValueError for one that is cut off."""
    page = file.pages.first
    further = [other for other in list(file.pages)[1:] if not other.is_reduced]
    if further or file.series[0].size != page.size:
        raise Refused("has several pages, and only one picture can be restored; save the pages apart")
    if 50706 in tags or page.is_reduced:
        raise Refused("is a camera's raw file; develop it to a plain TIFF first")
    if 37724 in tags:
        raise Refused("has Photoshop layers, which would still show the old picture; flatten it first")
    if any(start + size > len(data) for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)):
        raise ValueError("its samples lie beyond the end of the file")


def check_samples(page: Any) -> None:
    """Raises Refused for samples that could not be written again as they were."""
    bits = page.bitspersample
    if page.photometric not in (0, 1, 2, 3, 6) or page.sampleformat != 1 or not (bits == 16 or bits in (1, 2, 4, 8)):
        kind = {1: "whole numbers", 2: "signed numbers", 3: "floating point"}.get(page.sampleformat, "other samples")
        what = f"{getattr(page.photometric, 'name', page.photometric)} in {kind} of {bits} bits"
        raise Refused(f"holds {what}; expected grey, RGB or a palette in whole numbers of 8 or 16")
    extra = page.samplesperpixel - (3 if page.photometric in (2, 6) else 1)
    if extra > 1 or (extra == 1 and page.extrasamples not in ((), (2,))):  # undeclared: alpha, as Pillow and OpenCV do
        raise Refused("has a channel that is premultiplied or no plain alpha; save it with unassociated alpha first")
    if bits == 16 and page.photometric not in (1, 2):
        raise Refused(f"holds {page.photometric.name} of 16 bits; expected grey (0 = black) or RGB")


def decode(page: Any) -> Samples | None:
    """16-bit samples (H, W, channels), native byte order; None where tifffile would need a further package for it."""
    if page.compression not in (1, 8, 32773, 32946):
        return None
    samples = page.asarray()
    if page.planarconfig == 2 and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, -1)
    decoded: Samples = samples.reshape(*samples.shape[:2], -1).astype(np.uint16)
    return decoded


def unturned(data: bytes, page: Any) -> bytes:
    """The same file with orientation 1: Pillow and OpenCV would turn the pixels."""
    tag = page.tags.get(ORIENTATION)
    if tag is None:
        return data
    return data[: tag.valueoffset] + struct.pack(_byte_order(data) + "H", 1) + data[tag.valueoffset + 2 :]


def encode(samples: Samples, grey: bool, tags: Tags, order: str) -> bytes:
    """A whole file: deflate with horizontal differencing (TIFF 6.0, section 14; Adobe technical notes)."""
    height, width, count = samples.shape
    steps = samples.copy()
    steps[:, 1:] -= samples[:, :-1]
    steps = steps.astype(steps.dtype.newbyteorder("<" if order == "<" else ">"))
    rows = max(1, (1 << 18) // (width * count * samples.itemsize))
    strips = [zlib.compress(steps[y : y + rows].tobytes()) for y in range(0, height, rows)]
    starts = 8 + np.cumsum([0] + [len(strip) for strip in strips])
    colours = 1 if grey else 3
    shorts = {258: [samples.itemsize * 8] * count, 259: [8], 262: [1 if grey else 2], 277: [count], 284: [1]}
    shorts |= {317: [2], 339: [1] * count} | ({338: [2]} if count > colours else {})
    longs = {256: [width], 257: [height], 273: starts[:-1], 278: [rows], 279: np.diff(starts)}
    layout: Tags = {tag: (3, np.array(values, order + "u2").tobytes()) for tag, values in shorts.items()}
    layout |= {tag: (4, np.array(values, order + "u4").tobytes()) for tag, values in longs.items()}
    return build(tags | layout, order, b"".join(strips))


def _byte_order(data: bytes) -> str:
    return {b"II*\0": "<", b"MM\0*": ">"}[data[:4]]


def _tags(data: bytes, order: str, at: int, pointers: dict[int, Any] = POINTERS) -> Tags:
    """The tags of the IFD at byte `at`; raises ValueError or struct.error where it leads out of the data."""
    (count,) = struct.unpack_from(order + "H", data, at)
    tags: Tags = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number, pointer = struct.unpack_from(order + "HHII", data, entry)
        if tag in pointers:
            tags[tag] = _tags(data, order, pointer, pointers[tag])
        elif kind in TYPE_BYTES:
            length = TYPE_BYTES[kind] * number
            start = pointer if length > 4 else entry + 8
            if start + length > len(data):
                raise ValueError(f"tag {tag} lies beyond the end")
            tags[tag] = kind, data[start : start + length]
    return tags


def _numbers(data: bytes, order: str, at: int) -> tuple[dict[int, list[int]], int]:
    """Whole numbers of the IFD at byte `at`, without damaged ones; and the byte where its link to the next one lies."""
    (count,) = struct.unpack_from(order + "H", data, at)
    found = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number, pointer = struct.unpack_from(order + "HHII", data, entry)
        if kind in (3, 4):
            length = TYPE_BYTES[kind] * number
            start = pointer if length > 4 else entry + 8
            raw = data[start : start + length]
            if raw and len(raw) == length:
                found[tag] = np.frombuffer(raw, f"{order}u{TYPE_BYTES[kind]}").tolist()
    return found, at + 2 + 12 * count


def _ifd(tags: Tags, order: str, at: int) -> bytes:
    """An IFD that is to stand at byte `at`, with everything that it points to behind it."""
    head, tail = struct.pack(order + "H", len(tags)), b""
    behind = at + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        start = behind + len(tail)
        if isinstance(value, dict):
            kind, number, field = 4, 1, struct.pack(order + "I", start)
            tail += _ifd(value, order, start)
        else:
            kind, raw = value
            number, field = len(raw) // TYPE_BYTES[kind], raw.ljust(4, b"\0")
            if len(raw) > 4:
                field = struct.pack(order + "I", start)
                tail += raw + bytes(len(raw) % 2)
        head += struct.pack(order + "HHI", tag, kind, number) + field
    return head + bytes(4) + tail
