"""The worker as a process: that there is one, how it ends, what kills or hangs it, and who may come near it."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_worker import COMMAND, ROOT, Slow, loaded, log_of, restored, running, runs, scene, start, unix_only, until

import restore_plugin
from restore_plugin import cli, worker, worker_client
from restore_plugin.errors import InputError, OutputError
from restore_plugin.worker import WorkerFailed
from restore_plugin.worker_client import WorkerError, connect

as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A worker that the test may break."""
    with running(tmp_path / "run") as made:
        yield made


def options_for(folder: Path, **more: Any) -> argparse.Namespace:
    given = {"jobs": 2, "idle_minutes": 15.0, "max_megapixels": 200.0, "tcp": False, "detached": False, **more}
    return argparse.Namespace(directory=folder, **given)


# --- one for a user, and its end


def test_there_is_one(own: Path) -> None:
    with connect(COMMAND, "test", own) as client, connect(COMMAND, "test", own) as other:
        assert client.capabilities["pid"] == other.capabilities["pid"]
    start(own)
    again = subprocess.run([*COMMAND, "worker", "run", "--directory", str(own)], capture_output=True, text=True)
    assert again.returncode == 0
    assert "runs already" in again.stderr


def test_two_that_start_at_once_are_one(tmp_path: Path) -> None:
    pids = []

    def one() -> None:
        with connect(COMMAND, "test", tmp_path / "run") as client:
            pids.append(client.capabilities["pid"])

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 3
    assert len(set(pids)) == 1
    assert cli.main(["worker", "stop", "--directory", str(tmp_path / "run")]) == 0


def test_status_and_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--directory", str(tmp_path / "run")]
    assert cli.main(["worker", "status", *at]) == 1
    assert cli.main(["worker", "stop", *at]) == 0
    assert capsys.readouterr().out.splitlines() == [worker.NOT_RUNNING] * 2
    with running(tmp_path / "run") as folder:
        assert cli.main(["worker", "status", *at]) == 0
        pid = int((folder / worker.LOCK).read_text())
        assert f"worker {pid}, version {restore_plugin.__version__}" in capsys.readouterr().out
        assert cli.main(["worker", "status", "--json", *at]) == 0
        assert f'"pid": {pid}' in capsys.readouterr().out
        assert cli.main(["worker", "stop", *at]) == 0
        until(lambda: not runs(pid))
        assert not (folder / worker.SOCKET).exists()
        assert "leaves" in log_of(folder)


def test_it_leaves_when_idle_not_while_somebody_is_there(tmp_path: Path) -> None:
    with running(tmp_path / "run", "--idle-minutes", "0.05") as folder:
        pid = int((folder / worker.LOCK).read_text())
        with connect(None, "test", folder) as client:
            time.sleep(4)
            assert client.status()["pid"] == pid
        until(lambda: not runs(pid))
        assert "idle" in log_of(folder)
        with pytest.raises(WorkerError, match="not running"):
            connect(None, "test", folder)


def test_stop_waits_for_work_and_now_drops_it(own: Path) -> None:
    slow, pid = Slow(own), int((own / worker.LOCK).read_text())
    with connect(None, "test", own) as client, pytest.raises(WorkerError, match="still working"):
        client.leave(within=0.5)
    assert slow.error is None
    assert runs(pid)
    os.kill(pid, signal.SIGTERM)
    error = slow.end()
    assert error is not None
    assert error.kind in ("cancelled", "died")
    until(lambda: not runs(pid))


def test_leaving_with_its_directory(own: Path) -> None:
    """Somebody has emptied the folder for run-time files."""
    pid = int((own / worker.LOCK).read_text())
    (own / worker.SOCKET).unlink()
    until(lambda: not runs(pid))
    assert "nobody can reach" in log_of(own)


# --- what dies, hangs, or does not start


@unix_only
def test_killed_in_the_middle(own: Path) -> None:
    slow, pid = Slow(own), int((own / worker.LOCK).read_text())
    os.kill(pid, signal.SIGKILL)
    error = slow.end()
    assert error is not None
    assert error.kind == "died"
    assert "worker.log" in str(error)
    assert len(list((own / worker.PIXELS).iterdir())) == 1
    with connect(COMMAND, "test", own) as client:
        assert client.capabilities["pid"] != pid
        assert list((own / worker.PIXELS).iterdir()) == []
        assert restored(client, scene(), "derain").any()


@unix_only
def test_hangs(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, pid = Slow(own, silence_seconds=5.0), int((own / worker.LOCK).read_text())
    os.kill(pid, signal.SIGSTOP)
    error = slow.end()
    assert error is not None
    assert error.kind == "silent"
    monkeypatch.setattr(worker_client, "HELLO_SECONDS", 0.5)
    with pytest.raises(WorkerError, match="does not answer") as caught:
        connect(COMMAND, "test", own)
    assert caught.value.kind == "silent"
    monkeypatch.setattr(worker, "PREDECESSOR_SECONDS", 0.1)
    options = options_for(own, now=True)
    with pytest.raises(WorkerFailed, match=r"holds .* and does not answer; end it with: .* stop --now"):
        worker.run(options)
    with pytest.raises(WorkerFailed, match=f"process {pid}, .* --now ends it"):
        worker.stop(argparse.Namespace(directory=own, now=False))
    assert worker.stop(options) == 0
    until(lambda: not runs(pid))
    monkeypatch.undo()
    with connect(COMMAND, "test", own) as client:
        assert client.capabilities["pid"] != pid


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ([sys.executable, "-c", "raise SystemExit('something is missing')"], "something is missing"),
        (["/nowhere/restore-plugin"], "still installed"),
        ([sys.executable, "-c", "pass"], "not running"),
    ],
)
def test_a_command_that_does_not_start_it(tmp_path: Path, command: list[str], text: str) -> None:
    with pytest.raises(WorkerError, match=text) as caught:
        connect(command, "test", tmp_path / "run")
    assert caught.value.kind in ("not_started", "not_running")


def test_a_command_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "START_SECONDS", 0.5)
    with pytest.raises(WorkerError, match="did not start within"):
        connect([sys.executable, "-c", "import time; time.sleep(60)"], "test", tmp_path / "run")


@unix_only
@pytest.mark.parametrize(
    ("script", "text", "code"),
    [
        ("echo one >&2; echo restore-plugin: something is missing >&2; exit 6", "^something is missing$", 6),
        ("kill -9 $$", "it ended with code -9; see", 1),
        ("exec sleep 60", "did not answer within 1 s", 1),
    ],
)
def test_a_worker_that_dies_or_hangs_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, text: str, code: int
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(worker, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(worker.sys, "executable", str(python))
    with pytest.raises(WorkerFailed, match=text) as caught:
        worker.start(options_for(tmp_path / "run"))
    assert caught.value.exit_code == code


def test_options_are_checked(tmp_path: Path) -> None:
    for wrong in ({"jobs": 0}, {"idle_minutes": -1.0}, {"max_megapixels": 0.0}, {"max_megapixels": float("nan")}):
        with pytest.raises(InputError, match="expected --jobs"):
            worker.start(options_for(tmp_path / "run", **wrong))
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be the worker's directory"):
        worker.start(options_for(tmp_path / "file" / "run"))


@unix_only
def test_a_name_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too long a name"):
        worker.start(options_for(tmp_path / ("long" * 30)))


def test_an_upgraded_installation_gets_a_new_worker(tmp_path: Path) -> None:
    package = tmp_path / "package"
    leave_out = shutil.ignore_patterns("training", "networks", "__pycache__", "*.onnx")
    for name in ("restore_plugin", "engines"):
        shutil.copytree(ROOT / name, package / name, ignore=leave_out)
    command = [sys.executable, "-c", COMMAND[2].replace(str(ROOT), str(package))]
    with connect(command, "test", tmp_path / "run") as client:
        old = client.capabilities["pid"]
    os.utime(package / "restore_plugin" / "worker_server.py", (1, 1))
    with pytest.raises(WorkerError, match="was changed since") as caught:
        connect(None, "test", tmp_path / "run")
    assert caught.value.kind == "version"
    with connect(command, "test", tmp_path / "run") as client:
        assert client.capabilities["pid"] != old
        old = client.capabilities["pid"]
    os.utime(package / "restore_plugin" / "worker_server.py", (2, 2))
    at = ["--directory", str(tmp_path / "run")]
    subprocess.run([*command, "worker", "start", *at], check=True)
    with connect(None, "test", tmp_path / "run") as client:
        assert client.capabilities["pid"] != old
    os.utime(package / "restore_plugin" / "worker_server.py", (3, 3))
    subprocess.run([*command, "worker", "stop", *at], check=True)
    until(lambda: worker.Lock(tmp_path / "run").holder() == 0)


def test_a_client_of_another_version(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "PROTOCOL", 99)
    with pytest.raises(WorkerError, match="speaks protocol 1, the client asked for 99") as caught:
        connect(None, "test", own)
    assert caught.value.kind == "version"


# --- access


def test_the_directory_is_private(own: Path) -> None:
    for path in (own, *own.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@unix_only
@pytest.mark.parametrize("how", ["mode", "owner", "link"])
def test_a_directory_that_others_could_have_made_is_refused(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    if how == "mode":
        folder.chmod(0o750)
    elif how == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, 65534, -1)
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WorkerError, match="not trusted") as caught:
        connect(COMMAND, "test", folder)
    assert caught.value.kind == "access"
    with pytest.raises(InputError, match="not trusted"):
        worker.start(options_for(folder))


@as_root
def test_another_user_is_refused(own: Path) -> None:
    """Effective ids are what the kernel goes by, for files and for who is at the other end of a socket."""
    ways = [own, *own.parents]
    modes = [path.stat().st_mode for path in ways]
    try:
        for path in ways[1:]:
            path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o755)
        os.seteuid(65534)
        with pytest.raises(WorkerError, match="belongs to another user") as caught:
            connect(None, "intruder", own)
        assert caught.value.kind == "access"
        os.seteuid(0)
        for path in (own, own / worker.SOCKET):  # as if the directory had not kept them out
            path.chmod(0o777)
        os.seteuid(65534)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(own / worker.SOCKET))
            assert b'"kind": "access"' in sock.recv(1000)
            assert sock.recv(1000) == b""
    finally:
        os.seteuid(0)
        (own / worker.SOCKET).chmod(0o700)
        for path, mode in zip(ways, modes, strict=True):
            path.chmod(stat.S_IMODE(mode))


def test_over_tcp_with_a_token(tmp_path: Path) -> None:
    with running(tmp_path / "run", "--tcp") as folder:
        address = folder / worker.ADDRESS
        with connect(None, "test", folder) as client:
            np.testing.assert_array_equal(restored(client, scene(), "derain"), loaded("derain")(scene()))
        good = address.read_text()
        address.write_text(good.replace('"token": "', '"token": "0'))
        with pytest.raises(WorkerError, match="wrong token") as caught:
            connect(COMMAND, "test", folder)
        assert caught.value.kind == "access"
        address.write_text(good)
        connect(COMMAND, "test", folder).leave()
        assert not (folder / worker.SOCKET).exists()


def test_the_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LOG_BYTES", 10)
    for _ in range(3):
        with running(tmp_path / "run"):
            pass
        until(lambda: worker.Lock(tmp_path / "run").holder() == 0)
    assert (tmp_path / "run" / "worker.log").read_text().count("listens") == 1
    assert (tmp_path / "run" / "worker.log.1").read_text().count("listens") == 1
