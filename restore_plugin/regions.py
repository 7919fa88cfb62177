"""From frame to crop and back: the one place where regions are cut out and pasted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from restore_plugin.errors import InputError
from restore_plugin.types import Box, Finder, Frame, Luma, Mask, Pixels, Point, Region, Restorer

IntArray: TypeAlias = npt.NDArray[np.int64]

LARGEST_CROP = 2048**2  # px: holes are not joined to more than that, so that memory lasts
UNCHANGED = 2.0**-17  # of [0, 1]: less than a level of 16 bits; such pixels are not written, so they stay as decoded


def clip(region: Region, width: int, height: int) -> Region | None:
    """The part of a region inside the picture; None if there is none. The grid stays where it was."""
    box = region.box.intersect(Box(0, 0, width, height))
    if box.area == 0:
        return None
    if box == region.box:
        return region
    corners = ((box.x, box.y), (box.right - 1, box.y), (box.right - 1, box.bottom - 1), (box.x, box.bottom - 1))
    return replace(region, box=box, outline=region.outline or (corners,))


def whole(frame: Frame) -> list[Region]:
    """The frame as one region, for tasks that need not be told where."""
    return [Region(Box(0, 0, frame.width, frame.height))]


def restore_frame(
    frame: Frame,
    regions: Sequence[Region],
    restorer: Restorer,
    neighbours: Sequence[Pixels] = (),
    unseen: Mask | None = None,
) -> int:
    """Restore every region of a frame in place; returns how many. Where regions overlap, the surer one counts.

    `neighbours`: the whole frames before and after, in order, as they were before anything was restored. `unseen`
    (H, W): pixels that nobody sees, fully transparent ones; holes take nothing from them.
    """
    picture = Box(0, 0, frame.width, frame.height)
    hidden: Mask | None = None
    if restorer.needs.holes:
        hidden = union(regions, frame.height, frame.width)
        regions = clustered(hidden, restorer, max((region.soft for region in regions), default=0))
        if unseen is not None:
            hidden |= unseen
    taken: Mask | None = np.zeros((frame.height, frame.width), bool) if len(regions) > 1 else None
    done = 0
    for region in sorted(regions, key=lambda region: -region.confidence):
        inside = clip(region, frame.width, frame.height)
        if inside is None:
            continue
        around = inside.box.grow(*restorer.margin(inside), within=picture)
        local = inside.shift(-around.x, -around.y)
        mask: Mask = np.zeros((around.height, around.width), bool)
        mask[local.box.slices] = inside.mask()
        if taken is not None and not region.soft:  # soft edges are laid over each other
            mask &= ~taken[around.slices]
            taken[around.slices] |= mask
        if not mask.any():
            continue
        pixels = frame.read_rgb(around, clipped=False)
        shown = mask if hidden is None else hidden[around.slices].copy()
        beside = [neighbour[around.slices] for neighbour in neighbours]
        out = answer(restorer, pixels, shown, beside, local, frame.turns)
        if hidden is not None:
            hidden[around.slices] &= ~mask  # the next region sees it filled
        if region.soft:
            out = pixels + (out - pixels) * fading(mask, around, picture, region.soft)[..., None]
        rows, columns = local.box.slices
        away = ~(np.abs(out[rows, columns] - pixels[rows, columns]) <= UNCHANGED)  # so are pixels that are no number
        changed = away[..., 0] | away[..., 1] | away[..., 2]  # `any` over so short an axis is slow
        frame.write_rgb(inside.box, out[rows, columns], mask[rows, columns] & changed)
        done += 1
    return done


def answer(
    restorer: Restorer, pixels: Pixels, shown: Mask, beside: Sequence[Pixels], region: Region, turns: int
) -> Pixels:
    """What a restorer, which knows values in [0, 1], makes of pixels that may lie beyond: whiter than white, say.

    Those that it changes keep what they are beyond by. What fills a hole may go as far as the pixels around it do.
    """
    needs = restorer.needs
    low, high = extent(pixels[~shown]) if needs.holes else (0.0, 1.0)
    usual = (low, high) == (0.0, 1.0)
    seen = np.clip(pixels if usual else (pixels - low) / (high - low), 0, 1)
    if needs.upright and turns:
        upright = [np.ascontiguousarray(np.rot90(each, turns)) for each in (seen, shown, *beside)]
        out = np.rot90(restorer(upright[0], upright[1], upright[2:]), -turns)
    else:
        out = restorer(seen, shown, beside, region)
    if not usual:
        out = out * (high - low) + low
    return out if needs.replaces else out + (pixels - seen)


def extent(known: Pixels) -> tuple[float, float]:
    """Black and white, or the darkest and the brightest value beyond them."""
    return (min(0.0, float(known.min())), max(1.0, float(known.max()))) if known.size else (0.0, 1.0)


def fading(mask: Mask, place: Box, picture: Box, soft: int) -> Luma:
    """(H, W) in [0, 1]: from 0 outside of a mask at `place` to 1 `soft` px inside; none at the picture's own edges."""
    sides = (place.y > 0, place.bottom < picture.bottom, place.x > 0, place.right < picture.right)
    top, bottom, left, right = (int(inside) for inside in sides)
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[
        top : top + place.height, left : left + place.width
    ]
    return np.clip(distance / (soft + 1), 0, 1).astype(np.float32)


def regions_under(mask: Mask) -> list[Region]:
    """One region for each connected part of a mask (H, W); together they cover exactly its True pixels."""
    contours, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [tuple((int(x), int(y)) for x, y in contour.reshape(-1, 2)) for contour in contours]
    if not contours:
        return []
    parents = hierarchy.reshape(-1, 4)[:, 3].tolist()  # a hole's is the contour around it
    regions: list[Region] = []
    for index, (polygon, parent) in enumerate(zip(polygons, parents, strict=True)):
        if parent < 0:
            columns, rows = zip(*polygon, strict=True)
            box = Box.between(min(columns), min(rows), max(columns) + 1, max(rows) + 1)
            holes = (hole for hole, around in zip(polygons, parents, strict=True) if around == index)
            regions.append(Region(box, len(regions), outline=(polygon, *holes)))
    return regions


def bounding_box(mask: Mask) -> Box:
    """Of the True pixels; there must be one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return Box.between(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def union(regions: Sequence[Region], height: int, width: int) -> Mask:
    """(height, width): True where any of the regions is."""
    mask: Mask = np.zeros((height, width), bool)
    for region in regions:
        inside = clip(region, width, height)
        if inside is not None:
            mask[inside.box.slices] |= inside.mask()
    return mask


def grown(mask: Mask, px: int) -> Mask:
    """A mask and all pixels that are at most `px` from it."""
    if not px or not mask.any():
        return mask
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= px)


def clustered(mask: Mask, restorer: Restorer, soft: int = 0) -> list[Region]:
    """The connected parts of a mask; those whose surroundings overlap so much that one crop costs less, as one."""
    parts = regions_under(mask)
    margins = np.array([restorer.margin(part) for part in parts]).reshape(-1, 2)
    corners = np.array([(p.box.x, p.box.y, p.box.right, p.box.bottom) for p in parts]).reshape(-1, 4)
    members = [[number] for number in range(len(parts))]
    size = np.array([mask.shape[1], mask.shape[0]])
    waiting = list(range(len(parts)))
    done: list[int] = []
    while waiting:
        one = waiting.pop()
        others = np.array(done, int)
        joined = np.hstack(
            (np.minimum(corners[one, :2], corners[others, :2]), np.maximum(corners[one, 2:], corners[others, 2:]))
        )
        crops = areas(corners[others], margins[others], size)
        both = areas(joined, np.maximum(margins[one], margins[others]), size)
        alone = areas(corners[[one]], margins[[one]], size)
        good = np.flatnonzero((both <= alone + crops) & (both <= LARGEST_CROP))
        if not good.size:
            done.append(one)
            continue
        other = done.pop(int(good[0]))
        corners[one] = joined[good[0]]
        margins[one] = np.maximum(margins[one], margins[other])
        members[one] += members[other]
        waiting.append(one)
    return [
        Region(Box.between(*map(int, corners[one])), number, outline=outlines(parts, members[one]), soft=soft)
        for number, one in enumerate(sorted(done))
    ]


def outlines(parts: Sequence[Region], members: Sequence[int]) -> tuple[tuple[Point, ...], ...]:
    return tuple(polygon for member in members for polygon in parts[member].outline)


def areas(corners: IntArray, margins: IntArray, size: IntArray) -> IntArray:
    """Of (N, 4) boxes x0, y0, x1, y1, grown by (N, 2) margins as far as the picture goes: (N,) px."""
    low = np.maximum(corners[:, :2] - margins, 0)
    high = np.minimum(corners[:, 2:] + margins, size)
    found: IntArray = np.prod(high - low, axis=1)
    return found


def measured(regions: Sequence[Region], frame: Frame, finder: Finder) -> list[Region]:
    """The same regions with what the finder measures inside of them. Raises InputError where it cannot."""
    out = []
    for region in regions:
        mask: Mask = np.zeros((frame.height, frame.width), bool)
        mask[region.box.slices] = region.mask()
        grid = finder.measure(frame, mask)
        if grid is None:
            box = region.box
            raise InputError(
                f"no mosaic's grid could be measured in {box.x},{box.y},{box.width},{box.height}; give it with --block"
            )
        out.append(replace(region, block=grid.block, phase=grid.phase, confidence=grid.confidence))
    return out
