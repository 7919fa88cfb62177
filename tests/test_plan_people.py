"""What a plan says of people: who, who else it may be, how it is known, and why a frame is worth a look."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from restore_plugin.errors import InputError
from restore_plugin.plan import PlanReader, PlanWriter, check, labels, region_from_json, region_to_json
from restore_plugin.types import BETWEEN, BEYOND, FOUND, Box, Region

FACE = Region(Box(10, 20, 30, 40), 3, phase=(10.0, 20.0), confidence=0.75)
REGIONS = [
    replace(FACE, label="person-1", maybe=("alice", "person-2")),
    replace(FACE, label="Zoë M.", origin=BETWEEN),
    replace(FACE, origin=BEYOND, doubt="ended inside the picture", soft=4),
    replace(FACE, label="alice", outline=(((10, 20), (40, 30), (20, 60)),)),
    FACE,
]


def write(path: Path, frames: dict[int, list[Region]]) -> Path:
    with PlanWriter(path, "automosaic", {}) as plan:
        for frame, regions in frames.items():
            plan.add(frame, frame / 25, regions)
    return path


def edited(path: Path, **changes: object) -> Path:
    """A plan with one region, as a person would write it."""
    line = json.dumps({"frame": 4, "regions": [{"box": [1, 2, 30, 40], **changes}]})
    path.write_text(f'{{"plan": 1, "task": "automosaic"}}\n{line}\n')
    return path


def test_round_trip(tmp_path: Path) -> None:
    frames = {0: REGIONS, 7: REGIONS[:2], 8: REGIONS[2:]}
    assert dict(PlanReader(write(tmp_path / "plan.jsonl", frames), "automosaic")) == frames


def test_what_stands_in_the_file() -> None:
    """By hand; what says nothing is left out, so the plans of other tasks stay as they were."""
    assert region_to_json(REGIONS[0]) == {
        "id": 3,
        "box": [10, 20, 30, 40],
        "confidence": 0.75,
        "label": "person-1",
        "maybe": ["alice", "person-2"],
    }
    assert region_to_json(REGIONS[2]) == {
        "id": 3,
        "box": [10, 20, 30, 40],
        "confidence": 0.75,
        "origin": "beyond",
        "soft": 4,
        "doubt": "ended inside the picture",
    }
    assert region_to_json(FACE) == {"id": 3, "box": [10, 20, 30, 40], "confidence": 0.75}


def test_all_of_it_is_plain_json(tmp_path: Path) -> None:
    """As any program reads it."""
    lines = write(tmp_path / "plan.jsonl", {2: REGIONS}).read_text(encoding="utf-8").splitlines()
    regions = json.loads(lines[1])["regions"]
    assert [region.get("label") for region in regions] == ["person-1", "Zoë M.", None, "alice", None]
    assert [region.get("origin") for region in regions] == [None, "between", "beyond", None, None]


def test_what_is_left_out() -> None:
    region = region_from_json({"box": [1, 2, 3, 4]})
    assert (region.label, region.maybe, region.origin, region.doubt, region.soft) == ("", (), FOUND, "", 0)


def test_a_person_edits_the_label(tmp_path: Path) -> None:
    path = edited(tmp_path / "plan.jsonl", label="the guard", maybe=["person-4"], origin="found", doubt="")
    ((frame, (region,)),) = PlanReader(path, "automosaic")
    assert frame == 4
    assert region == Region(
        Box(1, 2, 30, 40), phase=(1.0, 2.0), label="the guard", maybe=("person-4",), origin=FOUND, doubt=""
    )


@pytest.mark.parametrize("origin", ["", "seen", "Found", None, 3, ["found"]])
def test_an_origin_that_is_none(tmp_path: Path, origin: object) -> None:
    path = edited(tmp_path / "plan.jsonl", origin=origin)
    video = tmp_path / "video.mp4"
    video.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"line 2.*found, between, beyond") as raised:
        check(path, "automosaic", video, (320, 240))
    assert "\n" not in str(raised.value)


def test_everybody_whom_a_plan_names(tmp_path: Path) -> None:
    """Once each, also those whom they only may be; not nobody."""
    path = write(tmp_path / "plan.jsonl", {0: REGIONS[:2], 3: REGIONS[2:]})
    assert labels(path, "automosaic") == {name for region in REGIONS for name in (region.label, *region.maybe) if name}
    assert labels(write(tmp_path / "nobody.jsonl", {0: [FACE]}), "automosaic") == set()


def test_a_region_that_is_moved_stays_the_same_person() -> None:
    for region in REGIONS:
        moved = region.shift(5, -7)
        assert moved.box == Box(15, 13, 30, 40)
        assert replace(moved, box=region.box, phase=region.phase, outline=region.outline) == region
