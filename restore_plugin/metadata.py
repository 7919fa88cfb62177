"""What a still tells besides its pixels, whatever its format."""

from __future__ import annotations

from typing import NamedTuple


class Metadata(NamedTuple):
    """`dpi` as it stands there, however odd."""

    exif: bytes | None
    icc: bytes | None
    xmp: bytes | None
    dpi: tuple[float, float] | None
    carried: tuple[bytes, ...]  # a JPEG's segments, a PNG's blocks, that outlive a change of the pixels
