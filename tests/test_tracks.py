"""Linking detections over time: identities, gaps, flashes, grids."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from restore_plugin.masks.tracks import LinkOptions, link, linked
from restore_plugin.types import Box, Region

Frames = list[tuple[int, list[Region]]]


def region(x: int, y: int, block: float = 8.0, phase: tuple[float, float] | None = None, sure: float = 0.9) -> Region:
    return Region(Box(x, y, 60, 40), 0, (block, block), phase or (float(x), float(y)), (), sure)


def both(frames: Iterable[tuple[int, Sequence[Region]]]) -> dict[int, list[Region]]:
    """Frame -> its linked regions."""
    given = list(frames)
    return {frame: regions for frame, regions in linked(given, link(given)) if regions}


def ids(frames: dict[int, list[Region]]) -> set[int]:
    return {each.id for regions in frames.values() for each in regions}


def test_one_mosaic_is_one_track() -> None:
    out = both([(frame, [region(10 + 3 * frame, 20)]) for frame in range(10)])
    assert list(out) == list(range(10))
    assert ids(out) == {1}
    assert [out[frame][0].box for frame in out] == [Box(10 + 3 * frame, 20, 60, 40) for frame in range(10)]


def test_crossing_tracks_keep_their_ids() -> None:
    """One moves to the right, one to the left; they pass with a little overlap, listed in changing order."""
    frames: Frames = []
    for frame in range(21):
        pair = [region(10 * frame, 20, 8.0), region(200 - 10 * frame, 48, 8.5)]
        frames.append((frame, pair[:: 1 if frame % 2 else -1]))
    out = both(frames)
    assert ids(out) == {1, 2}
    for regions in out.values():
        assert len({each.id for each in regions}) == 2
        rows = {each.id: each.box.y for each in regions}
        assert rows == {each.id: each.box.y for each in out[0]}


def test_different_block_sizes_are_not_joined() -> None:
    out = both([(frame, [region(10, 20, 8.0 if frame < 5 else 14.0)]) for frame in range(10)])
    assert [out[frame][0].id for frame in range(10)] == [1] * 5 + [2] * 5


def test_far_apart_is_another_track() -> None:
    out = both([(frame, [region(10 if frame < 5 else 200, 20)]) for frame in range(10)])
    assert [out[frame][0].id for frame in range(10)] == [1] * 5 + [2] * 5


@pytest.mark.parametrize("with_empty_lines", [True, False])
def test_a_gap_is_bridged(with_empty_lines: bool) -> None:
    seen = {frame: [region(4 * frame, 20 + frame)] for frame in range(21) if not 8 <= frame < 13}
    frames = [(frame, seen.get(frame, [])) for frame in range(21) if with_empty_lines or frame in seen]
    out = both(frames)
    assert list(out) == list(range(21))
    assert ids(out) == {1}
    for frame in range(8, 13):
        box = out[frame][0].box
        assert abs(box.x - 4 * frame) <= 1
        assert abs(box.y - (20 + frame)) <= 1
        assert (box.width, box.height) == (60, 40)
        assert out[frame][0].confidence <= 0.5


def test_a_gap_that_is_too_long_parts_tracks() -> None:
    longest = LinkOptions().gap
    for missing, tracks in ((longest - 1, {1}), (longest, {1, 2})):
        frames = [(frame, [region(10, 20)]) for frame in (*range(5), *range(5 + missing, 10 + missing))]
        out = both(frames)
        assert ids(out) == tracks
        assert len(out) == (10 + missing if len(tracks) == 1 else 10)


def test_flashes_and_the_unsure_are_dropped() -> None:
    steady = [(frame, [region(10, 20)]) for frame in range(12)]
    steady[5][1].append(region(300, 200))
    steady[6][1].append(region(303, 200))
    for frame, regions in steady:
        regions.insert(0, region(500, 300, sure=0.3 if frame % 2 else 0.5))
    out = both(steady)
    assert ids(out) == {1}
    assert all([each.box.x for each in regions] == [10] for regions in out.values())


def test_what_shows_other_blocks_each_time_is_no_mosaic() -> None:
    blocks = (16.0, 12.5, 14.4, 11.6, 15.5, 12.8)
    assert both([(frame, [region(10, 20, block)]) for frame, block in enumerate(blocks)]) == {}


def test_the_unsure_is_believed_where_its_blocks_are_always_alike() -> None:
    def seen(*blocks: float) -> set[int]:
        return ids(both([(frame, [region(10, 20, block, sure=0.5)]) for frame, block in enumerate(blocks)]))

    assert seen(*[11.0] * 6) == {1}
    assert seen(*[11.0] * 5) == set()  # not seen often enough
    assert seen(*[11.0, 11.0, 12.5, 12.5] * 3) == set()  # every second time another size


@pytest.mark.parametrize(
    ("block", "sure", "tracks"),
    [
        ((16.1, 22.5), 0.6, set()),
        ((22.5, 32.0), 0.6, set()),
        ((16.1, 22.5), 0.7, {1}),
        ((16.1, 16.0), 0.6, {1}),  # square blocks of that size are usual
        ((17.0, 22.5), 0.6, {1}),
    ],
)
def test_blocks_that_may_be_a_codecs_must_be_surer(block: tuple[float, float], sure: float, tracks: set[int]) -> None:
    frames = [(frame, [replace(region(10, 20, sure=sure), block=block)]) for frame in range(12)]
    assert ids(both(frames)) == tracks


def test_what_is_seldom_seen_is_no_mosaic() -> None:
    assert both([(frame, [region(10, 20)] if frame in (0, 4, 8, 12) else []) for frame in range(13)]) == {}
    assert ids(both([(frame, [region(10, 20)] if frame % 2 == 0 else []) for frame in range(13)])) == {1}


def test_short_videos_need_no_long_tracks() -> None:
    assert ids(both([(0, [region(10, 20)])])) == {1}
    assert ids(both([(0, [region(10, 20)]), (1, [region(10, 20)])])) == {1}


def test_numbered_in_order_of_appearance() -> None:
    frames: Frames = [(frame, []) for frame in range(12)]
    for x, start in ((400, 0), (200, 3), (10, 6)):
        for frame in range(start, 12):
            frames[frame][1].append(region(x, 20))
    out = both(frames)
    assert {each.box.x: each.id for each in out[11]} == {400: 1, 200: 2, 10: 3}


def test_a_grid_that_stays_gets_one_phase() -> None:
    """The box moves, the grid does not; each measurement is off by a little, and counts from another line."""
    random = np.random.default_rng(1)
    frames: Frames = []
    for frame in range(16):
        x = 10 + 5 * frame
        phase = tuple(3.0 + 8 * int(random.integers(0, 9)) + random.uniform(-0.6, 0.6) for _ in "xy")
        frames.append((frame, [region(x, 20, 8.0, phase)]))
    out = both(frames)
    first = out[0][0].phase
    for regions in out.values():
        for phase, expected in zip(regions[0].phase, first, strict=True):
            assert phase == pytest.approx(expected)
            assert abs((phase - 3 + 4) % 8 - 4) < 0.4


def test_a_grid_that_moves_along_keeps_its_own_phase() -> None:
    frames = [(frame, [region(10 + 3 * frame, 20 + 2 * frame, 8.0)]) for frame in range(16)]
    for frame, regions in both(frames).items():
        for phase, corner in zip(regions[0].phase, (10 + 3 * frame, 20 + 2 * frame), strict=True):
            assert abs((phase - corner + 4) % 8 - 4) < 1e-6


def test_the_block_size_is_made_steady() -> None:
    random = np.random.default_rng(2)
    frames = [(frame, [region(10, 20, 8.0 + random.uniform(-0.08, 0.08))]) for frame in range(15)]
    frames[7][1][0] = region(10, 20, 9.6)  # one is far off
    blocks = {regions[0].block for regions in both(frames).values()}
    assert len(blocks) == 1
    assert blocks.pop() == pytest.approx((8.0, 8.0), abs=0.05)


def test_blocks_that_grow_stay_as_measured() -> None:
    frames = [(frame, [region(10, 20, 8.0 * 1.03**frame)]) for frame in range(20)]
    out = both(frames)
    assert ids(out) == {1}
    assert [out[frame][0].block[0] for frame in range(20)] == pytest.approx([8.0 * 1.03**frame for frame in range(20)])


def test_regions_without_a_grid_are_linked_by_place() -> None:
    frames = [(frame, [replace(region(10 + frame, 20), block=None)]) for frame in range(6)]
    out = both(frames)
    assert ids(out) == {1}
    assert all(regions[0].block is None for regions in out.values())


@pytest.mark.parametrize("frames", [[], [(0, []), (1, [])]])
def test_nothing_in_nothing_out(frames: Frames) -> None:
    assert link(frames) == []
    assert both(frames) == {}
