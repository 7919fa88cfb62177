"""Sound beside a hidden face: spans of time silenced, voices shifted in pitch. Every audio track alike.

Sound that is changed is decoded and encoded again as a whole, with the track's own codec, also where nothing is muted;
tracks are copied packet for packet where nothing is asked. Every sample keeps its time.

- Silence is exact: what lies inside a span is zero before it is encoded, and before it is shifted, so that nothing of
  it is left in the file. The fades, 5 ms each, lie outside.
- A shifted pitch disguises a voice from listeners. It is no protection against somebody who means to undo it: words,
  rhythm and accent stay, a constant shift is undone by shifting back, and the slow random wander around it (see
  `pitch.Wander`) only makes that more work. Mute where it matters.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, cast

import av
import av.error
import numpy as np

from ffmpeg_filters.pitch import PitchShifter, Samples, Wander
from ffmpeg_filters.reader import VideoInfo, open_input
from ffmpeg_filters.sound import Sound, bit_rate_for, sound_of, to_float, to_values, try_out
from restore_plugin.errors import InputError, OutputError, Refused

FADE_SECONDS = 0.005
CLOCK_SECONDS = 0.002  # packet times are this inexact (Matroska counts milliseconds): the samples' count is trusted
STEP_SECONDS = 0.005  # up to here a recorder's clock was set right: the packets' times are, too
GAP_SECONDS = 0.1  # from here a gap in the sound stays a gap; shorter ones are filled with silence

TELL_DELAY = {"mov", "mp4", "ipod", "3gp", "3g2", "psp", "f4v", "matroska", "webm"}  # say what a decoder has to drop


@dataclass(frozen=True)
class VoiceOptions:
    """What a user may ask of the sound.

    `mute`: (start, end) in seconds from the video's first frame; a span from 0 takes in what is heard before it, one to
    the video's end what is heard after. `pitch`: semitones, -12 to 12. `wander`: by how many semitones the shift goes
    slowly up and down around that, at random; 0 for a constant shift.
    """

    mute: tuple[tuple[float, float], ...] = ()
    pitch: float = 0.0
    wander: float = 1.0

    @property
    def changes(self) -> bool:
        return bool(self.mute) or self.pitch != 0


UNCHANGED = VoiceOptions()


def survey(info: VideoInfo, options: VoiceOptions) -> dict[int, Sound]:
    """The audio tracks that have to be encoded again, by stream. Reads all their packets once, and decodes the first.

    Raises InputError for options that do not fit the file, Refused for a track that cannot be encoded again.
    """
    if not options.changes:
        return {}
    if not -12 <= options.pitch <= 12:
        raise InputError(f"expected a pitch of -12 to 12 semitones, got {options.pitch:g}")
    if not 0 <= options.wander <= 2:
        raise InputError(f"expected a pitch that wanders by 0 to 2 semitones, got {options.wander:g}")
    found: dict[int, Sound] = {}
    sizes: dict[int, int] = {}
    lengths: dict[int, Fraction] = {}
    ends: dict[int, Fraction] = {}
    video_end = info.pts[0] * info.time_base + Fraction(info.seconds)
    with open_input(info.path) as source:
        streams = source.streams.audio
        if not streams:
            raise InputError(f"{info.path} holds no sound to mute or to shift; leave --mute and --pitch out")
        for stream in streams:
            if stream.codec_context is None:
                raise Refused(
                    f"audio track {stream.index} of {info.path} is in a codec not known here; convert it first"
                )
        try:
            for packet in source.demux(streams):
                index = packet.stream_index
                if packet.size:
                    sizes[index] = sizes.get(index, 0) + packet.size
                    lengths[index] = lengths.get(index, Fraction(0)) + (packet.duration or 0) * packet.time_base
                    if packet.pts is not None:
                        ends[index] = (packet.pts + (packet.duration or 0)) * packet.time_base
                if index in sizes and index not in found:
                    for frame in _decoded(packet):
                        found[index] = sound_of(packet.stream, frame)
                        break
        except av.error.FFmpegError:
            pass  # a file that ends early
        for index in sizes:
            if index not in found:
                raise Refused(f"nothing in audio track {index} of {info.path} can be decoded; remove it from the file")
            sound, exact = found[index], source.streams[index].time_base == Fraction(1, found[index].rate)
            found[index] = replace(
                sound,
                bit_rate=bit_rate_for(sound, sizes[index], lengths[index]),
                end_pts=round(ends[index] * sound.rate) if exact and index in ends else None,
            )
    check_spans(options, float(max([video_end, *ends.values()])) - info.start_seconds)
    return {index: try_out(sound) for index, sound in found.items()}


def check_spans(options: VoiceOptions, length_seconds: float) -> None:
    for start, end in options.mute:
        if not 0 <= start < end or start >= length_seconds:
            raise InputError(
                f"expected --mute t0-t1 within the file's {length_seconds:.2f} s, t0 before t1, got {start:g}-{end:g}"
            )


def _decoded(packet: av.Packet[Any]) -> list[av.AudioFrame]:
    """Raises nothing for a damaged packet: it is a gap in the sound."""
    try:
        return cast("list[av.AudioFrame]", packet.decode())
    except av.error.FFmpegError:
        return []


class Silence:
    """The spans to mute, on one track's count of samples."""

    def __init__(self, options: VoiceOptions, info: VideoInfo, rate: int) -> None:
        first = info.pts[0] * info.time_base
        self._fade = max(1, round(FADE_SECONDS * rate))
        self._spans = [
            (
                math.floor((first + Fraction(start)) * rate) if start > 0 else -math.inf,
                math.ceil((first + Fraction(end)) * rate) if end < info.seconds else math.inf,
            )
            for start, end in options.mute
        ]

    def on(self, samples: Samples, pts: int) -> Samples:
        """(channels, n), the first of them sample number pts; those outside of spans and fades are not touched."""
        count = samples.shape[1]
        rest = 128 if samples.dtype == np.uint8 else 0
        for start, end in self._spans:
            if start - self._fade < pts + count and pts < end + self._fade:
                at = np.arange(pts, pts + count)
                gain = np.clip(np.maximum(start - at, at + 1 - end) / self._fade, 0, 1)
                touched = gain < 1
                faded = (samples[:, touched] - float(rest)) * gain[touched] + rest
                samples = samples.copy()
                samples[:, touched] = np.rint(faded) if samples.dtype.kind in "iu" else faded
        return samples


class Segment:
    """Sound without a gap, through an encoder of its own."""

    def __init__(self, sound: Sound, silence: Silence, shifter: PitchShifter | None, stream: Any, pts: int) -> None:
        self._sound, self._silence, self._shifter, self._stream = sound, silence, shifter, stream
        self._encoder = sound.open(stream.codec_context.flags & int(av.codec.context.Flags.global_header))
        self._waiting: deque[tuple[int, int]] = deque()  # (pts, samples) of what is inside the shifter
        self._shifted: Samples | None = None
        self._start, self.end_pts = pts, pts
        self._drops = False

    def lead(self) -> Iterator[av.Packet[Any]]:
        """For containers that cannot say that a decoder drops the encoder's delay, nor begin before zero.

        Silence in front makes the delay whole packets, and these are left out.
        """
        missing = -self._sound.delay_samples % self._sound.frame_samples if self._sound.frame_samples else 0
        self._drops = True
        if missing:
            silence = to_values(np.zeros((self._sound.channels, missing)), self._sound.values)
            yield from self._encode(silence, self._start - missing)

    def feed(self, samples: Samples, pts: int) -> Iterator[av.Packet[Any]]:
        samples = self._silence.on(to_values(samples, self._sound.values), pts)
        self.end_pts = pts + samples.shape[1]
        if self._shifter is None:
            yield from self._encode(samples, pts)
        else:
            self._waiting.append((pts, samples.shape[1]))
            yield from self._encode_shifted(self._shifter.feed(to_float(samples)))

    def end(self) -> Iterator[av.Packet[Any]]:
        if self.end_pts == self._start:
            return
        if self._shifter is not None:
            yield from self._encode_shifted(self._shifter.end())
        yield from self._own(self._encoder.encode())

    def _encode_shifted(self, samples: Samples) -> Iterator[av.Packet[Any]]:
        ready = samples if self._shifted is None else np.concatenate((self._shifted, samples), axis=1)
        while self._waiting and self._waiting[0][1] <= ready.shape[1]:
            pts, count = self._waiting.popleft()
            values = to_values(ready[:, :count], self._sound.values)
            yield from self._encode(self._silence.on(values, pts), pts)  # again: grains reach across the edges
            ready = ready[:, count:]
        self._shifted = ready

    def _encode(self, samples: Samples, pts: int) -> Iterator[av.Packet[Any]]:
        yield from self._own(self._encoder.encode(self._sound.frame(samples, pts)))

    def _own(self, packets: list[av.Packet[Any]]) -> Iterator[av.Packet[Any]]:
        for packet in packets:
            if packet.size and packet.pts is not None:
                before = self._drops and packet.pts < self._start
                after = not packet.duration and packet.pts >= self.end_pts
                if before or after:
                    continue
            packet.stream = self._stream
            self._round_down(packet)
            yield packet

    def _round_down(self, packet: av.Packet[Any]) -> None:
        """A time half way between two ticks of a coarse clock moves down: it moved up when the input was written."""
        if self._stream.time_base > packet.time_base and packet.pts is not None and packet.dts is not None:
            packet.pts, packet.dts, packet.duration = 8 * packet.pts - 1, 8 * packet.dts - 1, 8 * (packet.duration or 0)
            packet.time_base /= 8


class Voice:
    """One audio track on its way through `finish`: packets in, packets out."""

    def __init__(self, sound: Sound, options: VoiceOptions, info: VideoInfo, stream: Any, wander: Wander) -> None:
        self.sound, self._options, self._stream, self._wander = sound, options, stream, wander
        self._silence = Silence(options, info, sound.rate)
        self._tells_delay = stream.container.format.name in TELL_DELAY
        self._segment: Segment | None = None
        self._resampler: Any = None
        self._taken: tuple[str, str, int] | None = None  # format, layout, rate that the resampler takes
        self.start_pts: int | None = None

    @property
    def stream_index(self) -> int:
        """Of the output."""
        return int(self._stream.index)

    def kept(self, heard: tuple[Fraction, Fraction] | None, shift: Fraction, slack: Fraction) -> bool:
        """Whether the output's packets begin and end (seconds) when the sound did, to a codec's frame and delay.

        `shift`: by how much the container moved all times; `slack`: how exactly it tells them.
        """
        if self.start_pts is None or self._segment is None:
            return heard is None
        if heard is None:
            return False
        slack += Fraction(self.sound.frame_samples + self.sound.delay_samples, self.sound.rate)
        begin, end = Fraction(self.start_pts, self.sound.rate), Fraction(self._segment.end_pts, self.sound.rate)
        return abs(heard[0] - shift - begin) <= slack and abs(heard[1] - shift - end) <= slack

    def change(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]:
        """What comes out for one packet of the input; its demuxer's end mark gets the rest out of the decoder."""
        for decoded in _decoded(packet):
            for frame in self._alike(decoded):
                if frame.samples:
                    yield from self._place(frame)

    def end(self) -> Iterator[av.Packet[Any]]:
        if self._segment is not None:
            yield from self._segment.end()

    def _alike(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """With the layout and rate that the track began with: broadcasts change between stereo and surround."""
        taken = (frame.format.name, frame.layout.name, frame.sample_rate)
        if taken != self._taken:
            self._taken = taken
            self._resampler = av.AudioResampler(frame.format.name, self.sound.layout, self.sound.rate)
        return cast("list[av.AudioFrame]", self._resampler.resample(frame))

    def _place(self, frame: av.AudioFrame) -> Iterator[av.Packet[Any]]:
        """Feed a frame at its time, which is the count of samples unless the packets' times say clearly otherwise."""
        rate = self.sound.rate
        array = frame.to_ndarray()
        samples = array if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels).T
        clock = self._segment.end_pts if self._segment else 0
        pts = clock if frame.pts is None or frame.time_base is None else round(frame.pts * frame.time_base * rate)
        gap = max(round(GAP_SECONDS * rate), 4 * self.sound.frame_samples)
        late = pts - clock
        if self._segment is None or late >= gap:
            yield from self._begin(pts)
        elif late < -gap:
            raise OutputError(
                f"audio track {self.sound.stream} goes back by {-late / rate:.2f} s at {clock / rate:.2f} s, so it "
                "cannot be changed in its place; rewrap the input (ffmpeg -c copy), or leave --mute and --pitch out"
            )
        elif abs(late) <= CLOCK_SECONDS * rate:
            pts = clock
        elif late > STEP_SECONDS * rate:
            yield from self._feed(to_values(np.zeros((len(samples), late), np.float32), samples.dtype), clock)
        elif late < -STEP_SECONDS * rate:
            samples, pts = samples[:, -late:], clock
        if self.sound.end_pts is not None:  # a decoder gives whole frames, also of the last packet
            samples = samples[:, : max(0, self.sound.end_pts - pts)]
        if samples.shape[1]:
            yield from self._feed(samples, pts)

    def _feed(self, samples: Samples, pts: int) -> Iterator[av.Packet[Any]]:
        assert self._segment is not None
        yield from self._segment.feed(samples, pts)

    def _begin(self, pts: int) -> Iterator[av.Packet[Any]]:
        yield from self.end()
        sound, options = self.sound, self._options
        if self.start_pts is None:
            self.start_pts = pts
        shifter = None
        if options.pitch:

            def semitones(seconds: float) -> float:
                return self._wander(max(0.0, seconds + pts / sound.rate))

            largest = options.pitch + options.wander
            shifter = PitchShifter(sound.channels, sound.rate, semitones, largest)
        self._segment = Segment(sound, self._silence, shifter, self._stream, pts)
        if not self._tells_delay and pts < sound.delay_samples:
            yield from self._segment.lead()


def voices_of(
    sounds: dict[int, Sound], options: VoiceOptions, info: VideoInfo, streams: dict[int, Any]
) -> dict[int, Voice]:
    """For the output's streams by the input's index; all of them wander alike."""
    wander = Wander(options.pitch, options.wander)
    return {index: Voice(sound, options, info, streams[index], wander) for index, sound in sounds.items()}
