"""Who may import whom (DESIGN.md), read from the imports; and what starting a command must not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("restore_plugin", "engines", "ffmpeg_filters", "gimp_plugin")
HEAVY = ("numpy", "cv2", "av", "torch", "openvino", "onnxruntime", "PIL", "scipy", "tifffile", "onnx", "skimage")
COMMANDS = ("restore_plugin", "ffmpeg_filters.cli", "restore_plugin.image_cli", "restore_plugin.cli")

Imports = dict[str, set[str]]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Full names of what a file imports, wherever in it: "restore_plugin.types.Box", "numpy"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(scope="module")
def imports() -> Imports:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    found = {module_name(path): set(imports_of(ast.parse(path.read_text(encoding="utf-8")))) for path in files}
    assert {"restore_plugin.types", "engines", "ffmpeg_filters.cli", "gimp_plugin"} <= found.keys()
    assert "restore_plugin.errors.InputError" in found["restore_plugin.plan"]  # the reading works
    return found


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def offenders(imports: Imports, importers: tuple[str, ...], *banned: str, but: tuple[str, ...] = ()) -> list[str]:
    """Imports of `banned` in the packages `importers`, except in `but`."""
    return [
        f"{module} imports {name}"
        for module, names in imports.items()
        for name in names
        if within(module, *importers) and not within(module, *but) and within(name, *banned)
    ]


def foreign(imports: Imports, importer: str, *allowed: str) -> list[str]:
    """Imports in a package of anything but the standard library, itself and `allowed`."""
    return [
        f"{module} imports {name}"
        for module, names in imports.items()
        for name in names
        if within(module, importer)
        and name.split(".")[0] not in sys.stdlib_module_names
        and not within(name, importer, *allowed)
    ]


def test_arrows_never_point_back(imports: Imports) -> None:
    assert offenders(imports, ("engines",), "restore_plugin", "ffmpeg_filters", "gimp_plugin") == []
    assert offenders(imports, ("restore_plugin",), "ffmpeg_filters", "gimp_plugin") == []


def test_hosts_do_not_import_each_other(imports: Imports) -> None:
    assert offenders(imports, ("ffmpeg_filters",), "gimp_plugin") == []
    assert offenders(imports, ("gimp_plugin",), "ffmpeg_filters") == []


def test_engines_know_only_their_packages(imports: Imports) -> None:
    runtimes = {  # by how the names of the files begin that may import them
        "openvino": ("openvino",),
        "onnxruntime": ("onnxruntime",),
        "tensorrt": ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "onnx"),
        "torch": ("torch", "onnx"),
        "half": ("onnx",),
        "sizes": ("onnx",),
        "dlib": ("onnx",),
        "cuda": ("cuda", "pycuda"),
    }
    every = {name for names in runtimes.values() for name in names}
    assert foreign(imports, "engines", "numpy", "filelock", *every) == []
    for module in imports:
        if within(module, "engines") and module != "engines":
            own = runtimes.get(module.removeprefix("engines.").split("_")[0], ())
            assert offenders(imports, (module,), *(every - set(own))) == []


def test_networks_know_only_torch(imports: Imports) -> None:
    assert foreign(imports, "restore_plugin.networks", "torch") == []


def test_classical_knows_only_arrays(imports: Imports) -> None:
    assert foreign(imports, "restore_plugin.classical", "numpy", "scipy", "cv2", "numba") == []


def test_gimp_plugin_knows_only_gimp(imports: Imports) -> None:
    assert foreign(imports, "gimp_plugin", "gi") == []
    assert offenders(imports, ("restore_plugin", "engines", "ffmpeg_filters"), "gi") == []


def test_nobody_imports_training(imports: Imports) -> None:
    assert offenders(imports, PACKAGES, "restore_plugin.training", but=("restore_plugin.training",)) == []


def test_torch_is_for_training_alone(imports: Imports) -> None:
    but = ("restore_plugin.networks", "restore_plugin.training", "engines")
    assert offenders(imports, PACKAGES, "torch", "onnx", but=but) == []
    own = ("restore_plugin.networks", "restore_plugin.training")
    assert offenders(imports, PACKAGES, "restore_plugin.networks", but=own) == []


def test_only_engines_know_runtimes_and_only_video_knows_containers(imports: Imports) -> None:
    assert offenders(imports, PACKAGES, "openvino", "onnxruntime", "tensorrt", but=("engines",)) == []
    # `doctor` looks whether codecs are there; training sends its scenes through them
    but = ("ffmpeg_filters", "restore_plugin.training", "restore_plugin.doctor")
    assert offenders(imports, PACKAGES, "av", but=but) == []


def loaded_by(code: str) -> list[str]:
    """The heavy packages that are there after `code` ran in a fresh interpreter."""
    code += f"\nimport sys\nsys.stderr.write('loaded: ' + ' '.join(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.rpartition("loaded: ")[2].split()


@pytest.mark.parametrize("module", COMMANDS)
def test_importing_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") == []


@pytest.mark.parametrize("module", COMMANDS[1:])
def test_help_loads_nothing_heavy(module: str) -> None:
    run = f"from {module} import main\ntry:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code"
    assert loaded_by(run) == []


def test_the_check_itself_sees_what_is_loaded() -> None:
    assert loaded_by("import numpy") == ["numpy"]
