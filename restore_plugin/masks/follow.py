"""Faces followed through a video: where the finder saw nothing, the picture itself is asked.

In gaps between two sightings, and before the first and after the last one, a face is followed from frame to frame by
optical flow (median flow, Kalal et al. 2010), looked for again with the finder in an enlarged crop of the expected
place, and compared with how it looked when it was last seen. A face is covered as long as any of these tells that it is
there, and a little longer. A few frames are kept in memory, reduced, so that following also goes back in time.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np

from restore_plugin.account import BEGAN_INSIDE, ENDED_INSIDE, LONG_UNSEEN, LOW_CONFIDENCE
from restore_plugin.masks.covers import cover, steadied_ways
from restore_plugin.masks.motion import Kept, alike, appearance, flow, keep
from restore_plugin.masks.names import name_people
from restore_plugin.masks.people import Describer, Descriptor, Descriptors
from restore_plugin.masks.quads import Quad, common_share, covered_share, middle, resized, shifted, size
from restore_plugin.masks.shots import cuts
from restore_plugin.masks.trails import Place, Trail, TrailOptions, filled, link_faces
from restore_plugin.pipeline import ahead
from restore_plugin.types import FOUND, Box, Frame, Region, ScanOptions, Video

if TYPE_CHECKING:
    from restore_plugin.masks.faces import FaceFinder

SURE = 0.8  # score from which on a box covers its face: so it was with all 1796 such boxes in benchmarks/face_clips.py
APART = 0.2  # of the smaller of two boxes may be common to two people side by side
READ_AHEAD = 4  # frames
AT_ONCE, MOST_PENDING = 2, 8  # faces that are followed side by side, and that wait for it
RESIZED = 1.4  # a face that is not seen for sure does not grow or shrink by more: what flows may not be the face
Step = tuple[int, Quad, float]  # frame, box, score of the finder (0: not seen)
Result = TypeVar("Result")
Taken = Callable[[int, Quad], bool]  # frame, box


@dataclass(frozen=True)
class FollowOptions:
    longest: int = 960  # px, the longer side of the frames that are kept
    memory_seconds: float = 2.0  # how far back, and forth, faces are followed
    memory_frames: int = 60  # at most
    short: int = 3  # frames: in shorter gaps a face moves evenly
    long: int = 8  # frames: a longer gap without any sighting is worth a look
    crop: float = 2.4  # of a face's size: the surroundings in which the finder looks again
    crop_px: int = 160  # their size in what the finder sees
    doubtful: float = 0.1  # score that counts there
    low: float = 0.6  # best score of a face that may be none
    alike: float = 0.45  # correlation with how it looked
    taken: float = 0.8  # of a box is covered by another face's sighting: that one is it
    arrived: float = 0.5  # of the smaller of two boxes is common to them: they are one
    agree: float = 0.6  # of the smaller of two boxes is common to them: their mean is covered, otherwise both
    unsure: float = 0.15  # covers grow by so much where nothing was seen, by half of it where little was
    hold_seconds: float = 0.24  # it stays covered after the last evidence
    recognised_px: float = 28.0  # smaller faces, less sure and paler ones are nobody's for sure
    recognised: float = 0.55
    contrast: float = 14.0  # standard deviation in levels of 255
    descriptions: int = 5  # pictures of a trail by which a person is recognised


class Follower:
    """`link` of the face finder. `describer` opens what recognises faces, once. `known`: descriptors of portraits by
    name."""

    def __init__(
        self,
        finder: FaceFinder,
        describer: Callable[[], Describer],
        known: Mapping[str, Descriptor],
        scan: ScanOptions,
        options: FollowOptions = FollowOptions(),
    ) -> None:
        self.finder, self.describer, self.known, self.scan, self.options = finder, describer, known, scan, options

    def link(self, video: Video) -> Iterator[tuple[int, list[Region]]]:
        with ThreadPoolExecutor(AT_ONCE, "following") as pool:
            opening = pool.submit(self.describer)  # looking for cuts leaves a core idle
            new_shots = cuts(video.frames())
            gap = round(min(self.options.memory_seconds * video.rate, self.options.memory_frames) / 2)
            trails = link_faces(video.candidates(), new_shots, TrailOptions(gap=max(4, gap)))
            if not trails:
                return
            opening.result()
            whole, described, size_px = self.follow(video, trails, set(new_shots), pool)
        for trail, name in zip(whole, name_people(described, together(whole), self.known), strict=True):
            trail.name = name
        yield from self.covers(whole, size_px)

    def covers(self, trails: Sequence[Trail], size_px: tuple[int, int]) -> Iterator[tuple[int, list[Region]]]:
        """Every frame's regions, numbered by trail; two of one trail where it may be at two places."""
        steady = [steadied_ways(trail.frames, np.stack(trail.quads)) for trail in trails]
        places: dict[int, list[tuple[int, int]]] = {}
        for number, trail in enumerate(trails):
            for at, frame in enumerate(trail.frames):
                places.setdefault(frame, []).append((number, at))
        for frame in sorted(places):
            regions: list[Region] = []
            for number, at in places[frame]:
                trail, (quads, motion) = trails[number], steady[number]
                twice = bool(regions) and regions[-1].id == number + 1
                unsure = self.options.unsure * max(0.0, 1 - trail.scores[at] / SURE)
                regions.append(
                    replace(
                        cover(resized(quads[at], 1 + unsure), *size_px, self.scan, motion[at]),
                        id=number + 1,
                        confidence=trail.scores[at],
                        label=trail.name.label,
                        maybe=trail.name.maybe,
                        origin=trail.origins[at],
                        doubt="" if twice else trail.doubts.get(frame, ""),
                    )
                )
            yield frame, regions

    def follow(
        self, video: Video, trails: Sequence[Trail], new_shots: set[int], pool: Executor
    ) -> tuple[list[Trail], list[Descriptors], tuple[int, int]]:
        """Whole trails, the descriptors of each (n, 128), and the picture's (width, height)."""
        reach = max(4, round(min(self.options.memory_seconds * video.rate, self.options.memory_frames)))
        hold = max(3, round(self.options.hold_seconds * video.rate))
        memory: deque[Kept] = deque(maxlen=reach + 1)
        wanted = self.best_sightings(trails)
        descriptors: list[list[Future[Descriptor | None]]] = [[] for _ in trails]
        between: list[list[Future[dict[int, list[Place]]]]] = [[] for _ in trails]
        before: dict[int, tuple[Walker, int, Future[list[Step]]]] = {}  # with the first frame that was in memory
        after: list[list[Step]] = [[] for _ in trails]
        starts: dict[int, list[int]] = {}
        gaps: dict[int, list[tuple[int, int]]] = {}  # by the frame after the gap: trail, place of the sighting before
        ends: dict[int, list[int]] = {}
        for number, trail in enumerate(trails):
            starts.setdefault(trail.frames[0], []).append(number)
            ends.setdefault(trail.frames[-1], []).append(number)
            for at in range(1, len(trail.frames)):
                if trail.frames[at] - trail.frames[at - 1] > self.options.short + 1:
                    gaps.setdefault(trail.frames[at], []).append((number, at - 1))
        seen: dict[int, list[tuple[int, Quad]]] = {}
        for number, trail in enumerate(trails):
            for index, quad in zip(trail.frames, trail.quads, strict=True):
                if not trail.faint:  # it may be no face: no other one ends at it
                    seen.setdefault(index, []).append((number, quad))

        def elsewhere(number: int) -> Taken:
            """Whether another trail's sighting covers a box: then this one need not go on."""
            return lambda index, quad: any(
                other != number and covered_share(quad, place) > self.options.taken
                for other, place in seen.get(index, ())
            )

        pending: deque[Future[Any]] = deque()

        def later(work: Callable[..., Result], *given: Any) -> Future[Result]:
            """Side by side with what comes after; not many at once, as each holds frames."""
            while len(pending) >= MOST_PENDING:
                pending.popleft().result()
            future = pool.submit(work, *given)
            pending.append(future)
            return future

        walking: dict[int, Walker] = {}
        size_px = (0, 0)
        for frame, kept in ahead(((frame, keep(frame, self.options.longest)) for frame in video.frames()), READ_AHEAD):
            size_px = (frame.width, frame.height)
            if frame.index in new_shots:
                memory.clear()
                walking.clear()
            memory.append(kept)
            for number in [n for n in walking if trails[n].faint and frame.index - trails[n].frames[-1] > hold]:
                del walking[number]
            stepping = {number: pool.submit(walker.step, kept) for number, walker in walking.items()}
            back = list(memory)[::-1]
            for number in starts.get(frame.index, ()):
                trail = trails[number]
                moves = -velocity(trail, first=True)
                walker = Walker(self, trail.quads[0], moves, kept, hold, reach, elsewhere(number))
                walked = later(walker.walk, back[1 : hold + 1] if trail.faint else back[1:])
                before[number] = walker, back[-1].index, walked
            for number, at in gaps.get(frame.index, ()):
                between[number].append(later(self.bridge, trails[number], at, back[::-1]))
            for number, at in wanted.get(frame.index, ()):
                trail = trails[number]
                descriptors[number].append(later(self.describe, frame, trail.quads[at], trail.scores[at]))
            for number, stepped in stepping.items():
                walker = walking[number]
                if stepped.result():
                    after[number].append(walker.last)
                else:
                    del walking[number]
                    if walker.lost:
                        trails[number].doubts[walker.last[0]] = ENDED_INSIDE
            for number in ends.get(frame.index, ()):
                trail = trails[number]
                walking[number] = Walker(self, trail.quads[-1], velocity(trail), kept, hold, reach, elsewhere(number))
        whole, described = [], []
        for number, trail in enumerate(trails):
            first: list[Step] = []
            if number in before:
                walker, oldest, walked = before[number]
                first = walked.result()
                forgotten = walker.last[0] == oldest and oldest > 0 and oldest not in new_shots
                if walker.lost or forgotten:
                    trail.doubts.setdefault(walker.last[0], BEGAN_INSIDE)
            inside: dict[int, list[Place]] = {}
            for bridged in between[number]:
                inside.update(bridged.result())
            best = max(range(len(trail.scores)), key=trail.scores.__getitem__)
            if trail.scores[best] < self.options.low:
                trail.doubts.setdefault(trail.frames[best], LOW_CONFIDENCE)
            whole.append(filled(trail, inside, first, after[number]))
            known = [found for each in descriptors[number] if (found := each.result()) is not None]
            described.append(np.stack(known) if known and not trail.mixed else np.zeros((0, 128), np.float32))
        return whole, described, size_px

    def bridge(self, trail: Trail, at: int, frames: Sequence[Kept]) -> dict[int, list[Place]]:
        """The frames between two sightings, walked from both sides; where these disagree, both places are covered."""
        start, end = trail.quads[at], trail.quads[at + 1]
        count = trail.frames[at + 1] - trail.frames[at]
        moves = (middle(end) - middle(start)) / count
        inside = [each for each in frames if trail.frames[at] <= each.index <= trail.frames[at + 1]]
        onward = {step[0]: step for step in Walker(self, start, moves, inside[0], count, count).walk(inside[1:])}
        backward = {step[0]: step for step in Walker(self, end, -moves, inside[-1], count, count).walk(inside[-2::-1])}
        out: dict[int, list[Place]] = {}
        if count > self.options.long and not any(step[2] for step in (*onward.values(), *backward.values())):
            trail.doubts[trail.frames[at] + count // 2] = LONG_UNSEEN
            last = onward.get(trail.frames[at + 1] - 1)
            arrived = last is not None and common_share(last[1], end) > self.options.arrived
            trail.mixed |= not arrived  # who comes back may be somebody else
        for index in range(trail.frames[at] + 1, trail.frames[at + 1]):
            share = (index - trail.frames[at]) / count
            even = start * (1 - share) + end * share
            a = onward.get(index, (index, even, 0.0))
            b = backward.get(index, (index, even, 0.0))
            if common_share(a[1], b[1]) >= self.options.agree:
                mean = a[1] * (1 - share) + b[1] * share
                out[index] = [(mean.astype(np.float32), max(a[2], b[2]))]
            else:  # not all between the two, and no cover that jumps from one to the other
                out[index] = [a[1:], b[1:]]
        return out

    def best_sightings(self, trails: Sequence[Trail]) -> dict[int, list[tuple[int, int]]]:
        """By frame: trail and sighting that show a face best, a few of each trail, apart in time."""
        wanted: dict[int, list[tuple[int, int]]] = {}
        for number, trail in enumerate(trails):
            if trail.mixed:
                continue
            worth = [score * min(size(quad), 150) for score, quad in zip(trail.scores, trail.quads, strict=True)]
            apart = max(1, (trail.frames[-1] - trail.frames[0]) // (2 * self.options.descriptions))
            chosen: list[int] = []
            for at in sorted(range(len(worth)), key=lambda place: -worth[place]):
                if all(abs(trail.frames[at] - trail.frames[other]) >= apart for other in chosen):
                    chosen.append(at)
                    wanted.setdefault(trail.frames[at], []).append((number, at))
                if len(chosen) == self.options.descriptions:
                    break
        return wanted

    def describe(self, frame: Frame, quad: Quad, score: float) -> Descriptor | None:
        """Who it is, as a descriptor; None for a face that does not show it."""
        if size(quad) < self.options.recognised_px or score < self.options.recognised:
            return None
        side = size(quad)
        box = Box.between(*(round(float(value)) for value in quad))
        around = box.grow(round(side), round(side), within=Box(0, 0, frame.width, frame.height))
        rgb = np.ascontiguousarray(np.rot90(np.round(frame.read_rgb(around) * 255).astype(np.uint8), frame.turns))
        inside = box.shift(-around.x, -around.y)
        for _ in range(frame.turns):
            inside, around = Box(inside.y, around.width - inside.right, inside.height, inside.width), turned(around)
        if cv2.cvtColor(rgb[inside.slices], cv2.COLOR_RGB2GRAY).std() < self.options.contrast:
            return None
        return self.describer().describe(rgb, inside)

    def seen_again(self, kept: Kept, quad: Quad, taken: Taken) -> tuple[Quad, float] | None:
        """The face that the finder sees in an enlarged crop of the expected place, in the frame's px, and its score;
        no other trail's."""
        middle_px, side = middle(quad) * kept.scale, size(quad) * kept.scale * self.options.crop
        height, width = kept.grey.shape
        x0, y0 = (int(value) for value in np.floor(middle_px - side / 2))
        around = Box(x0, y0, max(8, round(side)), max(8, round(side))).intersect(Box(0, 0, width, height))
        if around.width < 8 or around.height < 8:
            return None
        enlarge = self.options.crop_px / max(around.width, around.height)
        crop = cv2.resize(kept.rgb[around.slices], None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_LINEAR)
        best = None
        for row in self.finder.search(crop, self.options.doubtful, kept.turns):
            found = (row[:4] / enlarge + np.array([around.x, around.y] * 2, np.float32)) / kept.scale
            ratio = size(found) / size(quad)
            near = common_share(found, quad) > 0.3 and 0.6 < ratio < 1.6
            if near and (best is None or row[4] > best[1]) and not taken(kept.index, found):
                best = (found.astype(np.float32), float(row[4]))
        return best


class Walker:
    """Follows one face from frame to frame. `last`: the frame it came to, the box there, the finder's score. `lost`: it
    ended where the face should still be."""

    def __init__(
        self,
        follower: Follower,
        quad: Quad,
        moves: Quad,
        start: Kept,
        hold: int,
        reach: int,
        taken: Taken = lambda index, quad: False,
    ) -> None:
        self.follower, self.hold, self.reach, self.taken = follower, hold, reach, taken
        self.kept, self.quad, self.moves = start, quad, moves
        self.last: Step = (start.index, quad, 0.0)
        self.look, self.seen = appearance(start, quad), size(quad)
        self.missed = self.steps = 0
        self.lost = False

    def walk(self, frames: Sequence[Kept]) -> list[Step]:
        """To where the evidence ends, or to the last of the frames."""
        steps: list[Step] = []
        for kept in frames:
            if not self.step(kept):
                break
            steps.append(self.last)
        return steps

    def step(self, kept: Kept) -> bool:
        """Go on to a frame; False where the face's evidence has ended, or it has left the picture."""
        options = self.follower.options
        flowed, trusted = flow(self.kept, kept, self.quad)
        guess = flowed if trusted else shifted(self.quad, self.moves * 0.8**self.missed)
        guess = resized(guess, float(np.clip(size(guess) / self.seen, 1 / RESIZED, RESIZED)) * self.seen / size(guess))
        again = self.follower.seen_again(kept, guess, self.taken)
        self.steps += 1
        if again is not None:
            quad, score = again
            self.look, self.missed, self.steps = appearance(kept, quad), 0, 0
            if score >= TrailOptions.sure:  # doubtful ones, one after the other, would let it grow without end
                self.seen = size(quad)
        else:
            quad, score = guess, 0.0
            there = trusted and alike(self.look, appearance(kept, quad)) > options.alike
            self.missed = 0 if there else self.missed + 1
        height, width = kept.grey.shape
        x, y = middle(quad) * kept.scale
        inside = -0.02 * width < x < 1.02 * width and -0.02 * height < y < 1.02 * height
        if not inside or self.taken(kept.index, quad):
            return False
        if self.missed > self.hold or self.steps > self.reach:
            left, top, right, bottom = quad * kept.scale
            self.lost = left > 0 and top > 0 and right < width and bottom < height
            return False
        self.moves = 0.5 * self.moves + 0.5 * (middle(quad) - middle(self.quad))
        self.kept, self.quad, self.last = kept, quad, (kept.index, quad, score)
        return True


def turned(box: Box) -> Box:
    """A quarter turn of a box's size."""
    return Box(0, 0, box.height, box.width)


def velocity(trail: Trail, first: bool = False) -> Quad:
    """px a frame, at the trail's last sightings or its first ones."""
    part = slice(0, 4) if first else slice(-4, None)
    frames, quads = trail.frames[part], trail.quads[part]
    if len(frames) < 2:
        return np.zeros(2, np.float32)
    return np.asarray((middle(quads[-1]) - middle(quads[0])) / (frames[-1] - frames[0]), np.float32)


def together(trails: Sequence[Trail]) -> set[tuple[int, int]]:
    """Pairs of trails that are two people for sure: seen in two frames or more at two places."""
    seen = [
        {at: quad for at, quad, origin in zip(trail.frames, trail.quads, trail.origins, strict=True) if origin == FOUND}
        for trail in trails
    ]
    pairs = set()
    for a, b in itertools.combinations(range(len(trails)), 2):
        common = (at for at in seen[a] if at in seen[b] and common_share(seen[a][at], seen[b][at]) < APART)
        if len(list(itertools.islice(common, 2))) == 2:  # found at once where there are such frames
            pairs.add((a, b))
    return pairs
