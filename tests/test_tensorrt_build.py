"""What TensorRT 8.6, 10 and 11 are asked for, which compile only on a GPU: on a builder that notes it down."""

import enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from engines.contract import EngineError, OutOfMemory, Target  # noqa: E402
from engines.tensorrt_build import compile_network  # noqa: E402


class Flag(enum.Enum):
    TF32, FP16 = 1, 2


class Noted:
    """Stands for the module, the builder, the parser and the configuration."""

    def __init__(self, typed: bool, says: str = "", timing: bytes = b"measured") -> None:
        self.asked: list[Any] = []
        self.says, self.timing = says, timing
        kinds = {"STRONGLY_TYPED": 1} if typed else {"EXPLICIT_BATCH": 0}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**kinds)
        self.BuilderFlag = Flag
        self.HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="from 8.0 on")
        self.ILogger = type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1)})
        self.hardware_compatibility_level = "this one"
        self.num_errors = 0

    def Builder(self, logger: Any) -> Any:
        self.logger = logger
        return self

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return self

    def parse(self, data: bytes) -> bool:
        self.model = onnx.load_from_string(data)
        return True

    def create_network(self, flags: int) -> Any:
        self.asked.append(flags)
        return self

    def create_builder_config(self) -> Any:
        return self

    def create_optimization_profile(self) -> Any:
        return self

    def set_shape(self, name: str, *sizes: tuple[int, ...]) -> None:
        self.asked.append(sizes)

    def add_optimization_profile(self, profile: Any) -> int:
        return 0

    def set_flag(self, flag: Flag) -> None:
        self.asked.append(flag)

    def clear_flag(self, flag: Flag) -> None:
        self.asked.append(("not", flag))

    def create_timing_cache(self, data: bytes) -> Any:
        return None if data == b"damaged" else SimpleNamespace(serialize=lambda: data + self.timing)

    def set_timing_cache(self, cache: Any, mismatch: bool) -> None:
        self.cache = cache

    def get_timing_cache(self) -> Any:
        return self.cache

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        if self.says:
            self.logger.log(1, self.says)
        return None if self.says else b"engine"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    value = lambda name: onnx.helper.make_tensor_value_info(name, 1, ["batch", 1, "height", "width"])  # noqa: E731
    weights = [onnx.numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")]
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1, 1, 1, 1])
    graph = onnx.helper.make_graph([node], "tiny", [value("x")], [value("y")], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "tiny.onnx"))
    return tmp_path / "tiny.onnx"


SIZES = ((1, 1, 8, 8), (1, 1, 256, 256), (4, 1, 2048, 2048))


@pytest.mark.parametrize(("typed", "flags"), [(True, 2), (False, 1)], ids=["10", "8.6"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_types_and_sizes(network: Path, typed: bool, flags: int, precision: str) -> None:
    noted = Noted(typed)
    assert compile_network(noted, "TensorRT", network, Target(precision=precision)) == b"engine"
    expected: list[Any] = [flags, ("not", Flag.TF32), SIZES]
    if precision == "fp16" and not typed:
        expected.insert(2, Flag.FP16)
    assert noted.asked == expected
    (weights,) = noted.model.graph.initializer
    assert weights.data_type == (onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT)


def test_for_several_capabilities(network: Path) -> None:
    noted = Noted(True)
    compile_network(noted, "TensorRT", network, Target(compute=(80, 90)))
    assert noted.hardware_compatibility_level == "from 8.0 on"
    with pytest.raises(EngineError, match="for other machines from 80 on, not for 75"):
        compile_network(noted, "TensorRT", network, Target(compute=(75, 90)))


@pytest.mark.parametrize("kept", [None, b"earlier ", b"damaged"])
def test_what_was_measured_is_kept(network: Path, tmp_path: Path, kept: bytes | None) -> None:
    file = tmp_path / "cache" / "tensorrt.timing"
    if kept is not None:
        file.parent.mkdir()
        file.write_bytes(kept)
    compile_network(Noted(True), "TensorRT", network, Target(), file)
    assert file.read_bytes() == (b"earlier measured" if kept == b"earlier " else b"measured")
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_folder_that_cannot_be_written_is_no_error(network: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert compile_network(Noted(True), "TensorRT", network, Target(), tmp_path / "file" / "x.timing") == b"engine"


def test_the_last_line_of_the_log_is_the_reason(network: Path) -> None:
    with pytest.raises(EngineError, match=r"^TensorRT could not compile tiny.onnx in fp32: Error Code 2: no tactic$"):
        compile_network(Noted(True, "Error Code 2:\n  no tactic"), "TensorRT", network, Target())
    with pytest.raises(OutOfMemory, match="out of memory"):
        compile_network(Noted(True, "CUDA error 2: out of memory"), "TensorRT", network, Target())
