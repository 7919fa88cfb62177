"""Backends for the tests of cache, building and choice. They do what their network's file name says.

A built engine is the text "built N" and answers with its input; a "wrong" one does not.
"""

import os
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from engines.contract import Arrays, EngineError, OutOfMemory, Target

COUNT = "builds.txt"  # beside the network: the id of the process that built, a line for each build


class FakeEngine:
    name = "fake"

    def __init__(self, precision: str, device: str, factor: float) -> None:
        self.precision, self.device, self.factor = precision, device, factor

    def run(self, inputs: Arrays) -> dict[str, Any]:
        return {"b": np.maximum(inputs["a"], 0) * np.float32(self.factor)}

    def submit(self, inputs: Arrays) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        future.set_result(self.run(inputs))
        return future

    def close(self) -> None:
        pass

    def __enter__(self) -> "FakeEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Fake:
    name = "fake"
    extra = None
    precisions = ("fp16", "fp32")
    builds = True

    def devices(self) -> tuple[str, ...]:
        return ("gpu", "gpu:1")

    def machine(self, device: str) -> dict[str, str]:
        facts = {"fake": "1.0"}
        return {**facts, "driver": os.environ.get("FAKE_DRIVER", "1"), "device": device} if device else facts

    def build(self, onnx: Path, target: Target) -> bytes:
        with onnx.with_name(COUNT).open("a") as file:
            file.write(f"{os.getpid()}\n")
        stem = onnx.stem
        if stem == "crash":
            print("some noise\nlast words", file=sys.stderr, flush=True)
            os.abort()
        if stem == "hang":
            time.sleep(600)
        if stem == "memory":
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            np.ones(1 << 30)
        if stem == "killed":
            os.kill(os.getpid(), 9)
        if stem == "device_memory":
            raise OutOfMemory("the GPU is full")
        if stem == "driver":
            raise EngineError(
                "CUDA driver version is insufficient:\n  expected 13.0 or newer, got 12.2; update the driver"
            )
        if stem == "defect":
            raise ZeroDivisionError("two lines\nof text")
        if stem == "slow":
            time.sleep(1.0)
        return b"built " + stem.encode()

    def load(self, onnx: Path, built: bytes, target: Target) -> FakeEngine:
        if not built.startswith(b"built "):
            raise EngineError("this is not what build returned")
        return FakeEngine(target.precision, target.device, 1.5 if b"wrong" in built else 1.0)


class OldDriver(Fake):
    """Installed, but its driver is too old even to look for devices."""

    def devices(self) -> tuple[str, ...]:
        raise EngineError("CUDA driver version is insufficient: expected 13.0 or newer, got 12.2; update the driver")


class NoDevice(Fake):
    def devices(self) -> tuple[str, ...]:
        return ()


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("a library\ndoes not load")
