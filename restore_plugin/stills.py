"""Still pictures: PNG, JPEG, TIFF and WebP, read and written with everything they carry.

Between input and output of the same format the metadata blocks pass through byte by byte; into another format go EXIF,
ICC profile, XMP and resolution. Pixels are taken as stored: an EXIF orientation is passed along, never applied. What
could not be kept (further pages, animation, CMYK, ...) is refused. Thumbnails of TIFF files are dropped: they would
still show the picture as it was.

PNG and TIFF are put together here, as no library writes 16 bits together with metadata: Pillow knows no 16-bit RGB,
OpenCV no grey with alpha and no metadata, tifffile no EXIF.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import JpegImagePlugin, UnidentifiedImageError

from restore_plugin.errors import InputError, OutputError, Refused, RestoreError

Samples: TypeAlias = npt.NDArray[Any]  # uint8 or uint16
Tags: TypeAlias = (
    "dict[int, tuple[int, bytes] | Tags]"  # of an IFD: (type, raw value), or the IFD that the tag points to
)

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WebP"}
MAX_PIXELS = 178_956_970  # where Pillow, too, takes a picture for a decompression bomb
MAX_PROFILE_BYTES = 1 << 26
JPEG_QUALITY = 95  # of what was no JPEG before
LUMA = np.array([0.299, 0.587, 0.114])
METRE = 0.0254  # of an inch
SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
XMP_CHUNK = b"XML:com.adobe.xmp"
XMP_PACKET = (
    "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
    "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description rdf:about='' "
    "xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmp:CreatorTool='{}'/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)
# Besides the chunks that the PNG standard calls safe to copy: what gives the samples their meaning.
COLOUR_CHUNKS = {b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"sCAL"}
PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
POINTERS: dict[int, Any] = {34665: {40965: {}}, 34853: {}}  # EXIF with interoperability; GPS
DESCRIPTION, SOFTWARE, ORIENTATION, XMP, ICC = 270, 305, 274, 700, 34675
EXIF_TAGS = {270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 316, 33432, 34665, 34853, *range(40091, 40096)}
# Tags that describe how the samples lie in the file, or copies of the picture: written anew, or left out.
LAYOUT_TAGS = {254, 255, *range(256, 260), *range(262, 267), 273, *range(277, 282), 284, 288, 289, *range(290, 294)}
LAYOUT_TAGS |= {297, 317, 320, *range(322, 326), 330, 338, 339, 340, 341, 347, *range(512, 522), *range(529, 533), 400}
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError, struct.error, zlib.error)


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG was coded. `tables`: 64 steps each, row by row, for Y, Cb, Cr; the last serves the rest."""

    tables: tuple[tuple[int, ...], ...]
    subsampling: int  # as in Pillow: 0 = 4:4:4, 1 = 4:2:2, 2 = 4:2:0
    rgb: bool = False  # stored as R, G, B, not as Y, Cb, Cr


@dataclass(frozen=True, eq=False)
class Still:
    """A picture as its file stores it. `dataclasses.replace(still, pixels=...)` is what a restorer gives back.

    `pixels`: RGB (H, W, 3), uint8 or uint16, not premultiplied; three equal channels where `grey`. `alpha`: (H, W) of
    the same type. `exif`: a TIFF structure, without the `Exif` prefix. `dpi`: (x, y). `carried`: the file's own blocks
    of metadata; written as they are into the same format, instead of `exif`, `icc`, `xmp` and `dpi`.
    """

    pixels: Samples
    format: str
    alpha: Samples | None = None
    grey: bool = False
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    jpeg: JpegCoding | None = None
    carried: tuple[bytes, ...] = ()

    def channels(self) -> Samples:
        """(H, W, 1 to 4): grey or RGB, then alpha."""
        colour = self.pixels
        if self.grey:
            colour = np.round(self.pixels @ LUMA).astype(self.pixels.dtype)[..., None]
        return colour if self.alpha is None else np.dstack((colour, self.alpha))


def read(path: Path) -> Still:
    """Read a picture; its format is told by its content.

    Raises InputError for what is no whole PNG, JPEG, TIFF or WebP, Refused for what could not be written again.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"expected a picture in {path}, could not read it: {error.strerror}") from None
    if not data:
        raise InputError(f"{path} is empty (0 bytes); expected a PNG, JPEG, TIFF or WebP picture")
    for magics, reader in READERS.items():
        if data.startswith(magics) and (reader is not _read_webp or data[8:12] == b"WEBP"):
            break
    else:
        raise InputError(f"{path} is {_other(data)}; expected a PNG, JPEG, TIFF or WebP picture, convert it first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which passes through unread
            return reader(data)
    except RestoreError as error:
        raise type(error)(f"{path} {error}") from None
    except (*DAMAGED, Pillow.DecompressionBombError) as error:
        why = "its head cannot be read" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"{path} is damaged or not whole: {why}; get a sound copy of it") from error


def check(still: Still, path: Path) -> str:
    """The format that `path` asks for by its suffix; raises InputError or Refused where it cannot hold the picture."""
    to = FORMATS.get(path.suffix.lower())
    if to is None:
        raise InputError(f"expected an output name that ends in {', '.join(FORMATS)}, got {path.name}")
    if still.pixels.dtype == np.uint16 and to in ("JPEG", "WebP"):
        raise InputError(f"{to} holds 8 bits a channel and the picture has 16; name the output .png or .tif")
    if still.alpha is not None and to == "JPEG":
        raise InputError("JPEG has no transparency and the picture does; name the output .png, .webp or .tif")
    largest = {"WebP": 16383, "JPEG": 65535}.get(to, MAX_PIXELS)
    if max(still.pixels.shape) > largest:
        raise InputError(f"{to} ends at {largest} px a side and the picture has more; name the output .png or .tif")
    if to == "WebP" and still.grey and still.icc is not None and still.icc[16:20] == b"GRAY":
        raise Refused("WebP has no grey, so the picture's grey colour profile would not fit; name the output .png")
    return to


def write(still: Still, path: Path, mark: str) -> bool:
    """Write in the format of the suffix; an existing file is replaced. The file is there whole or not at all.

    `mark` (ASCII) is put into the metadata where it replaces nothing; False where no place for it was free. Raises as
    `check` does, and OutputError where the file cannot be written.
    """
    to = check(still, path)
    data, marked = WRITERS[to](still, mark)
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"could not write {path}: {error.strerror or error}; free some space or choose another place with -o"
        ) from error
    return marked


def _other(data: bytes) -> str:
    """What a file seems to be that is none of ours."""
    if data[4:8] == b"ftyp":
        return "a HEIC or AVIF picture" if data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif") else "a video"
    starts = {b"GIF8": "a GIF", b"BM": "a BMP", b"8BPS": "a Photoshop document", b"gimp xcf": "a GIMP document"}
    return next((name for start, name in starts.items() if data.startswith(start)), "not a picture that is known here")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"has {width}x{height} pixels, more than the {MAX_PIXELS} that are read at once; cut it up")


def _dpi(x: float, y: float) -> tuple[float, float] | None:
    """None for what no scanner has, and other fields could not hold."""
    return (x, y) if min(x, y) >= 1 and max(x, y) < 100_000 else None


def _colours(image: Pillow.Image) -> tuple[Samples, Samples | None, bool]:
    """Pixels, alpha and greyness of an 8-bit picture in Pillow."""
    _check_size(*image.size)
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "YCbCr"):
        raise Refused(f"is stored as {image.mode}, expected grey, RGB or a palette; convert it to RGB first")
    grey = image.mode in ("1", "L", "LA")
    clear = image.mode in ("LA", "RGBA") or (image.mode == "P" and "transparency" in image.info)
    samples = np.array(image.convert("RGBA" if clear else "RGB"))
    return samples[..., :3], samples[..., 3] if clear else None, grey


def _decode(data: bytes) -> Samples:
    """16-bit samples (H, W, channels) in RGB order by OpenCV."""
    import cv2

    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(error.err) from None
    if found is None or found.dtype != np.uint16:
        raise ValueError("the samples cannot be decoded")
    found = found.reshape(*found.shape[:2], -1)
    return found[..., [2, 1, 0, 3][: found.shape[2]]] if found.shape[2] > 2 else found


# --- PNG (ISO/IEC 15948) -------------------------------------------------------------------------------------------


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each chunk up to the end; raises ValueError for a damaged one."""
    at, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        if struct.unpack_from(">I", data, at + 8 + length)[0] != zlib.crc32(kind + body):
            raise ValueError(f"checksum of the {kind.decode('latin-1')} chunk does not match")
        yield kind, body
        at += 12 + length


def _read_png(data: bytes) -> Still:
    chunks = list(_chunks(data))
    found = dict(reversed(chunks))
    if b"acTL" in found:
        raise Refused("is animated (APNG), and only one picture can be restored; save the frames apart")
    width, height, depth, colour = struct.unpack_from(">IIBB", found[b"IHDR"])
    _check_size(width, height)
    # Only what makes the pixels: nothing in the metadata can then keep a decoder from them.
    bare = SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks if kind in PIXEL_CHUNKS)
    if depth == 16:
        samples = _decode(bare)
        alpha = samples[..., 3] if samples.shape[2] == 4 else None
        pixels, grey = np.ascontiguousarray(np.broadcast_to(samples[..., :3], (height, width, 3))), colour in (0, 4)
    else:
        with Pillow.open(io.BytesIO(bare)) as image:
            pixels, alpha, grey = _colours(image)
    if b"tRNS" in found and colour != 3:  # one transparent colour; Pillow misses it under 8 bits, OpenCV in 16-bit grey
        top = np.iinfo(pixels.dtype).max
        key = np.frombuffer(found[b"tRNS"], ">u2").astype(int) * (top // (2**depth - 1))
        alpha = np.where((pixels == key).all(-1), 0, top).astype(pixels.dtype)
    profile = found.get(b"iCCP")
    density = struct.unpack(">IIB", found[b"pHYs"]) if len(found.get(b"pHYs", b"")) == 9 else (0, 0, 0)
    return Still(
        pixels,
        "PNG",
        alpha,
        grey,
        exif=found.get(b"eXIf"),
        icc=zlib.decompressobj().decompress(profile[profile.index(b"\0") + 2 :], MAX_PROFILE_BYTES)
        if profile
        else None,
        xmp=next((body.split(b"\0", 5)[5] for kind, body in chunks if kind == b"iTXt" and _plain_xmp(body)), None),
        dpi=_dpi(density[0] * METRE, density[1] * METRE) if density[2] == 1 else None,
        carried=tuple(kind + body for kind, body in chunks if kind in COLOUR_CHUNKS or _safe_to_copy(kind)),
    )


def _plain_xmp(text: bytes) -> bool:
    return text.startswith(XMP_CHUNK + b"\0\0\0\0\0")  # not compressed, no language, no translated keyword


def _safe_to_copy(kind: bytes) -> bool:
    """ISO/IEC 15948, 5.4: letters in lower case tell an ancillary chunk that outlives a change of the pixels."""
    return kind[:1].islower() and kind[3:].islower()


def _write_png(still: Still, mark: str) -> tuple[bytes, bool]:
    carried = list(still.carried) if still.format == "PNG" else []
    if still.format != "PNG":
        if still.icc:
            carried.append(b"iCCPICC profile\0\0" + zlib.compress(still.icc))
        if still.dpi:
            carried.append(b"pHYs" + struct.pack(">IIB", *(round(value / METRE) for value in still.dpi), 1))
        if still.exif:
            carried.append(b"eXIf" + still.exif)
        if still.xmp:
            carried.append(b"iTXt" + XMP_CHUNK + b"\0\0\0\0\0" + still.xmp)
    taken = {block[4 : block.index(b"\0")] for block in carried if block[:4] in (b"tEXt", b"zTXt", b"iTXt")}
    place = next((key for key in (b"Software", b"Comment", b"Restoration") if key not in taken), None)
    if place:
        carried.append(b"tEXt" + place + b"\0" + mark.encode("ascii"))
    samples = still.channels()
    height, width, count = samples.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, samples.itemsize * 8, colour, 0, 0, 0))]
    chunks += [_chunk(block[:4], block[4:]) for block in carried]
    chunks += [_chunk(b"IDAT", _png_rows(samples)), _chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(chunks), place is not None


def _png_rows(samples: Samples) -> bytes:
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


# --- JPEG (ITU-T T.81) ---------------------------------------------------------------------------------------------


def _segment(marker: int, data: bytes) -> bytes:
    if len(data) > 65533:
        raise InputError(f"its metadata hold a block of {len(data)} bytes, more than fits a JPEG; name the output .png")
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _segments(data: bytes) -> tuple[list[bytes], bytes]:
    """The segments before the scan, each with its marker and length; and the rest."""
    at, segments = 2, []
    while data[at + 1] != 0xDA:
        if data[at] != 0xFF:
            raise ValueError("expected a marker between segments")
        if data[at + 1] == 0xFF:  # fill byte
            at += 1
            continue
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        segments.append(data[at:end])
        at = end
    return segments, data[at:]


def _read_jpeg(data: bytes) -> Still:
    with Pillow.open(io.BytesIO(data), formats=("JPEG",)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        if image.format != "JPEG":
            raise Refused("holds several pictures (MPO: depth, HDR or stereo); save it as a plain JPEG first")
        pixels, _, grey = _colours(image)
        names = [layer[0] for layer in image.layer]
        tables = [tuple(image.quantization[layer[3]]) for layer in image.layer]
        rgb = "jfif" not in image.info and (names == list(b"RGB") or image.info.get("adobe_transform") == 0)
        # Pillow writes 4:4:4, 4:2:2 and 4:2:0; from anything rarer the finest loses nothing.
        coding = JpegCoding(tuple(tables), max(0, JpegImagePlugin.get_sampling(image)), rgb and not grey)
    carried = [block for block in _segments(data)[0] if 0xE0 <= block[1] <= 0xEF or block[1] == 0xFE]
    named = [(block[1], block[4:]) for block in carried]
    parts = sorted(body[12:] for kind, body in named if kind == 0xE2 and body.startswith(b"ICC_PROFILE\0"))
    jfif = next((body for kind, body in named if kind == 0xE0 and body.startswith(b"JFIF\0")), bytes(14))
    unit = {1: 1.0, 2: 2.54}.get(jfif[7])
    return Still(
        pixels,
        "JPEG",
        grey=grey,
        exif=next((body[6:] for kind, body in named if kind == 0xE1 and body.startswith(b"Exif\0\0")), None),
        icc=b"".join(part[2:] for part in parts) or None,
        xmp=next((body[len(XMP_SEGMENT) :] for _, body in named if body.startswith(XMP_SEGMENT)), None),
        dpi=_dpi(unit * int.from_bytes(jfif[8:10], "big"), unit * int.from_bytes(jfif[10:12], "big")) if unit else None,
        jpeg=coding,
        # The encoder says by itself how colours are coded (Adobe); an index of further pictures (MPF) has none to list.
        carried=tuple(block for block in carried if block[1] != 0xEE and not block[4:].startswith(b"MPF\0")),
    )


def _write_jpeg(still: Still, mark: str) -> tuple[bytes, bool]:
    coding = still.jpeg
    buffer = io.BytesIO()
    image = Pillow.fromarray(still.channels()[..., 0] if still.grey else still.pixels)
    if coding is None:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        tables = [list(table) for table in dict.fromkeys(coding.tables)]
        if len(tables) == 2 and coding.tables[1] != coding.tables[2]:  # a table shared, but not by Cb and Cr
            tables = [list(table) for table in coding.tables]
        image.save(buffer, "JPEG", qtables=tables, subsampling=coding.subsampling, keep_rgb=coding.rgb)
    segments, scan = _segments(buffer.getvalue())
    carried = list(still.carried)
    if still.format != "JPEG":
        dpi = [min(65535, round(value)) for value in still.dpi or ()]
        density = struct.pack(">BHH", 1, *dpi) if dpi else struct.pack(">BHH", 0, 1, 1)
        carried = [_segment(0xE0, b"JFIF\0\1\1" + density + b"\0\0")]
        if still.exif:
            carried.append(_segment(0xE1, b"Exif\0\0" + still.exif))
        if still.xmp:
            carried.append(_segment(0xE1, XMP_SEGMENT + still.xmp))
        pieces = [(still.icc or b"")[at : at + 65000] for at in range(0, len(still.icc or b""), 65000)]
        for index, piece in enumerate(pieces, 1):
            carried.append(_segment(0xE2, b"ICC_PROFILE\0" + bytes([index, len(pieces)]) + piece))
    first_comment = next((i for i, block in enumerate(carried) if block[1] == 0xFE), len(carried))
    carried.insert(first_comment, _segment(0xFE, mark.encode("ascii")))  # readers that keep one comment keep the last
    coded = [block for block in segments if block[1] != 0xE0]
    return b"\xff\xd8" + b"".join(carried + coded) + scan, True


# --- WebP ----------------------------------------------------------------------------------------------------------


def _read_webp(data: bytes) -> Still:
    with Pillow.open(io.BytesIO(data), formats=("WEBP",)) as image:
        if getattr(image, "is_animated", False):
            raise Refused("is animated, and only one picture can be restored; save the frames apart")
        pixels, alpha, _ = _colours(image)
        exif = image.info.get("exif")
        exif = exif.removeprefix(b"Exif\0\0") if exif else None
        return Still(pixels, "WebP", alpha, exif=exif, icc=image.info.get("icc_profile"), xmp=image.info.get("xmp"))


def _write_webp(still: Still, mark: str) -> tuple[bytes, bool]:
    """Always lossless: a second lossy coding would change every pixel."""
    samples = still.pixels if still.alpha is None else np.dstack((still.pixels, still.alpha))
    buffer = io.BytesIO()
    Pillow.fromarray(samples).save(
        buffer,
        "WEBP",
        lossless=True,
        exact=True,  # colours under full transparency, too
        exif=still.exif or b"",
        icc_profile=still.icc or b"",
        xmp=still.xmp or XMP_PACKET.format(mark).encode(),
    )
    return buffer.getvalue(), not still.xmp


# --- TIFF 6.0, and EXIF, which is built alike ----------------------------------------------------------------------


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


def _tiff_tags(data: bytes) -> tuple[str, Tags]:
    order = _byte_order(data)
    return order, _tags(data, order, struct.unpack_from(order + "I", data, 4)[0])


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


def _tiff(tags: Tags, order: str, between: bytes = b"") -> bytes:
    """A whole file: header, the data between, the IFD."""
    at = 8 + len(between) + len(between) % 2
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", at) + between + bytes(len(between) % 2) + _ifd(tags, order, at)


def _raw(tags: Tags, tag: int) -> bytes | None:
    value = tags.get(tag)
    return value[1] if isinstance(value, tuple) else None


def _resolution(tags: Tags, order: str) -> tuple[float, float] | None:
    x, y, unit = _raw(tags, 282), _raw(tags, 283), _raw(tags, 296)
    inch = {2: 1.0, 3: 2.54}.get(struct.unpack(order + "H", unit)[0] if unit else 2)
    if not x or not y or not inch:
        return None
    (over_x, under_x), (over_y, under_y) = struct.unpack(order + "II", x), struct.unpack(order + "II", y)
    return _dpi(inch * over_x / under_x, inch * over_y / under_y) if under_x and under_y else None


def _read_tiff(data: bytes) -> Still:
    if data[:4] in (b"II+\0", b"MM\0+"):
        raise Refused("is a BigTIFF, which is not written here; save it as a classic TIFF first")
    order, tags = _tiff_tags(data)
    samples, grey = _tiff_samples(data, tags)
    colours = 1 if grey else 3
    alpha = samples[..., colours] if samples.shape[2] > colours else None
    pixels = np.ascontiguousarray(np.broadcast_to(samples[..., :colours], (*samples.shape[:2], 3)))
    kept = {tag: value for tag, value in tags.items() if tag not in LAYOUT_TAGS}
    exif = {tag: value for tag, value in kept.items() if tag in EXIF_TAGS}
    return Still(
        pixels,
        "TIFF",
        alpha,
        grey,
        exif=_tiff(exif, order) if exif else None,
        icc=_raw(tags, ICC),
        xmp=_raw(tags, XMP),
        dpi=_resolution(tags, order),
        carried=(_tiff(kept, order),),
    )


def _tiff_samples(data: bytes, tags: Tags) -> tuple[Samples, bool]:
    """Samples (H, W, channels), native byte order, and whether they are grey. Raises Refused for what else there is."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            _check_size(page.imagewidth, page.imagelength)
            further = [other for other in list(file.pages)[1:] if not other.is_reduced]
            if further or file.series[0].size != page.size:
                raise Refused("has several pages, and only one picture can be restored; save the pages apart")
            if 50706 in tags or page.is_reduced:
                raise Refused("is a camera's raw file; develop it to a plain TIFF first")
            if 37724 in tags:
                raise Refused("has Photoshop layers, which would still show the old picture; flatten it first")
            if any(start + size > len(data) for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)):
                raise ValueError("its samples lie beyond the end of the file")
            return _page_samples(data, page)
    except (tifffile.TiffFileError, TypeError, AttributeError) as error:  # the latter where a tag's type is damaged
        raise ValueError(str(error)) from error


def _page_samples(data: bytes, page: Any) -> tuple[Samples, bool]:
    grey, bits = page.photometric in (0, 1), page.bitspersample
    if page.photometric not in (0, 1, 2, 3, 6) or page.sampleformat != 1 or not (bits == 16 or bits in (1, 2, 4, 8)):
        kind = {1: "whole numbers", 2: "signed numbers", 3: "floating point"}.get(page.sampleformat, "other samples")
        what = f"{getattr(page.photometric, 'name', page.photometric)} in {kind} of {bits} bits"
        raise Refused(f"holds {what}; expected grey, RGB or a palette in whole numbers of 8 or 16")
    extra = page.samplesperpixel - (3 if page.photometric in (2, 6) else 1)
    if extra > 1 or (extra == 1 and page.extrasamples not in ((), (2,))):  # undeclared: alpha, as Pillow and OpenCV do
        raise Refused("has a channel that is premultiplied or no plain alpha; save it with unassociated alpha first")
    if bits != 16:
        with Pillow.open(io.BytesIO(_upright(data, page))) as image:
            pixels, alpha, _ = _colours(image)
        colour = pixels[..., :1] if grey else pixels
        return (colour if alpha is None else np.dstack((colour, alpha))), grey
    if page.photometric not in (1, 2):
        raise Refused(f"holds {page.photometric.name} of 16 bits; expected grey (0 = black) or RGB")
    if page.compression not in (1, 8, 32773, 32946):  # what tifffile decodes without a further package
        return _decode(data), grey
    samples = page.asarray()
    if page.planarconfig == 2 and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, -1)
    return samples.reshape(*samples.shape[:2], -1).astype(np.uint16), grey


def _upright(data: bytes, page: Any) -> bytes:
    """The same file with orientation 1: Pillow would turn the pixels."""
    tag = page.tags.get(ORIENTATION)
    if tag is None:
        return data
    return data[: tag.valueoffset] + struct.pack(_byte_order(data) + "H", 1) + data[tag.valueoffset + 2 :]


def _write_tiff(still: Still, mark: str) -> tuple[bytes, bool]:
    """Deflate with horizontal differencing (TIFF 6.0, section 14; Adobe technical notes)."""
    source = still.carried[0] if still.format == "TIFF" else still.exif
    try:
        order, tags = _tiff_tags(source) if source else ("<", {})
    except (LookupError, ValueError, struct.error) as error:
        raise InputError(
            f"its EXIF data are damaged ({error}), so no TIFF can hold them; name the output .png"
        ) from error
    for tag in LAYOUT_TAGS & tags.keys():
        del tags[tag]
    if still.format != "TIFF":
        tags |= {ICC: (7, still.icc)} if still.icc else {}
        tags |= {XMP: (1, still.xmp)} if still.xmp else {}
        if still.dpi and 282 not in tags:
            for tag, value in zip((282, 283), still.dpi, strict=True):
                tags[tag] = 5, struct.pack(order + "II", round(value * 10000), 10000)
            tags[296] = 3, struct.pack(order + "H", 2)
    marked = _mark_tiff(tags, mark)
    samples = still.channels()
    height, width, count = samples.shape
    steps = samples.copy()
    steps[:, 1:] -= samples[:, :-1]
    steps = steps.astype(steps.dtype.newbyteorder("<" if order == "<" else ">"))
    rows = max(1, (1 << 18) // (width * count * samples.itemsize))
    strips = [zlib.compress(steps[y : y + rows].tobytes()) for y in range(0, height, rows)]
    starts = 8 + np.cumsum([0] + [len(strip) for strip in strips])
    colours = 1 if still.grey else 3
    shorts = {258: [samples.itemsize * 8] * count, 259: [8], 262: [1 if still.grey else 2], 277: [count], 284: [1]}
    shorts |= {317: [2], 339: [1] * count} | ({338: [2]} if count > colours else {})
    longs = {256: [width], 257: [height], 273: starts[:-1], 278: [rows], 279: np.diff(starts)}
    tags |= {tag: (3, np.array(values, order + "u2").tobytes()) for tag, values in shorts.items()}
    tags |= {tag: (4, np.array(values, order + "u4").tobytes()) for tag, values in longs.items()}
    return _tiff(tags, order, b"".join(strips)), marked


def _mark_tiff(tags: Tags, mark: str) -> bool:
    values: Iterable[tuple[int, int, bytes]] = (
        (SOFTWARE, 2, mark.encode("ascii") + b"\0"),
        (DESCRIPTION, 2, mark.encode("ascii") + b"\0"),
        (XMP, 1, XMP_PACKET.format(mark).encode()),
    )
    for tag, kind, value in values:
        if tag not in tags:
            tags[tag] = kind, value
            return True
    return False


READERS = {
    (SIGNATURE,): _read_png,
    (b"\xff\xd8\xff",): _read_jpeg,
    (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"): _read_tiff,
    (b"RIFF",): _read_webp,
}
WRITERS = {"PNG": _write_png, "JPEG": _write_jpeg, "TIFF": _write_tiff, "WebP": _write_webp}
