"""What is asked of one video, and the folder where the work on it is kept until it is done."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

import restore_plugin
from ffmpeg_filters.encoders import EncodeOptions
from ffmpeg_filters.spool import frames_in
from ffmpeg_filters.voice import VoiceOptions
from restore_plugin import plan as plans
from restore_plugin.catalog import FINDERS, EngineOptions, method, task
from restore_plugin.choice import Choice
from restore_plugin.doctor import manifest
from restore_plugin.errors import InputError, NothingFound, OutputError
from restore_plugin.types import Finder, Region, RestoreOptions, Restorer, ScanOptions

RESTORED = "restored by restore-plugin {version} ({task}, {method}): restored pixels are plausible, not evidence"
LOCK = "lock"
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # of folders on some networks: two runs are not told apart
CHANGED = "changed by restore-plugin {version} ({task}, {method})"  # where nothing is invented


@dataclass(frozen=True)
class Span:
    """Seconds of the video, from its first frame's time zero; frames outside pass through."""

    start: float = 0.0
    end: float = float("inf")

    def holds(self, seconds: float) -> bool:
        return self.start - 1e-6 <= seconds < self.end


@dataclass(frozen=True)
class HandRegion:
    """A region that the user gave, for a span of time."""

    region: Region
    span: Span = Span()


@dataclass(frozen=True)
class Job:
    """What to do with one file; everything that changes the result is here."""

    source: Path
    target: Path
    task: str
    method: str
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    span: Span = Span()
    hand: tuple[HandRegion, ...] = ()
    plan: Path | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    restore: RestoreOptions = field(default_factory=RestoreOptions)
    scan: ScanOptions = field(default_factory=ScanOptions)
    choice: Choice = field(default_factory=Choice)
    voice: VoiceOptions = field(default_factory=VoiceOptions)

    def settings(self) -> dict[str, Any]:
        """For the resume folder: a run with other settings starts anew."""
        plan = plans.fingerprint(self.plan) if self.plan else None
        told = {key: value for key, value in asdict(self).items() if key not in ("source", "target", "plan")}
        source = plans.fingerprint(self.source)
        known = {"version": restore_plugin.__version__, "networks": self.networks(), "source": source, "plan": plan}
        return json.loads(json.dumps({**known, **told}, default=str))

    def networks(self) -> dict[str, str]:
        """The shipped networks that may have a part in it, and the start of their SHA-256: two versions of one network
        make frames that do not go together. Raises RestoreError where the manifest cannot be read."""
        finders = (row.weights for row in FINDERS if row.name == task(self.task).finder)
        files = [name for name in (method(self.method).weights, *finders) if name]
        shipped = manifest() if files else {}
        return {name: str(shipped.get(name, {}).get("sha256"))[:12] for name in files}

    @property
    def note(self) -> str:
        """What the output's metadata say."""
        text = RESTORED if task(self.task).invents else CHANGED
        return text.format(version=restore_plugin.__version__, task=self.task, method=self.method)

    @property
    def measured(self) -> bool:
        """Whether places that were given by hand are known well enough, or need no measuring."""
        return not task(self.task).measures or all(hand.region.block for hand in self.hand)


@dataclass(frozen=True)
class Builders:
    """Built when first needed: opening a network takes a second, and much bad input is told before."""

    restorer: Callable[[], Restorer]
    finder: Callable[[], Finder]
    whole_frames: bool = False  # the method need not be told where: without regions it restores all of a frame


class ResumeFolder:
    """`.NAME.resume` beside the output, for one run at a time. Raises OutputError where it cannot be made.

    At the end of a `with` it goes, unless the run was cut off and there is work to go on with.
    """

    def __init__(self, target: Path, settings: dict[str, Any]) -> None:
        self.path = target.with_name(f".{target.name}.resume")
        state, wanted = self.path / "job.json", json.dumps(settings).encode()
        self._lock = FileLock(self.path / LOCK, timeout=0)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(exist_ok=True)
            self._take_lock()
            self.resumed = state.exists() and state.read_bytes() == wanted
            if not self.resumed:
                for old in self.path.iterdir():
                    if old.name != LOCK:
                        old.unlink()
                state.write_bytes(wanted)
        except Timeout:
            raise OutputError(f"another run is writing {target}; wait for it, or choose another name with -o") from None
        except OSError as error:
            self._lock.release()
            with suppress(OSError):
                self.path.rmdir()  # if nothing is in it
            raise OutputError(
                f"{target} could not be written: {error.strerror}; choose another place with -o"
            ) from None
        self.detections = self.path / "detections.jsonl"
        self.plan = self.path / "plan.jsonl"
        self.spool = self.path / "video.spool"
        self.report = self.path / "report"
        self.suspects = self.path / "suspects"

    @property
    def holds_work(self) -> bool:
        return self.detections.exists() or self.spool.exists()

    @property
    def kept(self) -> str:
        """How far an earlier run had come, in words; empty where nothing is left of it."""
        if frames := frames_in(self.spool):
            return f"from frame {frames}"
        if not self.detections.exists():
            return ""
        if self.plan.exists():
            return "with what it found"
        with self.detections.open("rb") as file:
            seen = sum(line.endswith(b"\n") for line in file)
        return f"with its scan, from frame {seen}" if seen else ""

    def _take_lock(self) -> None:
        try:
            self._lock.acquire()
        except NotImplementedError:  # so filelock tells it
            pass
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise

    def remove(self) -> None:
        """Under the lock: nobody goes on with what is about to go."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()
        with suppress(OSError):  # Windows keeps a file that is open
            (self.path / LOCK).unlink(missing_ok=True)
            self.path.rmdir()

    def __enter__(self) -> ResumeFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, (InputError, NothingFound)) or not self.holds_work:
            self.remove()
        self._lock.release()
