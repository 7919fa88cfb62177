"""One request under way: an execution context with its own stream and buffers. Two of them overlap copies and work."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.base import Input
from engines.contract import EngineError, OutOfMemory, Shape
from engines.cuda_memory import Buffer, Cuda, Graph, Pinned
from engines.device_arrays import DeviceArray, lives_on_device, view
from engines.tensorrt_build import failure


@dataclass(frozen=True)
class Signature:
    """What a network takes, and the types of what it gives, by name."""

    inputs: dict[str, Input]
    outputs: dict[str, np.dtype[Any]]


class Slot:
    """For one thread at a time, in which the device's context is current.

    Buffers grow with what is asked for and stay; after running out of memory all of them are given back. What a network
    needs in between ("scratch") follows the shapes of the request, where TensorRT lets us hold it (from 10 on).

    A captured graph belongs to one set of shapes and addresses. The first run with them is an ordinary one, in which
    TensorRT makes what it needs; the second is captured; later ones only launch the graph.
    """

    def __init__(self, cuda: Cuda, context: Any, logger: Any, signature: Signature, capture: bool) -> None:
        self._cuda, self._context, self._logger = cuda, context, logger
        self._signature, self._outputs = signature, signature.outputs
        self._stream = cuda.stream()
        self._buffers: dict[str, Buffer] = {}
        self._pinned: dict[str, Pinned] = {}
        self._holds_scratch = hasattr(context, "update_device_memory_size_for_shapes")
        self._capture = capture and cuda.captures
        self._graph: Graph | None = None
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._runs = 0  # with these shapes and addresses

    def run(self, inputs: Mapping[str, Any], into: Mapping[str, Any] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Arrays of numpy, or on the device. The answers come as arrays of numpy, or go into `into` on the device."""
        try:
            return self._run(inputs, into or {})
        except OutOfMemory:
            self._give_back()
            raise
        except BaseException:
            self._drop_graph()
            with contextlib.suppress(EngineError):
                self._stream.wait()  # nothing may still read or write the buffers when the next request takes them
            raise

    def _run(self, inputs: Mapping[str, Any], into: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        given = {name: self._taken(name, value) for name, value in inputs.items()}
        check_inputs(self._signature.inputs, given)
        self._set_shapes({name: tuple(array.shape) for name, array in given.items()})
        shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in self._outputs}
        targets = {name: self._target(name, value, shapes[name]) for name, value in into.items()}
        for name, array in given.items():
            if isinstance(array, DeviceArray):
                self._set_address(name, array.pointer)
            else:
                self._set_address(name, self._buffer(name, array.nbytes).pointer)
                self._upload(name, array)
        sizes = {name: math.prod(shapes[name]) * self._outputs[name].itemsize for name in shapes}
        for name in shapes:
            own = name not in targets
            self._set_address(name, self._buffer(name, sizes[name]).pointer if own else targets[name].pointer)
        self._execute(fixed=not targets and not any(isinstance(each, DeviceArray) for each in given.values()))
        for name in shapes.keys() - targets.keys():
            self._stream.download(self._pin(f"out {name}", sizes[name]), self._buffers[name].pointer)
        self._stream.wait()
        found = {}
        for name in shapes:
            if name not in targets:
                memory = self._pinned[f"out {name}"].array[: sizes[name]]
                found[name] = memory.view(self._outputs[name]).reshape(shapes[name]).copy()
        return found

    def _taken(self, name: str, value: Any) -> npt.NDArray[Any] | DeviceArray:
        return view(name, value, self._stream.handle, self._cuda) if lives_on_device(value) else value

    def _target(self, name: str, value: Any, shape: Shape) -> DeviceArray:
        found = view(name, value, self._stream.handle, self._cuda)
        if found.shape != shape or found.dtype != self._outputs[name]:
            wanted = f"{self._outputs[name]} {shape}"
            raise EngineError(f"expected room for {wanted} for the output {name}, got {found.dtype} {found.shape}")
        return found

    def _set_shapes(self, shapes: dict[str, Shape]) -> None:
        if shapes == self._shapes:
            return
        self._drop_graph()
        self._shapes = {}  # until all are set
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise failure(f"TensorRT does not take the shape {shape} for the input {name}", self._logger)
        if self._holds_scratch:
            size = int(self._context.update_device_memory_size_for_shapes())
            if size:
                scratch = self._buffer("scratch memory", size)
                self._context.set_device_memory(scratch.pointer, scratch.size)
        self._shapes = shapes

    def _set_address(self, name: str, pointer: int) -> None:
        if self._addresses.get(name) != pointer:
            self._drop_graph()
            if not self._context.set_tensor_address(name, pointer):
                raise failure(f"TensorRT does not take the memory for {name}", self._logger)
            self._addresses[name] = pointer

    def _upload(self, name: str, array: npt.NDArray[Any]) -> None:
        """Through pinned memory, which also makes one piece of an array with gaps."""
        memory = self._pin(f"in {name}", array.nbytes)
        np.copyto(memory.view(array.dtype).reshape(array.shape), array)
        self._stream.upload(self._addresses[name], memory)

    def _execute(self, fixed: bool) -> None:
        """`fixed`: only our own buffers, whose addresses come again."""
        self._runs += 1
        if self._capture and fixed and self._graph is None and self._runs >= 2:
            try:
                self._graph = self._stream.capture(self._enqueue)
            except OutOfMemory:
                raise
            except EngineError:  # not every network can be captured; it runs as well without
                self._capture = False
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise failure("TensorRT could not run the network", self._logger)

    def _buffer(self, name: str, size: int) -> Buffer:
        held = self._buffers.get(name)
        if held is None or held.size < size:
            self._drop_graph()
            if held is not None:
                del self._buffers[name]
                held.close()  # before: the two together may not fit
            self._buffers[name] = held = self._cuda.allocate(max(size, 1))
        return held

    def _pin(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        held = self._pinned.get(name)
        if held is None or held.array.nbytes < size:
            if held is not None:
                del self._pinned[name]
                held.close()
            self._pinned[name] = held = self._cuda.pin(max(size, 1))
        return held.array[:size]

    def _drop_graph(self) -> None:
        self._runs = 0
        if self._graph is not None:
            graph, self._graph = self._graph, None
            graph.close()

    def _give_back(self) -> None:
        """All memory. The stream is waited for first, since copies may be under way."""
        with contextlib.suppress(EngineError):
            self._stream.wait()
        self._shapes, self._addresses = {}, {}
        with contextlib.suppress(EngineError):
            self._drop_graph()
        everything: list[Buffer | Pinned] = [*self._buffers.values(), *self._pinned.values()]
        for held in everything:
            with contextlib.suppress(EngineError):
                held.close()
        self._buffers.clear()
        self._pinned.clear()

    def close(self) -> None:
        self._give_back()
        self._context = None  # before the stream that it worked on
        self._stream.close()


def check_inputs(asked: dict[str, Input], given: Mapping[str, Any]) -> None:
    """Raises EngineError for what the network does not take; TensorRT would read beyond the end of a small array."""
    if given.keys() != asked.keys():
        raise EngineError(f"expected the inputs {', '.join(asked)}, got {', '.join(given) or 'none'}")
    for name, wants in asked.items():
        shape, dtype = given[name].shape, given[name].dtype
        if dtype != wants.dtype:
            raise EngineError(f"expected {wants.dtype} for the input {name}, got {dtype}")
        fits = len(shape) == len(wants.shape) and all(
            want in (None, got) for want, got in zip(wants.shape, shape, strict=True)
        )
        if not fits:
            wanted = "x".join("any" if size is None else str(size) for size in wants.shape)
            raise EngineError(f"expected the shape {wanted} for the input {name}, got {'x'.join(map(str, shape))}")
