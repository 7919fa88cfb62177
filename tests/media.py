"""Tiny clips for the video tests, made with PyAV alone.

`Clip` says what a file holds, `build` writes it; `CLIPS` names the files that the tests share. Every clip shows smooth
moving noise under a mosaic of BLOCK px at BOX, drawn straight into the planes of its pixel format. `planes` is the way
back: views of a decoded frame's planes, nothing converted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import av.filter
import cv2
import numpy as np

BOX = (32, 16, 64, 48)  # x, y, width, height in px
BLOCK = 8  # px

# as ISO/IEC 23091-2 (H.273) numbers them
BT709, UNSPECIFIED, BT470BG, SMPTE170M, BT2020, PQ = 1, 2, 5, 6, 9, 16
LIMITED, FULL = 1, 2  # AVColorRange

QUICK_X264 = {"preset": "ultrafast", "x264-params": "threads=1"}
QUICK_X265 = {"preset": "ultrafast", "x265-params": "pools=1:frame-threads=1:log-level=none"}
LOSSLESS_X264 = {**QUICK_X264, "qp": "0"}
HDR10 = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400:hdr10=1:"


@dataclass(frozen=True)
class Colour:
    range: int
    primaries: int
    transfer: int
    matrix: int


@dataclass(frozen=True)
class Audio:
    """A sine, as long as the video."""

    codec: str = "aac"
    metadata: Mapping[str, str] = field(default_factory=dict)
    disposition: int = 0
    start: Fraction = Fraction(0)


@dataclass(frozen=True)
class Subtitles:
    """One line of text in the middle of the video."""

    codec: str
    text: str = "Hello"
    metadata: Mapping[str, str] = field(default_factory=dict)
    disposition: int = 0


@dataclass(frozen=True)
class Clip:
    """`times`: presentation times in ticks of `time_base`, by default one tick of 1 / rate a frame.

    `damage`: what to do to the bytes of the video's middle packet: "flip" some of its data, or "erase" it all.
    """

    suffix: str = ".mp4"
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=lambda: QUICK_X264)
    size: tuple[int, int] = (160, 96)
    frames: int = 10
    rate: Fraction = Fraction(25)
    time_base: Fraction | None = None
    times: Sequence[int] | None = None
    colour: Colour | None = None
    sample_aspect: Fraction | None = None
    rotation: tuple[float, bool, bool] | None = None  # degrees, horizontal and vertical flip
    field_order: str | None = None  # "tff" or "bff"
    metadata: Mapping[str, str] = field(default_factory=dict)
    video_metadata: Mapping[str, str] = field(default_factory=dict)
    audio: Sequence[Audio] = ()
    subtitles: Sequence[Subtitles] = ()
    chapters: Sequence[str] = ()
    attachment: bytes | None = None
    cover: bool = False
    damage: str | None = None
    box: tuple[int, int, int, int] = BOX


def planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """Views of a frame's planes, (H, W, values a pixel), uint8 or uint16."""
    views = []
    for number, plane in enumerate(frame.planes):
        parts = [part for part in frame.format.components if part.plane == number]
        packed = len(frame.planes) == 1 and len(parts) > 1  # bgr0 has a fourth, unused value
        sample = np.dtype(np.uint16 if parts[0].bits > 8 else np.uint8)
        values = frame.format.padded_bits_per_pixel // (8 * sample.itemsize) if packed else len(parts)
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
        row = lines[:, : plane.width * values * sample.itemsize].view(sample)
        views.append(row.reshape(plane.height, plane.width, values))
    return views


def on_plane(box: tuple[int, int, int, int], plane: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Index of the samples of a (perhaps subsampled) plane that belong to pixels of `box`, touched ones included."""
    step_x, step_y = round(size[0] / plane.shape[1]), round(size[1] / plane.shape[0])
    x, y, width, height = box
    return slice(y // step_y, -(-(y + height) // step_y)), slice(x // step_x, -(-(x + width) // step_x))


def is_alpha(frame: av.VideoFrame, plane: int) -> bool:
    return all(part.is_alpha for part in frame.format.components if part.plane == plane)


@lru_cache(maxsize=8)
def texture(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth noise in [0, 1], the same every 1024 px."""
    noise = np.random.default_rng(seed).random((min(height, 1024), min(width, 1024)), np.float32)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 1, cv2.NORM_MINMAX)
    return np.tile(smooth, (-(-height // 1024), -(-width // 1024)))[:height, :width]


def draw(frame: av.VideoFrame, index: int, box: tuple[int, int, int, int]) -> None:
    """Moving noise in every plane, and the mosaic in all but alpha. No colour is outside of RGB."""
    for number, plane in enumerate(planes(frame)):
        height, width, values = plane.shape
        chroma = number > 0 and not frame.format.is_rgb and not is_alpha(frame, number)
        low, high = (0.42, 0.58) if chroma else (0.3, 0.75)
        top = (1 << frame.format.components[0].bits) - 1
        picture = np.empty(plane.shape, np.float32)
        for value in range(values):
            noise = texture(height + 32, width + 32, 4 * number + value)
            shift = 2 * index % 32
            picture[..., value] = low + (high - low) * noise[shift : shift + height, shift : shift + width]
        if not is_alpha(frame, number):
            rows, columns = on_plane(box, plane, (frame.width, frame.height))
            step_x, step_y = round(frame.width / width), round(frame.height / height)
            pixelate(picture[rows, columns], max(1, BLOCK // step_x), max(1, BLOCK // step_y))
        plane[...] = np.round(picture * top)


def pixelate(picture: np.ndarray, block_x: int, block_y: int) -> None:
    for y in range(0, picture.shape[0], block_y):
        for x in range(0, picture.shape[1], block_x):
            cell = picture[y : y + block_y, x : x + block_x]
            cell[...] = cell.mean((0, 1))


def build(path: Path, clip: Clip) -> Path:
    """Write a clip; returns the path of the file, which has the clip's suffix."""
    path = path.with_suffix(clip.suffix)
    with av.open(str(path), "w") as container:
        container.metadata.update(clip.metadata)
        video = _add_video(container, clip)
        sounds = [_add_audio(container, audio) for audio in clip.audio]
        texts = [_add_subtitles(container, subtitles) for subtitles in clip.subtitles]
        cover = container.add_stream("mjpeg", rate=1) if clip.cover else None
        if cover is not None:
            cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
        if clip.attachment is not None:
            container.add_attachment("notes.txt", "text/plain", clip.attachment)
        seconds = Fraction(clip.frames) / clip.rate
        if clip.chapters:
            tick = seconds * 1000 / len(clip.chapters)
            container.set_chapters(
                [
                    {
                        "id": number,
                        "start": round(number * tick),
                        "end": round((number + 1) * tick),
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": title},
                    }
                    for number, title in enumerate(clip.chapters)
                ]
            )
        container.start_encoding()
        if cover is not None:
            picture = av.VideoFrame(32, 32, "yuvj420p")
            draw(picture, 0, (0, 0, 8, 8))
            container.mux(cover.encode(picture) + cover.encode())
        container.mux(_video_packets(video, clip))
        for stream, audio in zip(sounds, clip.audio, strict=True):
            container.mux(_audio_packets(stream, seconds, audio.start))
        for stream, subtitles in zip(texts, clip.subtitles, strict=True):
            container.mux(_subtitle_packet(stream, subtitles.text, seconds))
    return path


def _add_video(container: av.container.OutputContainer, clip: Clip) -> Any:
    stream = container.add_stream(clip.codec, rate=clip.rate, options=dict(clip.options))
    stream.width, stream.height = clip.size
    stream.pix_fmt = clip.pix_fmt
    stream.codec_context.time_base = clip.time_base or 1 / clip.rate
    stream.time_base = clip.time_base or 1 / clip.rate
    stream.codec_context.thread_count = 1
    stream.metadata.update(clip.video_metadata)
    if clip.colour is not None:
        context = stream.codec_context
        context.color_range, context.color_primaries = clip.colour.range, clip.colour.primaries
        context.color_trc, context.colorspace = clip.colour.transfer, clip.colour.matrix
    if clip.sample_aspect is not None:
        stream.codec_context.sample_aspect_ratio = clip.sample_aspect
    if clip.rotation is not None:
        stream.set_display_rotation(*clip.rotation)
    if clip.field_order is not None:
        flags = av.codec.context.Flags
        stream.codec_context.flags |= flags.interlaced_dct | flags.interlaced_me
        stream.codec_context.field_order = {"tff": 2, "bff": 3}[clip.field_order]
    return stream


def _video_packets(stream: Any, clip: Clip) -> list[av.Packet]:
    mark = _field_marker(clip) if clip.field_order else None
    packets = []
    for index in range(clip.frames):
        frame = av.VideoFrame(*clip.size, clip.pix_fmt)
        draw(frame, index, clip.box)
        frame.pts = clip.times[index] if clip.times else index
        frame.time_base = clip.time_base or 1 / clip.rate
        if clip.colour is not None:
            frame.color_range, frame.color_primaries = clip.colour.range, clip.colour.primaries
            frame.color_trc, frame.colorspace = clip.colour.transfer, clip.colour.matrix
        if mark is not None:
            mark.push(frame)
            frame = mark.pull()
        packets += stream.encode(frame)
    packets += stream.encode()
    if clip.damage:
        data = np.frombuffer(packets[len(packets) // 2], np.uint8)
        data[8:] = 0 if clip.damage == "erase" else data[8:] ^ (np.arange(len(data) - 8) % 7 == 3) * np.uint8(0x5A)
    return packets


def _field_marker(clip: Clip) -> av.filter.Graph:
    """PyAV cannot set a frame's field order, a filter can."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=clip.size[0], height=clip.size[1], format=clip.pix_fmt, time_base=clip.time_base or 1 / clip.rate
    )
    graph.link_nodes(source, graph.add("setfield", clip.field_order), graph.add("buffersink")).configure()
    return graph


def _add_audio(container: av.container.OutputContainer, audio: Audio) -> Any:
    stream = container.add_stream(audio.codec, rate=48000)
    stream.metadata.update(audio.metadata)
    stream.disposition = audio.disposition
    return stream


def _audio_packets(stream: Any, seconds: Fraction, start: Fraction) -> list[av.Packet]:
    samples = int(seconds * 48000)
    sine = 0.3 * np.sin(np.arange(samples) * (0.05 + 0.01 * stream.index))
    frame = av.AudioFrame.from_ndarray(np.stack([sine, sine]).astype(np.float32), "fltp", "stereo")
    frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), int(start * 48000)
    return stream.encode(frame) + stream.encode()


def _add_subtitles(container: av.container.OutputContainer, subtitles: Subtitles) -> Any:
    stream = container.add_stream(subtitles.codec)
    stream.codec_context.subtitle_header = (
        b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\n"
        b"Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, "
        b"Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, "
        b"MarginR, MarginV, Encoding\r\n"
        b"Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\r\n\r\n"
        b"[Events]\r\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
    )
    stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
    stream.metadata.update(subtitles.metadata)
    stream.disposition = subtitles.disposition
    return stream


def _subtitle_packet(stream: Any, text: str, seconds: Fraction) -> av.Packet:
    line = av.subtitles.subtitle.SubtitleSet.create(
        f"0,0,Default,,0,0,0,,{text}".encode(), start=0, end=int(seconds * 500)
    )
    packet = stream.codec_context.encode_subtitle(line)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = int(seconds * 250)
    packet.duration = int(seconds * 500)
    return packet


def build_audio_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = _add_audio(container, Audio())
        container.mux(_audio_packets(stream, Fraction(1, 2), Fraction(0)))
    return path


def truncate(path: Path, keep: float) -> Path:
    """Cut a file off after a share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


ENGLISH = Audio(metadata={"language": "eng", "title": "Original"}, disposition=av.stream.Disposition.default)
GERMAN = Audio(metadata={"language": "ger", "title": "Kommentar"}, disposition=av.stream.Disposition.comment)
FORCED = av.stream.Disposition.forced
TITLES = {"title": "A clip", "artist": "Ä. Nobody", "comment": "kept = yes; \\ and #"}
PLAIN = Clip()
MATROSKA = replace(PLAIN, suffix=".mkv")
FFV1 = Clip(".mkv", "ffv1", options={"level": "3", "slicecrc": "1"}, frames=4)
HEVC10 = Clip(codec="libx265", pix_fmt="yuv420p10le", options=QUICK_X265)
HDR = replace(
    HEVC10,
    options={**QUICK_X265, "x265-params": HDR10 + QUICK_X265["x265-params"]},
    colour=Colour(LIMITED, BT2020, PQ, BT2020),
)
UNEVEN = (0, 40, 90, 100, 260, 300, 301, 420, 500, 640)  # ms

CLIPS: dict[str, Clip] = {
    "h264_aac": replace(PLAIN, audio=[Audio()]),
    "rate_29_97": replace(PLAIN, rate=Fraction(30000, 1001), audio=[Audio()]),
    "rate_29_97_mkv": replace(MATROSKA, rate=Fraction(30000, 1001), audio=[Audio()]),
    "rate_changes": replace(PLAIN, time_base=Fraction(1, 1000), times=UNEVEN, audio=[Audio()]),
    "rate_changes_mkv": replace(MATROSKA, time_base=Fraction(1, 1000), times=UNEVEN),
    "rate_changes_fine": replace(
        PLAIN, time_base=Fraction(1, 90000), times=[ms * 90 + 7 * number for number, ms in enumerate(UNEVEN)]
    ),
    "starts_late": replace(PLAIN, times=range(30, 40), audio=[Audio(start=Fraction(6, 5))]),
    "starts_late_mkv": replace(MATROSKA, times=range(30, 40), audio=[Audio(start=Fraction(6, 5))]),
    "starts_after_audio": replace(PLAIN, times=range(5, 15), audio=[Audio()]),
    "b_frames": replace(PLAIN, options={"preset": "veryfast", "bf": "3", "x264-params": "threads=1"}, frames=20),
    "b_frames_mkv": replace(MATROSKA, options={"preset": "veryfast", "bf": "3", "x264-params": "threads=1"}),
    "tracks_mkv": replace(
        MATROSKA,
        audio=[ENGLISH, GERMAN],
        subtitles=[Subtitles("srt", "Hallo", {"language": "ger", "title": "Untertitel"}, FORCED), Subtitles("ass")],
        chapters=("One", "Zwei"),
        attachment=b"an attachment\0with zeros",
        metadata=TITLES,
        video_metadata={"title": "The picture", "language": "fre"},
    ),
    "tracks_mp4": replace(
        PLAIN,
        audio=[ENGLISH, GERMAN],
        subtitles=[Subtitles("mov_text", "Hallo", {"language": "ger"})],
        chapters=("One", "Zwei"),
        metadata={**TITLES, "creation_time": "2021-03-04T05:06:07.000000Z"},
        video_metadata={"language": "fre", "handler_name": "The picture"},
    ),
    "cover": replace(PLAIN, cover=True, audio=[Audio()]),
    "timecode_mov": replace(PLAIN, suffix=".mov", video_metadata={"timecode": "01:00:00:00"}),
    "rotated": replace(PLAIN, rotation=(90, False, False)),
    "rotated_mkv": replace(MATROSKA, rotation=(180, False, False)),
    "mirrored": replace(PLAIN, rotation=(270, True, False)),
    "wide_pixels": replace(PLAIN, sample_aspect=Fraction(16, 11)),
    "wide_pixels_mkv": replace(MATROSKA, sample_aspect=Fraction(4, 3)),
    "bt709": replace(PLAIN, colour=Colour(LIMITED, BT709, BT709, BT709)),
    "bt709_full": replace(PLAIN, colour=Colour(FULL, BT709, BT709, BT709)),
    "pal": replace(PLAIN, colour=Colour(LIMITED, BT470BG, SMPTE170M, BT470BG)),
    "ntsc_mkv": replace(MATROSKA, colour=Colour(LIMITED, SMPTE170M, SMPTE170M, SMPTE170M)),
    "colour_matrix_only": replace(MATROSKA, colour=Colour(0, UNSPECIFIED, UNSPECIFIED, BT709)),
    "hevc_10_bit": HEVC10,
    "hdr10": HDR,
    "hdr10_mkv": replace(HDR, suffix=".mkv"),
    "yuv422p": replace(PLAIN, pix_fmt="yuv422p"),
    "yuv444p": replace(PLAIN, pix_fmt="yuv444p"),
    "yuv422p10le": replace(PLAIN, pix_fmt="yuv422p10le"),
    "yuvj420p": replace(PLAIN, pix_fmt="yuvj420p"),
    "interlaced": replace(PLAIN, field_order="tff", options={"preset": "veryfast", "x264-params": "threads=1"}),
    "interlaced_mkv": replace(MATROSKA, field_order="bff", options={"preset": "veryfast", "x264-params": "threads=1"}),
    "vp9_opus": Clip(
        ".webm", "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}, audio=[Audio("libopus")]
    ),
    "vp9_odd": Clip(".webm", "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}, size=(161, 97)),
    "av1": Clip(codec="libsvtav1", options={"preset": "12"}, audio=[Audio()]),
    "ffv1_avi": replace(FFV1, suffix=".avi", audio=[Audio("mp2")]),
    "prores_mov": Clip(".mov", "prores_ks", "yuv422p10le", options={}, frames=4, audio=[Audio("pcm_s16le")]),
    "h264_mov": replace(PLAIN, suffix=".mov", audio=[Audio()]),
    "h264_ts": replace(PLAIN, suffix=".ts", times=range(35, 45), audio=[Audio(start=Fraction(7, 5))]),
    "one_frame": replace(PLAIN, frames=1),
    "tiny": replace(PLAIN, size=(16, 16), box=(0, 0, 16, 16)),
}

# lossless, in formats that FFV1 has under another name
YUVJ420P = replace(MATROSKA, pix_fmt="yuvj420p", options=LOSSLESS_X264, frames=4)
GBRP = replace(MATROSKA, codec="libx264rgb", pix_fmt="rgb24", options=LOSSLESS_X264, frames=4)

LOSSLESS: dict[str, Clip] = {
    **{
        f"ffv1_{name}": replace(FFV1, pix_fmt=name)
        for name in (
            *("yuv420p", "yuv422p", "yuv444p", "yuv410p", "yuv411p", "yuv440p", "yuva420p", "yuva444p"),
            *("yuv420p10le", "yuv422p10le", "yuv444p12le", "yuv420p16le", "yuv444p16le", "yuva444p16le"),
            *("gray", "gray10le", "gray16le", "gbrp10le", "gbrp16le", "gbrap12le", "bgr0", "bgra"),
        )
    },
    "ffv1_odd": replace(FFV1, size=(161, 97)),
    "ffv1_full_range": replace(FFV1, colour=Colour(FULL, BT709, BT709, BT709)),
    "ffv1_interlaced": replace(FFV1, field_order="tff"),
    "ffv1_tiny": replace(FFV1, size=(16, 16), box=(0, 0, 16, 16)),
    **{
        f"h264_{name}": replace(MATROSKA, pix_fmt=name, options=LOSSLESS_X264, frames=4)
        for name in ("yuv420p", "yuv444p", "yuv422p10le")
    },
    "hevc_gbrp12le": replace(
        MATROSKA,
        codec="libx265",
        pix_fmt="gbrp12le",
        options={**QUICK_X265, "x265-params": "lossless=1:" + QUICK_X265["x265-params"]},
        frames=4,
    ),
}


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def available(codec: str) -> bool:
    try:
        av.codec.Codec(codec, "w")
    except av.error.FFmpegError:
        return False
    return True
