"""A GPU and a TensorRT made of numpy: work on a stream is done when the stream is waited for, and no sooner.

The network is `sum` = 2 * `picture` + mean of `noise`. Memory of the "device" is the host's, at its true address.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from engines.contract import OutOfMemory
from engines.cuda_memory import Device


def floats(pointer: int, shape: tuple[int, ...]) -> np.ndarray:
    memory = (ctypes.c_float * math.prod(shape)).from_address(pointer)
    return np.ctypeslib.as_array(memory).reshape(shape)


class Memory:
    def __init__(self, cuda: FakeCuda, size: int) -> None:
        if size > cuda.limit:
            raise OutOfMemory(f"the GPU's memory did not suffice: {size} bytes")
        self.array = np.full(size, 0xA5, np.uint8)
        self.pointer, self.size, self._cuda = self.array.ctypes.data, size, cuda
        cuda.made += 1
        cuda.live.add(self)

    def close(self) -> None:
        self._cuda.live.remove(self)  # twice is an error


class FakeGraph:
    def __init__(self, stream: FakeStream, work: list[Callable[[], None]]) -> None:
        self._stream, self._work = stream, work
        stream.cuda.live.add(self)

    def launch(self) -> None:
        assert self in self._stream.cuda.live
        self._stream.cuda.log.append("launch")
        self._stream.work += self._work

    def close(self) -> None:
        self._stream.cuda.live.remove(self)


class FakeStream:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.work = cuda, []
        self.handle = id(self)
        cuda.streams[self.handle] = self
        cuda.live.add(self)

    def upload(self, pointer: int, source: np.ndarray) -> None:
        assert any(source.base is each.array for each in self.cuda.live if isinstance(each, Memory)), "not pinned"
        self.cuda.log.append("upload")
        self.work.append(lambda: ctypes.memmove(pointer, source.ctypes.data, source.nbytes))

    def download(self, target: np.ndarray, pointer: int) -> None:
        self.cuda.log.append("download")
        self.work.append(lambda: ctypes.memmove(target.ctypes.data, pointer, target.nbytes))

    def capture(self, work: Callable[[], None]) -> FakeGraph:
        kept, self.work = self.work, []
        try:
            work()
            return FakeGraph(self, self.work)
        finally:
            self.work = kept

    def wait(self) -> None:
        work, self.work = self.work, []
        for each in work:
            each()

    def close(self) -> None:
        assert not self.work
        self.cuda.live.remove(self)


class FakeCuda:
    package, captures = "fake", True

    def __init__(self, device: Device | None = None, limit: int = 1 << 24) -> None:
        self.device = device or Device(0, "Fake GPU", 86, 13000)
        self.limit, self.made, self.closed = limit, 0, False
        self.live: set[Any] = set()
        self.streams: dict[int, FakeStream] = {}
        self.log: list[str] = []
        self.waited: list[int] = []

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        yield

    def allocate(self, size: int) -> Memory:
        return Memory(self, size)

    def pin(self, size: int) -> Memory:
        return Memory(self, size)

    def stream(self) -> FakeStream:
        return FakeStream(self)

    def wait_for_stream(self, handle: int) -> None:
        self.waited.append(handle)

    def close(self) -> None:
        self.closed = True


class Mode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class FakeContext:
    """Held to TensorRT's rules: everything set before it runs, scratch memory large enough, graphs not outlived."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return self._engine.fake.takes_shapes

    def update_device_memory_size_for_shapes(self) -> int:
        return 4 * math.prod(self.shapes["picture"])

    def set_device_memory(self, pointer: int, size: int) -> None:
        self.scratch = size

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["picture"] if name == "sum" else self.shapes[name]

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, handle: int) -> bool:
        fake = self._engine.fake
        fake.cuda.log.append("execute")
        if fake.fails:
            fake.logger.log(fake.ILogger.Severity.ERROR, "Error Code 1:\n the fake fails")
            return False
        assert self.scratch >= self.update_device_memory_size_for_shapes()
        state = (dict(self.shapes), dict(self.addresses))

        def work() -> None:
            assert state == (self.shapes, self.addresses), "a graph was launched after its context had changed"
            fake.meet()
            picture = floats(self.addresses["picture"], self.shapes["picture"])
            noise = floats(self.addresses["noise"], self.shapes["noise"])
            floats(self.addresses["sum"], self.shapes["picture"])[:] = 2 * picture + noise.mean()

        fake.cuda.streams[handle].work.append(work)
        return True


class FakeEngine:
    names = ("picture", "noise", "sum")
    num_io_tensors = 3

    def __init__(self, fake: FakeTensorRt) -> None:
        self.fake = fake

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> str:
        return "float"

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.OUTPUT if name == "sum" else Mode.INPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 4) if name == "noise" else (-1, 3, -1, -1)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 4), (1, 4), (2, 4)] if name == "noise" else [(1, 3, 8, 8), (1, 3, 16, 16), (2, 3, 512, 512)]

    def create_execution_context(self, strategy: str) -> FakeContext | None:
        self.fake.contexts += 1
        return None if self.fake.contexts > self.fake.most_contexts else FakeContext(self)


class FakeTensorRt:
    """Stands for the module `tensorrt` 10. `meet` is called while a network "computes"."""

    TensorIOMode = Mode
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    __version__ = "10.0"

    class ILogger:
        class Severity(enum.IntEnum):
            ERROR = 1
            WARNING = 2

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.meet = cuda, lambda: None
        self.fails, self.takes_shapes, self.loads = False, True, True
        self.contexts, self.most_contexts = 0, 99
        self.logger: Any = None

    def nptype(self, kind: str) -> type:
        return np.float32

    def Runtime(self, logger: Any) -> Any:
        self.logger = logger
        return SimpleNamespace(deserialize_cuda_engine=lambda data: FakeEngine(self) if self.loads else None)
