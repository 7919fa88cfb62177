"""Faces of single frames linked into trails, with sightings drawn by hand."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from restore_plugin.masks.quads import common_share, quad_of, shifted, size
from restore_plugin.masks.trails import Trail, TrailOptions, filled, link_faces
from restore_plugin.types import BETWEEN, BEYOND, FOUND, Box, Region

Frames = list[tuple[int, Sequence[Region]]]
WIDTH, HEIGHT = 60, 80  # px, of a face


def face(x: float, y: float = 100, score: float = 0.9, scale: float = 1.0) -> Region:
    """A sighting around the middle (x, y)."""
    width, height = round(WIDTH * scale), round(HEIGHT * scale)
    return Region(Box(round(x) - width // 2, round(y) - height // 2, width, height), confidence=score)


def way(at: Callable[[int], Region], frames: Iterable[int], of: int = 0) -> Frames:
    """Sightings in `frames`; up to frame `of` the others are there, without any."""
    seen = set(frames)
    return [(frame, [at(frame)] if frame in seen else []) for frame in range(max(of, *seen) + 1)]


def quads(*regions: Region) -> np.ndarray:
    return np.array([[each.box.x, each.box.y, each.box.right, each.box.bottom] for each in regions], np.float32)


def test_one_face_with_gaps_is_one_trail() -> None:
    seen = [0, 1, 2, 3, 7, 8, 15, 16, 17, 30, 50, 51]

    def at(frame: int) -> Region:
        return face(100 + 3 * frame, 100 + 2 * frame, score=0.5 + frame / 200)

    (trail,) = link_faces(way(at, seen), ())
    assert trail.frames == seen  # gaps are filled later
    np.testing.assert_array_equal(np.stack(trail.quads), quads(*(at(frame) for frame in seen)))
    np.testing.assert_allclose(trail.scores, [0.5 + frame / 200 for frame in seen])
    assert set(trail.origins) == {FOUND}


def test_gaps_that_are_left_out_are_gaps_as_well() -> None:
    seen = [(frame, [face(100)]) for frame in (0, 1, 6, 7)]
    (trail,) = link_faces(seen, ())
    assert trail.frames == [0, 1, 6, 7]


@pytest.mark.parametrize(("missing", "trails"), [(11, 1), (13, 2), (40, 2)])
def test_a_gap_that_is_too_long_parts_trails(missing: int, trails: int) -> None:
    seen = [*range(5), *range(5 + missing, 10 + missing)]
    found = link_faces(way(lambda frame: face(100), seen), (), TrailOptions(gap=12))
    assert len(found) == trails
    assert sorted(frame for trail in found for frame in trail.frames) == seen


def test_fast_movers() -> None:
    """Half its size from one frame to the next; once its speed is known, its whole size."""
    fast = link_faces(way(lambda frame: face(100 + 35 * frame), range(10)), ())
    faster = link_faces(way(lambda frame: face(100 + 5 * frame**2), range(12)), ())  # 105 px in the last step
    assert [trail.frames for trail in (*fast, *faster)] == [list(range(10)), list(range(12))]


def test_out_of_reach_is_another_face() -> None:
    found = link_faces(way(lambda frame: face(100 if frame < 5 else 250), range(10)), ())
    assert [trail.frames for trail in found] == [list(range(5)), list(range(5, 10))]


@pytest.mark.parametrize(("scale", "trails"), [(1.4, 1), (0.7, 1), (2.1, 2), (0.45, 2)])
def test_a_face_keeps_its_size(scale: float, trails: int) -> None:
    found = link_faces(way(lambda frame: face(200, scale=1.0 if frame < 5 else scale), range(10)), ())
    assert len(found) == trails


def test_a_face_that_comes_nearer() -> None:
    """Three times as large in the end, 10 % a frame."""
    found = link_faces(way(lambda frame: face(400, 400, scale=1.1**frame), range(12)), ())
    assert [trail.frames for trail in found] == [list(range(12))]


@pytest.mark.parametrize("missing", [(), (5, 6)])
def test_cuts_end_trails(missing: tuple[int, ...]) -> None:
    """Also in a gap."""
    seen = [frame for frame in range(10) if frame not in missing]
    found = link_faces(way(lambda frame: face(100), seen), [5])
    assert [trail.frames for trail in found] == [
        [frame for frame in seen if frame < 5],
        [frame for frame in seen if frame >= 5],
    ]


def test_doubtful_sightings_continue_but_never_begin() -> None:
    """Weak ones before the first sure sighting are nobody's, those after it go on with it."""
    sure = TrailOptions().sure

    def at(frame: int) -> Region:
        return face(100 + 2 * frame, score=0.9 if frame in (4, 5) else sure - 0.05)

    (trail,) = link_faces(way(at, range(10)), ())
    assert trail.frames == list(range(4, 10))
    assert link_faces(way(lambda frame: face(100, score=sure - 0.05), range(30)), ()) == []


def test_sure_sightings_are_given_out_first() -> None:
    """A doubtful one that lies nearer does not take the place of a sure one."""
    frames: Frames = [(frame, [face(100)]) for frame in range(3)]
    frames += [(3, [face(100, score=0.2), face(118, score=0.8)])]
    (trail,) = link_faces(frames, ())
    np.testing.assert_array_equal(trail.quads[-1], quads(face(118))[0])


def test_flashes_are_dropped() -> None:
    options = TrailOptions()

    def once(score: float) -> Frames:
        return way(lambda frame: face(100, score=score), [3], of=8)

    assert link_faces(once(options.alone - 0.02), ()) == []
    assert [trail.frames for trail in link_faces(once(options.alone + 0.02), ())] == [[3]]
    often = range(3, 9)
    assert link_faces(way(lambda frame: face(100, score=options.surest - 0.02), often), ()) == []
    best = {5: options.surest + 0.02}
    (trail,) = link_faces(way(lambda frame: face(100, score=best.get(frame, options.sure + 0.01)), often), ())
    assert trail.frames == list(often)


def test_two_faces_apart_keep_to_themselves() -> None:
    """Side by side in changing order, trembling; each in a trail of its own, in order of appearance."""
    random = np.random.default_rng(1)
    frames: Frames = []
    for frame in range(40):
        left = face(100 + frame + random.normal() * 2, 100 + random.normal() * 2)
        right = face(220 - frame / 2 + random.normal() * 2, 100 + random.normal() * 2)
        frames.append((frame, [[left], [left, right], [right, left]][0 if frame < 5 else 1 + frame % 2]))
    first, second = link_faces(frames, ())
    assert (first.frames, second.frames) == (list(range(40)), list(range(5, 40)))
    assert all(quad[0] < other[0] for quad, other in zip(first.quads[5:], second.quads, strict=True))


@pytest.mark.parametrize("px_a_frame", [1, 2, 3, 5, 8, 12, 20])
@pytest.mark.parametrize("lower_px", [0, 15, 30])
@pytest.mark.parametrize("hidden_from", [0.8, 2.0])
def test_faces_that_cross_are_parted(px_a_frame: int, lower_px: int, hidden_from: float) -> None:
    """One passes in front of the other, which is not seen while more than a share of it is covered. What is known to be
    one face's holds only that one's sightings, and of both there are such trails before and after."""
    frames: Frames = []
    who: dict[tuple[int, Box], str] = {}
    for frame in range(81):
        front, behind = face(500 + px_a_frame * (frame - 40)), face(500 - px_a_frame * (frame - 40), 100 + lower_px)
        who[frame, behind.box], who[frame, front.box] = "behind", "front"
        covered = front.box.intersect(behind.box).area / behind.box.area
        frames.append((frame, [front, behind] if covered <= hidden_from else [front]))
    sides: set[tuple[str, bool]] = set()
    given: list[tuple[int, Box]] = []
    for trail in link_faces(frames, ()):
        boxes = [Box.between(*(int(value) for value in quad)) for quad in trail.quads]
        given += zip(trail.frames, boxes, strict=True)
        held = {who[frame, box] for frame, box in zip(trail.frames, boxes, strict=True)}
        if trail.mixed:
            assert all(abs(500 - (box.x + WIDTH // 2)) < WIDTH + 3 * px_a_frame for box in boxes)  # near the crossing
        else:
            assert len(held) == 1
            sides |= {(next(iter(held)), frame < 40) for frame in trail.frames if frame != 40}
    assert sides == {(which, before) for which in ("front", "behind") for before in (True, False)}
    assert set(given) == {(frame, region.box) for frame, regions in frames for region in regions}  # none is lost


def test_faces_that_cross_dimly_are_not_lost() -> None:
    """While one is half behind the other it is not seen for sure: that piece is kept as long as it is short."""
    frames: Frames = []
    dim: set[tuple[int, Box]] = set()
    for frame in range(81):
        front, behind = face(500 + 3 * (frame - 40)), face(500 - 3 * (frame - 40), 115)
        if covered := front.box.intersect(behind.box).area / behind.box.area:
            behind = replace(behind, confidence=0.4)
            dim.add((frame, behind.box))
        frames.append((frame, [front, behind] if covered <= 0.7 else [front]))
        dim -= {(frame, behind.box)} if covered > 0.7 else set()
    trails = link_faces(frames, ())
    given = {
        (frame, Box.between(*map(int, quad)))
        for each in trails
        for frame, quad in zip(each.frames, each.quads, strict=True)
    }
    assert dim <= given


def out_from_behind(frame: int) -> Region:
    """Beside a face at 300 it comes out doubtfully, is gone again, and is seen for sure only later."""
    return face(390 + 6 * frame, score=0.2 if frame < 10 else 0.9)


BESIDE = [*range(3, 7), *range(12, 20)]


def linked_beside(
    at: Callable[[int], Region] = out_from_behind, seen: Sequence[int] = BESIDE, cut: int = 0
) -> list[Trail]:
    frames: Frames = [(frame, [face(300), at(frame)] if frame in seen else [face(300)]) for frame in range(20)]
    return link_faces(frames, [cut] if cut else ())


def test_who_comes_out_from_behind_a_face_for_a_moment() -> None:
    front, faint, sure = linked_beside()
    assert (front.frames, faint.frames, sure.frames) == (list(range(20)), BESIDE[:4], BESIDE[4:])
    np.testing.assert_array_equal(np.stack(faint.quads), quads(*(out_from_behind(frame) for frame in BESIDE[:4])))
    assert (front.faint, faint.faint, sure.faint) == (False, True, False)
    assert faint.mixed  # nobody's for sure


@pytest.mark.parametrize(
    "found",
    [
        lambda: linked_beside(seen=BESIDE[:4]),  # no face was there before or is there next
        lambda: linked_beside(seen=BESIDE[:2] + BESIDE[4:]),  # too few
        lambda: linked_beside(seen=[0, 3, 7, *BESIDE[4:]]),  # too few on end
        lambda: linked_beside(cut=9),
        lambda: linked_beside(lambda frame: replace(out_from_behind(frame), confidence=0.15 if frame < 10 else 0.9)),
        lambda: linked_beside(
            lambda frame: face(390 + 6 * frame, 100 if frame >= 10 else 260, 0.2 if frame < 10 else 0.9)
        ),
        lambda: linked_beside(lambda frame: face(600 + 6 * frame, score=0.2 if frame < 10 else 0.9)),  # beside nobody
    ],
)
def test_doubtful_sightings_are_no_face_elsewhere(found: Callable[[], list[Trail]]) -> None:
    trails = found()
    assert not any(trail.faint for trail in trails)
    assert min(score for trail in trails for score in trail.scores) == 0.9


def test_what_is_doubtful_for_long_is_no_face() -> None:
    def at(frame: int) -> Region:
        return face(390, score=0.2 if frame < 50 else 0.9)

    for begins, faint in ((20, 0), (35, 1)):
        frames: Frames = [(frame, [face(300), at(frame)] if frame >= begins else [face(300)]) for frame in range(60)]
        frames[50:54] = [(frame, [face(300)]) for frame in range(50, 54)]
        assert sum(trail.faint for trail in link_faces(frames, (), TrailOptions(gap=25))) == faint


def test_likely_pairs_come_first() -> None:
    """Two faces side by side jump to the right at once: the first one's new place is also in the second one's reach."""
    frames: Frames = [(frame, [face(100), face(190)]) for frame in range(5)]
    frames += [(frame, [face(130), face(220)]) for frame in range(5, 8)]
    first, second = link_faces(frames, ())
    np.testing.assert_array_equal([quad[0] + WIDTH // 2 for quad in first.quads], [100] * 5 + [130] * 3)
    np.testing.assert_array_equal([quad[0] + WIDTH // 2 for quad in second.quads], [190] * 5 + [220] * 3)


# --- boxes


def test_shares_by_hand() -> None:
    a = quad_of(Box(0, 0, 10, 20))
    assert common_share(a, quad_of(Box(5, 10, 10, 20))) == pytest.approx(0.25)
    assert common_share(a, quad_of(Box(2, 2, 5, 10))) == pytest.approx(1.0)  # inside
    assert common_share(a, quad_of(Box(10, 0, 10, 20))) == 0  # side by side
    assert size(quad_of(Box(3, 4, 20, 45))) == pytest.approx(30)


def test_the_expected_place() -> None:
    """It goes on with its speed, slower and slower, and stays at last."""
    trail = Trail()
    trail.add(0, quad_of(Box(100, 50, 60, 80)), 0.9)
    np.testing.assert_array_equal(trail.expected(9), trail.quads[0])
    trail.add(2, quad_of(Box(120, 40, 60, 80)), 0.9)
    one = trail.expected(3) - trail.quads[-1]
    assert one[0] == one[2]
    assert 0.8 * 10 < one[0] <= 10
    assert -5 <= one[1] < 0.8 * -5
    assert np.array_equal(trail.expected(40), trail.expected(30))
    assert trail.expected(40)[0] - trail.quads[-1][0] < 10 * 8


# --- filling


def test_filled_by_hand() -> None:
    """Seen in 4, 5 and 9; nothing is known of 6 and 8, of 7 it is; followed to 2 before and to 10 after."""
    trail = Trail(mixed=True, doubts={2: "why"})
    trail.add(4, np.array([0, 0, 10, 20], np.float32), 0.9)
    trail.add(5, np.array([10, 0, 20, 20], np.float32), 0.8)
    trail.add(9, np.array([50, 40, 80, 100], np.float32), 0.7)
    known = np.array([1, 2, 3, 4], np.float32)
    before = [(3, known + 1, 0.0), (2, known + 2, 0.3)]  # walked back
    whole = filled(trail, {7: [(known, 0.2)]}, before, [(10, known + 3, 0.1)])
    assert whole.frames == list(range(2, 11))
    assert whole.origins == [BEYOND, BEYOND, FOUND, FOUND, BETWEEN, BETWEEN, BETWEEN, FOUND, BEYOND]
    assert whole.scores == [0.3, 0.0, 0.9, 0.8, 0.0, 0.2, 0.0, 0.7, 0.1]
    expected = [
        known + 2,
        known + 1,
        [0, 0, 10, 20],
        [10, 0, 20, 20],
        [20, 10, 35, 40],  # a quarter of the way
        known,
        [40, 30, 65, 80],
        [50, 40, 80, 100],
        known + 3,
    ]
    np.testing.assert_allclose(np.stack(whole.quads), np.array(expected, np.float32))
    assert whole.mixed
    assert whole.doubts == {2: "why"}


def test_two_ways_follow_one_another() -> None:
    """Seen in 1, 6 and 8; in 3 and 4 it may be at two places: one way goes on from before, the other comes after it."""
    trail = Trail()
    for frame, x in ((1, 0), (6, 50), (8, 70)):
        trail.add(frame, np.array([x, 0, x + 10, 20], np.float32), 0.9)
    at = [np.array([x, 5, x + 10, 25], np.float32) for x in range(6)]
    between = {2: [(at[0], 0.0)], 3: [(at[1], 0.0), (at[3], 0.1)], 4: [(at[2], 0.2), (at[4], 0.0)], 5: [(at[5], 0.0)]}
    whole = filled(trail, between, (), ())
    assert whole.frames == [1, 2, 3, 4, 3, 4, 5, 6, 7, 8]
    assert whole.scores == [0.9, 0.0, 0.0, 0.2, 0.1, 0.0, 0.0, 0.9, 0.0, 0.9]
    assert whole.origins == [FOUND, *[BETWEEN] * 6, FOUND, BETWEEN, FOUND]
    assert [float(quad[0]) for quad in whole.quads] == [0, 0, 1, 2, 3, 4, 5, 50, 60, 70]


def test_nothing_to_fill() -> None:
    trail = Trail()
    trail.add(7, np.array([0, 0, 10, 20], np.float32), 0.9)
    whole = filled(trail, {}, (), ())
    assert (whole.frames, whole.origins, whole.scores) == ([7], [FOUND], [0.9])


def test_shifted() -> None:
    np.testing.assert_array_equal(shifted(quad_of(Box(1, 2, 3, 4)), np.array([10, 20])), [11, 22, 14, 26])
