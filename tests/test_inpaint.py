"""Inpainting of pictures: what is hidden has no say, what is known stays, and holes do not fill each other."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from residual_tests import SCALES, TYPES, FakeEngine
from skimage import data

import restore_plugin
from restore_plugin import catalog, image_cli, inpaint, regions
from restore_plugin.errors import InputError, NothingFound
from restore_plugin.metrics import psnr
from restore_plugin.pipeline import ArrayFrame, PictureRestorer
from restore_plugin.regions import clustered, grown, regions_under, restore_frame, union
from restore_plugin.types import Box, Needs, Region, RestoreOptions, Support

METHODS = [row.name for row in catalog.METHODS if row.task == "inpaint"]
EVERY = pytest.mark.parametrize("method", METHODS)
MADE: dict[str, PictureRestorer] = {}


def restorer(method: str) -> PictureRestorer:
    if method not in MADE:
        MADE[method] = restore_plugin.load(method)
    return MADE[method]


def photograph() -> np.ndarray:
    """(240, 300, 3) uint8"""
    return np.ascontiguousarray(data.astronaut()[:240, :300])


def writing(height: int = 240, width: int = 300) -> np.ndarray:
    """Letters, and a disc apart from them."""
    drawn = np.zeros((height, width), np.uint8)
    cv2.putText(drawn, "holes", (20, 200), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 1, 5)
    cv2.circle(drawn, (250, 50), 22, 1, -1)
    return drawn.astype(bool)


def in_hole(found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    return psnr(found[mask][None].astype(np.float32) / 255, truth[mask][None].astype(np.float32) / 255)


def test_the_catalogue_has_the_methods() -> None:
    assert METHODS[0] == catalog.task("inpaint").default == "fillnet"
    assert {"partial_conv", "patches", "smooth", "telea", "navier_stokes"} < set(METHODS)


@EVERY
def test_what_is_hidden_has_no_say(method: str) -> None:
    """Not in its own hole, and not in another one nearby."""
    truth, mask = photograph(), writing()
    noise = np.random.default_rng(0).integers(0, 256, truth.shape, np.uint8)
    found = [restorer(method)(np.where(mask[..., None], hidden, truth), mask) for hidden in (truth, 0 * truth, noise)]
    np.testing.assert_array_equal(found[0][~mask], truth[~mask])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@EVERY
def test_better_than_what_it_was_given_and_than_a_mean_colour(method: str) -> None:
    truth, mask = photograph(), writing()
    found = restorer(method)(np.where(mask[..., None], np.uint8(255), truth), mask)
    plain = np.broadcast_to(truth[~mask].mean(0).round(), truth.shape)
    assert in_hole(found, truth, mask) > in_hole(plain, truth, mask) + 5


@EVERY
@TYPES
def test_types(method: str, dtype: Any) -> None:
    mask = writing()
    picture = (photograph().astype(np.float64) / 255 * SCALES[dtype]).astype(dtype)
    found = restorer(method)(picture, mask)
    assert found.dtype == dtype
    assert found.shape == picture.shape
    np.testing.assert_array_equal(found[~mask], picture[~mask])
    scaled = found.astype(np.float64) / SCALES[dtype]
    assert np.abs(scaled - restorer(method)(photograph(), mask) / 255.0).mean() < 0.004


@pytest.mark.parametrize(("method", "how"), [("telea", cv2.INPAINT_TELEA), ("navier_stokes", cv2.INPAINT_NS)])
def test_opencvs_methods_agree_with_it_in_8_bits(method: str, how: int) -> None:
    truth, mask = photograph(), writing()
    theirs = cv2.inpaint(truth, mask.astype(np.uint8), 3, how).astype(float)
    away = np.abs(restorer(method)(truth, mask) - theirs)[mask]
    assert np.median(away) <= 1  # rounding differs, and now and then what follows from it
    assert away.mean() < 2


def test_smooth_continues_a_ramp() -> None:
    y, x = np.mgrid[:90, :120].astype(np.float32)
    ramp = np.stack((x / 200, y / 200, (x + y) / 300), -1)
    mask = np.zeros(ramp.shape[:2], bool)
    mask[20:60, 30:80] = True
    assert np.abs(restorer("smooth")(ramp, mask) - ramp).max() < 1e-3


def roughness(picture: np.ndarray, mask: np.ndarray) -> float:
    grey = picture.astype(np.float32).mean(-1)
    return float(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 2))[mask].mean())


@pytest.mark.parametrize("method", ["fillnet", "patches"])
def test_texture_is_as_sharp_as_around(method: str) -> None:
    picture = np.ascontiguousarray(np.repeat(data.brick()[:256, :320, None], 3, -1))
    mask = np.zeros(picture.shape[:2], bool)
    mask[80:160, 100:200] = True
    inner = cv2.erode(mask.astype(np.uint8), np.ones((17, 17), np.uint8)).astype(bool)
    truth = roughness(picture, inner)
    assert 0.55 * truth < roughness(restorer(method)(picture, mask), inner) < 1.3 * truth
    assert roughness(restorer("smooth")(picture, mask), inner) < 0.2 * truth


@pytest.mark.parametrize(("around", "kept"), [(0.2, (0.95, 1.0)), (0.1, (0.65, 0.75)), (0.0, (0.0, 0.05))])
def test_patches_bring_in_no_more_than_what_is_around(around: float, kept: tuple[float, float]) -> None:
    """Grain stays where the grain around is stronger, has half of its power where that is as strong, and does not come
    into a plain ground."""
    random = np.random.default_rng(3)
    mask = np.zeros((120, 160), bool)
    mask[40:80, 50:110] = True
    grain = random.normal(size=(*mask.shape, 3)).astype(np.float32)
    patches = 0.5 + np.where(mask[..., None], np.float32(0.1), np.float32(around)) * grain
    structure = np.where(mask[..., None], np.float32(0.5), patches)
    found = inpaint.believed(patches, structure, mask)
    np.testing.assert_array_equal(found[~mask], patches[~mask])
    share = np.linalg.norm((found - 0.5)[mask]) / np.linalg.norm((patches - 0.5)[mask])
    assert kept[0] <= share <= kept[1]


def test_an_edge_in_a_plain_ground_is_no_texture() -> None:
    """One picture is full of grain; the other is plain but for an edge that is stronger by far."""
    mask = np.zeros((120, 160), bool)
    mask[40:80, 50:110] = True
    edge, grain = np.full((2, *mask.shape, 3), 0.5, np.float32)
    edge[:, 80:] = 0.9
    grain[:] += np.random.default_rng(4).normal(size=grain.shape).astype(np.float32) * 0.05
    strong, weak = (float(inpaint.texture_around(each, mask)[mask].mean()) for each in (grain, edge))
    assert strong == pytest.approx(0.05**2, rel=0.2)
    assert weak < 0.1 * strong


@pytest.mark.parametrize("build", [inpaint.glcic, inpaint.partial_conv], ids=lambda build: build.__name__)
@pytest.mark.parametrize(("side", "times"), [(40, 1), (100, 2), (200, 4)])
def test_what_papers_networks_are_shown(build: Any, side: int, times: int) -> None:
    """A deep hole in a smaller picture, grey and marked; the answer's colours are moved to those around it."""
    picture = np.full((512, 512, 3), 0.75, np.float32)
    mask = np.zeros(picture.shape[:2], bool)
    mask[100 : 100 + side, 60 : 60 + side] = True
    engine = FakeEngine(lambda shown: np.full_like(shown[:, :3], 0.25), output="rgb")
    found = build(engine, RestoreOptions(), Support())(np.where(mask[..., None], np.float32(1), picture), mask)
    assert engine.sizes == [(512 // times, 512 // times)]
    shown = engine.pictures[0][0]
    assert shown[3].sum() == (side // times) ** 2
    assert set(np.unique(shown[:3, shown[3] > 0])) == {0.5}
    np.testing.assert_allclose(shown[:3, shown[3] == 0], 0.75)
    np.testing.assert_allclose(found, picture, atol=2e-3)


def test_the_seed_decides() -> None:
    picture, mask = photograph(), writing()
    one, again, other = (
        restore_plugin.load("fillnet", options=RestoreOptions(seed=seed))(picture, mask) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@EVERY
@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (3, 40), (17, 5), (33, 31)])
def test_tiny_pictures(method: str, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    mask = np.zeros(shape, bool)
    mask[0, : max(1, shape[1] // 3)] = True
    found = restorer(method)(picture, mask)
    np.testing.assert_array_equal(found[~mask], picture[~mask])


@EVERY
def test_masks_that_cannot_be(method: str) -> None:
    picture = photograph()
    whole = np.ones(picture.shape[:2], bool)
    with pytest.raises(InputError, match="leaves some of the picture"):
        restorer(method)(picture, whole)
    with pytest.raises(NothingFound):
        restorer(method)(picture, ~whole)
    with pytest.raises(InputError, match="expected a bool mask of shape"):
        restorer(method)(picture, whole[:-1])
    with pytest.raises(InputError, match="pass a mask"):
        restorer(method)(picture)


# --- which holes are filled together


class Spy:
    """Marks what it is asked to fill, and remembers the crops."""

    needs = Needs(holes=True)

    def __init__(self, margin: int) -> None:
        self.px = margin
        self.crops: list[tuple[int, int]] = []
        self.shown: list[int] = []

    def margin(self, region: Region) -> tuple[int, int]:
        return self.px, self.px

    def __call__(
        self,
        pixels: np.ndarray,
        mask: np.ndarray | None = None,
        neighbours: Sequence[np.ndarray] = (),
        region: Region | None = None,
    ) -> np.ndarray:
        assert mask is not None
        self.crops.append(mask.shape)
        self.shown.append(int(mask.sum()))
        return np.where(mask[..., None], np.float32(1), pixels)


def holes(*boxes: tuple[int, int, int, int]) -> list[Region]:
    return [Region(Box(*box), number) for number, box in enumerate(boxes)]


def test_near_holes_are_filled_at_once_and_far_ones_apart() -> None:
    frame, spy = ArrayFrame(np.zeros((300, 1000, 3), np.uint8)), Spy(20)
    places = holes((10, 10, 30, 30), (50, 10, 30, 30), (900, 200, 40, 40))
    assert restore_frame(frame, places, spy) == 2
    assert sorted(spy.crops) == [(60, 100), (80, 80)]
    expected = union(places, 300, 1000)
    np.testing.assert_array_equal(frame.image.min(-1) == 255, expected)


def test_a_hole_knows_of_another_in_its_surroundings() -> None:
    """A long row and a long column: one crop for both would be the whole picture."""
    frame, spy = ArrayFrame(np.zeros((600, 600, 3), np.uint8)), Spy(10)
    apart = holes((100, 20, 400, 4), (20, 40, 4, 500))
    close = holes((28, 20, 472, 4), (20, 30, 4, 500))
    assert restore_frame(frame, apart, spy) == 2
    assert spy.shown == [1600, 2000] or spy.shown == [2000, 1600]
    spy.shown.clear()
    assert restore_frame(ArrayFrame(np.zeros((600, 600, 3), np.uint8)), close, spy) == 2
    first, second = spy.shown  # the first sees a part of the other as hidden, the second sees the first filled
    assert first > 1888 or first > 2000
    assert second in (1888, 2000)


def test_overlapping_regions_are_one_hole() -> None:
    frame, spy = ArrayFrame(np.zeros((100, 100, 3), np.uint8)), Spy(5)
    restore_frame(frame, holes((10, 10, 40, 40), (30, 30, 40, 40)), spy)
    np.testing.assert_array_equal(
        frame.image[..., 0] == 255, union(holes((10, 10, 40, 40), (30, 30, 40, 40)), 100, 100)
    )


def test_clusters_cover_exactly_the_mask() -> None:
    random = np.random.default_rng(5)
    mask = cv2.dilate((random.random((200, 260)) < 0.002).astype(np.uint8), np.ones((5, 7), np.uint8)).astype(bool)
    found = clustered(mask, Spy(6))
    assert 1 < len(found) < len(regions_under(mask))
    covered = np.zeros(mask.shape, int)
    for region in found:
        covered[region.box.slices] += region.mask()
    np.testing.assert_array_equal(covered, mask.astype(int))


def test_an_island_in_a_ring() -> None:
    drawn = np.zeros((120, 120), np.uint8)
    cv2.circle(drawn, (60, 60), 40, 1, 9)
    cv2.circle(drawn, (60, 60), 10, 1, -1)
    (found,) = clustered(drawn.astype(bool), Spy(8))
    whole = np.zeros((120, 120), bool)
    whole[found.box.slices] = found.mask()
    np.testing.assert_array_equal(whole, drawn.astype(bool))


def test_dust_all_over_a_scan_is_not_one_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "LARGEST_CROP", 200 * 200)
    mask = np.zeros((1000, 1200), bool)
    mask[5::20, 5::20] = True
    found = clustered(mask, Spy(12))
    assert 30 < len(found) < 500
    assert max((region.box.width + 24) * (region.box.height + 24) for region in found) <= 200 * 200
    assert sum(int(region.mask().sum()) for region in found) == mask.sum()


def test_growing_by_distance() -> None:
    mask = np.zeros((41, 41), bool)
    mask[20, 20] = True
    y, x = np.mgrid[:41, :41]
    np.testing.assert_array_equal(grown(mask, 7), np.hypot(y - 20, x - 20) <= 7)
    np.testing.assert_array_equal(grown(mask, 0), mask)


# --- the command


def run(*arguments: object) -> int:
    return image_cli.main([str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    cv2.imwrite(str(picture), photograph()[..., ::-1])
    cv2.imwrite(str(mask), writing().astype(np.uint8) * 255)
    return picture, mask


def test_the_command_fills_the_mask_alone(files: tuple[Path, Path], tmp_path: Path) -> None:
    picture, mask = files
    assert run(picture, "--task", "inpaint", "--mask", mask) == 0
    found = cv2.imread(str(tmp_path / "picture.restored.png"))[..., ::-1]
    np.testing.assert_array_equal(found, restorer("inpaint")(photograph(), writing()))
    assert b"plausible, not evidence" in (tmp_path / "picture.restored.png").read_bytes()


def test_grown_and_feathered(files: tuple[Path, Path], tmp_path: Path) -> None:
    picture, mask = files
    out = tmp_path / "out.png"
    options = ("--task", "inpaint", "--method", "smooth", "--mask", mask, "-o", out)
    assert run(picture, *options, "--grow", 3, "--feather", 4) == 0
    found = cv2.imread(str(out))[..., ::-1].astype(int)
    inner, outer, hole = grown(writing(), 3), grown(writing(), 7), writing()
    sharp = restorer("smooth")(photograph(), outer).astype(int)
    np.testing.assert_array_equal(found[~outer], photograph()[~outer])
    np.testing.assert_array_equal(found[hole], sharp[hole])
    np.testing.assert_array_equal(found[inner], sharp[inner])
    rim, old = outer & ~inner, photograph().astype(int)
    between = (found >= np.minimum(sharp, old) - 1) & (found <= np.maximum(sharp, old) + 1)
    assert between[rim].all()
    assert np.abs(found - old)[rim].sum() < 0.8 * np.abs(sharp - old)[rim].sum()


@pytest.mark.parametrize(
    ("drawn", "code", "words"),
    [
        ("black", 3, "is black"),
        ("white", 2, "leaves some of the picture"),
        ("small", 2, "expected a mask of the picture's size"),
        ("none", 2, "give --mask"),
    ],
)
def test_masks_of_the_command(
    files: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], drawn: str, code: int, words: str
) -> None:
    picture, mask = files
    shapes = {"black": np.zeros((240, 300)), "white": np.full((240, 300), 255), "small": np.full((24, 30), 255)}
    given: tuple[object, ...] = ()
    if drawn in shapes:
        cv2.imwrite(str(mask), shapes[drawn].astype(np.uint8))
        given = ("--mask", mask)
    assert run(picture, "--task", "inpaint", "--quiet", *given) == code
    told = capfd.readouterr().err
    assert words in told
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "picture.restored.png").exists()


def test_a_soft_mask_counts_from_half_on(files: tuple[Path, Path], tmp_path: Path) -> None:
    picture, mask = files
    cv2.imwrite(str(mask), cv2.GaussianBlur(writing().astype(np.uint8) * 255, (0, 0), 2))
    white = cv2.imread(str(mask), 0) > 127
    out = tmp_path / "out.png"
    assert run(picture, "--task", "inpaint", "--method", "smooth", "--mask", mask, "-o", out) == 0
    changed = (cv2.imread(str(out))[..., ::-1] != photograph()).any(-1)
    assert not changed[~white].any()
    assert changed[white].mean() > 0.9


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_and_16_bits(tmp_path: Path, dtype: Any) -> None:
    scale = np.iinfo(dtype).max // 255
    alpha = np.tile(np.arange(300) % 256, (240, 1))[..., None]
    stored = (np.dstack((photograph(), alpha)).astype(np.uint32) * scale).astype(dtype)
    picture, mask, out = tmp_path / "in.png", tmp_path / "mask.png", tmp_path / "out.png"
    cv2.imwrite(str(picture), stored[..., [2, 1, 0, 3]])
    cv2.imwrite(str(mask), writing().astype(np.uint8) * 255)
    assert run(picture, "--task", "inpaint", "--method", "smooth", "--mask", mask, "-o", out) == 0
    found = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[..., 3], stored[..., 3])
    np.testing.assert_array_equal(found[~writing()], stored[~writing()])
    if dtype == np.uint16:
        assert (found[writing()][:, :3] % 257 != 0).mean() > 0.9  # more than 8 bits were computed


@pytest.mark.parametrize("option", [("--grow", "-1"), ("--feather", "x"), ("--grow", "2000"), ("--seed", "1.5")])
def test_bad_options(files: tuple[Path, Path], capfd: pytest.CaptureFixture[str], option: tuple[str, str]) -> None:
    picture, mask = files
    assert run(picture, "--task", "inpaint", "--mask", mask, *option) == 2
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("option", ["--grow", "--feather"])
def test_nothing_given_is_nothing_to_widen(
    files: tuple[Path, Path], capfd: pytest.CaptureFixture[str], option: str
) -> None:
    assert run(files[0], "--task", "derain", option, 3) == 2
    assert "give --mask or --regions" in capfd.readouterr().err


def test_soft_regions_stay_soft_when_they_are_joined() -> None:
    places = [replace(region, soft=3) for region in holes((10, 10, 20, 20), (35, 10, 20, 20))]
    found = clustered(union(places, 60, 80), Spy(10), 3)
    assert [region.soft for region in found] == [3]
