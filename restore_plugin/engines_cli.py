"""`restore-plugin engines`: what runs the networks here, and the engines that were compiled for them."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_plugin import catalog
from restore_plugin.commands import add_actions
from restore_plugin.errors import InputError, OutputError

if TYPE_CHECKING:
    from engines import Choice, Target

PROGRAM = "restore-plugin engines"
MIB = 1 << 20
BUILD_HELP = """\
Without --compute: for this machine, into the cache, where restore-video and the others look. With it: for other
machines, without a GPU here if need be (TensorRT for RTX); give that machine the folder as RESTORE_PLUGIN_CACHE, or
copy its files into the folder that `engines list` names there. Every engine is checked before it is used.
"""


def add_commands(commands: Any) -> None:
    """Enter `engines` and what stands below it. `commands`: what argparse's add_subparsers returned."""
    summary = "list, build, check and clear what runs the networks"
    actions = (
        ("list", list_, "the backends with what they run on here, and the engines in the cache"),
        ("build", build, "compile networks before they are needed, for this machine or for others"),
        ("check", check, "run every network on every backend here, and compare with the stored answers"),
        ("clear", clear, "remove every engine from the cache"),
    )
    made = add_actions(commands, "engines", summary, actions)
    for action in made.values():
        action.add_argument("--json", action="store_true", help="one JSON object on standard output")
    made["build"].description = BUILD_HELP
    add = made["build"].add_argument
    add("--target", default="auto", metavar="NAME[:DEVICE]", help="auto (default), rtx, tensorrt, openvino ...")
    add("--precision", default="auto", help=catalog.PRECISION_HELP)
    add("--compute", type=numbers, default=(), metavar="N,N", help="compute capabilities, such as 86,89,120")
    add("--methods", metavar="NAME,NAME", help="only the networks of these methods or tasks")
    add("-o", "--output", type=Path, metavar="FOLDER", help="instead of the cache")
    made["check"].add_argument("--engine", metavar="NAME[:DEVICE]", help="only this one")


def numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(part.replace(".", "")) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or not all(50 <= each < 200 for each in found):
        raise argparse.ArgumentTypeError(f"expected compute capabilities such as 86,89,120, got {text}")
    return found


def networks(methods: str | None = None) -> list[Path]:
    """The shipped networks, or those of some methods and tasks, each once. Raises InputError."""
    if methods is None:
        names = [row.weights for row in catalog.METHODS] + [row.weights for row in catalog.FINDERS]
    else:
        names = []
        for name in methods.split(","):
            row = catalog.method(name.strip())
            finder = catalog.task(row.task).finder
            names += [row.weights, *(each.weights for each in catalog.FINDERS if each.name == finder)]
    return [catalog.WEIGHTS / name for name in dict.fromkeys(names) if name]


def list_(options: argparse.Namespace) -> int:
    from engines import ENGINES, EngineError, MissingPackage, backend_of, choices
    from engines.cache import Cache, Entry

    backends: list[dict[str, Any]] = []
    for name, row in ENGINES.items():
        told: dict[str, Any] = {"name": name, "extra": row.extra, "devices": [], "precisions": [], "problem": None}
        try:
            backend = backend_of(name)
            told |= {"devices": backend.devices(), "precisions": backend.precisions, "builds": backend.builds}
            told["versions"] = backend.machine("")
        except MissingPackage as error:
            told["problem"] = f"not installed: pip install 'restore-plugin[{error.extra}]'"
        except EngineError as error:
            told["problem"] = one_line(error)
        backends.append(told)
    chosen = choices()[0]
    cache = Cache()
    now = time.time()
    cached = [
        {"file": each.name, "problem": "damaged: it will be built again"}
        if isinstance(each, Path)
        else {
            "file": each.path.name,
            "network": each.network,
            "backend": each.facts["backend"],
            "target": each.facts["target"],
            "machine": each.facts["machine"],
            "bytes": each.path.stat().st_size,
            "age_seconds": round(now - each.built),
            "build_seconds": each.seconds,
            "check": each.check,
        }
        for each in cache.entries()
        if not isinstance(each, Entry) or each.path.exists()
    ]
    if options.json:
        print(json.dumps({"backends": backends, "auto": vars(chosen), "folder": str(cache.folder), "cached": cached}))
        return 0
    for told in backends:
        where = f"on {', '.join(told['devices'])}" if told["devices"] else "finds no device here"
        what = told["problem"] or f"{where}; in {', '.join(told['precisions'])}; {versions(told['versions'])}"
        print(f"{told['name']:12s} {what}")
    print(f"auto         {chosen}")
    print(f"\ncache: {cache.folder}{'' if cached else ' (empty)'}")
    for entry in cached:
        print(f"  {entry['file']}: {entry.get('problem') or described(entry)}")
    return 0


def versions(facts: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in facts.items())


def described(entry: dict[str, Any]) -> str:
    compute = entry["target"]["compute"]
    where = f"compute {', '.join(map(str, compute))}" if compute else entry["machine"].get("device", "this machine")
    return (
        f"{entry['network']} in {entry['target']['precision']} for {where}, {entry['bytes'] / MIB:.1f} MiB, built "
        f"{age(entry['age_seconds'])} ago in {entry['build_seconds']:.0f} s"
    )


def age(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {name}"
    return f"{seconds:.0f} seconds"


@dataclass(frozen=True)
class Built:
    network: str
    engine: str
    file: str | None
    bytes: int
    seconds: float


def build(options: argparse.Namespace) -> int:
    """Every network in turn; one that cannot be built is told and the next one follows. 1 where that was so."""
    from engines import EngineError, choices, split

    def tell(text: str) -> None:
        print(f"{PROGRAM}: {text}", file=sys.stderr)

    built: list[Built] = []
    failed: list[dict[str, str]] = []
    with catalog.explained(options.target):
        name, _ = split(options.target)
        if options.compute and name == "auto":
            raise InputError("expected --target with --compute, for example --target rtx")
        choice = None if options.compute else choices(options.target, options.precision)[0]
        ahead = check_ahead(name, options.precision, options.compute) if choice is None else None
    for onnx in networks(options.methods):
        try:
            if choice is not None:
                made = build_here(onnx, choice, options.output, tell)
            else:
                assert ahead is not None
                made = build_ahead(onnx, name, ahead, options.output, tell)
        except EngineError as error:
            tell(one_line(error))
            failed.append({"network": onnx.name, "problem": one_line(error)})
            continue
        built.append(made)
        if not options.json:
            what = f"{made.bytes / MIB:.1f} MiB in {made.file}" if made.file else "checked; nothing to build"
            print(f"{made.network}: {made.engine}: {what}, {made.seconds:.1f} s")
    if options.json:
        print(json.dumps({"built": [vars(each) for each in built], "failed": failed}))
    return 1 if failed else 0


def build_here(onnx: Path, choice: Choice, folder: Path | None, tell: catalog.Tell) -> Built:
    """For this machine: as when a job opens it, check included."""
    from engines import Target, backend_of, open_choice
    from engines.cache import Cache, key_of

    started = time.monotonic()
    cache = Cache(folder, tell)
    open_choice(choice, onnx, tell=tell, cache=cache).close()
    backend = backend_of(choice.backend)
    path = cache.folder / key_of(onnx, backend, Target(choice.device, choice.precision)).file_name
    there = backend.builds and path.exists()
    if backend.builds and not there and folder is not None:
        raise OutputError(f"the engine for {onnx.name} could not be written to {folder}; choose another with -o")
    size = path.stat().st_size if there else 0
    seconds = round(time.monotonic() - started, 3)
    return Built(onnx.name, f"{choice.backend} {choice.precision}", str(path) if there else None, size, seconds)


def check_ahead(name: str, precision: str, compute: tuple[int, ...]) -> Target:
    """Raises UnknownEngine for what cannot be built for other machines."""
    from engines import Target, UnknownEngine, backend_of

    backend = backend_of(name)
    if precision == "auto":
        precision = backend.precisions[0]
    if not backend.builds or precision not in backend.precisions:
        raise UnknownEngine(f"{name} cannot be built ahead in {precision} for other machines; try --target rtx")
    return Target("", precision, compute=compute)


def build_ahead(onnx: Path, name: str, target: Target, folder: Path | None, tell: catalog.Tell) -> Built:
    """For other machines: not checked here, but by each of them before it is used."""
    from engines import ENGINES, backend_of
    from engines.building import build_apart
    from engines.cache import Cache, Entry, key_of

    cache, key = Cache(folder, tell), key_of(onnx, backend_of(name), target)
    path = cache.folder / key.file_name
    started = time.monotonic()
    payload = build_apart(ENGINES[name].module, ENGINES[name].type, onnx, target)
    seconds = round(time.monotonic() - started, 3)
    if not cache.put(Entry(path, key.network, key.facts, time.time(), seconds, None, payload)):
        raise OutputError(f"the engine for {onnx.name} could not be written to {cache.folder}; choose another with -o")
    compute = ", ".join(map(str, target.compute))
    return Built(onnx.name, f"{name} {target.precision} for compute {compute}", str(path), path.stat().st_size, seconds)


def check(options: argparse.Namespace) -> int:
    """Prints the largest and the mean error of every network on every backend; 1 where one is wrong or fails."""
    from engines import ENGINES, Choice, EngineError, MissingPackage, choices, open_choice
    from engines.check import Errors
    from engines.check import check as errors_of

    found: list[dict[str, Any]] = []
    asked: list[Choice] = []
    if options.engine:
        with catalog.explained(options.engine):
            asked = choices(options.engine)[:1]
    for name in () if asked else ENGINES:
        try:
            there = choices(name)[0]
        except MissingPackage:
            continue  # `list` tells
        except EngineError as error:
            found.append({"network": None, "engine": name, "problem": one_line(error)})
            continue
        asked.append(Choice(there.backend, there.device, there.precision, "to be checked"))
    for choice in asked:
        for onnx in networks():
            row: dict[str, Any] = {"network": onnx.name, "engine": choice.backend, "device": choice.device}
            row |= {"precision": choice.precision, "problem": None}
            try:
                with open_choice(choice, onnx) as engine:
                    errors: Errors = errors_of(engine, onnx)
                row |= {"largest": errors.largest, "mean": errors.mean, "limit": errors.limit}
            except EngineError as error:
                row["problem"] = one_line(error)
            found.append(row)
    wrong = [row for row in found if row["problem"] and row["network"]]
    if options.json:
        print(json.dumps({"checked": found, "wrong": len(wrong)}))
        return 1 if wrong else 0
    for row in found:
        what = " ".join(str(row[key]) for key in ("network", "engine", "device", "precision") if row.get(key))
        told = row["problem"] or (
            f"off by {row['largest']:.1e} at most, {row['mean']:.1e} on average, of the largest value; "
            f"{row['limit']:g} allowed"
        )
        print(f"{'WRONG ' if row['problem'] else 'right '} {what}: {told}")
    return 1 if wrong else 0


def clear(options: argparse.Namespace) -> int:
    from engines.cache import Cache

    cache = Cache()
    files, size = cache.clear()
    if options.json:
        print(json.dumps({"folder": str(cache.folder), "files": files, "bytes": size}))
    else:
        print(f"removed {files} file{'s' * (files != 1)}, {size / MIB:.1f} MiB, from {cache.folder}")
    return 0


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
