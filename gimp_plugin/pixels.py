"""Pixels out of GIMP and back, as bytes: formats, selections, masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gi.repository import Babl, Gegl

from gimp_plugin.problem import Problem

Box = tuple[int, int, int, int]  # x, y, width, height
SAMPLES = {"u8": ("u8", 1), "u16": ("u16", 2), "float": ("f32", 4)}  # GIMP's name: the worker's, bytes
MASK = "Y u8"  # linear, as selections and layer masks are


@dataclass(frozen=True)
class Format:
    """How pixels travel: gamma-encoded, in the image's own colour space.

    `exact`: the layer itself holds them so; otherwise (linear light, 32-bit whole numbers ...) they are converted, and
    what the worker left alone must not be written back.
    """

    babl: str
    channels: int
    dtype: str
    pixel_bytes: int
    native: str
    native_bytes: int
    exact: bool


def format_of(layer: Any) -> Format:
    native = layer.get_format()
    encoding = Babl.format_get_encoding(native)
    model, sample = encoding.split()[:2]
    alpha = "A" if layer.has_alpha() else ""
    gamma = "'" in model or "~" in model
    exact = gamma and sample in SAMPLES
    if not exact:
        model, sample = ("Y'" if layer.is_gray() else "R'G'B'") + alpha, "float"
        encoding = f"{model} {sample}"
    channels = (1 if layer.is_gray() else 3) + len(alpha)
    dtype, sample_bytes = SAMPLES[sample]
    own = Babl.get_name(native)
    name = own if exact else Babl.get_name(Babl.format_with_space(encoding, native))
    return Format(name, channels, dtype, channels * sample_bytes, own, Babl.format_get_bytes_per_pixel(native), exact)


def read(buffer: Any, box: Box, babl: str, pixel_bytes: int) -> bytes:
    """Raises Problem where GIMP does not give them."""
    data = bytes(buffer.get(Gegl.Rectangle.new(*box), 1.0, babl, Gegl.AbyssPolicy.NONE))
    if len(data) != box[2] * box[3] * pixel_bytes:  # GEGL only logs
        raise Problem("GIMP did not hand over the layer's pixels: there may not be enough memory.")
    return data


def write(buffer: Any, box: Box, babl: str, data: bytes, pixel_bytes: int) -> None:
    """`bytes` only: with other types this takes seconds."""
    if len(data) != box[2] * box[3] * pixel_bytes:
        raise Problem("The restored pixels are not of the expected size. The image is as it was.")
    buffer.set(Gegl.Rectangle.new(*box), babl, data)
    buffer.flush()


def read_selection(image: Any, layer: Any, box: Box) -> bytes:
    """The selection (0 to 255) over a part of a layer."""
    return read_mask(image.get_selection(), shifted(box, layer))


def read_mask(channel: Any, box: Box) -> bytes:
    return read(channel.get_buffer(), box, MASK, 1)


def shifted(box: Box, layer: Any) -> Box:
    """From the layer's coordinates to the image's."""
    _, x, y = layer.get_offsets()
    return box[0] + x, box[1] + y, box[2], box[3]
