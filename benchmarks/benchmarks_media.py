"""Small clips for the benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np


def write(path: Path, frames: Iterable[np.ndarray], rate: int = 25, codec: str = "libx264") -> None:
    """RGB uint8 frames as H.264 crf 18."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options={"crf": "18", "preset": "veryfast"})
        for index, frame in enumerate(frames):
            if index == 0:
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
