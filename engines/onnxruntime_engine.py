"""ONNX Runtime on the CPU."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt
import onnxruntime

from engines import Arrays, EngineError


class OnnxRuntimeEngine:
    """One session. `run` and `submit` may be called from several threads."""

    name = "onnxruntime"

    def __init__(self, path: Path) -> None:
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime could not load {path}: {str(error).strip().splitlines()[0]}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._pool = ThreadPoolExecutor(1)

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    def submit(self, inputs: Arrays) -> Future[dict[str, npt.NDArray[Any]]]:
        return self._pool.submit(self.run, inputs)

    def close(self) -> None:
        self._pool.shutdown()

    def __enter__(self) -> OnnxRuntimeEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
