"""`engines.cuda_memory` over NVIDIA's cuda-bindings."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cuda.bindings import driver

from engines.contract import EngineError
from engines.cuda_memory import Bytes, Device, failed, no_driver


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Its results without the error code, which becomes an exception."""
    try:
        code, *results = function(*arguments)
    except RuntimeError as error:  # the driver's library is not found, or lacks this function
        raise no_driver(error) from error
    if int(code):
        raise failed(function.__name__, int(code), code.name)
    return results[0] if len(results) == 1 else tuple(results)


class Bindings:
    """Cuda."""

    package = "cuda-bindings"
    captures = True

    def __init__(self, index: int) -> None:
        call(driver.cuInit, 0)
        self._device = call(driver.cuDeviceGet, index)
        kind = driver.CUdevice_attribute
        major = call(driver.cuDeviceGetAttribute, kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, self._device)
        minor = call(driver.cuDeviceGetAttribute, kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, self._device)
        name = call(driver.cuDeviceGetName, 256, self._device).split(b"\0")[0].decode()
        self.device = Device(index, name, 10 * major + minor, call(driver.cuDriverGetVersion))
        self._context = call(driver.cuDevicePrimaryCtxRetain, self._device)

    @staticmethod
    def count() -> int:
        call(driver.cuInit, 0)
        return int(call(driver.cuDeviceGetCount))

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        call(driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            call(driver.cuCtxPopCurrent)

    def allocate(self, size: int) -> BindingsBuffer:
        return BindingsBuffer(size)

    def pin(self, size: int) -> BindingsPinned:
        return BindingsPinned(size)

    def stream(self) -> BindingsStream:
        return BindingsStream()

    def wait_for_stream(self, handle: int) -> None:
        call(driver.cuStreamSynchronize, handle)

    def close(self) -> None:
        call(driver.cuDevicePrimaryCtxRelease, self._device)


class BindingsBuffer:
    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer = int(call(driver.cuMemAlloc, size))

    def close(self) -> None:
        call(driver.cuMemFree, self.pointer)


class BindingsPinned:
    def __init__(self, size: int) -> None:
        self._pointer = int(call(driver.cuMemHostAlloc, size, 0))
        self.array: Bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._pointer))

    def close(self) -> None:
        del self.array  # it would point at nothing
        call(driver.cuMemFreeHost, self._pointer)


class BindingsStream:
    def __init__(self) -> None:
        # one that does not wait for the default stream, where others may work
        self._stream = call(driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self.handle = int(self._stream)
        kind = driver.CUevent_flags
        flags = kind.CU_EVENT_BLOCKING_SYNC | kind.CU_EVENT_DISABLE_TIMING
        self._done = call(driver.cuEventCreate, flags)

    def upload(self, pointer: int, source: Bytes) -> None:
        call(driver.cuMemcpyHtoDAsync, pointer, source.ctypes.data, source.nbytes, self._stream)

    def download(self, target: Bytes, pointer: int) -> None:
        call(driver.cuMemcpyDtoHAsync, target.ctypes.data, pointer, target.nbytes, self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        call(driver.cuMemcpyDtoDAsync, target, source, size, self._stream)

    def capture(self, work: Callable[[], None]) -> BindingsGraph:
        # thread-local: what other threads do meanwhile, such as allocating, neither enters it nor breaks it
        call(driver.cuStreamBeginCapture, self._stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            work()
        except BaseException:
            with contextlib.suppress(EngineError):  # where the capture itself broke; the stream is usable again
                call(driver.cuGraphDestroy, call(driver.cuStreamEndCapture, self._stream))
            raise
        return BindingsGraph(call(driver.cuStreamEndCapture, self._stream), self._stream)

    def wait(self) -> None:
        call(driver.cuEventRecord, self._done, self._stream)
        call(driver.cuEventSynchronize, self._done)

    def close(self) -> None:
        call(driver.cuEventDestroy, self._done)
        call(driver.cuStreamDestroy, self._stream)


class BindingsGraph:
    def __init__(self, graph: Any, stream: Any) -> None:
        self._stream = stream
        try:
            self._graph = call(driver.cuGraphInstantiate, graph, 0)
        finally:
            call(driver.cuGraphDestroy, graph)

    def launch(self) -> None:
        call(driver.cuGraphLaunch, self._graph, self._stream)

    def close(self) -> None:
        call(driver.cuGraphExecDestroy, self._graph)
