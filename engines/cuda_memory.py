"""The little of CUDA that an engine needs: context, stream, event, pinned and device buffers, graphs.

The same interface over NVIDIA's cuda-bindings (wheels; it captures graphs) and over pycuda (which compiles when it is
installed, and knows no graphs); the first is taken where both are there. No other module knows which of the two it is.
Sizes are in bytes, pointers and handles are integers.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.base import one_line
from engines.contract import EngineError, MissingPackage, OutOfMemory

Bytes: TypeAlias = npt.NDArray[np.uint8]
PACKAGES = {"cuda.bindings": "engines.cuda_bindings:Bindings", "pycuda": "engines.cuda_pycuda:PyCuda"}


@dataclass(frozen=True)
class Device:
    """`compute`: the capability, 86 for 8.6. `driver`: the newest CUDA that the driver knows, 13000 for 13.0."""

    index: int
    name: str
    compute: int
    driver: int


class Buffer(Protocol):
    """Memory on the device, aligned to 256."""

    pointer: int
    size: int

    def close(self) -> None: ...


class Pinned(Protocol):
    """Memory of the host that the device reads and writes itself, so that a copy runs beside everything else."""

    array: Bytes

    def close(self) -> None: ...


class Graph(Protocol):
    """Work that was captured; launching it costs one call instead of one for every kernel."""

    def launch(self) -> None: ...
    def close(self) -> None: ...


class Stream(Protocol):
    """Work on it runs in order, and beside that of other streams."""

    handle: int

    def upload(self, pointer: int, source: Bytes) -> None: ...
    def download(self, target: Bytes, pointer: int) -> None: ...
    def copy(self, target: int, source: int, size: int) -> None:
        """Within the device."""
        ...

    def capture(self, work: Callable[[], None]) -> Graph: ...
    def wait(self) -> None:
        """Sleep (not spin: decoders need the processor) until all of it is done."""
        ...

    def close(self) -> None: ...


class Cuda(Protocol):
    """One device. Everything but `device` and `current` wants the context to be current in the calling thread."""

    package: str
    captures: bool
    device: Device

    def current(self) -> AbstractContextManager[None]:
        """Make its context (the primary one, which torch and CuPy use too) current in this thread for a while."""
        ...

    def allocate(self, size: int) -> Buffer: ...
    def pin(self, size: int) -> Pinned: ...
    def stream(self) -> Stream: ...
    def wait_for_stream(self, handle: int) -> None:
        """Until another's stream has done all its work."""
        ...

    def close(self) -> None: ...


def count() -> int:
    """How many devices there are; 0 where there is no package, no driver or no device."""
    try:
        return _first().count()
    except EngineError:
        return 0


def open_device(index: int) -> Cuda:
    """Raises MissingPackage, and EngineError that tells what is wrong with the driver or the device."""
    kind = _first()
    found = kind.count()
    if index >= found:
        raise EngineError(f"expected the device cuda:{index}, found {found} NVIDIA GPUs here")
    cuda: Cuda = kind(index)
    return cuda


def _first() -> Any:
    """The class over the first package that is installed."""
    broken = []
    for package, where in PACKAGES.items():
        try:
            if importlib.util.find_spec(package) is None:
                continue
        except ModuleNotFoundError:  # of the parent, "cuda"
            continue
        module, name = where.split(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError as error:
            if not driver_is_there():  # pycuda's library links the driver's, and does not import where there is none
                raise no_driver(error) from error
            broken.append(f"{package} does not import ({one_line(error)})")
    why = "; ".join(broken) or "neither cuda-bindings nor pycuda is installed"
    raise MissingPackage(f"TensorRT needs a package for the device's memory: {why}; pip install cuda-bindings", "rtx")


def driver_is_there() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def no_driver(error: BaseException | None = None) -> EngineError:
    said = f" ({one_line(error).split('. ')[0]})" if error else ""
    return EngineError(
        f"expected an NVIDIA GPU with its driver, found no driver that works{said}; install NVIDIA's driver, or use "
        "another engine"
    )


def failed(what: str, code: int, said: str) -> EngineError:
    """The error of a CUDA call. 2 is out of memory; the others named here mean that there is no driver or device."""
    if code == 2:
        return OutOfMemory(f"the GPU's memory did not suffice: {what} ({said})")
    if code in (100, 34, 35):
        return no_driver(RuntimeError(said))
    if code in (700, 702, 710, 714, 715, 716, 717, 718, 719):  # the context is lost, and all that was in it
        return EngineError(f"the GPU stopped working on our behalf at {what} ({said}); start the program again")
    return EngineError(f"CUDA failed at {what}: {said} (error {code})")


def check_driver(device: Device, major: int, title: str) -> None:
    """Any driver of the same major CUDA goes. Raises EngineError where it is older."""
    if device.driver < major * 1000:
        has = f"{device.driver // 1000}.{device.driver % 1000 // 10}"
        raise EngineError(
            f"{title} here is made for CUDA {major}: expected an NVIDIA driver that knows CUDA {major}.0 or newer, got "
            f"one that knows CUDA {has}; update the driver, or install {title} for CUDA {has.split('.')[0]}"
        )
