"""What goes from the input to the output as it is: streams, packets and tags, and which of them do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import av
import av.error
from av.stream import Disposition

from ffmpeg_filters.reader import VideoInfo, open_input

# written by muxers for their own file: a copy would be wrong
STALE = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
STALE_PREFIXES = ("_STATISTICS", "BPS", "NUMBER_OF_", "DURATION")


def nothing(packet: av.Packet[Any]) -> bool:
    """A demuxer's end mark, or an empty MP4 subtitle, which its muxer makes by itself."""
    return (packet.size == 0 and packet.dts is None) or (packet.size == 2 and bytes(packet) == b"\0\0")


def firsts(source: Any, streams: Iterable[int]) -> Iterator[av.Packet[Any]]:
    """The first packet of each stream, as far as the file can be read."""
    waiting = set(streams)
    try:
        for packet in source.demux([source.streams[index] for index in waiting]) if waiting else ():
            if packet.stream_index in waiting and not nothing(packet):
                waiting.remove(packet.stream_index)
                yield packet
            if not waiting:
                return
    except av.error.FFmpegError:
        return


def remade(stream: Any, source: Any) -> bool:
    """Tracks of MP4 and MOV that their muxer writes anew from what it is told: chapter names, time codes."""
    if stream.type != "data" or "mov" not in source.format.name:
        return False
    tag = stream.codec_tag if stream.codec_context is not None else ""
    time_code = any("timecode" in other.metadata for other in source.streams.video)
    return (bool(source.chapters()) and tag in ("text", "")) or (time_code and tag in ("tmcd", ""))


def stale(key: str) -> bool:
    return key in STALE or key.startswith(STALE_PREFIXES)


def is_cover(stream: Any) -> bool:
    """Whether a stream is one picture beside the file's content; pictures of chapters are many."""
    return bool(stream.disposition & Disposition.attached_pic) and not stream.disposition & Disposition.timed_thumbnails


def in_order(source: Any) -> list[Any]:
    """Its streams, those last that Matroska writes as attachments: it numbers these after all tracks."""
    return sorted(source.streams, key=lambda stream: stream.type == "attachment" or is_cover(stream))


def attach_cover(output: Any, stream: Any, info: VideoInfo) -> Any:
    """A cover picture as Matroska has it: an attachment, with the name and type that it had in one."""
    kind = "jpeg" if stream.codec_context.name == "mjpeg" else stream.codec_context.name
    name = stream.metadata.get("filename", f"cover.{'jpg' if kind == 'jpeg' else kind}")
    with open_input(info.path) as source:
        data = next((bytes(packet) for packet in source.demux(source.streams[stream.index]) if packet.size), b"")
    return output.add_attachment(name, stream.metadata.get("mimetype", f"image/{kind}"), data)
