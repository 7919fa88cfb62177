"""torch: the reference, on the CPU and CUDA. Reads the same ONNX file as all others and runs it node by node.

An own interpreter, because the converters bring more than they give here: onnx2torch wants torchvision and was last
released in 2024, and torch itself reads no ONNX. `engines.torch_operators` holds the operators.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from engines.base import Input, SerialEngine, one_line
from engines.contract import Engine, EngineError, OutOfMemory, Target, UnknownEngine
from engines.torch_operators import OPERATORS, Values

OLDEST_OPSET = 13  # since when axes are inputs, as the operators here expect
AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


class TorchBackend:
    """fp16 and bf16 by torch's autocast: convolutions and products in them, sums and the like in float32."""

    name = "torch"
    extra = "torch"
    builds = False

    def __init__(self) -> None:
        self.precisions: tuple[str, ...] = ("fp32", "fp16", "bf16") if torch.cuda.is_available() else ("fp32", "bf16")

    def devices(self) -> tuple[str, ...]:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return (*["cuda"][:count], *(f"cuda:{index}" for index in range(1, count)), "cpu")

    def machine(self, device: str) -> dict[str, str]:
        facts = {"torch": str(torch.__version__)}
        return {**facts, "device": torch.cuda.get_device_name(device)} if device.startswith("cuda") else facts

    def build(self, onnx: Path, target: Target) -> bytes:
        return b""

    def load(self, onnx: Path, built: bytes, target: Target) -> Engine:
        device = target.device or self.devices()[0]
        if device == "cpu" and target.precision == "fp16":
            raise UnknownEngine("expected a precision that torch computes in on the cpu, fp32 or bf16, got fp16")
        return TorchEngine(onnx, device, target.precision)


@dataclass(frozen=True)
class Step:
    """One node: what computes it, and which values nobody needs after it."""

    operator: Callable[[Values, dict[str, Any]], Any]
    inputs: tuple[str, ...]  # "" where an optional one is left out
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    last_used: tuple[str, ...]


class TorchEngine(SerialEngine):
    name = "torch"

    def __init__(self, path: Path, device: str = "cpu", precision: str = "fp32") -> None:
        model = read(path)
        self._device = torch.device(device)
        graph = model.graph
        try:
            weights = {each.name: tensor_of(each) for each in graph.initializer}
            self._constants = {name: self._placed(tensor) for name, tensor in weights.items()}
        except Exception as error:
            raise EngineError(f"torch could not load {path} on {device}: {one_line(error)}") from error
        self._steps = steps_of(model, path)
        self._outputs = {each.name: dtype_of(each) for each in graph.output}
        asked = {each.name: input_of(each) for each in graph.input if each.name not in weights}
        super().__init__(device, precision, asked)

    def _placed(self, tensor: Tensor) -> Tensor:
        """Whole numbers are shapes and indices: they stay where they can be read without waiting for the device."""
        return tensor.to(self._device) if tensor.is_floating_point() else tensor

    @torch.inference_mode()
    def _infer(self, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        try:
            with computing_in(self.precision, self._device.type):
                values: dict[str, Tensor | None] = {"": None, **self._constants}
                values |= {name: self._placed(torch.from_numpy(array)) for name, array in inputs.items()}
                for step in self._steps:
                    found = step.operator([values[name] for name in step.inputs], step.attributes)
                    values.update(zip(step.outputs, found if isinstance(found, tuple) else (found,), strict=False))
                    for name in step.last_used:
                        values.pop(name, None)
                answers = [values[name] for name in self._outputs]
                # copies: an output may be an input, or a part of one; numpy knows no bfloat16
                return {
                    name: (each.float() if each.dtype == torch.bfloat16 else each).cpu().numpy().astype(dtype)
                    for (name, dtype), each in zip(self._outputs.items(), answers, strict=True)
                    if each is not None
                }
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()  # what is left over from the attempt
            raise OutOfMemory(f"torch on {self.device} ran out of memory: {one_line(error).split('. ')[0]}") from error

    def _release(self) -> None:
        self._constants.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


@contextlib.contextmanager
def computing_in(precision: str, device: str) -> Iterator[None]:
    if precision == "fp32":
        # left alone, cuDNN rounds what it multiplies to 10 bits (TF32)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    else:
        with torch.autocast(device, AUTOCAST[precision]):
            yield


def read(path: Path) -> Any:
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's, onnx's and the system's share no base class
        raise EngineError(f"torch could not load {path}: it is no whole ONNX file ({one_line(error)[:200]})") from error
    version = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if version < OLDEST_OPSET:
        raise EngineError(f"torch could not load {path}: expected opset {OLDEST_OPSET} or newer, got {version}")
    return model


def steps_of(model: Any, path: Path) -> list[Step]:
    """The nodes in the file's order, which is one they can run in. Raises EngineError, naming what is not known."""
    nodes = model.graph.node
    kept = {each.name for each in model.graph.output} | {each.name for each in model.graph.initializer}
    uses = Counter(name for node in nodes for name in node.input)
    steps = []
    for node in nodes:
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            raise EngineError(f"torch could not load {path}: the operator {node.op_type} is not among those it knows")
        uses.subtract(node.input)
        last = tuple(name for name in {*node.input, *node.output} if name and not uses[name] and name not in kept)
        attributes = {each.name: plain(each) for each in node.attribute}
        steps.append(Step(OPERATORS[node.op_type], tuple(node.input), tuple(node.output), attributes, last))
    return steps


def plain(attribute: Any) -> Any:
    """An attribute's value: numbers, text, lists of them, tensors."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return tensor_of(value)
    return value


def tensor_of(stored: Any) -> Tensor:
    return torch.from_numpy(onnx.numpy_helper.to_array(stored).copy())


def dtype_of(value: Any) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def input_of(value: Any) -> Input:
    axes = value.type.tensor_type.shape.dim
    return Input(dtype_of(value), tuple(each.dim_value if each.HasField("dim_value") else None for each in axes))
