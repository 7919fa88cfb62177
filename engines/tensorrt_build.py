"""From an ONNX file to a serialized TensorRT engine. One code for TensorRT 8.6, 10, 11 and TensorRT for RTX.

Where they differ:

- Types. 8.6 chooses them itself and wants to be allowed fp16; later ones compute in those of the file. All get the same
  file, with its sensitive parts in float32 (`engines.half`).
- Targets. RTX compiles for any list of compute capabilities, without a GPU. TensorRT compiles on the GPU for that GPU,
  or, when capabilities are asked for, for all from 8.0 on (AMPERE_PLUS).
- Timing. TensorRT measures kernels; what it measured is kept for the next build. RTX does not measure.

Engines that outlive a version of TensorRT (VERSION_COMPATIBLE) are slower, and the cache builds anew for a new version
anyway: not used.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import helper, numpy_helper

from engines.base import one_line, out_of_memory
from engines.contract import EngineError, OutOfMemory, Profile, Shape, Target
from engines.half import to_half

# sizes served where no profile is given: the smallest that the network's own rule allows, a usual tile, a large one
SMALLEST = (8, 16, 32, 64, 128)
USUAL, GREATEST = 256, 2048
BATCHES = (1, 1, 4)


def make_logger(trt: Any) -> Any:
    """Collects what TensorRT says, because its calls return None or False and tell the reason only there."""

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: deque[str] = deque(maxlen=20)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(" ".join(message.split()))

    return Collector()


def failure(what: str, logger: Any) -> EngineError:
    """The error for a call that gave nothing, with the last error line; OutOfMemory where that was it."""
    last = logger.errors[-1][:400] if logger.errors else "it did not say why"
    short = any(out_of_memory(MessageOnly(line)) or "OutOfMemory" in line for line in logger.errors)
    return (OutOfMemory if short else EngineError)(f"{what}: {last}")


class MessageOnly(Exception):
    """A logged line, to be judged like an exception."""


def compile_network(trt: Any, title: str, path: Path, target: Target, timing: Path | None = None) -> bytes:
    """The serialized engine. Raises EngineError, OutOfMemory."""
    if target.profile is not None:
        return attempt(trt, title, path, target, target.profile, timing)
    for smallest in SMALLEST:  # a wrong one is refused at once
        try:
            return attempt(trt, title, path, target, default_profile(path, smallest), timing)
        except EngineError as error:
            if "shape constraints" not in str(error) or smallest == SMALLEST[-1]:
                raise
    raise AssertionError


def attempt(trt: Any, title: str, path: Path, target: Target, profile: Profile, timing: Path | None) -> bytes:
    what = f"{title} could not compile {path.name} in {target.precision}"
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    if builder is None:
        raise failure(what, logger)
    creation = trt.NetworkDefinitionCreationFlag
    typed = hasattr(creation, "STRONGLY_TYPED")
    network = builder.create_network(1 << int(creation.STRONGLY_TYPED if typed else creation.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(network_bytes(path, target.precision)):
        why = "; ".join(one_line(MessageOnly(parser.get_error(index).desc())) for index in range(parser.num_errors))
        raise EngineError(f"{what}: {why[:400] or 'the file cannot be read'}")
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32: TF32 multiplies with 10 bits
    if not typed and target.precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    if config.add_optimization_profile(optimization_profile(builder, profile, what)) < 0:
        raise failure(f"{what} for sizes {dict(profile.shapes)}", logger)
    set_compute(trt, config, target, title)
    with timing_cache(config, timing):
        built = builder.build_serialized_network(network, config)
    if built is None:
        raise failure(what, logger)
    return bytes(built)


def set_compute(trt: Any, config: Any, target: Target, title: str) -> None:
    """RTX: exactly these. TensorRT: this GPU's, or all from 8.0 on."""
    if hasattr(config, "num_compute_capabilities") and hasattr(trt, "ComputeCapability"):
        known = capabilities(trt)
        if strange := [each for each in target.compute if each not in known]:
            raise EngineError(
                f"{title} compiles for {', '.join(map(str, known))}, not for {', '.join(map(str, strange))}"
            )
        config.num_compute_capabilities = len(target.compute)
        for index, each in enumerate(target.compute):
            if not config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{each}"), index):
                raise EngineError(f"{title} does not compile for compute capability {each} beside {target.compute}")
    elif target.compute:
        if min(target.compute) < 80:
            raise EngineError(f"{title} compiles for other machines from 80 on, not for {min(target.compute)}")
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def capabilities(trt: Any) -> tuple[int, ...]:
    """What TensorRT for RTX can be told to compile for; empty for TensorRT."""
    names = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    return tuple(sorted(int(name[2:]) for name in names if name.startswith("SM")))


def optimization_profile(builder: Any, profile: Profile, what: str) -> Any:
    made = builder.create_optimization_profile()
    for name, (smallest, usual, largest) in profile.shapes:
        try:
            made.set_shape(name, smallest, usual, largest)
        except Exception as error:
            sizes = f"{smallest}, {usual}, {largest}"
            raise EngineError(f"{what}: sizes {sizes} of {name} are not valid ({one_line(error)})") from error
    return made


def default_profile(path: Path, smallest: int) -> Profile:
    """For free axes: the first is the batch, others are sizes in pixels. Inputs without free axes need nothing."""
    graph = read(path).graph
    weights = {each.name for each in graph.initializer}
    shapes = []
    for value in graph.input:
        axes = [each.dim_value or None for each in value.type.tensor_type.shape.dim]
        if value.name not in weights and None in axes:
            sizes = zip(BATCHES, (smallest, USUAL, GREATEST), strict=True)
            shapes.append((value.name, tuple(filled(axes, batch, size) for batch, size in sizes)))
    return Profile(tuple(shapes))  # type: ignore[arg-type] # three sizes each


def filled(axes: list[int | None], batch: int, size: int) -> Shape:
    return tuple(given or (batch if axis == 0 else size) for axis, given in enumerate(axes))


def read(path: Path) -> Any:
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's, onnx's and the system's share no base class
        why = one_line(error)[:200] or "it is empty"
        raise EngineError(f"TensorRT could not load {path}: it is no whole ONNX file ({why})") from error
    return model


def network_bytes(path: Path, precision: str) -> bytes:
    model = read(path)
    if precision == "fp16":
        model = to_half(model)
    return bytes(linear_as_convolution(model).SerializeToString())


def linear_as_convolution(model: Any) -> Any:
    """Linear layers on vectors as convolutions of 1 x 1, the same sums: TensorRT for RTX 1.7 compiles no float32 GEMM
    for compute capability 7.5, but compiles these."""
    graph = model.graph
    weights = {each.name: each for each in graph.initializer}
    nodes = []
    for node in graph.node:
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        known = all(name in weights for name in node.input[1:])
        bias = node.input[2] if len(node.input) > 2 else ""
        if node.op_type != "Gemm" or not plain or not known or (bias and len(weights[bias].dims) != 1):
            nodes.append(node)
            continue
        matrix = numpy_helper.to_array(weights[node.input[1]])
        matrix = matrix if given.get("transB", 0) else matrix.T
        kernel, axes, wide, out = (f"{node.output[0]}.{part}" for part in ("kernel", "axes", "wide", "sums"))
        graph.initializer.append(numpy_helper.from_array(matrix[:, :, None, None].copy(), kernel))
        graph.initializer.append(helper.make_tensor(axes, onnx.TensorProto.INT64, [2], [2, 3]))
        inputs = [wide, kernel] + ([bias] if bias else [])
        nodes.append(helper.make_node("Unsqueeze", [node.input[0], axes], [wide], wide))
        nodes.append(helper.make_node("Conv", inputs, [out], node.name))
        nodes.append(helper.make_node("Squeeze", [out, axes], list(node.output), f"{out}.squeeze"))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


@contextlib.contextmanager
def timing_cache(config: Any, path: Path | None) -> Iterator[None]:
    """What TensorRT measured of its kernels is read before and written after. No build fails for the sake of it."""
    if path is None:
        yield
        return
    kept = b""
    with contextlib.suppress(OSError):
        kept = path.read_bytes()
    cache = config.create_timing_cache(kept) or config.create_timing_cache(b"")  # damaged, or of another version
    config.set_timing_cache(cache, False)
    yield
    write_whole(path, bytes(config.get_timing_cache().serialize()))


def write_whole(path: Path, data: bytes) -> None:
    """What only saves time: where it cannot be written it is not kept."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            file.write(data)
        os.replace(file.name, path)
