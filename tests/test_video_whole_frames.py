"""`restore-video` and `restore-image` with a task that works on whole frames: no plan, neighbours, all else kept.

What the network does is tested elsewhere: most of these use one that only darkens, so that every changed sample shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import media
import numpy as np
import pytest
import tifffile
from media import CLIPS, FFV1, PLAIN, Clip, build, decode, on_plane, planes
from PIL import Image

from ffmpeg_filters import render
from ffmpeg_filters.cli import main
from restore_plugin import catalog, image_cli
from restore_plugin.derain import RAINNET, Derain
from restore_plugin.types import Mask, Pixels, Region, Support

DARKER = 0.25  # of [0, 1]: what the simple network takes away
BOX = (48, 24, 64, 40)  # x, y, width, height; even, so that chroma belongs to it alone
LOSSLESS = replace(FFV1, frames=8)


class Darkening:
    """An engine."""

    name, device, precision = "darkening", "CPU", "fp32"

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"residual": np.full_like(inputs["picture"], -DARKER)}

    def submit(self, inputs: Mapping[str, Any]) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        future.set_result(self.run(inputs))
        return future

    def close(self) -> None:
        pass

    def __enter__(self) -> Darkening:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Watched(Derain):
    """Remembers how much brightness each of its neighbours had."""

    def __init__(self) -> None:
        super().__init__(Darkening(), RAINNET, Support())
        self.neighbours: list[tuple[float, ...]] = []

    def __call__(
        self, pixels: Pixels, mask: Mask | None = None, neighbours: Sequence[Pixels] = (), region: Region | None = None
    ) -> Pixels:
        self.neighbours.append(tuple(float(each.mean()) for each in neighbours))
        return super().__call__(pixels, mask, neighbours, region)


@pytest.fixture
def darkening(monkeypatch: pytest.MonkeyPatch) -> Watched:
    restorer = Watched()
    monkeypatch.setattr(catalog, "build_restorer", lambda *how: restorer)
    return restorer


def run(source: Path, output: Path, *options: object) -> int:
    return main([str(source), "-o", str(output), "--task", "derain", *map(str, options)])


def darker(one: av.VideoFrame, other: av.VideoFrame) -> np.ndarray:
    """By how much of [0, 1] each pixel's luma fell, (H, W)."""
    top = (1 << one.format.components[0].bits) - 1
    return (planes(one)[0][..., 0].astype(float) - planes(other)[0][..., 0]) / top


def same(one: av.VideoFrame, other: av.VideoFrame) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(planes(one), planes(other), strict=True))


def sound(path: Path) -> list[tuple[Fraction | None, bytes]]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(None if p.pts is None else p.pts * p.time_base, bytes(p)) for p in packets]


@pytest.mark.parametrize("name", ["h264_aac", "rate_changes_mkv", "starts_late", "b_frames", "hevc_10_bit", "tiny"])
def test_every_frame_at_its_time_with_its_sound(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """With the shipped network, from the command to the file."""
    source = build(tmp_path / "in", CLIPS[name])
    output = (tmp_path / "out").with_suffix(source.suffix)
    capfd.readouterr()
    assert run(source, output, "--json") == 0
    said = capfd.readouterr()
    assert said.err == ""
    done = json.loads(said.out.splitlines()[-1])
    count = CLIPS[name].frames
    assert (done["frames"], done["restored_frames"]) == (count, count)
    before, after = decode(source), decode(output)
    assert [frame.time for frame in after] == [frame.time for frame in before]
    assert [(f.width, f.height, f.format.name) for f in after] == [(f.width, f.height, f.format.name) for f in before]
    if CLIPS[name].audio:
        assert sound(output) == sound(source)
    with av.open(str(output)) as container:
        comment = {key.lower(): value for key, value in container.metadata.items()}["comment"]
    assert "derain" in comment
    assert "not evidence" in comment
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, output.name])


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "gray", "bgr0"])
def test_whole_frames_are_restored_in_order(tmp_path: Path, darkening: Watched, pix_fmt: str) -> None:
    source = build(tmp_path / "in", replace(LOSSLESS, pix_fmt=pix_fmt))
    assert run(source, tmp_path / "out.mkv") == 0
    before, after = decode(source), decode(tmp_path / "out.mkv")
    for one, other in zip(before, after, strict=True):
        assert darker(one, other).min() > 0.15  # everywhere, and each frame against itself
        assert darker(one, other).max() < 0.3
    means = [float(frame.to_ndarray(format="rgb24").mean()) / 255 for frame in before]
    order = [2, 1, *range(len(means)), len(means) - 2, len(means) - 3]  # mirrored at the ends
    expected = [[means[order[at + step]] for step in (0, 1, 3, 4)] for at in range(len(means))]
    found = sorted(darkening.neighbours)  # two frames are restored at once
    np.testing.assert_allclose(found, sorted(map(tuple, expected)), atol=0.01)


@pytest.mark.parametrize(
    ("options", "restored"),
    [
        (("--start", "0.12"), range(3, 8)),
        (("--end", "0.12"), range(0, 3)),
        (("--start", "0.08", "--end", "0.2"), range(2, 5)),
        (("--regions", "0,0,160,96,0.04-0.12"), range(1, 3)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_other_frames_are_kept_to_the_bit(
    tmp_path: Path, darkening: Watched, options: tuple[str, ...], restored: range
) -> None:
    source = build(tmp_path / "in", LOSSLESS)
    assert run(source, tmp_path / "out.mkv", *options) == 0
    changed = []
    for index, (one, other) in enumerate(zip(decode(source), decode(tmp_path / "out.mkv"), strict=True)):
        if not same(one, other):
            changed.append(index)
            assert darker(one, other).min() > 0.15
    assert changed == list(restored)
    assert len(darkening.neighbours) == len(changed)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "gray"])
def test_regions_are_restored_alone(tmp_path: Path, darkening: Watched, pix_fmt: str) -> None:
    source = build(tmp_path / "in", replace(LOSSLESS, pix_fmt=pix_fmt))
    other_box = (0, 80, 16, 16)
    regions = [f"--regions={','.join(map(str, box))}" for box in (BOX, other_box)]
    assert run(source, tmp_path / "out.mkv", *regions) == 0
    for one, other in zip(decode(source), decode(tmp_path / "out.mkv"), strict=True):
        for before, after in zip(planes(one), planes(other), strict=True):
            outside = np.ones(before.shape[:2], bool)
            for box in (BOX, other_box):
                outside[on_plane(box, before, (one.width, one.height))] = False
            np.testing.assert_array_equal(before[outside], after[outside])
        for x, y, width, height in (BOX, other_box):
            assert darker(one, other)[y : y + height, x : x + width].min() > 0.15


def test_a_network_that_changes_nothing_keeps_the_video_to_the_bit(
    tmp_path: Path, darkening: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clip's noise moves, so the neighbours do nothing either."""
    monkeypatch.setattr(Darkening, "run", lambda self, inputs: {"residual": np.zeros_like(inputs["picture"])})
    source = build(tmp_path / "in", replace(LOSSLESS, pix_fmt="yuv420p10le"))
    assert run(source, tmp_path / "out.mkv") == 0
    for one, other in zip(decode(source), decode(tmp_path / "out.mkv"), strict=True):
        assert same(one, other)


@pytest.mark.parametrize("regions", [(), ("--regions", "48,24,64,40")])
def test_preview(tmp_path: Path, darkening: Watched, regions: tuple[str, ...]) -> None:
    source = build(tmp_path / "in", PLAIN)
    assert run(source, tmp_path / "look.png", "--preview", "0.2", *regions) == 0
    picture = cv2.imread(str(tmp_path / "look.png")).astype(float) / 255
    assert picture.shape == (96, 320, 3)
    fell = picture[:, :160] - picture[:, 160:]
    x, y, width, height = BOX if regions else (0, 0, 160, 96)
    inside = np.zeros((96, 160), bool)
    inside[y : y + height, x : x + width] = True
    assert fell[inside].mean() == pytest.approx(DARKER, abs=0.03)
    assert np.abs(fell[~inside]).sum() == 0
    assert {path.name for path in tmp_path.iterdir()} == {source.name, "look.png"}


def test_preview_outside_of_the_regions_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = build(tmp_path / "in", PLAIN)
    capfd.readouterr()
    assert run(source, tmp_path / "look.png", "--preview", "0.2", "--regions", "0,0,64,64,0.3-0.4") == 3
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize("options", [(), ("--regions", "0,0,64,64"), ("-o", "plan.jsonl")])
def test_there_is_nothing_to_scan(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = build(tmp_path / "in", PLAIN)
    capfd.readouterr()
    assert main(["scan", str(source), "--task", "derain", *options]) == 2
    said = capfd.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("restore-video: ")
    assert "whole frames" in line
    assert said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four frames are safe at a time, instead of some hundred."""
    monkeypatch.setattr(render, "PART_FRAMES", 4)
    return


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize("at", [2, 5, 9, 11])  # the frame at which it is cut off: in the first part, or later
def test_a_run_that_is_cut_off_ends_as_one_that_was_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Neighbours before the frame to go on with are those of the input, not of what was done."""
    source = build(tmp_path / "in", replace(FFV1, frames=12, audio=[media.Audio("pcm_s16le")]))
    options = ("--engine", "openvino", "--deterministic")
    assert run(source, tmp_path / "whole.mkv", *options) == 0

    add = render.PartEncoder.add

    def interrupted(self: Any, frame: Any, *when: Any) -> None:
        if frame.index == at:
            raise KeyboardInterrupt
        add(self, frame, *when)

    capfd.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(render.PartEncoder, "add", interrupted)
        assert run(source, tmp_path / "out.mkv", *options) == 130
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out.mkv").exists()
    assert (tmp_path / ".out.mkv.resume" / "video.spool").exists()

    made = []
    monkeypatch.setattr(
        render.PartEncoder, "add", lambda self, frame, *w: (made.append(frame.index), add(self, frame, *w))
    )
    assert run(source, tmp_path / "out.mkv", *options) == 0
    assert made == list(range(at // 4 * 4, 12))  # from the last part on
    assert {path.name for path in tmp_path.iterdir()} == {source.name, "whole.mkv", "out.mkv"}
    once, again = decode(tmp_path / "whole.mkv"), decode(tmp_path / "out.mkv")
    assert [frame.time for frame in again] == [frame.time for frame in once]
    assert all(same(one, other) for one, other in zip(once, again, strict=True))
    assert sound(tmp_path / "whole.mkv") == sound(tmp_path / "out.mkv")
    sizes = {name: (tmp_path / name).stat().st_size for name in ("whole.mkv", "out.mkv")}
    assert sizes["whole.mkv"] == sizes["out.mkv"]


def test_a_folder_of_videos(tmp_path: Path, darkening: Watched) -> None:
    folder = tmp_path / "rainy"
    folder.mkdir()
    for name in ("a", "b"):
        build(folder / name, replace(LOSSLESS, frames=2))
    assert run(folder, tmp_path / "dry") == 0
    for name in ("a", "b"):
        after = decode(tmp_path / "dry" / f"{name}.restored.mkv")
        assert [darker(*pair).min() > 0.15 for pair in zip(decode(folder / f"{name}.mkv"), after, strict=True)] == [
            True
        ] * 2


@pytest.mark.parametrize(
    "made", [replace(FFV1, frames=1), replace(FFV1, frames=2), replace(FFV1, size=(16, 16), box=(0, 0, 16, 16))]
)
def test_shorter_than_the_window_and_smaller_than_the_grid(tmp_path: Path, made: Clip) -> None:
    source = build(tmp_path / "in", made)
    assert run(source, tmp_path / "out.mkv") == 0
    assert [frame.time for frame in decode(tmp_path / "out.mkv")] == [frame.time for frame in decode(source)]


# --- stills


def restore_image(*arguments: object) -> int:
    return image_cli.main(["--task", "derain", *map(str, arguments)])


def samples(dtype: str, channels: int) -> np.ndarray:
    random, top = np.random.default_rng(2), np.iinfo(dtype).max
    smooth = cv2.GaussianBlur(random.random((80, 96, channels)), (0, 0), 2).reshape(80, 96, channels)
    return (
        np.round((0.4 + 0.5 * cv2.normalize(smooth, None, 0, 1, cv2.NORM_MINMAX)) * top)
        .astype(dtype)
        .reshape(80, 96, -1)
    )


def write(path: Path, array: np.ndarray) -> Path:
    """RGB(A) in 8 or 16 bits, by another library than the one that is tested."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="rgb", extrasamples=["unassalpha"] * (array.shape[2] - 3))
        return path
    order = [2, 1, 0, 3][: array.shape[2]]
    assert cv2.imwrite(str(path), array[..., order])
    return path


def read(path: Path) -> np.ndarray:
    if path.suffix == ".tif":
        return tifffile.imread(path)
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found[..., [2, 1, 0, 3][: found.shape[2]]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_still_is_restored_whole(tmp_path: Path, darkening: Watched, dtype: str, channels: int, suffix: str) -> None:
    image = samples(dtype, channels)
    source = write(tmp_path / f"in{suffix}", image)
    before = source.read_bytes()
    assert restore_image(source, "-o", tmp_path / f"out{suffix}", "--quiet") == 0
    out, top = read(tmp_path / f"out{suffix}"), np.iinfo(dtype).max
    assert (out.dtype, out.shape) == (image.dtype, image.shape)
    expected = np.clip(image[..., :3] / top - DARKER, 0, 1)
    assert np.abs(out[..., :3] / top - expected).max() <= 0.501 / top
    np.testing.assert_array_equal(out[..., 3:], image[..., 3:])  # alpha
    assert source.read_bytes() == before
    assert darkening.neighbours == [()]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("how", ["mask", "regions"])
def test_a_still_is_restored_where_it_is_told(tmp_path: Path, darkening: Watched, how: str, dtype: str) -> None:
    image = samples(dtype, 4)
    source = write(tmp_path / "in.png", image)
    mask = np.zeros((80, 96), bool)
    if how == "mask":
        cv2.ellipse(drawn := np.zeros(mask.shape, np.uint8), (40, 30), (25, 12), 20, 0, 360, 255, -1)
        Image.fromarray(drawn).save(tmp_path / "mask.png")
        mask, options = drawn > 0, ("--mask", tmp_path / "mask.png")
    else:
        mask[10:40, 20:70] = mask[60:80, 0:9] = True
        options = ("--regions", "20,10,50,30", "--regions", "0,60,9,20")  # type: ignore[assignment]
    assert restore_image(source, *options, "-o", tmp_path / "out.png", "--quiet") == 0
    out = read(tmp_path / "out.png")
    np.testing.assert_array_equal(out[~mask], image[~mask])
    np.testing.assert_array_equal(out[..., 3], image[..., 3])
    fell = (image[mask].astype(float) - out[mask])[:, :3] / np.iinfo(dtype).max
    np.testing.assert_allclose(fell, DARKER, atol=0.003)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_a_still_through_the_shipped_network(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str) -> None:
    source = write(tmp_path / f"in{suffix}", samples("uint8", 3))
    capfd.readouterr()
    assert restore_image(source, "-o", tmp_path / f"out{suffix}") == 0
    said = capfd.readouterr()
    assert "plausible, not evidence" in said.out
    assert read(tmp_path / f"out{suffix}").shape == (80, 96, 3)
    assert b"derain" in (tmp_path / f"out{suffix}").read_bytes()
