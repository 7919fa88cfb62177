"""Faces of single frames linked into trails: one face, without doubt the same one, over frames on end.

Linked by place and movement alone, as in ByteTrack (Zhang et al. 2022): sure sightings first, then doubtful ones for
faces that are already followed. Where two faces come over each other, and at cuts, trails end and others begin: who is
who is then told by recognition, or stays unknown. Who looks out from behind somebody for a few frames is never seen for
sure: there, doubtful sightings on end are a trail as well, if a face was last seen there, or is seen there next.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from restore_plugin.masks.names import Name
from restore_plugin.masks.quads import Quad, common_share, middle, quad_of, shifted, size
from restore_plugin.types import BETWEEN, BEYOND, FOUND, Region, Sightings

Place: TypeAlias = tuple[Quad, float]  # a box, and the finder's score there (0: not seen)


@dataclass(frozen=True)
class TrailOptions:
    sure: float = 0.35  # score that begins a trail
    surest: float = 0.5  # score of its best sighting that makes a trail
    shortest: int = 2  # sightings that make a trail, unless one is `alone`
    alone: float = 0.6
    gap: int = 30  # frames from one sighting to the next, at most
    reach: float = 0.6  # of a face's size: how far off its expected place it may be seen again
    per_frame: float = 0.12  # that much farther for every frame without a sighting
    furthest: float = 2.0  # and no farther
    size_ratio: float = 1.7  # sizes that may be the same face's
    crossing: float = 0.15  # intersection over the smaller box from which on two faces may be mistaken
    faint: float = 0.1  # score that counts beside a face: somebody may come out from behind it, or go there
    faint_best: float = 0.175  # score of its best sighting that makes a faint trail, half of `sure`
    faint_shortest: int = 3  # sightings that make one which did not begin with a sure sighting
    faint_gap: int = 2  # frames from one of these to the next without any, at most


@dataclass
class Trail:
    """One face: its boxes (x0, y0, x1, y1 in px), frames growing. `mixed`: it may be two people's. `faint`: it is taken
    for a face only because of the trail before or after it."""

    frames: list[int] = field(default_factory=list)
    quads: list[Quad] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    mixed: bool = False
    faint: bool = False
    name: Name = field(default_factory=Name)
    doubts: dict[int, str] = field(default_factory=dict)  # by frame: why a person should look at it

    def add(self, frame: int, quad: Quad, score: float, origin: str = FOUND) -> None:
        self.frames.append(frame)
        self.quads.append(quad)
        self.scores.append(score)
        self.origins.append(origin)

    def drop_last(self) -> None:
        for values in (self.frames, self.quads, self.scores, self.origins):
            values.pop()

    def expected(self, frame: int) -> Quad:
        """Where it would be with the movement of its last sightings, which slows down."""
        last = self.quads[-1]
        if len(self.frames) < 2:
            return last
        before = max(0, len(self.frames) - 4)
        steps = self.frames[-1] - self.frames[before]
        velocity = (middle(last) - middle(self.quads[before])) / steps
        ahead = min(frame - self.frames[-1], 8)
        return shifted(last, velocity * ahead * 0.9**ahead)


def likeness(quad: Quad, expected: Quad, unseen: int, options: TrailOptions) -> float:
    """How well a box goes on with a trail that was not seen for some frames: 1 at its expected place, 0 at the edge of
    its reach or beyond."""
    ratio = size(quad) / size(expected)
    if not 1 / options.size_ratio < ratio < options.size_ratio:
        return 0.0
    reach = min(options.reach + options.per_frame * unseen, options.furthest)
    away = float(np.hypot(*(middle(quad) - middle(expected)))) / max(size(quad), size(expected))
    return max(0.0, 1 - away / reach)


def link_faces(sightings: Sightings, cuts: Collection[int], options: TrailOptions = TrailOptions()) -> list[Trail]:
    """Trails in order of appearance; only frames with a sighting are in them."""
    shots, shot = sorted(cuts), 0
    active: list[Trail] = []
    done: list[Trail] = []
    doubtful: list[tuple[int, list[Region]]] = []  # sightings that went to no trail, though there is a face beside them
    for frame, regions in sightings:
        if (now := bisect.bisect_right(shots, frame)) != shot:
            done += active
            active, shot = [], now
        done += [trail for trail in active if frame - trail.frames[-1] > options.gap]
        active = [trail for trail in active if frame - trail.frames[-1] <= options.gap]
        left = assign(active, frame, [each for each in regions if each.confidence >= options.sure], options)
        waiting = [trail for trail in active if trail.frames[-1] != frame]
        rest = assign(waiting, frame, [each for each in regions if each.confidence < options.sure], options)
        if beside := [each for each in rest if each.confidence >= options.faint and is_near(each, active, options)]:
            doubtful.append((frame, beside))
        for region in left:
            trail = Trail()
            trail.add(frame, quad_of(region.box), region.confidence)
            active.append(trail)
        active, ended = parted(active, frame, options)
        done += ended
    ended = done + active
    faces = [trail for trail in ended if is_face(trail, options)]
    faint = [trail for trail in ended if not is_face(trail, options)]
    for _, of_a_shot in itertools.groupby(doubtful, lambda entry: bisect.bisect_right(shots, entry[0])):
        faint += faint_trails(of_a_shot, options)
    faces += [replace(trail, mixed=True, faint=True) for trail in faint if belongs(trail, faces, shots, options)]
    return sorted(faces, key=lambda trail: trail.frames[0])


def is_face(trail: Trail, options: TrailOptions) -> bool:
    """Whether its sightings are enough by themselves."""
    return max(trail.scores) >= (options.surest if len(trail.frames) >= options.shortest else options.alone)


def is_near(region: Region, trails: Sequence[Trail], options: TrailOptions) -> bool:
    """Whether it is as large as a face that was seen lately, and so near that it may be this one or behind it."""
    quad = quad_of(region.box)
    return any(likeness(quad, trail.quads[-1], options.gap, options) > 0 for trail in trails)


def faint_trails(doubtful: Sightings, options: TrailOptions) -> list[Trail]:
    """Doubtful sightings of one shot, linked to each other."""
    active: list[Trail] = []
    done: list[Trail] = []
    for frame, regions in doubtful:
        done += [trail for trail in active if frame - trail.frames[-1] > options.faint_gap + 1]
        active = [trail for trail in active if frame - trail.frames[-1] <= options.faint_gap + 1]
        for region in assign(active, frame, regions, options):
            trail = Trail()
            trail.add(frame, quad_of(region.box), region.confidence)
            active.append(trail)
    return [trail for trail in done + active if len(trail.frames) >= options.faint_shortest]


def belongs(faint: Trail, faces: Sequence[Trail], shots: Sequence[int], options: TrailOptions) -> bool:
    """Whether a short faint trail begins where a face would be that was seen before, or ends where one is seen next. It
    is short: what is doubtful for long is likely no face."""

    def follows(one: Trail, other: Trail) -> bool:
        last, first = one.frames[-1], other.frames[0]
        in_time = last <= first <= last + options.gap
        if not in_time or bisect.bisect_right(shots, last) != bisect.bisect_right(shots, first):
            return False
        return likeness(other.quads[0], one.expected(first), max(0, first - last - 1), options) > 0

    return (
        max(faint.scores) >= options.faint_best
        and faint.frames[-1] - faint.frames[0] <= options.gap
        and any(follows(face, faint) or follows(faint, face) for face in faces)
    )


def assign(trails: Sequence[Trail], frame: int, regions: Sequence[Region], options: TrailOptions) -> list[Region]:
    """Give each trail its likeliest region, best pairs first; returns the regions that are left."""
    quads = [quad_of(region.box) for region in regions]
    expected = [(trail.expected(frame), frame - trail.frames[-1] - 1) for trail in trails]
    pairs = sorted(
        (
            (likeness(quad, place, unseen, options), t, r)
            for t, (place, unseen) in enumerate(expected)
            for r, quad in enumerate(quads)
        ),
        reverse=True,
    )
    taken_trails: set[int] = set()
    taken: set[int] = set()
    for score, t, r in pairs:
        if score <= 0:
            break
        if t not in taken_trails and r not in taken:
            trails[t].add(frame, quads[r], regions[r].confidence)
            taken_trails.add(t)
            taken.add(r)
    return [region for r, region in enumerate(regions) if r not in taken]


def parted(active: Sequence[Trail], frame: int, options: TrailOptions) -> tuple[list[Trail], list[Trail]]:
    """The trails to go on with and those that end here: where faces begin or cease to lie over each other."""
    mixed = set()
    places = [(id(trail), trail.expected(frame)) for trail in active]
    for (one, place), (other, place_of_other) in itertools.combinations(places, 2):
        if common_share(place, place_of_other) > options.crossing:
            mixed |= {one, other}
    going, ended = [], []
    for trail in active:
        if (id(trail) in mixed) == trail.mixed or trail.frames[-1] != frame:
            going.append(trail)
        elif len(trail.frames) == 1:  # it just began
            trail.mixed = id(trail) in mixed
            going.append(trail)
        else:  # its last sighting begins the next trail
            following = Trail(mixed=id(trail) in mixed)
            following.add(frame, trail.quads[-1], trail.scores[-1])
            if following.mixed:  # and may be the other's already
                trail.drop_last()
            ended.append(trail)
            going.append(following)
    return going, ended


def filled(
    trail: Trail,
    between: Mapping[int, Sequence[Place]],
    before: Sequence[tuple[int, Quad, float]],
    after: Sequence[tuple[int, Quad, float]],
) -> Trail:
    """The trail with every frame from its first to its last: seen, between, and beyond its ends. `between`: by frame,
    one place or two. Frames on end that have two are in the trail twice: first all of one way, then the other."""
    whole = Trail(mixed=trail.mixed, faint=trail.faint, doubts=trail.doubts)
    for frame, quad, score in sorted(before, key=lambda entry: entry[0]):
        whole.add(frame, quad, score, BEYOND)
    for at, frame in enumerate(trail.frames):
        whole.add(frame, trail.quads[at], trail.scores[at])
        following = trail.frames[at + 1] if at + 1 < len(trail.frames) else frame + 1
        gap: list[tuple[int, Sequence[Place]]] = []
        for missing in range(frame + 1, following):
            share = (missing - frame) / (following - frame)
            even = trail.quads[at] * (1 - share) + trail.quads[at + 1] * share
            gap.append((missing, between.get(missing, [(even, 0.0)])))
        for count, frames_on_end in itertools.groupby(gap, key=lambda entry: len(entry[1])):
            part = list(frames_on_end)
            for way in range(count):
                for missing, places in part:
                    whole.add(missing, *places[way], BETWEEN)
    for frame, quad, score in after:
        whole.add(frame, quad, score, BEYOND)
    return whole
