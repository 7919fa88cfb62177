"""TensorRT: every shipped network compiles without a GPU; wrong plans and machines are refused.

The tests named `gpu` need one: without it they skip, with REQUIRE_GPU=1 they fail. REQUIRE_RTX=1 does the same for the
packages of the extra `rtx`.
"""

import contextlib
import os
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import FakeCuda

from engines import check, cuda_memory
from engines.contract import EngineError, MissingPackage, OutOfMemory, Profile, Target, UnknownEngine
from engines.cuda_memory import Device
from engines.tensorrt_engine import TensorRt, TensorRtRtx, index_of
from engines.tensorrt_plan import MAGIC, Plan, unpack
from restore_plugin import catalog

FILES = sorted(catalog.WEIGHTS.glob("*.onnx"))
CAPABILITIES = (75, 80, 86, 89, 120)
ids = {"ids": lambda value: getattr(value, "stem", None) or str(value)}


@pytest.fixture(scope="module")
def rtx() -> TensorRtRtx:
    pytest.importorskip("onnx")
    try:
        return TensorRtRtx()
    except MissingPackage as error:
        if os.environ.get("REQUIRE_RTX"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def built(rtx: TensorRtRtx) -> bytes:
    return rtx.build(FILES[0], Target(precision="fp16", compute=(86,)))


def pretend(monkeypatch: pytest.MonkeyPatch, device: Device) -> FakeCuda:
    cuda = FakeCuda(device)
    monkeypatch.setattr(cuda_memory, "open_device", lambda index: cuda)
    return cuda


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("compute", CAPABILITIES)
@pytest.mark.parametrize("path", FILES, **ids)
def test_every_network_compiles_for_every_capability(
    rtx: TensorRtRtx, path: Path, compute: int, precision: str
) -> None:
    plan, engine = unpack(rtx.build(path, Target(precision=precision, compute=(compute,))))
    assert (plan.backend, plan.precision, plan.compute) == ("tensorrt_rtx", precision, (compute,))
    weights = path.stat().st_size / (2 if precision == "fp16" else 1)
    # the weights are in it, in the precision asked for, and the code of its layers, of which did_mdn has hundreds
    assert 0.9 * weights < len(engine) < weights + 20e6


def test_one_engine_for_several_capabilities_and_fixed_sizes(rtx: TensorRtRtx) -> None:
    sizes = ((1, 1, 736, 1280),) * 3
    target = Target(precision="fp16", profile=Profile((("luma", sizes),)), compute=(75, 86, 120))
    plan, _ = unpack(rtx.build(catalog.WEIGHTS / "mosaic_finder.onnx", target))
    assert plan.compute == (75, 86, 120)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target(compute=(86, 90)), r"compiles for 75, 80, 86, 89, 120, 121, not for 90"),
        (Target(compute=(86,), precision="bf16"), "fp16 or fp32, got bf16"),
        (Target(compute=(86,), profile=Profile((("luma", ((1, 1, 30, 32),) * 3),))), "mosaic_finder.onnx in fp32: "),
        (
            Target(compute=(86,), profile=Profile((("luma", ((1, 1, 64, 64), (1, 1, 32, 32), (1, 1, 32, 32))),))),
            "sizes",
        ),
    ],
)
def test_builds_that_cannot_be(rtx: TensorRtRtx, target: Target, said: str) -> None:
    with pytest.raises(EngineError, match=said) as raised:
        rtx.build(catalog.WEIGHTS / "mosaic_finder.onnx", target)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [None, b"", b"no network" * 50, "cut"], ids=["missing", "empty", "text", "cut"])
def test_a_network_that_does_not_open(rtx: TensorRtRtx, tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "weights.onnx"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else FILES[0].read_bytes()[:100_000])
    with pytest.raises(EngineError) as raised:
        rtx.build(path, Target(compute=(86,)))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_versions_alone_count_for_other_machines(rtx: TensorRtRtx, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(rtx.machine("")) == ["tensorrt_rtx"]
    pretend(monkeypatch, Device(0, "Fake GPU", 89, 13000))
    told = rtx.machine("cuda")
    assert (told["device"], told["compute"], told["driver"]) == ("Fake GPU", "89", "13000")


@pytest.mark.parametrize(("here", "serves"), [(89, (89,)), (90, ())])
def test_for_this_machine(rtx: TensorRtRtx, monkeypatch: pytest.MonkeyPatch, here: int, serves: tuple[int]) -> None:
    """One that it has no name for (Hopper) gets the engine for 8.0 and later."""
    cuda = pretend(monkeypatch, Device(0, "Fake GPU", here, 13000))
    assert unpack(rtx.build(FILES[0], Target(precision="fp16")))[0].compute == serves
    assert cuda.closed


# --- plans and machines that are refused


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "got 0 bytes of something else"),
        (lambda data: b"x" * 1000, "got 1000 bytes of something else"),
        (lambda data: data[: len(data) // 2], "is damaged"),
        (lambda data: data[: len(MAGIC) + 20], "is damaged"),
        (lambda data: data[:-1], "is damaged"),
        (lambda data: data + b"\0", "is damaged"),
        (lambda data: flipped(data, len(MAGIC) + 1), "is damaged|something else"),
        (lambda data: flipped(data, len(data) // 2), "is damaged"),
        (lambda data: flipped(data, len(data) - 1), "is damaged"),
    ],
)
def test_a_damaged_engine_is_refused(rtx: TensorRtRtx, built: bytes, damage: Any, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        rtx.load(FILES[0], damage(built), Target(precision="fp16"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backend": "tensorrt"}, "the backend is tensorrt, expected tensorrt_rtx"),
        ({"version": "1.0.0"}, "TensorRT's version is 1.0.0, expected"),
        ({"precision": "fp32"}, "the precision is fp32, expected fp16"),
        ({"onnx": "0" * 64}, "the network is 000000000000, expected"),
    ],
)
def test_an_engine_for_something_else_is_refused(
    rtx: TensorRtRtx, built: bytes, change: dict[str, str], said: str
) -> None:
    plan, engine = unpack(built)
    with pytest.raises(EngineError, match=said):
        rtx.load(FILES[0], replace(plan, **change).pack(engine), Target(precision="fp16"))  # type: ignore[arg-type]


def test_an_engine_for_another_capability_is_refused(
    rtx: TensorRtRtx, built: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = pretend(monkeypatch, Device(0, "Fake GPU", 120, 13000))
    with pytest.raises(
        EngineError, match=r"compiled for compute capability 8\.6, but Fake GPU has 12\.0; .*--compute 120"
    ):
        rtx.load(FILES[0], built, Target(precision="fp16"))
    assert cuda.closed
    anywhere = Plan("tensorrt_rtx", rtx.machine("")["tensorrt_rtx"], "fp16", (), unpack(built)[0].onnx)
    pretend(monkeypatch, Device(0, "Fake GPU", 75, 13000))
    with pytest.raises(EngineError, match=r"capability 8\.0 and later, but Fake GPU has 7\.5"):
        rtx.load(FILES[0], anywhere.pack(unpack(built)[1]), Target(precision="fp16"))


def test_a_driver_that_is_too_old(rtx: TensorRtRtx, built: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = pretend(monkeypatch, Device(0, "Fake GPU", 86, 12020))
    said = r"expected an NVIDIA driver that knows CUDA 13\.0 or newer, got one that knows CUDA 12\.2; update the driver"
    with pytest.raises(EngineError, match=said):
        rtx.load(FILES[0], built, Target(precision="fp16"))
    with pytest.raises(EngineError, match=said):
        rtx.build(FILES[0], Target(precision="fp16"))
    assert cuda.closed


def test_no_driver(rtx: TensorRtRtx, built: bytes) -> None:
    if cuda_memory.count():
        pytest.skip("there is a GPU here")
    assert rtx.devices() == ()
    with pytest.raises(EngineError, match=r"expected an NVIDIA GPU with its driver.*; install NVIDIA's driver"):
        rtx.load(FILES[0], built, Target(precision="fp16"))
    with pytest.raises(EngineError, match=r"or say for which compute capabilities .* --compute"):
        rtx.build(FILES[0], Target(precision="fp16"))


def test_devices_have_names() -> None:
    assert [index_of(name) for name in ("", "cuda", "cuda:0", "cuda:2")] == [0, 0, 0, 2]
    for name in ("cpu", "cuda:x", "0", "cuda:-1"):
        with pytest.raises(UnknownEngine, match="expected a device such as cuda or cuda:1"):
            index_of(name)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    flavour = replace(TensorRt.flavour, modules=("tensorrt_not_there",))
    monkeypatch.setattr(TensorRt, "flavour", flavour)
    with pytest.raises(MissingPackage, match=r"tensorrt_not_there is not installed; pip install .*\[tensorrt\]"):
        TensorRt()


def answers(path: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, given), strict=True))


# --- on a GPU


@pytest.fixture(scope="module", params=[TensorRtRtx, TensorRt], ids=["rtx", "tensorrt"])
def on_gpu(request: pytest.FixtureRequest) -> Any:
    """The backend's class. REQUIRE_GPU=1 wants a GPU, and the one of the two that is installed."""
    if not cuda_memory.count():
        (pytest.fail if os.environ.get("REQUIRE_GPU") else pytest.skip)("there is no NVIDIA GPU here")
    installed = []
    for kind in (TensorRtRtx, TensorRt):
        with contextlib.suppress(MissingPackage):
            kind()
            installed.append(kind)
    if not installed and os.environ.get("REQUIRE_GPU"):
        pytest.fail("neither TensorRT nor TensorRT for RTX is installed")
    if request.param not in installed:
        pytest.skip(f"{request.param.flavour.title} is not installed")
    return request.param


@pytest.fixture(scope="module")
def finder(on_gpu: Any) -> tuple[Path, bytes]:
    path = catalog.WEIGHTS / "mosaic_finder.onnx"
    return path, on_gpu().build(path, Target(precision="fp16"))


def luma(seed: int, height: int = 256, width: int = 256) -> dict[str, np.ndarray]:
    return {"luma": np.random.default_rng(seed).random((1, 1, height, width), np.float32)}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("path", FILES, **ids)
def test_gpu_parity(on_gpu: Any, path: Path, precision: str) -> None:
    """With torch's stored answer, and at other sizes with ONNX Runtime's."""
    target = Target(precision=precision)
    backend = on_gpu()
    with backend.load(path, backend.build(path, target), target) as engine:
        assert check.check(engine, path).within
        random = np.random.default_rng(2)
        for free in ((1, 32, 96), (2, 256, 256), (1, 736, 1280)):
            sizes = dict(enumerate(free, start=-1)) | {0: free[0]}
            given = {}
            for name, asked in engine.inputs.items():
                shape = [size or (free[0] if axis == 0 else sizes[axis - 2]) for axis, size in enumerate(asked.shape)]
                given[name] = random.random(shape, np.float32)
            assert check.compare(engine.run(given), answers(str(path), given), precision).within


def test_gpu_slots_and_graphs(on_gpu: Any, finder: tuple[Path, bytes]) -> None:
    path, built = finder
    asked = [luma(seed, 256 + 32 * (seed // 8)) for seed in range(16)]
    with on_gpu(slots=1, graphs=False).load(path, built, Target(precision="fp16")) as engine:
        alone = [engine.run(given)["found"] for given in asked]
    with on_gpu(slots=2).load(path, built, Target(precision="fp16")) as engine:
        futures = [engine.submit(given) for given in asked]
        assert not wait(futures, timeout=120).not_done
        for future, expected in zip(futures, alone, strict=True):
            assert check.compare(future.result(), {"found": expected}, "fp16").within


def test_gpu_arrays_of_torch(on_gpu: Any, finder: tuple[Path, bytes]) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch knows no CUDA")
    path, built = finder
    given = luma(3)
    with on_gpu().load(path, built, Target(precision="fp16")) as engine:
        expected = engine.run(given)
        there = torch.from_numpy(given["luma"]).cuda()
        assert check.compare(engine.run({"luma": there}), expected, "fp16").within
        out = torch.zeros(expected["found"].shape, device="cuda")
        engine.run_into({"luma": there * 1.0}, {"found": out})
        assert check.compare({"found": out.cpu().numpy()}, expected, "fp16").within


def test_gpu_out_of_memory(on_gpu: Any, finder: tuple[Path, bytes]) -> None:
    """All that is free is taken; afterwards the engine works again."""
    path, built = finder
    with on_gpu(slots=1).load(path, built, Target(precision="fp16")) as engine:
        expected = engine.run(luma(4, 64, 64))
        cuda = cuda_memory.open_device(0)
        with cuda.current():
            held, size = [], 1 << 34
            while size >= 1 << 16:
                try:
                    held.append(cuda.allocate(size))
                except OutOfMemory:
                    size //= 2
            try:
                with pytest.raises(OutOfMemory, match="ran out of memory for luma 1x1x2048x2048"):
                    engine.run(luma(5, 2048, 2048))
            finally:
                for each in held:
                    each.close()
        cuda.close()
        assert check.compare(engine.run(luma(4, 64, 64)), expected, "fp16").within
