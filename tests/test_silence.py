"""Nothing is sent anywhere: what reports OpenVINO's imports is not loaded, whoever of ours imports it."""

import os
import subprocess
import sys

import pytest

WATCHED = """
import os, socket, sys

def caught(*_):
    raise SystemExit("something is sent")

socket.socket.connect = socket.getaddrinfo = caught
os.register_at_fork(before=lambda: os.write(2, b"a process is forked"))  # so it is sent
{}
import openvino.tools.ovc.telemetry_utils as used
assert used.tm.__name__ == "openvino.tools.ovc.telemetry_stub", used.tm
assert "openvino_telemetry" not in sys.modules
"""


@pytest.mark.parametrize(
    "use",
    [
        "import engines.openvino_engine",
        "import restore_plugin; restore_plugin.load('demosaic')",
        "from restore_plugin.doctor import failure; assert failure('openvino') is None",
        "from restore_plugin.cli import main; main(['doctor'])",
    ],
)
def test_openvino_reports_nothing(use: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CI"}  # there it is silent anyway
    done = subprocess.run(
        [sys.executable, "-c", WATCHED.format(use)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "forked" not in done.stderr
