"""The output container: encoded video and every other stream of the input, packet for packet, but for sound to change.

It is written under a temporary name, read back and compared, and only then given its final name.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import av.error
from av.sidedata.sidedata import Type as SideDataType

from ffmpeg_filters.encoders import EncodeOptions, Encoder, configure, pixel_format_for, side_data
from ffmpeg_filters.reader import VideoInfo, open_input, reason
from ffmpeg_filters.sound import Sound, common_rate
from ffmpeg_filters.spool import Coded
from ffmpeg_filters.voice import UNCHANGED, Voice, VoiceOptions, survey, voices_of
from restore_plugin.errors import OutputError, Refused

# written by muxers for their own file: a copy would be wrong
STALE = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
STALE_PREFIXES = ("_STATISTICS", "BPS", "NUMBER_OF_", "DURATION")
CONTAINER_OPTIONS = {"mpegts": {"mpegts_copyts": "1"}}


class Muxer:
    """Opens the output beside its final name; `finish` writes it, checks it and renames it."""

    def __init__(self, target: Path, info: VideoInfo, note: str, voice: VoiceOptions = UNCHANGED) -> None:
        self.target = target
        self.info = info
        self.note = note
        self.voice = voice
        self.part = target.with_name(f".{target.stem}.part{target.suffix}")

    def check(self, row: Encoder, options: EncodeOptions, sample: av.VideoFrame, extradata: bytes | None) -> None:
        """Write the header alone, and remove it: raises Refused for what the container cannot hold, OutputError for a
        folder that cannot be written, and what `survey` says of the sound. Nothing is left behind."""
        try:
            with open_input(self.info.path) as source:
                output, _, _ = self._open(source, row, options, sample, extradata)
                output.close()
        finally:
            self.part.unlink(missing_ok=True)

    def finish(
        self,
        packets: Iterable[Coded],
        times: list[int],
        row: Encoder,
        options: EncodeOptions,
        sample: av.VideoFrame,
        extradata: bytes | None,
    ) -> float:
        """`packets` in decoding order; `times` are their pts in that order. Returns by how many seconds the container
        had to move all times (0 nearly always). Raises OutputError; then nothing is left."""
        try:
            with open_input(self.info.path) as source:
                output, video, others = self._open(source, row, options, sample, extradata)
                copied: Counter[int] = Counter()
                voices = voices_of(self._sounds, self.voice, self.info, others)
                with output:
                    coded = _with_decoding_times(packets, times)
                    pending = next(coded, None)
                    for packet in source.demux([source.streams[index] for index in others]) if others else ():
                        voice = voices.get(packet.stream_index)
                        if nothing(packet) and voice is None:
                            continue
                        when = packet.dts if packet.dts is not None else packet.pts
                        seconds = None if when is None else when * packet.time_base
                        while pending and (seconds is None or pending.dts * self.info.time_base <= seconds):
                            output.mux_one(self._packet(pending, video))
                            pending = next(coded, None)
                        if voice is not None:
                            output.mux(voice.change(packet))
                            continue
                        packet.stream = others[packet.stream_index]
                        copied[packet.stream.index] += 1
                        output.mux_one(packet)
                    for voice in voices.values():
                        output.mux(voice.end())
                    while pending:
                        output.mux_one(self._packet(pending, video))
                        pending = next(coded, None)
            shift = self._compare(sorted(times), video.index, copied, list(voices.values()))
            with self.part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.part, self.target)
            return shift
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(
                f"{self.target} could not be written: {reason(error)}; free some space or choose another place"
            ) from None
        finally:
            self.part.unlink(missing_ok=True)

    def _packet(self, coded: Coded, stream: Any) -> av.Packet[Any]:
        packet: av.Packet[Any] = av.Packet(coded.data)
        packet.pts, packet.dts, packet.duration = coded.pts, coded.dts, coded.duration
        packet.time_base = self.info.time_base
        packet.is_keyframe = coded.key
        packet.stream = stream
        return packet

    @cached_property
    def _sounds(self) -> dict[int, Sound]:
        return survey(self.info, self.voice)

    def _open(
        self, source: Any, row: Encoder, options: EncodeOptions, sample: av.VideoFrame, extradata: bytes | None
    ) -> tuple[Any, Any, dict[int, Any]]:
        """The output with its header written; its video stream; the other streams by the input's index."""
        sounds = self._sounds
        self.part.unlink(missing_ok=True)
        try:
            output = av.open(str(self.part), "w")
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(
                f"{self.target} could not be written: {reason(error)}; choose another place with -o"
            ) from None
        except ValueError:
            raise Refused(
                f"{self.target.suffix or 'no suffix'} names no container; end the name in .mp4, .mkv, .mov or .webm"
            ) from None
        output.container_options.update(CONTAINER_OPTIONS.get(output.format.name, {}))
        if sounds and output.format.name in ("mov", "mp4"):  # else tracks that begin late do so on a whole millisecond
            output.container_options["movie_timescale"] = str(common_rate(sounds.values()))
        output.metadata.update({key: value for key, value in source.metadata.items() if not _stale(key)})
        key = next((key for key in output.metadata if key.lower() == "comment"), "comment")
        said = output.metadata.get(key)
        output.metadata[key] = f"{said}; {self.note}" if said else self.note
        if chapters := source.chapters():
            output.set_chapters(chapters)
        others: dict[int, Any] = {}
        video = None
        for stream in source.streams:
            if remade(stream, source):
                continue
            try:
                if stream.index == self.info.stream:
                    video = made = self._video(output, stream, row, options, sample, extradata)
                elif stream.type == "attachment":
                    made = output.add_attachment(
                        stream.name or "attachment", stream.mimetype or "application/octet-stream", stream.data
                    )
                elif stream.index in sounds:
                    made = others[stream.index] = sounds[stream.index].add_to(output)
                else:
                    made = others[stream.index] = output.add_stream_from_template(stream, opaque=True)
            except (ValueError, av.error.FFmpegError) as error:
                output.close()
                raise Refused(
                    f"stream {stream.index} ({stream.type}) cannot be kept in {self.target.suffix}: {reason(error)}; "
                    "choose another container (.mkv holds nearly all)"
                ) from None
            made.metadata.update({key: value for key, value in stream.metadata.items() if not _stale(key)})
            if "name" in stream.metadata:  # what MOV reads as a track's name it writes from its title
                made.metadata.setdefault("title", stream.metadata["name"])
            made.disposition = stream.disposition
            if stream.index in sounds:
                made.time_base = Fraction(1, sounds[stream.index].rate)
            elif stream.index != self.info.stream and stream.type != "attachment":
                made.time_base = stream.time_base
        try:
            output.start_encoding()
        except (av.error.FFmpegError, ValueError) as error:
            raise Refused(
                f"{self.target.suffix} cannot hold these streams: {reason(error)}; .mkv holds nearly all"
            ) from None
        return output, video, others

    def _video(
        self,
        output: Any,
        stream: Any,
        row: Encoder,
        options: EncodeOptions,
        sample: av.VideoFrame,
        extradata: bytes | None,
    ) -> Any:
        if row.codec == self.info.codec:
            made = output.add_stream_from_template(stream, opaque=True)
            made.codec_context.extradata = extradata
            made.codec_context.pix_fmt = pixel_format_for(row, options, self.info)
            made.codec_context.framerate = self.info.rate
            if stream.codec_context.codec_tag == "hvc1" and self.target.suffix.lower() in (".mp4", ".mov", ".m4v"):
                made.codec_context.codec_tag = "hvc1"
        else:
            made = output.add_stream(row.name, rate=self.info.rate.limit_denominator(100_000))
            configure(made.codec_context, row, options, self.info, sample, header=True, threads=1)
        made.time_base = stream.time_base
        matrix = side_data(sample).get(SideDataType.DISPLAYMATRIX)
        if matrix is not None:
            data = bytes(matrix)
            made.set_display_matrix([int.from_bytes(data[i : i + 4], "little", signed=True) for i in range(0, 36, 4)])
        return made

    def _compare(self, times: list[int], video: int, copied: Counter[int], voices: list[Voice]) -> float:
        """Read the output's packets back: every frame and every copied packet must be there, every frame at its time.
        Sound that was changed has other packets: it must begin and end when it did.

        A container without times before zero moves all streams alike; returns by how many seconds it did.
        """
        found: list[Fraction] = []
        counts: Counter[int] = Counter()
        heard: dict[int, tuple[Fraction, Fraction]] = {}  # begin and end in seconds
        with av.open(str(self.part), metadata_errors="replace") as container:
            for packet in container.demux():
                if packet.stream_index != video:
                    counts[packet.stream_index] += not nothing(packet)
                    if packet.size and packet.pts is not None:
                        begin = packet.pts * packet.time_base
                        end = begin + (packet.duration or 0) * packet.time_base
                        known = heard.get(packet.stream_index, (begin, end))
                        heard[packet.stream_index] = min(known[0], begin), max(known[1], end)
                elif packet.size and not packet.is_discard:
                    found.append(packet.pts * packet.time_base if packet.pts is not None else Fraction(-1))
            tick = container.streams[video].time_base or self.info.time_base
        expected = [time * self.info.time_base for time in times]
        if len(found) != len(expected):
            raise OutputError(
                f"{self.target} was not written: {len(expected)} frames in, {len(found)} out; please report this"
            )
        # a container chosen by the user may have a coarser clock than the input's (Matroska: 1 ms)
        slack = tick if tick > self.info.time_base else Fraction(0)
        shifts = [a - b for a, b in zip(sorted(found), expected, strict=True)]
        if max(shifts) - min(shifts) > slack:
            raise OutputError(
                f"{self.target} was not written: {self.target.suffix} cannot hold the times of these frames; "
                "choose another container"
            )
        if any(counts[index] < count for index, count in copied.items()):
            raise OutputError(
                f"{self.target} was not written: packets of other streams were lost in {self.target.suffix}; "
                "please report this"
            )
        for voice in voices:
            if not voice.kept(heard.get(voice.stream_index), shifts[0], slack + tick):
                raise OutputError(
                    f"{self.target} was not written: audio track {voice.sound.stream} lost sound in "
                    f"{self.target.suffix}; please report this"
                )
        return float(shifts[0]) if abs(shifts[0]) > slack else 0.0


def nothing(packet: av.Packet[Any]) -> bool:
    """A demuxer's end mark, or an empty MP4 subtitle, which its muxer makes by itself."""
    return (packet.size == 0 and packet.dts is None) or (packet.size == 2 and bytes(packet) == b"\0\0")


def remade(stream: Any, source: Any) -> bool:
    """Tracks of MP4 and MOV that their muxer writes anew from what it is told: chapter names, time codes."""
    if stream.type != "data" or "mov" not in source.format.name:
        return False
    tag = stream.codec_tag if stream.codec_context is not None else ""
    time_code = any("timecode" in other.metadata for other in source.streams.video)
    return (bool(source.chapters()) and tag in ("text", "")) or (time_code and tag in ("tmcd", ""))


def _stale(key: str) -> bool:
    return key in STALE or key.startswith(STALE_PREFIXES)


def _with_decoding_times(packets: Iterable[Coded], times: list[int]) -> Iterator[Coded]:
    """The decoding times of one stream that was encoded in parts: as late as each packet's place allows.

    `times` are the packets' pts in decoding order. With the sorted times s and the largest displacement d of a packet,
    packet i is decoded at s[i - d]: increasing, and never after it is shown. The first d come before s[0], as far apart
    as the first frames are.
    """
    ordered = sorted(times)
    place = {time: index for index, time in enumerate(ordered)}
    delay = max((index - place[time] for index, time in enumerate(times)), default=0)
    lead = ordered[delay] - ordered[0] if ordered else 0
    for index, packet in enumerate(packets):
        dts = ordered[index - delay] if index >= delay else ordered[index] - lead
        yield Coded(packet.pts, dts, packet.duration, packet.key, packet.data)
