"""Encoders: which one follows which codec, its quality, and how what a frame says of itself is handed on."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, cast

import av
import av.error
from av.sidedata.sidedata import Type as SideDataType

from ffmpeg_filters.frames import side_data
from ffmpeg_filters.reader import VideoInfo, open_input, reason
from restore_plugin.errors import InputError, Refused


@dataclass(frozen=True)
class Encoder:
    """One row: an encoder of FFmpeg, the codec it writes, its quality option with its default, and fixed options."""

    name: str
    codec: str
    quality: str | None = None
    default: int = 0
    options: dict[str, str] = field(default_factory=dict)
    interlaced: bool = False
    hdr: bool = False
    captions: bool = False
    tagged: bool = False  # its tag (FourCC) in a container tells the samples' layout, so it is the encoder's to choose


ENCODERS = (
    Encoder("libx264", "h264", "crf", 18, {"preset": "fast"}, interlaced=True, captions=True),
    Encoder("libx265", "hevc", "crf", 20, {"preset": "fast"}, hdr=True, captions=True),
    Encoder("libsvtav1", "av1", "crf", 26, {"preset": "8"}, hdr=True),
    Encoder("libaom-av1", "av1", "crf", 24, {"cpu-used": "6", "row-mt": "1"}),
    Encoder("libvpx-vp9", "vp9", "crf", 24, {"cpu-used": "4", "row-mt": "1", "deadline": "good"}, hdr=True),
    Encoder("libvpx", "vp8", "crf", 8, {"cpu-used": "4", "deadline": "good", "b": "8M"}),
    Encoder("ffv1", "ffv1", None, 0, {"level": "3", "slicecrc": "1"}, interlaced=True, hdr=True),
    Encoder("prores_ks", "prores", "qscale", 6, {"vendor": "apl0"}, tagged=True),
    Encoder("mjpeg", "mjpeg", "qscale", 2),
    Encoder("huffyuv", "huffyuv"),
    Encoder("ffvhuff", "ffvhuff"),
    Encoder("utvideo", "utvideo", tagged=True),
    Encoder("png", "png"),
    Encoder("rawvideo", "rawvideo", tagged=True),
)
SAME_SAMPLES = {"gbrp": "bgr0"}  # planar and packed forms of the same


@dataclass(frozen=True)
class EncodeOptions:
    """What a user may ask of the output's video; None follows the input."""

    codec: str | None = None  # codec or encoder
    quality: int | None = None  # in the encoder's own unit
    pixel_format: str | None = None
    preset: str | None = None


def choose(info: VideoInfo, options: EncodeOptions) -> Encoder:
    """Raises InputError for an unknown codec, Refused where nothing here writes the input's."""
    wanted = options.codec or info.codec
    for row in ENCODERS:
        if wanted in (row.name, row.codec):
            try:
                av.Codec(row.name, "w")
            except ValueError:
                continue
            return row
    names = ", ".join(sorted({row.codec for row in ENCODERS}))
    if options.codec:
        raise InputError(f"expected a codec out of {names}, got {options.codec}")
    raise Refused(f"the input's codec {info.codec} has no encoder here; choose one with --codec ({names})")


def open_encoder(
    row: Encoder, options: EncodeOptions, info: VideoInfo, sample: av.VideoFrame, global_header: bool, threads: int = 0
) -> Any:
    """An open codec context for frames like `sample`. Raises Refused for what the encoder cannot keep."""
    check_side_data(row, sample)
    if options.preset and "preset" not in row.options:
        raise InputError(f"{row.name} has no presets; leave --preset out")
    if options.quality is not None and row.quality is None:
        raise InputError(f"{row.name} is lossless: it has no quality to choose; leave --quality out")
    context: Any = av.CodecContext.create(row.name, "w")
    configure(context, row, options, info, sample, global_header, threads)
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        raise Refused(
            f"{row.name} does not open for {info.width}x{info.height}: {reason(error)}; try another --codec"
        ) from None
    return context


def pixel_format_for(row: Encoder, options: EncodeOptions, info: VideoInfo) -> str:
    """The output's pixel format: the one asked for, or the input's, or another name for the same samples."""
    if options.pixel_format:
        try:
            av.VideoFormat(options.pixel_format, 16, 16)
        except ValueError:
            raise InputError(f"expected a pixel format such as yuv420p, got {options.pixel_format}") from None
    wanted = options.pixel_format or info.pixel_format
    supported = [known.name for known in av.Codec(row.name, "w").video_formats or []]
    same = (wanted, wanted.replace("yuvj", "yuv"), SAME_SAMPLES.get(wanted, wanted))
    for name in same[: 1 if options.pixel_format else 3]:
        if not supported or name in supported:
            return name
    raise Refused(
        f"{row.name} cannot write the pixel format {wanted}; choose --pix-fmt ({', '.join(supported[:8])} ...) "
        "or another --codec (ffv1 keeps nearly all)"
    )


def configure(
    target: Any,
    row: Encoder,
    options: EncodeOptions,
    info: VideoInfo,
    sample: av.VideoFrame,
    header: bool,
    threads: int,
) -> None:
    """Set everything on a codec context, or on an output stream, that decides how it encodes."""
    target.width, target.height = info.width, info.height
    target.pix_fmt = pixel_format_for(row, options, info)
    target.time_base = info.time_base
    target.framerate = info.rate.limit_denominator(100_000)
    target.sample_aspect_ratio = sample_aspect_ratio(info)
    target.color_range, target.colorspace = int(sample.color_range), int(sample.colorspace)
    target.color_primaries, target.color_trc = int(sample.color_primaries), int(sample.color_trc)
    if threads:
        target.thread_count = threads
    if info.container == "avi":
        target.max_b_frames = 0  # which AVI cannot tell the times of
    settings = dict(row.options)
    if options.preset and "preset" in settings:
        settings["preset"] = options.preset
    quality = row.default if options.quality is None else options.quality
    if row.quality == "qscale":
        target.flags |= 2  # AV_CODEC_FLAG_QSCALE
        target.global_quality = quality
    elif row.quality:
        settings[row.quality] = str(quality)
    if row.name == "libx265":
        settings["x265-params"] = ":".join(["log-level=error", "repeat-headers=0", *x265_hdr(sample)])
    elif row.name == "libsvtav1" and (parameters := svtav1_hdr(sample)):
        settings["svtav1-params"] = ":".join(parameters)
    if interlaced(sample):
        if not row.interlaced:
            raise Refused(f"the input is interlaced, which {row.name} cannot keep; choose --codec h264 or ffv1")
        target.flags |= (1 << 18) | (1 << 29)  # AV_CODEC_FLAG_INTERLACED_DCT, AV_CODEC_FLAG_INTERLACED_ME
        if row.name == "libx264":
            settings["x264-params"] = "tff=1" if top_field_first(info) else "bff=1"
    if header:
        target.flags |= 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER
    target.options = settings


def sample_aspect_ratio(info: VideoInfo) -> Fraction:
    with open_input(info.path) as container:
        ratio = cast(Any, container.streams[info.stream]).sample_aspect_ratio
    return Fraction(ratio or 0)


def interlaced(sample: av.VideoFrame) -> bool:
    return bool(sample.interlaced_frame)


def top_field_first(info: VideoInfo) -> bool:
    """From the container's field order (AVFieldOrder: 2 TT, 4 TB are top first; 3 BB, 5 BT bottom first)."""
    with open_input(info.path) as container:
        order = int(cast(Any, container.streams[info.stream]).codec_context.field_order)
    return order not in (3, 5)


def has_hdr(sample: av.VideoFrame) -> bool:
    kinds = side_data(sample).keys()
    return bool(kinds & {SideDataType.MASTERING_DISPLAY_METADATA, SideDataType.CONTENT_LIGHT_LEVEL})


def check_side_data(row: Encoder, sample: av.VideoFrame) -> None:
    """Raises Refused for what a frame carries and the encoder would drop."""
    kinds = side_data(sample).keys()
    dynamic = {SideDataType.DYNAMIC_HDR_PLUS, SideDataType.DOVI_RPU_BUFFER, SideDataType.DOVI_METADATA}
    if kinds & dynamic:
        raise Refused(
            "the input's dynamic HDR metadata (HDR10+, Dolby Vision) cannot be kept; convert it to HDR10 first"
        )
    if has_hdr(sample) and not row.hdr:
        raise Refused(f"the input's HDR metadata cannot be kept by {row.name}; choose --codec hevc")
    if SideDataType.A53_CC in kinds and not row.captions:
        raise Refused(f"the input's closed captions cannot be kept by {row.name}; choose --codec h264 or hevc")


def mastering(sample: av.VideoFrame) -> tuple[list[Fraction], list[Fraction]] | None:
    """(ten values of AVMasteringDisplayMetadata: RGB primaries, white point as x, y; [min, max] luminance)."""
    data = side_data(sample).get(SideDataType.MASTERING_DISPLAY_METADATA)
    if data is None:
        return None
    numbers = struct.unpack("=20i2i", bytes(data)[:88])
    values = [Fraction(numbers[i], numbers[i + 1] or 1) for i in range(0, 20, 2)]
    return values[:8], values[8:]


def light(sample: av.VideoFrame) -> tuple[int, int] | None:
    data = side_data(sample).get(SideDataType.CONTENT_LIGHT_LEVEL)
    return None if data is None else struct.unpack("=II", bytes(data)[:8])


def x265_hdr(sample: av.VideoFrame) -> list[str]:
    parts = []
    if display := mastering(sample):
        chroma = [round(value * 50000) for value in display[0]]
        low, high = (round(value * 10000) for value in display[1])
        red, green, blue, white = (f"({chroma[i]},{chroma[i + 1]})" for i in (0, 2, 4, 6))
        parts.append(f"master-display=G{green}B{blue}R{red}WP{white}L({high},{low})")
    if levels := light(sample):
        parts.append(f"max-cll={levels[0]},{levels[1]}")
    return parts


def svtav1_hdr(sample: av.VideoFrame) -> list[str]:
    parts = []
    if display := mastering(sample):
        chroma = [float(value) for value in display[0]]
        low, high = (float(value) for value in display[1])
        red, green, blue, white = (f"({chroma[i]:.4f},{chroma[i + 1]:.4f})" for i in (0, 2, 4, 6))
        parts.append(f"mastering-display=G{green}B{blue}R{red}WP{white}L({high:.4f},{low:.4f})")
    if levels := light(sample):
        parts.append(f"content-light={levels[0]},{levels[1]}")
    return parts
