"""Plans: written and read again, edited by hand, and every mistake in them explained."""

import json
import re
from pathlib import Path

import pytest

from restore_plugin.errors import InputError, OutputError
from restore_plugin.plan import PlanReader, PlanWriter, check, fingerprint
from restore_plugin.types import Box, Region

REGIONS = [
    Region(Box(10, 20, 64, 48), 1, (8.0, 6.5), (10.25, 20.5), (), 0.97),
    Region(Box(0, 0, 9, 9), 2, (4.0, 4.0), (0.0, 0.0), (((0, 0), (8, 0), (4, 8)), ((1, 1), (2, 1), (2, 2))), 0.5),
    Region(Box(100, 50, 30, 30), 3),
]
SIZE = (320, 240)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def write(path: Path, video: Path, frames: dict[int, list[Region]]) -> Path:
    with PlanWriter(path, "demosaic", fingerprint(video)) as plan:
        for frame, regions in frames.items():
            plan.add(frame, frame / 25, regions)
    return path


def edited(path: Path, *lines: str) -> Path:
    """A plan for no certain video, as a person would write it."""
    path.write_text("\n".join(('{"plan": 1, "task": "demosaic"}', *lines)) + "\n")
    return path


def line(frame: int = 1, **changes: object) -> str:
    return json.dumps({"frame": frame, "regions": [{"box": [1, 2, 30, 40], "block": [8, 8], **changes}]})


def test_round_trip(tmp_path: Path, video: Path) -> None:
    frames = {2: REGIONS, 5: REGIONS[:1], 1000: REGIONS[1:]}
    path = write(tmp_path / "plan.jsonl", video, frames)
    reader = PlanReader(path, "demosaic")
    assert reader.source == fingerprint(video)
    read = dict(reader)
    assert list(read) == [2, 5, 1000]
    for frame, regions in read.items():
        # the phase of a region without blocks says nothing
        assert [r if r.block else Region(r.box, r.id) for r in regions] == frames[frame]
    with pytest.raises(InputError, match="line 2: a region has no block"):  # which a mosaic cannot do without
        check(path, "demosaic", video, SIZE)
    assert check(write(path, video, {2: REGIONS[:2], 5: REGIONS[:1]}), "demosaic", video, SIZE) == 2


def test_counts_and_leaves_empty_frames_out(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    with PlanWriter(path, "demosaic", {}) as plan:
        plan.add(0, None, [])
        plan.add(1, None, REGIONS)
        plan.add(2, 0.08, REGIONS[:2])
        assert (plan.frames, plan.tracks) == (2, 3)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert [entry.get("frame") for entry in lines] == [None, 1, 2]
    assert [entry.get("seconds") for entry in lines] == [None, None, 0.08]


def test_at_in_order(tmp_path: Path, video: Path) -> None:
    path = write(tmp_path / "plan.jsonl", video, {2: REGIONS[:2], 5: REGIONS[:1], 6: REGIONS[1:2]})
    plan = PlanReader(path, "demosaic")
    found = [[region.id for region in plan.at(frame)] for frame in (0, 1, 2, 2, 3, 6, 7, 100)]
    assert found == [[], [], [1, 2], [1, 2], [], [2], [], []]


def test_edited_plans(tmp_path: Path, video: Path) -> None:
    path = edited(
        tmp_path / "plan.jsonl",
        line(3, block=None),
        "",
        line(4, block=[8, 8]),
        line(5, id=7, block=[8, 8], phase=[3, 1]),
    )
    first, second, third = (regions[0] for _, regions in PlanReader(path, "demosaic"))
    assert first == Region(Box(1, 2, 30, 40), 0, None, (1.0, 2.0))
    assert second == Region(Box(1, 2, 30, 40), 0, (8.0, 8.0), (1.0, 2.0), (), 1.0)  # from the box's corner
    assert (third.id, third.phase) == (7, (3.0, 1.0))
    path.write_bytes(b"\xef\xbb\xbf" + edited(path, line(4), line(5)).read_bytes())  # as editors on Windows begin
    assert check(path, "demosaic", video, SIZE) == 2


BAD_LINES = {
    "no JSON": "{",
    "no object": "[]",
    "a number": "3",
    "null": "null",
    "no frame": '{"regions": []}',
    "no regions": '{"frame": 0}',
    "regions are a number": '{"frame": 0, "regions": 3}',
    "a frame that is a word": '{"frame": "first", "regions": []}',
    "no box": '{"frame": 0, "regions": [{"id": 1}]}',
    "a region that is a list": '{"frame": 0, "regions": [[1, 2, 3, 4]]}',
    "three numbers": line(box=[1, 2, 3]),
    "a box without end": line(box=[1, 2, float("inf"), 4]),
    "empty box": line(box=[1, 2, 0, 4]),
    "a block of zero": line(block=[0, 8]),
    "a block of one number": line(block=8),
    "one number in a list": line(block=[8]),
    "a block that is no number": line(block=[float("nan"), 8]),
    "an endless block": line(block=[float("inf"), 8]),
    "an endless phase": line(block=[8, 8], phase=[float("inf"), 0]),
    "a phase of one number": line(block=[8, 8], phase=[1]),
    "an outline of numbers": line(outline=[1, 2, 3]),
    "an outline that is a number": line(outline=5),
    "points of three": line(outline=[[[1, 2, 3]]]),
    "an empty polygon": line(block=[8, 8], outline=[[]]),
    "a point far away": line(outline=[[[10**12, 50]]]),
    "a confidence that is no number": line(confidence=float("nan")),
    "no block for a mosaic": line(block=None),
    "brackets in brackets": "[" * 100_000,
}


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_mistake_names_file_and_line(tmp_path: Path, video: Path, bad: str) -> None:
    path = edited(tmp_path / "plan.jsonl", line(0), "", BAD_LINES[bad])  # the first is the head
    with pytest.raises(InputError, match=re.escape(f"{path}, line 4")) as raised:
        check(path, "demosaic", video, SIZE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ([line(0), line(1, box=[300, 2, 30, 30])], "line 3"),
        ([line(0), line(1, box=[-1, 2, 30, 30])], "line 3"),
        ([line(0), line(0)], "line 3"),
        ([line(5), "", line(4)], "line 4"),
    ],
)
def test_regions_outside_and_frames_out_of_order(tmp_path: Path, video: Path, lines: list[str], where: str) -> None:
    path = edited(tmp_path / "plan.jsonl", *lines)
    with pytest.raises(InputError, match=re.escape(f"{path}, {where}")):
        check(path, "demosaic", video, SIZE)


def test_other_task(tmp_path: Path, video: Path) -> None:
    path = write(tmp_path / "plan.jsonl", video, {})
    with pytest.raises(InputError, match=re.escape(f"expected a plan for automosaic in {path}")):
        PlanReader(path, "automosaic")


@pytest.mark.parametrize("head", ["", "{", "[]", "null", "{}", '{"plan": 2, "task": "demosaic"}', '{"plan": 1}'])
def test_not_a_plan(tmp_path: Path, head: str) -> None:
    path = tmp_path / "plan.jsonl"
    path.write_text(head)
    with pytest.raises(InputError, match=re.escape(str(path))):
        PlanReader(path, "demosaic")


def test_bytes_that_are_no_text_far_into_the_file(tmp_path: Path, video: Path) -> None:
    path = edited(tmp_path / "plan.jsonl", *(line(frame) for frame in range(2000)))
    path.write_bytes(path.read_bytes() + b"\x89PNG\xff\xfe\n")
    with pytest.raises(InputError, match=re.escape(str(path))):
        check(path, "demosaic", video, SIZE)


def test_not_even_text(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match=re.escape(str(path))):
        PlanReader(path, "demosaic")


@pytest.mark.parametrize("source", ["[]", "3", '"video.mp4"', "null"])
def test_a_source_that_is_no_object(tmp_path: Path, video: Path, source: str) -> None:
    path = tmp_path / "plan.jsonl"
    path.write_text(f'{{"plan": 1, "task": "demosaic", "source": {source}}}\n')
    with pytest.raises(InputError, match=re.escape(str(path))):
        check(path, "demosaic", video, SIZE)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "none.jsonl"))):
        PlanReader(tmp_path / "none.jsonl", "demosaic")


def test_other_video(tmp_path: Path, video: Path) -> None:
    path = write(tmp_path / "plan.jsonl", video, {1: REGIONS})
    other = tmp_path / "other.mp4"
    other.write_bytes(video.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=f"{re.escape(str(path))}.*another video.*{re.escape(str(other))}"):
        check(path, "demosaic", other, SIZE)


def test_fingerprint_tells_files_apart(tmp_path: Path) -> None:
    size = 3 << 20
    path = tmp_path / "large"
    path.write_bytes(bytes(size))
    before = fingerprint(path)
    assert before["bytes"] == size
    for at in (0, size - 1):
        data = bytearray(size)
        data[at] = 1
        path.write_bytes(data)
        assert fingerprint(path) != before


def fail_while_writing(path: Path) -> None:
    with PlanWriter(path, "demosaic", {}) as plan:
        plan.add(0, None, REGIONS)
        raise RuntimeError("boom")


def test_nothing_is_left_of_a_plan_that_failed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        fail_while_writing(tmp_path / "plan.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    with PlanWriter(path, "demosaic", {}) as plan:
        plan.add(0, None, REGIONS)
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]


def test_an_earlier_plan_outlives_a_failure(tmp_path: Path, video: Path) -> None:
    path = write(tmp_path / "plan.jsonl", video, {1: REGIONS})
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="boom"):
        fail_while_writing(path)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=re.escape(str(tmp_path / "none" / "plan.jsonl"))):
        PlanWriter(tmp_path / "none" / "plan.jsonl", "demosaic", {})
