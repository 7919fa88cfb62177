"""Faces followed through pictures in which the finder sees them only when it is told to."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import cv2
import numpy as np
import pytest
from skimage import data

from restore_plugin.account import BEGAN_INSIDE, ENDED_INSIDE, LONG_UNSEEN, LOW_CONFIDENCE
from restore_plugin.masks.covers import cover
from restore_plugin.masks.follow import Follower, FollowOptions, together
from restore_plugin.masks.motion import alike, appearance, flow, keep
from restore_plugin.masks.people import OTHER
from restore_plugin.masks.quads import quad_of
from restore_plugin.masks.trails import Trail, TrailOptions
from restore_plugin.pipeline import ArrayFrame
from restore_plugin.types import BETWEEN, BEYOND, FOUND, Box, Region, ScanOptions, Video

WIDTH, HEIGHT = 360, 240  # px, of the videos
FACE = 48, 62  # px
RATE = 25.0
HOLD = round(FollowOptions().hold_seconds * RATE)  # frames
REACH = round(FollowOptions().memory_seconds * RATE)  # frames
NONE = np.zeros((0, 5), np.float32)
PLAIN = ScanOptions()

Way = Callable[[int], tuple[float, float] | None]  # a face's middle in a frame; None: it is not there
Covers = dict[int, list[Region]]


def free(frame: int, quad: Any) -> bool:
    """No other face is there."""
    return False


class Finder:
    """Looks again in crops: by default it sees nothing there."""

    def __init__(self, search: Callable[[np.ndarray], np.ndarray] = lambda rgb: NONE) -> None:
        self.look = search
        self.asked: list[tuple[np.ndarray, float, int]] = []

    def search(self, rgb: np.ndarray, threshold: float = 0.5, turns: int = 0) -> np.ndarray:
        self.asked.append((rgb, threshold, turns))
        return self.look(rgb)


class Describer:
    """Tells people apart by their faces' redness. `asked`: pictures and boxes."""

    def __init__(self) -> None:
        self.asked: list[tuple[np.ndarray, Box]] = []

    def describe(self, rgb: np.ndarray, box: Box) -> np.ndarray:
        self.asked.append((rgb, box))
        face = rgb[box.slices].reshape(-1, 3).mean(0)
        found = np.zeros(128, np.float32)
        found[0] = (face[0] - face[2]) / 25
        return found


def photograph(picture: np.ndarray, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


FACES = (
    photograph(data.astronaut()[62:180, 181:271], *FACE),
    photograph(data.astronaut()[62:180, 181:271][:, ::-1, ::-1], *FACE),  # another one, blue
)
PLACES = (photograph(data.coffee()), photograph(data.rocket()))


def truth(middle: tuple[float, float]) -> Box:
    return Box(round(middle[0]) - FACE[0] // 2, round(middle[1]) - FACE[1] // 2, *FACE)


@dataclass
class Film:
    """Faces on their ways over a photograph; another one from the frame `cut`. `wall`: hides what is behind it."""

    frames: int
    ways: Sequence[Way]
    cut: int | None = None
    wall: Box | None = None
    finder: Finder = field(default_factory=Finder)
    describer: Describer = field(default_factory=Describer)
    scan: ScanOptions = PLAIN
    pictures: list[np.ndarray] = field(default_factory=list)

    def boxes(self, who: int) -> dict[int, Box]:
        return {frame: truth(at) for frame in range(self.frames) if (at := self.ways[who](frame)) is not None}

    def picture(self, index: int) -> np.ndarray:
        place = PLACES[self.cut is not None and index >= self.cut]
        edge = 150
        large = np.pad(place, ((edge, edge), (edge, edge), (0, 0)))
        for way, face in zip(self.ways, FACES, strict=False):
            if (at := way(index)) is not None:
                large[truth(at).shift(edge, edge).slices] = face
        picture = large[edge:-edge, edge:-edge].copy()
        if self.wall is not None:
            picture[self.wall.slices] = place[self.wall.slices]
        noise = np.random.default_rng(index).normal(0, 2, picture.shape)
        return np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)

    def shown(self) -> Iterator[ArrayFrame]:
        self.pictures = self.pictures or [self.picture(index) for index in range(self.frames)]
        for index, picture in enumerate(self.pictures):
            yield ArrayFrame(picture, index)

    def follow(self, *seen: Collection[int], score: float = 0.9) -> Covers:
        """What is covered, where each face is seen in these frames."""
        places = [self.boxes(who) for who in range(len(seen))]
        sightings = [
            (
                index,
                [
                    Region(places[who][index].intersect(Box(0, 0, WIDTH, HEIGHT)), confidence=score)
                    for who, frames in enumerate(seen)
                    if index in frames and index in places[who]
                ],
            )
            for index in range(self.frames)
        ]
        follower = Follower(cast(Any, self.finder), lambda: cast(Any, self.describer), {}, self.scan)
        return dict(follower.link(Video(lambda: sightings, self.shown, RATE)))


def missed(box: Box, regions: Sequence[Region]) -> float:
    """Share of a face's ellipse, as far as it is in the picture, that no region covers."""
    face, covered = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    middle, half = (box.x + box.width / 2 - 0.5, box.y + box.height / 2 - 0.5), (box.width / 2, box.height / 2)
    cv2.ellipse(face, (middle, (2 * half[0], 2 * half[1]), 0), 1, -1)
    for region in regions:
        covered[region.box.slices] |= region.mask().astype(np.uint8)
    return float((face & ~covered & 1).sum() / max(1, face.sum()))


def doubts(covers: Covers) -> dict[int, str]:
    return {frame: each.doubt for frame, regions in covers.items() for each in regions if each.doubt}


def curve(frame: int) -> tuple[float, float]:
    """To the right, up and down."""
    return 60 + 3.5 * frame, 120 + 45 * np.sin(frame / 7)


def still(frame: int) -> tuple[float, float]:
    return 150, 110


def slowly(frame: int) -> tuple[float, float]:
    return 90 + 2.5 * frame, 115


WALL = Box(190, 0, 100, HEIGHT)

# --- gaps


def test_a_gap_is_bridged_along_a_curve() -> None:
    film = Film(60, [curve])
    gap = range(20, 40)
    found = film.follow([frame for frame in range(60) if frame not in gap])
    boxes = film.boxes(0)
    assert list(found) == list(range(60))
    assert [missed(boxes[frame], found[frame]) for frame in range(60)] == [0.0] * 60
    assert [found[frame][0].origin for frame in range(60)] == [
        BETWEEN if frame in gap else FOUND for frame in range(60)
    ]
    assert {region.id for regions in found.values() for region in regions} == {1}
    for frame in gap:  # not by covering everything
        region = found[frame][0]
        assert region.mask().sum() < 3 * FACE[0] * FACE[1]
        assert np.hypot(*(centre(region.box) - centre(boxes[frame]))) < 10


def test_even_movement_would_leave_that_gap_open() -> None:
    """What the test before is worth: on the straight line between the two sightings the face is not covered."""
    boxes = Film(60, [curve]).boxes(0)
    start, end = quad_of(boxes[19]), quad_of(boxes[40])
    steps = np.linspace(start, end, 22)[1:-1]
    open_ = [missed(boxes[20 + at], [cover(quad, WIDTH, HEIGHT, ScanOptions())]) for at, quad in enumerate(steps)]
    assert max(open_) > 0.3


def centre(box: Box) -> np.ndarray:
    return np.array([box.x + box.width / 2, box.y + box.height / 2])


@pytest.mark.parametrize("missing", [1, 3])
def test_short_gaps_are_even(missing: int) -> None:
    film = Film(20, [slowly])
    found = film.follow([frame for frame in range(20) if not 8 <= frame < 8 + missing])
    boxes = film.boxes(0)
    assert [missed(boxes[frame], found[frame]) for frame in range(20)] == [0.0] * 20
    assert {found[frame][0].origin for frame in range(8, 8 + missing)} == {BETWEEN}


def test_behind_a_post_and_out_again() -> None:
    """For some frames the face is not to be seen: its place is covered all the same, and the frame told."""
    film = Film(50, [lambda frame: (60 + 5 * frame, 120)], wall=Box(150, 0, 40, HEIGHT))
    boxes = film.boxes(0)
    seen = [frame for frame, box in boxes.items() if box.right <= 150 or box.x >= 190]
    found = film.follow(seen)
    assert [missed(boxes[frame], found[frame]) for frame in range(50)] == [0.0] * 50
    hidden = [frame for frame in range(seen[0], seen[-1]) if frame not in seen]
    assert {found[frame][0].origin for frame in hidden} == {BETWEEN}
    assert {why for frame, why in doubts(found).items() if frame in hidden} == {LONG_UNSEEN}


def test_two_covers_where_both_ways_disagree() -> None:
    """It vanishes here and is back there: either place is covered, what lies between them is not; told once."""
    here, there = (120, 110), (226, 110)
    gone = range(20, 33)
    film = Film(53, [lambda frame: here if frame < 20 else there if frame >= 33 else None])
    found = film.follow([frame for frame in range(53) if frame not in gone])
    for frame in gone:
        assert [(region.id, region.origin) for region in found[frame]] == [(1, BETWEEN)] * 2
        assert missed(truth(here), found[frame]) == missed(truth(there), found[frame]) == 0
        assert missed(truth((173, 110)), found[frame]) > 0.1
    assert max(region.box.width for regions in found.values() for region in regions) < 100
    assert {len(regions) for frame, regions in found.items() if frame not in gone} == {1}
    told = [region.doubt for frame in gone for region in found[frame] if region.doubt]
    assert told == [LONG_UNSEEN]


# --- beyond the first and the last sighting


def test_followed_before_and_after() -> None:
    film = Film(60, [curve])
    found = film.follow(range(25, 32))
    boxes = film.boxes(0)
    assert list(found) == list(range(60))
    assert [missed(boxes[frame], found[frame]) for frame in range(60)] == [0.0] * 60
    assert [found[frame][0].origin for frame in range(60)] == [BEYOND] * 25 + [FOUND] * 7 + [BEYOND] * 28
    assert doubts(found) == {}  # the video begins and ends with it


def test_it_ends_soon_after_the_face_is_gone() -> None:
    """It steps behind a wall: covered until then, and a little longer; the last frame is worth a look."""
    film = Film(70, [slowly], wall=WALL)
    boxes = film.boxes(0)
    found = film.follow(range(10, 20))
    half = next(frame for frame in range(70) if boxes[frame].x + FACE[0] / 2 > 190)
    gone = next(frame for frame in range(70) if boxes[frame].x >= 190)
    assert set(range(half)) <= set(found)
    assert half <= max(found) <= gone + HOLD + 1
    assert [missed(boxes[frame], found[frame]) for frame in range(half)] == [0.0] * half
    assert doubts(found) == {max(found): ENDED_INSIDE}


def test_it_begins_little_before_the_face_comes() -> None:
    film = Film(70, [lambda frame: slowly(69 - frame)], wall=WALL)
    boxes = film.boxes(0)
    found = film.follow(range(50, 60))
    half = next(frame for frame in range(70) if boxes[frame].x + FACE[0] / 2 < 190)
    hidden = max(frame for frame in range(70) if boxes[frame].x >= 190)
    assert set(range(half, 70)) <= set(found)
    assert hidden - HOLD - 1 <= min(found) <= half
    assert doubts(found) == {min(found): BEGAN_INSIDE}


class Darkness(Film):
    def picture(self, index: int) -> np.ndarray:
        return np.full((HEIGHT, WIDTH, 3), 20, np.uint8)


def test_in_darkness_it_goes_on_as_it_moved() -> None:
    """There is nothing to be followed: for a little while it is where its movement leads, slower and slower."""
    film = Darkness(60, [lambda frame: (30 + 5 * frame, 120)])
    found = film.follow(range(20, 40))
    assert list(found) == list(range(20 - HOLD, 40 + HOLD))
    middles = [centre(regions[0].box)[0] for regions in found.values()]
    assert (np.diff(middles[: HOLD - 2]) > 0).all()
    assert (np.diff(middles[-HOLD + 2 :]) > 0).all()
    boxes = film.boxes(0)
    assert max(missed(boxes[frame], found[frame]) for frame in range(18, 42)) == 0
    assert doubts(found) == {20 - HOLD: BEGAN_INSIDE, 39 + HOLD: ENDED_INSIDE}


def test_a_face_that_appears_and_disappears_at_once() -> None:
    film = Film(60, [lambda frame: still(frame) if 15 <= frame < 40 else None])
    found = film.follow(range(22, 32))
    assert set(range(15, 40)) <= set(found)
    assert min(found) >= 15 - HOLD - 1
    assert max(found) < 40 + HOLD + 1
    assert doubts(found) == {min(found): BEGAN_INSIDE, max(found): ENDED_INSIDE}


@pytest.mark.parametrize("lasts", [REACH - 10, REACH + 30])
def test_it_is_followed_no_longer_than_the_memory(lasts: int) -> None:
    """By flow alone; where it should still be there, that is told."""
    film = Film(20 + lasts, [still])
    found = film.follow(range(20))
    assert max(found) == 19 + min(lasts, REACH)
    assert doubts(found) == ({} if lasts <= REACH else {19 + REACH: ENDED_INSIDE})


def test_what_the_finder_sees_again_is_followed_farther() -> None:
    """It finds the face's own picture in the crops, whatever its size."""
    template = cv2.cvtColor(FACES[0], cv2.COLOR_RGB2GRAY)

    def look(rgb: np.ndarray) -> np.ndarray:
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        rows = []
        for height in range(50, 90, 4):
            small = cv2.resize(template, (round(height * FACE[0] / FACE[1]), height))
            _, likely, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(grey, small, cv2.TM_CCOEFF_NORMED))
            rows.append((likely, [x, y, x + small.shape[1], y + height, 0.4]))
        likely, best = max(rows)
        return np.array([best], np.float32) if likely > 0.8 else NONE

    film = Film(20 + REACH + 30, [still], finder=Finder(look))
    found = film.follow(range(20))
    box = truth(still(0))
    assert max(found) == film.frames - 1
    assert [found[frame][0].confidence for frame in range(20, film.frames)] == pytest.approx([0.4] * (REACH + 30))
    assert {found[frame][0].origin for frame in range(20, film.frames)} == {BEYOND}
    assert max(missed(box, regions) for regions in found.values()) == 0
    assert doubts(found) == {}


@pytest.mark.parametrize(("score", "grows"), [(0.2, False), (0.5, True)])
def test_doubtful_sightings_do_not_let_it_grow_on_and_on(score: float, grows: bool) -> None:
    """The finder sees a box half as large again, whatever it is shown."""

    def look(rgb: np.ndarray) -> np.ndarray:
        middle, half = np.array(rgb.shape[1::-1]) / 2, FollowOptions().crop_px / FollowOptions().crop * 1.5 / 2
        return np.array([[*(middle - half), *(middle + half), score]], np.float32)

    film = Film(25, [still], finder=Finder(look))
    found = film.follow(range(15))
    largest = max(regions[0].box.area for regions in found.values()) ** 0.5
    assert (largest > 2.5 * found[7][0].box.area ** 0.5) == grows


def test_it_stops_at_cuts() -> None:
    """In both directions; a cut is no reason to look."""
    film = Film(60, [still], cut=30)  # at the same place in both shots
    for seen in (range(20, 26), range(34, 40)):
        found = film.follow(seen)
        expected = range(30) if seen[0] < 30 else range(30, 60)
        assert list(found) == list(expected)
        assert doubts(found) == {}


def test_two_shots_are_two_trails() -> None:
    film = Film(60, [still], cut=30)
    found = film.follow([*range(20, 28), *range(33, 40)])
    assert [[region.id for region in found[frame]] for frame in range(60)] == [[1]] * 30 + [[2]] * 30


def test_it_stops_where_another_trail_takes_over() -> None:
    """The gap is longer than one trail may have: either trail follows the face to the other's sightings."""
    gap = TrailOptions().gap + 10
    film = Film(20 + gap, [still])
    found = film.follow([*range(10), *range(10 + gap, 20 + gap)])
    assert [sorted(region.id for region in regions) for regions in found.values()] == (
        [[1]] * 10 + [[1, 2]] * gap + [[2]] * 10
    )
    assert doubts(found) == {}
    assert [region.origin for region in found[10 + gap // 2]] == [BEYOND, BEYOND]


@pytest.mark.parametrize("backward", [False, True])
def test_a_face_that_leaves_over_the_edge(backward: bool) -> None:
    """Covered to the last; no reason to look. Or it comes in."""
    frames = 60

    def out(frame: int) -> tuple[float, float]:
        return 230 + 4 * (frames - 1 - frame if backward else frame), 120

    film = Film(frames, [out])
    boxes = film.boxes(0)
    found = film.follow(range(45, 58) if backward else range(2, 15))
    for frame, box in boxes.items():
        if box.x + FACE[0] / 2 < WIDTH:  # half of it, or more, is there
            assert missed(box, found.get(frame, ())) == 0, frame
    assert doubts(found) == {}
    away = [frame for frame, box in boxes.items() if box.x + FACE[0] / 2 > WIDTH + 14]
    assert away
    assert not set(away) & set(found)


@pytest.mark.parametrize(("x", "told"), [(WIDTH - 40, True), (WIDTH - 12, False)])
def test_a_face_over_the_edge_may_vanish_there(x: int, told: bool) -> None:
    """The same face, wholly inside the picture: worth a look."""
    film = Film(45, [lambda frame: (x, 120) if frame < 25 else None])
    found = film.follow(range(15))
    assert 24 <= max(found) <= 25 + HOLD
    assert doubts(found) == ({max(found): ENDED_INSIDE} if told else {})


def test_a_faint_face_is_worth_a_look() -> None:
    film = Film(20, [still])
    assert doubts(film.follow(range(20), score=0.55)) == {0: LOW_CONFIDENCE}
    assert doubts(film.follow(range(20), score=0.65)) == {}


def trail_of(film: Film, seen: Collection[int], faint: bool) -> Trail:
    trail = Trail(mixed=faint, faint=faint)
    for frame in seen:
        trail.add(frame, quad_of(film.boxes(0)[frame]), 0.9)
    return trail


def followed(film: Film, *trails: Trail) -> list[Trail]:
    follower = Follower(cast(Any, film.finder), lambda: cast(Any, film.describer), {}, film.scan)
    with ThreadPoolExecutor(2) as pool:
        return follower.follow(Video(lambda: (), film.shown, RATE), trails, set(), pool)[0]


@pytest.mark.parametrize(("faint", "to_either_side"), [(True, HOLD), (False, 20)])
def test_what_may_be_no_face_is_not_followed_far(faint: bool, to_either_side: int) -> None:
    film = Film(50, [still])
    (whole,) = followed(film, trail_of(film, range(20, 30), faint))
    assert whole.frames == list(range(20 - to_either_side, 30 + to_either_side))


@pytest.mark.parametrize(("faint", "to"), [(True, 40), (False, 20)])
def test_no_trail_ends_at_what_may_be_no_face(faint: bool, to: int) -> None:
    film = Film(40, [still])
    whole, _ = followed(film, trail_of(film, range(10), False), trail_of(film, range(20, 25), faint))
    assert whole.frames == list(range(to))


# --- several faces, and what is asked for


def test_two_faces_have_their_own_numbers_and_names() -> None:
    film = Film(50, [lambda frame: (80 + frame, 70), lambda frame: (290 - frame, 160)])
    gap = range(20, 32)
    found = film.follow([at for at in range(50) if at not in gap], range(5, 45))
    for who in (0, 1):
        for frame, box in film.boxes(who).items():
            mine = [region for region in found[frame] if region.id == who + 1]
            assert [region.label for region in mine] == [f"person-{who + 1}"]
            assert missed(box, mine) == 0
    faces = [picture[box.slices].reshape(-1, 3).mean(0) for picture, box in film.describer.asked]
    assert min(abs(face[0] - face[2]) / 25 for face in faces) > OTHER / 2  # the describer does tell them apart
    assert 2 <= len(film.describer.asked) <= 2 * FollowOptions().descriptions


def test_nobody_is_seen() -> None:
    film = Film(10, [still])
    assert film.follow(()) == {}
    assert film.follow(range(10), score=0.3) == {}


def test_covers_are_as_asked_for() -> None:
    boxes = Film(12, [still], scan=ScanOptions(boxes=True)).follow(range(12))
    wide = Film(12, [still], scan=ScanOptions(margin=2.0)).follow(range(12))
    plain = Film(12, [still]).follow(range(12))
    assert boxes[5][0].outline == ()
    assert boxes[5][0].box == plain[5][0].box
    assert plain[5][0].outline
    assert wide[5][0].box.width >= 1.4 * plain[5][0].box.width


def test_covers_are_inside_the_picture() -> None:
    film = Film(40, [lambda frame: (330 + frame, 10)])
    for regions in film.follow(range(0, 12)).values():
        for region in regions:
            assert region.box.area > 0
            assert region.box.intersect(Box(0, 0, WIDTH, HEIGHT)) == region.box


# --- describing


@pytest.mark.parametrize("turns", range(4))
def test_the_face_is_described_upright(turns: int) -> None:
    """Whatever way the picture is stored: in the box lies the same face, with its surroundings."""
    corner = (30, 42)  # here the surroundings are not the same on all sides
    upright = Film(1, [lambda frame: corner]).picture(0)
    box = truth(corner)
    frame = ArrayFrame(np.ascontiguousarray(np.rot90(upright, -turns)))
    frame.turns = turns
    marked = np.zeros(upright.shape[:2], bool)
    marked[box.slices] = True
    rows, columns = np.nonzero(np.rot90(marked, -turns))
    stored = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
    describer = Describer()
    follower = Follower(cast(Any, Finder()), lambda: cast(Any, describer), {}, ScanOptions())
    assert follower.describe(frame, stored, 0.9) is not None
    ((picture, inside),) = describer.asked
    np.testing.assert_array_equal(picture[inside.slices], upright[box.slices])
    assert (inside.x, inside.y) == (box.x, box.y)  # as far as the picture goes
    assert picture.shape[1] - inside.right >= FACE[0] / 2
    assert picture.shape[0] - inside.bottom >= FACE[1] / 2
    np.testing.assert_array_equal(picture, upright[: picture.shape[0], : picture.shape[1]])


def test_who_is_not_to_be_recognised() -> None:
    """Too small, too unsure, too pale, or nearly."""
    picture = Film(1, [still]).picture(0)
    follower = Follower(cast(Any, Finder()), lambda: cast(Any, Describer()), {}, ScanOptions())
    box = quad_of(truth(still(0)))
    pale = (picture * 0.1 + 120).astype(np.uint8)
    assert follower.describe(ArrayFrame(picture), box, 0.56) is not None
    assert follower.describe(ArrayFrame(picture), box, 0.54) is None
    assert follower.describe(ArrayFrame(pale), box, 0.9) is None
    assert follower.describe(ArrayFrame(picture), np.array([140, 100, 164, 128], np.float32), 0.9) is None


def test_a_face_at_the_edge_is_described() -> None:
    describer = Describer()
    follower = Follower(cast(Any, Finder()), lambda: cast(Any, describer), {}, ScanOptions())
    picture = Film(1, [lambda frame: (20, 30)]).picture(0)
    inside = truth((20, 30)).intersect(Box(0, 0, WIDTH, HEIGHT))
    assert follower.describe(ArrayFrame(picture), quad_of(inside), 0.9) is not None
    ((around, box),) = describer.asked
    assert box == inside
    np.testing.assert_array_equal(around, picture[: around.shape[0], : around.shape[1]])


# --- looking again


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("turns", [0, 3])
def test_looking_again_comes_back_to_the_frame_s_px(scale: int, turns: int) -> None:
    """A bright spot stands for the face: the finder says where in the crop it lies. Frames above 960 px are reduced."""
    picture = np.full((240 * scale, 480 * scale, 3), 40, np.uint8)
    spot = Box(200 * scale, 100 * scale, 40 * scale, 50 * scale)
    picture[spot.slices] = 220

    def look(rgb: np.ndarray) -> np.ndarray:
        x, y, width, height = cv2.boundingRect((rgb[..., 0] > 130).astype(np.uint8))
        return np.array([[x, y, x + width, y + height, 0.3], [0, 0, 5, 5, 0.9]], np.float32)

    finder = Finder(look)
    follower = Follower(cast(Any, finder), lambda: cast(Any, Describer()), {}, ScanOptions())
    frame = ArrayFrame(picture)
    frame.turns = turns
    found = follower.seen_again(keep(frame, 960), quad_of(spot.shift(5 * scale, -4 * scale)), free)
    assert found is not None
    np.testing.assert_allclose(found[0], quad_of(spot), atol=1.5 * scale)
    assert found[1] == pytest.approx(0.3)  # the better one lies elsewhere
    ((rgb, threshold, given),) = finder.asked
    assert max(rgb.shape[:2]) == pytest.approx(FollowOptions().crop_px, abs=1)
    assert (threshold, given) == (FollowOptions().doubtful, turns)


def test_looking_again_outside_of_the_picture() -> None:
    finder = Finder()
    follower = Follower(cast(Any, finder), lambda: cast(Any, Describer()), {}, ScanOptions())
    kept = keep(ArrayFrame(PLACES[0].copy()), 960)
    assert follower.seen_again(kept, np.array([-400, 10, -350, 70], np.float32), free) is None
    assert follower.seen_again(kept, np.array([WIDTH - 30, 10, WIDTH + 20, 70], np.float32), free) is None
    assert len(finder.asked) == 1


# --- the parts


@pytest.mark.parametrize(("moved", "grown"), [((6, -4), 1.0), ((0, 0), 1.05), ((-3, 2), 0.96)])
def test_flow_follows_what_moves_and_grows(moved: tuple[int, int], grown: float) -> None:
    """The whole picture, around the face's middle."""
    picture = Film(1, [still]).picture(0)
    x, y = still(0)
    turn = np.array([[grown, 0, x + moved[0] - grown * x], [0, grown, y + moved[1] - grown * y]])
    after = cv2.warpAffine(picture, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
    box = quad_of(truth(still(0)))
    found, trusted = flow(keep(ArrayFrame(picture), 960), keep(ArrayFrame(after, 1), 960), box)
    assert trusted
    corners = cv2.transform(box.reshape(1, 2, 2), turn).ravel()
    np.testing.assert_allclose(found, corners, atol=1.5)


def test_flow_of_another_picture_is_not_trusted() -> None:
    before, after = (keep(ArrayFrame(place.copy()), 960) for place in PLACES)
    assert not flow(before, after, quad_of(truth(still(0))))[1]


def test_looks() -> None:
    """Alike in any light; not like what is beside it."""
    picture = Film(1, [still]).picture(0)
    dark = keep(ArrayFrame((picture * 0.5 + 20).astype(np.uint8)), 960)
    kept, box = keep(ArrayFrame(picture), 960), quad_of(truth(still(0)))
    look = appearance(kept, box)
    assert alike(look, look) == pytest.approx(1, abs=1e-4)
    assert alike(look, appearance(dark, box)) > 0.95
    assert alike(look, appearance(kept, box + 1)) > 0.8
    assert alike(look, appearance(kept, box + np.array([60, 0, 60, 0], np.float32))) < FollowOptions().alike


def trail(frames: Sequence[int], x: int, origin: str = FOUND) -> Trail:
    made = Trail()
    for frame in frames:
        made.add(frame, quad_of(Box(x, 50, 40, 50)), 0.9, origin)
    return made


def test_who_is_seen_together() -> None:
    """Twice, at two places, and really seen there."""
    trails = [
        trail(range(10), 0),
        trail(range(8, 20), 100),  # two frames with the first
        trail(range(9, 15), 200),  # one with the first, six with the second
        trail(range(10), 10),  # lies over the first
        trail(range(20), 300, origin=BEYOND),
        trail(range(30, 40), 0),
    ]
    assert together(trails) == {(0, 1), (1, 2), (1, 3)}
    assert together(trails[::-1]) == {(4, 5), (3, 4), (2, 4)}
