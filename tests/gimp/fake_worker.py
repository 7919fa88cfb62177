"""A worker that goes wrong, of the standard library only: fake_worker.py FAULT worker start --directory FOLDER."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

PROTOCOL = 1


def main() -> int:
    fault, folder = sys.argv[1], Path(sys.argv[sys.argv.index("--directory") + 1])
    if fault == "dies-at-start":
        print("restore-plugin: the package numpy is damaged; install it again", file=sys.stderr)
        return 1
    if fault == "never-listens":
        return 0
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "worker.sock").unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "worker.sock"))
    listening.listen()
    if os.fork():
        return 0
    os.setsid()
    for number in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    (folder / "fake.pid").write_text(str(os.getpid()), encoding="ascii")
    listening.settimeout(120)
    while True:
        connection, _ = listening.accept()
        with connection:
            serve(connection, fault, folder)


def serve(connection: socket.socket, fault: str, folder: Path) -> None:
    def tell(**message: Any) -> None:
        connection.sendall(json.dumps(message).encode() + b"\n")

    for line in connection.makefile("rb"):
        request = json.loads(line)
        answer = {"id": request["id"], "reply": "done"}
        wrong = {"id": request["id"], "reply": "error", "exit_code": 1}
        if fault == "talks-nonsense":
            connection.sendall(b"HTTP/1.1 200 OK\n")
        elif request["request"] == "hello" and fault == "another-version":
            tell(**wrong, kind="version", text="this worker is of version 9", protocol=9, version="9")
        elif request["request"] == "hello":
            tell(
                **answer,
                protocol=PROTOCOL,
                version="0",
                tasks=[{"name": "demosaic"}, {"name": "derain"}, {"name": "inpaint"}],
                surroundings_px=16,
            )
        elif request["request"] == "quit":
            tell(**answer)
            return
        elif request["request"] == "buffer" and fault == "disk-full":
            tell(**wrong, kind="output", text="there is no room for 57600 bytes of pixels")
        elif request["request"] == "buffer" and fault == "no-such-file":
            tell(**answer, buffer="b1", path=str(folder / "not-there"))
        elif request["request"] == "buffer":
            path = folder / "pixels.raw"
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, request["bytes"])
            tell(**answer, buffer="b1", path=str(path))
        elif request["request"] == "restore" and fault == "idles":  # no fault: for timing all the rest
            pixels = request["pixels"]
            tell(**answer, changed=[0, 0, pixels["width"], pixels["height"]], regions=[{}], seconds=0, notes=[])
        elif request["request"] in ("restore", "find") and fault == "dies":
            os._exit(1)
        elif request["request"] in ("restore", "find") and fault == "hangs":
            time.sleep(120)
        elif request["request"] in ("restore", "find") and fault == "busy":
            tell(**wrong, kind="busy", text="the restore worker has too much to do")
        elif request["request"] in ("restore", "find") and fault == "unheard-of":
            tell(**wrong, kind="meteor", text="a meteor came down")
        elif request["request"] in ("restore", "find") and fault == "cut":
            os.truncate(folder / "pixels.raw", 100)
            tell(**answer, changed=[48, 40, 64, 48], regions=[{}], seconds=0, notes=[])
        elif request["request"] in ("restore", "find") and fault == "odd-answer":
            tell(**answer, changed="everything")
        else:
            tell(**answer)


if __name__ == "__main__":
    raise SystemExit(main())
