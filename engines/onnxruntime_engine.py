"""ONNX Runtime: on the CPU, and on what else the installed build of it knows ("execution providers")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from engines.base import Input, SerialEngine
from engines.contract import Engine, EngineError, Target

# the best first; those after the CPU only when asked for: nobody has measured them with our networks. Azure is left
# out, because it sends the pictures away.
DEVICES = {
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
    "dml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
TYPES = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "int64": np.int64,
    "int32": np.int32,
    "uint8": np.uint8,
    "bool": np.bool_,
}
ERRORS_ONLY = 3  # of its log, which goes to stderr


class OnnxRuntimeBackend:
    """Computes in the types that stand in the file; ours are float32."""

    name = "onnxruntime"
    extra = "onnxruntime"
    precisions = ("fp32",)
    builds = False

    def devices(self) -> tuple[str, ...]:
        """What this build of it was made for; whether there is such a device shows when a network is loaded."""
        there = onnxruntime.get_available_providers()
        return tuple(device for device, provider in DEVICES.items() if provider in there)

    def machine(self, device: str) -> dict[str, str]:
        facts = {"onnxruntime": onnxruntime.__version__}
        return {**facts, "provider": DEVICES[device]} if device else facts

    def build(self, onnx: Path, target: Target) -> bytes:
        return b""

    def load(self, onnx: Path, built: bytes, target: Target) -> Engine:
        return OnnxRuntimeEngine(onnx, target.device or self.devices()[0])


class OnnxRuntimeEngine(SerialEngine):
    name = "onnxruntime"

    def __init__(self, path: Path, device: str = "cpu") -> None:
        provider = DEVICES[device]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # its exceptions share no base class
            what = str(error).strip().splitlines()[0]
            raise EngineError(f"ONNX Runtime could not load {path} on {device}: {what}") from error
        if provider not in self._session.get_providers():  # it goes on without, on the CPU
            raise EngineError(f"ONNX Runtime found no {device} device that works ({provider} did not start)")
        self._outputs = [output.name for output in self._session.get_outputs()]
        super().__init__(device, "fp32", {each.name: input_of(each) for each in self._session.get_inputs()})

    def _infer(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))

    def _release(self) -> None:
        del self._session


def input_of(asked: Any) -> Input:
    """Its types are written "tensor(float)"; free axes are names or None."""
    kind = asked.type.removeprefix("tensor(").removesuffix(")")
    if kind not in TYPES:
        raise EngineError(f"the input {asked.name} is of type {asked.type}, which arrays of numpy cannot hold")
    return Input(np.dtype(TYPES[kind]), tuple(axis if isinstance(axis, int) else None for axis in asked.shape))
