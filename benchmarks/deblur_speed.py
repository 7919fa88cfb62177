"""How fast the deblurring networks are on whole frames, in one run: the compact one against DeblurGAN at full width.

    python benchmarks/deblur_speed.py [--size 1280x720] [--rounds 3] [--engine openvino:cpu]

Speed does not depend on what a network has learned, so all have random weights: nothing needs to be trained or shipped.
Times are those of the restorer, from a float32 picture to a float32 picture. The networks take turns in every round;
ratios are medians over the rounds of ratios within a round. Also told: how far a frame in tiles is from the whole one.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engines import open_engine
from restore_plugin import deblur
from restore_plugin.networks.blurnet import BlurNet
from restore_plugin.networks.deblurgan import Generator
from restore_plugin.tiling import TileRule
from restore_plugin.types import Support


def lively() -> BlurNet:
    """Its answer is large enough to compare, as after a training."""
    network = BlurNet()
    with torch.no_grad():
        network.tail.weight *= 20
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], TileRule]] = {
    "blurnet": (lively, deblur.BLURNET),
    "deblurgan, a quarter of the width": (lambda: Generator(16), deblur.DEBLURGAN),
    "deblurgan, full width": (Generator, deblur.DEBLURGAN),
}
FAST, SLOW = "blurnet", "deblurgan, full width"
TILE = 704  # px
SHORTEST_SECONDS = 0.5  # that one measurement lasts, if more than one call fits
BUSY = 0.3  # load a core above which others' work shows in the figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1280x720", metavar="WIDTHxHEIGHT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="openvino:cpu")
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    print(f"{processor()}, {cores} cores, load {load:.1f}, {options.engine}, {width}x{height}", flush=True)
    if load > BUSY * cores:
        print("the machine is busy: do not quote these figures")
    picture = np.random.default_rng(0).random((height, width, 3)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        restorers: dict[str, deblur.Deblur] = {}
        for name, (make, rule) in NETWORKS.items():
            torch.manual_seed(0)
            path = written(make(), Path(folder) / f"{len(restorers)}.onnx")
            engine = stack.enter_context(open_engine(options.engine, path))
            restorers[name] = deblur.Deblur(engine, rule, Support())
            if name == FAST:
                tiled = deblur.Deblur(engine, replace(rule, largest=TILE), Support())
                whole = restorers[name](picture)
                changed, off = (float(np.abs(whole - other).max()) for other in (picture, tiled(picture)))
                print(f"{name} changes up to {changed:.2f}; in tiles of {TILE} px it is up to {off:.1g} from that")
        seconds: dict[str, list[float]] = {name: [] for name in restorers}
        for each in restorers.values():
            each(picture)
        for _ in range(options.rounds):
            for name, each in restorers.items():
                seconds[name].append(seconds_a_frame(each, picture))
    print("\n| network | parameters | ms a frame | frames/s | times full-width deblurgan |\n|---|---|---|---|---|")
    for name, (make, _) in NETWORKS.items():
        count = sum(parameter.numel() for parameter in make().parameters())
        median = statistics.median(seconds[name])
        ratio = statistics.median(slow / own for slow, own in zip(seconds[SLOW], seconds[name], strict=True))
        print(f"| {name} | {count:,} | {1000 * median:.0f} | {1 / median:.2f} | {ratio:.1f} |")


def written(network: nn.Module, path: Path) -> Path:
    sizes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter announces its successor
        torch.onnx.export(
            network.eval(),
            (torch.rand(1, 3, 64, 64),),
            str(path),
            input_names=["picture"],
            output_names=["residual"],
            dynamic_axes={"picture": sizes, "residual": sizes},
            opset_version=17,
            dynamo=False,
        )
    return path


def seconds_a_frame(restorer: deblur.Deblur, picture: np.ndarray) -> float:
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < SHORTEST_SECONDS or count == 0:
        restorer(picture)
        count += 1
    return passed / count


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
