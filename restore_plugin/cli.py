"""`restore-plugin`: what works on this machine (`doctor`), the table of methods (`methods`), and the `engines`.

Nothing heavy is imported before there is work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from restore_plugin import __version__, catalog, engines_cli, install_gimp, worker
from restore_plugin.arguments import Parser
from restore_plugin.errors import RestoreError

PROGRAM = "restore-plugin"
MAIN_JOB = "restore-video --task demosaic"
INTERRUPTED = 130  # as shells number a process that Ctrl-C ended
EPILOG = f"""\
exit codes: 0 done; for doctor, {MAIN_JOB} works here
            1 doctor: it does not work here; methods: the manifest cannot be read;
              engines: one cannot be built, or answers wrongly; worker status: none runs
            2 bad usage
            3 install-gimp: no GIMP 3 of this user was found
            5 a folder cannot be written to
            6 an extra is missing
          130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        options = parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = options.command
        code = command(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads has seen enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:  # --help and --version have said what they had to
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except RestoreError as error:
        print(f"{PROGRAM}: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code


def parser() -> Parser:
    made = Parser(
        PROGRAM,
        description="What works here, and which methods there are. To restore: restore-video, restore-image.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for name, command, summary in (
        ("doctor", lambda options: doctor(options.json), "tell what works here, what does not, and what would help"),
        ("methods", lambda options: methods(options.json), "print the table of tasks and methods"),
    ):
        own = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        own.add_argument("--json", action="store_true", help="one JSON object on standard output")
        own.set_defaults(command=command)
    engines_cli.add_commands(commands)
    worker.add_commands(commands)
    install_gimp.add_command(commands)
    return made


def doctor(as_json: bool = False) -> int:
    """Print what was found; returns 0 where the main job works, else 1."""
    from restore_plugin.doctor import PROBLEM, examine, works

    checks = examine()
    code = 0 if works(checks) else 1
    if as_json:
        told = {"version": __version__, "works": code == 0, "checks": [asdict(check) for check in checks]}
        print(json.dumps(told))
        return code
    print(f"{PROGRAM} {__version__}")
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            print(f"\n{group}")
        print(f"  {check.state:8s} {check.name}: {check.text}")
        if check.fix:
            print(f"  {'':8s} -> {check.fix}")
    why = [check.name for check in checks if check.main and check.state == PROBLEM]
    print(f"\n{MAIN_JOB} works here." if code == 0 else f"\n{MAIN_JOB} does NOT work here, for: {', '.join(why)}.")
    return code


def methods(as_json: bool = False) -> int:
    """Print the catalogue. Raises RestoreError where the manifest cannot be read."""
    from restore_plugin.doctor import manifest

    described = manifest()

    def weights_of(name: str | None) -> dict[str, Any] | None:
        if name is None:
            return None
        entry = described.get(name, {})
        return {"file": name, **{key: entry.get(key) for key in ("sha256", "licence", "parameters")}}

    defaults = {row.name: row.default for row in catalog.TASKS}
    rows: list[dict[str, Any]] = [
        {**asdict(row), "default": defaults[row.task] == row.name, "weights": weights_of(row.weights)}
        for row in catalog.METHODS
    ]
    finders: list[dict[str, Any]] = [
        {"name": row.name, "task": task.name, "weights": weights_of(row.weights), "source": row.source}
        for row in catalog.FINDERS
        for task in catalog.TASKS
        if task.finder == row.name
    ]
    if as_json:
        tasks = [asdict(row) for row in catalog.TASKS]
        print(json.dumps({"version": __version__, "tasks": tasks, "methods": rows, "finders": finders}))
        return 0
    heads = ("task", "method", "default", "what it does", "engines", "weights", "source")
    cells = [
        [
            row["task"],
            row["name"],
            "yes" if row["default"] else "",
            row["summary"],
            (", ".join(row["engines"]) or "any") if row["weights"] else "none needed",
            weights_text(row["weights"]),
            row["source"],
        ]
        for row in rows
    ]
    for row in finders:
        weights = weights_text(row["weights"]) if row["weights"] else "of the extra's packages"
        what = "finds what to restore"
        cells.append([row["task"], row["name"], "finder", what, "any", weights, row["source"]])
    print("\n".join(table(heads, cells, shutil.get_terminal_size((120, 24)).columns)))
    for task in catalog.TASKS:
        note = " What comes back is plausible, not evidence." if task.invents else ""
        print(f"\n{task.name}: {task.summary}.{note}")
    return 0


def weights_text(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "none"
    if entry["sha256"] is None:
        return f"{entry['file']}, not in the manifest"
    return f"{entry['sha256'][:12]}, {entry['licence']}, {entry['parameters']:,} parameters"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int, narrow: int = 16) -> list[str]:
    """Lines of a table whose long columns are wrapped to fit `width`, though not under `narrow`."""
    lines = [heads, *rows]
    columns = range(len(heads))
    wanted = [max(len(row[i]) for row in lines) for i in columns]
    words = [max(len(word) for row in lines for word in [*row[i].split(), ""]) for i in columns]
    sizes = [min(size, max(narrow, word)) for size, word in zip(wanted, words, strict=True)]
    while sum(sizes) + 2 * (len(sizes) - 1) < width and sizes != wanted:  # the most cramped column first
        sizes[max(columns, key=lambda i: wanted[i] / max(sizes[i], 1))] += 1
    out = []
    for number, row in enumerate(lines):
        parts = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, sizes, strict=True)]
        for line in range(max(map(len, parts))):
            texts = (part[line] if line < len(part) else "" for part in parts)
            out.append("  ".join(text.ljust(size) for text, size in zip(texts, sizes, strict=True)).rstrip())
        if number == 0:
            out.append("  ".join("-" * size for size in sizes))
    return out


if __name__ == "__main__":
    raise SystemExit(main())
