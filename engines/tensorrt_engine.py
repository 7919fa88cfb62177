"""TensorRT and TensorRT for RTX: one implementation over the API that they share.

Small differences stand where they matter: in `tensorrt_build`, and below in `make_context`.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from engines import cuda_memory
from engines.base import Input, one_line, out_of_memory
from engines.contract import Engine, EngineError, MissingPackage, OutOfMemory, Shape, Target, UnknownEngine
from engines.cuda_memory import Cuda
from engines.tensorrt_build import capabilities, compile_network, failure, make_logger, write_whole
from engines.tensorrt_libraries import RTX, TENSORRT, Flavour, cuda_major, load
from engines.tensorrt_plan import Plan, check_compute, check_plan, unpack
from engines.tensorrt_slot import Signature, Slot

SLOTS = 2  # one copies while the other computes; more only wait for the same GPU
OR_NAME_THEM = "; or say for which compute capabilities to build, such as --compute 86,89"
TIMING, KERNELS = ".timing", ".kernels"  # files beside the cache's entries, which save time and nothing else


class TensorRt:
    """Backend. `slots`: requests under way at once. `graphs`: whether calls of one size are launched as one graph."""

    flavour: Flavour = TENSORRT
    precisions = ("fp16", "fp32")
    builds = True

    def __init__(self, slots: int = SLOTS, graphs: bool = True) -> None:
        """Raises MissingPackage where TensorRT does not import; a GPU is not asked for yet."""
        self.name, self.extra = self.flavour.name, self.flavour.extra
        self._trt = load(self.flavour)
        self._slots, self._graphs = slots, graphs

    def devices(self) -> tuple[str, ...]:
        return tuple("cuda" if index == 0 else f"cuda:{index}" for index in range(cuda_memory.count()))

    def machine(self, device: str) -> dict[str, str]:
        """For "" only TensorRT's version: all that matters for an engine that is compiled for other machines."""
        facts = {self.name: str(self._trt.__version__)}
        if not device:
            return facts
        with opened(device) as cuda:
            found = cuda.device
        return {**facts, "device": found.name, "compute": str(found.compute), "driver": str(found.driver)}

    def build(self, onnx: Path, target: Target) -> bytes:
        check_precision(self.name, self.precisions, target)
        ahead = bool(capabilities(self._trt))  # it can compile for others
        if ahead and target.compute:
            return self._compiled(onnx, target, target.compute, target.compute)
        with opened(target.device, OR_NAME_THEM if ahead else "") as cuda, cuda.current():
            cuda_memory.check_driver(cuda.device, cuda_major(self.flavour), self.flavour.title)
            if not ahead:  # several capabilities are served by one engine for 8.0 and later
                return self._compiled(onnx, target, target.compute, () if target.compute else (cuda.device.compute,))
            # one that it has no name for gets the engine for 8.0 and later
            compute = tuple(each for each in capabilities(self._trt) if each == cuda.device.compute)
            return self._compiled(onnx, target, compute, compute)

    def _compiled(self, onnx: Path, target: Target, compute: tuple[int, ...], serves: tuple[int, ...]) -> bytes:
        wanted = Target(target.device, target.precision, target.profile, compute, target.options)
        timing = None if capabilities(self._trt) else folder() / f"{self.name}_{self._trt.__version__}{TIMING}"
        engine = compile_network(self._trt, self.flavour.title, onnx, wanted, timing)
        return self._plan(onnx, target, serves).pack(engine)

    def _plan(self, onnx: Path, target: Target, compute: tuple[int, ...]) -> Plan:
        try:
            digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
        except OSError as error:
            raise EngineError(f"the network {onnx} cannot be read: {error.strerror}") from error
        return Plan(self.name, str(self._trt.__version__), target.precision, compute, digest)

    def load(self, onnx: Path, built: bytes, target: Target) -> Engine:
        check_precision(self.name, self.precisions, target)
        plan, serialized = unpack(built)
        check_plan(plan, self._plan(onnx, target, ()))
        cuda = cuda_memory.open_device(index_of(target.device))
        try:
            cuda_memory.check_driver(cuda.device, cuda_major(self.flavour), self.flavour.title)
            check_compute(plan, cuda.device.name, cuda.device.compute)
            kernels = folder() / f"{plan.onnx[:32]}_{plan.precision}_{cuda.device.compute}{KERNELS}"
            return TensorRtEngine(self._trt, cuda, serialized, self, plan.precision, kernels)
        except BaseException:
            cuda.close()
            raise

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def graphs(self) -> bool:
        return self._graphs


class TensorRtRtx(TensorRt):
    flavour = RTX


class TensorRtEngine:
    """Engine (see contract) with several requests under way, each in a slot of its own."""

    def __init__(
        self, trt: Any, cuda: Cuda, serialized: bytes, backend: TensorRt, precision: str, kernels: Path
    ) -> None:
        self.name, self.precision = backend.name, precision
        self.device = "cuda" if cuda.device.index == 0 else f"cuda:{cuda.device.index}"
        self._trt, self._cuda, self._kernels_file = trt, cuda, kernels
        self._logger = make_logger(trt)
        self._kernels: Any = None
        with cuda.current():
            self._runtime = trt.Runtime(self._logger)
            self._engine = self._runtime.deserialize_cuda_engine(serialized) if self._runtime else None
            if self._engine is None:
                raise failure(f"{backend.flavour.title} could not load the engine", self._logger)
            signature = signature_of(trt, self._engine)
            self.inputs = signature.inputs
            self._ranges = {name: self._engine.get_tensor_profile_shape(name, 0) for name in signature.inputs}
            made: list[Slot] = []
            try:
                for _ in range(backend.slots):
                    context = self._make_context(backend.graphs)
                    made.append(Slot(cuda, context, self._logger, signature, backend.graphs and not self._has_graphs))
            except BaseException:
                for slot in made:
                    slot.close()
                raise
        self._count = len(made)
        self._idle: queue.SimpleQueue[Slot | None] = queue.SimpleQueue()
        for slot in made:
            self._idle.put(slot)
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix=self.name)
        self._closing = threading.Lock()
        self._closed = False

    @property
    def _has_graphs(self) -> bool:
        """TensorRT for RTX captures by itself, also where shapes change."""
        return hasattr(self._trt, "CudaGraphStrategy")

    def _make_context(self, graphs: bool) -> Any:
        """Memory in between is ours to give where TensorRT allows (10 on): it then follows the request's shapes."""
        trt: Any = self._trt
        engine: Any = self._engine
        strategy: Any = getattr(trt, "ExecutionContextAllocationStrategy", None)
        if self._has_graphs:
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy.USER_MANAGED)
            whole, off = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE, trt.CudaGraphStrategy.DISABLED
            config.cuda_graph_strategy = whole if graphs else off
            if self._kernels is None:
                self._kernels = config.create_runtime_cache()
                with contextlib.suppress(OSError):  # kernels compiled for this GPU by an earlier run
                    self._kernels.deserialize(self._kernels_file.read_bytes())  # refuses what does not fit
            config.set_runtime_cache(self._kernels)
            context = engine.create_execution_context(config)
        elif strategy is not None:
            context = engine.create_execution_context(strategy.USER_MANAGED)
        else:
            context = engine.create_execution_context()
        if context is None:
            raise failure("TensorRT could not make the network ready to run", self._logger)
        return context

    def run(self, inputs: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """Also takes arrays that live on the GPU (DLPack, `__cuda_array_interface__`), without a copy."""
        return self._run(inputs, None)

    def run_into(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """The answers go into arrays on the GPU, without a copy; they are complete when this returns."""
        self._run(inputs, outputs)

    def submit(self, inputs: Mapping[str, Any]) -> Future[dict[str, npt.NDArray[Any]]]:
        return self._pool.submit(self.run, inputs)

    def _run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None) -> dict[str, npt.NDArray[Any]]:
        slot = self._idle.get()
        if slot is None:
            self._idle.put(None)  # for the next one who waits
            raise EngineError(f"the engine {self.name} was closed and cannot run")
        where = f"{self.name} on {self.device}"
        sizes = ", ".join(f"{name} {'x'.join(map(str, getattr(each, 'shape', ())))}" for name, each in inputs.items())
        try:
            self._check_ranges(inputs)
            with self._cuda.current():
                return slot.run(inputs, outputs)
        except OutOfMemory as error:
            raise OutOfMemory(f"{where} ran out of memory for {sizes}: {one_line(error)}") from error
        except EngineError as error:
            raise EngineError(f"{where} could not run {sizes}: {one_line(error)}") from error
        except Exception as error:
            kind = OutOfMemory if out_of_memory(error) else EngineError
            raise kind(f"{where} could not run {sizes}: {one_line(error)}") from error
        finally:
            self._idle.put(slot)

    def _check_ranges(self, inputs: Mapping[str, Any]) -> None:
        for name, (low, _, high) in self._ranges.items():
            shape: Shape = tuple(getattr(inputs.get(name), "shape", ()))
            if len(shape) == len(low) and not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
                sizes = " to ".join("x".join(map(str, each)) for each in (low, high))
                raise EngineError(
                    f"it was built for {sizes} of the input {name}, got {'x'.join(map(str, shape))}; cut it into "
                    "tiles, or build for other sizes"
                )

    def close(self) -> None:
        """Waits for what is under way."""
        self._pool.shutdown()
        with self._closing:
            if self._closed:
                return
            self._closed = True
        held = [self._idle.get() for _ in range(self._count)]
        self._idle.put(None)
        with self._cuda.current():
            if self._kernels is not None:
                write_whole(self._kernels_file, bytes(self._kernels.serialize()))
            for slot in held:
                if slot is not None:
                    slot.close()
            self._kernels = self._engine = self._runtime = None  # in this order, while the context is current
        self._cuda.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def signature_of(trt: Any, engine: Any) -> Signature:
    inputs, outputs = {}, {}
    for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            inputs[name] = Input(dtype, tuple(None if size < 0 else size for size in engine.get_tensor_shape(name)))
        else:
            outputs[name] = dtype
    return Signature(inputs, outputs)


def check_precision(name: str, known: tuple[str, ...], target: Target) -> None:
    if target.precision not in known:
        raise UnknownEngine(
            f"expected a precision that {name} computes in, {' or '.join(known)}, got {target.precision}"
        )


def index_of(device: str) -> int:
    """ "", "cuda" and "cuda:0" are the first one."""
    kind, _, number = (device or "cuda").partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise UnknownEngine(f"expected a device such as cuda or cuda:1 for TensorRT, got {device}")
    return int(number or "0")


@contextlib.contextmanager
def opened(device: str, otherwise: str = "") -> Iterator[Cuda]:
    """`otherwise`: what else could be done where there is no device."""
    try:
        cuda = cuda_memory.open_device(index_of(device))
    except MissingPackage:
        raise
    except EngineError as error:
        raise type(error)(f"{error}{otherwise}") from error
    try:
        yield cuda
    finally:
        cuda.close()


def folder() -> Path:
    from engines.cache import default_folder

    return default_folder()
