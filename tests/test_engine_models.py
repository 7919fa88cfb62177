"""Tiny ONNX models: names, types, shapes and errors are the same on every engine.

And each operator of the torch engine against ONNX's own reference.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import EngineError, MissingPackage, Target, WrongAnswer, backend_of, check, open_engine

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
reference = pytest.importorskip("onnx.reference")
F = onnx.TensorProto.FLOAT
Save = Callable[..., Path]


@pytest.fixture(params=["openvino", "onnxruntime", "torch"])
def name(request: pytest.FixtureRequest) -> str:
    try:
        backend_of(request.param)
    except MissingPackage as error:
        pytest.skip(str(error))
    return f"{request.param}:cpu"


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(
        nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], weights: Any = (), opset: int = 17
    ) -> Path:
        """`inputs`, `outputs`: name -> (type, shape)."""
        values = [
            [helper.make_tensor_value_info(key, *value) for key, value in each.items()] for each in (inputs, outputs)
        ]
        stored = [numpy_helper.from_array(array, key) for key, array in dict(weights).items()]
        graph = helper.make_graph(nodes, "tiny", *values, stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        path = tmp_path / "tiny.onnx"
        onnx.save(model, str(path))
        return path

    return write


def test_names_and_shapes(name: str, save: Save) -> None:
    """Two inputs by name, whatever their order; two outputs, one of them also used inside."""
    nodes = [helper.make_node("Sub", ["a", "b"], ["less"]), helper.make_node("Mul", ["less", "less"], ["square"])]
    free = (F, [None, "n"])
    path = save(nodes, {"a": free, "b": free}, {"square": free, "less": free})
    a, b = np.float32([[1, 2, 3]]), np.float32([[3, 2, 5]])
    with open_engine(name, path) as engine:
        found = engine.run({"b": b, "a": a})
        assert set(found) == {"square", "less"}
        np.testing.assert_array_equal(found["less"], [[-2, 0, -2]])
        np.testing.assert_array_equal(found["square"], [[4, 0, 4]])
        (wide,) = (engine.run({"a": each, "b": each})["less"] for each in [np.ones((4, 7), np.float32)])
        assert wide.shape == (4, 7)
        turned = engine.run(
            {"a": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)), "b": np.zeros((2, 3), np.float32)}
        )
        np.testing.assert_array_equal(turned["less"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "uint8"])
def test_types(name: str, save: Save, dtype: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = helper.make_node("Concat", ["a", "a"], ["twice"], axis=0)
    path = save([node], {"a": (kind, [2])}, {"twice": (kind, [4])})
    with open_engine(name, path) as engine:
        found = engine.run({"a": np.array([3, 200], dtype)})["twice"]
    assert found.dtype == dtype
    assert found.tolist() == [3, 200, 3, 200]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no input": ({}, "expected the inputs a, got none"),
    "other name": ({"b": np.zeros((1, 3), np.float32)}, "expected the inputs a, got b"),
    "one too many": ({"a": np.zeros((1, 3), np.float32), "b": np.zeros(1, np.float32)}, "got a, b"),
    "other type": ({"a": np.zeros((1, 3))}, "expected float32 for the input a, got float64"),
    "axis missing": ({"a": np.zeros(3, np.float32)}, "expected the shape anyx3 for the input a, got 3"),
    "other size": ({"a": np.zeros((1, 4), np.float32)}, "expected the shape anyx3 for the input a, got 1x4"),
}


@pytest.mark.parametrize(("inputs", "said"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_told_alike(name: str, save: Save, inputs: dict[str, Any], said: str) -> None:
    path = save([helper.make_node("Relu", ["a"], ["b"])], {"a": (F, ["n", 3])}, {"b": (F, ["n", 3])})
    with open_engine(name, path) as engine:
        with pytest.raises(EngineError) as raised:
            engine.run(inputs)
        assert said in str(raised.value)
        assert said in str(engine.submit(inputs).exception(timeout=20))
        np.testing.assert_array_equal(engine.run({"a": np.float32([[-1, 0, 2]])})["b"], [[0, 0, 2]])  # and goes on
    with pytest.raises(EngineError, match="was closed"):
        engine.run({"a": np.zeros((1, 3), np.float32)})


def test_an_operator_that_torch_lacks_is_named(save: Save) -> None:
    pytest.importorskip("torch")
    path = save([helper.make_node("Det", ["a"], ["b"])], {"a": (F, [2, 2])}, {"b": (F, [])})
    with pytest.raises(EngineError, match=r"tiny\.onnx: the operator Det is not"):
        open_engine("torch", path)


def test_an_old_opset_is_refused_by_torch(save: Save) -> None:
    pytest.importorskip("torch")
    path = save([helper.make_node("Relu", ["a"], ["b"])], {"a": (F, [1])}, {"b": (F, [1])}, opset=11)
    with pytest.raises(EngineError, match="opset 13 or newer, got 11"):
        open_engine("torch", path)


def test_a_users_network_is_checked_against_the_default(save: Save) -> None:
    """Without a stored answer; and a stored one of another network is not taken for its own."""
    pytest.importorskip("torch")
    path = save([helper.make_node("Relu", ["a"], ["b"])], {"a": (F, ["n", 3])}, {"b": (F, ["n", 3])})
    known = check.answer_for(path)
    assert known.source == "openvino fp32"
    np.testing.assert_array_equal(known.outputs["b"], np.maximum(known.inputs["a"], 0))
    check.store(path, {"a": np.zeros((1, 3), np.float32)}, {"b": np.ones((1, 3), np.float32)})
    assert check.answer_for(path).source == "tiny.check.npz"
    with pytest.raises(WrongAnswer, match=r"torch on cpu in fp32 answers wrongly for tiny\.onnx: off by 1 at most"):
        open_engine("torch:cpu", path)
    path.write_bytes(path.read_bytes().replace(b"tiny", b"TINY"))
    open_engine("torch:cpu", path).close()
    check.path_of(path).write_bytes(b"PK no archive")
    with pytest.raises(EngineError, match=r"tiny\.check\.npz cannot be read"):
        open_engine("torch:cpu", path)


def test_comparison_sees_what_is_wrong() -> None:
    right = {"x": np.float32([[10, -5, 0]])}
    assert check.compare({"x": right["x"] + np.float32(1e-3)}, right, "fp32").within
    assert not check.compare({"x": right["x"] + np.float32(2e-2)}, right, "fp32").within
    assert not check.compare({"x": np.float32([[10, -5, np.nan]])}, right, "bf16").within
    assert not check.compare({"x": np.full_like(right["x"], np.inf)}, right, "bf16").within
    bias = check.compare({"x": right["x"] + np.float32(0.4)}, right, "bf16")  # nowhere much, but everywhere
    assert bias.largest < bias.limit
    assert not bias.within
    for wrong in ({}, {"x": right["x"][0]}, {"x": right["x"].astype(np.float64)}):
        with pytest.raises(WrongAnswer, match="expected the output x"):
            check.compare(wrong, right, "fp32")


# operator: (inputs that are pictures, attributes, other inputs); None stands for one that is left out
PICTURE = np.random.default_rng(3).standard_normal((2, 4, 6, 5)).astype(np.float32)
POSITIVE = np.abs(PICTURE) + np.float32(0.1)
FILTER = np.random.default_rng(4).standard_normal((4, 4, 3, 3)).astype(np.float32)
FOUR = np.float32([0.5, 2, -1, 1])


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    *(
        (name, [PICTURE], {})
        for name in ("Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Flatten", "Floor", "GlobalAveragePool")
    ),
    *(
        (name, [PICTURE], {})
        for name in ("GlobalMaxPool", "HardSigmoid", "HardSwish", "LeakyRelu", "Neg", "Relu", "Round")
    ),
    *(
        (name, [PICTURE], {})
        for name in ("Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Tanh", "Transpose", "Identity")
    ),
    *((name, [POSITIVE], {}) for name in ("Log", "Reciprocal", "Sqrt")),
    *((name, [PICTURE, POSITIVE[:1, :, :1]], {}) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum")),
    ("Pow", [POSITIVE, np.float32([1.5])], {}),
    ("PRelu", [PICTURE, FOUR.reshape(4, 1, 1)], {}),
    ("Flatten", [PICTURE], {"axis": 2}),
    ("Softmax", [PICTURE], {"axis": 1}),
    ("MatMul", [PICTURE, PICTURE.swapaxes(2, 3).copy()], {}),
    ("Gemm", [PICTURE[0, 0], PICTURE[1, 0], np.float32([[3]])], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Conv", [PICTURE, FILTER, FOUR], {"pads": [1, 1, 1, 1]}),
    ("Conv", [PICTURE, FILTER], {"pads": [0, 1, 1, 2], "strides": [2, 1]}),
    ("Conv", [PICTURE, FILTER[:, :1].copy(), FOUR], {"group": 4, "dilations": [2, 2]}),
    ("ConvTranspose", [PICTURE, FILTER, FOUR], {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ("ConvTranspose", [PICTURE, FILTER], {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
    ("AveragePool", [PICTURE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [PICTURE], {"kernel_shape": [2, 2], "strides": [2, 2], "count_include_pad": 1}),
    ("MaxPool", [PICTURE], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("MaxPool", [PICTURE], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("BatchNormalization", [PICTURE, FOUR, FOUR, FOUR, np.abs(FOUR)], {}),
    ("InstanceNormalization", [PICTURE, FOUR, FOUR], {"epsilon": 1e-3}),
    ("LayerNormalization", [PICTURE, POSITIVE[0, 0, 0], POSITIVE[0, 0, 1]], {}),
    ("DepthToSpace", [PICTURE], {"blocksize": 2}),
    ("DepthToSpace", [PICTURE], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [PICTURE[..., :4].copy()], {"blocksize": 2}),
    ("ReduceMean", [PICTURE], {"axes": [1], "keepdims": 0}),
    ("ReduceMax", [PICTURE], {"axes": [2, 3]}),
    ("ReduceMin", [PICTURE], {}),
    ("ReduceL2", [PICTURE], {"axes": [-1]}),
    ("ReduceSum", [PICTURE, ints(1)], {}),
    ("Concat", [PICTURE, PICTURE], {"axis": 1}),
    ("Split", [PICTURE, ints(1, 3)], {"axis": 1}),
    ("Slice", [PICTURE, ints(1, 0), ints(-1, 99), ints(2, 3), ints(2, 1)], {}),
    ("Slice", [PICTURE, ints(-1), ints(-(2**63)), ints(3), ints(-2)], {}),
    ("Gather", [PICTURE, np.array([[0, -1]], np.int64)], {"axis": 3}),
    ("Pad", [PICTURE, ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "reflect"}),
    ("Pad", [PICTURE, ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "edge"}),
    ("Pad", [PICTURE, ints(0, 1, 0, 2, 0, 0, 1, 0), np.float32(7)], {}),
    ("Clip", [PICTURE, None, np.float32(0.5)], {}),
    ("Clip", [PICTURE, np.float32(0), np.float32(1)], {}),
    ("Reshape", [PICTURE, ints(0, -1, 5)], {}),
    ("Squeeze", [PICTURE[:, :1].copy(), ints(1)], {}),
    ("Unsqueeze", [PICTURE, ints(0, -1)], {}),
    ("Expand", [PICTURE[:1], ints(3, 1, 1, 5)], {}),
    ("Tile", [PICTURE, ints(1, 2, 1, 1)], {}),
    ("Where", [PICTURE > 0, PICTURE, POSITIVE], {}),
    ("Greater", [PICTURE, POSITIVE], {}),
    ("Cast", [PICTURE], {"to": onnx.TensorProto.INT32}),
    ("Shape", [PICTURE], {"start": 2}),
    ("ConstantOfShape", [ints(2, 3)], {"value": numpy_helper.from_array(np.float32([2.5]))}),
    ("Range", [np.int64(2), np.int64(9), np.int64(3)], {}),
    (
        "Resize",
        [PICTURE, None, np.float32([1, 1, 2, 2])],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    ("Resize", [PICTURE, None, np.float32([1, 1, 3, 3])], {"mode": "nearest"}),
    ("Resize", [PICTURE, None, np.float32([1, 1, 2, 2])], {"mode": "linear"}),
    (
        "Resize",
        [PICTURE, None, None, ints(2, 4, 11, 9)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    ("Resize", [PICTURE, None, np.float32([1, 1, 2, 2])], {"mode": "cubic"}),
]


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)]
)
def test_torch_knows_the_operator(save: Save, operator: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    names = ["" if array is None else f"in{index}" for index, array in enumerate(inputs)]
    known = {each: np.asarray(array) for each, array in zip(names, inputs, strict=True) if array is not None}
    first = {"in0": known["in0"]}
    outputs = ["out0", "out1"] if operator == "Split" else ["out0"]
    node = helper.make_node(operator, names, outputs, **attributes)
    told = {key: (helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for key, array in first.items()}
    expected = reference.ReferenceEvaluator(node).run(outputs, known)
    # a file must tell its outputs' shapes
    made = {
        each: (helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for each, array in zip(outputs, expected, strict=True)
    }
    path = save([node], told, made, {key: array for key, array in known.items() if key not in first})
    with backend_of("torch").load(path, b"", Target("cpu")) as engine:
        found = engine.run(first)
    for each, array in zip(outputs, expected, strict=True):
        assert found[each].dtype == array.dtype
        np.testing.assert_allclose(found[each], array, rtol=1e-4, atol=2e-5)


def test_every_operator_is_tested() -> None:
    pytest.importorskip("torch")
    from engines.torch_operators import OPERATORS

    trivial = {"And", "Or", "Not", "Equal", "Less", "LessOrEqual", "GreaterOrEqual", "Constant", "Dropout", "Gelu"}
    assert set(OPERATORS) - {case[0] for case in CASES} == trivial
