"""Heads cut out of pictures, and turned in space: what the clips of `face_clips.py` are made of.

All of a head lies on one canvas, whatever picture it came from: the inner face (brow to chin) is FACE px high and its
centre at CENTRE. Turning lays the picture on a shape (a rounded head with a nose, orthographic), so that a face turned
by 60 degrees shows one cheek and hides the other behind the nose; what no picture shows, the side of the head, repeats
the hair or ear next to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

FACE = 120  # px, brow to chin
WIDTH, HEIGHT, HEAD_ROWS = 420, 620, 320  # px; the head lies in the first rows
CENTRE = np.array([WIDTH / 2, 185.0])
NECK = CENTRE + (0, 0.66 * FACE)  # what it tilts about
CONFIDENT = 0.92
SKIN_LUMA = 0.58
# in units of the distance from eyes to mouth: brow above the eyes, chin below them, half the inner face's width
BROW, CHIN, HALF_WIDTH = 0.43, 1.83, 0.86
GRID = 2  # px: how finely a turned head is worked out
WHOLE = (0, 0, WIDTH, HEIGHT)
REACH = 180  # degrees: how far round the head is drawn
PICTURED = 72  # degrees: how far round the picture shows it well
CLOTHES = ((0.16, 0.2, 0.3), (0.45, 0.12, 0.13), (0.62, 0.62, 0.6)) + (
    (0.2, 0.3, 0.22),
    (0.12, 0.12, 0.13),
    (0.4, 0.47, 0.6),
)
# half width over height, in faces, both from the face's centre
SHOULDERS = ((0.68, 0.8, 1.0, 1.15, 1.4, 2.5, 3.6), (0.36, 0.52, 0.98, 1.2, 1.33, 1.42, 1.36))
Array = np.ndarray


@dataclass(frozen=True)
class Head:
    """RGB in [0, 1] and alpha, float32: `head` (HEAD_ROWS, WIDTH, 4), `body` (HEIGHT, WIDTH, 4), this premultiplied.

    `inner`: (HEAD_ROWS, WIDTH), 1 inside the inner face. `middle`, `half`: the head's middle and half width in each
    row, px. `top`: its first row. `skin`: a cheek's colour.
    """

    head: Array
    body: Array
    inner: Array
    middle: Array
    half: Array
    top: int
    skin: Array


def people_of(pictures: Sequence[Path], count: int, detector: str, random: Any) -> tuple[list[str], list[Head]]:
    """Names and heads of different people: one of each of `count` stretches of the list, none near its ends."""
    finder = cv2.FaceDetectorYN.create(detector, "", (320, 320), CONFIDENT)
    stretch, names, heads = len(pictures) / count, [], []
    for index in random.permutation(count):
        for _ in range(50):
            path = pictures[int(stretch * (index + random.uniform(0.3, 0.7)))]
            picture: Any = cv2.imread(str(path))
            head = cut_out(picture, finder)
            if head is not None:
                names.append(path.name)
                heads.append(head)
                break
        else:
            raise SystemExit(f"expected pictures with one frontal face, found none near {path}")
    return names, heads


def cut_out(picture: Array, finder: Any) -> Head | None:
    """The head in a picture (BGR uint8), None if it is unclear: not one confident frontal face, or a poor cut."""
    finder.setInputSize(picture.shape[1::-1])
    found = finder.detect(picture)[1]
    if found is None or len(found) != 1:
        return None
    points = found[0, 4:14].reshape(5, 2).astype(float)
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    unit, across = float(np.linalg.norm(mouth - eyes)), points[1] - points[0]
    # turned away from the camera already: the nose is beside the middle
    if abs((points[2] - (eyes + mouth) / 2) @ across) / (across @ across) > 0.12:
        return None
    scale = FACE / ((BROW + CHIN) * unit)
    angle = float(np.arctan2(across[1], across[0]))
    rotation = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    inner_centre = eyes + (mouth - eyes) * (CHIN - BROW) / 2
    matrix = np.hstack([rotation, (CENTRE - rotation @ inner_centre)[:, None]])
    rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    canvas = cv2.warpAffine(rgb, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    there = cv2.warpAffine(np.ones(rgb.shape[:2], np.uint8), matrix, (WIDTH, HEIGHT)) > 0
    person = segmented(canvas, there)
    half_face = HALF_WIDTH * unit * scale
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x, y = (columns - CENTRE[0]) / half_face, (rows - CENTRE[1]) / (FACE / 2)
    inner = (x**2 + y**2 < 1).astype(np.float32)
    # the head ends at the jaw; hair beside it a little higher
    jaw = np.where(np.abs(x) < 1.12, 1.07 * np.sqrt(np.maximum(1 - (x / 1.16) ** 2, 0)), 0)
    above = y < np.maximum(jaw, 0.45)
    head_mask = person & above
    top = int(np.argmax(head_mask.any(1)))
    solid = head_mask[:HEAD_ROWS].sum(1)
    at_eyes = solid[int(CENTRE[1] - 0.2 * FACE)]
    columns_at_eyes = np.flatnonzero(head_mask[int(CENTRE[1] - 0.2 * FACE)])
    aside = abs(columns_at_eyes.mean() - CENTRE[0]) if len(columns_at_eyes) else FACE
    if not (2.0 * half_face < at_eyes < 3.1 * half_face and aside < 0.07 * FACE):
        return None
    if not 8 < top < CENTRE[1] - 0.85 * FACE or ragged(head_mask[:HEAD_ROWS], top) > 1:
        return None
    if person[inner > 0].mean() < 0.99 or not there[top : top + 3].any():
        return None
    head_alpha = soft(head_mask, 1.0, 1.6)[:HEAD_ROWS]
    middle, half = extent(head_mask[:HEAD_ROWS], top)
    # colours of the head reach beyond its edge, so that no rim of the old background comes along
    sure = cv2.erode(head_mask.astype(np.uint8), np.ones((7, 7)))
    filled = spread(canvas, sure.astype(bool)).astype(np.float32) / 255
    skin = filled[(np.abs(np.abs(x) - 0.5) < 0.15) & (np.abs(y - 0.25) < 0.12)].mean(0)
    # a common exposure: how bright it is shall be the clip's business
    gain = np.clip(SKIN_LUMA / float(skin @ (0.299, 0.587, 0.114)), 0.6, 2.2)
    filled, skin = np.minimum(filled * gain, 1).astype(np.float32), np.minimum(skin * gain, 1)
    canvas = np.minimum(canvas * gain, 255).astype(np.uint8)
    head = np.dstack([filled[:HEAD_ROWS], head_alpha]).astype(np.float32)
    return Head(head, torso(canvas, person & there, skin), inner[:HEAD_ROWS], middle, half, top, skin)


def segmented(canvas: Array, there: Array) -> Array:
    """Head and shoulders, (H, W) bool, by GrabCut from an inner face and what lies far from it."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x, y = (columns - CENTRE[0]) / FACE, (rows - CENTRE[1]) / FACE
    marks = np.full((HEIGHT, WIDTH), cv2.GC_PR_BGD, np.uint8)
    marks[(y < 0.5) & ((x / 0.58) ** 2 + ((y + 0.22) / 0.85) ** 2 < 1)] = cv2.GC_PR_FGD
    marks[((x / 0.4) ** 2 + ((y + 0.08) / 0.6) ** 2 < 1) | ((y > 0) & (y < 0.8) & (np.abs(x) < 0.22))] = cv2.GC_FGD
    marks[(np.abs(x) > 0.72) | (y < -1.15) | (np.abs(x) > 0.66 - 0.3 * np.maximum(y, 0))] = cv2.GC_BGD
    marks[(y > 0.5) & (np.abs(x) < 0.4)] = cv2.GC_PR_FGD
    marks[~there] = cv2.GC_BGD
    cv2.setRNGSeed(1)
    cv2.grabCut(canvas, marks, WHOLE, np.zeros((1, 65)), np.zeros((1, 65)), 6, cv2.GC_INIT_WITH_MASK)
    person: Any = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    person = cv2.morphologyEx(person, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    person = cv2.morphologyEx(person, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)))
    _, labels = cv2.connectedComponents(person)
    return labels == labels[int(CENTRE[1]), int(CENTRE[0])]


def ragged(mask: Array, top: int) -> float:
    """How far the upper head is from its hull and its mirror image; up to 1 is fine. A poor cut has bays and horns."""
    upper = mask[top : int(CENTRE[1])]
    hull = np.zeros(upper.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(cv2.findNonZero(upper.astype(np.uint8))), 1)
    mirrored = upper[:, ::-1]  # CENTRE is the middle of the canvas
    unlike = (upper ^ mirrored).sum() / (upper | mirrored).sum()
    return max((1 - float(upper.sum()) / float(hull.sum())) / 0.045, float(unlike) / 0.17)


def soft(mask: Array, shrink: float, blur: float) -> Array:
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    return cv2.GaussianBlur((inside > shrink).astype(np.float32), (0, 0), blur)


def spread(canvas: Array, sure: Array) -> Array:
    """Colours of `sure` pixels carried outward to all others, each from the nearest, then smoothed."""
    _, nearest = cv2.distanceTransformWithLabels(
        (~sure).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colours[nearest[sure]] = canvas[sure]
    filled = colours[nearest]
    smooth = cv2.GaussianBlur(filled, (0, 0), 2)
    return np.where(sure[..., None], canvas, smooth)


def extent(mask: Array, top: int) -> tuple[Array, Array]:
    """The head's middle and half width in each row, smoothed; a jaw that ends keeps its last width."""
    rows = np.arange(HEAD_ROWS)
    full = np.flatnonzero(mask.sum(1) > 6)
    left = np.array([np.flatnonzero(mask[row])[0] for row in full], float)
    right = np.array([np.flatnonzero(mask[row])[-1] for row in full], float)
    left, right = np.interp(rows, full, left), np.interp(rows, full, right)
    middle = cv2.GaussianBlur(((left + right) / 2)[:, None], (1, 31), 10, borderType=cv2.BORDER_REPLICATE)[:, 0]
    half = cv2.GaussianBlur(((right - left) / 2)[:, None], (1, 15), 4, borderType=cv2.BORDER_REPLICATE)[:, 0]
    return middle, half + 2


def torso(canvas: Array, person: Array, skin: Array) -> Array:
    """The picture's neck, and shoulders in plain clothes."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x, y = np.abs(columns - CENTRE[0]) / FACE, (rows - CENTRE[1]) / FACE
    bottom = int(np.flatnonzero(person.any(1))[-1])
    random = np.random.default_rng(int(skin.sum() * 1e6))
    colour = np.array(CLOTHES[int(random.integers(len(CLOTHES)))]) * random.uniform(0.8, 1.2)
    half = cv2.GaussianBlur(np.interp(y, *SHOULDERS).astype(np.float32), (0, 0), 6)
    shape = (x < half) & (y > 0.68 + 0.12 * np.sqrt(np.clip(1 - (x / 0.36) ** 2, 0, 1)))
    folds = cv2.GaussianBlur(random.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), sigmaX=6, sigmaY=20)
    weave = cv2.GaussianBlur(random.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 0.8)
    shade = 1 - 0.45 * np.clip(x / half, 0, 1) ** 4 + 0.05 * folds / folds.std() + 0.03 * weave / weave.std()
    shade -= 0.25 * np.exp(-0.5 * ((x - 0.98 - 0.02 * y) / 0.02) ** 2) * np.clip((y - 1.45) / 0.3, 0, 1)  # arms
    cloth = (shade[..., None] * colour).astype(np.float32)
    neck = (x < 0.36 * np.sqrt(np.clip(1 - (np.maximum(0.45 - y, 0) / 0.5) ** 2, 0, 1))) & ~shape & (y < 0.85)
    shadow = 0.62 + 0.2 * np.clip((y - 0.5) / 0.3, 0, 1) - 0.3 * (x / 0.4) ** 2
    cloth = np.where(neck[..., None], (shadow[..., None] * skin).astype(np.float32), cloth)
    collar = np.abs(y - 0.70 - 0.12 * np.sqrt(np.clip(1 - (x / 0.38) ** 2, 0, 1))) < 0.018
    cloth[collar & shape] *= 0.7
    sure = cv2.erode(person.astype(np.uint8), np.ones((7, 7))).astype(bool)
    own = soft(person & (y > 0.42) & ~shape & (x < 0.36), 2, 2)
    own *= np.clip((bottom - rows) / 14, 0, 1)
    under = cv2.GaussianBlur((neck | shape).astype(np.float32), (0, 0), 1.6)
    rgb = own[..., None] * spread(canvas, sure).astype(np.float32) / 255 + (1 - own[..., None]) * cloth
    alpha = np.maximum(own, under) * np.clip((HEIGHT - 6 - rows) / 70, 0, 1)
    return np.dstack([rgb * alpha[..., None], alpha]).astype(np.float32)


def turn(head: Head, yaw: float, pitch: float) -> tuple[Array, Array]:
    """The head turned (degrees; yaw to its left is positive, pitch up): RGBA like `Head.head`, and its inner face."""
    rows = np.arange(head.top - 1, HEAD_ROWS, 0.7 * GRID, dtype=np.float32)
    half = np.interp(rows, np.arange(HEAD_ROWS), head.half)[:, None].astype(np.float32)
    middle = np.interp(rows, np.arange(HEAD_ROWS), head.middle)[:, None].astype(np.float32)
    rows = rows[:, None]
    angle = np.radians(np.linspace(-REACH, REACH, 600 // GRID, dtype=np.float32))[None]
    deep = 1.1 * float(np.median(head.half[int(CENTRE[1] - 0.4 * FACE) : int(CENTRE[1])]))
    crown, chin = CENTRE[1] - 0.25 * FACE, CENTRE[1] + 0.55 * FACE
    upper = np.sqrt(np.clip(1 - ((crown - rows) / (crown - head.top + 6)) ** 2, 0, 1))
    lower = np.clip((rows - crown) / (chin - crown), 0, 1.2) ** 2
    front = np.where(rows < crown, upper, 1 - 0.12 * lower) * deep
    back = np.where(rows < crown, upper, 1 - 0.75 * np.clip(lower, 0, 1)) * deep
    x = half * np.sin(angle)
    z = np.where(np.cos(angle) > 0, front, back) * np.cos(angle)
    # a nose, from between the eyes to its tip
    tip = CENTRE[1] + 0.07 * FACE
    ridge = np.exp(-0.5 * ((middle + x - CENTRE[0]) / (0.075 * FACE)) ** 2) * (np.cos(angle) > 0)
    along = np.clip((rows - tip + 0.38 * FACE) / (0.38 * FACE), 0, 1)
    along = along * np.clip((tip + 0.1 * FACE - rows) / (0.1 * FACE), 0, 1)
    z = z + 0.17 * FACE * ridge * along
    # what the picture shows there; beyond, hair (or none) as above the forehead
    degrees = np.degrees(np.abs(angle)) + 0 * rows
    u = middle + half * np.sin(np.sign(angle) * np.radians(np.minimum(degrees, PICTURED)))
    aside = np.abs((degrees - PICTURED) % 100 - 50) / 50
    share = np.clip((rows - head.top) / (chin - head.top), 0, 1)
    back_u = middle + np.sign(angle) * (0.05 + 0.3 * aside) * FACE
    back_v = head.top + (0.09 + 0.22 * share) * FACE
    behind = np.clip((degrees - PICTURED + 14) / 14, 0, 1) * np.clip((CENTRE[1] + 0.12 * FACE - rows) / 12, 0, 1)
    here = 1 - np.clip((degrees - 92) / 8, 0, 1) * np.clip((rows - CENTRE[1] - 0.2 * FACE) / 14, 0, 1)
    yaw_, pitch_ = float(np.radians(yaw)), float(np.radians(pitch))
    light = (0.82 + 0.18 * np.cos(angle + yaw_)) / (0.82 + 0.18 * np.cos(angle))
    light = np.where(np.cos(angle) > 0, light, 0.85) + 0 * rows
    across = middle + x * np.cos(yaw_) + z * np.sin(yaw_)
    depth = z * np.cos(yaw_) - x * np.sin(yaw_)
    level = CENTRE[1] - 0.05 * FACE
    down = level + (rows - level) * np.cos(pitch_) - depth * np.sin(pitch_)
    near = depth * np.cos(pitch_) + (rows - level) * np.sin(pitch_)
    facing = np.where(degrees < 90, 1.0, 0.0)
    side = degrees * (rows < CENTRE[1])
    order = np.argsort((near * 32).astype(np.int16), axis=None, kind="stable")  # far ones first
    i, j = (down / GRID).astype(int).ravel()[order], (across / GRID).astype(int).ravel()[order]
    high, wide = HEAD_ROWS // GRID, WIDTH // GRID
    inside = (down.ravel()[order] >= 0) & (i < high) & (j >= 0) & (j < wide)
    order, i, j = order[inside], i[inside], j[inside]
    maps: Any = np.zeros((high, wide, 10), np.float32)  # the nearest is written last and stays
    values = (u, rows, light, facing, behind, here, back_u, back_v, 1, side)
    maps[i, j] = np.stack([np.broadcast_to(part, near.shape).ravel()[order] for part in values], -1)
    maps = cv2.blur(maps, (3, 3))
    known = maps[..., 8:9].copy()
    maps /= np.maximum(known, 1e-6)
    known = (known[..., 0] > 0.3).astype(np.float32)
    edge = cv2.dilate(maps, np.ones((3, 3)))  # so that nothing is mixed with what is beyond the edge
    maps = np.where(known[..., None] > 0, maps, edge)
    maps = cv2.resize(maps, (WIDTH, HEAD_ROWS), interpolation=cv2.INTER_LINEAR)
    solid = (cv2.resize(known, (WIDTH, HEAD_ROWS), interpolation=cv2.INTER_LINEAR) > 0.5).astype(np.float32)
    drawn: Any = cv2.remap(head.head, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR)
    other = cv2.remap(head.head, maps[..., 6], maps[..., 7], cv2.INTER_LINEAR)
    behind, here = maps[..., 4:5], maps[..., 5:6]
    rgb = drawn[..., :3] + (other[..., :3] - drawn[..., :3]) * behind
    # a head is solid: where its side is seen the picture's soft edge is not
    solid_side = np.clip((maps[..., 9:10] - 40) / 15, 0, 1) * abs(np.sin(yaw_))
    alpha = np.maximum(drawn[..., 3:], np.maximum(behind, solid_side * here)) * here
    drawn = np.dstack([rgb * alpha, alpha])
    inner = cv2.remap(head.inner, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR) * (maps[..., 3] > 0.5) * solid
    _, parts = cv2.connectedComponents((inner > 0.5).astype(np.uint8))
    inner = inner * (parts == 1 + int(np.argmax(np.bincount(parts[parts > 0])[1:])))  # the largest
    rim = np.clip(cv2.distanceTransform((solid > 0).astype(np.uint8), cv2.DIST_L2, 3) / 4, 0, 1)
    drawn = drawn * rim[..., None]
    drawn[..., :3] *= maps[..., 2:3]
    return drawn, inner
