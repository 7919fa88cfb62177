"""Still pictures: PNG, JPEG, TIFF and WebP, read and written with everything they carry.

Between input and output of the same format the metadata blocks pass through byte by byte; into another format go EXIF,
ICC profile, XMP and resolution. Pixels are turned upright, as the EXIF orientation says, and turned back when they are
written, so that the file stays as it was stored. What could not be kept (further pages, animation, CMYK, data behind
the picture's end, ...) is refused. Thumbnails are dropped: they would still show the picture as it was.

PNG and TIFF are put together in `png` and `tiff`, as no library writes 16 bits together with metadata: Pillow knows no
16-bit RGB, OpenCV no grey with alpha and no metadata, tifffile no EXIF.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import JpegImagePlugin, UnidentifiedImageError

from restore_plugin import jpeg, png, previews, tiff
from restore_plugin.errors import InputError, OutputError, Refused, RestoreError
from restore_plugin.png import Samples

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WebP"}
MAX_PIXELS = 178_956_970  # where Pillow, too, takes a picture for a decompression bomb
JPEG_QUALITY = 95  # of what was no JPEG before
LUMA = np.array([0.299, 0.587, 0.114])
XMP_PACKET = (
    "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
    "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description rdf:about='' "
    "xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmp:CreatorTool='{}'/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError, struct.error, zlib.error)


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG was coded. `tables`: 64 steps each, row by row, for Y, Cb, Cr; the last serves the rest."""

    tables: tuple[tuple[int, ...], ...]
    subsampling: int  # as in Pillow: 0 = 4:4:4, 1 = 4:2:2, 2 = 4:2:0
    rgb: bool = False  # stored as R, G, B, not as Y, Cb, Cr


@dataclass(frozen=True, eq=False)
class Still:
    """A picture as it is shown, upright. `dataclasses.replace(still, pixels=...)` is what a restorer gives back.

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
            return _turned(reader(data), tiff.upright)
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
    data, marked = WRITERS[to](_turned(still, tiff.as_stored), mark)
    part = _part(path)
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
        raise _unwritable(path, error) from error
    return marked


def check_place(path: Path) -> None:
    """Make the folder of `path` where it is missing; raises OutputError where nothing could be written there."""
    part = _part(path)
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        part.touch()
        part.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _unwritable(path: Path, error: OSError) -> OutputError:
    what_to_do = "free some space or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return OutputError(
        f"could not write {path}: {error.strerror or error}; {what_to_do}choose another place or name with -o"
    )


def _turned(still: Still, turn: Callable[[Samples, int], Samples]) -> Still:
    orientation = tiff.orientation(still.exif)
    alpha = None if still.alpha is None else turn(still.alpha, orientation)
    return replace(still, pixels=turn(still.pixels, orientation), alpha=alpha)


def _check_behind(data: bytes, end: int | None) -> None:
    """Raises Refused for anything but zeros behind the picture's end."""
    count = len(data[end:].strip(b"\0")) if end is not None else 0
    if count:
        raise Refused(
            f"has {count} bytes behind the picture's end (a motion photo's video, a gain map, a second picture), which "
            "would be lost; save it as a plain picture first"
        )


def _other(data: bytes) -> str:
    """What a file seems to be that is none of ours."""
    if data[4:8] == b"ftyp":
        return "a HEIC or AVIF picture" if data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif") else "a video"
    starts = {b"GIF8": "a GIF", b"BM": "a BMP", b"8BPS": "a Photoshop document", b"gimp xcf": "a GIMP document"}
    return next((name for start, name in starts.items() if data.startswith(start)), "not a picture that is known here")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"has {width}x{height} pixels, more than the {MAX_PIXELS} that are read at once; cut it up")


def _dpi(found: tuple[float, float] | None) -> tuple[float, float] | None:
    """None, too, for what no scanner has, and other fields could not hold."""
    return found if found and min(found) >= 1 and max(found) < 100_000 else None


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


def _read_png(data: bytes) -> Still:
    chunks = list(png.chunks(data))
    found = dict(reversed(chunks))
    if b"acTL" in found:
        raise Refused("is animated (APNG), and only one picture can be restored; save the frames apart")
    width, height, depth, colour = struct.unpack_from(">IIBB", found[b"IHDR"])
    _check_size(width, height)
    _check_behind(data, png.end(chunks))
    bare = png.bare(chunks)
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
    told = png.metadata([(kind, previews.cut_chunk(kind, body)) for kind, body in chunks])
    return Still(pixels, "PNG", alpha, grey, told.exif, told.icc, told.xmp, _dpi(told.dpi), carried=told.carried)


def _write_png(still: Still, mark: str) -> tuple[bytes, bool]:
    carried = still.carried
    if still.format != "PNG":
        carried = png.blocks(still.exif, still.icc, still.xmp, still.dpi)
    block = png.mark_block(carried, mark)
    return png.encode(still.channels(), (*carried, block) if block else carried), block is not None


# --- JPEG (ITU-T T.81) ---------------------------------------------------------------------------------------------


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
    _check_behind(data, jpeg.end(data))
    segments, _ = jpeg.segments(data)
    carried = previews.cut_segments([block for block in segments if 0xE0 <= block[1] <= 0xEF or block[1] == 0xFE])
    named = [(block[1], block[4:]) for block in carried]
    parts = sorted(body[12:] for kind, body in named if kind == 0xE2 and body.startswith(jpeg.ICC))
    jfif = next((body for kind, body in named if kind == 0xE0 and body.startswith(b"JFIF\0")), bytes(14))
    unit = {1: 1.0, 2: 2.54}.get(jfif[7])
    return Still(
        pixels,
        "JPEG",
        grey=grey,
        exif=next((body[6:] for kind, body in named if kind == 0xE1 and body.startswith(jpeg.EXIF)), None),
        icc=b"".join(part[2:] for part in parts) or None,
        xmp=next((body[len(jpeg.XMP) :] for _, body in named if body.startswith(jpeg.XMP)), None),
        dpi=_dpi((unit * int.from_bytes(jfif[8:10], "big"), unit * int.from_bytes(jfif[10:12], "big")))
        if unit
        else None,
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
    segments, scan = jpeg.segments(buffer.getvalue())
    carried = list(still.carried)
    if still.format != "JPEG":
        carried = list(jpeg.blocks(still.exif, still.icc, still.xmp, still.dpi))
    first_comment = next((i for i, block in enumerate(carried) if block[1] == 0xFE), len(carried))
    carried.insert(
        first_comment, jpeg.segment(0xFE, mark.encode("ascii"))
    )  # readers that keep one comment keep the last
    coded = [block for block in segments if block[1] != 0xE0]
    return b"\xff\xd8" + b"".join(carried + coded) + scan, True


# --- WebP ----------------------------------------------------------------------------------------------------------


def _read_webp(data: bytes) -> Still:
    with Pillow.open(io.BytesIO(data), formats=("WEBP",)) as image:
        if getattr(image, "is_animated", False):
            raise Refused("is animated, and only one picture can be restored; save the frames apart")
        pixels, alpha, _ = _colours(image)
        _check_behind(data, 8 + int.from_bytes(data[4:8], "little"))
        exif, xmp = (previews.cut(image.info.get(name) or b"") or None for name in ("exif", "xmp"))
        exif = exif.removeprefix(jpeg.EXIF) if exif else None
        return Still(pixels, "WebP", alpha, exif=exif, icc=image.info.get("icc_profile"), xmp=xmp)


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


def _read_tiff(data: bytes) -> Still:
    if data[:4] in (b"II+\0", b"MM\0+"):
        raise Refused("is a BigTIFF, which is not written here; save it as a classic TIFF first")
    order, tags = tiff.parse(data)
    samples, grey = _tiff_samples(data, tags)
    colours = 1 if grey else 3
    alpha = samples[..., colours] if samples.shape[2] > colours else None
    pixels = np.ascontiguousarray(np.broadcast_to(samples[..., :colours], (*samples.shape[:2], 3)))
    kept = previews.cut_tags(tiff.without_layout(tags))
    return Still(
        pixels,
        "TIFF",
        alpha,
        grey,
        exif=tiff.exif(kept, order),
        icc=tiff.raw(tags, tiff.ICC),
        xmp=tiff.raw(kept, tiff.XMP),
        dpi=_dpi(tiff.resolution(tags, order)),
        carried=(tiff.build(kept, order),),
    )


def _tiff_samples(data: bytes, tags: tiff.Tags) -> tuple[Samples, bool]:
    """Samples (H, W, channels), native byte order, and whether they are grey. Raises Refused for what else there is."""
    with tiff.opened(data) as file:
        page = file.pages.first
        _check_size(page.imagewidth, page.imagelength)
        tiff.check_pages(file, data, tags)
        tiff.check_samples(page)
        grey = page.photometric in (0, 1)
        if page.bitspersample == 16:
            samples = tiff.decode(page)
            return _decode(tiff.unturned(data, page)) if samples is None else samples, grey
        with Pillow.open(io.BytesIO(tiff.unturned(data, page))) as image:
            pixels, alpha, _ = _colours(image)
        colour = pixels[..., :1] if grey else pixels
        return (colour if alpha is None else np.dstack((colour, alpha))), grey


def _write_tiff(still: Still, mark: str) -> tuple[bytes, bool]:
    source = still.carried[0] if still.format == "TIFF" else still.exif
    try:
        order, tags = tiff.parse(source) if source else ("<", {})
    except (LookupError, ValueError, struct.error) as error:
        raise InputError(
            f"its EXIF data are damaged ({error}), so no TIFF can hold them; name the output .png"
        ) from error
    tags = tiff.without_layout(tags)
    if still.format != "TIFF":
        tiff.add(tags, order, still.icc, still.xmp, still.dpi)
    marked = tiff.add_mark(tags, mark, XMP_PACKET.format(mark).encode())
    return tiff.encode(still.channels(), still.grey, tags, order), marked


READERS = {
    (png.SIGNATURE,): _read_png,
    (b"\xff\xd8\xff",): _read_jpeg,
    (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"): _read_tiff,
    (b"RIFF",): _read_webp,
}
WRITERS = {"PNG": _write_png, "JPEG": _write_jpeg, "TIFF": _write_tiff, "WebP": _write_webp}
