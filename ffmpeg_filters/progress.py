"""What the user sees while a job runs: a line that is rewritten on a terminal, JSON lines for machines, or nothing."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class Progress:
    """`stage` starts a count, `step` moves it, `say` tells something that stays."""

    def __init__(self, command: str, quiet: bool = False, machine: bool = False) -> None:
        self.command = command
        self.quiet = quiet
        self.machine = machine
        self._live = sys.stderr.isatty() and not quiet and not machine
        self._name, self._total, self._done, self._since, self._shown, self._first = "", 0, 0, 0.0, 0.0, 0

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """`done` steps of an earlier run count as done, not as speed."""
        self._name, self._total, self._done, self._first = name, total, done, done
        self._since, self._shown = time.monotonic(), 0.0

    def step(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._shown < (1.0 if self.machine else 0.2) and self._done != self._total:
            return
        self._shown = now
        rate = (self._done - self._first) / max(now - self._since, 1e-6)
        left = max(0, self._total - self._done) / rate if rate > 0 else 0.0
        if self.machine:
            self.event(
                "progress",
                stage=self._name,
                done=self._done,
                total=self._total,
                frames_per_second=round(rate, 2),
                seconds_left=round(left, 1),
            )
        elif self._live:
            text = f"{self._name} {self._done}/{self._total}  {rate:.1f} frames/s  {clock(left)} left"
            sys.stderr.write(f"\r{text:<78}")
            sys.stderr.flush()

    def end(self) -> float:
        """Finish the stage; its frames a second."""
        if self._live:
            sys.stderr.write(f"\r{'':<78}\r")
        return (self._done - self._first) / max(time.monotonic() - self._since, 1e-6)

    def say(self, text: str) -> None:
        """Something worth knowing, on standard output."""
        self.end()
        if self.machine:
            self.event("message", text=text)
        elif not self.quiet:
            tell(text)

    def warn(self, text: str) -> None:
        """Something that the user must know, on standard error, quiet or not."""
        self.end()
        if self.machine:
            self.event("warning", text=text)
        print(f"{self.command}: {text}", file=sys.stderr, flush=True)

    def event(self, kind: str, **values: Any) -> None:
        if self.machine:
            tell(json.dumps({"event": kind, **values}))


def tell(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever read it has gone; the work goes on
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
