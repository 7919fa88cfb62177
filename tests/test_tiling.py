"""A picture in tiles is the picture as a whole, whatever its size and however little memory there is."""

import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engines.contract import EngineError, OutOfMemory
from restore_plugin.errors import InputError
from restore_plugin.tiling import TiledNetwork, TileRule, pad, plan_tiles, ramps, run_tiled

RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.random((9, 9)).astype(np.float32) - 0.3
RULE = TileRule(reach=4, multiple=4, largest=64, minimum=32)


def filtered(batch: np.ndarray) -> np.ndarray:
    """(N, C, h, w) -> the same: each channel through a 9x9 kernel with zeros around the picture."""
    return np.stack([[cv2.filter2D(c, -1, KERNEL, borderType=cv2.BORDER_CONSTANT) for c in each] for each in batch])


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).random((channels, height, width)).astype(np.float32)


def whole(run: Callable[[np.ndarray], np.ndarray], image: np.ndarray, multiple: int = 4) -> np.ndarray:
    return run(pad(image, multiple)[None])[0][:, : image.shape[1], : image.shape[2]]


class FakeEngine:
    """Filters; raises OutOfMemory above `limit` px in all calls that are under way at once."""

    name, device, precision = "fake", "GPU", "fp32"

    def __init__(self, limit: float = float("inf"), name: str = "fake") -> None:
        self.limit, self.name = limit, name
        self.calls: list[tuple[int, ...]] = []
        self.closed = 0
        self.under_way = self.most_under_way = 0
        self._used = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.submit(inputs).result()

    def submit(self, inputs: Mapping[str, Any]) -> Future[dict[str, Any]]:
        batch = inputs["picture"]
        size = batch.shape[0] * batch.shape[2] * batch.shape[3]
        with self._lock:
            assert not self.closed
            self.calls.append(batch.shape)
            self._used += size
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            fits = self._used <= self.limit
        return self._pool.submit(self._work, batch, size, fits)

    def _work(self, batch: np.ndarray, size: int, fits: bool) -> dict[str, Any]:
        try:
            if not fits:
                raise OutOfMemory("no memory is left")
            return {"restored": filtered(batch)}
        finally:
            with self._lock:
                self._used -= size
                self.under_way -= 1

    def close(self) -> None:
        assert self.under_way == 0
        self.closed += 1

    def __enter__(self) -> "FakeEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def network(engine: FakeEngine, rule: TileRule = RULE, **options: Any) -> tuple[TiledNetwork, list[str]]:
    said: list[str] = []
    return TiledNetwork(engine, "picture", "restored", rule, said.append, **options), said


@pytest.mark.parametrize(
    "size", [(1, 1), (3, 5), (64, 64), (65, 64), (32, 128), (33, 127), (130, 97), (200, 30), (5, 900), (301, 299)]
)
def test_tiles_give_what_the_whole_gives(size: tuple[int, int]) -> None:
    image = picture(*size)
    seen: list[tuple[int, ...]] = []

    def run(batch: np.ndarray) -> np.ndarray:
        seen.append(batch.shape)
        return filtered(batch)

    found = run_tiled(run, image, RULE)
    assert found.shape == image.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole(filtered, image), atol=1e-5)
    assert len(set(seen)) == 1  # one shape: engines compile for each
    for shape in seen:
        assert shape[2] * shape[3] <= RULE.largest**2
        assert shape[2] % 4 == shape[3] % 4 == 0


def unet(path: Path) -> None:
    """Half size, its half, and back with a skip: what a tile gives depends on where it lies on the grid of 4."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 8, 3, 3), "w4": (12, 8, 3, 3)}
    stored = [numpy_helper.from_array(RANDOM.normal(0, 0.2, s).astype(np.float32), n) for n, s in shapes.items()]
    stored.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["picture", "w1"], ["a"], strides=[2, 2], **same),
        helper.make_node("Conv", ["a", "w2"], ["b"], strides=[2, 2], **same),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "w3"], ["d"], **same),
        helper.make_node("Resize", ["d", "", "scales"], ["e"], mode="nearest"),
        helper.make_node("Add", ["a", "e"], ["f"]),
        helper.make_node("Conv", ["f", "w4"], ["g"], **same),
        helper.make_node("DepthToSpace", ["g"], ["restored"], blocksize=2),
    ]
    value = helper.make_tensor_value_info
    given, made = (value(n, onnx.TensorProto.FLOAT, ["n", 3, "h", "w"]) for n in ("picture", "restored"))
    graph = helper.make_graph(nodes, "unet", [given], [made], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def onnx_runner(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(batch: np.ndarray) -> np.ndarray:
        (found,) = session.run(None, {"picture": batch})
        return np.asarray(found)

    return run


def test_a_strided_network_agrees(tmp_path: Path) -> None:
    """Its field of view: 1 + 2 + (4 + 4) + 2 and the nearest enlargement, below 24 px to either side."""
    unet(tmp_path / "unet.onnx")
    run = onnx_runner(tmp_path / "unet.onnx")
    for size in ((128, 128), (150, 201), (97, 400)):
        image = picture(*size)
        expected = whole(run, image)
        assert np.abs(expected).max() > 0.5
        np.testing.assert_allclose(run_tiled(run, image, TileRule(24, 4, 96)), expected, atol=1e-5)
    # and the test would see it if tiles lay off the grid
    shifted = run(np.ascontiguousarray(pad(image, 4)[None, :, :, 2:-2]))[0]
    assert np.abs(shifted[:, :97, 98:102] - expected[:, :, 100:104]).max() > 1 / 255


def test_seams_are_blended_where_the_reach_is_too_small() -> None:
    """Edges of tiles never show as steps: from pixel to pixel the error changes little."""
    image = np.full((1, 160, 160), 0.5, np.float32)
    levels = itertools.cycle((np.float32(0), np.float32(0.1)))
    found = run_tiled(lambda batch: batch + next(levels), image, TileRule(0, 8, 64))
    assert np.ptp(found) > 0.05
    assert max(np.abs(np.diff(found, axis=axis)).max() for axis in (1, 2)) < 0.1 / 8


@pytest.mark.parametrize("multiple", [1, 4, 8, 32])
@pytest.mark.parametrize("reach", [0, 5, 24])
def test_every_plan_covers_and_overlaps(reach: int, multiple: int) -> None:
    rule = TileRule(reach, multiple, 128, 32, longest=256)
    for _ in range(60):
        height, width = (int(n) * multiple for n in RANDOM.integers(1, 900 // multiple, 2))
        largest = int(RANDOM.integers(32, 400))
        tiles = plan_tiles(height, width, rule, largest)
        for length, tile, places in ((height, tiles.height, tiles.rows), (width, tiles.width, tiles.columns)):
            assert places[0] == 0
            assert places[-1] + tile == length
            assert all(place % multiple == 0 for place in places)
            assert all(a + tile - b >= 2 * reach + 16 for a, b in itertools.pairwise(places))
            total = np.zeros(length)
            for place, weights in ramps(length, tile, places).items():
                total[place : place + tile] += weights
                # what counts of a tile lies `reach` away from its sides, where the picture goes on beyond them
                inside = np.flatnonzero(weights)
                assert place == 0 or inside[0] >= reach
                assert place + tile == length or inside[-1] < tile - reach
            np.testing.assert_allclose(total, 1, atol=1e-6)
        if (
            tiles.area > largest**2 or max(tiles.height, tiles.width) > rule.longest
        ):  # then no smaller tile was possible
            smaller = plan_tiles(height, width, rule, 1)
            assert tiles == smaller


def test_a_full_hd_picture_wastes_little() -> None:
    tiles = plan_tiles(1080, 1920, TileRule(64, 8, 1024))
    assert tiles.count * tiles.area < 1.25 * 1080 * 1920


def test_pictures_that_fit_run_whole() -> None:
    engine = FakeEngine()
    run, said = network(engine)
    image = picture(30, 120)  # 64 x 64 px is the rule's largest tile
    np.testing.assert_allclose(run(image), whole(filtered, image), atol=1e-5)
    assert engine.calls == [(1, 3, 32, 120)]
    engine.calls.clear()
    run(picture(30, 130))
    assert len(engine.calls) > 1
    assert not said


def test_no_side_is_longer_than_compiled_engines_serve() -> None:
    for size in ((200, 8000), (2160, 3840), (8, 2056)):
        tiles = plan_tiles(*size, TileRule(64, 8, 2048))
        assert max(tiles.height, tiles.width) <= 2048
        assert tiles.count > 1


def test_two_tiles_are_in_flight() -> None:
    engine = FakeEngine()
    run, _ = network(engine)
    run(picture(200, 200))
    assert engine.most_under_way == 2


def test_batches_are_cut_before_tiles() -> None:
    engine = FakeEngine(limit=2 * 64 * 64)
    run, said = network(engine, TileRule(4, 4, 64, 32, batch=8))
    image = picture(250, 250)
    np.testing.assert_allclose(run(image), whole(filtered, image), atol=1e-5)
    sizes = {shape[2:] for shape in engine.calls}
    assert len(sizes) == 1
    assert engine.calls[0][0] == 8
    assert engine.calls[-1][0] <= 2
    assert len(said) == 1


def test_out_of_memory_steps_down_once_and_is_remembered() -> None:
    engine = FakeEngine(limit=60 * 60)
    run, said = network(engine, TileRule(4, 4, 128, 32))
    image = picture(150, 140)
    np.testing.assert_allclose(run(image), whole(filtered, image), atol=1e-5)
    assert len(said) == 1
    assert "out of memory on fake (GPU, fp32); going on in tiles of at most" in said[0]
    engine.calls.clear()
    run(image)
    assert all(shape[2] * shape[3] <= 60 * 60 for shape in engine.calls)  # nothing is tried again
    engine.limit = 48 * 48
    image = picture(90, 90)
    np.testing.assert_allclose(run(image), whole(filtered, image), atol=1e-5)
    assert len(said) == 1
    assert not engine.closed
    run.close()
    assert engine.closed == 1


def test_a_small_picture_steps_down_from_its_own_size() -> None:
    engine = FakeEngine(limit=64 * 64)
    run, said = network(engine, TileRule(4, 4, 1024, 32))
    image = picture(100, 100)
    np.testing.assert_allclose(run(image), whole(filtered, image), atol=1e-5)
    assert len(engine.calls) < 15
    assert said == ["out of memory on fake (GPU, fp32); going on in tiles of at most 50x50 px"]


def test_the_fallback_comes_last_and_is_said_once() -> None:
    engine, other = FakeEngine(limit=100), FakeEngine(name="other")
    opened: list[str] = []

    def missing() -> FakeEngine:
        opened.append("missing")
        raise EngineError("no such precision")

    def open_other() -> FakeEngine:
        assert engine.closed == 1  # its memory is free before
        opened.append("other")
        return other

    run, said = network(engine, fallbacks=[missing, open_other])
    image = picture(150, 140)
    for _ in range(2):
        np.testing.assert_allclose(run(image), whole(filtered, image), atol=1e-5)
    assert opened == ["missing", "other"]
    assert said == ["out of memory on fake (GPU, fp32); going on with other (GPU, fp32)"]
    assert run.engine is other
    assert max(shape[2] for shape in other.calls) > 32  # in tiles of the usual size
    run.close()
    assert (engine.closed, other.closed) == (1, 1)


def test_tiles_never_become_too_small_to_be_right() -> None:
    """Below twice the reach there is no tile; the error says what to do, and smaller pictures still run."""
    engine = FakeEngine(limit=60 * 60)
    run, said = network(engine, TileRule(40, 4, 128, 32))
    with pytest.raises(OutOfMemory, match=r"fake \(GPU, fp32\).*no memory is left.*another device"):
        run(picture(300, 300))
    assert not said
    image = picture(50, 50)
    np.testing.assert_allclose(run(image), whole(filtered, image), atol=1e-5)


def test_when_no_fallback_opens() -> None:
    def missing() -> FakeEngine:
        raise EngineError("no such device")

    engine = FakeEngine(limit=10)
    run, _ = network(engine, fallbacks=[missing])
    with pytest.raises(OutOfMemory, match="no such device"):
        run(picture(90, 90))
    with pytest.raises(EngineError, match="open it again"):
        run(picture(9, 9))
    assert engine.closed == 1


def test_other_errors_pass() -> None:
    engine = FakeEngine()

    def broken(inputs: Mapping[str, Any]) -> Future[dict[str, Any]]:
        raise EngineError("the device is gone")

    engine.submit = broken  # type: ignore[method-assign]
    run, said = network(engine)
    with pytest.raises(EngineError, match="the device is gone"):
        run(picture(90, 90))
    assert not said


def test_several_threads_share_a_network() -> None:
    engine, other = FakeEngine(limit=3000), FakeEngine(name="other")
    run, said = network(engine, TileRule(24, 4, 128, 32), fallbacks=[lambda: other])
    images = [picture(100 + 40 * n, 130) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(run, image) for image in images * 3]
        for image, future in zip(images * 3, futures, strict=True):
            np.testing.assert_allclose(future.result(timeout=60), whole(filtered, image), atol=1e-5)
    assert len(said) == 1
    run.close()
    assert (engine.closed, other.closed) == (1, 1)


@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.float32), np.zeros((1, 8, 8)), np.zeros((1, 0, 8), np.float32)])
def test_what_is_no_picture(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"\(C, H, W\) in float32"):
        run_tiled(filtered, wrong, RULE)


def test_a_network_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"answers \(1, C, 8, 8\), got \(1, 1, 4, 4\)"):
        run_tiled(lambda batch: batch[:, :, ::2, ::2], picture(8, 8, 1), RULE)


@pytest.mark.parametrize("change", [{"reach": -1}, {"multiple": 0}, {"minimum": 2000}, {"batch": 0}])
def test_rules_that_make_no_sense(change: dict[str, int]) -> None:
    with pytest.raises(InputError, match="minimum <= largest"):
        TileRule(**{"reach": 1, "multiple": 1, "largest": 1024, **change})
