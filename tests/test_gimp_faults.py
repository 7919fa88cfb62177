"""What goes wrong with the worker, as GIMP's user meets it; many calls, and two GIMPs at once.

The checks of single faults are in tests/gimp/faults.py and run inside GIMP.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from gimp.required import cases_of, gimp_session
from gimp.session import Session


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
    with gimp_session(RESTORE_PLUGIN_RUNTIME=str(session.runtime)) as other, ThreadPoolExecutor() as pool:
        session.stop()
        other.mounted = (session.runtime,)
        for told in pool.map(lambda each: each.cases("crowd"), (session, other)):
            assert "error" not in told["twelve_calls"], told["twelve_calls"]["error"]
    log = (session.runtime / "worker.log").read_text(encoding="utf-8").splitlines()
    last = max(number for number, line in enumerate(log) if "listens" in line)
    assert sum("derain" in line or "restore 160x120" in line for line in log[last:]) >= 24  # one served them both
    assert not any("ERROR" in line for line in log[last:])
