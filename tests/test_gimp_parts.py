"""The parts of the GIMP plug-in that need no GIMP: arithmetic on rows, the table, errors in a user's words."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gimp_plugin
import restore_plugin
from gimp_plugin import rows, service, table
from gimp_plugin.problem import Problem
from restore_plugin import catalog, install_gimp, worker_client

KINDS = ("error", "input", "nothing_found", "refused", "output", "missing_extra", "protocol", "version", "access")
KINDS += ("busy", "cancelled", "defect")  # docs/worker.md
KINDS += ("not_running", "not_started", "died", "silent")  # the client's own


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(8)


def test_crop(random: np.random.Generator) -> None:
    for each in (1, 3, 4, 16):
        picture = random.integers(0, 256, (20, 30, each), np.uint8)
        for x, y, width, height in ((0, 0, 30, 20), (0, 5, 30, 3), (7, 2, 11, 9), (29, 19, 1, 1)):
            got = rows.crop(picture.tobytes(), 30, each, (x, y, width, height))
            assert got == picture[y : y + height, x : x + width].tobytes()


@pytest.mark.parametrize("each", [1, 2, 3, 4, 6, 8, 12, 16, 24, 32])
def test_differing(random: np.random.Generator, each: int) -> None:
    old = random.integers(0, 256, (25, 31, each), np.uint8)
    new = old.copy()
    for _ in range(60):  # single bits, in some rows
        y, x, at = random.integers(0, 12), random.integers(0, 31), random.integers(0, each)
        new[y, x, at] ^= 1 << random.integers(0, 8)
    expected = (old != new).any(axis=2)
    flags = rows.differing(old.tobytes(), new.tobytes(), 31, each)
    assert [row is None for row in flags] == [not line.any() for line in expected]
    assert rows.mask_of(flags, 31) == (expected * np.uint8(255)).tobytes()
    other = random.integers(0, 256, (25, 31, 5), np.uint8)
    third = random.integers(0, 256, (25, 31, 5), np.uint8)
    mixed = rows.put_where(other.tobytes(), third.tobytes(), flags, 31, 5)
    assert mixed == np.where(expected[..., None], third, other).tobytes()


def test_differing_sees_bits_where_numbers_are_equal() -> None:
    zero, minus_zero, nan = (np.float32(value).tobytes() for value in (0.0, -0.0, np.nan))
    flags = rows.differing(zero + nan, minus_zero + nan, 2, 4)
    assert rows.mask_of(flags, 2) == b"\xff\x00"


def test_multiply(random: np.random.Generator) -> None:
    kinds = [np.zeros(40, np.uint8), np.full(40, 255, np.uint8), random.integers(0, 256, 40).astype(np.uint8)]
    one = np.array([a for a in kinds for _ in kinds])
    other = np.array([b for _ in kinds for b in kinds])
    expected = np.round(one / 255 * other).astype(np.uint8)
    assert rows.multiply(one.tobytes(), other.tobytes(), 40) == expected.tobytes()


def test_grow() -> None:
    assert rows.grow((10, 20, 30, 40), 5, 100, 100) == (5, 15, 40, 50)
    assert rows.grow((10, 20, 30, 40), 500, 100, 90) == (0, 0, 100, 90)
    assert rows.grow((0, 0, 1, 1), 0, 1, 1) == (0, 0, 1, 1)


# --- the table -----------------------------------------------------------------------------------------------------


def test_the_table_has_what_the_library_has() -> None:
    """Nothing is forgotten; rows that are ahead of the library are not offered."""
    rows = {row.task: row for row in table.ROWS if row.task}
    left_out = {"picture", "review"}  # one needs a file, the other hides nothing
    left_out |= {"telea", "navier_stokes", "partial_conv", "deblurgan"}  # to compare with; others do better
    for task in catalog.TASKS:
        row = rows[task.name]
        assert row.methods[0][0] == task.default
        methods = {each.name for each in catalog.METHODS if each.task == task.name}
        assert {name for name, _, _ in row.methods} == methods - left_out
        assert row.invents == task.invents
        assert row.searches == (task.finder is not None)
    assert {row.finder for row in table.ROWS if row.finder} >= {row.name for row in catalog.FINDERS}


def test_only_what_works_is_offered() -> None:
    """No dead menu entries."""
    offered = table.offered(install_gimp.offers())
    tasks = {task.name for task in catalog.TASKS}
    for row in offered:
        assert row.task in tasks or not row.task
        for name, _, _ in row.methods:
            weights = catalog.method(name).weights
            assert weights is None or (catalog.WEIGHTS / weights).exists()
    (demosaic,) = (row for row in table.ROWS if row.task == "demosaic")
    assert table.offered(["bicubic"]) == (replace(demosaic, methods=demosaic.methods[1:]),)
    assert [row.finder for row in table.offered(["mosaic"])] == ["mosaic"]
    assert table.offered([]) == ()
    assert table.offered(None) == table.ROWS


def test_remove_object_has_to_be_told_where() -> None:
    rows = table.offered(install_gimp.offers())
    first = rows[0]
    assert (first.task, [name for name, _, _ in first.methods]) == ("inpaint", ["fillnet", "patches", "smooth"])
    for row in rows:  # what needs a mask and cannot find it itself needs a selection
        asked = bool(row.task) and not row.searches and catalog.method(row.methods[0][0]).needs_mask
        assert bool(row.needs_selection) == asked


def test_rows_are_complete() -> None:
    assert len({row.procedure for row in table.ROWS}) == len(table.ROWS)
    accelerators = [row.label[row.label.index("_") + 1].lower() for row in table.ROWS]
    assert len(set(accelerators)) == len(accelerators)
    for row in table.ROWS:
        assert row.procedure.startswith("plug-in-restore-")
        assert bool(row.task) != bool(row.finder)
        assert row.label.endswith("...")
        assert row.nothing_found.format(where=" in the layer").endswith(".")
        assert not row.task or row.layer_name
        assert (table.PLAUSIBLE in row.help) == row.invents


def test_the_version_is_the_library_s() -> None:
    assert restore_plugin.__version__ == gimp_plugin.VERSION


# --- the way to the worker ------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plug-in's folder, with the settings that the installer writes."""
    settings = tmp_path / service.SETTINGS
    settings.write_text(json.dumps({"command": ["/opt/venv/bin/restore-plugin"]}), encoding="utf-8")
    monkeypatch.setattr(service, "__file__", str(tmp_path / "gimp_plugin/service.py"))
    monkeypatch.setitem(sys.modules, "gimp_plugin.worker_client", worker_client)
    for name in ("FLATPAK_ID", "SNAP_NAME", "RESTORE_PLUGIN_RUNTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    return settings


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []

    def connect(command: list[str], client: str, directory: str | None, start: bool = True) -> object:
        made.append((command, client, directory, start))
        return object()

    monkeypatch.setattr(worker_client, "connect", connect)
    return made


def test_it_starts_the_worker(installed: Path, connections: list[tuple[Any, ...]]) -> None:
    service.connect()
    assert connections == [(["/opt/venv/bin/restore-plugin"], f"gimp-plugin {gimp_plugin.VERSION}", None, True)]


@pytest.mark.parametrize(
    ("variable", "value", "folder"),
    [
        ("FLATPAK_ID", "org.gimp.GIMP", "/run/user/1000/app/org.gimp.GIMP/restore-plugin"),
        ("SNAP_NAME", "gimp", "/run/user/1000/restore-plugin"),
    ],
)
def test_a_confined_gimp_starts_nothing(
    installed: Path,
    connections: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    folder: str,
) -> None:
    monkeypatch.setenv(variable, value)
    service.connect()
    assert connections[0][2:] == (folder, False)
    told = service.sentence("not_running", "the restore worker is not running", table.ROWS[0], False)
    assert told.endswith(f"restore-plugin worker start --idle-minutes 0 --directory {folder}")


@pytest.mark.parametrize("wrong", ["", "{", "[]", "3", '{"command": "text"}', '{"command": []}', '{"command": [1]}'])
def test_damaged_settings(installed: Path, wrong: str) -> None:
    installed.write_text(wrong, encoding="utf-8")
    with pytest.raises(Problem, match="restore-plugin install-gimp"):
        service.command()
    assert service.offers() is None
    installed.unlink()
    assert service.offers() is None
    with pytest.raises(Problem, match="restore-plugin install-gimp"):
        service.command()


@pytest.mark.parametrize("kind", [*KINDS, "of a later version"])
@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: row.procedure)
def test_every_error_is_a_sentence(installed: Path, kind: str, row: table.Row) -> None:
    for selected in (False, True):
        told = service.sentence(kind, "what the worker said.", row, selected)
        assert told[0].isupper()
        assert told[-1] in ".)"
        assert ".." not in told.replace("...", "")
        assert "{" not in told
    assert "what the worker said" in told or kind in ("nothing_found", "version", "cancelled")


def test_the_worker_tells_how_much_it_wants_to_see() -> None:
    class Worker:
        capabilities: dict[str, Any] = {}  # noqa: RUF012

    assert service.surroundings_px(Worker(), "inpaint", 1000) == service.SURROUNDINGS_PX
    tasks = [{"name": "inpaint", "surroundings": 1.5}, {"name": "derain"}]
    Worker.capabilities = {"surroundings_px": 12, "tasks": tasks}
    assert service.surroundings_px(Worker(), "inpaint", 1001) == 1502
    assert service.surroundings_px(Worker(), "inpaint", 7) == 12
    assert service.surroundings_px(Worker(), "derain", 1001) == 12


def test_the_client_needs_nothing_but_the_standard_library() -> None:
    """A copy of it is all that the plug-in has."""
    import ast

    tree = ast.parse(Path(worker_client.__file__).read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
