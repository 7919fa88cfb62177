"""Start now, speed up later: one engine answers while a faster one is being built in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from engines.contract import Arrays, Engine, EngineError

CANCEL_SECONDS = 5.0  # that close() gives a build to end; then it ends with the process


class Held:
    """An engine and how many requests it has not answered yet."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.requests = 0


class SwitchingEngine:
    """An Engine: `ready` until `later()` has returned another, from the next call on that other one.

    `later` runs in a thread of its own: it builds (in a child process), checks and loads. Calls that are under way at
    the switch finish on the old engine, which is then closed. An error of `later` is said once, and `ready` stays. Both
    engines belong to this one from now on. `cancel`, if given, ends a build that is under way when `close` is called.
    """

    def __init__(
        self,
        ready: Engine,
        later: Callable[[], Engine],
        say: Callable[[str], None],
        cancel: Callable[[], None] | None = None,
    ) -> None:
        self._held = Held(ready)
        self._later = later
        self._say = say
        self._cancel = cancel
        self._closed = False
        self._changed = threading.Condition()
        self._describe(ready)
        # a daemon: a build of minutes must not keep the process of a user who is done
        self._thread = threading.Thread(target=self._switch, name="build of a faster engine", daemon=True)
        self._thread.start()

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        held = self._enter()
        try:
            return held.engine.run(inputs)
        finally:
            self._leave(held)

    def submit(self, inputs: Arrays) -> Future[dict[str, npt.NDArray[Any]]]:
        held = self._enter()
        try:
            future = held.engine.submit(inputs)
        except BaseException:
            self._leave(held)
            raise
        future.add_done_callback(lambda _: self._leave(held))
        return future

    def close(self) -> None:
        """Waits for requests that are under way, not for the build."""
        with self._changed:
            first, self._closed = not self._closed, True
        if not first:
            return
        if self._cancel is not None and self._thread.is_alive():
            self._cancel()
        with self._changed:
            held = self._held  # no switch happens any more
            self._changed.wait_for(lambda: held.requests == 0)
        held.engine.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(CANCEL_SECONDS if self._cancel else 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _describe(self, engine: Engine) -> None:
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision

    def _enter(self) -> Held:
        with self._changed:
            if self._closed:
                raise EngineError(f"the engine {self.name} was closed and cannot run")
            self._held.requests += 1
            return self._held

    def _leave(self, held: Held) -> None:
        """Called from the engine's own threads too, which is why nothing is closed here: it would wait for itself."""
        with self._changed:
            held.requests -= 1
            self._changed.notify_all()

    def _switch(self) -> None:
        try:
            faster = self._later()
        except Exception as error:
            if not self._closed:
                reason = " ".join(str(error).split()) or type(error).__name__
                self._say(f"the faster engine could not be made: {reason}; going on with {self.name} on {self.device}")
            return
        with self._changed:
            switched = not self._closed
            old = Held(faster)
            if switched:
                old, self._held = self._held, old
                self._describe(faster)
        if switched:
            self._say(f"going on with {faster.name} on {faster.device} in {faster.precision}: its engine is ready")
        with self._changed:
            self._changed.wait_for(lambda: old.requests == 0)
        old.engine.close()
