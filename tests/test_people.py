"""Recognition: descriptors of one real face, and the joining of tracks with descriptors worked out by hand."""

import importlib.util
import itertools
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from engines.contract import EngineError
from engines.dlib_network import as_onnx
from restore_plugin.errors import InputError, MissingExtra
from restore_plugin.masks import people
from restore_plugin.masks.people import OTHER, SAME, Describer, distance, group, portrait, squared
from restore_plugin.types import Box

FACE = Box(182, 58, 88, 120)  # of scikit-image's astronaut, as CenterFace finds it


@pytest.fixture(scope="module")
def describer() -> Describer:
    try:
        return Describer()
    except MissingExtra:
        if os.environ.get("REQUIRE_FACES") == "1":
            raise
        pytest.skip("needs dlib and its models")


def another() -> np.ndarray:
    """(100, 100, 3) uint8: somebody else's face, from 25 x 25 px."""
    small = data.lfw_subset()[0].astype(np.float32)
    large = cv2.resize(small, (100, 100), interpolation=cv2.INTER_CUBIC)
    return np.repeat((np.clip(large, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


# --- descriptors


def test_a_person_stays_the_same(describer: Describer) -> None:
    picture = data.astronaut()
    known = describer.describe(picture, FACE)
    assert known.shape == (128,)
    assert known.dtype == np.float32
    half = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA)
    bright = np.clip(picture * 1.3 + 10, 0, 255).astype(np.uint8)
    others = {
        "half as large": (half, Box(91, 29, 44, 60)),
        "brighter": (bright, FACE),
        "a mirror": (picture[:, ::-1], Box(512 - FACE.right, FACE.y, FACE.width, FACE.height)),
        "a box that is off": (picture, FACE.grow(12, 10, Box(0, 0, 512, 512))),
    }
    for what, (changed, box) in others.items():
        assert distance(known, describer.describe(changed, box)) < SAME - 0.1, what


def test_descriptors_are_dlib_s_own(describer: Describer) -> None:
    import dlib

    picture, square = data.astronaut(), squared(FACE)
    folder = people.models_folder()
    points = dlib.shape_predictor(str(folder / people.POINTS))
    network = dlib.face_recognition_model_v1(str(folder / people.NETWORK))
    place = dlib.rectangle(square.x, square.y, square.right - 1, square.bottom - 1)
    theirs = np.array(network.compute_face_descriptor(picture, points(picture, place)))
    np.testing.assert_allclose(describer.describe(picture, FACE), theirs, atol=1e-5)  # they are about 1.4 long


@pytest.mark.parametrize("kept", [0, 1000, 1_000_000])
def test_another_file_is_not_dlib_s_network(describer: Describer, kept: int) -> None:
    whole = (people.models_folder() / people.NETWORK).read_bytes()
    with pytest.raises(EngineError, match="expected dlib's face recognition network"):
        as_onnx(whole[:kept])


def test_another_person_is_another(describer: Describer) -> None:
    known = describer.describe(data.astronaut(), FACE)
    assert distance(known, describer.describe(another(), Box(10, 0, 80, 100))) > OTHER


def test_a_face_at_the_picture_s_corner(describer: Describer) -> None:
    assert np.isfinite(describer.describe(data.astronaut(), Box(-30, -40, 80, 100))).all()
    assert np.isfinite(describer.describe(data.astronaut(), Box(500, 500, 4, 5))).all()


def test_portrait(describer: Describer) -> None:
    picture = data.astronaut()
    np.testing.assert_array_equal(portrait(picture, [FACE], describer), describer.describe(picture, FACE))
    with pytest.raises(InputError, match="found none"):
        portrait(picture, [], describer)
    with pytest.raises(InputError, match="found 2"):
        portrait(picture, [FACE, FACE], describer)


def test_only_the_free_models_are_opened() -> None:
    """The 68-point predictor may not be used commercially."""
    assert "68" not in people.POINTS + people.NETWORK


def test_without_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is looked for, never imported: what it imports may be gone."""
    package = tmp_path / people.MODELS
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('pkg_resources')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    with pytest.raises(MissingExtra, match=r"recognising faces needs the extra `faces`"):
        people.models_folder()
    for name in (people.POINTS, people.NETWORK):
        (package / "models" / name).touch()
    assert people.models_folder() == package / "models"
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(MissingExtra):
        people.models_folder()


def test_without_dlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingExtra, match=r"restore-plugin\[faces\]"):
        Describer()


@pytest.mark.parametrize("box", [Box(100, 50, 78, 100), Box(-20, -10, 40, 60)])
def test_the_square_lies_around_the_face(box: Box) -> None:
    square = squared(box)
    assert abs(square.width - square.height) <= 1
    assert box.width <= square.width <= box.height
    assert abs(square.x + square.right - box.x - box.right) <= 2


# --- joining; a descriptor here is a place on a line


def places(*at: float) -> np.ndarray:
    found = np.zeros((len(at), 128), np.float32)
    found[:, 0] = at
    return found


def test_distance_is_the_nearer_half_s_mean() -> None:
    """Of 2, 10, 1 and 9 the nearer half is 1 and 2; of 1, 4 and 7, 1 and 4."""
    assert distance(places(1.0)[0], places(3.5)[0]) == 2.5
    assert distance(places(0, 1), places(2, 10)) == 1.5
    assert distance(places(0), places(7, 1, 4)) == 2.5


def test_tracks_are_joined_by_hand() -> None:
    """At 0 and 0.2 one person, at 1 another; one track shows nobody well enough."""
    tracks = [places(1.0), places(0.0, 0.05), places(), places(0.2), places(1.1, 1.2)]
    assert group(tracks) == [0, 1, None, 1, 0]


def test_a_chain_of_look_alikes_is_cut() -> None:
    """Each is within SAME of the next. By hand: the nearest, 0.81 + 1.20, then 0 + 0.40; their pairs are 0.805 apart on
    the mean, and 1.61 is 0.605 from the former."""
    assert group([places(at) for at in (0.0, 0.40, 0.81, 1.20, 1.61)]) == [0, 0, 1, 1, 2]


def test_those_seen_together_are_apart() -> None:
    """Twins: 0 and 1 at the same time, then 2, which is nearer to 1."""
    tracks = [places(0.0), places(0.1), places(0.12)]
    assert group(tracks) == [0, 0, 0]
    assert group(tracks, {(0, 1)}) == [0, 1, 1]
    assert group(tracks, {(1, 0)}) == [0, 1, 1]
    assert group(tracks, {(0, 1), (1, 2), (0, 2)}) == [0, 1, 2]


def test_nobody_and_none() -> None:
    assert group([]) == []
    assert group([places(), places()]) == [None, None]
    assert group([places(3)], {(0, 4)}) == [0]


@pytest.mark.parametrize("seed", range(20))
def test_people_of_a_crowd(seed: int) -> None:
    """Random people far from each other, random sightings of them, in random order: everybody is found once, and no
    pair that is apart is ever joined."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(6, 128)) * 0.1  # 1.6 from each other
    truth = random.integers(6, size=25)
    tracks = [
        (centres[who] + random.normal(size=(random.integers(1, 6), 128)) * 0.02).astype(np.float32) for who in truth
    ]
    found = group(tracks)
    for a, b in itertools.combinations(range(25), 2):
        assert (found[a] == found[b]) == (truth[a] == truth[b])
    numbers = list(dict.fromkeys(found))
    assert numbers == list(range(len(numbers)))  # in order of the first track
    apart = {(int(a), int(b)) for a, b in random.integers(25, size=(30, 2)) if a != b}
    found = group(tracks, apart)
    assert all(found[a] != found[b] for a, b in apart)
