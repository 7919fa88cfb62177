"""Hiding: what a cover may depend on, where it lies, and that it stays steady."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from restore_plugin import hiding
from restore_plugin.errors import InputError
from restore_plugin.hiding import Hide
from restore_plugin.pipeline import ArrayFrame
from restore_plugin.regions import restore_frame
from restore_plugin.types import BETWEEN, BEYOND, FOUND, Box, HideOptions, Region, RestoreOptions, Support

STYLES = ("blocks", "pixelate", "blur", "solid", "picture")
WITHOUT_THE_FACE = ("blocks", "solid", "picture")
FACE = Box(172, 60, 100, 130)  # of scikit-image's astronaut


@pytest.fixture
def smiley(tmp_path: Path) -> Path:
    """(60, 50) RGBA: blue on the left, nothing on the right."""
    drawn = np.zeros((60, 50, 4), np.uint8)
    drawn[:, :25] = (255, 0, 0, 255)  # as cv2 writes: blue first
    path = tmp_path / "smiley.png"
    assert cv2.imwrite(str(path), drawn)
    return path


def style(name: str, picture: Path | None = None, colour: tuple[float, float, float] = (0.2, 0.4, 0.6)) -> Hide:
    built: Hide = getattr(hiding, name)(None, RestoreOptions(hide=HideOptions(colour, picture)), Support())
    return built


def ellipse(box: Box, number: int = 3) -> Region:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    xs = np.round(box.x + (box.width - 1) * (0.5 + 0.5 * np.cos(angles))).astype(int)
    ys = np.round(box.y + (box.height - 1) * (0.5 + 0.5 * np.sin(angles))).astype(int)
    return Region(box, number, outline=(tuple(zip(xs.tolist(), ys.tolist(), strict=True)),))


def under(region: Region, picture: np.ndarray) -> np.ndarray:
    mask = np.zeros(picture.shape[:2], bool)
    mask[region.box.slices] = region.mask()
    return mask


def hidden(picture: np.ndarray, region: Region, by: Hide) -> np.ndarray:
    frame = ArrayFrame(picture.copy())
    assert restore_frame(frame, [region], by) == 1
    return frame.image


def astronaut() -> np.ndarray:
    """(512, 512, 3) float32."""
    return data.astronaut().astype(np.float32) / 255


def noise(seed: int = 0, height: int = 120, width: int = 160) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)


# --- every style


@pytest.mark.parametrize("name", [*STYLES, "review"])
def test_only_the_mask_is_touched(name: str, smiley: Path) -> None:
    picture, region = astronaut(), ellipse(FACE)
    out = hidden(picture, region, style(name, smiley))
    mask = under(region, picture)
    assert out.dtype == np.float32
    assert out.shape == picture.shape
    assert out.min() >= 0
    assert out.max() <= 1
    np.testing.assert_array_equal(out[~mask], picture[~mask])
    assert (out[mask] != picture[mask]).any()


@pytest.mark.parametrize("name", STYLES)
def test_what_is_seen_is_not_like_what_was_there(name: str, smiley: Path) -> None:
    """Without the coarsest shades, that a few means may show: what is left of the cover says nothing of the face."""
    picture, region = astronaut(), ellipse(FACE)
    out = hidden(picture, region, style(name, smiley))
    fine = [(each - cv2.blur(each, (41, 41)))[under(region, picture)].ravel() for each in (picture, out)]
    if fine[1].std() > 1e-6:
        assert abs(np.corrcoef(*fine)[0, 1]) < 0.25


@pytest.mark.parametrize("name", WITHOUT_THE_FACE)
def test_nothing_of_the_face_passes(name: str, smiley: Path) -> None:
    """A face, noise, black: whatever lies under the mask, the same is seen."""
    picture, region = astronaut(), ellipse(FACE)
    expected = hidden(picture, region, style(name, smiley))
    mask = under(region, picture)
    for other in (noise(1, 512, 512), np.zeros_like(picture), picture[::-1]):
        changed = np.where(mask[..., None], other, picture)
        np.testing.assert_allclose(hidden(changed, region, style(name, smiley)), expected, atol=1e-6)


@pytest.mark.parametrize("name", [*STYLES, "review"])
@pytest.mark.parametrize(
    "box", [Box(-30, 20, 60, 80), Box(120, 90, 70, 60), Box(40, 30, 3, 4), Box(-50, -50, 400, 300)]
)
def test_at_the_edge_tiny_and_larger_than_the_picture(name: str, box: Box, smiley: Path) -> None:
    picture = noise()
    out = hidden(picture, ellipse(box), style(name, smiley))
    assert np.isfinite(out).all()


@pytest.mark.parametrize("name", STYLES)
def test_alone_it_covers_all(name: str, smiley: Path) -> None:
    """Without a mask and a region, as the protocol allows."""
    picture = noise()
    out = style(name, smiley)(picture)
    assert out.dtype == np.float32
    assert abs(np.corrcoef(out.ravel(), picture.ravel())[0, 1]) < 0.2 or out.std() < 1e-6


# --- the pattern moves and grows with the face


@pytest.mark.parametrize("name", STYLES)
def test_it_moves_with_the_face(name: str, smiley: Path) -> None:
    picture = cv2.blur(astronaut(), (5, 5))
    region = ellipse(FACE)
    moved = np.roll(picture, (9, -14), axis=(0, 1))
    out = hidden(picture, region, style(name, smiley))
    out_moved = hidden(moved, region.shift(-14, 9), style(name, smiley))
    np.testing.assert_allclose(np.roll(out_moved, (-9, 14), axis=(0, 1)), out, atol=1e-6)


@pytest.mark.parametrize("name", STYLES)
def test_it_grows_with_the_face(name: str, smiley: Path) -> None:
    """Everything three times as large: so is the cover, but for the edges of cells and of the rim in whole pixels."""
    picture, region = astronaut()[::4, ::4], Region(Box(40, 12, 30, 40), 5)
    large = picture.repeat(3, axis=0).repeat(3, axis=1)
    out = hidden(picture, region, style(name, smiley))[region.box.slices]
    grown = Region(Box(120, 36, 90, 120), 5)
    out_large = hidden(large, grown, style(name, smiley))[grown.box.slices][1::3, 1::3]
    assert np.median(np.abs(out_large - out)) < 3 / 255
    assert np.abs(out_large - out).mean() < 8 / 255


@pytest.mark.parametrize("name", STYLES)
def test_the_picture_s_edge_does_not_squeeze_it(name: str, smiley: Path) -> None:
    """A face leaving the picture shows the part of its cover that is still inside."""
    wide = np.full((100, 200, 3), 0.4, np.float32)
    region = ellipse(Box(10, 10, 60, 80))
    whole = hidden(wide, region, style(name, smiley))
    out = hidden(np.ascontiguousarray(wide[:, 40:]), region.shift(-40, 0), style(name, smiley))
    np.testing.assert_allclose(out, whole[:, 40:], atol=1e-6)


def test_people_have_different_blocks() -> None:
    picture = np.full((100, 120, 3), 0.5, np.float32)
    patterns = [hidden(picture, ellipse(Box(20, 10, 60, 80), number), style("blocks")) for number in (1, 2)]
    assert np.abs(patterns[0] - patterns[1]).max() > 0.1


# --- one style each


def test_blocks_have_the_surroundings_colour() -> None:
    """Red under the mask, green around it: 6 x 8 greenish shades, balanced around the green."""
    green = np.array([0.2, 0.6, 0.3], np.float32)
    picture = np.broadcast_to(green, (120, 140, 3)).copy()
    region = Region(Box(30, 20, 60, 80), 4)
    picture[region.box.slices] = (1, 0, 0)
    seen = hidden(picture, region, style("blocks"))[region.box.slices]
    np.testing.assert_allclose(seen.mean(axis=(0, 1)), green, atol=1e-5)
    cells = seen.reshape(8, 10, 6, 10, 3)
    assert np.ptp(cells, axis=(1, 3)).max() < 1e-6  # every block is flat
    assert len(np.unique(np.round(cells[:, 0, :, 0, 1], 5))) == 48
    np.testing.assert_allclose(cells[..., 0] - 0.2, cells[..., 1] - 0.6, atol=1e-5)


def test_blocks_where_nothing_else_is_seen() -> None:
    picture = np.zeros((80, 60, 3), np.float32)
    seen = hidden(picture, Region(Box(0, 0, 60, 80)), style("blocks"))
    assert seen.mean() == pytest.approx(0.5, abs=1e-5)


def test_pixelate_is_the_true_average() -> None:
    picture, region = noise(), Region(Box(20, 10, 80, 100))
    seen = hidden(picture, region, style("pixelate"))[region.box.slices]
    columns, rows = hiding.PIXELATE_CELLS
    size = (100 // rows, 80 // columns)
    for row in range(rows):
        for column in range(columns):
            cell = np.s_[row * size[0] : (row + 1) * size[0], column * size[1] : (column + 1) * size[1]]
            mean = picture[region.box.slices][cell].mean(axis=(0, 1))
            np.testing.assert_allclose(seen[cell] - mean, 0, atol=1e-5)


def test_blur_is_a_function_of_a_few_means() -> None:
    """Pictures that differ in everything but the means of the cells give the same blur, and it is smooth."""
    columns, rows = hiding.BLUR_CELLS
    region = Region(Box(20, 10, 30 * columns, 24 * rows))
    picture, other = noise(1, 140, 200) * 0.5 + 0.25, noise(2, 140, 200) * 0.5 + 0.25
    inside = picture[region.box.slices].reshape(rows, 24, columns, 30, 3)
    strange = other[region.box.slices].reshape(rows, 24, columns, 30, 3)
    same_means = strange - strange.mean(axis=(1, 3), keepdims=True) + inside.mean(axis=(1, 3), keepdims=True)
    changed = picture.copy()
    changed[region.box.slices] = same_means.reshape(24 * rows, 30 * columns, 3)
    blurred = hidden(picture, region, style("blur"))
    np.testing.assert_allclose(hidden(changed, region, style("blur")), blurred, atol=1e-5)
    assert np.abs(np.diff(blurred[region.box.slices], axis=0)).max() < 0.05
    assert np.abs(np.diff(blurred[region.box.slices], axis=1)).max() < 0.05


def test_solid() -> None:
    picture, region = noise(), ellipse(Box(20, 10, 60, 80))
    out = hidden(picture, region, style("solid"))
    np.testing.assert_allclose(out[under(region, picture)] - (0.2, 0.4, 0.6), 0, atol=1e-6)


@pytest.mark.parametrize("colour", [(0.0, 0.0, 1.2), (-1.0, 0.0, 0.0)])
def test_no_colour(colour: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        style("solid", colour=colour)


def test_picture_lets_the_colour_through_never_the_face(smiley: Path) -> None:
    picture, region = noise(), Region(Box(20, 10, 50, 60))
    seen = hidden(picture, region, style("picture", smiley))[region.box.slices]
    np.testing.assert_allclose(seen[:, :25] - (0, 0, 1), 0, atol=1e-6)
    np.testing.assert_allclose(seen[:, 25:] - (0.2, 0.4, 0.6), 0, atol=1e-6)


def test_half_transparent_picture(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    cv2.imwrite(str(path), np.full((8, 8, 4), (255, 255, 255, 51), np.uint8))  # a fifth
    seen = hidden(noise(), Region(Box(20, 10, 50, 60)), style("picture", path))[10:70, 20:70]
    np.testing.assert_allclose(seen - (0.36, 0.52, 0.68), 0, atol=1e-3)


def test_picture_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs its file"):
        style("picture")
    with pytest.raises(InputError, match="could not read"):
        style("picture", tmp_path / "missing.png")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(InputError, match="expected a PNG"):
        style("picture", text)


@pytest.mark.parametrize(("origin", "channels"), [(FOUND, (0, 1, 0)), (BETWEEN, (1, 1, 0)), (BEYOND, (1, 0, 0))])
def test_review_draws_an_outline_by_origin(origin: str, channels: tuple[int, int, int]) -> None:
    picture, box = np.full((200, 200, 3), 0.5, np.float32), Box(40, 30, 100, 130)
    region = replace(ellipse(box), origin=origin)
    changed = np.abs(hidden(picture, region, style("review")) - picture).max(axis=2) > 0
    out = hidden(picture, region, style("review"))
    middle = out[box.y : box.y + 2, 90]  # the outline's top
    assert ((middle > 0.5) == np.array(channels, bool)).all()
    assert changed.sum() < 0.12 * box.area  # a line, not a cover
    labelled = np.abs(hidden(picture, replace(region, label="person-2"), style("review")) - out).max(axis=2) > 0.05
    rows, columns = np.nonzero(labelled)
    assert rows.min() > 95
    assert rows.max() < 150
    assert np.ptp(columns) > 40
