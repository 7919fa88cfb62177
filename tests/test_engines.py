"""Every engine runs every shipped network, to the same numbers; what does not open says why in one line."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engines
import restore_plugin
from engines import ENGINES, Engine, EngineError, MissingPackage, UnknownEngine, check, open_engine
from restore_plugin import catalog
from restore_plugin.errors import InputError, MissingExtra, RestoreError

FILES = sorted(catalog.WEIGHTS.glob("*.onnx"))
SIZES = [(1, 32, 32), (1, 96, 64), (2, 32, 160)]
# of float32 sums in another order, absolute; what was found is a thousandth of it
LARGEST, MEAN = 1e-3, 1e-4


def random_inputs(path: Path, size: tuple[int, int, int], seed: int = 0) -> dict[str, np.ndarray]:
    """What the file asks for, random in [0, 1], with the free axes (batch, height, width) as given."""
    onnxruntime = pytest.importorskip("onnxruntime")
    multiple = next((row.multiple for row in catalog.METHODS if row.weights == path.name), 1)
    free = dict(
        zip(
            ("batch", "height", "width"),
            (size[0], *(-(-side // multiple) * multiple for side in size[1:])),
            strict=True,
        )
    )
    random = np.random.default_rng(seed)
    asked = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()
    return {each.name: random.random([free.get(n, n) for n in each.shape]).astype(np.float32) for each in asked}


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    try:
        if not engines.backend_of(request.param).devices():
            pytest.skip(f"{request.param} finds no device here")
    except MissingPackage as error:
        pytest.skip(str(error))
    return str(request.param)


def close_enough(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype == np.float32
    away = np.abs(found - expected)
    assert away.max() <= LARGEST
    assert away.mean() <= MEAN


@pytest.fixture(params=[1, 2], ids=["one stream", "two streams"])
def engine(engine_name: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    with open_engine(engine_name, FILES[0], streams=request.param) as opened:
        yield opened


def test_there_are_weights() -> None:
    """And the manifest has an entry for each and no other."""
    manifest = json.loads((catalog.WEIGHTS / "manifest.json").read_text())
    assert FILES
    assert sorted(manifest) == [path.name for path in FILES]
    rows = [*catalog.METHODS, *catalog.FINDERS]
    assert {row.weights for row in rows if row.weights} == set(manifest)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_manifest_tells_the_truth(path: Path) -> None:
    entry = json.loads((catalog.WEIGHTS / "manifest.json").read_text())[path.name]
    data = path.read_bytes()
    assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    assert entry["bytes"] == len(data)
    for key in ("licence", "command", "hardware", "data", "measured", "steps", "minutes"):
        assert entry[key], key
    onnx = pytest.importorskip("onnx")
    stored = onnx.load_from_string(data).graph.initializer
    floats = [each for each in stored if each.data_type == onnx.TensorProto.FLOAT]
    # an export folds normalisation into convolutions, and holds a few constants
    assert entry["parameters"] == pytest.approx(sum(int(np.prod(each.dims)) for each in floats), rel=0.005)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_network_has_a_stored_answer(path: Path) -> None:
    """It is torch's, of this very file, and of use: no zeros, small."""
    known = check.stored(path)
    assert known is not None, "write it with restore_plugin.training.export.write_check"
    assert check.path_of(path).stat().st_size < 200_000
    assert all(np.abs(array).max() > 0.01 for array in known.outputs.values())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_engines_agree_with_the_default(engine_name: str, path: Path, size: tuple[int, int, int]) -> None:
    inputs = random_inputs(path, size)
    with open_engine(engine_name, path, "fp32") as opened, open_engine(engines.DEFAULT, path) as default:
        assert (opened.name, opened.precision) == (engine_name, "fp32")
        found, expected = opened.run(inputs), default.run(inputs)
    assert found.keys() == expected.keys()
    assert all(np.abs(array).max() > 0.01 for array in expected.values())
    for name, array in expected.items():
        close_enough(found[name], array)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_lower_precisions_are_within_their_tolerance(engine_name: str, path: Path, precision: str) -> None:
    try:
        opened = open_engine(engine_name, path, precision)  # checks
    except UnknownEngine as error:
        pytest.skip(str(error))
    with opened:
        errors = check.check(opened, path)
    assert opened.precision == precision
    room = 0.9 if path.stem == "blurnet" else 0.5  # its answer to the stored noise is small: errors are more beside it
    assert 1e-5 < errors.largest < check.LARGEST[precision] * room  # computed so, and with room to spare


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("file", "network"), [("cellnet.onnx", "cellnet.CellNet"), ("mosaic_finder.onnx", "mosaic_finder.MosaicFinder")]
)
def test_engines_agree_with_torch(engine_name: str, file: str, network: str, size: tuple[int, int, int]) -> None:
    torch, onnx = pytest.importorskip("torch"), pytest.importorskip("onnx")
    module, name = network.split(".")
    model = getattr(pytest.importorskip(f"restore_plugin.networks.{module}"), name)()
    path = catalog.WEIGHTS / file
    stored = onnx.load(path).graph.initializer
    model.load_state_dict({each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in stored})
    inputs = random_inputs(path, size)
    with torch.no_grad(), open_engine(engine_name, path, "fp32") as opened:
        expected = model(*(torch.from_numpy(array) for array in inputs.values())).numpy()
        (found,) = opened.run(inputs).values()
    close_enough(found, expected)


def test_several_runs_may_be_under_way(engine: Engine) -> None:
    asked = [random_inputs(FILES[0], (1, 32 * (1 + seed % 3), 64), seed) for seed in range(8)]
    futures = [engine.submit(inputs) for inputs in asked]
    assert not wait(futures, timeout=60).not_done
    for inputs, future in zip(asked, futures, strict=True):
        expected, found = engine.run(inputs), future.result()
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=1e-5)


def test_may_be_called_from_several_threads(engine: Engine) -> None:
    asked = [random_inputs(FILES[0], (1, 32, 32 * (1 + seed)), seed) for seed in range(4)]
    alone = [next(iter(engine.run(inputs).values())) for inputs in asked]
    wrong: list[object] = []

    def call(index: int) -> None:
        try:
            for _ in range(5):
                (found,) = engine.run(asked[index]).values()
                np.testing.assert_allclose(found, alone[index], atol=1e-5)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_streams_answer_alike(engine_name: str) -> None:
    inputs = random_inputs(FILES[0], (1, 64, 96))
    with open_engine(engine_name, FILES[0]) as one, open_engine(engine_name, FILES[0], streams=2) as two:
        for name, array in one.run(inputs).items():
            np.testing.assert_allclose(two.run(inputs)[name], array, atol=1e-5)


def test_closing_waits_for_all_streams() -> None:
    """What is under way is answered, what comes later is refused; nothing is called on a network that is gone."""
    inputs = random_inputs(FILES[0], (1, 256, 256))
    engine = open_engine(engines.DEFAULT, FILES[0], streams=2)
    told: list[object] = []

    def call() -> None:
        try:
            while True:
                told.append(next(iter(engine.run(inputs).values())).shape)
        except EngineError as error:
            told.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not told:
        time.sleep(0.01)
    engine.close()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    refused = [each for each in told if isinstance(each, EngineError)]
    assert len(refused) == 3
    assert all("closed" in str(error) for error in refused)


def test_results_are_the_callers_own(engine: Engine) -> None:
    """A later run does not write into an earlier result."""
    inputs = random_inputs(FILES[0], (1, 32, 32))
    (first,) = engine.run(inputs).values()
    kept = first.copy()
    engine.run({name: array * 0.5 for name, array in inputs.items()})
    np.testing.assert_array_equal(first, kept)


def test_a_run_that_fails_says_so(engine_name: str) -> None:
    """Instead of waiting for ever: MosaicFinder's sides must be multiples of 32."""
    path = catalog.WEIGHTS / "mosaic_finder.onnx"
    opened = open_engine(engine_name, path)
    future = opened.submit({"luma": np.zeros((1, 1, 36, 36), np.float32)})
    assert future.exception(timeout=20) is not None
    good = {"luma": np.zeros((1, 1, 64, 32), np.float32)}
    assert opened.submit(good).result(timeout=20)["found"].shape == (1, 3, 16, 8)
    opened.close()


@pytest.mark.parametrize("content", [None, b"", b"no network" * 50, "cut"], ids=["missing", "empty", "text", "cut"])
def test_a_file_that_does_not_open(engine_name: str, tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "weights.onnx"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else FILES[0].read_bytes()[:100_000])
    with pytest.raises(EngineError) as raised:
        open_engine(engine_name, path)
    message = str(raised.value)
    assert str(path) in message
    assert "\n" not in message
    # the cause, not the place in the engine's source where it was noticed
    assert "src/" not in message
    assert len(message.replace(str(path), "")) > 45


def test_unknown_engine() -> None:
    with pytest.raises(UnknownEngine, match=r"openvino, onnxruntime.*auto.*got onyx"):
        open_engine("onyx", FILES[0])
    with pytest.raises(UnknownEngine, match=r"a device of openvino out of .*cpu.*got abacus"):
        open_engine("openvino:abacus", FILES[0])
    with pytest.raises(UnknownEngine, match=r"auto, fp32, fp16, bf16, got fp7"):
        open_engine("openvino", FILES[0], "fp7")
    with pytest.raises(InputError, match="got fp7"):
        restore_plugin.load("bicubic", precision="fp7")
    for method in catalog.METHODS:  # one without a network still finds what to restore with one
        with pytest.raises(InputError, match="got onyx"):
            restore_plugin.load(method.name, "onyx")


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its extra is named, and nothing else is tried."""
    monkeypatch.setitem(ENGINES, "onnxruntime", replace(ENGINES["onnxruntime"], module="engines.not_there"))
    with pytest.raises(MissingPackage, match=r"restore-plugin\[onnxruntime\]"):
        open_engine("onnxruntime", FILES[0])
    with pytest.raises(MissingExtra, match=r"restore-plugin\[onnxruntime\]"):
        catalog.build_restorer(catalog.method("cellnet"), "onnxruntime")


def test_the_help_names_the_engines_and_precisions() -> None:
    assert all(name in catalog.ENGINE_HELP for name in (*ENGINES, "auto", *engines.ALIASES))
    assert all(name in catalog.PRECISION_HELP for name in engines.PRECISIONS)


def test_missing_weights_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalog, "WEIGHTS", tmp_path)
    with pytest.raises(RestoreError, match=r"cellnet\.onnx"):
        catalog.build_restorer(catalog.method("cellnet"))
