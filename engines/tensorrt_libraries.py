"""Finding TensorRT, or TensorRT for RTX: the Python module, and the libraries that it needs."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from engines.base import one_line
from engines.contract import EngineError, MissingPackage


@dataclass(frozen=True)
class Flavour:
    """What sets the two apart. Their Python API is one and the same."""

    name: str  # the backend's
    title: str
    extra: str
    modules: tuple[str, ...]  # the whole one first, then the bindings alone, which need the libraries found for them
    distribution: str  # of the bindings; "cu13" or another CUDA stands for {cuda}
    carrier: str = ""  # a module in whose folder the libraries lie
    libraries: tuple[str, ...] = ()  # file names without version, in the order in which they are loaded


TENSORRT = Flavour("tensorrt", "TensorRT", "tensorrt", ("tensorrt",), "tensorrt-{cuda}-bindings")
# NVIDIA's wheel of the libraries alone is a stub that fetches from its own index. The ONNX Runtime plug-in holds the
# same libraries and comes from PyPI, for machines that reach nothing else.
RTX = Flavour(
    "tensorrt_rtx",
    "TensorRT for RTX",
    "rtx",
    ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    "tensorrt-rtx-{cuda}-bindings",
    "onnxruntime_ep_nv_tensorrt_rtx",
    ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"),
)
CUDA_PACKAGES = ("cu13", "cu12", "cu11")

_lock = threading.Lock()


def load(flavour: Flavour) -> Any:
    """The Python module. Raises MissingPackage, and EngineError where bindings and libraries do not go together."""
    with _lock:
        reasons = []
        for name in flavour.modules:
            if name in sys.modules:
                return sys.modules[name]
            if importlib.util.find_spec(name) is None:
                continue
            try:
                load_libraries(flavour, name)
                module = importlib.import_module(name)
            except (ImportError, OSError, RuntimeError) as error:  # a library is not found, or of another version
                reasons.append(f"{name} does not import ({one_line(error)})")
                continue
            return checked(flavour, module)
    why = "; ".join(reasons) or f"{' or '.join(flavour.modules)} is not installed"
    raise MissingPackage(
        f"the engine {flavour.name} needs {flavour.title}: {why}; pip install 'restore-plugin[{flavour.extra}]'",
        flavour.extra,
    )


def load_libraries(flavour: Flavour, module: str) -> None:
    """Before the bindings alone are imported. They ask for libraries by soname: one already loaded is taken.

    Nothing where the module brings its own, or the system has them.
    """
    if module == flavour.modules[0] or not flavour.carrier or sys.platform == "win32":
        return
    spec = importlib.util.find_spec(flavour.carrier)  # found, not imported: that would load ONNX Runtime
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent
    bindings = version_of(flavour)
    for stem in flavour.libraries:
        files = sorted(folder.glob(f"{stem}.*"))
        if not files:
            raise OSError(f"expected {stem}.* in {folder}, found none")
        version = files[-1].name.removeprefix(f"{stem}.")
        if bindings and not f"{bindings}.".startswith(f"{version}."):
            raise OSError(f"its bindings are of version {bindings}, but {files[-1]} is of version {version}")
        ctypes.CDLL(str(files[-1]), mode=ctypes.RTLD_GLOBAL)  # the second one takes the first one's symbols


def checked(flavour: Flavour, module: ModuleType) -> ModuleType:
    """A module that imports but holds nothing is the rest of one that was removed."""
    if not hasattr(module, "Builder"):
        raise EngineError(
            f"the engine {flavour.name} found only a rest of {module.__name__} (it has no Builder); "
            f"pip install --force-reinstall 'restore-plugin[{flavour.extra}]'"
        )
    return module


def version_of(flavour: Flavour) -> str:
    """Of the bindings that are installed; "" where that is not known."""
    return next(iter(_installed(flavour).values()), "")


def cuda_major(flavour: Flavour) -> int:
    """The CUDA that the installed bindings were made for; 0 where their name does not tell."""
    return next((int(package.removeprefix("cu")) for package in _installed(flavour)), 0)


def _installed(flavour: Flavour) -> dict[str, str]:
    found = {}
    for package in CUDA_PACKAGES:
        try:
            found[package] = importlib.metadata.version(flavour.distribution.format(cuda=package))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
