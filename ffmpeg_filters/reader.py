"""Reading video: what a file holds, and its frames one by one, in order of presentation."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, dropwhile, pairwise
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np

from ffmpeg_filters.frames import PlanesFrame
from restore_plugin.errors import InputError, Refused

Warn = Callable[[str], None]
CHECKSUMS = ("ffv1",)
REORDERED = {"h264", "hevc"}  # in AVI their times are of the order in which frames are stored, not shown


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its (first real) video stream."""

    path: Path
    container: str
    stream: int
    codec: str
    pixel_format: str
    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    pts: tuple[int, ...]  # of every packet, sorted: the frames' times, as nearly as can be known without decoding
    keys: frozenset[int] = frozenset()  # pts of the packets where decoding can begin
    lacking: str = ""  # in words, what the file announces and does not hold

    @property
    def frames(self) -> int:
        return len(self.pts)

    @property
    def start_seconds(self) -> float:
        return float(self.pts[0] * self.time_base)

    @property
    def seconds(self) -> float:
        """From the first frame's start to the last one's end."""
        return float((self.pts[-1] - self.pts[0]) * self.time_base + 1 / self.rate)

    @property
    def even(self) -> bool:
        """Whether every frame is at a multiple of the rate's step from the first, to one tick; some may be left out."""
        gap = float(1 / (self.rate * self.time_base))
        steps = [(pts - self.pts[0]) / gap for pts in self.pts]
        near = min(1 / gap, 0.25)  # a clock hardly finer than the rate tells no difference else
        return len(set(map(round, steps))) == len(steps) and all(abs(step - round(step)) <= near for step in steps)

    def times(self) -> Iterator[float]:
        """Seconds of every frame from the first one's."""
        return (float((pts - self.pts[0]) * self.time_base) for pts in self.pts)

    def seconds_of(self, frame: PlanesFrame) -> float:
        return float(((frame.pts or 0) - self.pts[0]) * self.time_base)

    def index_of(self, pts: int) -> int:
        """Number of the frame shown at a time."""
        return bisect.bisect_left(self.pts, pts)

    def gap_after(self, pts: int) -> int:
        """Time units to the next frame; for the last one, to where the rate would put it."""
        index = self.index_of(pts) + 1
        return self.pts[index] - pts if index < len(self.pts) else max(1, round(1 / (self.rate * self.time_base)))


def location(path: Path) -> str:
    """A path as FFmpeg must be given it: else it takes what stands before a colon for a protocol."""
    return f"file:{path}"


def open_input(path: Path) -> Any:
    """Raises InputError for anything that is not a readable media file."""
    if not path.exists():
        raise InputError(f"{path} does not exist; check the name")
    if path.is_dir():
        raise InputError(f"expected a video file, {path} is a folder")
    if path.stat().st_size == 0:
        raise InputError(f"expected a video, {path} is empty (0 bytes)")
    try:
        return av.open(location(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"expected a video, {path} could not be opened: {reason(error)}; is it complete?") from None


def reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip()


def video_stream(container: Any, path: Path) -> Any:
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
    raise InputError(f"expected a video, {path} holds no video stream (only {', '.join(kinds)})")


def probe(path: Path) -> VideoInfo:
    """Read all packets once, decoding the first frame alone. Raises InputError or Refused before any work."""
    with open_input(path) as container:
        stream = video_stream(container, path)
        context = stream.codec_context
        if context is None or context.width <= 0:
            raise InputError(f"{path} could not be read: its video codec is not known here; convert it first")
        times = []
        ends: dict[int, int] = {}  # where each stream ends, in its own time units
        keys = set()
        count, last = 0, None
        try:
            for packet in container.demux():
                at = packet.dts if packet.pts is None else packet.pts
                if at is not None:
                    ends[packet.stream_index] = max(ends.get(packet.stream_index, 0), at + (packet.duration or 0))
                if packet.size and packet.stream_index == stream.index:
                    count, last = count + 1, packet.dts
                    if not packet.is_discard:
                        times.append(packet.pts)
                        if packet.is_keyframe:
                            keys.add(packet.pts)
        except av.error.FFmpegError:
            pass  # a file that ends early: what is there is worked on, and its decoding reports the rest
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(25)
        base = stream.time_base
        if not times:
            raise InputError(f"expected a video, {path} holds no frames")
        if None in times:  # a raw stream: its frames follow each other evenly
            times = [round(index / (rate * base)) for index in range(len(times))]
            keys.clear()
        if len(set(times)) != len(times):
            raise Refused(
                f"{path} has several frames with the same time; rewrap it (ffmpeg -c copy) to give each its own"
            )
        times.sort()
        longest = max([1 / rate, *((after - before) * base for before, after in pairwise(times))])
        info = VideoInfo(
            path,
            container.format.name,
            stream.index,
            context.codec.canonical_name,
            "",
            context.width,
            context.height,
            Fraction(rate),
            Fraction(base),
            tuple(times),
            frozenset(keys),
            lacking_frames(stream, count, last) or lacking_seconds(container, stream, ends, longest),
        )
    with open_input(path) as container:
        frame = first_frame(container, video_stream(container, path), path)
        PlanesFrame(frame, 0).check()
        return VideoInfo(**{**info.__dict__, "pixel_format": frame.format.name})


def lacking_frames(stream: Any, count: int, last: int | None) -> str:
    """What an MP4 that ends early lacks: its index knows every frame. `count` packets were read, `last` is the last
    one's decoding time."""
    if not is_a(stream.container, "mp4") or last is None:
        return ""
    index = [entry.timestamp for entry in stream.index_entries if entry.size]
    lost = sum(timestamp > last for timestamp in index)
    if not lost or count >= len(index):
        return ""
    return f"the file ends early: {len(index) - lost} of {len(index)} frames are there"


def lacking_seconds(container: Any, stream: Any, ends: dict[int, int], longest: Fraction) -> str:
    """What a file that ends early lacks of the time that it announces. `longest` is a frame's time, in seconds.

    Nothing where it announces none (MPEG-TS, NUT, raw streams), or where its index of frames is known to be whole.
    """
    whole = Fraction(container.duration or 0, av.time_base)
    there = ends.get(stream.index, 0) * stream.time_base
    slack = 2 * longest  # the last frame's own time is often unknown, and rounded
    if is_a(container, "mp4") and stream.frames >= len(stream.index_entries):
        return ""
    if is_a(container, "avi"):
        announced = stream.frames * stream.time_base
    elif is_a(container, "matroska") and (tag := duration_tag(stream)):
        announced = min(tag, whole)  # a tag may be left from an earlier, longer file
    else:  # of the whole file, in which sound may go on after the video; not all who write it know it well
        announced, slack = whole, max(Fraction(1), whole / 20)
        there = max((end * container.streams[index].time_base for index, end in ends.items()), default=there)
    if announced - there <= slack:
        return ""
    return f"the file ends early: {float(there):.2f} of {float(announced):.2f} s are there"


def is_a(container: Any, name: str) -> bool:
    return name in container.format.name.split(",")


def duration_tag(stream: Any) -> Fraction | None:
    """Seconds at which a Matroska stream ends, as its statistics say; some muxers add a language to the tag's name."""
    for key, value in stream.metadata.items():
        parts = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", value)
        if parts and key.upper().split("-")[0] == "DURATION":
            return (int(parts[1]) * 60 + int(parts[2])) * 60 + Fraction(parts[3])
    return None


def first_frame(container: Any, stream: Any, path: Path) -> av.VideoFrame:
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    return frame
            except av.error.InvalidDataError:
                continue
    except av.error.FFmpegError as error:
        raise InputError(f"expected a video, nothing in {path} could be decoded: {reason(error)}") from None
    raise InputError(f"expected a video, nothing in {path} could be decoded")


def check_alpha(stream: Any, sample: av.VideoFrame) -> None:
    """Raises Refused for VP8 and VP9 with alpha, which FFmpeg's own decoders drop."""
    says = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode")
    if says == "1" and not any(part.is_alpha for part in sample.format.components):
        raise Refused(
            "the input's alpha (transparency) cannot be read here, so it cannot be kept; convert it first "
            "(ffmpeg -c:v libvpx-vp9 -i IN -c:v ffv1 -pix_fmt yuva420p OUT.mkv)"
        )


def read_frames(
    info: VideoInfo, warn: Warn = lambda _: None, threads: int = 0, since: int | None = None
) -> Iterator[PlanesFrame]:
    """Every frame, with its index and exact time; `since` a time (pts) only those from the key frame before it.

    A frame that the file has and that cannot be decoded is reported, and a repetition of the one before stands in its
    place, so that frames and times stay whole. Before the first that can be decoded there is none to repeat: what is
    missing there is only reported. Raises Refused where the picture's size or format changes on the way.

    With `since` there may be no frames at all: where the container does not find the key frame, or it is damaged.
    """
    if info.lacking:
        warn(info.lacking)
    with open_input(info.path) as container:
        stream = container.streams[info.stream]
        stream.thread_type = "SLICE" if info.codec in CHECKSUMS else "AUTO"
        stream.codec_context.thread_count = threads
        last: av.VideoFrame | None = None
        expected = 0  # place in info.pts of the frame that should come next
        wrong: set[int | None] = set()
        for frame in (
            decoded(container.demux(stream), stream, warn, wrong)
            if since is None
            else decoded_since(since, info, container, stream, warn, wrong)
        ):
            stored = info.container == "avi" and info.codec in REORDERED and stream.codec_context.has_b_frames
            if frame.pts is None or (stored and last is not None):
                frame.pts = info.pts[min(expected, info.frames - 1)]
            index = info.index_of(frame.pts)
            if (frame.width, frame.height, frame.format.name) != (info.width, info.height, info.pixel_format):
                raise Refused(
                    f"the picture changes at frame {index} from {info.width}x{info.height} {info.pixel_format} to "
                    f"{frame.width}x{frame.height} {frame.format.name}; split the video there first"
                )
            if last is None and index > 0 and since is None:
                warn(without_start(index, frame.pts * info.time_base))
            # frames that are coded as two fields have a packet for each: there a gap is no loss
            if last is not None and not frame.interlaced_frame:
                yield from stand_ins(last, info, expected, index, warn)
            if frame.is_corrupt or frame.pts in wrong:
                warn(f"frame {index} at {float(frame.pts * info.time_base):.3f} s is damaged in the input")
            last = frame
            yield PlanesFrame(frame, index)
            expected = index + 1
        if last is not None and not last.interlaced_frame:
            yield from stand_ins(last, info, expected, info.frames, warn)


def without_start(frames: int, seconds: Fraction) -> str:
    first = "frame cannot" if frames == 1 else f"{frames} frames cannot"
    return (
        f"the first {first} be decoded (damaged, or cut off from their key frame): missing in the output, which begins "
        f"at {float(seconds):.3f} s"
    )


def stand_ins(last: av.VideoFrame, info: VideoInfo, start: int, stop: int, warn: Warn) -> Iterator[PlanesFrame]:
    """Repetitions of a frame for the ones from start to stop, which were not decoded."""
    for index in range(start, stop):
        pts = info.pts[index]
        warn(f"frame {index} at {float(pts * info.time_base):.3f} s cannot be decoded; the one before stands in for it")
        yield PlanesFrame(repeated(last, pts), index)


def decoded_since(
    pts: int, info: VideoInfo, container: Any, stream: Any, warn: Warn, wrong: set[int | None]
) -> Iterator[av.VideoFrame]:
    """Frames from a key frame at or before a time on; none where that is not found, or cannot be decoded.

    Containers without an index seek to somewhere near, and a raw stream not at all. In MPEG-PS, where not every frame
    has a time of its own, the times may be others after a seek: then it is no key frame that the file was seen to have.
    """
    try:
        container.seek(pts, stream=stream, backward=True)
        packets = dropwhile(lambda packet: not packet.is_keyframe, container.demux(stream))
        key = next(packets, None)
    except av.error.FFmpegError:
        return
    if key is None or key.pts not in info.keys or key.pts > pts:
        return
    frames = decoded(chain((key,), packets), stream, warn, wrong)
    # shown before the key frame though stored after it: these need frames that were not read
    frames = dropwhile(lambda frame: frame.pts is not None and frame.pts < key.pts, frames)
    first = next(frames, None)
    if first is not None and first.pts == key.pts:
        yield first
        yield from frames


def decoded(packets: Iterator[Any], stream: Any, warn: Warn, wrong: set[int | None]) -> Iterator[av.VideoFrame]:
    """Frames as the decoder gives them; packets that it rejects are passed over.

    Codecs with checksums mend a bad part silently and only log it: the times of such packets are added to `wrong`.
    """
    checked = stream.codec_context.name in CHECKSUMS
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError as error:
            warn(f"the input ends early: {reason(error)}; what was read is kept")
            return
        try:
            if checked:
                with logged() as lines:
                    frames = packet.decode()
                if any("CRC mismatch" in text for _, _, text in lines):
                    wrong.add(packet.pts)
            else:
                frames = packet.decode()
        except av.error.InvalidDataError:
            continue  # which frames are lost shows in the times of those that come
        yield from frames


@contextmanager
def logged() -> Iterator[list[Any]]:
    """What FFmpeg logs meanwhile, at the level of errors."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as lines:
            yield lines
    finally:
        av.logging.set_level(level)


def repeated(frame: av.VideoFrame, pts: int) -> av.VideoFrame:
    """A copy of a frame at another time."""
    copy = av.VideoFrame(frame.width, frame.height, frame.format.name)
    planes: Any = zip(copy.planes, frame.planes, strict=True)
    for target, source in planes:
        rows = min(target.height, source.height)
        width = min(target.line_size, source.line_size)  # decoders pad their lines as they like
        to = np.frombuffer(target, np.uint8).reshape(-1, target.line_size)
        to[:rows, :width] = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)[:rows, :width]
    copy.pts, copy.time_base = pts, frame.time_base
    copy.colorspace, copy.color_range = frame.colorspace, frame.color_range
    copy.color_trc, copy.color_primaries = frame.color_trc, frame.color_primaries
    return copy
