"""ONNX operators in torch, for `engines.torch_engine`: opset 13 and newer, of which those that picture networks use.

Each takes the node's inputs (None where an optional one is left out) and its attributes. Definitions:
https://onnx.ai/onnx/operators/. Shapes and indices are tensors of whole numbers on the CPU.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.contract import EngineError

Values: TypeAlias = Sequence[Any]  # Tensor or None
Attributes: TypeAlias = dict[str, Any]
Operator: TypeAlias = Callable[[Values, Attributes], Any]

# TensorProto.DataType
DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


def optional(values: Values, index: int) -> Any:
    return values[index] if index < len(values) else None


def numbers(values: Values, index: int) -> list[Any] | None:
    """An input that holds a shape, axes or scales."""
    found = optional(values, index)
    return None if found is None or found.numel() == 0 else found.tolist()


def refuse(name: str, attributes: Attributes, **known: Any) -> None:
    """What is not written here must not be passed over: the answer would be wrong."""
    for key, value in known.items():
        if attributes.get(key, value) != value:
            raise EngineError(f"torch knows the operator {name} only with {key} {value}, got {attributes[key]}")


def plain(function: Callable[..., Any]) -> Operator:
    """An operator without attributes, on tensors of one device."""
    return lambda values, _: function(*together(values))


def together(values: Values) -> list[Tensor]:
    """Shapes that are computed with become numbers on the device."""
    device = next((each.device for each in values if each.device.type != "cpu"), None)
    return [each.to(device) if device else each for each in values]


def fold(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda values, _: functools.reduce(function, together(values))


def divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def padded(x: Tensor, attributes: Attributes, axes: int, value: float = 0.0) -> tuple[Tensor, list[int]]:
    """For convolutions and pooling: padding that is the same on both sides is left to them, other is done here."""
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise EngineError(f"torch knows no auto_pad {attributes['auto_pad']}; export with explicit padding")
    pads = list(attributes.get("pads", [0] * 2 * axes))
    if pads[:axes] == pads[axes:]:
        return x, pads[:axes]
    return F.pad(x, [pads[i + side] for i in reversed(range(axes)) for side in (0, axes)], value=value), [0] * axes


def convolution(values: Values, attributes: Attributes) -> Tensor:
    x, weight, bias = values[0], values[1], optional(values, 2)
    axes = weight.ndim - 2
    ones = [1] * axes
    x, pads = padded(x, attributes, axes)
    function: Any = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    return function(x, weight, bias, strides, pads, dilations, attributes.get("group", 1))


def transposed_convolution(values: Values, attributes: Attributes) -> Tensor:
    x, weight, bias = values[0], values[1], optional(values, 2)
    axes = weight.ndim - 2
    refuse("ConvTranspose", attributes, auto_pad="NOTSET", output_shape=None)
    pads = list(attributes.get("pads", [0] * 2 * axes))
    function: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    ones, zeros = [1] * axes, [0] * axes
    more, group = attributes.get("output_padding", zeros), attributes.get("group", 1)
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    if pads[:axes] == pads[axes:]:
        return function(x, weight, bias, strides, pads[:axes], more, group, dilations)
    out = function(x, weight, bias, strides, zeros, more, group, dilations)  # pads cut off what is computed
    for axis in range(axes):
        size = out.shape[axis + 2] - pads[axis] - pads[axis + axes]
        out = out.narrow(axis + 2, pads[axis], size)
    return out


def pooling(kind: str) -> Operator:
    def pool(values: Values, attributes: Attributes) -> Tensor:
        size = attributes["kernel_shape"]
        axes = len(size)
        refuse(kind, attributes, storage_order=0)
        strides, ceil = attributes.get("strides", [1] * axes), bool(attributes.get("ceil_mode", 0))
        if kind == "MaxPool":
            x, pads = padded(values[0], attributes, axes, float("-inf"))
            largest: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
            return largest(x, size, strides, pads, attributes.get("dilations", [1] * axes), ceil)
        refuse(kind, attributes, dilations=[1] * axes)
        counted = bool(attributes.get("count_include_pad", 0))
        x, pads = padded(values[0], attributes, axes)
        if x is not values[0] and not counted:
            raise EngineError("torch knows AveragePool with different pads on two sides only with count_include_pad")
        mean: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
        return mean(x, size, strides, pads, ceil, counted)

    return pool


def reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    """Axes are an attribute before opset 18 (13 for sums) and an input since."""

    def reduce(values: Values, attributes: Attributes) -> Tensor:
        x = values[0]
        axes = numbers(values, 1) or attributes.get("axes")
        if axes is None:
            if attributes.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return function(x, list(axes), bool(attributes.get("keepdims", 1)))

    return reduce


def matrix_product(values: Values, attributes: Attributes) -> Tensor:
    a, b, c = values[0], values[1], optional(values, 2)
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    out = attributes.get("alpha", 1.0) * (a @ b) if attributes.get("alpha", 1.0) != 1 else a @ b
    return out if c is None else out + attributes.get("beta", 1.0) * c


def batch_normalization(values: Values, attributes: Attributes) -> Tensor:
    x, scale, bias, mean, variance = values
    refuse("BatchNormalization", attributes, training_mode=0)
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, attributes.get("epsilon", 1e-5))


def layer_normalization(values: Values, attributes: Attributes) -> Tensor:
    x, axis = values[0], attributes.get("axis", -1)
    shape = x.shape[axis % x.ndim :]
    return F.layer_norm(x, shape, values[1], optional(values, 2), attributes.get("epsilon", 1e-5))


def slice_(values: Values, _: Attributes) -> Tensor:
    x, starts, ends = values[0], values[1].tolist(), values[2].tolist()
    axes = numbers(values, 3) or range(len(starts))
    steps = numbers(values, 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step > 0:
            size = x.shape[axis]
            begin = min(max(start + size if start < 0 else start, 0), size)
            stop = min(max(end + size if end < 0 else end, begin), size)
            index: list[Any] = [slice(None)] * x.ndim
            index[axis] = slice(begin, stop, step)
            x = x[tuple(index)]
        else:  # torch has no negative steps
            chosen = list(range(x.shape[axis]))[_backwards(start, end, step, x.shape[axis])]
            x = x.index_select(axis, torch.tensor(chosen, device=x.device, dtype=torch.int64))
    return x


def _backwards(start: int, end: int, step: int, size: int) -> slice:
    """ONNX counts an end below -size as "to the very first"; Python writes that as None."""
    return slice(min(start, size - 1), None if end < -size else end, step)


def pad(values: Values, attributes: Attributes) -> Tensor:
    x, pads, value, axes = values[0], values[1].tolist(), optional(values, 2), numbers(values, 3)
    axes = [axis % x.ndim for axis in axes or range(x.ndim)]
    mode = attributes.get("mode", "constant")
    around = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    first = min((axis for axis, sides in around.items() if any(sides)), default=x.ndim)
    flat = [side for axis in reversed(range(first, x.ndim)) for side in around.get(axis, (0, 0))]
    if not flat:
        return x
    if mode == "constant":
        return F.pad(x, flat, value=0.0 if value is None else value.item())
    if mode not in ("reflect", "edge"):
        raise EngineError(f"torch knows the operator Pad with constant, reflect and edge, got {mode}")
    return F.pad(x, flat, mode="reflect" if mode == "reflect" else "replicate")


def resize(values: Values, attributes: Attributes) -> Tensor:
    x, scales, sizes = values[0], numbers(values, 2), numbers(values, 3)
    mode, where = attributes.get("mode", "nearest"), attributes.get("coordinate_transformation_mode", "half_pixel")
    refuse("Resize", attributes, antialias=0, exclude_outside=0, axes=None, keep_aspect_ratio_policy="stretch")
    axes = x.ndim - 2
    if sizes is not None:
        if sizes[:2] != list(x.shape[:2]):
            raise EngineError("torch knows the operator Resize only for the axes of a picture")
        told: dict[str, Any] = {"size": sizes[2:]}
        whole = all(new % old == 0 for new, old in zip(sizes[2:], x.shape[2:], strict=True))
    elif scales is not None and scales[:2] == [1, 1]:
        told = {"scale_factor": scales[2:], "recompute_scale_factor": False}
        whole = all(scale == int(scale) for scale in scales[2:])
    else:
        raise EngineError("torch knows the operator Resize only for the axes of a picture")
    if mode == "nearest":
        # for whole factors every rule of rounding chooses the same pixel
        if whole or (where == "asymmetric" and attributes.get("nearest_mode") == "floor"):
            return F.interpolate(x, mode="nearest", **told)
    elif mode in ("linear", "cubic") and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        refuse("Resize", attributes, cubic_coeff_a=-0.75)
        name = ("linear", "bilinear", "trilinear")[axes - 1] if mode == "linear" else "bicubic"
        return F.interpolate(x, mode=name, align_corners=where == "align_corners", **told)
    raise EngineError(f"torch knows no Resize that is {mode} with {where}, {attributes.get('nearest_mode', '')}")


def depth_to_space(values: Values, attributes: Attributes) -> Tensor:
    x, block = values[0], attributes["blocksize"]
    if attributes.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    batch, depth, height, width = x.shape
    x = x.reshape(batch, block, block, depth // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(batch, depth // block**2, height * block, width * block)


def space_to_depth(values: Values, attributes: Attributes) -> Tensor:
    x, block = values[0], attributes["blocksize"]
    batch, depth, height, width = x.shape
    x = x.reshape(batch, depth, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(batch, depth * block**2, height // block, width // block)


def gather(values: Values, attributes: Attributes) -> Tensor:
    x, index = together(values)
    axis = attributes.get("axis", 0) % x.ndim
    index = torch.where(index < 0, index + x.shape[axis], index)
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def split(values: Values, attributes: Attributes) -> tuple[Tensor, ...]:
    x, axis, sizes = values[0], attributes.get("axis", 0), numbers(values, 1)
    if sizes is None:
        sizes = -(-x.shape[axis] // attributes["num_outputs"])
    return tuple(torch.split(x, sizes, axis))


def reshape(values: Values, attributes: Attributes) -> Tensor:
    x, shape = values[0], values[1].tolist()
    kept = not attributes.get("allowzero", 0)
    return x.reshape([x.shape[i] if size == 0 and kept else size for i, size in enumerate(shape)])


def squeeze(values: Values, _: Attributes) -> Tensor:
    axes = numbers(values, 1)
    return values[0].squeeze() if axes is None else values[0].squeeze(tuple(axes))


def unsqueeze(values: Values, _: Attributes) -> Tensor:
    x, axes = values[0], values[1].tolist()
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def constant(_: Values, attributes: Attributes) -> Tensor:
    (kind, value), *_rest = attributes.items()
    if not kind.startswith("value") or kind.startswith("value_string"):
        raise EngineError(f"torch knows no Constant given as {kind}")
    return value if isinstance(value, Tensor) else torch.tensor(value)


def constant_of_shape(values: Values, attributes: Attributes) -> Tensor:
    value = attributes.get("value", torch.zeros(1))
    return value.reshape(()).expand(values[0].tolist()).clone()


def clip(values: Values, _: Attributes) -> Tensor:
    low, high = optional(values, 1), optional(values, 2)
    return values[0].clamp(None if low is None else low.item(), None if high is None else high.item())


def concatenate(values: Values, attributes: Attributes) -> Tensor:
    return torch.cat(together(values), attributes["axis"])


def cast(values: Values, attributes: Attributes) -> Tensor:
    if attributes["to"] not in DTYPES:
        raise EngineError(f"torch knows no Cast to the type {attributes['to']}")
    return values[0].to(DTYPES[attributes["to"]])


def softmax(values: Values, attributes: Attributes) -> Tensor:
    return values[0].softmax(attributes.get("axis", -1))


OPERATORS: dict[str, Operator] = {
    "Abs": plain(torch.abs),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "AveragePool": pooling("AveragePool"),
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Ceil": plain(torch.ceil),
    "Clip": clip,
    "Concat": concatenate,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Cos": plain(torch.cos),
    "DepthToSpace": depth_to_space,
    "Div": plain(divide),
    "Dropout": lambda values, _: values[0],
    "Elu": lambda values, attributes: F.elu(values[0], attributes.get("alpha", 1.0)),
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Expand": lambda values, _: (
        values[0] * torch.ones(values[1].tolist(), dtype=values[0].dtype, device=values[0].device)
    ),
    "Flatten": lambda values, attributes: values[0].reshape(
        functools.reduce(operator.mul, values[0].shape[: attributes.get("axis", 1)], 1), -1
    ),
    "Floor": plain(torch.floor),
    "Gather": gather,
    "Gelu": lambda values, attributes: F.gelu(values[0], approximate=attributes.get("approximate", "none")),
    "Gemm": matrix_product,
    "GlobalAveragePool": lambda values, _: values[0].mean(tuple(range(2, values[0].ndim)), keepdim=True),
    "GlobalMaxPool": lambda values, _: values[0].amax(tuple(range(2, values[0].ndim)), keepdim=True),
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "HardSigmoid": lambda values, attributes: (
        values[0] * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5)
    ).clamp(0, 1),
    "HardSwish": plain(F.hardswish),
    "Identity": lambda values, _: values[0],
    "InstanceNormalization": lambda values, attributes: F.instance_norm(
        values[0], weight=values[1], bias=values[2], eps=attributes.get("epsilon", 1e-5)
    ),
    "LayerNormalization": layer_normalization,
    "LeakyRelu": lambda values, attributes: F.leaky_relu(values[0], attributes.get("alpha", 0.01)),
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "MatMul": plain(torch.matmul),
    "Max": fold(torch.maximum),
    "MaxPool": pooling("MaxPool"),
    "Min": fold(torch.minimum),
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "PRelu": lambda values, _: torch.where(values[0] < 0, values[0] * values[1], values[0]),
    "Pad": pad,
    "Pow": plain(torch.pow),
    "Range": lambda values, _: torch.arange(*(each.item() for each in values), dtype=values[0].dtype),
    "Reciprocal": plain(torch.reciprocal),
    "ReduceMax": reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceSum": reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceL2": reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "Relu": plain(torch.relu),
    "Reshape": reshape,
    "Resize": resize,
    "Round": plain(torch.round),  # to even, as ONNX
    "Shape": lambda values, attributes: torch.tensor(
        list(values[0].shape)[attributes.get("start", 0) : attributes.get("end")]
    ),
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Slice": slice_,
    "Softmax": softmax,
    "Softplus": plain(F.softplus),
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Sqrt": plain(torch.sqrt),
    "Squeeze": squeeze,
    "Sub": plain(torch.sub),
    "Sum": fold(torch.add),
    "Tanh": plain(torch.tanh),
    "Tile": lambda values, _: values[0].repeat(values[1].tolist()),
    "Transpose": lambda values, attributes: values[0].permute(
        attributes.get("perm", list(range(values[0].ndim))[::-1])
    ),
    "Unsqueeze": unsqueeze,
    "Where": plain(torch.where),
}
