"""How long TensorRT for RTX takes to compile each network for each compute capability, and how large the engine is.

    python benchmarks/tensorrt_builds.py [NETWORK.onnx ...] [--compute 75,80,86,89,120]

Needs the extra `rtx`, and no GPU. Prints a Markdown table: seconds / MB. Default sizes: see `engines.tensorrt_build`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import time
from pathlib import Path

from engines.contract import EngineError, Target
from engines.tensorrt_engine import TensorRtRtx
from restore_plugin.catalog import WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", type=Path, default=sorted(WEIGHTS.glob("*.onnx")))
    parser.add_argument("--compute", default="75,80,86,89,120", help="compute capabilities (default: %(default)s)")
    arguments = parser.parse_args()
    compute = [int(each) for each in arguments.compute.split(",")]
    backend = TensorRtRtx()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    version = backend.machine("")["tensorrt_rtx"]
    print(f"TensorRT for RTX {version}, {cores} cores ({platform.machine()}), no GPU; seconds / MB\n")
    print(f"| network | SHA-256 | precision | MB of ONNX | {' | '.join(f'SM {each}' for each in compute)} |")
    print("|---|---|---|" + "---:|" * (len(compute) + 1))
    for path in arguments.networks:
        data = path.read_bytes()
        for precision in ("fp32", "fp16"):
            row = [path.stem, hashlib.sha256(data).hexdigest()[:12], precision, f"{len(data) / 1e6:.2f}"]
            print(f"| {' | '.join(row + [built(backend, path, precision, each) for each in compute])} |", flush=True)


def built(backend: TensorRtRtx, path: Path, precision: str, compute: int) -> str:
    started = time.perf_counter()
    try:
        size = len(backend.build(path, Target(precision=precision, compute=(compute,))))
    except EngineError as error:
        return f"no: {error}"
    return f"{time.perf_counter() - started:.2f} / {size / 1e6:.2f}"


if __name__ == "__main__":
    main()
