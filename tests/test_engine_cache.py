"""Faults of built engines: never a wrong answer, never a hang. The cache and the child process are the real ones."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_backends
import numpy as np
import pytest

import engines
from engines import Choice, EngineError, OutOfMemory, Row, Target, WrongAnswer, backend_of, cache, check, open_choice
from engines.building import build_apart
from engines.cache import Cache, Entry, key_of

CHOICE = Choice("fake", "gpu", "fp32", "for the test")
HERE = Path(__file__).parent
Network = Callable[[str], Path]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(engines.ENGINES, "fake", Row("fake_backends", "Fake", "fake_backends", None))
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """A file that stands for a network, with its stored answer: a rectifier's."""

    def make(name: str) -> Path:
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(name.encode())
        values = np.float32([[-1, 0.5, 2]])
        check.store(path, {"a": values}, {"b": np.maximum(values, 0)})
        return path

    return make


def builds(path: Path) -> int:
    count = path.with_name(fake_backends.COUNT)
    return len(count.read_text().splitlines()) if count.exists() else 0


def opened(path: Path, **options: Any) -> list[str]:
    """Opens and uses the engine; returns what was told."""
    told: list[str] = []
    with open_choice(CHOICE, path, tell=told.append, **options) as engine:
        np.testing.assert_array_equal(engine.run({"a": np.float32([[-3, 4]])})["b"], [[0, 4]])
    return told


def entry_of(folder: Path) -> Path:
    (path,) = folder.glob("*.engine")
    return path


def test_it_is_built_once_and_then_found(network: Network, folder: Path) -> None:
    path = network("good")
    assert not engines.is_ready(CHOICE, path)
    assert "building good.onnx for fake on gpu" in opened(path)[0]
    assert engines.is_ready(CHOICE, path)
    assert opened(path) == []
    assert builds(path) == 1
    entry = Entry.read(entry_of(folder))
    assert entry.payload == b"built good"
    assert entry.check == {"largest": 0.0, "mean": 0.0}
    assert not list(folder.glob("*.part"))


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-3],
    "cut in the head": lambda data: data[:60],
    "longer": lambda data: data + b"x",
    "bit flipped in the engine": lambda data: flipped(data, len(data) - 2),
    "bit flipped in the head": lambda data: flipped(data, len(data) // 2),
    "bit flipped in the hash": lambda data: flipped(data, len(cache.MAGIC) + 5),
    "foreign": lambda data: b"some other program's file",
    "another format": lambda data: data.replace(b"format 1", b"format 2"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_set_aside_and_built_again(
    network: Network, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = network("good")
    opened(path)
    entry = entry_of(folder)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert not engines.is_ready(CHOICE, path)
    assert "is not used and is built again" in opened(path)[0]
    assert builds(path) == 2
    assert Entry.read(entry).payload == b"built good"
    assert len(list(folder.glob("*.bad"))) == 1
    assert opened(path) == []


def test_swapped_files_are_not_taken_for_each_other(network: Network, folder: Path) -> None:
    one, other = network("one"), network("other")
    opened(one)
    (first,) = folder.glob("*.engine")
    opened(other)
    (second,) = set(folder.glob("*.engine")) - {first}
    second.write_bytes(first.read_bytes())
    assert "it was made for something else" in opened(other)[0]
    assert Entry.read(second).payload == b"built other"


def test_a_whole_file_with_a_wrong_engine_is_set_aside(network: Network, folder: Path) -> None:
    """As after a defect of the compiler that built it."""
    path = network("good")
    opened(path)
    entry = Entry.read(entry_of(folder))
    for payload, why in ((b"built wrong", "answers wrongly"), (b"nonsense", "not what build returned")):
        entry.path.write_bytes(Entry(**{**vars(entry), "payload": payload}).to_bytes())
        assert why in opened(path)[0]
        assert Entry.read(entry.path).payload == b"built good"


def test_a_fresh_engine_that_is_wrong_is_never_used(network: Network, folder: Path) -> None:
    path = network("wrong")
    with pytest.raises(WrongAnswer, match=r"fake on gpu in fp32 answers wrongly for wrong\.onnx: off by 0\.5"):
        opened(path)
    assert not list(folder.glob("*.engine"))


def test_a_stale_key_is_not_found(network: Network, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another network, driver, precision, device or option: each has an engine of its own."""
    path, backend = network("good"), backend_of("fake")
    digests = {key_of(path, backend, Target("gpu")).digest}
    digests |= {key_of(path, backend, each).digest for each in (Target("gpu:1"), Target("gpu", "fp16"))}
    digests |= {key_of(path, backend, Target("gpu", options=(("streams", "2"),))).digest}
    profile = engines.Profile((("a", ((1, 1), (1, 2), (1, 3))),))
    digests |= {key_of(path, backend, Target("gpu", profile=profile)).digest}
    opened(path)
    monkeypatch.setenv("FAKE_DRIVER", "2")
    digests |= {key_of(path, backend, Target("gpu")).digest}
    opened(path)
    path.write_bytes(b"other weights")
    digests |= {key_of(path, backend, Target("gpu")).digest}
    assert len(digests) == 7
    path.with_name("good.onnx.data").write_bytes(b"weights beside the network")
    assert key_of(path, backend, Target("gpu")).digest not in digests
    assert builds(path) == 2
    assert len(list(folder.glob("*.engine"))) == 2


PROCESS = """
import sys
sys.path.insert(0, {tests!r})
import engines
from pathlib import Path
engines.ENGINES["fake"] = engines.Row("fake_backends", "Fake", "fake_backends", None)
engines.open_choice(engines.Choice("fake", "gpu", "fp32", ""), Path({path!r})).close()
"""


def test_two_processes_build_once(network: Network, folder: Path) -> None:
    path = network("slow")
    code = PROCESS.format(tests=str(HERE), path=str(path))
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=HERE.parent) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert builds(path) == 1
    assert Entry.read(entry_of(folder)).payload == b"built slow"


def test_waiting_for_another_process_ends(network: Network) -> None:
    """With a message that says what is in the way; and when the other one dies its lock goes with it."""
    path = network("hang")
    code = PROCESS.format(tests=str(HERE), path=str(path))
    other = subprocess.Popen([sys.executable, "-c", code], cwd=HERE.parent)
    try:
        until = time.monotonic() + 30
        while builds(path) == 0:
            assert time.monotonic() < until
            time.sleep(0.05)
        with pytest.raises(EngineError, match=r"another process has been building the engine for hang\.onnx") as raised:
            opened(path, cache=Cache(wait_seconds=0.3))
        assert ".lock" in str(raised.value)
    finally:
        other.kill()
        other.wait()
    with pytest.raises(EngineError, match=r"took more than 0\.5 s"):
        opened(path, build_seconds=0.5)


SAID = {
    "crash": r"building crash\.onnx with Fake in fp32 crashed \(SIGABRT\): last words",
    "driver": r"expected 13\.0 or newer, got 12\.2; update the driver",
    "defect": r"building defect\.onnx with Fake in fp32 failed: two lines of text",
}


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("name", "said"), SAID.items(), ids=SAID)
def test_a_builder_that_fails(network: Network, folder: Path, name: str, said: str) -> None:
    with pytest.raises(EngineError, match=said) as raised:
        opened(network(name))
    assert "\n" not in str(raised.value)
    assert not isinstance(raised.value, OutOfMemory)
    assert not list(folder.glob("*.engine"))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")
@pytest.mark.parametrize("name", ["memory", "killed", "device_memory"])
def test_a_builder_that_runs_out_of_memory(network: Network, folder: Path, name: str) -> None:
    with pytest.raises(OutOfMemory, match=r"memory|full"):
        opened(network(name))
    assert not list(folder.glob("*.engine"))


def builder_runs(path: Path) -> bool:
    (number,) = path.with_name(fake_backends.COUNT).read_text().split()
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    # one that has ended and that nobody has asked about is a zombie
    told = subprocess.run(["ps", "-o", "stat=", "-p", number], capture_output=True, text=True).stdout
    return bool(told) and "Z" not in told


@pytest.mark.skipif(os.name != "posix", reason="ps")
def test_a_builder_that_hangs_is_ended(network: Network) -> None:
    path, started = network("hang"), time.monotonic()
    with pytest.raises(EngineError, match=r"building hang\.onnx with Fake in fp32 took more than 3 s and was ended"):
        opened(path, build_seconds=3)
    assert time.monotonic() - started < 20
    assert not builder_runs(path)


def test_a_build_can_be_stopped(network: Network) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(EngineError, match="was stopped"):
        opened(network("hang"), stop=stop)


@pytest.mark.skipif(os.name != "posix", reason="ps")
def test_a_build_ends_with_its_parent(network: Network) -> None:
    path = network("hang")
    code = PROCESS.format(tests=str(HERE), path=str(path))
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=HERE.parent)
    until = time.monotonic() + 30
    while builds(path) == 0:
        assert time.monotonic() < until
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while builder_runs(path):
        assert time.monotonic() < until, "the build goes on without its parent"
        time.sleep(0.05)


def test_what_the_child_is_told_arrives(network: Network) -> None:
    """Profiles, options and capabilities pass through JSON."""
    from dataclasses import asdict

    from engines.building import target_of

    profile = engines.Profile((("a", ((1, 1), (1, 2), (1, 3))),))
    target = Target("gpu", "fp16", profile, (86, 89), (("b", "c"),))
    assert target_of(asdict(target)) == target
    assert build_apart("fake_backends", "Fake", network("good"), target) == b"built good"


def test_a_full_disk(network: Network, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is used from memory, and the user is told."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = network("good")
    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "fsync", full)
        told = opened(path)
    assert "No space left on device" in told[-1]
    assert [each for each in folder.iterdir() if each.suffix in (".part", ".engine")] == []
    opened(path)
    assert builds(path) == 2
    assert len(list(folder.glob("*.engine"))) == 1


@pytest.mark.parametrize("kind", ["a file is in its place", "read-only"])
def test_a_folder_that_cannot_be_written_to(
    network: Network, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = network("good")
    if kind == "read-only":
        if not Path("/proc/self").exists():
            pytest.skip("no folder that is read-only even for root")
        monkeypatch.setenv(cache.FOLDER, "/proc/restore-plugin")
    else:
        folder.write_text("")
    for count in (1, 2):
        assert "was not kept in" in opened(path)[-1]
        assert builds(path) == count
    with pytest.warns(RuntimeWarning, match="was not kept in"):  # nobody listens
        open_choice(CHOICE, path).close()


def test_a_cache_that_may_only_be_read_is_used(network: Network, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    path = network("good")
    opened(path)
    monkeypatch.setattr(filelock.FileLock, "acquire", denied)
    assert opened(path) == []
    assert builds(path) == 1


def test_few_files_that_were_set_aside_are_kept(network: Network, folder: Path) -> None:
    for index in range(cache.KEPT_BAD + 2):
        path = network(f"n{index}")
        opened(path)
        (fresh,) = folder.glob(f"n{index}.*.engine")
        fresh.write_bytes(b"")
        opened(path)
    assert len(list(folder.glob("*.bad"))) == cache.KEPT_BAD


def test_one_made_elsewhere_is_used_here(network: Network, folder: Path) -> None:
    """Built ahead for several kinds of device, it is found by what it was made from, and checked."""
    path, backend = network("good"), backend_of("fake")
    key = key_of(path, backend, Target("", "fp32", compute=(86, 89)))
    store = Cache()
    store.put(Entry(folder / key.file_name, path.name, key.facts, 0.0, 1.0, None, b"built elsewhere"))
    assert engines.is_ready(CHOICE, path)
    assert opened(path) == []
    assert builds(path) == 0
    store.put(Entry(folder / key.file_name, path.name, key.facts, 0.0, 1.0, None, b"built wrong"))
    assert "is not used: fake on gpu in fp32 answers wrongly" in opened(path)[0]
    assert builds(path) == 1


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.default_folder() == tmp_path / "cache"
    monkeypatch.delenv(cache.FOLDER)
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / "restore-plugin" / "engines"
    monkeypatch.setattr(cache.sys, "platform", "darwin")
    assert cache.default_folder().parts[-4:] == ("Library", "Caches", "restore-plugin", "engines")
    monkeypatch.setattr(cache.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache.default_folder() == tmp_path / "restore-plugin" / "engines"
