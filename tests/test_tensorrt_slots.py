"""How TensorRT's engines use a GPU's memory, streams and graphs: on a GPU made of numpy (tests/fake_tensorrt.py)."""

import threading
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_tensorrt import FakeCuda, FakeTensorRt

from engines.contract import EngineError, OutOfMemory
from engines.tensorrt_engine import TensorRtEngine
from engines.tensorrt_libraries import TENSORRT


def open_fake(fake: FakeTensorRt, slots: int = 1, graphs: bool = True) -> TensorRtEngine:
    backend = SimpleNamespace(name="tensorrt", flavour=TENSORRT, slots=slots, graphs=graphs)
    return TensorRtEngine(fake, fake.cuda, b"engine", backend, "fp16", Path("none"))  # type: ignore[arg-type]


def inputs(height: int = 16, width: int = 16, batch: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    picture = random.random((batch, 3, height, width), np.float32)
    return {"picture": picture, "noise": random.random((batch, 4), np.float32)}


def right(given: dict[str, np.ndarray]) -> np.ndarray:
    return 2 * given["picture"] + given["noise"].mean()


class OnDevice:
    """As CuPy's arrays tell of themselves."""

    def __init__(self, array: np.ndarray, stream: int | None = None) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        told = {"shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, False), "version": 3}
        self.__cuda_array_interface__ = {**told, "strides": array.strides, "stream": stream}


@pytest.fixture
def fake() -> FakeTensorRt:
    return FakeTensorRt(FakeCuda())


def test_copies_in_order_and_answers_are_the_callers_own(fake: FakeTensorRt) -> None:
    with open_fake(fake) as engine:
        first = engine.run(inputs())["sum"]
        assert fake.cuda.log == ["upload", "upload", "execute", "download"]
        kept = first.copy()
        engine.run(inputs(seed=1))
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_allclose(first, right(inputs()), rtol=1e-6)


def test_an_array_with_gaps(fake: FakeTensorRt) -> None:
    given = inputs(32, 32)
    given["picture"] = given["picture"][:, ::-1, ::2, 8:24]
    with open_fake(fake) as engine:
        np.testing.assert_allclose(engine.run(given)["sum"], right(given), rtol=1e-6)


def test_buffers_are_used_again_and_all_is_given_back(fake: FakeTensorRt) -> None:
    with open_fake(fake) as engine:
        for size in (64, 16, 64, 32, 8):  # after the largest, no more memory is asked for
            given = inputs(size, size + 8, seed=size)
            np.testing.assert_allclose(engine.run(given)["sum"], right(given), rtol=1e-6)
            if size == 64:
                made = fake.cuda.made
        assert fake.cuda.made == made
        engine.run(inputs(128, 128, batch=2))
        assert fake.cuda.made > made
    assert not fake.cuda.live
    assert fake.cuda.closed


def test_two_slots_are_under_way_at_once(fake: FakeTensorRt) -> None:
    both = threading.Barrier(2)
    fake.meet = lambda: both.wait(20) and None  # neither ends before the other has begun
    with open_fake(fake, slots=2) as engine:
        asked = [inputs(16 + 8 * (seed % 3), 24, seed=seed) for seed in range(12)]
        futures = [engine.submit(given) for given in asked]
        assert not wait(futures, timeout=60).not_done
        for given, future in zip(asked, futures, strict=True):
            np.testing.assert_allclose(future.result()["sum"], right(given), rtol=1e-6)
    assert not fake.cuda.live


def test_a_slot_comes_back_after_an_error(fake: FakeTensorRt) -> None:
    with open_fake(fake, slots=2) as engine:
        fake.fails = True
        for _ in range(5):
            with pytest.raises(EngineError, match=r"tensorrt on cuda could not run picture 1x3x16x16.*the fake fails$"):
                engine.run(inputs())
        fake.fails = False
        for _ in range(5):
            np.testing.assert_allclose(engine.run(inputs())["sum"], right(inputs()), rtol=1e-6)


def test_out_of_memory_gives_all_back_and_less_fits(fake: FakeTensorRt) -> None:
    with open_fake(fake) as engine:
        engine.run(inputs())
        fake.cuda.limit = 40_000
        with pytest.raises(OutOfMemory, match="ran out of memory for picture 1x3x64x64"):
            engine.run(inputs(64, 64))
        assert len(fake.cuda.live) == 1  # the stream
        for _ in range(3):
            np.testing.assert_allclose(engine.run(inputs(32, 32))["sum"], right(inputs(32, 32)), rtol=1e-6)
    assert not fake.cuda.live


def test_graphs(fake: FakeTensorRt) -> None:
    """The second run of a size is captured, those after it are one call; another size or buffer ends that."""
    with open_fake(fake) as engine:
        for size in (16, 16, 16, 16, 24, 24, 24, 16):
            given = inputs(size, size, seed=size)
            np.testing.assert_allclose(engine.run(given)["sum"], right(given), rtol=1e-6)
        calls = [each for each in fake.cuda.log if each in ("execute", "launch")]
        first = ["execute", "execute", "launch", "launch", "launch"]
        assert calls == first + ["execute", "execute", "launch", "launch"] + ["execute"]
    assert not fake.cuda.live


@pytest.mark.parametrize("how", ["asked", "package", "refused"])
def test_without_graphs(fake: FakeTensorRt, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.cuda.captures = how != "package"
    if how == "refused":

        def refuse(stream: object, work: object) -> None:
            raise EngineError("CUDA failed at cuStreamEndCapture")

        monkeypatch.setattr("fake_tensorrt.FakeStream.capture", refuse)
    with open_fake(fake, graphs=how != "asked") as engine:
        for _ in range(4):
            np.testing.assert_allclose(engine.run(inputs())["sum"], right(inputs()), rtol=1e-6)
    assert "launch" not in fake.cuda.log


def test_arrays_on_the_device_are_not_copied(fake: FakeTensorRt) -> None:
    given = inputs()
    there = {"picture": OnDevice(given["picture"], stream=7), "noise": given["noise"]}
    answer = np.zeros_like(given["picture"])
    with open_fake(fake) as engine:
        for _ in range(3):
            np.testing.assert_allclose(engine.run(there)["sum"], right(given), rtol=1e-6)
        assert fake.cuda.log[:3] == ["upload", "execute", "download"]
        assert fake.cuda.waited[0] == 7  # the producer's stream
        assert "launch" not in fake.cuda.log
        fake.cuda.log.clear()
        engine.run_into({"picture": there["picture"], "noise": OnDevice(given["noise"])}, {"sum": OnDevice(answer)})
        assert fake.cuda.log == ["execute"]
        np.testing.assert_allclose(answer, right(given), rtol=1e-6)
        with pytest.raises(EngineError, match="without gaps"):
            engine.run({**given, "picture": OnDevice(given["picture"][..., ::2])})
        with pytest.raises(EngineError, match=r"expected room for float32 \(1, 3, 16, 16\) for the output sum"):
            engine.run_into(given, {"sum": OnDevice(answer[:, :1])})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"noise": None}, "expected the inputs picture, noise, got picture"),
        ({"picture": np.zeros((1, 3, 16, 16))}, "expected float32 for the input picture, got float64"),
        ({"picture": np.zeros((1, 4, 16, 16), np.float32)}, "built for 1x3x8x8 to 2x3x512x512.*got 1x4x16x16"),
        ({"picture": np.zeros((3, 16, 16), np.float32)}, "expected the shape anyx3xanyxany .*, got 3x16x16"),
        ({"picture": np.zeros((1, 3, 4, 16), np.float32)}, "built for 1x3x8x8 to 2x3x512x512.*got 1x3x4x16; cut it"),
    ],
)
def test_inputs_that_do_not_fit(fake: FakeTensorRt, change: dict[str, np.ndarray | None], said: str) -> None:
    given = {name: array for name, array in {**inputs(), **change}.items() if array is not None}
    with open_fake(fake) as engine, pytest.raises(EngineError, match=said):
        engine.run(given)


def test_after_closing(fake: FakeTensorRt) -> None:
    engine = open_fake(fake, slots=2)
    future = engine.submit(inputs())
    engine.close()
    engine.close()
    np.testing.assert_allclose(future.result()["sum"], right(inputs()), rtol=1e-6)
    for _ in range(3):
        with pytest.raises(EngineError, match="was closed"):
            engine.run(inputs())
    assert not fake.cuda.live


def test_what_cannot_be_opened_leaves_nothing_behind(fake: FakeTensorRt) -> None:
    fake.most_contexts = 1
    with pytest.raises(EngineError, match="could not make the network ready"):
        open_fake(fake, slots=2)
    assert not fake.cuda.live
    fake.loads = False
    with pytest.raises(EngineError, match="TensorRT could not load the engine"):
        open_fake(fake)
