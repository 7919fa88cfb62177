"""Frames restored and encoded, as a plan says or whole, into the spool. Goes on where it stopped."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import av
import av.error

from ffmpeg_filters.asked import Job, ResumeFolder
from ffmpeg_filters.frames import PlanesFrame
from ffmpeg_filters.progress import Progress
from ffmpeg_filters.reader import VideoInfo, read_frames, reason
from ffmpeg_filters.spool import FEWEST_FRAMES, PART_FRAMES, PART_SECONDS, Coded, Spool
from restore_plugin import plan as plans
from restore_plugin.errors import OutputError, RestoreError
from restore_plugin.pipeline import flow, with_neighbours
from restore_plugin.regions import restore_frame, whole
from restore_plugin.types import Box, Pixels, Region, Restorer


def render(
    job: Job,
    info: VideoInfo,
    plan: Path | None,
    folder: ResumeFolder,
    open_next: Callable[[], Any],
    pixel_format: str,
    restorer: Restorer,
    progress: Progress,
) -> int:
    """Decode, restore and encode side by side, into the spool. Returns how many frames were restored.

    Without a plan whole frames are restored, or in each the regions given by hand.
    """
    spool = Spool(folder.spool)
    reader = plans.PlanReader(plan, job.task) if plan else None
    done = spool.frames
    restored = 0
    settled = True  # the encoder is between two frames
    progress.stage("restoring", info.frames, done)

    def planned() -> Iterator[tuple[PlanesFrame, Sequence[Region], Sequence[Pixels]]]:
        for frame, neighbours in with_neighbours(read_frames(info, warn), whole_rgb, restorer.needs.context):
            seconds = info.seconds_of(frame)
            regions = job.choice.of(reader.at(frame.index)) if reader else regions_without_plan(job, frame, seconds)
            yield frame, regions if job.span.holds(seconds) else (), neighbours

    def work(item: tuple[PlanesFrame, Sequence[Region], Sequence[Pixels]]) -> tuple[PlanesFrame, int]:
        frame, regions, neighbours = item
        if frame.index < done:  # by the run that was cut off: only counted
            return frame, len(regions)
        return frame, restore_frame(frame, regions, restorer, neighbours)

    # a scan has told what is wrong with the input
    warn = (lambda _: None) if folder.detections.exists() else progress.warn
    encoder = PartEncoder(spool, open_next, pixel_format)

    def sink(result: tuple[PlanesFrame, int]) -> None:
        nonlocal restored, settled
        frame, regions = result
        restored += bool(regions)
        if frame.index < done:
            return
        pts = frame.pts or 0
        with undisturbed():
            settled = False
            encoder.add(frame, pts, frame.frame.duration or info.gap_after(pts))
            if encoder.full:
                encoder.close_part()
            settled = True
        progress.step()

    try:
        try:
            flow(planned(), work, sink)
        except KeyboardInterrupt:
            if settled:  # else packets may be missing, and the part is as if it had never been begun
                encoder.close_part()
            raise
        encoder.close_part()
    except OSError as error:
        raise OutputError(
            f"{job.target} could not be written: {reason(error)}; free some space and run the same command again"
        ) from None
    finally:
        if reader:
            reader.close()
        spool.close()
    progress.end()
    return restored


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C waits until this is done: an encoder that it interrupts has lost frames."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, at: came.append((number, at)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if came:
        usual(*came[0])


def whole_rgb(frame: PlanesFrame) -> Pixels:
    return frame.read_rgb(Box(0, 0, frame.width, frame.height))


def regions_without_plan(job: Job, frame: PlanesFrame, seconds: float) -> list[Region]:
    if not job.hand:
        return whole(frame)
    return [hand.region for hand in job.hand if hand.span.holds(seconds)]


class PartEncoder:
    """Encodes frames into a spool, with an encoder of its own for every part."""

    def __init__(self, spool: Spool, open_next: Callable[[], Any], pixel_format: str) -> None:
        self.spool = spool
        self._open_next = open_next
        self._pixel_format = pixel_format
        self._encoder: Any = None
        self._durations: dict[int, int] = {}  # encoders do not all hand them on
        self._last = 0
        self._opened = 0.0

    @property
    def full(self) -> bool:
        """Whether so much is in the part that it should be closed."""
        frames = self._last - self.spool.frames
        slow = frames >= FEWEST_FRAMES and time.monotonic() - self._opened >= PART_SECONDS
        return slow or frames >= PART_FRAMES

    def add(self, frame: PlanesFrame, pts: int, duration: int) -> None:
        if self._encoder is None:
            self._encoder = self._open_next()
            self._opened = time.monotonic()
        self._durations[pts] = duration
        self._last = frame.index + 1
        picture = frame.frame
        picture.pict_type = 0  # the encoder chooses its own key frames
        if picture.format.name != self._pixel_format:
            picture = picture.reformat(format=self._pixel_format)
        self._drain(picture)

    def close_part(self) -> None:
        """The frames so far can be decoded without any that follow, and are safe."""
        if self._encoder is not None:
            self._drain(None)
            self.spool.close_part(self._last)
            self._encoder = None

    def _drain(self, frame: av.VideoFrame | None) -> None:
        try:
            packets = self._encoder.encode(frame)
        except av.error.FFmpegError as error:
            raise RestoreError(f"the encoder failed: {reason(error)}; try another --codec") from None
        for packet in packets:
            pts = packet.pts if packet.pts is not None else packet.dts
            self.spool.append(Coded(pts, pts, self._durations.pop(pts, 0), packet.is_keyframe, bytes(packet)))
