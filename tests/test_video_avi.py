"""H.264 with B frames in AVI, as capture programs write it: its times are of the order in which frames are stored."""

from pathlib import Path

import av
import numpy as np
import pytest

from ffmpeg_filters.cli import main
from ffmpeg_filters.reader import probe, read_frames

FRAMES = 24


@pytest.fixture(params=["libx264", "mpeg4"])
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Frames that grow brighter."""
    path = tmp_path / "in.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(request.param, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.max_b_frames = 2
        for index in range(FRAMES):
            picture = np.full((64, 96, 3), 10 + index * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def brightness(path: Path) -> list[int]:
    warnings: list[str] = []
    frames = list(read_frames(probe(path), warnings.append))
    assert warnings == []
    assert [frame.index for frame in frames] == list(range(len(frames)))
    times = [frame.pts or 0 for frame in frames]
    assert times == sorted(set(times))
    return [round(float(frame.luma().mean() * 255)) for frame in frames]


def test_every_frame_comes_once_and_in_order(clip: Path) -> None:
    assert brightness(clip) == pytest.approx(
        [10 + index * 10 for index in range(FRAMES)], abs=8
    )  # a frame too many or too few makes it 10


def test_a_run_keeps_them(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    assert main([str(clip), "--task", "deblur", "--codec", "ffv1", "-o", str(out), "--quiet"]) == 0
    assert brightness(out) == pytest.approx(brightness(clip), abs=8)
