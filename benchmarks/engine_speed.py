"""How fast each engine runs each shipped network, against torch in float32 and against the machine's own arithmetic.

    python benchmarks/engine_speed.py [--device cpu|cuda] [--networks NAME ...] [--sizes 256 512 1280x720] [--rounds 3]

One run, one process, all cores. The variants take turns within each round, so that a machine that is busy for a while
slows all of them; ratios are medians over the rounds of ratios within a round. All times are from numpy arrays to numpy
arrays, copies to and from a GPU included. Before it is timed, every variant's answer is compared with torch's in
float32. GFLOP: those of the ONNX file's convolutions and matrix products, a multiplication and addition counted as two.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.utils.flop_counter import FlopCounterMode

from engines import Choice, EngineError, choices, open_choice
from restore_plugin.catalog import WEIGHTS

Arrays = dict[str, npt.NDArray[Any]]
Call = Callable[[], Arrays]

EAGER = "torch eager fp32"
SHORTEST_SECONDS = 0.3  # that one measurement lasts, if more than one call fits
REST_SECONDS = 0.1  # so that the threads of one runtime stop spinning before the next is timed
PRODUCT = 2048  # side of the matrices whose product tells what the machine can do
STREAMS = 2
BUSY = 0.3  # load a core at the start, above which others' work shows in the figures
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Known:
    """The torch class behind a shipped file, "module:class" in restore_plugin.networks, and what its sides must be
    multiples of."""

    network: str
    multiple: int


NETWORKS = {
    "cellnet.onnx": Known("cellnet:CellNet", 8),
    "mosaic_finder.onnx": Known("mosaic_finder:MosaicFinder", 32),
    "rainnet.onnx": Known("rainnet:RainNet", 16),
    "blurnet.onnx": Known("blurnet:BlurNet", 16),
}
MULTIPLE = 64  # enough for every network that is not in the table


@dataclass
class Variant:
    """One way to run a network. `call` answers once; `stream` does one piece of work in a stream of its own."""

    name: str
    call: Call
    precision: str
    overlapped: Callable[[int], object] | None = None  # so many calls, STREAMS at a time
    error: float = 0.0  # largest, against torch in float32, relative to the largest value of its answer
    memory_mib: float | None = None
    seconds: list[float] = field(default_factory=list)
    overlapped_seconds: list[float] = field(default_factory=list)


@dataclass
class Result:
    """One row of the tables."""

    network: str
    size: str
    variant: str
    milliseconds: float
    ratio: float | None  # of speed, to torch eager in float32
    frames_a_second: float
    frames_a_second_overlapped: float | None
    error: float | None
    memory_mib: float | None
    gflop: float
    share: float  # of the rate of matrix products in the same precision


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="files of restore_plugin/weights, without .onnx")
    parser.add_argument("--sizes", nargs="+", metavar="WIDTHxHEIGHT", help="or SIDE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes a minute a size")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here that torch can use, so nothing was measured")
        return 3
    sizes = options.sizes or (["256", "512", "1280x720"] if options.device == "cpu" else ["1280x720", "1920x1080"])
    files = sorted(WEIGHTS.glob("*.onnx"))
    if options.networks:
        files = [WEIGHTS / f"{Path(name).stem}.onnx" for name in options.networks]
    if missing := [path.stem for path in files if not path.exists()]:
        parser.error(f"there is no network {', '.join(missing)} in {WEIGHTS}")
    machine = machine_of(options.device)
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    if options.device == "cpu" and float(machine["load"]) > BUSY * (os.cpu_count() or 1):
        print(
            "\nthe machine is busy: torch suffers most from that, so these ratios flatter the others; do not quote them"
        )
    results: list[Result] = []
    for path in files:
        for size in sizes:
            results += measure(path, parsed(size), options.device, options.rounds, not options.no_compile)
    print_aims(results, options.device)
    if options.json:
        told = {"command": " ".join(sys.argv), "machine": machine, "results": [asdict(each) for each in results]}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


def parsed(size: str) -> tuple[int, int]:
    """(width, height)"""
    width, _, height = size.partition("x")
    return int(width), int(height or width)


def machine_of(device: str) -> dict[str, str]:
    told = {"load": f"{os.getloadavg()[0]:.1f}", "torch": torch.__version__, "python": platform.python_version()}
    for package in ("openvino", "onnxruntime", "tensorrt"):
        try:
            told[package] = str(importlib.import_module(package).__version__).split("-")[0]
        except ImportError:
            continue
    if device == "cuda":
        told["GPU"] = torch.cuda.get_device_name()
    else:
        names = (line for line in cpu_lines() if line.startswith("model name"))
        told["CPU"] = next(names, platform.processor()).partition(":")[2].strip() or platform.machine()
        told["threads"] = str(torch.get_num_threads())
        told["capability"] = torch.backends.cpu.get_cpu_capability()
    return told


def cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def measure(path: Path, size: tuple[int, int], device: str, rounds: int, compiled: bool) -> list[Result]:
    """Prints one table."""
    known = NETWORKS.get(path.name)
    multiple = known.multiple if known else MULTIPLE
    width, height = (-(-side // multiple) * multiple for side in size)
    print(f"\n### {path.stem}, {width}x{height}\n", flush=True)
    if known is None:
        print("torch: the file's own nodes, since its class is not in this script's table; not compiled\n")
    model = with_sizes(onnx.load(str(path)), width, height)
    inputs = inputs_of(model)
    gflop = gflop_of(path, inputs)
    notes: list[str] = []
    with ExitStack() as stack:
        variants = list(variants_of(path, known, model, inputs, device, compiled, notes, stack))
        compare(variants, notes)
        rates = take_turns(variants, device, rounds)
        if device == "cpu":
            notes += crowded(variants)
    results = [result_of(each, variants, path.stem, f"{width}x{height}", gflop, rates) for each in variants]
    print_table(results, rates, gflop, device)
    for note in notes:
        print(f"\n- {note}", end="")
    if notes:
        print()
    return results


def with_sizes(model: Any, width: int, height: int) -> Any:
    """The same network with its free axes fixed: a batch of one picture."""
    sizes = {"batch": 1, "height": height, "width": width}
    for given in model.graph.input:
        for axis in given.type.tensor_type.shape.dim:
            if not axis.HasField("dim_value"):
                axis.dim_value = sizes[axis.dim_param]
    return model


def inputs_of(model: Any) -> Arrays:
    random = np.random.default_rng(0)
    stored = {each.name for each in model.graph.initializer}
    asked = [each for each in model.graph.input if each.name not in stored]
    shapes = {each.name: [axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in asked}
    return {name: random.random(shape).astype(np.float32) for name, shape in shapes.items()}


def gflop_of(path: Path, inputs: Arrays) -> float:
    """Counted while torch runs the ONNX file's own nodes once: some sizes are known only then."""
    with open_choice(Choice("torch", "cpu", "fp32", "to count"), path) as engine:
        counter = FlopCounterMode(display=False)
        with counter:
            engine.run(inputs)
    return counter.get_total_flops() / 1e9


def variants_of(
    path: Path,
    known: Known | None,
    model: Any,
    inputs: Arrays,
    device: str,
    compiled: bool,
    notes: list[str],
    stack: ExitStack,
) -> Iterator[Variant]:
    """Those that open here; of the others `notes` says why not."""
    precisions = ("fp32",) if device == "cpu" else ("fp32", "fp16")
    if known is not None:
        for precision in precisions:
            for way in ("eager", "compile") if compiled else ("eager",):
                network = torch_network(known, model, device, precision)
                yield from opened(functools.partial(torch_variant, network, inputs, way, device, precision), notes)
    else:
        make = functools.partial(engine_variant, "torch", "fp32", path, inputs, device, stack)
        yield from (replace(variant, name=EAGER) for variant in opened(make, notes))
    asked: tuple[tuple[str, str], ...] = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
    if device == "cuda":
        asked = tuple((name, precision) for name in ("tensorrt", "tensorrt_rtx") for precision in precisions)
    for engine, precision in asked:
        yield from opened(functools.partial(engine_variant, engine, precision, path, inputs, device, stack), notes)


def opened(make: Callable[[], Variant], notes: list[str]) -> Iterator[Variant]:
    before = free_mib()
    try:
        variant = make()
        variant.call()
        if variant.overlapped:
            variant.overlapped(2 * STREAMS)
    except Exception as error:  # a compiler that is missing, a driver that is too old: a fact for the table
        notes.append(f"not measured: {' '.join(str(error).split())[:300]}")
        return
    if before is not None:
        variant.memory_mib = before - (free_mib() or 0)
    yield variant


def free_mib() -> float | None:
    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0] / 2**20


def torch_network(known: Known, model: Any, device: str, precision: str) -> torch.nn.Module:
    """With the shipped weights: zeros and very small numbers change the speed of some processors."""
    module, name = known.network.split(":")
    network: torch.nn.Module = getattr(importlib.import_module(f"restore_plugin.networks.{module}"), name)()
    stored = {each.name: onnx.numpy_helper.to_array(each).copy() for each in model.graph.initializer}
    wanted = network.state_dict()
    network.load_state_dict({key: torch.from_numpy(stored[key]) for key in wanted})
    return network.eval().to(device, DTYPES[precision])


def torch_variant(network: torch.nn.Module, inputs: Arrays, way: str, device: str, precision: str) -> Variant:
    name = f"torch {way} {precision}"
    run: Callable[..., Any] = torch.compile(network) if way == "compile" else network
    dtype = DTYPES[precision]

    def call() -> Arrays:
        given = [torch.from_numpy(array).to(device, dtype) for array in inputs.values()]
        with torch.inference_mode(), plain_float32():
            return {"": run(*given).float().cpu().numpy()}

    def overlapped(count: int) -> None:
        def work() -> None:
            with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
                for _ in range(count // STREAMS):
                    call()

        threads = [threading.Thread(target=work) for _ in range(STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    try:
        call()
    except Exception as error:
        raise EngineError(f"{name}: {' '.join(str(error).split())[:200] or type(error).__name__}") from error
    return Variant(name, call, precision, overlapped if device == "cuda" else None)


@contextmanager
def plain_float32() -> Iterator[None]:
    """Without TF32, which would round what is multiplied to 10 bits and call it float32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        yield


def engine_variant(name: str, precision: str, path: Path, inputs: Arrays, device: str, stack: ExitStack) -> Variant:
    """Building, where there is anything to build, happens here and is not timed."""
    choice = choices(f"{name}:{device}", precision)[0]
    choice = Choice(choice.backend, choice.device, choice.precision, "for the benchmark")
    engine = stack.enter_context(open_choice(choice, path))

    def overlapped(count: int) -> None:
        futures: list[Future[Arrays]] = []
        for index in range(count):
            if index >= STREAMS:
                futures[index - STREAMS].result()
            futures.append(engine.submit(inputs))
        for future in futures:
            future.result()

    variant = Variant(f"{name} {precision}", lambda: engine.run(inputs), precision)
    variant.overlapped = overlapped if device == "cuda" else None
    return variant


def compare(variants: list[Variant], notes: list[str]) -> None:
    reference = next((each for each in variants if each.name == EAGER), None)
    if reference is None:
        return
    (expected,) = reference.call().values()
    for variant in variants:
        (found,) = variant.call().values()
        variant.error = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not variant.error < 0.05:
            notes.append(f"{variant.name} answers otherwise than torch: an error of {variant.error:.2g}")


def take_turns(variants: list[Variant], device: str, rounds: int) -> dict[str, float]:
    """Times every variant in every round; returns GFLOP/s of matrix products by precision, the best of the rounds."""
    precisions = sorted({each.precision for each in variants} | {"fp32"})
    rates: dict[str, list[float]] = {precision: [] for precision in precisions}
    for _ in range(rounds):
        for precision in precisions:
            rates[precision].append(product_rate(device, precision))
        for variant in variants:
            time.sleep(REST_SECONDS)
            variant.call()
            variant.seconds.append(seconds_a_call(functools.partial(repeat, variant.call)))
            if variant.overlapped:
                variant.overlapped_seconds.append(seconds_a_call(variant.overlapped))
    return {precision: max(each) for precision, each in rates.items()}


def crowded(variants: list[Variant]) -> list[str]:
    """Torch's threads wait for each other after every layer: where others hold a core, one thread alone is faster."""
    eager = next((each for each in variants if each.name == EAGER), None)
    threads = torch.get_num_threads()
    if eager is None or threads == 1:
        return []
    torch.set_num_threads(1)
    alone = seconds_a_call(functools.partial(repeat, eager.call))
    torch.set_num_threads(threads)
    together = statistics.median(eager.seconds)
    if alone >= together:
        return []
    told = f"{alone * 1000:.1f} ms, on {threads} {together * 1000:.1f} ms"
    return [f"torch eager on one thread: {told}; do not quote its ratios unless the machine was quiet"]


def repeat(call: Call, count: int) -> None:
    for _ in range(count):
        call()


def seconds_a_call(work: Callable[[int], object]) -> float:
    count = STREAMS
    while True:
        started = time.perf_counter()
        work(count)
        passed = time.perf_counter() - started
        if passed >= SHORTEST_SECONDS:
            return passed / count
        count *= 2


def product_rate(device: str, precision: str) -> float:
    """GFLOP/s"""
    left = torch.rand(PRODUCT, PRODUCT, device=device).to(DTYPES[precision])

    def work(count: int) -> None:
        for _ in range(count):
            torch.matmul(left, left)
        if device == "cuda":
            torch.cuda.synchronize()

    work(1)
    return 2 * PRODUCT**3 / 1e9 / seconds_a_call(work)


def result_of(
    variant: Variant, variants: list[Variant], network: str, size: str, gflop: float, rates: dict[str, float]
) -> Result:
    eager = next((each for each in variants if each.name == EAGER), None)
    seconds = statistics.median(variant.seconds)
    ratio = None
    if eager is not None:
        ratio = statistics.median(a / b for a, b in zip(eager.seconds, variant.seconds, strict=True))
    overlapped = 1 / statistics.median(variant.overlapped_seconds) if variant.overlapped_seconds else None
    return Result(
        network,
        size,
        variant.name,
        seconds * 1000,
        ratio,
        1 / seconds,
        overlapped,
        variant.error if eager is not None else None,
        variant.memory_mib,
        gflop,
        gflop / seconds / rates[variant.precision],
    )


def print_table(results: list[Result], rates: dict[str, float], gflop: float | None, device: str) -> None:
    told = ", ".join(f"{precision} {rate:.0f}" for precision, rate in rates.items())
    print(f"{gflop:.2f} GFLOP; matrix products, GFLOP/s: {told}\n")
    gpu = device == "cuda"
    columns = ["variant", "ms", "times torch eager fp32", "GFLOP/s", "share of matrix product", "error"]
    columns += ["frames/s", f"frames/s, {STREAMS} streams", "MiB"] if gpu else []
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for each in results:
        cells = [each.variant, f"{each.milliseconds:.1f}", number(each.ratio, ".2f")]
        cells += [f"{each.gflop / each.milliseconds * 1000:.0f}", f"{each.share:.0%}"]
        cells.append(number(each.error, ".1g"))
        if gpu:
            cells += [number(each.frames_a_second, ".1f"), number(each.frames_a_second_overlapped, ".1f")]
            cells.append(number(each.memory_mib, ".0f"))
        print(f"| {' | '.join(cells)} |", flush=True)


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def print_aims(results: list[Result], device: str) -> None:
    """By how much each aim is reached or missed."""
    print("\n### aims\n")
    places = dict.fromkeys((each.network, each.size) for each in results)
    speed = {(each.network, each.size, each.variant): each.ratio for each in results if each.ratio is not None}
    aims = [("tensorrt fp16", EAGER, 3.0), ("tensorrt fp16", "torch compile fp16", 1.5)]
    if device == "cpu":
        auto = choices()[0]
        chosen = f"{auto.backend} {auto.precision}"
        print(f"auto takes {chosen} here\n")
        aims = [(chosen, EAGER, 2.0)]
        others = [name for name in dict.fromkeys(each.variant for each in results) if name.endswith(auto.precision)]
        aims += [(chosen, other, 1.0) for other in others if other not in (chosen, EAGER)]
    print("| network | size | what | aim | measured |\n|---|---|---|---|---|")
    for network, size in places:
        for fast, slow, aim in aims:
            if (network, size, fast) in speed and (network, size, slow) in speed:
                measured = speed[network, size, fast] / speed[network, size, slow]
                print(f"| {network} | {size} | {fast} against {slow} | {aim:g} | {measured:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
