"""A decoded frame: regions are read as RGB and written back into the decoded planes, in every pixel format supported.

Samples outside a written region are never touched, so they stay bit-exact. Colour is converted with the frame's own
matrix and range; chroma is repeated over its block when read and averaged over it when written, so reading and writing
back is the identity.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType

from restore_plugin.errors import Refused
from restore_plugin.types import Box, Image, Luma, Mask, Pixels

# samples of packed formats: the letters stand for the components in the order of memory
PACKED = {
    **{name: name for name in ("rgb24", "bgr24", "rgba", "bgra", "argb", "abgr")},
    **{name: name for name in ("rgb0", "bgr0", "0rgb", "0bgr")},
    **{"rgb48le": "rgb", "bgr48le": "bgr", "rgba64le": "rgba", "bgra64le": "bgra"},
}

# Kr, Kb of Y' = Kr R' + (1 - Kr - Kb) G' + Kb B' by AVColorSpace (ITU-T H.273, table 4)
MATRICES = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
MATRICES |= {9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
UNSTATED = (0, 2, 3)  # RGB (of YUV planes), unspecified, reserved
FULL_RANGE = 2


@dataclass(frozen=True)
class Component:
    plane: int
    offset: int  # in samples
    step: int  # in samples
    shift_x: int = 0  # log2 of how many pixels share a sample
    shift_y: int = 0


@dataclass(frozen=True)
class Layout:
    """Where a pixel format keeps its components, in the order R G B, or Y Cb Cr, or Y alone."""

    rgb: bool
    depth: int
    components: tuple[Component, ...]

    @property
    def dtype(self) -> npt.DTypeLike:
        return np.uint8 if self.depth == 8 else np.dtype("<u2")


@lru_cache
def layout_of(name: str) -> Layout:
    """Raises Refused for a pixel format that cannot be written back exactly."""
    pixel_format = av.VideoFormat(name, 16, 16)
    components = pixel_format.components
    depths = {component.bits for component in components}
    refused = Refused(
        f"the pixel format {name} is not supported; convert the video to yuv420p, yuv422p10le or gbrp first"
    )
    if name in PACKED:
        order = PACKED[name].removesuffix("24")
        return Layout(True, max(depths), tuple(Component(0, order.index(c), len(order)) for c in "rgb"))
    planes = [component.plane for component in components]
    odd = any(part in name for part in ("f32", "f16", "bayer", "pal8", "xyz", "mono", "p010", "p012", "p016", "nv"))
    if odd or len(depths) != 1 or len(set(planes)) != len(planes) or len(components) not in (1, 3, 4):
        raise refused
    depth = depths.pop()
    if not 8 <= depth <= 16 or pixel_format.is_big_endian or "msb" in name:
        raise refused
    # alpha, a fourth component, is left as it is; a grey picture with alpha has two and is refused above
    colour = components[:3] if len(components) >= 3 else components
    parts = []
    for component in colour:
        shift_x = (16 // component.width).bit_length() - 1
        shift_y = (16 // component.height).bit_length() - 1
        parts.append(Component(component.plane, 0, 1, shift_x, shift_y))
    return Layout(pixel_format.is_rgb, depth, tuple(parts))


def side_data(frame: av.VideoFrame) -> Mapping[Any, Any]:
    """What a frame carries beside its picture, by av.sidedata.sidedata.Type.

    PyAV gives none of it where there is a type that it does not know (EXIF in JPEG frames): then it is passed over, but
    for a rotation, which raises Refused.
    """
    try:
        return cast("Mapping[Any, Any]", {data.type: data for data in cast(Any, frame.side_data)})
    except ValueError:
        if frame.rotation:
            raise Refused(
                "the frames carry data of a kind not known here (EXIF?) beside a rotation, which cannot be kept then; "
                "convert the video first (ffmpeg -i IN -c:v ffv1 -c:a copy OUT.mkv turns it)"
            ) from None
        return {}


def plain(like: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
    """A frame of the size of another that is soon encoded: all samples are 0, which every depth has, but for some noise
    at the top (a file of a few hundred bytes is not known for MPEG-TS)."""
    frame = av.VideoFrame(like.width, like.height, pixel_format)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    top = np.frombuffer(cast(Any, frame.planes[0]), np.uint8)[:8192]
    top[...] = np.random.default_rng(0).integers(0, 256, len(top), np.uint8)
    if frame.format.components[0].bits > 8:
        top[1::2] = 0  # the upper bytes
    frame.time_base = like.time_base
    return frame


class PlanesFrame:
    """A Frame over an av.VideoFrame, which it changes in place. See restore_plugin.types.Frame."""

    def __init__(self, frame: av.VideoFrame, index: int) -> None:
        self.frame = frame
        self.index = index
        self.layout = layout_of(frame.format.name)
        self.written = False

    @property
    def width(self) -> int:
        return int(self.frame.width)

    @property
    def height(self) -> int:
        return int(self.frame.height)

    @property
    def pts(self) -> int | None:
        return self.frame.pts

    @property
    def time_base(self) -> Fraction | None:
        return self.frame.time_base

    @property
    def turns(self) -> int:
        matrix = side_data(self.frame).get(SideDataType.DISPLAYMATRIX)
        if matrix is None:
            return 0
        # of a b u c d v x y w: x' = a x + c y, y' = b x + d y (in 16.16 fixed point); down is shown at (c, d), and a
        # mirrored picture is looked at in the mirror
        a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
        return round(math.atan2(-c if a * d < b * c else c, d) / (math.pi / 2)) % 4

    def check(self) -> None:
        """Raises Refused for colour that cannot be read."""
        if not self.layout.rgb:
            self._matrix()

    def samples(self, number: int) -> npt.NDArray[Any]:
        """A view of one component's samples, (H, W) of its own size."""
        component = self.layout.components[number]
        plane = self.frame.planes[component.plane]
        rows = np.frombuffer(cast(Any, plane), self.layout.dtype).reshape(plane.height, -1)
        height = -(-self.height // (1 << component.shift_y))
        width = -(-self.width // (1 << component.shift_x))
        return rows[:height, component.offset :: component.step][:, :width]

    def luma(self) -> Luma:
        if self.layout.rgb:
            whole = self.read_rgb(Box(0, 0, self.width, self.height))
            return whole @ np.array([0.299, 0.587, 0.114], np.float32)
        low, span = self._scale(0)
        luma = self.samples(0).astype(np.float32)
        luma -= low  # in place: a new array of a frame's size costs more than what is done to it
        luma /= span
        return np.clip(luma, 0, 1, out=luma)

    def overview(self, longest: int) -> Image:
        scale = min(1.0, longest / max(self.width, self.height))
        size = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        return self.frame.reformat(*size, format="rgb24", interpolation="AREA").to_ndarray()

    def read_rgb(self, box: Box, clipped: bool = True) -> Pixels:
        values: list[Any] = [self._read(number, box) for number in range(len(self.layout.components))]
        if len(values) == 1:
            values *= 3
        elif not self.layout.rgb:
            y, cb, cr = values
            kr, kb = self._matrix()
            red = y + 2 * (1 - kr) * cr
            blue = y + 2 * (1 - kb) * cb
            values = [red, (y - kr * red - kb * blue) / (1 - kr - kb), blue]
        rgb = np.dstack(values).astype(np.float32, copy=False)
        return np.clip(rgb, 0, 1, out=rgb) if clipped else rgb

    def write_rgb(self, box: Box, rgb: Pixels, mask: Mask) -> None:
        if not self.written:
            self.frame.make_writable()
            self.written = True
        if self.layout.rgb:
            values = [rgb[..., channel] for channel in range(3)]
        else:
            kr, kb = self._matrix()
            y = rgb @ np.array([kr, 1 - kr - kb, kb], np.float32)
            values = [y, (rgb[..., 2] - y) / (2 * (1 - kb)), (rgb[..., 0] - y) / (2 * (1 - kr))]
        for number, value in enumerate(values[: len(self.layout.components)]):
            self._write(number, box, value, mask)

    def _matrix(self) -> tuple[float, float]:
        space = int(self.frame.colorspace)
        if space in MATRICES:
            return MATRICES[space]
        if space not in UNSTATED:
            raise Refused(
                f"the colour matrix number {space} (ITU-T H.273) is not supported; convert the video to BT.709"
            )
        return MATRICES[1] if self.height >= 720 else MATRICES[6]  # players' convention where nothing is stated

    def _scale(self, number: int) -> tuple[float, float]:
        """(level of zero, levels to one) of a component (ITU-T H.273, 8.3)."""
        depth = self.layout.depth
        top = float((1 << depth) - 1)
        full = int(self.frame.color_range) == FULL_RANGE or self.frame.format.name.startswith("yuvj")
        chroma = number > 0 and not self.layout.rgb
        if self.layout.rgb or (full and not chroma) or len(self.layout.components) == 1:
            limited = len(self.layout.components) == 1 and not full and int(self.frame.color_range) == 1
            return (16.0 * (1 << (depth - 8)), 219.0 * (1 << (depth - 8))) if limited else (0.0, top)
        if full:
            return float(1 << (depth - 1)), top
        unit = 1 << (depth - 8)
        return (128.0 * unit, 224.0 * unit) if chroma else (16.0 * unit, 219.0 * unit)

    def _read(self, number: int, box: Box) -> npt.NDArray[np.float32]:
        component = self.layout.components[number]
        inner, x, y = self._covering(component, box)
        low, span = self._scale(number)
        part = (self.samples(number)[inner.slices].astype(np.float32) - low) / span
        if component.shift_y:
            part = np.repeat(part, 1 << component.shift_y, axis=0)
        if component.shift_x:
            part = np.repeat(part, 1 << component.shift_x, axis=1)
        return part[y : y + box.height, x : x + box.width]

    def _write(self, number: int, box: Box, value: npt.NDArray[np.float32], mask: Mask) -> None:
        component = self.layout.components[number]
        low, span = self._scale(number)
        inner, x, y = self._covering(component, box)
        samples = self.samples(number)[inner.slices]
        top = (1 << self.layout.depth) - 1
        if not (component.shift_x or component.shift_y):
            samples[mask] = np.round(np.clip(value[mask] * span + low, 0, top)).astype(samples.dtype)
            return
        # a sample at the region's edge is shared with pixels outside: it moves by the share that is inside
        block_y, block_x = 1 << component.shift_y, 1 << component.shift_x
        shape = (samples.shape[0] * block_y, samples.shape[1] * block_x)
        inside, shown = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        inside[y : y + box.height, x : x + box.width] = mask
        shown[y : y + box.height, x : x + box.width] = np.where(mask, value, 0)

        # at an odd picture's right and lower edge a block has fewer pixels
        height, width = self.height - inner.y * block_y, self.width - inner.x * block_x
        rows = np.clip(height - block_y * np.arange(samples.shape[0]), 1, block_y)
        columns = np.clip(width - block_x * np.arange(samples.shape[1]), 1, block_x)
        area = (rows[:, None] * columns).astype(np.float32)
        covered = sums(inside, block_y, block_x)
        new = samples * (1 - covered / area) + (sums(shown, block_y, block_x) * span + covered * low) / area
        touched = covered > 0
        samples[touched] = np.round(np.clip(new[touched], 0, top)).astype(samples.dtype)

    @staticmethod
    def _covering(component: Component, box: Box) -> tuple[Box, int, int]:
        """The samples that cover a box of pixels, and the box's place in them, in pixels."""
        block_x, block_y = 1 << component.shift_x, 1 << component.shift_y
        x0, y0 = box.x // block_x, box.y // block_y
        inner = Box.between(x0, y0, -(-box.right // block_x), -(-box.bottom // block_y))
        return inner, box.x - x0 * block_x, box.y - y0 * block_y


def sums(values: npt.NDArray[np.float32], block_y: int, block_x: int) -> npt.NDArray[np.float32]:
    """Of blocks of (block_y, block_x); numpy's own `sum` over so short axes is slow."""
    parts = [values[y::block_y, x::block_x] for y in range(block_y) for x in range(block_x)]
    return reduce(np.add, parts)
