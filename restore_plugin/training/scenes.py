"""Frames with and without mosaics for training the finder, through real video codecs; deterministic from a seed."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin import mosaic
from restore_plugin.mosaic import FloatArray
from restore_plugin.training.data import Picture

SIDE = 256
SMALL = 0.35  # more small blocks than elsewhere: they are the hardest to see


@dataclass(frozen=True)
class Scene:
    luma: FloatArray  # (SIDE, SIDE) in [0, 1]
    hidden: FloatArray  # (SIDE/4, SIDE/4), share of mosaicked pixels
    blocks: FloatArray  # (2, SIDE/4, SIDE/4), log2(block / 8) in x and y


def shape_mask(height: int, width: int, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Box (half of the time), ellipse or blob that fills (height, width)."""
    kind = random.random()
    if kind < 0.5:
        return np.ones((height, width), bool)
    drawn = np.zeros((height, width), np.uint8)
    if kind < 0.8:
        cv2.ellipse(drawn, ((width / 2, height / 2), (width, height), 0.0), 1, -1)
    else:
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        radius = 0.8 + 0.2 * sum(
            random.uniform(-0.6, 0.6) * np.sin(k * angles + random.uniform(0, 6.3)) for k in (2, 3, 4)
        )
        points = np.stack([(np.cos(angles) * radius + 1) * width / 2, (np.sin(angles) * radius + 1) * height / 2], 1)
        cv2.fillPoly(drawn, [np.round(points).astype(np.int32)], 1)
    return drawn.astype(bool)


@dataclass(frozen=True)
class Patch:
    """A mosaic to lay over frames: its mask's place moves, its grid may stay or move along."""

    x: float
    y: float
    mask: npt.NDArray[np.bool_]
    block: tuple[float, float]
    phase: tuple[float, float]
    velocity: tuple[float, float]
    grid_moves: bool

    @staticmethod
    def random(side: int, largest: int, random: np.random.Generator, small: float = 0.0) -> Patch:
        """On a picture of `side` px; `small`: share of blocks under 9 px beyond those that fall there by chance."""
        largest_block = 9 if small and random.random() < small else 64
        block = float(np.exp(random.uniform(np.log(4), np.log(largest_block))))
        if random.random() < 0.7:
            block = float(round(block))
        stretch = float(random.uniform(0.75, 1.33)) if random.random() < 0.2 else 1.0
        bx, by = float(np.clip(block * stretch, 4, 64)), float(np.clip(block / stretch, 4, 64))
        low = max(24.0, 2.5 * max(bx, by))
        w, h = (int(min(largest, np.exp(random.uniform(np.log(low), np.log(max(largest, low + 1)))))) for _ in "xy")
        if random.random() < 0.08:
            w = h = side
        x, y = float(random.integers(0, side - w + 1)), float(random.integers(0, side - h + 1))
        aligned = random.random() < 0.5
        phase = (x, y) if aligned else (float(random.uniform(0, bx)), float(random.uniform(0, by)))
        velocity = (0.0, 0.0) if random.random() < 0.4 else (float(random.normal(0, 2)), float(random.normal(0, 2)))
        return Patch(x, y, shape_mask(h, w, random), (bx, by), phase, velocity, bool(random.random() < 0.5))

    def cover(self, picture: Picture, time: int) -> tuple[Picture, npt.NDArray[np.bool_]]:
        """The (H, W, C) uint8 picture with the mosaic on it, and where it is."""
        height, width = picture.shape[:2]
        h, w = self.mask.shape
        dx, dy = round(self.velocity[0] * time), round(self.velocity[1] * time)
        x = int(np.clip(round(self.x) + dx, 0, width - w))
        y = int(np.clip(round(self.y) + dy, 0, height - h))
        moved = (x - self.x, y - self.y) if self.grid_moves else (0.0, 0.0)
        # pixelate the whole cells that the mask touches
        margin = int(np.ceil(max(self.block)))
        x0, y0, x1, y1 = max(0, x - margin), max(0, y - margin), min(width, x + w + margin), min(height, y + h + margin)
        if self.phase == (self.x, self.y) and self.grid_moves:  # a crop that was pixelated by itself
            x0, y0, x1, y1 = x, y, x + w, y + h
        y_edges = mosaic.axis_edges(y0, y1, self.block[1], self.phase[1] + moved[1])
        x_edges = mosaic.axis_edges(x0, x1, self.block[0], self.phase[0] + moved[0])
        crop = picture[y0:y1, x0:x1].astype(np.float32) / 255
        flat = np.round(mosaic.pixelate(crop, y_edges - y0, x_edges - x0) * 255).astype(np.uint8)
        where = np.zeros((height, width), bool)
        where[y : y + h, x : x + w] = self.mask
        out = picture.copy()
        out[y0:y1, x0:x1][where[y0:y1, x0:x1]] = flat[where[y0:y1, x0:x1]]
        return out, where


def through_codec(frames: list[Picture], codec: str, options: dict[str, str]) -> list[Picture]:
    """Encode RGB frames (sides even) to yuv420p and decode them again."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream(codec, rate=25, options={"threads": "1", **options})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for rgb in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def codec_of(random: np.random.Generator) -> tuple[str, dict[str, str]] | None:
    kind = random.random()
    if kind < 0.2:
        return None
    rate = str(int(np.clip(random.normal(23, 5), 12, 38)))
    if kind < 0.92:
        preset = str(random.choice(["ultrafast", "veryfast", "veryfast", "medium"]))
        return "libx264", {"crf": rate, "preset": preset}
    return "libx265", {"crf": rate, "preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"}


def background(picture: Picture, random: np.random.Generator) -> Picture:
    """A crop with room to move, reduced or enlarged (soft pictures and old compression are the hard negatives)."""
    room = SIDE + 32
    height, width = picture.shape[:2]
    scale = float(np.exp(random.uniform(np.log(0.4), np.log(2.0))))
    scale = max(scale, room / min(height, width))
    take = min(int(np.ceil(room / scale)), height, width)
    y, x = int(random.integers(0, height - take + 1)), int(random.integers(0, width - take + 1))
    crop: Any = picture[y : y + take, x : x + take]
    if random.random() < 0.25:  # compressed once before it was enlarged
        quality = int(random.integers(8, 60))
        crop = cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    how = cv2.INTER_AREA if take > room else int(random.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    crop = cv2.resize(crop, (room, room), interpolation=how)
    if random.random() < 0.12:
        crop = draw_grid(crop, random)
    return np.ascontiguousarray(crop[:, ::-1] if random.random() < 0.5 else crop).astype(np.uint8)


def draw_grid(picture: Picture, random: np.random.Generator) -> Picture:
    """Lines in a regular grid, or text: what buildings, tables and titles look like, and no mosaic."""
    out = np.ascontiguousarray(picture).copy()
    colour = tuple(int(v) for v in random.integers(0, 256, 3))
    if random.random() < 0.5:
        step_x, step_y = (int(v) for v in random.integers(6, 50, 2))
        for x in range(int(random.integers(0, step_x)), out.shape[1], step_x):
            cv2.line(out, (x, 0), (x, out.shape[0]), colour, int(random.integers(1, 4)))
        for y in range(int(random.integers(0, step_y)), out.shape[0], step_y):
            cv2.line(out, (0, y), (out.shape[1], y), colour, int(random.integers(1, 4)))
    else:
        for _ in range(int(random.integers(2, 8))):
            at = (int(random.integers(-20, 150)), int(random.integers(10, out.shape[0])))
            text = "".join(chr(int(c)) for c in random.integers(48, 123, 14))
            cv2.putText(
                out,
                text,
                at,
                int(random.integers(0, 8)),
                float(random.uniform(0.4, 2)),
                colour,
                int(random.integers(1, 4)),
            )
    return out


def make(choose: Callable[[], Picture], random: np.random.Generator) -> list[Scene]:
    """The first and the last frame of a clip of three: one coded by itself, one predicted."""
    scene = background(choose(), random)
    patches = (
        []
        if random.random() < 0.25
        else [
            Patch.random(SIDE, int(random.choice([120, 200, SIDE])), random, SMALL)
            for _ in range(int(random.choice([1, 1, 1, 2])))
        ]
    )
    drift = random.integers(-2, 3, 2)
    frames, labels = [], []
    for time in range(3):
        at = 16 + drift * time
        frame = np.ascontiguousarray(scene[at[0] : at[0] + SIDE, at[1] : at[1] + SIDE])
        where, blocks = np.zeros((SIDE, SIDE), bool), np.zeros((2, SIDE, SIDE), np.float32)
        for patch in patches:
            frame, covered = patch.cover(frame, time)
            where |= covered
            blocks[:, covered] = np.log2(np.array(patch.block, np.float32) / 8)[:, None]
        frames.append(frame)
        labels.append((where, blocks))
    codec = codec_of(random)
    shown = through_codec(frames, *codec) if codec else frames
    small = (SIDE // 4, SIDE // 4)
    scenes = []
    for frame, (where, blocks) in zip((shown[0], shown[-1]), (labels[0], labels[-1]), strict=True):
        luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        hidden = cv2.resize(where.astype(np.float32), small, interpolation=cv2.INTER_AREA)
        scenes.append(
            Scene(luma, hidden, np.stack([cv2.resize(b, small, interpolation=cv2.INTER_NEAREST) for b in blocks]))
        )
    return scenes
