"""The output container: encoded video and every other stream of the input, packet for packet, but for sound to change.

It is written under a temporary name, read back and compared, and only then given its final name.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import av.error
from av.sidedata.sidedata import Type as SideDataType

from ffmpeg_filters.carried import attach_cover, firsts, in_order, is_cover, nothing, remade, stale
from ffmpeg_filters.encoders import (
    EncodeOptions,
    Encoder,
    configure,
    open_encoder,
    pixel_format_for,
    sample_aspect_ratio,
)
from ffmpeg_filters.frames import plain, side_data
from ffmpeg_filters.kept import Told, lost, mov_language, muxer_options, rename_tags, titles, turned
from ffmpeg_filters.reader import VideoInfo, check_alpha, location, open_input, reason
from ffmpeg_filters.sound import Sound, common_rate
from ffmpeg_filters.spool import Coded, with_decoding_times
from ffmpeg_filters.voice import UNCHANGED, Voice, VoiceOptions, survey, voices_of
from restore_plugin.errors import NO_PLACE, InputError, OutputError, Refused, RestoreError

CONTAINER_OPTIONS = {"mpegts": {"mpegts_copyts": "1"}}
FORMATS = {".m4v": "mp4"}  # else FFmpeg's muxer for it is one that drops the tracks' titles
# which of .mp4 and .mov keep the sample aspect ratio of a codec that others tell none of; else both do
KEEP_ASPECT = {"ffv1": ".mp4", "vp9": ".mp4", "av1": ".mp4", "prores": ".mov", "vp8": "", "rawvideo": ""}
FIXED_RATE = {"avi"}  # containers that count frames and tell no times
RAW = {"h264", "hevc", "obu", "rawvideo"}  # "containers" of one bare stream
TRIED_FRAMES = 3  # the fewest that an encoder may store in another order than they are shown in


class Muxer:
    """Opens the output beside its final name; `finish` writes it, checks it and renames it."""

    def __init__(self, target: Path, info: VideoInfo, note: str, voice: VoiceOptions = UNCHANGED) -> None:
        self.target = target
        self.info = info
        self.note = note
        self.voice = voice
        self._told: Told | None = None  # what the last output opened must say
        self.part = target.with_name(f".{target.stem}.part{target.suffix}")

    def check(self, row: Encoder, options: EncodeOptions, sample: av.VideoFrame, extradata: bytes | None) -> None:
        """Write an output of the first packets of every stream, read it back, and remove it.

        Raises Refused for what the container cannot hold, OutputError for a folder that cannot be written, and what
        `survey` says of the sound.
        """
        try:
            with open_input(self.info.path) as source:
                check_alpha(source.streams[self.info.stream], sample)
                first = self._first(row, options, sample)
                times = [coded.pts for coded in first]
                output, video, others = self._open(source, row, options, sample, extradata)
                copied: Counter[int] = Counter()
                if output.format.name in FIXED_RATE and any(coded.dts < coded.pts for coded in first):
                    raise Refused(
                        f"{self.target.suffix} cannot hold frames out of the order in which they are shown, as "
                        f"{row.name} stores them; {self._elsewhere} or --codec"
                    )
                try:
                    with output:
                        for packet in firsts(source, others):
                            packet.stream = others[packet.stream_index]
                            copied[packet.stream.index] += 1
                            output.mux_one(packet)
                        for coded in with_decoding_times(first, times):
                            output.mux_one(self._packet(coded, video))
                except (av.error.FFmpegError, ValueError) as error:
                    raise self._failure(error) from None
            self._compare(Refused, sorted(times), video.index, copied, [])
        finally:
            self.part.unlink(missing_ok=True)

    def _first(self, row: Encoder, options: EncodeOptions, sample: av.VideoFrame) -> list[Coded]:
        """A plain picture of the size of `sample`, encoded at the times of the first frames."""
        encoder = open_encoder(row, options, self.info, sample, global_header=True)
        picture = plain(sample, encoder.pix_fmt)
        packets = []
        try:
            for picture.pts in self.info.pts[:TRIED_FRAMES]:
                packets += encoder.encode(picture)
            packets += encoder.encode()
        except av.error.FFmpegError as error:
            raise RestoreError(f"the encoder failed: {reason(error)}; try another --codec") from None
        return [Coded(p.pts, p.dts, self.info.gap_after(p.pts), p.is_keyframe, bytes(p)) for p in packets]

    @property
    def _elsewhere(self) -> str:
        mkv = self.target.suffix.lower() == ".mkv"
        return f"choose another container ({'.mp4 or .mov' if mkv else '.mkv holds nearly all'})"

    def _failure(self, error: Exception) -> RestoreError:
        """What a muxer's error at the first packets means."""
        if getattr(error, "errno", None) in NO_PLACE:
            return OutputError(
                f"{self.target} could not be written: {reason(error)}; free some space or choose another place with -o"
            )
        return Refused(f"{self.target.suffix} cannot hold these streams: {reason(error)}; {self._elsewhere}")

    def _check_said(self, kind: type[RestoreError], copied: Iterable[int]) -> None:
        assert self._told is not None
        try:
            missing = lost(self.part, self._told, [self._told.video, *copied])
        except InputError:
            raise kind(
                f"{self.target.suffix} cannot hold {self._told.pixel_format} pictures of this codec so that they can "
                f"be read back; {self._elsewhere}, --codec or --pix-fmt"
            ) from None
        if missing:
            instead = self._elsewhere
            if any("aspect" in name for name in missing):  # .mkv tells that of H.264 and the like alone
                keeping = KEEP_ASPECT.get(self._told.codec, ".mp4 or .mov")
                instead = f"choose {keeping} or --codec h264, where it is kept" if keeping else "choose --codec h264"
            raise kind(f"{self.target.suffix} does not keep {', '.join(missing)}; {instead}")

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
                    coded = with_decoding_times(packets, times)
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
            shift = self._compare(OutputError, sorted(times), video.index, copied, list(voices.values()))
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
        # AVI's first frame is at zero, whatever FFmpeg makes of its times when it reads them
        first = self.info.pts[0] if self.info.container == stream.container.format.name == "avi" else 0
        packet.pts, packet.dts, packet.duration = coded.pts - first, coded.dts - first, coded.duration
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
            output = av.open(location(self.part), "w", format=FORMATS.get(self.target.suffix.lower()))
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(
                f"{self.target} could not be written: {reason(error)}; choose another place with -o"
            ) from None
        except ValueError:
            raise Refused(
                f"{self.target.suffix or 'no suffix'} names no container; end the name in .mp4, .mkv, .mov or .webm"
            ) from None
        if output.format.name in RAW:
            output.close()
            raise Refused(
                f"{self.target.suffix} is a raw stream, which tells no times; choose a container, such as "
                f"-o {self.target.stem}.mkv"
            )
        if output.format.name in FIXED_RATE and not self.info.even:
            output.close()
            raise Refused(f"{self.target.suffix} cannot hold frames that follow each other unevenly; {self._elsewhere}")
        output.container_options.update(CONTAINER_OPTIONS.get(output.format.name, {}))
        if sounds and output.format.name in ("mov", "mp4"):  # else tracks that begin late do so on a whole millisecond
            output.container_options["movie_timescale"] = str(common_rate(sounds.values()))
        output.metadata.update({key: value for key, value in source.metadata.items() if not stale(key)})
        key = next((key for key in output.metadata if key.lower() == "comment"), "comment")
        said = output.metadata.get(key)
        output.metadata[key] = f"{said}; {self.note}" if said else self.note
        rename_tags(output.format.name, output.metadata)
        output.container_options.update(muxer_options(output.format.name, output.metadata))
        if chapters := source.chapters():
            output.set_chapters(chapters)
        others: dict[int, Any] = {}
        video = None
        for stream in in_order(source):
            if remade(stream, source):
                continue
            try:
                if stream.index == self.info.stream:
                    video = made = self._video(output, stream, row, options, sample, extradata)
                elif stream.type == "attachment":
                    made = output.add_attachment(
                        stream.name or "attachment", stream.mimetype or "application/octet-stream", stream.data
                    )
                elif is_cover(stream) and output.format.name == "matroska":
                    made = attach_cover(output, stream, self.info)
                elif stream.index in sounds:
                    made = others[stream.index] = sounds[stream.index].add_to(output)
                else:
                    made = others[stream.index] = output.add_stream_from_template(stream, opaque=True)
            except (ValueError, av.error.FFmpegError) as error:
                output.close()
                why = reason(error).replace(repr(row.name), repr(row.codec))
                raise Refused(
                    f"stream {stream.index} ({stream.type}) cannot be kept in {self.target.suffix}: {why}; "
                    f"{self._elsewhere}"
                ) from None
            made.metadata.update({key: value for key, value in stream.metadata.items() if not stale(key)})
            if output.format.name == "mov" and "language" in made.metadata:
                made.metadata["language"] = mov_language(made.metadata["language"])
            if "name" in stream.metadata:  # what MOV reads as a track's name it writes from its title
                made.metadata.setdefault("title", stream.metadata["name"])
            made.disposition = stream.disposition
            if stream.index in sounds:
                made.time_base = Fraction(1, sounds[stream.index].rate)
            elif stream.index in others:
                made.time_base = stream.time_base
        assert video is not None
        self._told = Told(
            row.codec,
            pixel_format_for(row, options, self.info),
            (self.info.width, self.info.height),
            sample_aspect_ratio(self.info),
            turned(sample),
            {key: value for key, value in source.metadata.items() if not stale(key)},
            titles(source),
            {stream.index: dict(stream.metadata) for stream in output.streams},
            video.index,
            sum(map(is_cover, source.streams)),
        )
        try:
            output.start_encoding()
        except (av.error.FFmpegError, ValueError) as error:
            raise self._failure(error) from None
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
        if row.codec == self.info.codec and not row.tagged:
            made = output.add_stream_from_template(stream, opaque=True)
            made.codec_context.extradata = extradata
            made.codec_context.pix_fmt = pixel_format_for(row, options, self.info)
            made.codec_context.framerate = self.info.rate
            made.codec_context.sample_aspect_ratio = sample_aspect_ratio(self.info)
            if stream.codec_context.codec_tag == "hvc1" and self.target.suffix.lower() in (".mp4", ".mov", ".m4v"):
                made.codec_context.codec_tag = "hvc1"
        else:
            made = output.add_stream(row.name, rate=self.info.rate.limit_denominator(100_000))
            configure(made.codec_context, row, options, self.info, sample, header=True, threads=1)
        made.time_base = 1 / self.info.rate if output.format.name in FIXED_RATE else stream.time_base
        matrix = side_data(sample).get(SideDataType.DISPLAYMATRIX)
        if matrix is not None:
            data = bytes(matrix)
            made.set_display_matrix([int.from_bytes(data[i : i + 4], "little", signed=True) for i in range(0, 36, 4)])
        return made

    def _compare(
        self, kind: type[RestoreError], times: list[int], video: int, copied: Counter[int], voices: list[Voice]
    ) -> float:
        """Read the output back: what it says of itself must be what it was told, every frame and every copied packet
        must be there, every frame at its time. Else raises `kind`.
        Sound that was changed has other packets: it must begin and end when it did.

        A container without times before zero moves all streams alike; returns by how many seconds it did.
        """
        self._check_said(kind, copied)
        found: list[Fraction | None] = []
        counts: Counter[int] = Counter()
        heard: dict[int, tuple[Fraction, Fraction]] = {}  # begin and end in seconds
        with open_input(self.part) as container:
            for packet in container.demux():
                if packet.stream_index != video:
                    counts[packet.stream_index] += not nothing(packet)
                    if packet.size and packet.pts is not None:
                        begin = packet.pts * packet.time_base
                        end = begin + (packet.duration or 0) * packet.time_base
                        before = heard.get(packet.stream_index, (begin, end))
                        heard[packet.stream_index] = min(before[0], begin), max(before[1], end)
                elif packet.size and not packet.is_discard:
                    found.append(packet.pts * packet.time_base if packet.pts is not None else None)
            tick = container.streams[video].time_base or self.info.time_base
        expected = [time * self.info.time_base for time in times]
        if len(found) != len(expected):
            raise kind(
                f"{self.target} was not written: {len(expected)} frames in, {len(found)} out; please report this"
            )
        known = [when for when in found if when is not None]
        if len(known) < len(found):
            raise kind(
                f"{self.target} was not written: {self.target.suffix} tells no times of frames that are stored in "
                f"another order than they are shown in, or of none at all; {self._elsewhere}"
            )
        # a container chosen by the user may have a coarser clock than the input's (Matroska: 1 ms)
        slack = tick if tick > self.info.time_base else Fraction(0)
        if container.format.name in FIXED_RATE:  # which round nothing: a frame is in its place, or one is missing
            slack = 2 * self.info.time_base
        shifts = [a - b for a, b in zip(sorted(known), expected, strict=True)]
        if max(shifts) - min(shifts) > slack:
            raise kind(
                f"{self.target} was not written: {self.target.suffix} cannot hold the times of these frames; "
                f"{self._elsewhere}"
            )
        for index in (index for index, count in copied.items() if counts[index] < count):
            if kind is Refused:
                raise kind(f"{self.target.suffix} cannot hold the packets of stream {index}; {self._elsewhere}")
            raise kind(
                f"{self.target} was not written: packets of stream {index} were lost in {self.target.suffix}; "
                "please report this"
            )
        for voice in voices:
            if not voice.kept(heard.get(voice.stream_index), shifts[0], slack + tick):
                raise kind(
                    f"{self.target} was not written: audio track {voice.sound.stream} lost sound in "
                    f"{self.target.suffix}; please report this"
                )
        return float(shifts[0]) if abs(shifts[0]) > slack else 0.0
