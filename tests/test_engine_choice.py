"""What --engine auto takes, and what it says. GPUs are pretended; networks, checks, cache and builds are real."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engines
from engines import EngineError, MissingPackage, Row, UnknownEngine, cache, check, choices, open_engine
from engines.switching import SwitchingEngine

onnx = pytest.importorskip("onnx")


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine whose GPU the engine `fake` uses."""
    monkeypatch.setattr(engines, "nvidia_driver", lambda: True)
    monkeypatch.setattr(engines, "AUTO", ("fake",))
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    use(monkeypatch, "Fake")


def use(monkeypatch: pytest.MonkeyPatch, kind: str, module: str = "fake_backends") -> None:
    monkeypatch.setitem(engines.ENGINES, "fake", Row(module, kind, "fake_backends", "fake"))


def rectifier(path: Path) -> Path:
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["a"], ["b"])], "tiny", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def answer(engine: engines.Engine) -> Any:
    return engine.run({"a": np.float32([[-1, 0, 2]])})["b"].tolist()


def test_without_a_gpu_it_is_the_default_in_fp32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engines, "nvidia_driver", lambda: False)
    told: list[str] = []
    with open_engine("auto", rectifier(tmp_path / "tiny.onnx"), tell=told.append) as opened:
        assert (opened.name, opened.precision) == (engines.DEFAULT, "fp32")
    assert told == [f"engine openvino on {opened.device} in fp32 (chosen by auto: the choice without an NVIDIA GPU)"]


def test_with_a_gpu_it_starts_at_once_and_goes_on_faster(tmp_path: Path) -> None:
    told: list[str] = []
    with open_engine("auto", rectifier(tmp_path / "slow.onnx"), tell=told.append) as opened:
        assert isinstance(opened, SwitchingEngine)
        assert opened.name == "openvino"
        assert answer(opened) == [[0, 0, 2]]
        until = time.monotonic() + 30
        while opened.name != "fake":
            assert time.monotonic() < until
            time.sleep(0.05)
        assert answer(opened) == [[0, 0, 2]]
        assert (opened.device, opened.precision) == ("gpu", "fp16")
    assert told[0].startswith("engine openvino on")
    assert "building fake for gpu in fp16" in told[1]
    told.clear()
    with open_engine("auto", rectifier(tmp_path / "slow.onnx"), tell=told.append) as opened:
        assert not isinstance(opened, SwitchingEngine)
    assert told == ["engine fake on gpu in fp16 (chosen by auto: the fastest for this GPU)"]


def test_deterministic_waits_for_the_build(tmp_path: Path) -> None:
    with open_engine("auto", rectifier(tmp_path / "slow.onnx"), deterministic=True) as opened:
        assert opened.name == "fake"
        assert not isinstance(opened, SwitchingEngine)


def test_closing_ends_the_build(tmp_path: Path) -> None:
    started = time.monotonic()
    open_engine("auto", rectifier(tmp_path / "hang.onnx")).close()
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_answers_wrongly_is_passed_over(tmp_path: Path, deterministic: bool) -> None:
    told: list[str] = []
    path = rectifier(tmp_path / "wrong.onnx")
    with open_engine("auto", path, tell=told.append, deterministic=deterministic) as opened:
        until = time.monotonic() + 30
        while not any("answers wrongly" in text for text in told):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert opened.name == "openvino"
        assert answer(opened) == [[0, 0, 2]]


def test_by_name_there_is_no_way_back(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="answers wrongly"):
        open_engine("fake", rectifier(tmp_path / "wrong.onnx"))


REASONS = {
    "OldDriver": "fake was passed over: CUDA driver version is insufficient: expected 13.0 or newer, got 12.2",
    "NoDevice": "fake was passed over: the engine fake is installed, but finds no device",
    "Broken": "fake was passed over: the engine fake does not start: a library does not load",
}


@pytest.mark.parametrize(("kind", "reason"), REASONS.items(), ids=REASONS)
def test_why_not_the_gpu_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, reason: str) -> None:
    use(monkeypatch, kind)
    (choice,) = choices()
    assert choice.backend == engines.DEFAULT
    assert reason in choice.reason
    assert "\n" not in str(choice)
    with pytest.raises(EngineError, match=reason.split(": ")[-1]) as raised:
        open_engine("fake", rectifier(tmp_path / "tiny.onnx"))
    assert "\n" not in str(raised.value)


def test_the_second_best_says_why_not_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.ENGINES, "best", Row("fake_backends", "OldDriver", "fake_backends", None))
    monkeypatch.setattr(engines, "AUTO", ("best", "fake"))
    assert choices()[0].backend == "fake"
    assert "best was passed over: CUDA driver version is insufficient" in choices()[0].reason


def test_what_is_not_installed_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "Fake", "engines.not_there")
    (choice,) = choices()
    assert choice.reason == "chosen by auto: no installed engine uses this GPU"
    with pytest.raises(MissingPackage, match=r"pip install 'restore-plugin\[fake\]'"):
        choices("fake")


def test_precisions_and_devices() -> None:
    assert [each.backend for each in choices()] == ["fake", "openvino"]
    assert choices("fake")[0].precision == "fp16"
    assert choices("fake:gpu:1", "fp32")[0].device == "gpu:1"
    assert choices("auto", "fp32")[0].precision == "fp32"
    with pytest.raises(
        UnknownEngine, match="expected a precision of fake on this machine out of auto, fp16, fp32, got"
    ):
        choices("fake", "bf16")
    with pytest.raises(UnknownEngine, match="expected a device of fake out of gpu, gpu:1, got cuda"):
        choices("fake:cuda")
    assert engines.split("rtx:cuda:1") == ("tensorrt_rtx", "cuda:1")


def test_a_check_fits_the_profile(tmp_path: Path) -> None:
    """A stored input that an engine was not built for is repeated or cut to a size that it serves."""
    path = rectifier(tmp_path / "tiny.onnx")
    check.store(path, {"a": np.float32([[-1, 0, 2]])}, {"b": np.float32([[0, 0, 2]])})

    def rows(low: int, high: int) -> check.Answer:
        return check.answer_for(path, engines.Profile((("a", ((low, 3), (low, 3), (high, 3))),)))

    assert rows(1, 8).source == "tiny.check.npz"
    large = rows(4, 8)
    assert large.source == "openvino fp32"
    assert large.inputs["a"].tolist() == [[-1, 0, 2]] * 4
    assert large.outputs["b"].tolist() == [[0, 0, 2]] * 4
