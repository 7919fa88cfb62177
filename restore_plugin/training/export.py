"""From a trained network to a shipped file: ONNX with dynamic sizes, checked against torch, entered in the manifest."""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore_plugin.catalog import WEIGHTS
from restore_plugin.errors import InputError

LICENCE = "Apache-2.0"
PARITY = 2e-4  # largest difference from torch, in the network's own units


@dataclass(frozen=True)
class Export:
    """How a network is exported: example inputs, names, and which axes may change."""

    inputs: dict[str, Tensor]
    output: str
    dynamic: dict[str, dict[int, str]]
    others: tuple[dict[str, Tensor], ...]  # inputs of other sizes, to check with


def write_onnx(network: nn.Module, export: Export, path: Path) -> None:
    """`path` and its check, which are replaced only by a network that passes.

    Raises ValueError where OpenVINO answers otherwise than torch, at any of the sizes.
    """
    from engines import check

    network = network.cpu().float().eval()
    part = path.with_suffix(".part.onnx")  # engines go by the ending
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracing exporter announces its successor
            torch.onnx.export(
                network,
                tuple(export.inputs.values()),
                str(part),
                input_names=list(export.inputs),
                output_names=[export.output],
                dynamic_axes=export.dynamic,
                opset_version=17,
                dynamo=False,
            )
        worst = parity(network, export, part)
        if not worst <= PARITY:  # nor NaN
            raise ValueError(f"{path.name} differs from torch by {worst:.2g}, more than {PARITY}; it was not replaced")
        write_check(network, export, part)
        check.path_of(part).replace(check.path_of(path))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        check.path_of(part).unlink(missing_ok=True)


@torch.no_grad()
def write_check(network: nn.Module, export: Export, path: Path, seed: int = 0) -> None:
    """NAME.check.npz beside the ONNX file: an input and torch's answer, with which engines are checked before use."""
    from engines import check

    random = np.random.default_rng(seed)
    # 256 levels, as in pictures: a file of a quarter of the size
    inputs = {name: random.integers(0, 256, each.shape) / np.float32(255) for name, each in export.inputs.items()}
    inputs = {name: array.astype(np.float32) for name, array in inputs.items()}
    output = network(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    check.store(path, inputs, {export.output: output})


@torch.no_grad()
def parity(network: nn.Module, export: Export, path: Path) -> float:
    """Largest difference of OpenVINO from torch over all example sizes; NaN where one answers so."""
    from engines import open_engine

    worst = 0.0
    with open_engine("openvino", path) as engine:
        for inputs in (export.inputs, *export.others):
            expected = network(*inputs.values()).numpy()
            found = engine.run({name: tensor.numpy() for name, tensor in inputs.items()})[export.output]
            worst = float(np.maximum(worst, np.abs(found - expected).max()))  # `max` would drop a NaN
    return worst


def load_shipped(network: nn.Module, path: Path) -> dict[str, Any]:
    """Put the weights of an ONNX file into the network that it was exported from; what the manifest says of them.

    Raises InputError where they are not this network's, or are no more as it was trained: where the export has merged
    normalisations into the convolutions before them.
    """
    import onnx

    entry = json.loads((path.parent / "manifest.json").read_text()).get(path.name) if path.exists() else None
    if entry is None:
        raise InputError(f"expected shipped weights to begin with, there is no {path.name}; leave --shipped out")
    stored = onnx.load(str(path)).graph.initializer
    found = {each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in stored}
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    if any(name not in found or found[name].shape != shape for name, shape in wanted.items()):
        raise InputError(
            f"expected {path.name} to hold the weights as they were trained, its layers are others or were merged; "
            "leave --shipped out"
        )
    network.load_state_dict({name: found[name] for name in wanted})
    return {name: entry[name] for name in ("sha256", "steps", "minutes", "data")}


def hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


def enter(name: str, entry: dict[str, Any], folder: Path = WEIGHTS) -> None:
    """Add or replace a network's entry in manifest.json; its SHA-256 and size are read from the file."""
    data = (folder / name).read_bytes()
    manifest_path = folder / "manifest.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    manifest[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **entry}
    part = manifest_path.with_suffix(".part")
    part.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    part.replace(manifest_path)
