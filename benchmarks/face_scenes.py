"""Scenes with people, drawn frame by frame with their truth: for the clips of `face_clips.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from face_heads import FACE, NECK, Head, turn

SHARE, SMALLEST = 0.3, 18  # what counts: visible share of the inner face, px
SHUTTER = 0.5  # of the frame interval
LENS = 0.6  # px, standard deviation of the lens's blur
Array = np.ndarray


@dataclass(frozen=True)
class Motion:
    """Where a person's neck is (px), how large the face is (px), how it is turned (degrees) and blurred; (N,) each."""

    x: Array
    y: Array
    height: Array
    roll: Array
    yaw: Array
    pitch: Array
    defocus: Array  # standard deviation, px
    light: Array  # factor


@dataclass(frozen=True)
class Actor:
    person: int
    head: Head
    motion: Motion


@dataclass(frozen=True)
class Obstacle:
    """A picture (h, w, 4) with premultiplied alpha whose centre goes along x, y (px), turned by `angle` (degrees)."""

    picture: Array
    x: Array
    y: Array
    angle: Array


@dataclass(frozen=True)
class Scene:
    """Between two cuts. Later actors are nearer; obstacles are before all of them."""

    count: int
    background: Iterator[Array]
    actors: list[Actor]
    obstacles: list[Obstacle] = field(default_factory=list)
    light: Array | None = None


# ---- drawing


def pasted(picture: Array, matrix: Array, size: tuple[int, int], kernel: Array | None, soft: float) -> Any:
    """A premultiplied RGBA picture through a 2x3 matrix: (rows, columns, RGBA inside the frame), None if outside."""
    height, width = picture.shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix.T
    pad = 4 + round(3 * soft) + (max(kernel.shape) if kernel is not None else 0)
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int) - pad, -pad)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + pad, np.array(size) + pad)
    if x1 <= x0 + 2 * pad or y1 <= y0 + 2 * pad:
        return None
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.75:  # so that nothing aliases
        picture = cv2.GaussianBlur(picture, (0, 0), 0.45 / scale)
    moved = matrix - [[0, 0, x0], [0, 0, y0]]
    drawn = cv2.warpAffine(picture, moved, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR)
    if soft > 0.3:
        drawn = cv2.GaussianBlur(drawn, (0, 0), soft)
    if kernel is not None:
        drawn = cv2.filter2D(drawn, -1, kernel)
    left, top = max(0, x0), max(0, y0)
    right, bottom = min(size[0], x1), min(size[1], y1)
    return slice(top, bottom), slice(left, right), drawn[top - y0 : bottom - y0, left - x0 : right - x0]


def over(frame: Array, layer: Any) -> None:
    if layer is not None:
        rows, columns, rgba = layer
        frame[rows, columns] = frame[rows, columns] * (1 - rgba[..., 3:]) + rgba[..., :3]


def line_kernel(x: float, y: float) -> Array | None:
    """Motion blur along (x, y) px; None for none that could be seen."""
    length = float(np.hypot(x, y))
    if length < 1.2:
        return None
    side = 2 * int(np.ceil(length / 2)) + 3
    kernel = np.zeros((side, side), np.float32)
    for step in np.linspace(-0.5, 0.5, 4 * side):
        column, row = side // 2 + x * step, side // 2 + y * step
        i, j = int(row), int(column)
        for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
            kernel[i + di, j + dj] += (1 - abs(row - i - di)) * (1 - abs(column - j - dj))
    return kernel / kernel.sum()


def placed(motion: Motion, t: int, turned: float) -> Array:
    """The matrix from the head's canvas to the frame: turned by `turned` of the roll about the neck, scaled, moved."""
    scale, angle = motion.height[t] / FACE, np.radians(motion.roll[t] * turned)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.hstack([matrix, (np.array([motion.x[t], motion.y[t]]) - matrix @ NECK)[:, None]])


def draw_actor(frame: Array, actor: Actor, t: int) -> tuple[dict[str, Any], Array, Array]:
    """Draws a person; the truth without visibility, the inner face (H, W) bool, and all that it covers."""
    motion, size = actor.motion, (frame.shape[1], frame.shape[0])
    head, inner = turn(actor.head, float(motion.yaw[t]), float(motion.pitch[t]))
    matrix = placed(motion, t, 1)
    contours, _ = cv2.findContours((inner > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(contours))[:, 0].astype(float)
    outline = np.hstack([hull, np.ones((len(hull), 1))]) @ matrix.T
    centre = np.append(hull.mean(0), 1)
    before, after = placed(motion, max(t - 1, 0), 1) @ centre, placed(motion, min(t + 1, len(motion.x) - 1), 1) @ centre
    way = (after - before) / 2 * SHUTTER
    kernel, soft = line_kernel(*way), float(motion.defocus[t])
    layers = [(actor.head.body, placed(motion, t, 0.3)), (head, matrix)]
    covers = np.zeros(frame.shape[:2], bool)
    for picture, where in layers:
        lit = picture * np.array([motion.light[t]] * 3 + [1], np.float32)
        layer = pasted(lit, where, size, kernel, soft)
        over(frame, layer)
        if layer is not None:
            covers[layer[0], layer[1]] |= layer[2][..., 3] > 0.5
    drawn = np.zeros(frame.shape[:2], bool)
    layer = pasted(np.repeat(inner[..., None], 4, 2), matrix, size, None, 0)
    if layer is not None:
        drawn[layer[0], layer[1]] = layer[2][..., 3] > 0.5
    scale = float(motion.height[t] / FACE)
    face = {
        "person": actor.person,
        "outline": np.round(outline, 1).tolist(),
        "area": float((inner > 0.5).sum()) * scale**2,
        "height_px": round(float(motion.height[t]), 1),
        "blur_px": round(max(float(np.hypot(*way)), 2.35 * soft), 1),
        "yaw": round(float(motion.yaw[t])),
        "roll": round(float(motion.roll[t])),
    }
    return face, drawn, covers


def draw(scene: Scene, t: int, background: Array) -> tuple[Array, list[dict[str, Any]]]:
    """One frame, RGB float32 in [0, 1], and the truth of it."""
    frame: Any = background.copy()
    faces: list[dict[str, Any]] = []
    seen: list[Array] = []
    for actor in scene.actors:
        face, inner, covers = draw_actor(frame, actor, t)
        seen = [mask & ~covers for mask in seen] + [inner]
        faces.append(face)
    for obstacle in scene.obstacles:
        angle = np.radians(obstacle.angle[t])
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.array(obstacle.picture.shape[1::-1]) / 2
        last = min(t + 1, scene.count - 1)
        way = np.array([obstacle.x[last] - obstacle.x[t], obstacle.y[last] - obstacle.y[t]]) * SHUTTER
        matrix = np.hstack([matrix, (np.array([obstacle.x[t], obstacle.y[t]]) - matrix @ middle)[:, None]])
        layer = pasted(obstacle.picture, matrix, (frame.shape[1], frame.shape[0]), line_kernel(*way), 0)
        over(frame, layer)
        if layer is not None:
            for mask in seen:
                mask[layer[0], layer[1]] &= layer[2][..., 3] < 0.5
    frame = cv2.GaussianBlur(frame, (0, 0), LENS)
    if scene.light is not None:
        frame *= np.float32(scene.light[t])
    truth = []
    for face, mask in zip(faces, seen, strict=True):
        share = min(1.0, float(mask.sum()) / max(face.pop("area"), 1))
        polygons, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        counts = share >= SHARE and face["height_px"] >= SMALLEST
        visible = [polygon[:, 0].tolist() for polygon in polygons]
        truth.append({**face, "share": round(share, 3), "counts": bool(counts), "visible": visible})
    return frame, truth
