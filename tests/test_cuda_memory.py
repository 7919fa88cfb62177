"""The device's memory through NVIDIA's Python package, on a driver that has no device (tests/fake_driver.c)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_tensorrt import FakeCuda

from engines import cuda_memory
from engines.contract import EngineError, MissingPackage, OutOfMemory
from engines.cuda_memory import Device, check_driver, failed
from engines.device_arrays import lives_on_device, of_capsule, view

ROOT = Path(__file__).parent.parent
EVERYTHING = """
import ctypes, threading
import numpy as np
from engines import cuda_memory
from engines.contract import EngineError, OutOfMemory

driver = ctypes.CDLL("libcuda.so.1")
assert cuda_memory.count() == 1
try:
    cuda_memory.open_device(1)
    raise AssertionError
except EngineError as error:
    assert "expected the device cuda:1, found 1" in str(error), error
cuda = cuda_memory.open_device(0)
assert cuda.device == cuda_memory.Device(0, "Fake GPU", 86, 12040), cuda.device

def work():
    with cuda.current():
        stream = cuda.stream()
        buffers, pinned = [cuda.allocate(1000), cuda.allocate(1000)], [cuda.pin(1000), cuda.pin(1000)]
        pinned[0].array[:] = np.arange(1000) % 251
        stream.upload(buffers[0].pointer, pinned[0].array[:500])
        stream.copy(buffers[1].pointer, buffers[0].pointer, 500)
        stream.download(pinned[1].array[:500], buffers[1].pointer)
        stream.wait()
        assert np.array_equal(pinned[1].array[:500], pinned[0].array[:500])
        cuda.wait_for_stream(stream.handle)
        for ask in (cuda.allocate, cuda.pin):
            try:
                ask(1 << 30)
                raise AssertionError
            except OutOfMemory as error:
                assert "did not suffice" in str(error), error
        calls = []
        graph = stream.capture(lambda: calls.append(1))
        graph.launch()
        try:
            stream.capture(lambda: 1 / 0)
            raise AssertionError
        except ZeroDivisionError:
            pass
        for each in (graph, stream, *buffers, *pinned):
            each.close()

for _ in range(2):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    work()
cuda.close()
print("left", driver.fake_live(), driver.fake_depth())
"""


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which it is found."""
    try:
        from cuda.bindings import driver  # noqa: F401
    except ImportError as error:
        if os.environ.get("REQUIRE_RTX"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-ldl"]
    source = str(Path(__file__).with_name("fake_driver.c"))
    subprocess.run([compiler, source, "-o", str(library), *options], check=True, timeout=120)
    paths = [str(ROOT), *sys.path]
    return {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run(program: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_that_the_package_does_for_us(fake_driver: dict[str, str]) -> None:
    """And everything is given back."""
    assert run(EVERYTHING, fake_driver).split() == ["left", "0", "0"]


def test_a_driver_without_a_device(fake_driver: dict[str, str]) -> None:
    program = """
from engines import cuda_memory
assert cuda_memory.count() == 0
try:
    cuda_memory.open_device(0)
except cuda_memory.EngineError as error:
    print(error)
"""
    said = run(program, {**fake_driver, "FAKE_NO_DEVICE": "1"})
    assert said.startswith("expected an NVIDIA GPU with its driver, found no driver that works (CUDA_ERROR_NO_DEVICE)")


def test_neither_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_memory, "PACKAGES", {"not_there.at.all": "a:b", "not_there": "a:b"})
    assert cuda_memory.count() == 0
    with pytest.raises(
        MissingPackage, match="neither cuda-bindings nor pycuda is installed; pip install cuda-bindings"
    ):
        cuda_memory.open_device(0)


def test_what_codes_mean() -> None:
    assert isinstance(failed("allocating", 2, "CUDA_ERROR_OUT_OF_MEMORY"), OutOfMemory)
    assert "driver that works (insufficient)" in str(failed("cuInit", 35, "insufficient"))
    assert "start the program again" in str(failed("waiting", 700, "CUDA_ERROR_ILLEGAL_ADDRESS"))
    assert str(failed("a copy", 1, "CUDA_ERROR_INVALID_VALUE")).endswith("CUDA_ERROR_INVALID_VALUE (error 1)")


def test_drivers() -> None:
    check_driver(Device(0, "Fake GPU", 86, 13010), 13, "TensorRT")
    check_driver(Device(0, "Fake GPU", 86, 11040), 0, "TensorRT")  # not known what it wants
    with pytest.raises(
        EngineError, match=r"CUDA 13\.0 or newer, got one that knows CUDA 12\.8; .*TensorRT for CUDA 12"
    ):
        check_driver(Device(0, "Fake GPU", 86, 12080), 13, "TensorRT")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8])
def test_dlpack_is_read_as_numpy_wrote_it(dtype: type) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    found = of_capsule("x", array.__dlpack__())
    assert (found.pointer, found.shape, found.dtype) == (array.ctypes.data, (2, 3, 4), np.dtype(dtype))
    assert found.nbytes == array.nbytes
    assert of_capsule("x", array[1:].__dlpack__()).pointer == array[1:].ctypes.data
    assert of_capsule("x", array[:1, 1:2].__dlpack__()).shape == (1, 1, 4)  # strides of single elements do not count
    with pytest.raises(EngineError, match="without gaps in memory, got strides"):
        of_capsule("x", array[:, ::2].__dlpack__())
    with pytest.raises(EngineError, match="numpy does not know"):
        of_capsule("x", np.zeros(2, np.complex64).__dlpack__())


def test_where_arrays_live() -> None:
    """Our stream is handed to the producer; another device's memory is refused."""
    array, streams = np.zeros((2, 2), np.float32), []

    def as_dlpack(stream: int) -> object:
        streams.append(stream)
        return array.__dlpack__()

    there = SimpleNamespace(__dlpack__=as_dlpack, __dlpack_device__=lambda: (2, 0))
    assert lives_on_device(there)
    assert not lives_on_device(array)
    assert not lives_on_device(SimpleNamespace(__dlpack_device__=lambda: (1, 0)))
    assert view("x", there, 42, FakeCuda()).pointer == array.ctypes.data  # type: ignore[arg-type]
    assert streams == [42]
    elsewhere = SimpleNamespace(__dlpack__=as_dlpack, __dlpack_device__=lambda: (2, 1))
    with pytest.raises(EngineError, match="expected the input x on cuda:0, got it on device 1"):
        view("x", elsewhere, 42, FakeCuda())  # type: ignore[arg-type]
