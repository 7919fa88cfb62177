"""OpenVINO: the default engine, on any CPU."""

from __future__ import annotations

import os
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt
import openvino

from engines import Arrays, EngineError


class OpenVinoEngine:
    """One compiled network. `run` and `submit` may be called from several threads."""

    name = "openvino"

    def __init__(self, path: Path, device: str = "CPU") -> None:
        # OpenVINO sends usage statistics unless told otherwise; nothing of a user's work leaves the machine
        os.environ.setdefault("OPENVINO_TELEMETRY", "0")
        try:
            core = openvino.Core()
            self._model = core.compile_model(str(path), device, {"PERFORMANCE_HINT": "LATENCY"})
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO could not load {path} on {device}: {str(error).strip().splitlines()[0]}"
            ) from error
        self._outputs = [output.get_any_name() for output in self._model.outputs]

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        return self.submit(inputs).result()

    def submit(self, inputs: Arrays) -> Future[dict[str, npt.NDArray[Any]]]:
        request = self._model.create_infer_request()
        future: Future[dict[str, npt.NDArray[Any]]] = Future()

        def finished(_: Any) -> None:
            try:
                future.set_result({name: request.get_tensor(name).data.copy() for name in self._outputs})
            except Exception as error:
                future.set_exception(error)

        request.set_callback(finished, None)
        request.start_async(dict(inputs))
        return future

    def close(self) -> None:
        del self._model

    def __enter__(self) -> OpenVinoEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
