"""Arrays that already live on the GPU, of torch, CuPy and others, used where they are.

DLPack (https://dmlc.github.io/dlpack) first: it makes our stream wait for theirs. Else `__cuda_array_interface__`
(numba's, version 3), whose producer's stream is waited for here.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.contract import EngineError, Shape
from engines.cuda_memory import Cuda

CUDA, CUDA_MANAGED = 2, 13  # DLDeviceType
KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}  # DLDataTypeCode, of what numpy knows


@dataclass(frozen=True)
class DeviceArray:
    """C-contiguous. `owner` keeps the memory alive."""

    pointer: int
    shape: Shape
    dtype: np.dtype[Any]
    owner: object

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class DLDevice(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def lives_on_device(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return False
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) in (CUDA, CUDA_MANAGED)
    return hasattr(value, "__cuda_array_interface__")


def view(name: str, value: Any, stream: int, cuda: Cuda) -> DeviceArray:
    """For work on `stream`. Raises EngineError for memory of another device, or with gaps."""
    if not hasattr(value, "__dlpack__"):
        return of_interface(name, value, cuda)
    _, index = value.__dlpack_device__()
    if int(index) != cuda.device.index:
        raise EngineError(f"expected the input {name} on cuda:{cuda.device.index}, got it on device {int(index)}")
    return of_capsule(name, value.__dlpack__(stream=stream))


def of_capsule(name: str, capsule: Any) -> DeviceArray:
    """The capsule is not consumed, only kept: when it goes, it gives the memory back itself."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = DLTensor.from_address(get(capsule, b"dltensor"))
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    kind = KINDS.get(tensor.dtype.code)
    if kind is None or tensor.dtype.lanes != 1:
        raise EngineError(f"the input {name} is of a type that numpy does not know (DLPack {tensor.dtype.code})")
    dtype = np.dtype(f"{kind}{tensor.dtype.bits // 8}")
    if tensor.strides:
        check_contiguous(name, shape, tuple(tensor.strides[axis] for axis in range(tensor.ndim)))
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, dtype, capsule)


def of_interface(name: str, value: Any, cuda: Cuda) -> DeviceArray:
    told = value.__cuda_array_interface__
    shape, dtype = tuple(told["shape"]), np.dtype(told["typestr"])
    if told.get("strides"):
        check_contiguous(name, shape, tuple(step // dtype.itemsize for step in told["strides"]))
    stream = told.get("stream")  # None: nothing to wait for
    if stream is not None:
        cuda.wait_for_stream(int(stream))
    return DeviceArray(int(told["data"][0]), shape, dtype, value)


def check_contiguous(name: str, shape: Shape, strides: Shape) -> None:
    """`strides` in elements; of an axis with one element any goes."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            raise EngineError(
                f"expected the input {name} without gaps in memory, got strides {strides}; make it contiguous"
            )
        step *= size
