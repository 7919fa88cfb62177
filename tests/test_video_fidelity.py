"""What `restore-video` must keep: everything but the pixels of the region.

Every clip is built, restored once and compared with what came out, through PyAV alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import media
import numpy as np
import pytest
from media import BLOCK, BOX, CLIPS, LOSSLESS, Audio, Clip, on_plane, planes

from ffmpeg_filters.cli import main

Box = tuple[int, int, int, int]
OF_THE_MUXER = {"encoder", "duration", "software", "vendor_id", "major_brand", "minor_version", "compatible_brands"}


@dataclass(frozen=True)
class Track:
    """A stream that is not the video to restore; times in seconds."""

    type: str
    codec: str
    disposition: int
    metadata: Mapping[str, str]
    packets: Sequence[tuple[Fraction | None, Fraction, bytes]]  # when, how long, what


@dataclass(frozen=True)
class Film:
    """What a file shows: the decoded video, and everything beside it."""

    times: Sequence[Fraction]
    end: Fraction  # of the last frame, as the container says
    rate: Fraction | None
    frames: Sequence[av.VideoFrame]
    codec: str
    sample_aspect: Fraction | None
    field_order: int
    colour: tuple[int, int, int, int]
    track: Track  # the video's, without its packets
    others: Sequence[Track]
    attachments: Sequence[tuple[str | None, str | None, bytes]]
    chapters: Sequence[tuple[Fraction, Fraction, Mapping[str, str]]]
    metadata: Mapping[str, str]


def written(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata without what muxers put there by themselves."""
    return {key: value for key, value in metadata.items() if key.lower() not in OF_THE_MUXER}


def probe(path: Path) -> Film:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        others = [stream for stream in container.streams if stream is not video and stream.type != "attachment"]
        packets: dict[int, list[tuple[Fraction | None, Fraction, bytes]]] = {s.index: [] for s in [video, *others]}
        frames, ends = [], []
        for packet in container.demux(video, *others):
            if packet.stream is video:
                frames += packet.decode()
                if packet.pts is not None:
                    ends.append((packet.pts + (packet.duration or 0)) * packet.time_base)
            elif packet.size:
                base = packet.time_base
                when = None if packet.pts is None else packet.pts * base
                packets[packet.stream.index].append((when, (packet.duration or 0) * base, bytes(packet)))
        tracks = [
            Track(s.type, getattr(s, "name", "") or "", int(s.disposition), written(s.metadata), packets[s.index])
            for s in [video, *others]
        ]
        context = video.codec_context
        return Film(
            [frame.pts * frame.time_base for frame in frames],
            max(ends),
            video.average_rate,
            frames,
            context.codec.canonical_name,
            video.sample_aspect_ratio,
            context.field_order,
            (context.color_range, context.color_primaries, context.color_trc, context.colorspace),
            tracks[0],
            tracks[1:],
            [(s.name, s.mimetype, s.data) for s in container.streams.attachments],
            [(c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]) for c in container.chapters()],
            written(container.metadata),
        )


@dataclass(frozen=True)
class Pair:
    clip: Clip
    before: Film
    after: Film


def region(box: Box) -> str:
    return ",".join(map(str, box))


def restore(source: Path, output: Path, *options: str, box: Box = BOX) -> int:
    regions = () if "--regions" in options else ("--regions", region(box))
    return main(
        [
            *(str(source), "-o", str(output), "--task", "demosaic", "--method", "bicubic"),
            *(*regions, "--block", str(BLOCK), "--quiet", *options),
        ]
    )


def build(folder: Path, clip: Clip) -> Path:
    if not media.available(clip.codec):
        pytest.skip(f"this PyAV has no encoder {clip.codec}")
    return media.build(folder / "in", clip)


def convert(folder: Path, clip: Clip, *options: str, suffix: str | None = None) -> Pair:
    source = build(folder, clip)
    output = folder / f"out{suffix or clip.suffix}"
    assert restore(source, output, *options, box=clip.box) == 0
    return Pair(clip, probe(source), probe(output))


@pytest.fixture(scope="module", params=CLIPS)
def followed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The output's codec and container follow the input's."""
    return convert(tmp_path_factory.mktemp(request.param), CLIPS[request.param])


@pytest.fixture(scope="module", params=LOSSLESS)
def lossless(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Nothing was lost before, and FFV1 loses nothing after."""
    return convert(tmp_path_factory.mktemp(request.param), LOSSLESS[request.param], "--codec", "ffv1")


def colours(film: Film) -> list[tuple[int, int, int, int]]:
    return [(f.color_range, f.color_primaries, f.color_trc, f.colorspace) for f in film.frames]


def side_data(film: Film, *names: str) -> list[dict[str, bytes]]:
    return [{data.type.name: bytes(data) for data in f.side_data if data.type.name in names} for f in film.frames]


def by_type(film: Film) -> dict[str, list[Track]]:
    """A muxer may order streams anew, but only among types: subtitles after audio, say."""
    kinds = {track.type: [] for track in film.others}
    for track in film.others:
        kinds[track.type].append(track)
    return kinds


def lower(metadata: Mapping[str, str]) -> dict[str, str]:
    """Matroska writes the keys it knows in capitals."""
    return {key.lower(): value for key, value in metadata.items()}


class TestFollowed:
    """The default: same codec, same container."""

    def test_codec(self, followed: Pair) -> None:
        assert followed.after.codec == followed.before.codec

    def test_times_of_the_frames(self, followed: Pair) -> None:
        assert followed.after.times == followed.before.times

    def test_end_of_the_last_frame(self, followed: Pair) -> None:
        if followed.clip.suffix != ".ts":  # which stores no durations
            assert followed.after.end == followed.before.end

    def test_frame_rate(self, followed: Pair) -> None:
        """What the container says of it, for players that ask; of uneven times each muxer makes another mean."""
        gaps = {b - a for a, b in zip(followed.before.times, followed.before.times[1:], strict=False)}
        if max(gaps, default=0) < 2 * min(gaps, default=0) or not gaps:
            assert followed.after.rate == followed.before.rate

    def test_size_and_pixel_format(self, followed: Pair) -> None:
        assert {(f.width, f.height, f.format.name) for f in followed.after.frames} == {
            (f.width, f.height, f.format.name) for f in followed.before.frames
        }

    def test_picture(self, followed: Pair) -> None:
        """Encoded again and no more: a wrong range, matrix or field order would show as far larger differences."""
        for before, after in zip(followed.before.frames, followed.after.frames, strict=True):
            for one, other in zip(planes(before), planes(after), strict=True):
                top = (1 << before.format.components[0].bits) - 1
                keep = np.ones(one.shape, bool)
                keep[on_plane(followed.clip.box, one, followed.clip.size)] = False
                if keep.any():
                    assert np.abs(one.astype(float) - other)[keep].mean() < 0.02 * top

    def test_sample_aspect_ratio(self, followed: Pair) -> None:
        assert (followed.after.sample_aspect or 1) == (followed.before.sample_aspect or 1)

    def test_rotation_and_mirroring(self, followed: Pair) -> None:
        assert side_data(followed.after, "DISPLAYMATRIX") == side_data(followed.before, "DISPLAYMATRIX")

    def test_colour_tags(self, followed: Pair) -> None:
        assert colours(followed.after) == colours(followed.before)
        assert followed.after.colour == followed.before.colour

    def test_hdr_data(self, followed: Pair) -> None:
        names = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
        assert side_data(followed.after, *names) == side_data(followed.before, *names)

    def test_field_order(self, followed: Pair) -> None:
        assert [f.interlaced_frame for f in followed.after.frames] == [
            f.interlaced_frame for f in followed.before.frames
        ]
        assert followed.after.field_order == followed.before.field_order

    def test_kinds_of_streams(self, followed: Pair) -> None:
        kinds = Counter((track.type, track.codec) for track in followed.before.others)
        assert Counter((track.type, track.codec) for track in followed.after.others) == kinds

    @pytest.mark.parametrize("kind", ["audio", "subtitle", "data", "video"])
    def test_packets_of_other_streams(self, followed: Pair, kind: str) -> None:
        """MP4 fills the gaps between subtitles with empty ones; those are the muxer's own."""
        before, after = (
            [[packet for packet in track.packets if packet[2] != b"\0\0"] for track in by_type(film).get(kind, [])]
            for film in (followed.before, followed.after)
        )
        assert after == before

    def test_dispositions(self, followed: Pair) -> None:
        assert followed.after.track.disposition == followed.before.track.disposition
        for kind, tracks in by_type(followed.before).items():
            assert [t.disposition for t in by_type(followed.after)[kind]] == [t.disposition for t in tracks]

    def test_metadata_of_streams(self, followed: Pair) -> None:
        assert lower(followed.after.track.metadata) == lower(followed.before.track.metadata)
        for kind in ("audio", "subtitle", "video"):  # tracks of chapters and time codes are the muxer's own
            before, after = (by_type(film).get(kind, []) for film in (followed.before, followed.after))
            assert [lower(track.metadata) for track in after] == [lower(track.metadata) for track in before]

    def test_metadata_of_the_file(self, followed: Pair) -> None:
        """The output says in its comment that it was restored, after what the input says there."""
        before, after = lower(followed.before.metadata), lower(followed.after.metadata)
        comment = after.pop("comment", "")
        assert comment.startswith(before.pop("comment", ""))
        assert after == before

    def test_chapters(self, followed: Pair) -> None:
        assert followed.after.chapters == followed.before.chapters

    def test_attachments(self, followed: Pair) -> None:
        assert followed.after.attachments == followed.before.attachments


def samples(frame: av.VideoFrame) -> Iterator[tuple[str, np.ndarray]]:
    """The planes one by one and by name; RGB in one order, whether packed or planar."""
    if frame.format.is_rgb:
        if len(frame.planes) == 1:
            (packed,) = planes(frame)
            order = {"bgr0": "bgr", "bgra": "bgra"}[frame.format.name]
            yield from ((name, packed[..., index : index + 1]) for index, name in enumerate(order))
        else:
            yield from zip("gbra", planes(frame), strict=False)
    else:
        for index, plane in enumerate(planes(frame)):
            yield "a" if media.is_alpha(frame, index) else "yuv"[index], plane


def assert_kept_outside(before: Film, after: Film, boxes: Callable[[Fraction], Sequence[Box]]) -> None:
    """Bit for bit outside the boxes, something changed in each box, and alpha is never touched."""
    assert after.times == before.times
    for time, one, other in zip(before.times, before.frames, after.frames, strict=True):
        size = (one.width, one.height)
        planes_before, planes_after = dict(samples(one)), dict(samples(other))
        assert planes_before.keys() == planes_after.keys()
        for name, plane in planes_before.items():
            keep = np.ones(plane.shape, bool)
            for box in boxes(time):
                keep[on_plane(box, plane, size)] = name == "a"
            np.testing.assert_array_equal(planes_after[name][keep], plane[keep], err_msg=f"plane {name} at {time} s")
        brightness = next(iter(planes_before))
        for box in boxes(time):
            where = on_plane(box, planes_before[brightness], size)
            assert (planes_after[brightness][where] != planes_before[brightness][where]).mean() > 0.5


class TestLossless:
    """From one lossless file to another, whatever the pixel format."""

    def test_pixel_format(self, lossless: Pair) -> None:
        before, after = ({f.format.name for f in film.frames} for film in (lossless.before, lossless.after))
        assert after == before

    def test_pixels_outside_the_region(self, lossless: Pair) -> None:
        assert_kept_outside(lossless.before, lossless.after, lambda time: [lossless.clip.box])

    def test_means_of_the_cells(self, lossless: Pair) -> None:
        """To RGB and back with the right matrix and range: the restored cells still have the mosaic's colours."""
        for one, other in zip(lossless.before.frames, lossless.after.frames, strict=True):
            after = dict(samples(other))
            for name, plane in samples(one):
                where = on_plane(lossless.clip.box, plane, lossless.clip.size)
                top = (1 << one.format.components[0].bits) - 1
                difference = cell_means(after[name][where]) - cell_means(plane[where])
                assert np.abs(difference).max() < 2 / 255 * top, f"plane {name}"

    def test_tags(self, lossless: Pair) -> None:
        assert lossless.after.colour[0] == lossless.before.colour[0] or lossless.before.frames[0].format.is_rgb
        assert colours(lossless.after)[0][1:3] == colours(lossless.before)[0][1:3]
        assert [f.interlaced_frame for f in lossless.after.frames] == [
            f.interlaced_frame for f in lossless.before.frames
        ]


def cell_means(plane: np.ndarray) -> np.ndarray:
    """Of the two by two cells that divide a plane's part evenly enough for any subsampling."""
    height, width = plane.shape[0] // 2, plane.shape[1] // 2
    return plane[: 2 * height, : 2 * width].reshape(2, height, 2, width, -1).mean((1, 3))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv411p", "yuv422p10le", "bgr0", "gbrp10le", "gray"])
def test_a_region_off_the_chroma_grid(tmp_path: Path, pix_fmt: str) -> None:
    """Chroma that the region touches may change, and no sample beside it."""
    box = (33, 17, 61, 45)
    pair = convert(tmp_path, replace(LOSSLESS["ffv1_yuv420p"], pix_fmt=pix_fmt, box=box), "--codec", "ffv1")
    assert_kept_outside(pair.before, pair.after, lambda time: [box])


def test_several_regions_and_their_times(tmp_path: Path) -> None:
    left, right = (0, 0, 48, 96), (128, 16, 32, 32)
    clip = replace(LOSSLESS["ffv1_yuv420p"], frames=8, box=(0, 0, 160, 96))
    pair = convert(tmp_path, clip, "--regions", region(left), "--regions", f"{region(right)},0.08-0.2")

    def boxes(time: Fraction) -> list[Box]:
        return [left, right] if Fraction("0.08") <= time < Fraction("0.2") else [left]

    assert_kept_outside(pair.before, pair.after, boxes)


def test_a_region_that_fills_the_picture(tmp_path: Path) -> None:
    whole = (0, 0, 160, 96)
    pair = convert(tmp_path, replace(LOSSLESS["ffv1_yuv420p"], box=whole), "--codec", "ffv1")
    assert_kept_outside(pair.before, pair.after, lambda time: [whole])


@pytest.mark.parametrize(
    ("clip", "suffix"),
    [
        (CLIPS["rate_29_97"], ".mkv"),  # which counts milliseconds
        (CLIPS["b_frames_mkv"], ".mp4"),
        (CLIPS["starts_late_mkv"], ".mov"),
        (CLIPS["h264_aac"], ".ts"),
        (replace(CLIPS["h264_ts"], times=None, audio=[Audio()]), ".ts"),
    ],
    ids=["mp4 to mkv", "mkv to mp4", "mkv to mov", "mp4 to ts", "ts from zero"],
)
def test_containers_that_tell_time_otherwise(tmp_path: Path, clip: Clip, suffix: str) -> None:
    """A container without negative times may begin later, all streams alike; and ticks may be coarser."""
    pair = convert(tmp_path, clip, suffix=suffix)
    assert pair.after.codec == pair.before.codec
    later = pair.after.times[0] - pair.before.times[0]
    for before, after in zip(pair.before.times, pair.after.times, strict=True):
        assert abs(after - before - later) <= Fraction(1, 1000)
    for before, after in zip(pair.before.others, pair.after.others, strict=True):
        for (when, _, _), (then, _, _) in zip(before.packets, after.packets, strict=True):
            assert abs(then - when - later) <= Fraction(1, 1000)
        if ".ts" not in (clip.suffix, suffix):  # AAC has other headers there
            assert [data for _, _, data in after.packets] == [data for _, _, data in before.packets]


def test_start_and_end(tmp_path: Path) -> None:
    """Seconds from the first frame, wherever that is."""
    clip = replace(LOSSLESS["ffv1_yuv420p"], frames=8, times=range(30, 38))
    pair = convert(tmp_path, clip, "--start", "0.08", "--end", "0.2")
    first = pair.before.times[0]
    assert_kept_outside(
        pair.before, pair.after, lambda time: [BOX] if Fraction("0.08") <= time - first < Fraction("0.2") else []
    )


def test_preview(tmp_path: Path) -> None:
    """A picture of before and after side by side, and no video."""
    source = build(tmp_path, replace(LOSSLESS["ffv1_yuv420p"], frames=8))
    assert restore(source, tmp_path / "shown.png", "--preview", "0.2") == 0
    assert {path.name for path in tmp_path.iterdir()} == {source.name, "shown.png"}
    shown = cv2.imread(str(tmp_path / "shown.png"))
    frame = media.decode(source)[5].to_ndarray(format="bgr24")
    before, after = np.hsplit(shown.astype(int), 2)
    assert np.abs(before - frame).mean() < 2
    x, y, width, height = BOX
    changed = np.abs(after - before).max(axis=2) > 0
    assert changed[y : y + height, x : x + width].mean() > 0.5
    changed[y : y + height, x : x + width] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("clip", "pix_fmt"), [(media.YUVJ420P, "yuv420p"), (media.GBRP, "bgr0")], ids=["yuvj420p", "gbrp"]
)
def test_a_pixel_format_under_another_name(tmp_path: Path, clip: Clip, pix_fmt: str) -> None:
    """The same samples, so nothing may be lost: no change of range, no YUV in between."""
    pair = convert(tmp_path, clip, "--codec", "ffv1", "--pix-fmt", pix_fmt)
    assert {f.format.name for f in pair.after.frames} == {pix_fmt}
    assert pair.after.colour[0] == pair.before.colour[0] or pix_fmt == "bgr0"
    assert_kept_outside(pair.before, pair.after, lambda time: [BOX])


@pytest.mark.parametrize("range_", [media.LIMITED, media.FULL])
def test_another_pixel_format(tmp_path: Path, range_: int) -> None:
    """Finer chroma and more bits; brightness outside the region stays what it was."""
    colour = media.Colour(range_, media.BT709, media.BT709, media.BT709)
    clip = replace(LOSSLESS["ffv1_yuv420p"], colour=colour)
    pair = convert(tmp_path, clip, "--pix-fmt", "yuv444p10le")
    assert colours(pair.after) == colours(pair.before)
    for one, other in zip(pair.before.frames, pair.after.frames, strict=True):
        before, after = planes(one)[0].astype(float) * 4, planes(other)[0]
        keep = np.ones(before.shape, bool)
        keep[on_plane(BOX, before, clip.size)] = False
        assert np.abs(before - after)[keep].max() <= 4


@pytest.mark.parametrize(("name", "suffix"), [("tracks_mkv", ".mp4"), ("tracks_mkv", ".webm"), ("h264_aac", ".webm")])
def test_a_container_that_cannot_hold_it_all_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, suffix: str
) -> None:
    source = build(tmp_path, CLIPS[name])
    assert restore(source, tmp_path / f"out{suffix}") == 4
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("restore-video: ")
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_the_codec_and_pixel_format_asked_for(tmp_path: Path) -> None:
    options = ("--codec", "libx264", "--quality", "30", "--pix-fmt", "yuv444p")
    pair = convert(tmp_path, CLIPS["hevc_10_bit"], *options)
    assert pair.after.codec == "h264"
    assert {f.format.name for f in pair.after.frames} == {"yuv444p"}


def test_quality(tmp_path: Path) -> None:
    source = build(tmp_path, CLIPS["h264_aac"])
    sizes = []
    for quality in ("10", "40"):
        output = tmp_path / f"{quality}.mp4"
        assert restore(source, output, "--quality", quality) == 0
        sizes.append(output.stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]


def test_a_second_run_gives_the_same_pictures(tmp_path: Path) -> None:
    source = build(tmp_path, CLIPS["h264_aac"])
    outputs = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    assert [restore(source, output) for output in outputs] == [0, 0]
    for one, other in zip(*map(media.decode, outputs), strict=True):
        for plane_one, plane_other in zip(planes(one), planes(other), strict=True):
            np.testing.assert_array_equal(plane_one, plane_other)


def test_a_plan_does_what_regions_do(tmp_path: Path) -> None:
    source = build(tmp_path, LOSSLESS["ffv1_yuv420p"])
    plan = tmp_path / "plan.jsonl"
    entry = {"box": list(BOX), "block": [BLOCK, BLOCK]}
    lines = [{"plan": 1, "task": "demosaic", "source": {}}, *({"frame": i, "regions": [entry]} for i in (0, 1, 3))]
    plan.write_text("\n".join(map(json.dumps, lines)))
    output = tmp_path / "out.mkv"
    assert main([str(source), "-o", str(output), "--task", "demosaic", "--method", "bicubic", "--plan", str(plan)]) == 0
    before, after = probe(source), probe(output)
    assert_kept_outside(before, after, lambda time: [] if time == before.times[2] else [BOX])


def test_quiet_says_nothing_and_json_is_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = build(tmp_path, CLIPS["h264_aac"])
    capfd.readouterr()
    assert restore(source, tmp_path / "quiet.mp4") == 0
    assert capfd.readouterr() == ("", "")
    assert restore(source, tmp_path / "told.mp4", "--json") == 0
    out = capfd.readouterr().out
    assert [json.loads(line) for line in out.splitlines()]


HOLDS: dict[str, Callable[[Film], object]] = {
    "h264_aac": lambda film: len(film.others[0].packets) > 5,
    "rate_29_97": lambda film: film.times[1] == Fraction(1001, 30000),
    "rate_changes": lambda film: len({b - a for a, b in zip(film.times, film.times[1:], strict=False)}) > 4,
    "rate_changes_fine": lambda film: film.times[1].denominator > 1000,
    "starts_late": lambda film: film.times[0] == Fraction(6, 5),
    "starts_late_mkv": lambda film: film.times[0] == Fraction(6, 5),
    "b_frames": lambda film: any(f.pict_type == av.video.frame.PictureType.B for f in film.frames),
    "tracks_mkv": lambda film: (
        len(film.others) == 4
        and len(film.chapters) == 2
        and film.attachments
        and film.metadata["title"]
        and {t.disposition for t in film.others} == {0, 1, 8, 64}
        and film.others[0].metadata["language"] == "eng"
        and all(t.packets for t in film.others)
    ),
    "tracks_mp4": lambda film: {t.type for t in film.others} >= {"audio", "subtitle"} and len(film.chapters) == 2,
    "cover": lambda film: any(t.type == "video" and t.packets for t in film.others),
    "timecode_mov": lambda film: film.track.metadata["timecode"] == "01:00:00:00",
    "rotated": lambda film: film.frames[0].rotation == 90,
    "rotated_mkv": lambda film: film.frames[0].rotation,
    "mirrored": lambda film: side_data(film, "DISPLAYMATRIX")[0],
    "wide_pixels": lambda film: film.sample_aspect == Fraction(16, 11),
    "bt709_full": lambda film: film.colour == (2, 1, 1, 1),
    "pal": lambda film: film.colour == (1, 5, 6, 5),
    "hdr10": lambda film: (
        all(side_data(film, "MASTERING_DISPLAY_METADATA")) and all(side_data(film, "CONTENT_LIGHT_LEVEL"))
    ),
    "interlaced": lambda film: film.field_order == 2 and all(f.interlaced_frame for f in film.frames),
    "interlaced_mkv": lambda film: film.field_order == 3 and all(f.interlaced_frame for f in film.frames),
    "vp9_opus": lambda film: film.codec == "vp9" and film.others[0].codec == "opus",
    "av1": lambda film: film.codec == "av1",
    "one_frame": lambda film: len(film.frames) == 1,
}


@pytest.mark.parametrize("name", HOLDS)
def test_the_clips_hold_what_their_names_say(tmp_path: Path, name: str) -> None:
    """Else a test above that compares nothing with nothing would pass."""
    assert HOLDS[name](probe(build(tmp_path, CLIPS[name])))
