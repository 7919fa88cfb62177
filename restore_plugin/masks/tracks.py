"""Sightings of single frames, linked over time: gaps bridged, flashes dropped, one grid for a track.

Works on a stream of frames twice: once to link, with a few numbers a detection in memory, once to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from restore_plugin.types import Box, Region, Sightings, Video


@dataclass(frozen=True)
class LinkOptions:
    gap: int = 12  # frames without a sighting that are bridged
    shortest: int = 3  # sightings that make a track, in a video that is long enough
    surest: float = 0.56  # mean confidence that makes a track
    surest_steady: float = 0.42  # the same for one that shows the same blocks all the time
    surest_codec: float = 0.65  # the same where blocks are as a video codec's along one side, and not along the other
    agreeing: float = 0.5  # share of its sightings whose blocks are as large as before: what is no mosaic varies
    steadily: float = 0.7  # the same for one that shows the same blocks all the time
    steadily_shortest: int = 6  # such sightings that it has at least
    seen: float = 0.4  # share of the frames from its first to its last that show it
    block_ratio: float = 1.3  # sizes that may be the same mosaic's
    overlap: float = 0.1  # share of the smaller box that must be common
    steady: float = 0.04  # blocks of a track that differ by less are one size
    codec_px: int = 8  # codecs' blocks are multiples of this
    codec_within: float = 0.015  # of a block: as large as a codec's


@dataclass
class Track:
    """The sightings of one mosaic. Kept small: a long video has many."""

    number: int
    frames: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # index among the frame's detections
    boxes: list[Box] = field(default_factory=list)
    grids: list[tuple[float, float, float, float]] = field(default_factory=list)  # block x, y, phase x, y
    confidence: float = 0.0

    def add(self, frame: int, place: int, region: Region) -> None:
        self.frames.append(frame)
        self.places.append(place)
        self.boxes.append(region.box)
        self.grids.append((*(region.block or (0.0, 0.0)), *region.phase))
        self.confidence += region.confidence


def likeness(track: Track, region: Region, options: LinkOptions) -> float:
    """How well a region follows a track's last box: intersection over union, or for parts of one another a little
    over zero; 0 if they are apart or the grids differ."""
    last, grid = track.boxes[-1], track.grids[-1]
    common = last.intersect(region.box).area
    overlap = common / (last.area + region.box.area - common)
    if region.block and grid[0]:
        ratios = [max(a / b, b / a) for a, b in zip(region.block, grid[:2], strict=True)]
        if max(ratios) > options.block_ratio:
            return 0.0
    return overlap if common >= options.overlap * min(last.area, region.box.area) else 0.0


def link(detections: Sightings, options: LinkOptions = LinkOptions()) -> list[Track]:
    """Tracks that are long and sure enough, numbered from 1 in order of appearance."""
    open_tracks: list[Track] = []
    done: list[Track] = []
    last_frame = 0
    for frame, regions in detections:
        last_frame = frame
        done += [track for track in open_tracks if frame - track.frames[-1] > options.gap]
        open_tracks = [track for track in open_tracks if frame - track.frames[-1] <= options.gap]
        pairs = [
            (likeness(track, region, options), t, r)
            for t, track in enumerate(open_tracks)
            for r, region in enumerate(regions)
        ]
        used_tracks: set[int] = set()
        used_regions: set[int] = set()
        for score, t, r in sorted(pairs, reverse=True):
            if score <= 0 or t in used_tracks or r in used_regions:
                continue
            open_tracks[t].add(frame, r, regions[r])
            used_tracks.add(t)
            used_regions.add(r)
        for r, region in enumerate(regions):
            if r not in used_regions:
                track = Track(0)
                track.add(frame, r, region)
                open_tracks.append(track)
    done += open_tracks
    shortest = min(options.shortest, last_frame + 1)
    kept = [
        track
        for track in done
        if len(track.frames) >= shortest
        and track.confidence / len(track.frames) >= surest(track, options)
        and len(track.frames) >= options.seen * (track.frames[-1] - track.frames[0] + 1)
        and agreeing(track, options) >= max(shortest, options.agreeing * len(track.frames))
    ]
    kept.sort(key=lambda track: (track.frames[0], track.places[0]))
    for number, track in enumerate(kept, start=1):
        track.number = number
    return kept


def agreeing(track: Track, options: LinkOptions) -> int:
    """How many sightings show blocks of the size of the sighting before; the first counts."""
    blocks = np.array(track.grids)[:, :2]
    change = np.abs(np.diff(blocks, axis=0))
    return 1 + int((change <= options.steady * blocks[1:]).all(axis=1).sum())


def surest(track: Track, options: LinkOptions) -> float:
    """The mean confidence that makes it a track: less where the blocks are always alike, as those of what is no mosaic
    are not; more where they may be the codec's own."""
    blocks = np.array(track.grids)[:, :2]
    nearest = np.round(blocks / options.codec_px) * options.codec_px
    as_codecs = np.abs(blocks - nearest) < options.codec_within * blocks
    unequal = blocks.max(axis=1) > (1 + options.steady) * blocks.min(axis=1)
    if (unequal & (as_codecs[:, 0] != as_codecs[:, 1])).mean() >= 0.5:
        return options.surest_codec
    same = agreeing(track, options)
    steadily = same >= max(options.steadily_shortest, options.steadily * len(track.frames))
    return options.surest_steady if steadily else options.surest


def steady_grid(track: Track, options: LinkOptions) -> Callable[[int], tuple[float, float, float, float]]:
    """The grid of a track's sighting: one block size if they agree, one phase if the grid stays in the picture."""
    if not track.grids[0][0]:
        return track.grids.__getitem__
    grids = np.array(track.grids)
    areas = np.array([box.area for box in track.boxes], float)
    fixed: list[tuple[float, float | None]] = []
    for axis in (0, 1):
        blocks, phases = grids[:, axis], grids[:, 2 + axis]
        order = np.argsort(blocks)
        block = float(blocks[order][np.searchsorted(np.cumsum(areas[order]), areas.sum() / 2)])
        if np.median(np.abs(blocks / block - 1)) > options.steady:
            fixed.append((0.0, None))
            continue
        turns = np.exp(2j * np.pi * phases / block)
        mean = (turns * areas).sum() / areas.sum()
        stays = abs(mean) > 0.9
        fixed.append((block, float(np.angle(mean) / (2 * np.pi) * block) if stays else None))

    def grid(sighting: int) -> tuple[float, float, float, float]:
        own = track.grids[sighting]
        blocks = [fixed[axis][0] or own[axis] for axis in (0, 1)]
        phases = []
        for axis in (0, 1):
            phase = fixed[axis][1]
            if phase is None:
                # keep the measured line that is nearest to the box's middle: the block may have moved a little
                box = track.boxes[sighting]
                middle = (box.x + box.width / 2, box.y + box.height / 2)[axis]
                if own[axis]:
                    phase = own[2 + axis] + round((middle - own[2 + axis]) / own[axis]) * own[axis]
                else:
                    phase = own[2 + axis]
            phases.append(phase)
        return blocks[0], blocks[1], phases[0], phases[1]

    return grid


def linked(
    detections: Sightings, tracks: Sequence[Track], options: LinkOptions = LinkOptions()
) -> Iterator[tuple[int, list[Region]]]:
    """The same frames again, with only the tracks' regions, their ids and grids, and their gaps filled.

    In a gap the last sighting's outline moves evenly to where the next sighting is.
    """
    grids = {track.number: steady_grid(track, options) for track in tracks}
    starts: dict[int, list[Track]] = {}
    for track in tracks:
        starts.setdefault(track.frames[0], []).append(track)
    position: dict[int, int] = {}
    shown: dict[int, Region] = {}
    active: list[Track] = []

    def step(frame: int, regions: Sequence[Region]) -> list[Region]:
        active.extend(starts.get(frame, ()))
        out = []
        for track in list(active):
            at = position.get(track.number, -1)
            if at + 1 < len(track.frames) and track.frames[at + 1] == frame:
                at += 1
                position[track.number] = at
                block_x, block_y, phase_x, phase_y = grids[track.number](at)
                region = replace(regions[track.places[at]], id=track.number, phase=(phase_x, phase_y))
                if region.block:
                    region = replace(region, block=(block_x, block_y))
                shown[track.number] = region
                out.append(region)
            elif at + 1 >= len(track.frames):
                active.remove(track)
                shown.pop(track.number, None)
            else:
                out.append(_between(shown[track.number], track, at, frame))
        return out

    expected = 0
    for frame, regions in detections:
        for missing in range(expected, frame):  # frames without a detection have no line
            filled = step(missing, ())
            if filled:
                yield missing, filled
        yield frame, step(frame, regions)
        expected = frame + 1


def link_mosaics(video: Video) -> Iterator[tuple[int, list[Region]]]:
    """A video's mosaics, steady over time (Finder.link)."""
    options = LinkOptions(gap=max(8, round(video.rate / 2)))
    return linked(video.candidates(), link(video.candidates(), options), options)


def _between(last: Region, track: Track, at: int, frame: int) -> Region:
    start, end = track.boxes[at], track.boxes[at + 1]
    share = (frame - track.frames[at]) / (track.frames[at + 1] - track.frames[at])
    x = round(share * ((end.x + end.right) - (start.x + start.right)) / 2)
    y = round(share * ((end.y + end.bottom) - (start.y + start.bottom)) / 2)
    moved = last.shift(x, y)
    grid, following = track.grids[at], track.grids[at + 1]
    # a grid that stays in the picture does not move with the outline
    stays = all(
        abs(((b - a) + g / 2) % g - g / 2) < 0.15 * g
        for a, b, g in zip(grid[2:], following[2:], grid[:2], strict=True)
        if g
    )
    return replace(moved, phase=last.phase if stays else moved.phase, confidence=min(last.confidence, 0.5))
