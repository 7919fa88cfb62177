"""The worker in a process of its own, through its Python client: results, progress, cancelling, and no room.

What it gives is compared with what the library gives for the same picture. The protocol itself: test_worker_protocol;
what starts, ends and breaks it: test_worker_process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import data

import restore_plugin
from restore_plugin import cli, mosaic, worker, worker_client
from restore_plugin.errors import OutputError
from restore_plugin.pipeline import PictureRestorer
from restore_plugin.types import Box
from restore_plugin.worker_client import Cancelled, Worker, WorkerError, connect
from restore_plugin.worker_jobs import Buffer

ROOT = Path(restore_plugin.__file__).parent.parent
COMMAND = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import restore_plugin.cli as c; "
           "raise SystemExit(c.main())"]  # fmt: skip
NAMES = {"uint8": "u8", "uint16": "u16", "float32": "f32"}
BOX, BLOCK = Box(72, 60, 96, 84), 12
PATIENCE_SECONDS = 60.0  # for what takes well under a second on a machine that has nothing else to do

unix_only = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs Unix users and signals")


def scene(dtype: str = "uint8") -> np.ndarray:
    """(224, 240, 3): a face that is pixelated in BOX."""
    picture = data.astronaut()[0:224, 100:340].astype(np.float32) / 255
    rows, columns = (mosaic.axis_edges(0, side, BLOCK, 0) for side in (BOX.height, BOX.width))
    picture[BOX.slices] = mosaic.pixelate(picture[BOX.slices], rows, columns)
    top = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    return np.ascontiguousarray((picture if top == 1.0 else np.round(picture * top)).astype(dtype))


@lru_cache
def loaded(task: str) -> PictureRestorer:
    return restore_plugin.load(task)


def marked(value: int = 255) -> np.ndarray:
    """The mask of BOX, as the worker takes it."""
    mask = np.zeros((224, 240), np.uint8)
    mask[BOX.slices] = value
    return mask


def send(client: Worker, picture: np.ndarray, mask: np.ndarray | None = None) -> worker_client.Picture:
    height, width, channels = picture.shape
    held = None if mask is None else mask.tobytes()
    return client.picture(width, height, channels, NAMES[picture.dtype.name], picture.tobytes(), held)


def fetched(picture: worker_client.Picture, like: np.ndarray) -> np.ndarray:
    return np.frombuffer(picture.pixels(), like.dtype).reshape(like.shape)


def restored(
    client: Worker, picture: np.ndarray, task: str, mask: np.ndarray | None = None, **options: Any
) -> np.ndarray:
    with send(client, picture, mask) as place:
        client.restore(place, task, options)
        return fetched(place, picture)


def until(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """As a process that is not only waiting to be collected: in a container that may last."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:  # no /proc
        return True
    except OSError:
        return False


def start(folder: Path, *arguments: str) -> None:
    assert cli.main(["worker", "start", "--directory", str(folder), *arguments]) == 0


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Path]:
    """A worker in `folder`, ended by its id whatever happened to it."""
    start(folder, *arguments)
    try:
        yield folder
    finally:
        pid = int((folder / worker.LOCK).read_text())
        if runs(pid):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running(tmp_path_factory.mktemp("worker") / "run") as made:
        yield made


@pytest.fixture
def client(folder: Path) -> Iterator[Worker]:
    with connect(None, "test", folder) as made:
        yield made


class Slow:
    """A job of some 3000 steps, in a thread with a connection of its own, until it is ended."""

    def __init__(self, folder: Path, silence_seconds: float = PATIENCE_SECONDS) -> None:
        self.client = connect(None, "slow", folder)
        self.client.silence_seconds = silence_seconds
        self.error: WorkerError | None = None
        self.stopped = False
        self.said: list[tuple[float, str]] = []
        self.left: bytes | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(lambda: any(text.startswith("restoring") for _, text in self.said))

    def _run(self) -> None:
        regions = [{"box": [step % 128, step % 120, 96, 96], "block": [8, 8]} for step in range(3000)]
        try:
            with send(self.client, scene()) as place:
                try:
                    self.client.restore(
                        place, "cellnet", {}, regions, lambda *said: self.said.append(said), lambda: self.stopped
                    )
                except Cancelled:
                    self.left = place.pixels()
                    raise
        except WorkerError as error:
            self.error = error

    def end(self) -> WorkerError | None:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        self.client.close()
        return self.error


# --- results


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("task", ["demosaic", "derain"])
@pytest.mark.parametrize("where", ["mask", "all"])
def test_as_the_library(client: Worker, dtype: str, task: str, where: str) -> None:
    picture, mask = scene(dtype), marked() if where == "mask" else None
    expected = loaded(task)(picture, None if mask is None else mask > 0)
    out = restored(client, picture, task, mask, search=None if mask is None else False)
    assert (expected != picture).any()
    np.testing.assert_array_equal(out, expected)
    if mask is not None:
        np.testing.assert_array_equal(out[mask == 0], picture[mask == 0])


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_outside_the_mask_and_in_alpha_every_bit_stays(client: Worker, dtype: str, channels: int) -> None:
    random = np.random.default_rng(channels)
    whole = random.integers(0, 256, (224, 240, channels * np.dtype(dtype).itemsize), np.uint8)
    picture = whole.view(dtype).copy()  # any bits at all, also floats that are no numbers
    picture[..., : 3 if channels > 2 else 1][BOX.slices] = scene(dtype)[..., : 3 if channels > 2 else 1][BOX.slices]
    with send(client, picture, marked()) as place:
        done = client.restore(place, "bicubic", {"block": BLOCK, "search": False})
        out = fetched(place, picture)
    x, y, width, height = done["changed"]
    assert Box(x, y, width, height).intersect(BOX) == Box(x, y, width, height)
    colour = out[..., : 3 if channels > 2 else 1]
    assert (colour[BOX.slices] != picture[..., : 3 if channels > 2 else 1][BOX.slices]).any()
    out = out.copy()
    out[..., : 3 if channels > 2 else 1][BOX.slices] = picture[..., : 3 if channels > 2 else 1][BOX.slices]
    assert out.tobytes() == picture.tobytes()


def test_a_soft_mask_and_strength_blend(client: Worker) -> None:
    picture, soft = scene(), marked(102)
    full = restored(client, picture, "bicubic", marked(), search=False).astype(float)
    expected = np.round(picture + (full - picture) * (102 / 255 * 0.5))
    out = restored(client, picture, "bicubic", soft, search=False, strength=0.5)
    assert np.abs(out - expected).max() <= 1
    assert (out != picture).any()
    out = restored(client, picture, "bicubic", soft, search=False, blend=False)
    np.testing.assert_array_equal(out, full)


def test_find_fills_the_mask(client: Worker) -> None:
    with send(client, scene(), marked(7)) as place:
        found = client.find(place, "mosaic")
        mask = np.frombuffer(place.mask(), np.uint8).reshape(224, 240)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask > 0)[BOX.slices].mean() > 0.9
    assert (mask > 0).sum() < 1.1 * BOX.area
    assert len(found["regions"]) == 1
    assert found["regions"][0]["block"] == pytest.approx([BLOCK, BLOCK], abs=0.3)


def test_what_was_found_may_be_sent_back(client: Worker) -> None:
    picture = scene()
    with send(client, picture, marked(0)) as place:
        regions = client.find(place, "mosaic")["regions"]
    with send(client, picture) as place:
        client.restore(place, "demosaic", regions=regions)
        np.testing.assert_array_equal(fetched(place, picture), restored(client, picture, "demosaic"))


def test_the_search_looks_at_what_the_mask_touches(client: Worker) -> None:
    corner = np.zeros((224, 240), np.uint8)
    corner[:20, :20] = 255
    with pytest.raises(WorkerError, match="no mosaic was found in the marked place") as caught:
        restored(client, scene(), "demosaic", corner)
    assert caught.value.kind == "nothing_found"
    assert caught.value.exit_code == 3
    wide = np.full((224, 240), 255, np.uint8)
    np.testing.assert_array_equal(
        restored(client, scene(), "demosaic", wide), restored(client, scene(), "demosaic", None)
    )


@pytest.mark.parametrize(
    ("task", "mask", "options", "kind", "text"),
    [
        ("demosaic", marked(0), {}, "nothing_found", "nothing is marked"),
        ("derain", None, {"search": True}, "input", "does not find by itself"),
        ("nonsense", None, {}, "input", "expected a task or method out of"),
        ("derain", None, {"engine": "nonsense"}, "input", "expected an engine"),
        ("derain", None, {"engine": "openvino:nonsense"}, "input", "expected a device"),
        ("derain", None, {"colour": 1}, "input", "expected options out of"),
        ("bicubic", None, {"phase": [1, 2]}, "input", "give block, too"),
    ],
)
def test_what_cannot_be_done_says_so_and_leaves_the_pixels(
    client: Worker, task: str, mask: np.ndarray | None, options: dict[str, Any], kind: str, text: str
) -> None:
    with send(client, scene(), mask) as place:
        with pytest.raises(WorkerError, match=text) as caught:
            client.restore(place, task, options)
        assert caught.value.kind == kind
        assert place.pixels() == scene().tobytes()


def test_restorers_are_kept_loaded(client: Worker) -> None:
    restored(client, scene(), "derain")
    assert "rainnet (auto, auto)" in client.status()["loaded"]
    with send(client, scene()) as place:
        assert client.restore(place, "derain")["notes"] == []  # nothing was opened that would tell of its engine


def test_progress_rises_and_tells_what_is_done(folder: Path) -> None:
    slow = Slow(folder)
    slow.stopped = True
    assert isinstance(slow.end(), Cancelled)
    shares = [share for share, _ in slow.said]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    assert any("of 3000" in text for _, text in slow.said)


# --- cancelling, and several at once


def log_of(folder: Path) -> str:
    return (folder / worker.LOG).read_text()


def test_cancelled_by_the_host(folder: Path, client: Worker) -> None:
    slow = Slow(folder)
    assert client.status()["running"] == 1
    slow.stopped = True
    assert isinstance(slow.end(), Cancelled)
    assert slow.left == scene().tobytes()
    until(lambda: client.status()["running"] == 0)
    assert restored(client, scene(), "derain").any()  # it goes on


def test_a_client_that_vanishes_takes_its_job_and_pixels_along(tmp_path: Path) -> None:
    with running(tmp_path / "run") as own:
        vanish(own)
    assert "s: cancelled" in log_of(own)
    assert "Traceback" not in log_of(own)


def vanish(own: Path) -> None:
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from test_worker import Slow
Slow(Path({str(own)!r}))
print("restoring", flush=True)
"""
    vanishing = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert vanishing.stdout is not None
    with vanishing, connect(None, "test", own) as client:
        assert vanishing.stdout.readline() == b"restoring\n"
        assert client.status()["running"] == 1
        assert len(list((own / worker.PIXELS).iterdir())) == 1
        vanishing.kill()
        until(lambda: client.status()["running"] == 0)
        until(lambda: client.status()["connections"] == 1)
    assert list((own / worker.PIXELS).iterdir()) == []


def test_several_at_once(folder: Path, client: Worker) -> None:
    slow = Slow(folder)
    results: dict[int, np.ndarray] = {}

    def one(index: int) -> None:
        with connect(None, f"client {index}", folder) as mine:
            results[index] = restored(mine, scene()[index:], "derain")

    threads = [threading.Thread(target=one, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert client.status()["running"] == 1  # the slow one has not kept them waiting
    slow.stopped = True
    slow.end()
    for index, result in results.items():
        np.testing.assert_array_equal(result, restored(client, scene()[index:], "derain"))
    assert len(results) == 4


def test_a_mistake_of_the_host_drops_the_job(folder: Path, client: Worker) -> None:
    def broken(share: float, text: str) -> None:
        raise ZeroDivisionError

    with connect(None, "broken", folder) as other, pytest.raises(ZeroDivisionError), send(other, scene()) as place:
        other.restore(place, "derain", progress=broken)
    until(lambda: client.status()["connections"] == 1)
    assert client.status()["buffers"] == 0


# --- room


@unix_only
def test_no_room_for_the_pixels(tmp_path: Path) -> None:
    """Files of a process may be limited: what the system says then is what it says of a full disk."""
    limited = ["sh", "-c", 'ulimit -f 200; exec "$@"', "sh", *COMMAND]
    with connect(limited, "test", tmp_path / "run") as client:
        with pytest.raises(WorkerError, match="no room for 1 MB of pixels") as caught:
            client.picture(600, 600, 3, "u8", bytes(1_080_000))
        assert caught.value.kind == "output"
        assert list((tmp_path / "run" / worker.PIXELS).iterdir()) == []
        with client.picture(8, 8, 3, "u8", bytes(192)):
            assert client.status()["buffers"] == 1
        client.leave()


def test_a_full_disk_is_seen_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=999))
    with pytest.raises(OutputError, match="no room for 0 MB of pixels"):
        Buffer(tmp_path / "b1", 1000)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_was_cut_short(client: Worker) -> None:
    with send(client, scene()) as place:
        os.truncate(place._path, 1000)
        with pytest.raises(WorkerError, match="shorter than it was made"):
            client.restore(place, "derain")
        with pytest.raises(WorkerError, match="cut short"):
            place.pixels()


def test_sizes_that_do_not_fit(client: Worker) -> None:
    with pytest.raises(ValueError, match="expected 12 bytes of pixels and 4 of mask, got 11 and no mask"):
        client.picture(2, 2, 3, "u8", bytes(11))
    with pytest.raises(WorkerError, match="expected bytes as a whole number"):
        client.ask({"request": "buffer", "bytes": 10**15})
    with pytest.raises(WorkerError, match="too long"):
        client.ask({"request": "status", "more": "x" * worker_client.LONGEST_MESSAGE})
    assert client.status()["pid"]
