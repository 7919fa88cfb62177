"""OpenVINO: the default engine, on any CPU and on Intel's GPUs."""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.base import Input, SerialEngine
from engines.contract import STREAMS, Engine, EngineError, Target, UnknownEngine
from engines.silence import no_telemetry

with no_telemetry():  # nothing of a user's work leaves the machine
    import openvino

# what a device says it computes in, as we name it; int8 needs another network
PRECISIONS = {"FP32": "fp32", "FP16": "fp16", "BF16": "bf16"}
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}

# The first use of `data` in a process fills a static table under a C++ lock, and lets go of Python's while it does. A
# second thread that comes by then holds Python's lock and waits for the other one, for ever (seen in 2026.4.1, about
# one run in twenty; benchmarks/engine_stress.py). So it is used once here, where the import keeps other threads out.
_ = openvino.Tensor(np.zeros(1, np.float32)).data

# One inference at a time on a device, whatever the network: OpenVINO splits each over all cores, and two at once took
# 1.5 to 3 times as long as one after the other (2 cores). Streams share the cores out among calls instead. For most
# networks that is no faster; small ones that are called often lose less time to splitting.
RUNNING: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(1))


class OpenVinoBackend:
    """Computes in what is asked for: fp32 by default, also where the device would rather take less."""

    name = "openvino"
    extra = None
    builds = False  # compiling takes under a second

    def __init__(self) -> None:
        can = {precision for device in core().available_devices for precision in precisions_on(device)}
        self.precisions = tuple(name for name in PRECISIONS.values() if name in can)

    def devices(self) -> tuple[str, ...]:
        """A GPU on the processor's own chip is slower than the processor at fp32, a card is not."""
        found = core().available_devices
        cards = [device for device in found if device != "CPU" and "DISCRETE" in str(kind_of(device))]
        first = [*cards, *(["CPU"] if "CPU" in found else [])]
        return tuple(device.lower() for device in [*first, *(device for device in found if device not in first)])

    def machine(self, device: str) -> dict[str, str]:
        facts = {"openvino": openvino.__version__}
        return {**facts, "device": core().get_property(device.upper(), "FULL_DEVICE_NAME")} if device else facts

    def build(self, onnx: Path, target: Target) -> bytes:
        return b""

    def load(self, onnx: Path, built: bytes, target: Target) -> Engine:
        device = (target.device or self.devices()[0]).upper()
        can = precisions_on(device)
        if target.precision not in can:
            raise UnknownEngine(
                f"expected a precision that openvino computes in on this {device}, {' or '.join(can)}, "
                f"got {target.precision}"
            )
        streams = int(dict(target.options).get(STREAMS, 1)) if device == "CPU" else 1
        return OpenVinoEngine(onnx, device, target.precision, streams)


class OpenVinoEngine(SerialEngine):
    """One compiled network, one request a stream: every new request would allocate its own tensors, gigabytes in a long
    run."""

    name = "openvino"

    def __init__(self, path: Path, device: str = "CPU", precision: str = "fp32", streams: int = 1) -> None:
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": HINTS[precision]}
        if streams > 1:
            settings["NUM_STREAMS"] = str(streams)
        if device == "CPU":
            # each region's size leaves compiled code behind, of which a long video needs only the latest
            settings["CPU_RUNTIME_CACHE_CAPACITY"] = "64"
            # a thread that is bound to a core waits there for whatever else works on it: a fifth of a video's speed
            settings["ENABLE_CPU_PINNING"] = "NO"
        try:
            self._model = core().compile_model(str(path), device, settings)
            self._requests = [self._model.create_infer_request() for _ in range(streams)]
            asked = {port.get_any_name(): input_of(port) for port in self._model.inputs}
            self._outputs = [port.get_any_name() for port in self._model.outputs]
        except RuntimeError as error:
            raise EngineError(f"OpenVINO could not load {path} on {device}: {what_failed(error)}") from error
        super().__init__(device.lower(), precision, asked, RUNNING[device] if streams == 1 else None, streams)

    def _infer(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        request = self._requests.pop()
        try:
            request.infer(inputs)
            return {name: request.get_tensor(name).data.copy() for name in self._outputs}
        finally:
            self._requests.append(request)

    def _release(self) -> None:
        del self._requests, self._model

    def _what_failed(self, error: Exception) -> str:
        return what_failed(error)


@functools.cache
def core() -> Any:
    return openvino.Core()


def kind_of(device: str) -> Any:
    try:
        return core().get_property(device, "DEVICE_TYPE")
    except RuntimeError:  # not every device tells
        return ""


def precisions_on(device: str) -> tuple[str, ...]:
    try:
        can = core().get_property(device, "OPTIMIZATION_CAPABILITIES")
    except RuntimeError as error:
        raise UnknownEngine(f"openvino finds no device {device}: {what_failed(error)}") from None
    return tuple(ours for theirs, ours in PRECISIONS.items() if theirs in can)


def input_of(port: Any) -> Input:
    shape = tuple(None if axis.is_dynamic else axis.get_length() for axis in port.get_partial_shape())
    return Input(np.dtype(port.get_element_type().to_dtype()), shape)


def what_failed(error: BaseException) -> str:
    """The sentence in an OpenVINO message, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from", "Check '")) and "src/" not in line]
    return said[-1] if said else "the file cannot be read as a network"
