"""An ONNX file in fp16: inputs and outputs stay float32, and so does inside what fp16 is too coarse for.

Strongly typed compilers (TensorRT from 10 on, TensorRT for RTX) compute in the types that stand in the file.
Convolutions and products of matrices, nearly all of the work, become fp16; compilers add up inside of them in float32.
In float32 stay

- what comes before the first of them, where differences of near pixels vanish in 11 bits, and after the last, which is
  the answer itself (a final sum of picture and residual, say);
- statistics, quotients, powers, exponentials: normalisations and softmax;
- linear layers on vectors (conditions such as a noise level): they cost nothing and steer everything;
- nodes with a constant that fp16 cannot hold, such as a small epsilon.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.base import one_line
from engines.contract import EngineError

HEAVY = {"Conv", "ConvTranspose", "MatMul"}
SENSITIVE = {
    *("Gemm", "Softmax", "LogSoftmax", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
    *("BatchNormalization", "LpNormalization", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2"),
    *("ReduceProd", "ReduceLogSumExp", "CumSum", "GlobalAveragePool", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Div"),
    *("Softplus", "Sin", "Cos", "Range", "GridSample", "Einsum", "ConstantOfShape", "RandomNormal", "Cast", "Constant"),
}
FIRST_INPUT_ONLY = {"Resize", "Upsample"}  # their other inputs are float32 by definition
WITHOUT_VALUES = {"Shape", "Size"}  # of them only the shape counts
COARSE = 0.01  # largest relative error of a scalar constant in fp16
LARGEST = float(np.finfo(np.float16).max)


def to_half(model: Any) -> Any:
    """A new ModelProto. Raises EngineError for a network with branches or loops, or weights beyond fp16's range."""
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    for node in graph.node:
        if any(each.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for each in node.attribute):
            raise EngineError(
                f"expected a network without branches for fp16, got the node {node.name} ({node.op_type})"
            )
    constants = constants_of(graph)
    floats = {each.name for each in (*graph.input, *graph.value_info, *graph.output) if is_float(each)} | set(constants)
    half = half_nodes(graph, constants)

    produced = {name: index in half for index, node in enumerate(graph.node) for name in node.output}
    renamed = {each.name: f"{each.name}.half" for each in graph.output if is_float(each) and produced.get(each.name)}
    casts: dict[tuple[str, bool], str] = {}
    nodes: list[Any] = []

    def as_type(name: str, wanted: bool) -> str:
        """The name under which a tensor is to be had in fp16 (`wanted`) or float32, made where need be."""
        now = renamed.get(name, name)
        if name not in floats or produced.get(name, False) == wanted:
            return now
        if (name, wanted) not in casts:
            casts[name, wanted] = new = f"{name}.as_{'half' if wanted else 'float'}"
            if name in constants and wanted:
                graph.initializer.append(numpy_helper.from_array(rounded(name, constants[name]), new))
            else:
                to = TensorProto.FLOAT16 if wanted else TensorProto.FLOAT
                nodes.append(helper.make_node("Cast", [now], [new], f"{new}.cast", to=to))
        return casts[name, wanted]

    for index, node in enumerate(graph.node):
        if node.op_type not in WITHOUT_VALUES:
            limit = 1 if node.op_type in FIRST_INPUT_ONLY else len(node.input)
            names = [as_type(name, index in half) if name else "" for name in node.input[:limit]]
            node.input[:] = names + [as_type(name, False) if name else "" for name in node.input[limit:]]
        else:
            node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        nodes.append(node)
    for name, now in renamed.items():
        nodes.append(helper.make_node("Cast", [now], [name], f"{name}.cast", to=TensorProto.FLOAT))

    del graph.node[:], graph.value_info[:]  # the types noted there were those of before
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input} | {each.name for each in graph.output}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    try:
        onnx.checker.check_model(model, full_check=True)  # every type must fit
    except Exception as error:  # its exceptions share no base class
        raise EngineError(f"no fp16 file could be made of this network: {one_line(error)[:300]}") from error
    return model


def half_nodes(graph: Any, constants: dict[str, Any]) -> set[int]:
    """Which nodes compute in fp16, by index."""
    after: set[str] = set()  # tensors that a heavy node contributed to
    late: set[int] = set()
    for index, node in enumerate(graph.node):
        if node.op_type in HEAVY or after.intersection(node.input):
            after.update(node.output)
            late.add(index)
    before: set[str] = set()  # tensors that contribute to a heavy node
    half = set()
    for index, node in reversed(list(enumerate(graph.node))):
        early = bool(before.intersection(node.output))
        if node.op_type in HEAVY or early:
            before.update(node.input)
        fits = all(is_fine(constants[name]) for name in node.input if name in constants)
        plain = node.op_type not in SENSITIVE and node.op_type not in WITHOUT_VALUES and fits
        if node.op_type in HEAVY or (plain and early and index in late):
            half.add(index)
    return half


def constants_of(graph: Any) -> dict[str, Any]:
    """float32 initializers and Constant nodes, by name."""
    found = {
        each.name: numpy_helper.to_array(each) for each in graph.initializer if each.data_type == TensorProto.FLOAT
    }
    for node in graph.node:
        for each in node.attribute:
            if node.op_type == "Constant" and each.name == "value" and each.t.data_type == TensorProto.FLOAT:
                found[node.output[0]] = numpy_helper.to_array(each.t)
    return found


def is_fine(value: Any) -> bool:
    """Whether a constant keeps its worth in fp16; weights, with all their zeros and near zeros, only their range."""
    if value.size > 1:
        return True
    with np.errstate(over="ignore"):
        there = value.astype(np.float16).astype(np.float32)
    return bool(np.all(np.abs(there - value) <= COARSE * np.abs(value)))


def rounded(name: str, value: Any) -> Any:
    if value.size and not np.abs(value).max() <= LARGEST:
        raise EngineError(f"expected weights within {LARGEST:g} for fp16, got {np.abs(value).max():g} in {name}")
    return value.astype(np.float16)


def is_float(value: Any) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT)
