"""What a written file says of itself, read back and compared with what it was told: containers drop much in silence."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.sidedata.sidedata import Type as SideDataType

from ffmpeg_filters.carried import is_cover
from ffmpeg_filters.frames import side_data
from ffmpeg_filters.reader import first_frame, open_input
from restore_plugin.errors import InputError

# tags of files that their muxers write, rename or round by themselves
OWN = {"creation_time", "encoder", "software", "duration", "handler_name", "vendor_id"}
TRACK_TAGS = ("language", "title")

# tags that these muxers write where players look for them (of FFmpeg's libavformat/movenc.c: mov_write_ilst_tag,
# mov_write_udta_tag); beside any other they have to write all of them elsewhere
MP4_TAGS = (
    "title artist album_artist album composer date comment genre copyright grouping description synopsis show network "
    "keywords track disc lyrics location media_type episode_id episode_sort season_number hd_video gapless_playback "
    "compilation"
)
MOV_TAGS = "title artist album date comment genre copyright make model location"
NAMED = {"mp4": set(MP4_TAGS.split()), "mov": set(MOV_TAGS.split())}
RENAMED = {"avi": {"subject": "ISBJ", "product": "IPRD"}}  # tags that a muxer knows by another name than its demuxer's
ROUNDED = {"location"}

# the other of a language's two codes in ISO 639-2, where it is the other one that MOV can tell (libavformat/isom.c:
# mov_mdhd_language_map)
TWO_CODES = (
    "cze:ces fre:fra rum:ron slo:slk bod:tib deu:ger ell:gre hye:arm isl:ice kat:geo mkd:mac msa:may mya:bur nld:dut "
    "sqi:alb zho:chi"
)
MOV_LANGUAGES = dict(pair.split(":") for pair in TWO_CODES.split())


@dataclass(frozen=True)
class Told:
    """What an output was told of its file and of its tracks (by their number in it; the video is `video`)."""

    codec: str
    pixel_format: str
    size: tuple[int, int]
    sample_aspect: Fraction
    turned: tuple[int, ...]  # see `turned`
    metadata: Mapping[str, str]
    chapters: tuple[str | None, ...]  # their titles
    tracks: Mapping[int, Mapping[str, str]]
    video: int
    covers: int  # how many cover pictures


def lost(path: Path, told: Told, tracks: Iterable[int]) -> list[str]:
    """What a file does not say as it was told, in words for the user; `tracks`: those that have packets.

    Raises InputError for a file that cannot be read at all.
    """
    found = []
    with open_input(path) as container:
        video = container.streams[told.video]
        if video.type != "video":  # MPEG-TS takes packets of any codec, as mere data
            raise InputError(f"expected video in stream {told.video} of {path}, got {video.type}")
        frame = first_frame(container, video, path)
        if (frame.width, frame.height) != told.size or not holds(frame.format.name, told.pixel_format):
            found.append(f"pictures of the pixel format {told.pixel_format} (they read back as {frame.format.name})")
        shape = told.sample_aspect or Fraction(1)
        if abs((video.sample_aspect_ratio or 1) / shape - 1) > 0.005:  # Matroska tells it by a size in whole pixels
            found.append(f"the sample aspect ratio {shape.numerator}:{shape.denominator}")
        if any(abs(a - b) > 64 for a, b in zip(turned(frame), told.turned, strict=True)):  # of 65536
            found.append("the rotation")
        found += [f"the file's {key}" for key in missing(told.metadata, container.metadata) if key not in OWN]
        if told.chapters and told.chapters != titles(container):
            found.append("the chapters")
        if sum(map(is_cover, container.streams)) < told.covers:
            found.append("the cover picture")
        for index in sorted(tracks):
            wanted = {key: value for key, value in told.tracks[index].items() if key in TRACK_TAGS and value != "und"}
            if index >= len(container.streams):
                found.append(f"stream {index}")
                continue
            stream = container.streams[index]
            found += [f"the {key} of stream {index} ({stream.type})" for key in missing(wanted, stream.metadata)]
        return found


def missing(wanted: Mapping[str, str], metadata: Mapping[str, str]) -> list[str]:
    """The keys, in lower case, whose values a muxer has not kept."""
    there = lower(metadata)
    there.setdefault("title", there.get("name", ""))  # so MP4 and MOV tell a track's
    return [
        key
        for key, value in lower(wanted).items()
        if not (key in ROUNDED and key in there) and mov_language(value) not in mov_language(there.get(key, ""))
    ]


def lower(metadata: Mapping[str, str]) -> dict[str, str]:
    """With keys in lower case, and without what MP4 and MOV tell once more for a language (title, title-eng)."""
    tags = {key.lower(): value for key, value in metadata.items()}
    return {key: value for key, value in tags.items() if not (key[-4:-3] == "-" and tags.get(key[:-4]) == value)}


def muxer_options(container: str, metadata: Mapping[str, str]) -> dict[str, str]:
    """What makes a muxer keep all of a file's tags."""
    named = NAMED.get(container)
    if named is None or named | OWN >= lower(metadata).keys():
        return {}
    return {"movflags": "use_metadata_tags"}


def rename_tags(container: str, metadata: MutableMapping[str, str]) -> None:
    """Give tags the names by which a muxer keeps them."""
    names = RENAMED.get(container, {})
    for key in [key for key in metadata if key.lower() in names]:
        metadata[names[key.lower()]] = metadata.pop(key)


def mov_language(name: str) -> str:
    return MOV_LANGUAGES.get(name, name)


def titles(container: Any) -> tuple[str | None, ...]:
    return tuple(chapter["metadata"].get("title") for chapter in container.chapters())


def holds(pixel_format: str, other: str) -> bool:
    """Whether all samples of the other format are in one: yuvj420p in yuv420p, gbrp in bgr24, but no less of anything.

    Decoders give 10 bits of ProRes as 12, and grey in H.264 with chroma that is all neutral.
    """
    one, two = av.VideoFormat(pixel_format, 16, 16), av.VideoFormat(other, 16, 16)
    parts = list(zip(one.components, two.components, strict=False))
    return (
        (one.is_rgb, one.has_palette, alpha(one)) == (two.is_rgb, two.has_palette, alpha(two))
        and len(parts) == len(two.components)
        and all((a.width, a.height) == (b.width, b.height) and a.bits >= b.bits for a, b in parts)
    )


def alpha(pixel_format: av.VideoFormat) -> bool:
    return any(part.is_alpha for part in pixel_format.components)


def turned(frame: av.VideoFrame) -> tuple[int, ...]:
    """How a frame is to be turned and mirrored: the four numbers of its display matrix, in 16.16 fixed point.

    Where the matrix moves the picture to is left to the muxers.
    """
    matrix = side_data(frame).get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return 65536, 0, 0, 65536
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    return a, b, c, d
