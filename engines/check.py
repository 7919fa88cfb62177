"""Check before use: an engine is trusted once it has answered a known input nearly as torch in float32 does.

`NAME.check.npz` beside `NAME.onnx` holds the input and the answer (keys "in.NAME" and "out.NAME"; "onnx": the SHA-256
of the network they belong to). Where there is none, for a user's own network, OpenVINO in fp32 gives the answer.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.base import SerialEngine, one_line
from engines.contract import Engine, EngineError, Profile, Shape, Target, WrongAnswer

# Largest error, relative to the largest value of the answer. A network of 25 layers adds up the rounding of each:
# about 25 ** 0.5 times the format's own, 2 ** -11 for fp16 and 2 ** -8 for bf16, with room for eight times that in fp16
# (whose small numbers lose more) and for three times in bf16 (measured: 0.007). fp32 was measured at 1e-6: there is
# room for deeper networks, and yet bf16 does not pass for it.
LARGEST = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 6e-2}
MEAN = 0.2  # of the largest error: rounding is rare at its worst, a wrong network is wrong everywhere
FREE_SIZE = 64  # px, of a free axis where nothing is stored; a batch is 1
SEED = 20260117

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Answer:
    """What a network answers to one input; `source`: where that is known from."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    source: str


@dataclass(frozen=True)
class Errors:
    """How far an engine's answer was off, relative to the largest value of the right one; `limit` for the largest."""

    largest: float
    mean: float
    limit: float

    @property
    def within(self) -> bool:
        return self.largest <= self.limit and self.mean <= self.limit * MEAN  # False for NaN


def check(engine: Engine, onnx: Path, profile: Profile | None = None) -> Errors:
    """Raises WrongAnswer; OutOfMemory and EngineError as `run` does."""
    known = answer_for(onnx, profile)
    errors = compare(engine.run(known.inputs), known.outputs, engine.precision)
    if not errors.within:
        raise WrongAnswer(
            f"{engine.name} on {engine.device} in {engine.precision} answers wrongly for {onnx.name}: off by "
            f"{errors.largest:.2g} at most and {errors.mean:.2g} on average, allowed are {errors.limit:.2g} and "
            f"{errors.limit * MEAN:.2g} of the largest value"
        )
    return errors


def compare(found: dict[str, Array], expected: dict[str, Array], precision: str) -> Errors:
    """Raises WrongAnswer where outputs are missing or of another shape or type."""
    largest = mean = 0.0
    for name, right in expected.items():
        got = found.get(name)
        if got is None or got.shape != right.shape or got.dtype != right.dtype:
            what = "none" if got is None else f"{got.dtype} {got.shape}"
            raise WrongAnswer(f"expected the output {name} as {right.dtype} {right.shape}, got {what}")
        away = np.abs(got.astype(np.float64) - right.astype(np.float64))
        away /= max(float(np.abs(right).max(initial=0)), 1e-6)
        # `max` would drop a NaN
        largest = float(np.maximum(largest, away.max(initial=0)))
        mean = float(np.maximum(mean, away.mean() if away.size else 0))
    return Errors(largest, mean, LARGEST[precision])


def answer_for(onnx: Path, profile: Profile | None = None) -> Answer:
    """The stored answer, where it is there and of sizes that the profile serves; else a computed one."""
    known = stored(onnx)
    if profile is None:
        return known or computed(onnx, {})
    if known is not None and all(serves(sizes, known.inputs.get(name)) for name, sizes in profile.shapes):
        return known
    smallest = {name: sizes[0] for name, sizes in profile.shapes}
    # more of the same picture: noise would do, too, but this is what the network was checked with at its export
    wanted = {name: enlarged(known.inputs[name], smallest[name]) for name in smallest if known and name in known.inputs}
    return computed(onnx, smallest, wanted)


def serves(sizes: tuple[Shape, Shape, Shape], array: Array | None) -> bool:
    low, _, high = sizes
    return array is not None and all(a <= b <= c for a, b, c in zip(low, array.shape, high, strict=True))


def enlarged(array: Array, shape: Shape) -> Array:
    """Repeated (or cut) along every axis."""
    for axis, size in enumerate(shape):
        array = np.take(array, np.arange(size) % array.shape[axis], axis)
    return array


def path_of(onnx: Path) -> Path:
    return onnx.with_suffix(".check.npz")


def stored(onnx: Path) -> Answer | None:
    """None where there is none, or one of another network. Raises EngineError where it is damaged."""
    path = path_of(onnx)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise EngineError(f"{path} cannot be read ({one_line(error)}); install restore-plugin again") from error
    if str(arrays.pop("onnx", "")) != sha256(onnx):
        return None
    inputs = {name[3:]: array for name, array in arrays.items() if name.startswith("in.")}
    outputs = {name[4:]: array for name, array in arrays.items() if name.startswith("out.")}
    return Answer(inputs, outputs, path.name)


def store(onnx: Path, inputs: dict[str, Array], outputs: dict[str, Array]) -> Path:
    """Write what `stored` reads; `outputs` are torch's in float32. Called when a network is exported."""
    arrays: dict[str, Any] = {f"in.{name}": array for name, array in inputs.items()}
    arrays |= {f"out.{name}": array for name, array in outputs.items()}
    np.savez_compressed(path_of(onnx), onnx=np.array(sha256(onnx)), **arrays)
    return path_of(onnx)


def computed(onnx: Path, shapes: dict[str, Shape], wanted: dict[str, Array] | None = None) -> Answer:
    """What OpenVINO answers in fp32 on the CPU. Raises EngineError where it does not."""
    from engines.openvino_engine import OpenVinoBackend

    try:
        reference = OpenVinoBackend().load(onnx, b"", Target("cpu", "fp32"))
        with reference:
            assert isinstance(reference, SerialEngine)
            random = np.random.default_rng(SEED)
            inputs = dict(wanted or {})
            for name, asked in reference.inputs.items():
                sizes = [1 if axis == 0 else FREE_SIZE for axis in range(len(asked.shape))]
                free = shapes.get(name, tuple(sizes))
                shape = [size if fixed is None else fixed for fixed, size in zip(asked.shape, free, strict=True)]
                inputs.setdefault(
                    name, (random.random(shape) * (1 if asked.dtype.kind == "f" else 1.999)).astype(asked.dtype)
                )
            return Answer(inputs, reference.run(inputs), "openvino fp32")
    except EngineError as error:
        raise EngineError(
            f"there is nothing to check {onnx.name} against: no {path_of(onnx).name} of it, and {one_line(error)}"
        ) from error


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
