"""What goes wrong with the worker, as GIMP's user meets it; many calls, and two GIMPs at once.

The checks of single faults are in tests/gimp/faults.py and run inside GIMP.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from gimp.required import cases_of, gimp_session
from gimp.session import HERE, PYTHON, WORKER, Session


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with gimp_session() as made:
        yield made


@pytest.fixture(scope="module")
def results(session: Session) -> dict[str, Any]:
    return session.cases("faults")


@pytest.mark.parametrize("name", cases_of("faults"))
def test_fault(results: dict[str, Any], name: str) -> None:
    assert "error" not in results[name], results[name]["error"]


def test_two_gimps_share_a_worker(session: Session) -> None:
    session.stop()
    log = session.runtime / "worker.log"
    before = log.read_text(encoding="utf-8") if log.exists() else ""
    with gimp_session(RESTORE_PLUGIN_RUNTIME=str(session.runtime)) as other, ThreadPoolExecutor() as pool:
        other.mounted = (session.runtime,)
        for told in pool.map(lambda each: each.cases("crowd"), (session, other)):
            assert "error" not in told["twelve_calls"], told["twelve_calls"]["error"]
    said = log.read_text(encoding="utf-8").removeprefix(before)
    assert said.count("listens in") == 1, said  # one served them both
    assert "ERROR" not in said


def test_a_gimp_that_may_start_nothing() -> None:
    """As Flatpak's: the sentence says what to do, and when that is done, it works."""
    ask = "from bench import FIND, call, make_image; print('TOLD', call(FIND, *make_image()).text)"
    with gimp_session(FLATPAK_ID="org.gimp.GIMP") as session:
        code = f"import sys; sys.path.insert(0, {session.host.path(HERE)!r}); {ask}"
        assert "TOLD This GIMP may not start other programs" in session.python(code).stdout
        start = [*PYTHON, WORKER, "worker", "start", "--directory", str(session.runtime)]
        subprocess.run(start, check=True, timeout=60)
        assert "TOLD success" in session.python(code).stdout
