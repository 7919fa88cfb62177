"""The first answer does not wait for a build; the switch loses no request and closes what it leaves."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from engines.contract import Engine, EngineError, OutOfMemory
from engines.switching import SwitchingEngine

PATIENCE_SECONDS = 20.0
INPUTS = {"picture": np.zeros((1, 1, 2, 2), np.float32)}


class FakeEngine:
    """Answers with its level once `gate` is open; closing while something runs is a mistake."""

    device, precision = "GPU", "fp16"

    def __init__(self, level: float) -> None:
        self.name, self.level = f"fake{level:g}", level
        self.gate = threading.Event()
        self.gate.set()
        self.closed = threading.Event()
        self.under_way = 0
        self.mistakes: list[str] = []
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.under_way += 1
            if self.closed.is_set():
                self.mistakes.append("used after it was closed")
        try:
            assert self.gate.wait(PATIENCE_SECONDS)
            return {"restored": inputs["picture"] + self.level}
        finally:
            with self._lock:
                self.under_way -= 1

    def submit(self, inputs: Mapping[str, Any]) -> Future[dict[str, Any]]:
        return self._pool.submit(self.run, inputs)

    def close(self) -> None:
        if self.under_way or self.closed.is_set():
            self.mistakes.append("closed while in use, or twice")
        self._pool.shutdown()
        self.closed.set()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Build:
    """`later` of a test: waits until it is told how the build ended."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.outcome: FakeEngine | Exception = FakeEngine(2)

    def __call__(self) -> Engine:
        assert self.done.wait(PATIENCE_SECONDS)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Case:
    def __init__(self) -> None:
        self.ready, self.build, self.said = FakeEngine(1), Build(), list[str]()
        self.spoke = threading.Event()
        self.engine: Engine = SwitchingEngine(self.ready, self.build, self.say)

    def say(self, line: str) -> None:
        self.said.append(line)
        self.spoke.set()

    def finish(self, outcome: Exception | None = None) -> None:
        """The build ends; returns when the switch happened or was given up."""
        self.build.outcome = outcome or self.build.outcome
        self.build.done.set()
        assert self.spoke.wait(PATIENCE_SECONDS)

    def level(self) -> float:
        return float(self.engine.run(INPUTS)["restored"].max())


@pytest.fixture
def case() -> Iterator[Case]:
    case = Case()
    yield case
    case.build.done.set()
    close(case.engine)
    for each in (case.ready, case.build.outcome):
        assert not isinstance(each, FakeEngine) or not each.mistakes


def close(engine: Engine) -> None:
    """With a watchdog."""
    thread = threading.Thread(target=engine.close, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "close() hangs"


def test_it_starts_on_what_is_ready_and_switches(case: Case) -> None:
    assert case.level() == 1
    assert (case.engine.name, case.engine.device, case.engine.precision) == ("fake1", "GPU", "fp16")
    case.finish()
    assert case.level() == 2
    assert case.engine.name == "fake2"
    assert case.said == ["going on with fake2 on GPU in fp16: its engine is ready"]
    assert case.ready.closed.wait(PATIENCE_SECONDS)
    close(case.engine)
    assert isinstance(case.build.outcome, FakeEngine)
    assert case.build.outcome.closed.is_set()


def test_requests_under_way_finish_on_the_old_engine(case: Case) -> None:
    case.ready.gate.clear()
    old = [case.engine.submit(INPUTS) for _ in range(4)]
    case.finish()
    assert case.engine.submit(INPUTS).result(PATIENCE_SECONDS)["restored"].max() == 2
    assert not case.ready.closed.is_set()
    assert not any(future.done() for future in old)
    case.ready.gate.set()
    assert [future.result(PATIENCE_SECONDS)["restored"].max() for future in old] == [1] * 4
    assert case.ready.closed.wait(PATIENCE_SECONDS)


def test_a_request_that_was_cancelled_does_not_keep_the_old_engine(case: Case) -> None:
    case.ready.gate.clear()
    futures = [case.engine.submit(INPUTS) for _ in range(5)]
    assert futures[-1].cancel()
    case.finish()
    case.ready.gate.set()
    assert case.ready.closed.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("error", [EngineError("the driver\nis too old"), RuntimeError("the driver is too old")])
def test_a_build_that_fails_is_said_once(case: Case, error: Exception) -> None:
    case.finish(error)
    assert case.level() == 1
    assert case.said == [
        "the faster engine could not be made: the driver is too old; going on with fake1 on GPU",
    ]
    assert not case.ready.closed.is_set()
    close(case.engine)
    assert case.ready.closed.is_set()


def test_closing_does_not_wait_for_the_build(case: Case) -> None:
    assert case.level() == 1
    close(case.engine)
    assert case.ready.closed.is_set()
    with pytest.raises(EngineError, match="was closed"):
        case.engine.run(INPUTS)
    with pytest.raises(EngineError, match="was closed"):
        case.engine.submit(INPUTS)
    case.build.done.set()  # what comes too late is closed, without a word
    assert isinstance(case.build.outcome, FakeEngine)
    assert case.build.outcome.closed.wait(PATIENCE_SECONDS)
    assert case.said == []


def test_closing_cancels_the_build() -> None:
    build, ready = Build(), FakeEngine(1)

    def cancel() -> None:
        build.outcome = EngineError("cancelled")
        build.done.set()

    said: list[str] = []
    engine = SwitchingEngine(ready, build, said.append, cancel)
    close(engine)
    close(engine)  # a second time is nothing
    assert build.done.is_set()
    assert ready.closed.is_set()
    assert said == []  # nobody wants to hear of a build that they ended


def test_closing_waits_for_requests(case: Case) -> None:
    case.ready.gate.clear()
    future = case.engine.submit(INPUTS)
    closing = threading.Thread(target=case.engine.close, daemon=True)
    closing.start()
    assert not case.ready.closed.wait(0.05)
    case.ready.gate.set()
    closing.join(PATIENCE_SECONDS)
    assert future.result(PATIENCE_SECONDS)["restored"].max() == 1
    assert case.ready.closed.is_set()


def test_errors_of_a_call_pass_and_leave_nothing_behind(case: Case) -> None:
    def full(inputs: Mapping[str, Any]) -> Any:
        raise OutOfMemory("no memory is left")

    case.ready.run = case.ready.submit = full  # type: ignore[method-assign]
    for call in (case.engine.run, case.engine.submit):
        with pytest.raises(OutOfMemory, match="no memory"):
            call(INPUTS)
    case.finish()
    assert case.ready.closed.wait(PATIENCE_SECONDS)


def test_several_threads_through_the_switch(case: Case) -> None:
    """Each sees the old engine first and the new one at the end, and never the old one after the new."""
    switched = threading.Event()

    def work(index: int) -> list[float]:
        levels, after = [], 0
        while after < 20:
            after += switched.is_set()
            if index % 2:
                levels.append(case.level())
            else:
                levels.append(float(case.engine.submit(INPUTS).result(PATIENCE_SECONDS)["restored"].max()))
        return levels

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(work, index) for index in range(6)]
        case.finish()
        switched.set()
        for future in futures:
            levels = future.result(PATIENCE_SECONDS)
            assert levels == sorted(levels)
            assert levels[-1] == 2
    assert case.ready.closed.wait(PATIENCE_SECONDS)
