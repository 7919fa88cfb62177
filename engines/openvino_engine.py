"""OpenVINO: the default engine, on any CPU."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt
import openvino

from engines import Arrays, EngineError

# float32 everywhere, so that machines with bfloat16 answer as those without; each region's size leaves compiled code
# behind, of which a long video needs only the latest
SETTINGS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "CPU_RUNTIME_CACHE_CAPACITY": "64"}


class OpenVinoEngine:
    """One compiled network. `run` and `submit` may be called from several threads."""

    name = "openvino"

    def __init__(self, path: Path, device: str = "CPU") -> None:
        # OpenVINO sends usage statistics unless told otherwise; nothing of a user's work leaves the machine
        os.environ.setdefault("OPENVINO_TELEMETRY", "0")
        try:
            core = openvino.Core()
            self._model = core.compile_model(str(path), device, SETTINGS)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO could not load {path} on {device}: {what_failed(error)}") from error
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._pool = ThreadPoolExecutor(2)
        self._outputs = [output.get_any_name() for output in self._model.outputs]

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        with self._lock:
            request = self._idle.pop() if self._idle else self._model.create_infer_request()
        try:
            request.infer(dict(inputs))
            return {name: request.get_tensor(name).data.copy() for name in self._outputs}
        finally:
            with self._lock:
                self._idle.append(request)  # requests are kept: each new one would allocate its own tensors

    def submit(self, inputs: Arrays) -> Future[dict[str, npt.NDArray[Any]]]:
        return self._pool.submit(self.run, inputs)

    def close(self) -> None:
        self._pool.shutdown()
        self._idle.clear()
        del self._model

    def __enter__(self) -> OpenVinoEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def what_failed(error: BaseException) -> str:
    """The sentence in an OpenVINO message, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from", "Check '")) and "src/" not in line]
    return said[-1] if said else "the file cannot be read as a network"
