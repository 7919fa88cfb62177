"""Muting and shifting: what is heard where, against the input's own decoded sound and an FFT."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import media
import numpy as np
import pytest
from media import CLIPS

from ffmpeg_filters.encoders import EncodeOptions, choose, open_encoder, pixel_format_for
from ffmpeg_filters.mux import Muxer
from ffmpeg_filters.pitch import PitchShifter, Wander
from ffmpeg_filters.reader import first_frame, open_input, probe, video_stream
from ffmpeg_filters.spool import Coded
from ffmpeg_filters.voice import Segment, VoiceOptions
from restore_plugin.errors import InputError, OutputError, Refused

VIDEO = {".webm": "libvpx", ".avi": "mjpeg"}
SPAN = (1.25, 1.75)  # seconds that are muted
SECONDS = 3
LOSSLESS = ("flac", "alac", "pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_u8", "wavpack")


@dataclass(frozen=True)
class Tune:
    """Sound for a clip: (channels, samples), from `start` seconds on; with a silent hole (t0, t1) left out of it."""

    codec: str
    samples: np.ndarray
    rate: int = 48000
    start: float = 0.0
    hole: tuple[float, float] | None = None
    shift_after: float = 0.0  # seconds by which what follows the middle is late

    def pieces(self) -> list[tuple[float, np.ndarray]]:
        if self.hole:
            first, last = (round(time * self.rate) for time in self.hole)
            return [(0.0, self.samples[:, :first]), (last / self.rate, self.samples[:, last:])]
        if self.shift_after:
            middle = self.samples.shape[1] // 2
            parts = self.samples[:, :middle], self.samples[:, middle:]
            return [(0.0, parts[0]), (middle / self.rate + self.shift_after, parts[1])]
        return [(0.0, self.samples)]


def film(path: Path, tunes: Sequence[Tune], seconds: float = SECONDS, first: int = 0) -> Path:
    """A tiny black video of 5 frames/s, the first at `first` / 5 s, with sound."""
    with av.open(str(path), "w") as container:
        if container.format.name == "mpegts":
            container.container_options["mpegts_copyts"] = "1"
        codec = VIDEO.get(path.suffix, "libx264")
        video: Any = container.add_stream(codec, rate=5, options=media.QUICK_X264 if codec == "libx264" else {})
        video.width, video.height, video.pix_fmt = 32, 32, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        streams = []
        for tune in tunes:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(tune.samples)]
            options = {"strict": "experimental"} if tune.codec == "vorbis" else {}
            streams.append(container.add_stream(tune.codec, rate=tune.rate, layout=layout, options=options))
        container.start_encoding()
        packets = []
        for index in range(round(seconds * 5)):
            frame = av.VideoFrame(32, 32, video.pix_fmt)
            frame.pts, frame.time_base = index + first, Fraction(1, 5)
            packets += video.encode(frame)
        packets += video.encode()
        for stream, tune in zip(streams, tunes, strict=True):
            for start, samples in tune.pieces():
                for at in range(0, samples.shape[1], 1000):
                    block = np.ascontiguousarray(samples[:, at : at + 1000], np.float32)
                    frame = av.AudioFrame.from_ndarray(block, "fltp", stream.layout.name)
                    frame.sample_rate, frame.time_base = tune.rate, Fraction(1, tune.rate)
                    frame.pts = round((tune.start + start) * tune.rate) + at
                    packets += stream.encode(frame)
            packets += stream.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux_one(packet)
    return path


def change(source: Path, options: VoiceOptions, suffix: str | None = None) -> Path:
    """The video encoded again, the sound as asked, as a job does it."""
    target = source.with_name(f"out{suffix or source.suffix}")
    info = probe(source)
    encode = EncodeOptions()
    row = choose(info, encode)
    with open_input(source) as container:
        sample = first_frame(container, video_stream(container, source), source)
    encoder = open_encoder(row, encode, info, sample, global_header=True)
    muxer = Muxer(target, info, "note", options)
    muxer.check(row, encode, sample, encoder.extradata)
    coded = []
    with open_input(source) as container:
        for frame in container.decode(container.streams[info.stream]):
            frame.pict_type = 0
            name = pixel_format_for(row, encode, info)
            coded += encoder.encode(frame if frame.format.name == name else frame.reformat(format=name))
    coded += encoder.encode()
    packets = [Coded(p.pts, p.pts, info.gap_after(p.pts), p.is_keyframe, bytes(p)) for p in coded]
    muxer.finish(packets, [packet.pts for packet in packets], row, encode, sample, encoder.extradata)
    return target


@dataclass(frozen=True)
class Heard:
    """Decoded sound as pieces without a gap: (number of the first sample from the video's first frame, samples)."""

    pieces: Sequence[tuple[int, np.ndarray]]
    rate: int

    @property
    def start(self) -> float:
        return self.pieces[0][0] / self.rate

    @property
    def end(self) -> float:
        return (self.pieces[-1][0] + self.pieces[-1][1].shape[1]) / self.rate

    def between(self, start: float, end: float) -> np.ndarray:
        """(channels, samples) of a time in seconds; zeros where there is no sound."""
        first, last = round(start * self.rate), round(end * self.rate)
        out = np.zeros((len(self.pieces[0][1]), last - first))
        for at, samples in self.pieces:
            low, high = max(first, at), min(last, at + samples.shape[1])
            if low < high:
                out[:, low - first : high - first] = samples[:, low - at : high - at]
        return out


FULL = {"u8": 2**7, "s1": 2**15, "s3": 2**31}


def hear(path: Path, number: int = 0) -> Heard:
    with av.open(str(path)) as container:
        first = min(p.pts * p.time_base for p in container.demux(video=0) if p.pts is not None)
    with av.open(str(path)) as container:
        pieces: list[tuple[int, list[np.ndarray]]] = []
        clock = 0
        for frame in container.decode(container.streams.audio[number]):
            array = frame.to_ndarray()
            rate, channels = frame.sample_rate, frame.layout.nb_channels
            samples = array if frame.format.is_planar else array.reshape(-1, channels).T
            full = FULL.get(frame.format.name[:2])
            samples = samples if full is None else (samples - 128.0 * (samples.dtype == np.uint8)) / full
            at = round((frame.pts * frame.time_base - first) * rate)
            if not pieces or abs(at - clock) > 0.004 * rate:
                pieces.append((at, []))
                clock = at
            pieces[-1][1].append(samples.astype(float))
            clock += samples.shape[1]
    return Heard([(at, np.concatenate(parts, axis=1)) for at, parts in pieces], rate)


def clicks(rate: int = 48000, seconds: float = SECONDS, channels: int = 2) -> np.ndarray:
    """A click of 10 ms every half second from 0.1 s on, over faint noise: (channels, samples)."""
    count = round(rate * seconds)
    sound = 0.002 * np.random.default_rng(7).standard_normal((channels, count))
    at = np.arange(round(0.01 * rate))
    click = 0.7 * np.exp(-4 * at / len(at)) * np.sin(2 * np.pi * 0.05 * at)
    for time in np.arange(0.1, seconds - 0.1, 0.5):
        first = round(time * rate)
        sound[:, first : first + len(at)] += click
    return sound


def tone(hertz: float, rate: int = 48000, seconds: float = SECONDS, channels: int = 1) -> np.ndarray:
    return np.tile(0.4 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate), (channels, 1))


def late_by(one: np.ndarray, other: np.ndarray) -> int:
    """By how many samples `other` comes later than `one`: the peak of their correlation."""
    size = 2 * len(one)
    alike = np.fft.irfft(np.fft.rfft(other, size) * np.fft.rfft(one, size).conj(), size)
    best = int(np.argmax(alike))
    return best if best < len(one) else best - size


def frequency(sound: np.ndarray, rate: int) -> float:
    """Hz of the strongest tone, by an FFT with a parabola through its peak."""
    spectrum = np.log(np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) + 1e-12)
    best = int(np.argmax(spectrum[1:-1])) + 1
    left, middle, right = spectrum[best - 1 : best + 2]
    return (best + 0.5 * (left - right) / (left - 2 * middle + right)) * rate / len(sound)


MUTED = [
    ("aac", ".mp4", 48000, 2, 0),
    ("aac", ".mp4", 44100, 1, 0.6),
    ("aac", ".mkv", 44100, 2, 0),
    ("aac", ".mov", 48000, 6, 0),
    ("aac", ".ts", 48000, 2, 0),
    ("libopus", ".webm", 48000, 2, 0),
    ("libopus", ".webm", 48000, 1, 0.5),
    ("libmp3lame", ".mp4", 44100, 2, 0),
    ("libmp3lame", ".mkv", 22050, 1, 0),
    ("libmp3lame", ".avi", 44100, 2, 0),
    ("mp2", ".mkv", 22050, 2, 0),
    ("ac3", ".mkv", 48000, 6, 0),
    ("vorbis", ".webm", 48000, 2, 0),
    ("flac", ".mkv", 48000, 2, 0),
    ("flac", ".mkv", 44100, 6, 0.4),
    ("alac", ".mov", 48000, 2, 0),
    ("wavpack", ".mkv", 48000, 2, 0),
    ("pcm_s16le", ".mov", 48000, 2, 0.3),
    ("pcm_s24le", ".mkv", 96000, 1, 0),
    ("pcm_f32le", ".mkv", 48000, 2, 0),
    ("pcm_u8", ".avi", 22050, 1, 0),
]


@dataclass(frozen=True)
class Pair:
    tune: Tune
    source: Path
    target: Path
    before: Heard
    after: Heard


@pytest.fixture(scope="module", params=MUTED, ids=lambda case: "-".join(map(str, case)))
def muted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    codec, suffix, rate, channels, start = request.param
    if not media.available(codec):
        pytest.skip(f"this PyAV has no encoder {codec}")
    tune = Tune(codec, clicks(rate, SECONDS - start, channels), rate, start)
    source = film(tmp_path_factory.mktemp("voice") / f"in{suffix}", [tune])
    target = change(source, VoiceOptions(mute=(SPAN,)))
    return Pair(tune, source, target, hear(source), hear(target))


class TestMuted:
    def test_nothing_is_heard_inside(self, muted: Pair) -> None:
        """Codecs smear what is outside over a few ms into the span; none of it comes from inside."""
        inside = muted.after.between(*SPAN)
        edge = round(0.05 * muted.after.rate)
        assert np.abs(inside).max() < (1e-9 if muted.tune.codec in LOSSLESS else 0.02)
        assert np.abs(inside[:, edge:-edge]).max() < 1e-4
        assert np.abs(muted.before.between(*SPAN)).max() > 0.1

    def test_clicks_keep_their_times(self, muted: Pair) -> None:
        times = [time for time in np.arange(0.1, SECONDS - 0.1, 0.5) + muted.tune.start if time < SECONDS - 0.1]
        outside = [time for time in times if time < SPAN[0] - 0.1 or time > SPAN[1] + 0.1]
        assert len(outside) >= 3
        for time in outside:
            one, other = (film_.between(time - 0.05, time + 0.08) for film_ in (muted.before, muted.after))
            assert abs(late_by(one[0], other[0])) <= 1

    def test_outside_the_sound_is_the_same(self, muted: Pair) -> None:
        for start, end in ((0.0, SPAN[0] - 0.006), (SPAN[1] + 0.006, SECONDS)):
            one, other = muted.before.between(start, end), muted.after.between(start, end)
            if muted.tune.codec in LOSSLESS:
                np.testing.assert_array_equal(other, one)
            else:  # encoded a second time: about as far from the first time's as that was from the truth
                first = round((start - muted.tune.start) * muted.before.rate)
                truth = muted.tune.samples[:, max(0, first) : first + one.shape[1]]
                one, other = one[:, max(0, -first) :], other[:, max(0, -first) :]
                assert np.square(one - other).sum() < 2 * np.square(one - truth).sum()

    def test_start_and_end(self, muted: Pair) -> None:
        """To a codec's frame: its delay may come before, as silence, where the container cannot say otherwise."""
        frame = 0 if muted.tune.codec in LOSSLESS else 1152 / muted.after.rate
        assert muted.before.start - frame - 0.001 <= muted.after.start <= muted.before.start + 0.001
        assert abs(muted.after.end - muted.before.end) <= frame + 1e-9

    def test_same_format(self, muted: Pair) -> None:
        with av.open(str(muted.source)) as one, av.open(str(muted.target)) as other:
            before, after = one.streams.audio[0], other.streams.audio[0]
            assert after.codec_context.codec.canonical_name == before.codec_context.codec.canonical_name
            assert (after.rate, after.layout.name) == (before.rate, before.layout.name)
            sizes = [sum(p.size for p in container.demux(audio=0)) for container in (one, other)]
            assert sizes[1] > 0.6 * sizes[0]  # a sixth of it is silent now


def test_the_fades_lie_outside(tmp_path: Path) -> None:
    """Every sample by hand: 0 inside, then 1/240, 2/240, ... of the input, untouched from 5 ms on."""
    source = film(tmp_path / "in.mkv", [Tune("pcm_f32le", np.ones((1, 3 * 48000)))])
    sound = hear(change(source, VoiceOptions(mute=((1.0, 2.0),)))).between(0, 3)[0]
    expected = np.ones(3 * 48000)
    expected[48000:96000] = 0
    ramp = np.arange(1, 241) / 240
    expected[96000:96240], expected[48000 - 240 : 48000] = ramp, ramp[::-1]
    np.testing.assert_allclose(sound, expected, atol=1e-6)


def test_edges_between_two_samples_are_muted_whole(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", [Tune("pcm_f32le", np.ones((1, 3 * 8000)), 8000)])
    sound = hear(change(source, VoiceOptions(mute=((1.00003, 2.00003),)))).between(0, 3)[0]
    silent = np.flatnonzero(sound == 0)
    assert (silent[0], silent[-1]) == (8000, 16000)


def test_spans_may_overlap_and_reach_the_ends(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", [Tune("flac", tone(440))])
    sound = hear(change(source, VoiceOptions(mute=((0, 0.5), (0.4, 1), (2.5, 99))))).between(0, 3)[0]
    heard = np.flatnonzero(sound)
    assert 48000 <= heard[0] < 48100
    assert 2.5 * 48000 - 100 < heard[-1] < 2.5 * 48000


@pytest.mark.parametrize(
    ("span", "silent"), [((0, 0.5), (-1.0, 0.5)), ((0.5, 1.0), (0.5, 1.0)), ((0.5, 2.0), (0.5, 3))]
)
def test_sound_before_the_first_frame_and_after_the_last(
    tmp_path: Path, span: tuple[float, float], silent: tuple[float, float]
) -> None:
    """The video runs from 1 s to 3 s, the sound from 0 to 4 s: times count from the first frame."""
    source = film(tmp_path / "in.mkv", [Tune("flac", tone(440, seconds=4) + 0.5)], seconds=2, first=5)
    sound = hear(change(source, VoiceOptions(mute=(span,)))).between(-1, 3)[0]
    times = np.flatnonzero(sound == 0) / 48000 - 1
    assert times[[0, -1]] == pytest.approx(silent, abs=1e-3)
    assert len(times) == pytest.approx((silent[1] - silent[0]) * 48000, abs=2)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("flac", ".mkv"), ("pcm_s16le", ".mkv"), ("aac", ".mkv"), ("aac", ".mp4")]
)
def test_a_gap_in_the_sound_stays(tmp_path: Path, codec: str, suffix: str) -> None:
    """What follows it is not moved up; and it is a gap still, where the container told it to begin with."""
    source = film(tmp_path / f"in{suffix}", [Tune(codec, clicks(), hole=(0.75, 1.25))])
    before, after = hear(source), hear(change(source, VoiceOptions(mute=((2.2, 2.4),))))
    assert len(after.pieces) == len(before.pieces)
    for time in (0.1, 1.6, 2.6):
        one, other = before.between(time - 0.05, time + 0.08), after.between(time - 0.05, time + 0.08)
        assert np.abs(one).max() > 0.1
        assert abs(late_by(one[0], other[0])) <= (48 if suffix == ".mkv" else 1)  # which counts milliseconds
    assert np.abs(after.between(0.85, 1.15)).max() < 0.01


@pytest.mark.parametrize(("late", "heard"), [(0.0012, 0.0), (0.004, 0.004), (0.03, 0.03), (-0.02, -0.02)])
def test_times_that_do_not_follow_on_each_other(tmp_path: Path, late: float, heard: float) -> None:
    """Less than packets' times can tell is no jump; more moves what follows, as a player would."""
    tune = Tune("pcm_s16le", clicks(), shift_after=late)
    source = film(tmp_path / "in.mkv", [tune], seconds=4)
    after = hear(change(source, VoiceOptions(mute=((0.2, 0.4),)))).between(0, 4)[0]
    for time in (1.1, 1.6, 2.1, 2.6):
        moved = time + heard * (time > 1.5)
        first = round((moved - 0.05) * 48000)
        piece = tune.samples[0, round((time - 0.05) * 48000) :][: round(0.13 * 48000)]
        assert abs(late_by(piece, after[first : first + len(piece)])) <= 0.001 * 48000 + 0.0012 * 48000 * (heard == 0)


SEMITONES = [-12, -5, -0.5, 4, 7.25, 12]


@pytest.mark.parametrize("semitones", SEMITONES)
def test_a_tone_moves_by_the_semitones(tmp_path: Path, semitones: float) -> None:
    source = film(tmp_path / "in.mkv", [Tune("flac", tone(440, channels=2))])
    after = hear(change(source, VoiceOptions(pitch=semitones, wander=0)))
    assert (after.start, after.end) == (0, SECONDS)
    sound = after.between(0.2, SECONDS - 0.2)
    np.testing.assert_array_equal(sound[0], sound[1])
    assert frequency(sound[0], 48000) == pytest.approx(440 * 2 ** (semitones / 12), rel=0.002)
    assert np.std(sound) == pytest.approx(np.std(tone(440)), rel=0.02)
    spectrum = np.abs(np.fft.rfft(sound[0] * np.hanning(sound.shape[1]))) ** 2
    best = int(np.argmax(spectrum))
    assert spectrum[best - 30 : best + 31].sum() > 0.999999 * spectrum.sum()  # 60 dB above all that was not there


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".mp4"), ("libopus", ".webm"), ("libmp3lame", ".mkv")])
def test_pitch_with_codecs_that_delay(tmp_path: Path, codec: str, suffix: str) -> None:
    source = film(tmp_path / f"in{suffix}", [Tune(codec, tone(440, channels=2))])
    before, after = hear(source), hear(change(source, VoiceOptions(pitch=4, wander=0)))
    assert frequency(after.between(0.2, SECONDS - 0.2)[0], 48000) == pytest.approx(440 * 2 ** (4 / 12), rel=0.01)
    assert after.start == pytest.approx(before.start, abs=0.001)
    assert after.end == pytest.approx(before.end, abs=1152 / 48000)


def bursts(rate: int, seconds: int, hertz: float) -> np.ndarray:
    """60 ms of a tone every second, from 0.5 s on."""
    sound = np.zeros((1, rate * seconds))
    length = round(0.06 * rate)
    for second in range(seconds):
        first = round((second + 0.5) * rate)
        sound[0, first : first + length] = (
            0.5 * np.hanning(length) * np.sin(2 * np.pi * hertz * np.arange(length) / rate)
        )
    return sound


def centres(sound: np.ndarray, rate: int) -> np.ndarray:
    """Where the energy of each second lies, in seconds."""
    power = np.square(sound).reshape(-1, rate)
    return (power * np.arange(rate)).sum(axis=1) / power.sum(axis=1) / rate


@pytest.mark.parametrize("semitones", [-7, 4])
def test_nothing_drifts_over_a_minute(tmp_path: Path, semitones: float) -> None:
    source = film(tmp_path / "in.mkv", [Tune("pcm_s16le", bursts(16000, 60, 200), 16000)], seconds=60)
    after = hear(change(source, VoiceOptions(pitch=semitones)))
    assert (after.start, after.end) == (0, 60)
    moved = centres(after.between(0, 60)[0], 16000) - centres(bursts(16000, 60, 200)[0], 16000)
    assert np.abs(moved).max() < 0.010
    assert abs(moved[-10:].mean() - moved[:10].mean()) < 0.002


@pytest.mark.parametrize("semitones", [-12, -3, 5, 12])
@pytest.mark.parametrize("block", [1, 100, 1152, 50_000])
def test_the_shifter_gives_as_much_as_it_gets(semitones: float, block: int) -> None:
    """In whatever pieces it comes, and the same sound."""
    sound = tone(300, 8000, 0.7).astype(np.float32)[:, : 700 if block == 1 else None]

    def shifted(step: int) -> np.ndarray:
        shifter = PitchShifter(1, 8000, lambda _: semitones, semitones)
        parts = [shifter.feed(sound[:, at : at + step]) for at in range(0, sound.shape[1], step)]
        return np.concatenate([*parts, shifter.end()], axis=1)

    assert shifted(block).shape == sound.shape
    np.testing.assert_allclose(shifted(block), shifted(sound.shape[1]), atol=1e-5)


def test_no_shift_is_no_change() -> None:
    sound = 0.3 * np.random.default_rng(0).standard_normal((2, 30_000)).astype(np.float32)
    smooth = np.apply_along_axis(np.convolve, 1, sound, np.hanning(9) / 4, "same").astype(np.float32)
    shifter = PitchShifter(2, 16000, lambda _: 0.0, 0)
    given = np.concatenate([shifter.feed(smooth), shifter.end()], axis=1)
    assert np.square(given - smooth)[:, 500:-500].mean() < 1e-3 * np.square(smooth).mean()


def test_the_shift_wanders_within_its_width() -> None:
    wander = Wander(4, 1)
    places = np.array([wander(seconds) for seconds in np.arange(0, 500, 0.05)])
    assert 3 <= places.min() < 3.3
    assert 4.7 < places.max() <= 5
    assert np.abs(np.diff(places)).max() < 0.05 * 2 * np.pi / 2 / Wander.WANDER_SECONDS + 1e-9
    other = np.array([Wander(4, 1)(seconds) for seconds in np.arange(0, 500, 0.05)])
    assert np.abs(places - other).max() > 0.5


def test_a_wandering_tone_stays_near_its_pitch_and_moves_alike_in_all_tracks(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", [Tune("flac", tone(440, seconds=12))] * 2, seconds=12)
    target = change(source, VoiceOptions(pitch=4))
    one, other = hear(target, 0), hear(target, 1)
    np.testing.assert_array_equal(one.between(0, 12), other.between(0, 12))
    shifts = [12 * np.log2(frequency(one.between(at, at + 0.25)[0], 48000) / 440) for at in np.arange(0.2, 11.5, 0.25)]
    assert min(shifts) > 2.9
    assert max(shifts) < 5.1
    assert max(shifts) - min(shifts) > 0.1


def test_nothing_of_a_muted_span_is_left_in_the_grains(tmp_path: Path) -> None:
    """Only the span holds sound: shifted and muted, the whole file is silent."""
    sound = np.zeros((1, SECONDS * 48000))
    sound[:, 48000:96000] = tone(200, seconds=1)
    source = film(tmp_path / "in.mkv", [Tune("flac", sound)])
    after = hear(change(source, VoiceOptions(mute=((1.0, 2.0),), pitch=-4)))
    assert not after.between(0, SECONDS).any()


def tracks(path: Path) -> list[dict[str, Any]]:
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type in ("audio", "subtitle")]
        found = {
            stream.index: {
                "type": stream.type,
                "codec": stream.codec_context.codec.canonical_name if stream.type == "audio" else stream.name,
                "disposition": int(stream.disposition),
                "metadata": {
                    k.lower(): v for k, v in stream.metadata.items() if k.lower() not in ("encoder", "duration")
                },
                "packets": [],
            }
            for stream in streams
        }
        for packet in container.demux(streams):
            if packet.size and bytes(packet) != b"\0\0":
                found[packet.stream_index]["packets"].append((packet.pts * packet.time_base, bytes(packet)))
    return list(found.values())


@pytest.mark.parametrize("name", ["tracks_mkv", "tracks_mp4"])
def test_every_track_is_changed_and_keeps_what_it_says_of_itself(tmp_path: Path, name: str) -> None:
    source = media.build(tmp_path / "in", replace(CLIPS[name], frames=50))
    target = change(source, VoiceOptions(mute=((0.5, 1.0),)))
    before, after = tracks(source), tracks(target)
    assert [track["type"] for track in before].count("audio") == 2
    for one, other in zip(before, after, strict=True):
        packets, changed = one.pop("packets"), other.pop("packets")
        assert other == one
        if one["type"] == "subtitle":
            assert changed == packets
    for number in (0, 1):
        sound = hear(target, number)
        assert np.abs(sound.between(0.55, 0.95)).max() < 1e-4
        assert np.abs(sound.between(1.1, 1.9)).max() > 0.2


def test_nothing_asked_for_copies_every_packet(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", [Tune("aac", clicks()), Tune("libopus", clicks())])
    assert tracks(change(source, VoiceOptions())) == tracks(source)


def test_another_container(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", [Tune("aac", clicks())])
    before, after = hear(source), hear(change(source, VoiceOptions(mute=(SPAN,)), ".mkv"))
    one, other = before.between(2.05, 2.18)[0], after.between(2.05, 2.18)[0]
    assert abs(late_by(one, other)) <= 1
    assert np.abs(after.between(SPAN[0] + 0.05, SPAN[1] - 0.05)).max() < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (VoiceOptions(mute=((3.5, 4.0),)), r"within the file's 3\.00 s.* got 3\.5-4"),
        (VoiceOptions(mute=((0.5, 1.0), (2.0, 1.0))), "t0 before t1, got 2-1"),
        (VoiceOptions(mute=((-1.0, 1.0),)), "got -1-1"),
        (VoiceOptions(mute=((float("nan"), 1.0),)), "got nan-1"),
        (VoiceOptions(pitch=13), "-12 to 12 semitones, got 13"),
        (VoiceOptions(pitch=float("nan")), "got nan"),
        (VoiceOptions(pitch=1, wander=3), "got 3"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, options: VoiceOptions, message: str) -> None:
    source = film(tmp_path / "in.mkv", [Tune("flac", clicks())])
    with pytest.raises(InputError, match=message):
        change(source, options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_a_video_without_sound(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", [])
    with pytest.raises(InputError, match="holds no sound"):
        change(source, VoiceOptions(pitch=3))


def test_a_codec_without_an_encoder_is_refused_before_work(tmp_path: Path) -> None:
    source = film(tmp_path / "in.avi", [Tune("libmp3lame", clicks()), Tune("adpcm_ms", clicks())])
    with pytest.raises(Refused, match=r"audio track 2 \(adpcm_ms\).*convert it first"):
        change(source, VoiceOptions(pitch=3))
    assert [path.name for path in tmp_path.iterdir()] == ["in.avi"]


def test_a_damaged_packet_is_a_gap_and_no_more(tmp_path: Path) -> None:
    tune = Tune("flac", clicks())
    source = film(tmp_path / "in.mkv", [tune])
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    middle = bytes(packets[10])
    data = source.read_bytes()
    assert data.count(middle) == 1
    source.write_bytes(data.replace(middle, bytes(len(middle))))
    after = hear(change(source, VoiceOptions(mute=((0.2, 0.4),))))
    np.testing.assert_allclose(after.between(2, 3), tune.samples[:, 2 * 48000 :], atol=1e-4)


def test_sound_that_was_lost_on_the_way_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(tmp_path / "in.mkv", [Tune("flac", clicks())])
    own = Segment._own
    monkeypatch.setattr(Segment, "_own", lambda self, packets: own(self, [p for p in packets if p.pts < 96000]))
    with pytest.raises(OutputError, match="audio track 1"):
        change(source, VoiceOptions(mute=(SPAN,)))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize("options", [VoiceOptions(mute=((1, 2),)), VoiceOptions(pitch=4)], ids=["mute", "pitch"])
def test_memory_does_not_grow_with_the_length(tmp_path: Path, options: VoiceOptions) -> None:
    peaks = []
    for seconds in (8, 32):
        source = film(tmp_path / "in.mkv", [Tune("pcm_s16le", tone(300, 8000, seconds), 8000)], seconds)
        tracemalloc.start()
        change(source, options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 8000 * 24  # less than a byte for each sample that was added
