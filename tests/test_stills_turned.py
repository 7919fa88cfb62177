"""Pictures with an orientation: places are in the picture as it is shown, the file stays as it was stored.

What is shown is told by Pillow's `exif_transpose`, from the same EXIF block.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image, ImageOps

from restore_plugin import image_cli, stills, tiff

ORIENTATION = 274
PLACE = (8, 20, 24, 12)  # x, y, width, height in px as shown
SUFFIXES = (".png", ".webp", ".tif")  # that keep all other pixels to the bit
Samples = np.ndarray[Any, Any]


def scene() -> Samples:
    """(48, 64, 3) as stored."""
    return np.ascontiguousarray(skimage.data.astronaut()[60:108, 180:244])


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def save(path: Path, stored: Samples, orientation: int) -> Path:
    Image.fromarray(stored).save(path, exif=exif_of(orientation), lossless=True, quality=95, subsampling=0)
    return path


def load(path: Path) -> Samples:
    """As stored."""
    if path.suffix == ".tif":
        return np.asarray(tifffile.imread(path))
    with Image.open(path) as image:
        return np.array(image)


def shown(stored: Samples, orientation: int) -> Samples:
    image = Image.fromarray(stored)
    image.getexif()[ORIENTATION] = orientation
    turned = ImageOps.exif_transpose(image)
    assert turned is not None
    return np.array(turned)


def orientation_of(path: Path) -> int:
    if path.suffix == ".tif":  # Pillow turns them by itself, and leaves the tag out
        with tifffile.TiffFile(path) as file:
            return int(file.pages.first.tags[ORIENTATION].value)
    with Image.open(path) as image:
        return int(image.getexif()[ORIENTATION])


def run(*arguments: object) -> int:
    return image_cli.main([str(argument) for argument in arguments])


def hide(source: Path, target: Path, *where: object) -> int:
    options = ("--task", "automosaic", "--method", "solid", "--quiet", "--overwrite")
    return run(source, *options, *where, "-o", target)


def black(shape: tuple[int, ...]) -> Samples:
    """(H, W): where PLACE is."""
    x, y, width, height = PLACE
    mask = np.zeros(shape[:2], bool)
    mask[y : y + height, x : x + width] = True
    return mask


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_turns_and_back_again(orientation: int) -> None:
    stored = scene()
    upright = tiff.upright(stored, orientation)
    assert np.array_equal(upright, shown(stored, orientation))
    assert np.array_equal(tiff.as_stored(upright, orientation), stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_regions_and_masks_are_in_the_picture_as_shown(tmp_path: Path, suffix: str, orientation: int) -> None:
    source, target = save(tmp_path / f"in{suffix}", scene(), orientation), tmp_path / f"out{suffix}"
    as_shown = shown(scene(), orientation)
    place = black(as_shown.shape)
    Image.fromarray(place.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    for where in (("--regions", ",".join(map(str, PLACE))), ("--mask", tmp_path / "mask.png")):
        assert hide(source, target, *where) == 0
        found = load(target)
        assert found.shape == scene().shape  # as stored
        assert orientation_of(target) == orientation
        after = shown(found, orientation)
        assert not after[place].any()
        assert np.array_equal(after[~place], as_shown[~place])


@pytest.mark.parametrize("orientation", [3, 6])
def test_of_a_jpeg(tmp_path: Path, orientation: int) -> None:
    source, target = save(tmp_path / "in.jpg", scene(), orientation), tmp_path / "out.jpg"
    assert hide(source, target, "--regions", ",".join(map(str, PLACE))) == 0
    assert orientation_of(target) == orientation
    after, before = shown(load(target), orientation), shown(load(source), orientation)
    place = black(after.shape)
    near = cv2.dilate(place.astype(np.uint8), np.ones((17, 17))) > 0  # coded in the same blocks
    assert (after[place].max(-1) < 30).mean() > 0.9
    assert np.abs(after.astype(int) - before)[~near].mean() < 2


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_is_turned_by_its_own_orientation(tmp_path: Path, orientation: int) -> None:
    source, target = save(tmp_path / "in.png", scene(), 1), tmp_path / "out.png"
    place = black(scene().shape)
    stored = tiff.as_stored(place.astype(np.uint8) * 255, orientation)
    mask = save(tmp_path / "mask.png", stored, orientation)
    assert np.array_equal(shown(stored, orientation) > 0, place)
    assert hide(source, target, "--mask", mask) == 0
    assert np.array_equal((load(target) == 0).all(-1) & place, place)
    assert np.array_equal(load(target)[~place], scene()[~place])


def test_sizes_as_shown_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = save(tmp_path / "in.png", scene(), 6)
    mask = save(tmp_path / "mask.png", np.full((48, 64), 255, np.uint8), 1)
    assert hide(source, tmp_path / "out.png", "--mask", mask) == 2
    said = capfd.readouterr().err
    assert "48x64 as it is shown, got 64x48" in said
    assert len(said.splitlines()) == 1


def test_block_phase_and_json_are_in_the_picture_as_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    as_shown = shown(scene(), 8)
    x, y, width, height = PLACE
    cells = as_shown[y : y + height, x : x + width].reshape(2, 6, 3, 8, 3).mean((1, 3)).round().astype(np.uint8)
    as_shown[y : y + height, x : x + width] = cells.repeat(6, 0).repeat(8, 1)
    source, target = save(tmp_path / "in.png", tiff.as_stored(as_shown, 8), 8), tmp_path / "out.png"
    given = ("--regions", ",".join(map(str, PLACE)), "--block", "8x6", "--phase", "16,26", "--json")
    assert run(source, "--method", "bicubic", *given, "-o", target) == 0
    region = json.loads(capfd.readouterr().out)["regions"][0]
    assert (region["box"], region["block"], region["phase"]) == (list(PLACE), [8, 6], [16, 26])
    after = shown(load(target), 8)
    kept = after[y : y + height, x : x + width].reshape(2, 6, 3, 8, 3).mean((1, 3))
    assert np.abs(kept - cells).max() < 1.5  # so those were its blocks


@pytest.mark.parametrize("orientation", [0, 9, 60000])
def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path, orientation: int) -> None:
    source = save(tmp_path / "in.png", scene(), orientation)
    assert np.array_equal(stills.read(source).pixels, scene())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bits_that_opencv_decodes(tmp_path: Path, orientation: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (48, 64), dtype=np.uint16)
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    Image.fromarray(values).save(source, exif=exif_of(orientation), compression="tiff_lzw")
    still = stills.read(source)
    assert np.array_equal(still.pixels[..., 0], shown(values, orientation))
    stills.write(still, target, "mark")
    assert np.array_equal(load(target), values)
    assert orientation_of(target) == orientation


def test_alpha_turns_along(tmp_path: Path) -> None:
    clear = np.dstack((scene(), np.tile(np.arange(64, dtype=np.uint8) * 3, (48, 1))))
    source, target = save(tmp_path / "in.png", clear, 6), tmp_path / "out.png"
    still = stills.read(source)
    assert still.alpha is not None
    assert np.array_equal(np.dstack((still.pixels, still.alpha)), shown(clear, 6))
    stills.write(still, target, "mark")
    assert np.array_equal(load(target), clear)
