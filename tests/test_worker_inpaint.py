"""Holes that the worker fills: as the library does, ended in the middle, another fill from another seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_worker import NAMES, fetched, loaded, restored, running, scene, send

from restore_plugin import catalog, inpaint, worker_jobs
from restore_plugin.classical import harmonic, patchmatch
from restore_plugin.types import Box, Region
from restore_plugin.worker_client import Worker, WorkerError, connect
from restore_plugin.worker_messages import Cancelled, restore_request

SIZE = (224, 240)
HOLE = Box(90, 70, 60, 48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running(tmp_path_factory.mktemp("worker") / "run") as made:
        yield made


@pytest.fixture
def client(folder: Path) -> Iterator[Worker]:
    with connect(None, "test", folder) as made:
        yield made


def hidden(*holes: Box) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    for hole in holes or (HOLE,):
        mask[hole.slices] = 255
    return mask


# --- results


@pytest.mark.parametrize("method", ["fillnet", "patches", "smooth"])
@pytest.mark.parametrize("dtype", NAMES)
def test_as_the_library(client: Worker, method: str, dtype: str) -> None:
    picture, mask = scene(dtype), hidden(HOLE, Box(0, 180, 30, 44), Box(100, 124, 2, 2))
    out = restored(client, picture, method, mask)
    np.testing.assert_array_equal(out, loaded(method)(picture, mask > 0))
    np.testing.assert_array_equal(out[mask == 0], picture[mask == 0])
    assert (out != picture)[mask > 0].any(-1).mean() > 0.9


def test_a_soft_mask_hides_all_of_it_and_blends(client: Worker) -> None:
    picture, soft = scene(), hidden()
    soft[HOLE.y : HOLE.y + 8, HOLE.x : HOLE.right] = 51
    full = restored(client, picture, "patches", hidden()).astype(float)
    out = restored(client, picture, "patches", soft)
    assert np.abs(out - (picture + (full - picture) * (soft / 255)[..., None])).max() <= 0.51
    np.testing.assert_array_equal(restored(client, picture, "patches", soft, blend=False), full)


def test_another_seed_is_another_fill(client: Worker) -> None:
    first, again, other = (restored(client, scene(), "patches", hidden(), seed=seed) for seed in (0, 0, 7))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, restored(client, scene(), "patches", hidden()))
    assert (first != other).any()
    assert client.status()["loaded"].count("patches (auto, auto)") == 1


def test_all_hidden_is_an_error_and_leaves_the_pixels(client: Worker) -> None:
    with send(client, scene(), np.full(SIZE, 255, np.uint8)) as place:
        with pytest.raises(WorkerError, match="leaves some of the picture") as caught:
            client.restore(place, "inpaint")
        assert caught.value.kind == "input"
        np.testing.assert_array_equal(fetched(place, scene()), scene())
    with pytest.raises(WorkerError, match="has to be told where"):
        restored(client, scene(), "inpaint")


def test_regions_that_a_mask_narrows_hide_no_more_than_both(client: Worker) -> None:
    """What is hidden beyond the mask would be filled, not written, and leave a seam."""
    picture, wide = scene(), Box(HOLE.x - 30, HOLE.y - 30, HOLE.width + 60, HOLE.height + 60)
    with send(client, picture, hidden()) as place:
        client.restore(place, "smooth", regions=[{"box": [wide.x, wide.y, wide.width, wide.height]}])
        np.testing.assert_array_equal(fetched(place, picture), loaded("smooth")(picture, hidden() > 0))
    with send(client, picture, hidden()) as place:
        with pytest.raises(WorkerError, match="no place in common") as caught:
            client.restore(place, "smooth", regions=[{"box": [0, 0, 8, 8]}])
        assert caught.value.kind == "nothing_found"


def test_options_of_another_task(client: Worker) -> None:
    for options in ({"block": 8}, {"linear_light": True}):
        with pytest.raises(WorkerError, match="not with inpaint"):
            restored(client, scene(), "smooth", hidden(), **options)


# --- what is sent along


@pytest.mark.parametrize("method", ["patches", "smooth"])
@pytest.mark.parametrize("size", [(1, 1), (40, 40), (301, 300), (200, 900), (899, 700)])
def test_hosts_are_told_enough_surroundings(client: Worker, method: str, size: tuple[int, int]) -> None:
    """Whatever shape lies in a box: a hole is never deeper than where the whole box is one."""
    task = next(task for task in client.capabilities["tasks"] if task["name"] == "inpaint")
    sent = max(client.capabilities["surroundings_px"], task["surroundings"] * min(size))
    restorer = loaded(method).restorer
    assert max(restorer.margin(Region(Box(0, 0, *size)))) <= sent + inpaint.DEPTHS_AROUND


def test_only_holes_are_looked_at_from_far() -> None:
    assert [task.name for task in catalog.TASKS if task.surroundings] == ["inpaint"]


# --- progress, and ending it


class Ended(Exception):
    pass


def heard(fill: object, end: float = 2.0) -> list[float]:
    """Shares of a fill that was let go on until `end`."""
    shares: list[float] = []

    def check(share: float) -> None:
        shares.append(share)
        if share > end:
            raise Ended

    picture = scene("float32")
    try:
        fill(picture, hidden() > 0, check=check)  # type: ignore[operator]
    except Ended:
        return shares
    assert end > 1
    return shares


@pytest.mark.parametrize("fill", [patchmatch.fill, harmonic.harmonic])
def test_fills_ask_again_and_again(fill: object) -> None:
    shares = heard(fill)
    assert 0 <= min(shares) <= max(shares) <= 1
    assert shares[0] < 0.1
    assert shares[-1] > 0.6
    assert len(set(shares)) > 3
    ended = heard(fill, 0.3)
    assert ended == shares[: len(ended)]
    assert len(ended) < len(shares)


class Impatient(worker_jobs.Job):
    """Is cancelled once so much is done."""

    after = 0.45

    def check(self) -> None:
        if self.progress[0] > self.after:
            self.cancel()
        super().check()


@pytest.mark.parametrize("method", ["fillnet", "patches"])
def test_a_job_ends_in_the_middle_of_a_hole(tmp_path: Path, method: str) -> None:
    picture, mask = scene(), hidden()
    buffer = worker_jobs.Buffer(tmp_path / "b", picture.nbytes + mask.nbytes)
    buffer.path.write_bytes(picture.tobytes() + mask.tobytes())
    pixels = {"buffer": "b", "width": 240, "height": 224, "channels": 3, "dtype": "u8"}
    message = {"method": method, "pixels": pixels, "mask": {"buffer": "b", "offset": picture.nbytes}}
    request, kept = restore_request(message, 10**6), worker_jobs.Kept()
    job = worker_jobs.NOW.job = Impatient({"b": buffer})
    try:
        with pytest.raises(Cancelled):
            worker_jobs.restore(request, job, kept)
        assert job.after < job.progress[0] < 0.9
        assert job.progress[1] == "restoring region 1 of 1"
        assert buffer.path.read_bytes() == picture.tobytes() + mask.tobytes()
        job = worker_jobs.NOW.job = worker_jobs.Job({"b": buffer})
        assert worker_jobs.restore(request, job, kept)["changed"]
    finally:
        worker_jobs.NOW.job = None


def test_holes_that_are_filled_together_count_as_one(client: Worker) -> None:
    said: list[str] = []
    specks = [Box(60 + 9 * step, 80 + step, 3, 3) for step in range(8)]
    with send(client, scene(), hidden(*specks)) as place:
        done = client.restore(place, "smooth", progress=lambda share, text: said.append(text))
    assert len(done["regions"]) == len(specks)
    assert not [text for text in said if text.startswith("restoring") and text != "restoring region 1 of 1"]
