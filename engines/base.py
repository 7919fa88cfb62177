"""What the engines of this process share: one call at a time, arrays checked, errors told."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from engines.contract import Arrays, EngineError, OutOfMemory

MEMORY_WORDS = ("out of memory", "bad_alloc", "can't allocate memory", "failed to allocate", "out_of_resources")


@dataclass(frozen=True)
class Input:
    """What a network asks for under one name; an axis of `shape` is None where any size goes."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


class SerialEngine(ABC):
    """An engine (see contract) whose calls run one after another.

    Each call uses the whole device anyway; two at once would only need more memory. `submit` queues: the caller goes on
    while the device computes. An engine that computes `streams` calls side by side says so.
    """

    name = ""

    def __init__(
        self,
        device: str,
        precision: str,
        inputs: dict[str, Input],
        turns: threading.Semaphore | None = None,
        streams: int = 1,
    ) -> None:
        self.device = device
        self.precision = precision
        self.inputs = inputs
        self._turns = turns or threading.Semaphore(streams)  # given: shared with other engines
        self._streams = streams
        self._queue = ThreadPoolExecutor(1, thread_name_prefix=self.name)
        self._closed = False
        self._closing = threading.Lock()

    @abstractmethod
    def _infer(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Inputs are checked and contiguous. The arrays returned are the caller's own."""

    @abstractmethod
    def _release(self) -> None:
        """Give memory back; nothing runs any more."""

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        ready = self._checked(inputs)
        with self._turns:
            if self._closed:
                raise EngineError(f"the engine {self.name} was closed and cannot run")
            try:
                return self._infer(ready)
            except EngineError:
                raise
            except Exception as error:
                where = f"{self.name} on {self.device}"
                sizes = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in ready.items())
                if out_of_memory(error):
                    raise OutOfMemory(f"{where} ran out of memory for {sizes}") from error
                raise EngineError(f"{where} could not run {sizes}: {self._what_failed(error)}") from error

    def submit(self, inputs: Arrays) -> Future[dict[str, npt.NDArray[Any]]]:
        return self._queue.submit(self.run, inputs)

    def close(self) -> None:
        self._queue.shutdown()
        with self._closing:
            if self._closed:
                return
            self._closed = True  # whoever comes now is refused: callers that never rest would keep their turns for ever
            with ExitStack() as all_turns:
                for _ in range(self._streams):
                    all_turns.enter_context(self._turns)
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _what_failed(self, error: Exception) -> str:
        return one_line(error)

    def _checked(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """The runtimes differ in what they let pass: here all are strict about names, types and numbers of axes."""
        if inputs.keys() != self.inputs.keys():
            raise EngineError(f"expected the inputs {', '.join(self.inputs)}, got {', '.join(inputs) or 'none'}")
        for name, asked in self.inputs.items():
            array = inputs[name]
            if array.dtype != asked.dtype:
                raise EngineError(f"expected {asked.dtype} for the input {name}, got {array.dtype}")
            fits = len(array.shape) == len(asked.shape) and all(
                want in (None, got) for want, got in zip(asked.shape, array.shape, strict=True)
            )
            if not fits:
                wanted = "x".join("any" if size is None else str(size) for size in asked.shape)
                got = "x".join(map(str, array.shape))
                raise EngineError(f"expected the shape {wanted} for the input {name}, got {got}")
        return {name: np.ascontiguousarray(inputs[name]).reshape(inputs[name].shape) for name in self.inputs}


def out_of_memory(error: BaseException) -> bool:
    """Whether a runtime's exception says that memory was short; they have no type for it in common."""
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in MEMORY_WORDS)


def one_line(error: BaseException) -> str:
    """An exception's message (else its type) on one line."""
    return " ".join(str(error).split()) or type(error).__name__
