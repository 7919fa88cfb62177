"""How long a call of the GIMP plug-in takes, beside the computation: GIMP, the pixels' way to the worker and back.

    GIMP_ROOT=$(.ci/gimp-root) python benchmarks/gimp_calls.py

Prints the table of docs/gimp.md: the fastest of five calls, and the median of them. "Nothing computed" is with a worker
that answers at once; the others are real calls.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from gimp.session import Session, find

ROWS = {
    "whole_layer_new": "nothing computed, whole layer into a new layer",
    "whole_layer_in_place": "nothing computed, whole layer in place",
    "small_selection_nothing_computed": "nothing computed, selection of 64x48",
    "first_call": "De-mosaic, selection of 64x48, first call (the worker starts)",
    "small_selection_warm": "De-mosaic, selection of 64x48, later calls",
    "small_selection_warm_in_place": "De-rain, selection of 64x48, in place",
    "find_everywhere": "Find Mosaics, everywhere",
}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.processor()


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="gimp"))
    session = Session(find(), folder)
    try:
        told = session.cases("timing", 1800)
    finally:
        session.stop()
        shutil.rmtree(folder)
    print(f"GIMP {session.host.version}, {processor()}, seconds, RGBA of 8 bits: fastest of 5 (median)\n")
    print("| | 1 MP | 12 MP | 50 MP |\n|---|---|---|---|")
    failed = 0
    for key, label in ROWS.items():
        if "error" in told[key]:
            failed = 1
            print(f"{key}: {told[key]['error']}", file=sys.stderr)
            continue
        cells = [f"{fastest:.2f} ({median:.2f})" for fastest, median in told[key]["returned"].values()]
        print(f"| {label} | {' | '.join(cells)} |")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
