"""Still pictures: PNG, JPEG, TIFF and WebP, read and written with everything they carry.

Between input and output of the same format the metadata blocks pass through byte by byte; into another format go EXIF,
ICC profile, XMP and resolution. Pixels are turned upright, as the EXIF orientation says, and turned back when they are
written, so that the file stays as it was stored. What could not be kept (further pages, animation, CMYK, ...) is
refused. Thumbnails and what lies behind the picture's end are dropped: they would still show the picture as it was.

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
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from restore_plugin import jpeg, png, previews, tiff
from restore_plugin.errors import InputError, OutputError, Refused, RestoreError
from restore_plugin.png import Samples

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WebP"}
MAX_PIXELS = 178_956_970  # where Pillow, too, takes a picture for a decompression bomb
PADDING = b"\0\r\n\xff"  # what is left behind a picture by programs that fill up blocks or write lines
LUMA = np.array([0.299, 0.587, 0.114])
XMP_PACKET = (
    "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
    "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description rdf:about='' "
    "xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmp:CreatorTool='{}'/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError, struct.error, zlib.error)


@dataclass(frozen=True, eq=False)
class Still:
    """A picture as it is shown, upright. `dataclasses.replace(still, pixels=...)` is what a restorer gives back.

    `pixels`: RGB (H, W, 3), uint8 or uint16, not premultiplied; three equal channels where `grey`. `alpha`: (H, W) of
    the same type. `exif`: a TIFF structure, without the `Exif` prefix. `dpi`: (x, y). `carried`: the file's own blocks
    of metadata; written as they are into the same format, instead of `exif`, `icc`, `xmp` and `dpi`. `left_out`: bytes
    behind the picture's end, which are not read.
    """

    pixels: Samples
    format: str
    alpha: Samples | None = None
    grey: bool = False
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    coding: jpeg.Coding | None = None
    carried: tuple[bytes, ...] = ()
    left_out: int = 0

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
    """Write in the format of the suffix; an existing file is replaced, a missing folder is made.

    The file is there whole or not at all.

    `mark` (ASCII) is put into the metadata where it replaces nothing; False where no place for it was free. Raises as
    `check` does, and OutputError where the file cannot be written.
    """
    to = check(still, path)
    data, marked = WRITERS[to](_turned(still, tiff.as_stored), mark)
    part = _part(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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
    """Raises OutputError where `write` could not write; leaves nothing there."""
    try:
        folder = next((each for each in path.parents if each.exists() or each.is_symlink()), path.parent)
        with suppress(FileNotFoundError):
            (folder / _part(path).name).lstat()  # raises for a name that is too long
        with TemporaryFile(dir=folder):
            pass
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


def _behind(data: bytes, end: int | None) -> int:
    """How many bytes lie behind the picture's end; none where they are but padding."""
    behind = b"" if end is None else data[end:]
    return len(behind) if behind.strip(PADDING) else 0


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
    behind = _behind(data, png.end(chunks))
    told = png.metadata([(kind, previews.cut_chunk(kind, body)) for kind, body in chunks])
    return Still(pixels, "PNG", alpha, grey, told.exif, told.icc, told.xmp, _dpi(told.dpi), None, told.carried, behind)


def _write_png(still: Still, mark: str) -> tuple[bytes, bool]:
    carried = still.carried
    if still.format != "PNG":
        carried = png.blocks(still.exif, still.icc, still.xmp, still.dpi)
    block = png.mark_block(carried, mark)
    return png.encode(still.channels(), (*carried, block) if block else carried), block is not None


# --- JPEG (ITU-T T.81) ---------------------------------------------------------------------------------------------


def _read_jpeg(data: bytes) -> Still:
    with Pillow.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if image.format != "JPEG":
            raise Refused("holds several pictures (MPO: depth, HDR or stereo); save it as a plain JPEG first")
        pixels, _, grey = _colours(image)
        coding = jpeg.coding(image)
    told = jpeg.metadata(previews.cut_segments(jpeg.metadata_segments(data)))
    return Still(
        pixels,
        "JPEG",
        None,
        grey,
        told.exif,
        told.icc,
        told.xmp,
        _dpi(told.dpi),
        coding,
        told.carried,
        _behind(data, jpeg.end(data)),
    )


def _write_jpeg(still: Still, mark: str) -> tuple[bytes, bool]:
    carried = still.carried
    if still.format != "JPEG":
        carried = jpeg.blocks(still.exif, still.icc, still.xmp, still.dpi)
    return jpeg.encode(still.channels(), still.coding, jpeg.marked(carried, mark)), True


# --- WebP ----------------------------------------------------------------------------------------------------------


def _read_webp(data: bytes) -> Still:
    with Pillow.open(io.BytesIO(data), formats=("WEBP",)) as image:
        if getattr(image, "is_animated", False):
            raise Refused("is animated, and only one picture can be restored; save the frames apart")
        pixels, alpha, _ = _colours(image)
        behind = _behind(data, 8 + int.from_bytes(data[4:8], "little"))
        exif, xmp = (previews.cut(image.info.get(name) or b"") or None for name in ("exif", "xmp"))
        exif = exif.removeprefix(jpeg.EXIF) if exif else None
        icc = image.info.get("icc_profile")
        return Still(pixels, "WebP", alpha, exif=exif, icc=icc, xmp=xmp, left_out=behind)


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
