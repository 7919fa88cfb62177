"""How an audio track is encoded again: with its own codec, as it was in all that a listener may notice."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np

from ffmpeg_filters.pitch import Samples
from ffmpeg_filters.reader import reason
from restore_plugin.errors import Refused

KEPT = {"aac", "mp3", "mp2", "opus", "vorbis", "ac3", "eac3", "flac", "alac", "wavpack"}  # and every pcm_*
LOSSLESS = ("flac", "alac", "wavpack", "pcm_")
OPTIONS = {"vorbis": {"strict": "experimental"}}  # FFmpeg's own encoder, where libvorbis is not built in
AGAIN = 1.5  # times the input's bit rate: at the same, a second encoding loses as much as the first did
LEAST_BIT_RATE = 64_000  # bits/s a channel
BIT_RATES = tuple(1000 * kilo for kilo in (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384))  # where few are allowed


@dataclass(frozen=True)
class Sound:
    """How one audio track is encoded again."""

    stream: int
    codec: str
    encoder: str
    rate: int  # Hz
    layout: str
    format: str  # of samples, as the encoder takes them
    bit_rate: int  # bits/s; 0 for codecs that lose nothing
    frame_samples: int = 0  # in a packet; 0 for any number
    delay_samples: int = 0  # that the encoder puts before the first
    end_pts: int | None = None  # sample at which the input's packets end, where it tells them that exactly

    @property
    def channels(self) -> int:
        return int(av.AudioLayout(self.layout).nb_channels)

    @property
    def packed(self) -> bool:
        return not self.format.endswith("p")

    @property
    def values(self) -> np.dtype[Any]:
        return values_of(self.format)

    def configure(self, context: Any) -> None:
        """Set an encoder's context up, before it is opened."""
        context.sample_rate, context.layout, context.format = self.rate, self.layout, self.format
        context.bit_rate = self.bit_rate
        context.time_base = Fraction(1, self.rate)
        context.options = dict(OPTIONS.get(self.encoder, {}))

    def open(self, flags: int) -> Any:
        context: Any = av.CodecContext.create(self.encoder, "w")
        self.configure(context)
        context.flags |= flags
        context.open()
        return context

    def add_to(self, output: Any) -> Any:
        """A stream of an output container, which opens an encoder of its own to write its header."""
        made = output.add_stream(self.encoder, rate=self.rate)
        self.configure(made.codec_context)
        return made

    def frame(self, samples: Samples, pts: int) -> av.AudioFrame:
        """(channels, n) in the encoder's values -> a frame at sample number pts."""
        array = samples.T.reshape(1, -1) if self.packed else samples
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(array), self.format, self.layout)
        frame.sample_rate, frame.time_base, frame.pts = self.rate, Fraction(1, self.rate), pts
        return frame


def sound_of(stream: Any, frame: av.AudioFrame) -> Sound:
    codec = stream.codec_context.codec.canonical_name
    try:
        if codec not in KEPT and not codec.startswith("pcm_"):
            raise ValueError
        encoder = av.Codec("libvorbis" if codec == "vorbis" and "libvorbis" in av.codecs_available else codec, "w")
    except ValueError:
        raise _refusal(stream.index, codec, "it has no encoder here") from None
    formats = [known.name for known in encoder.audio_formats or ()]
    own = frame.format.name.removesuffix("p")
    wanted = [own, own + "p", "fltp", "flt", "s32p", "s32", "s16p", "s16"]
    chosen = next((name for name in wanted if name in formats), None)
    if chosen is None:
        raise _refusal(stream.index, codec, "its encoder takes none of the samples known here")
    told = stream.codec_context.bit_rate or 0
    return Sound(stream.index, codec, encoder.name, frame.sample_rate, frame.layout.name, chosen, told)


def _refusal(index: int, codec: str, why: str) -> Refused:
    return Refused(
        f"audio track {index} ({codec}) cannot be encoded again, which --mute and --pitch need: {why}; convert it "
        "first (ffmpeg -i IN -map 0 -c copy -c:a flac OUT.mkv)"
    )


def bit_rate_for(sound: Sound, size: int, length: Fraction) -> int:
    """The input's in bits/s, from its bytes and seconds; never too low for FFmpeg's encoders. 0 if nothing is lost."""
    if sound.codec.startswith(LOSSLESS):
        return 0
    mean = round(8 * size / length) if length else 0
    return max(sound.bit_rate, mean, LEAST_BIT_RATE * sound.channels)


def try_out(sound: Sound) -> Sound:
    """With the bit rate that the encoder accepts, and the delay that it shows. Raises Refused."""
    wanted = round(AGAIN * sound.bit_rate)
    # that, or what is next above it, or what is next below
    rates = sorted({wanted, sound.bit_rate, *BIT_RATES}, key=lambda rate: (rate < wanted, abs(rate - wanted)))
    failure: Exception | None = None
    for rate in rates if wanted else [0]:
        attempt = replace(sound, bit_rate=rate)
        try:
            encoder = attempt.open(0)
            silence = np.zeros((sound.channels, 8192), sound.values)
            packets = encoder.encode(attempt.frame(silence, 0)) + encoder.encode()
        except (av.error.FFmpegError, ValueError) as error:
            failure = failure or error
            continue
        return replace(attempt, frame_samples=encoder.frame_size, delay_samples=-packets[0].pts)
    assert failure is not None
    raise _refusal(sound.stream, sound.codec, f"no {sound.layout} sound of {sound.rate} Hz ({reason(failure)})")


def common_rate(sounds: Iterable[Sound]) -> int:
    """A clock in Hz on which the samples of all tracks lie."""
    rates = {sound.rate for sound in sounds}
    common = math.lcm(*rates)
    return common if common < 2**31 else max(rates)


def values_of(sample_format: str) -> np.dtype[Any]:
    name = sample_format.removesuffix("p")
    return np.dtype({"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}[name])


def to_float(samples: Samples) -> Samples:
    """To float32, where full scale is -1 to 1."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return ((samples - scale * (samples.dtype.kind == "u")) / scale).astype(np.float32)


def to_values(samples: Samples, values: np.dtype[Any]) -> Samples:
    """From any values to others of the same loudness; the same values pass untouched."""
    if samples.dtype == values:
        return samples
    if values.kind == "f":
        return to_float(samples).astype(values)
    scale = 2.0 ** (8 * values.itemsize - 1)
    full = np.rint(to_float(samples).astype(np.float64) * scale).clip(-scale, scale - 1)
    return (full + scale * (values.kind == "u")).astype(values)
