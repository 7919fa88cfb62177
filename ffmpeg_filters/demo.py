"""`restore-video demo`: a clip with a mosaic is made, restored, and shown beside its input."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restore_plugin.types import Pixels

WIDTH, HEIGHT = 640, 360
FRAMES, RATE = 75, 25
BLOCK = 8
TONE_HZ, SAMPLE_RATE = 440, 48000
ENLARGED = 1.6
MOSAIC = (272, 40, 144, 184)  # x, y, width, height on the enlarged picture: the face


def main(argv: Sequence[str], restore_video: Callable[[Sequence[str]], int]) -> int:
    """Write demo.mp4, demo.restored.mp4 (by the command that is given) and demo.png into a folder; the exit code."""
    options = argparse.ArgumentParser(
        prog="restore-video demo", description="Make a small pixelated clip, restore it, and show both side by side."
    )
    options.add_argument(
        "-o", "--output", type=Path, default=Path("restore-demo"), help="folder (default: restore-demo)"
    )
    folder: Path = options.parse_args(argv).output

    from restore_plugin.errors import OutputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture, what = sample_picture()
        make_clip(folder / "demo.mp4", picture)
    except OSError as error:
        raise OutputError(f"{folder} could not be written: {error}; choose another folder with -o") from None
    print(f"wrote {folder / 'demo.mp4'}: {what}, moving, with a mosaic of {BLOCK} px on it")
    code = restore_video([str(folder / "demo.mp4"), "-o", str(folder / "demo.restored.mp4"), "--overwrite"])
    if code == 0:
        side_by_side(folder / "demo.mp4", folder / "demo.restored.mp4", folder / "demo.png")
        print(f"wrote {folder / 'demo.png'}: before | after. Restored pixels are plausible, not evidence.")
    return code


def sample_picture() -> tuple[Pixels, str]:
    """About 820 x 820 px, RGB float32, and what it is: a portrait that scikit-image ships, or a drawing."""
    import cv2
    import numpy as np

    try:
        from skimage import data
    except ImportError:
        drawn = np.zeros((512, 512, 3), np.uint8)
        random = np.random.default_rng(7)
        for _ in range(400):
            centre = tuple(int(v) for v in random.integers(0, 512, 2))
            colour = tuple(int(v) for v in random.integers(30, 256, 3))
            cv2.circle(drawn, centre, int(random.integers(4, 40)), colour, int(random.choice([-1, 2, 3])), cv2.LINE_AA)
        picture, what = drawn, "a drawing (install the extra `demo` for a photograph)"
    else:
        picture, what = data.astronaut(), "a portrait (Eileen Collins, NASA, public domain, from scikit-image)"
    large = cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
    return large.astype(np.float32) / 255, what


def make_clip(path: Path, picture: Pixels) -> None:
    """The picture, panned, with a mosaic that moves along, and a tone."""
    import av
    import numpy as np

    from restore_plugin.mosaic import axis_edges, pixelate

    x, y, width, height = MOSAIC
    face = picture[y : y + height, x : x + width]
    hidden = picture.copy()
    hidden[y : y + height, x : x + width] = pixelate(
        face, axis_edges(0, height, BLOCK, 0), axis_edges(0, width, BLOCK, 0)
    )
    pictures = np.round(hidden * 255).astype(np.uint8)
    room = (picture.shape[1] - WIDTH, 60)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "fast"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = container.add_stream("aac", rate=SAMPLE_RATE)
        for index in range(FRAMES):
            turn = (1 - np.cos(2 * np.pi * index / FRAMES)) / 2
            left, top = int(turn * room[0]) // 2 * 2, int(turn * room[1]) // 2 * 2
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pictures[top : top + HEIGHT, left : left + WIDTH]), "rgb24"
            )
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.sin(np.arange(FRAMES * SAMPLE_RATE // RATE) * 2 * np.pi * TONE_HZ / SAMPLE_RATE) * 0.1
        sound = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="fltp", layout="mono")
        sound.sample_rate = SAMPLE_RATE
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def side_by_side(before: Path, after: Path, picture: Path) -> None:
    """The middle frame of both, as one picture."""
    import cv2
    import numpy as np

    from ffmpeg_filters.job import frame_at
    from ffmpeg_filters.reader import probe
    from restore_plugin.types import Box

    pair = []
    for path in (before, after):
        frame = frame_at(probe(path), FRAMES / RATE / 4)
        pair.append(frame.read_rgb(Box(0, 0, frame.width, frame.height)))
    cv2.imwrite(str(picture), np.round(np.concatenate(pair, axis=1)[..., ::-1] * 255).astype(np.uint8))
