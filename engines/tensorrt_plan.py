"""What a TensorRT build returns: a line that says what it is, and the engine. Judged before TensorRT sees a byte of it.

TensorRT reads a damaged engine without a checksum, and one for another GPU may crash it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from engines.contract import EngineError

MAGIC = b"restore-plugin TensorRT engine, format 1\n"


@dataclass(frozen=True)
class Plan:
    """`compute`: the capabilities that it was compiled for; empty: 8.0 and all later ones (TensorRT for RTX)."""

    backend: str
    version: str  # of TensorRT
    precision: str
    compute: tuple[int, ...]
    onnx: str  # SHA-256 of the network

    def pack(self, engine: bytes) -> bytes:
        head = {**asdict(self), "sha256": hashlib.sha256(engine).hexdigest()}
        return MAGIC + json.dumps(head, sort_keys=True).encode() + b"\n" + engine


def unpack(data: bytes) -> tuple[Plan, bytes]:
    """Raises EngineError for what is not whole."""
    if not data.startswith(MAGIC):
        raise EngineError(
            f"expected a TensorRT engine built here, got {len(data)} bytes of something else; build again"
        )
    head, found, engine = data[len(MAGIC) :].partition(b"\n")
    try:
        told = json.loads(head)
        digest = told.pop("sha256")
        plan = Plan(**{**told, "compute": tuple(told["compute"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError("the TensorRT engine's first line is damaged; build it again") from error
    if not found or hashlib.sha256(engine).hexdigest() != digest:
        raise EngineError(
            f"the TensorRT engine is damaged (its {len(engine)} bytes are not those built); build it again"
        )
    return plan, engine


def check_plan(plan: Plan, wanted: Plan) -> None:
    """Raises EngineError unless the plan is what is wanted. The capabilities are checked apart: see `check_compute`."""
    for what, got, right in (
        ("the backend", plan.backend, wanted.backend),
        ("TensorRT's version", plan.version, wanted.version),
        ("the precision", plan.precision, wanted.precision),
        ("the network", plan.onnx[:12], wanted.onnx[:12]),
    ):
        if got != right:
            raise EngineError(
                f"this TensorRT engine is for something else: {what} is {got}, expected {right}; build again"
            )


def check_compute(plan: Plan, name: str, compute: int) -> None:
    """Raises EngineError where the device is none that the plan was compiled for."""
    fits = compute in plan.compute if plan.compute else compute >= 80
    if not fits:
        made = ", ".join(dotted(each) for each in plan.compute) or "8.0 and later"
        raise EngineError(
            f"this TensorRT engine was compiled for compute capability {made}, but {name} has {dotted(compute)}; build "
            f"it with --compute {compute}, or on that machine"
        )


def dotted(compute: int) -> str:
    return f"{compute // 10}.{compute % 10}"
