"""`engines.cuda_memory` over pycuda. It knows no graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pycuda.driver as driver

from engines.base import one_line
from engines.contract import EngineError
from engines.cuda_memory import Bytes, Device, Graph, failed, no_driver

OUT_OF_MEMORY = 2


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Its exceptions carry no number, only the text."""
    try:
        yield
    except driver.MemoryError as error:
        raise failed(what, OUT_OF_MEMORY, one_line(error)) from error
    except driver.Error as error:
        said = one_line(error)
        if any(word in said for word in ("no CUDA-capable device", "driver version is insufficient", "stub library")):
            raise no_driver(error) from error
        raise EngineError(f"CUDA failed at {what}: {said}") from error


class PyCuda:
    """Cuda."""

    package = "pycuda"
    captures = False

    def __init__(self, index: int) -> None:
        with translated("opening the device"):
            driver.init()
            device = driver.Device(index)
            major, minor = device.compute_capability()
            self.device = Device(index, device.name(), 10 * major + minor, driver.get_driver_version())
            self._context = device.retain_primary_context()

    @staticmethod
    def count() -> int:
        with translated("counting the devices"):
            driver.init()
            return int(driver.Device.count())

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        with translated("taking the context"):
            self._context.push()
        try:
            yield
        finally:
            driver.Context.pop()

    def allocate(self, size: int) -> PyCudaBuffer:
        return PyCudaBuffer(size)

    def pin(self, size: int) -> PyCudaPinned:
        return PyCudaPinned(size)

    def stream(self) -> PyCudaStream:
        return PyCudaStream()

    def wait_for_stream(self, handle: int) -> None:
        with translated("waiting for the device"):
            driver.Context.synchronize()  # it can wait for no stream but its own

    def close(self) -> None:
        with translated("giving the context back"):
            self._context.detach()  # its destructor would end the context, which is not only ours


class PyCudaBuffer:
    def __init__(self, size: int) -> None:
        self.size = size
        with translated(f"allocating {size} bytes"):
            self._memory = driver.mem_alloc(size)
        self.pointer = int(self._memory)

    def close(self) -> None:
        with translated("freeing memory"):
            self._memory.free()


class PyCudaPinned:
    def __init__(self, size: int) -> None:
        with translated(f"pinning {size} bytes"):
            self.array: Bytes = driver.pagelocked_empty(size, np.uint8)

    def close(self) -> None:
        memory: Any = self.array.base
        del self.array
        with translated("freeing pinned memory"):
            memory.free()


class PyCudaStream:
    def __init__(self) -> None:
        with translated("making a stream"):
            self._stream: Any = driver.Stream()
            flags = driver.event_flags
            self._done: Any = driver.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING)
        self.handle = int(self._stream.handle)

    def upload(self, pointer: int, source: Bytes) -> None:
        with translated("a copy to the device"):
            driver.memcpy_htod_async(pointer, source, self._stream)

    def download(self, target: Bytes, pointer: int) -> None:
        with translated("a copy from the device"):
            driver.memcpy_dtoh_async(target, pointer, self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        with translated("a copy within the device"):
            driver.memcpy_dtod_async(target, source, size, self._stream)

    def capture(self, work: Callable[[], None]) -> Graph:
        raise EngineError("pycuda cannot capture graphs; pip install cuda-bindings")

    def wait(self) -> None:
        with translated("waiting for the device"):
            self._done.record(self._stream)
            self._done.synchronize()

    def close(self) -> None:
        self._stream = self._done = None
