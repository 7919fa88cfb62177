"""fp16 files (engines/half.py) are near fp32, and keep in float32 what must stay so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.contract import EngineError
from restore_plugin import catalog

FILES = sorted(catalog.WEIGHTS.glob("*.onnx"))
HALF_LARGEST, HALF_MEAN = 2e-3, 4e-4  # of the answer's largest value
# to noise these answer with little, so that the same rounding is more beside it
SMALL_ANSWER = {"blurnet": 5.0, "rainnet": 1.5, "deblurgan": 2.0, "fillnet": 2.0}


def answers(path: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, given), strict=True))


def rounding_answers(path: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By numpy in the very types of the file, sums too. ONNX Runtime rounds only the weights: between two nodes in fp16
    it leaves out the conversions."""
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator(path)
    return dict(zip(evaluator.output_names, evaluator.run(None, given), strict=True))


@pytest.mark.parametrize("size", [(1, 64, 64), (2, 64, 128)], ids=str)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_fp16_files_answer_as_fp32(path: Path, size: tuple[int, int, int], tmp_path: Path) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from engines.half import to_half

    model = to_half(onnx.load(str(path)))
    onnx.save(model, str(tmp_path / "half.onnx"))
    kinds = {each.type.tensor_type.elem_type for each in (*model.graph.input, *model.graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}
    stored = {each.name: each.data_type for each in model.graph.initializer}
    kernels = {stored[node.input[1]] for node in model.graph.node if node.op_type == "Conv"}
    assert kernels == {onnx.TensorProto.FLOAT16}
    asked = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()
    free = dict(zip(("batch", "height", "width"), size, strict=True))
    random = np.random.default_rng(0)
    given = {each.name: random.random([free.get(n, n) for n in each.shape]).astype(np.float32) for each in asked}
    right = answers(str(path), given)
    for how in (answers, rounding_answers):
        found = how(str(tmp_path / "half.onnx"), given)
        for name, expected in right.items():
            assert found[name].dtype == np.float32
            error = np.abs(found[name] - expected) / np.abs(expected).max()
            room = SMALL_ANSWER.get(path.stem, 1.0)
            assert error.max() < HALF_LARGEST * room
            assert error.mean() < HALF_MEAN * room


def tiny(nodes: list[tuple[str, list[str], list[str], dict[str, Any]]], weights: dict[str, np.ndarray]) -> Any:
    """x (1, 4, 6, 6) float32 -> y."""
    onnx = pytest.importorskip("onnx")
    value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 6, 6])  # noqa: E731
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, given, made, made[0], **rest) for kind, given, made, rest in nodes],
        "tiny",
        [value("x")],
        [value("y")],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


CONV = np.eye(4, dtype=np.float32)[:, :, None, None]


def test_sensitive_parts_stay_in_fp32(tmp_path: Path) -> None:
    """Before and after the convolutions, softmax, a small epsilon; and the answer is the fp32 one."""
    onnx = pytest.importorskip("onnx")
    from engines.half import to_half

    weights = {"k": CONV, "small": np.array(1e-9, np.float32), "half": np.array(0.5, np.float32)}
    nodes = [
        ("Sub", ["x", "half"], ["before"], {}),
        ("Conv", ["before", "k"], ["first"], {}),
        ("Relu", ["first"], ["relu"], {}),
        ("Add", ["relu", "small"], ["epsilon"], {}),
        ("Softmax", ["epsilon"], ["soft"], {"axis": 1}),
        ("Mul", ["soft", "half"], ["scaled"], {}),
        ("Conv", ["scaled", "k"], ["last"], {}),
        ("Add", ["last", "x"], ["y"], {}),
    ]
    model = to_half(tiny(nodes, weights))
    types = {
        each.name: each.type.tensor_type.elem_type for each in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    half = {name for name in ("before", "first", "relu", "epsilon", "soft", "scaled", "last") if types[name] == 10}
    assert half == {"first", "relu", "scaled", "last"}
    onnx.save(model, str(tmp_path / "half.onnx"))
    onnx.save(tiny(nodes, weights), str(tmp_path / "full.onnx"))
    given = {"x": np.random.default_rng(0).random((1, 4, 6, 6), np.float32)}
    found = rounding_answers(str(tmp_path / "half.onnx"), given)["y"]
    expected = answers(str(tmp_path / "full.onnx"), given)["y"]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert not np.array_equal(found, expected)  # it did round


def test_an_output_that_is_used_again_and_weights_too_large() -> None:
    from engines.half import to_half

    nodes = [("Conv", ["x", "k"], ["y"], {}), ("Conv", ["y", "k"], ["unused"], {})]
    model = to_half(tiny(nodes, {"k": CONV}))
    assert [node.op_type for node in model.graph.node] == ["Cast", "Conv", "Conv", "Cast"]
    with pytest.raises(EngineError, match="expected weights within 65504 for fp16, got 100000 in k"):
        to_half(tiny(nodes, {"k": CONV * 1e5}))


@pytest.mark.parametrize("turned", [0, 1])
def test_linear_layers_as_convolutions(turned: int, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from engines.tensorrt_build import linear_as_convolution

    random = np.random.default_rng(1)
    weights = {"w": random.random((36, 36), np.float32), "b": random.random(36, np.float32)}
    weights |= {"flat": np.array([4, 36]), "back": np.array([1, 4, 6, 6])}
    nodes = [
        ("Reshape", ["x", "flat"], ["vectors"], {}),
        ("Gemm", ["vectors", "w", "b"], ["linear"], {"transB": turned}),
        ("Reshape", ["linear", "back"], ["y"], {}),
    ]
    before, after = tiny(nodes, weights), linear_as_convolution(tiny(nodes, weights))
    assert "Gemm" not in [node.op_type for node in after.graph.node]
    given, found = {"x": random.random((1, 4, 6, 6), np.float32)}, []
    for model in (before, after):
        onnx.save(model, str(tmp_path / "model.onnx"))
        found.append(answers(str(tmp_path / "model.onnx"), given)["y"])
    np.testing.assert_allclose(*found, rtol=1e-5)
