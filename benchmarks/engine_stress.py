"""Does an engine hang when threads use it at once? Run by hand: python -m benchmarks.engine_stress --mode raw

Two threads and a few hundred small inferences of changing sizes, with a watchdog that prints where every thread stands.
`engine`: our OpenVinoEngine. `raw`: OpenVINO itself, one compiled model and two requests at once, as we ran it until
November 2026. `two`: the same with a model a thread. `streams`: raw, compiled for two streams. What hung was the first
use of `Tensor.data` in two threads at once (see engines/openvino_engine.py): `--runs 2`, many times over, shows it, and
with `--touch`, which makes that first use before the threads start, it is gone.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from engines import open_engine
from engines.silence import no_telemetry

with no_telemetry():
    import openvino

WEIGHTS = Path(__file__).parent.parent / "restore_plugin" / "weights"
SIZES = (32, 64, 96, 128)


def asked(file: str, height: int, width: int) -> dict[str, Any]:
    random = np.random.default_rng(height * width)
    if file == "mosaic_finder.onnx":
        return {"luma": random.random((1, 1, height, width), np.float32)}
    picture = random.random((1, 4, height // 4, width // 4), np.float32)
    return {"picture": picture, "condition": np.zeros((1, 4), np.float32)}


def runners(mode: str, threads: int) -> list[tuple[str, Any]]:
    """For each thread the network's file and a function that runs it."""
    files = ["cellnet.onnx", "mosaic_finder.onnx"]
    if mode == "engine":
        opened = [open_engine("openvino", WEIGHTS / file) for file in files]
        return [(files[i % 2], opened[i % 2].run) for i in range(threads)]
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "CPU_RUNTIME_CACHE_CAPACITY": "64"}
    if mode == "streams":
        settings = {**settings, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "2"}
    core = openvino.Core()
    used = files if mode == "two" else files[1:]
    models = [core.compile_model(str(WEIGHTS / file), "CPU", settings) for file in used]
    return [(used[i % len(used)], models[i % len(used)].create_infer_request().infer) for i in range(threads)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("engine", "raw", "two", "streams"), default="engine")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=300, help="inferences a thread")
    parser.add_argument("--seconds", type=float, default=120, help="without any progress before it counts as hung")
    parser.add_argument("--touch", action="store_true", help="use Tensor.data once before the threads start")
    options = parser.parse_args()
    if options.touch:
        _ = openvino.Tensor(np.zeros(1, np.float32)).data
    done = [0] * options.threads

    def work(index: int, file: str, run: Any) -> None:
        random = np.random.default_rng(index)
        for _ in range(options.runs):
            height, width = random.choice(SIZES, 2)
            run(asked(file, int(height), int(width)))
            done[index] += 1

    jobs = enumerate(runners(options.mode, options.threads))
    threads = [threading.Thread(target=work, args=(i, file, run), daemon=True) for i, (file, run) in jobs]
    started = moved = time.monotonic()
    before = 0
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.2)
        if sum(done) > before:
            before, moved = sum(done), time.monotonic()
        elif time.monotonic() - moved > options.seconds:
            print(f"{options.mode}: HUNG after {done} inferences", flush=True)
            faulthandler.dump_traceback()
            faulthandler.dump_traceback_later(0.1, exit=True)  # the runtime's threads may keep us from ending
            time.sleep(5)
    print(f"{options.mode}: {sum(done)} inferences in {time.monotonic() - started:.1f} s, no hang")
    return 0


if __name__ == "__main__":
    sys.exit(main())
