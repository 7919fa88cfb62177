"""Patches: the search against comparing all with all, and pictures whose fill is known."""

import cv2
import numpy as np
import pytest
from skimage import data

from restore_plugin.classical import patchmatch
from restore_plugin.classical.harmonic import harmonic
from restore_plugin.classical.patchmatch import RADIUS, PatchOptions, fill
from restore_plugin.metrics import psnr


def disc(height: int, width: int, radius: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 2, height // 2), radius, 1, -1)
    return mask.astype(bool)


def filled(picture: np.ndarray, mask: np.ndarray, seed: int = 0) -> np.ndarray:
    return fill(harmonic(picture, mask), mask, PatchOptions(seed=seed))


def weave(height: int, width: int) -> np.ndarray:
    """Repeats every 12 px across and every 8 px down."""
    tile = np.random.default_rng(3).random((8, 12, 3), np.float32)
    return np.tile(tile, (-(-height // 8), -(-width // 12), 1))[:height, :width]


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return data.astronaut()[:200, 300:].astype(np.float32) / 255


def brute_force(level: patchmatch.Level) -> np.ndarray:
    """Of every target the least distance to any known patch, one by one."""
    height, width = level.shape
    best = []
    for target in level.targets:
        y, x = divmod(int(target), width)
        ours, share = (plane[y - 3 : y + 4, x - 3 : x + 4] for plane in (level.picture, level.certain))
        values = []
        for known in np.flatnonzero(level.is_known):
            there_y, there_x = divmod(int(known), width)
            theirs = level.picture[there_y - 3 : there_y + 4, there_x - 3 : there_x + 4]
            value = (share[..., None] * (ours - theirs) ** 2).sum() / share.sum()
            away = level.guess[y, x] - level.guess[there_y, there_x]
            value += patchmatch.GUIDE * level.certain[y, x] * (away**2).sum()
            value += patchmatch.NEARNESS * np.hypot(y - there_y, x - there_x) / max(height, width)
            values.append(value)
        best.append(min(values))
    return np.array(best)


def test_search_finds_nearly_what_comparing_all_with_all_does(photograph: np.ndarray) -> None:
    small = cv2.resize(photograph, (36, 34), interpolation=cv2.INTER_AREA)
    mask = disc(34, 36, 4)
    level = patchmatch.make_level(harmonic(small, mask), mask)
    random = np.random.default_rng(0)
    found = random.choice(np.flatnonzero(level.is_known), level.targets.size).astype(np.int32)
    first = patchmatch.distances(level, np.arange(found.size), found)
    for _ in range(3):
        best = patchmatch.search(level, found, random, 36)
    assert level.is_known.reshape(-1)[found].all()
    np.testing.assert_allclose(best, patchmatch.distances(level, np.arange(found.size), found), rtol=1e-4)
    truth = brute_force(level)
    assert (best >= truth * 0.999).all()
    assert best.mean() < 1.1 * truth.mean() < 0.5 * first.mean()


def test_a_limit_leaves_out_only_what_is_worse(photograph: np.ndarray) -> None:
    mask = disc(200, 212, 30)
    level = patchmatch.make_level(photograph, mask)
    found = np.random.default_rng(1).choice(np.flatnonzero(level.is_known), level.targets.size).astype(np.int32)
    which = np.arange(found.size)
    all_of_them = patchmatch.distances(level, which, found)
    limit = np.full(found.size, np.median(all_of_them), np.float32)
    some = patchmatch.distances(level, which, found, limit)
    np.testing.assert_array_equal(some[all_of_them < limit], all_of_them[all_of_them < limit])
    assert np.isinf(some).any()
    assert (all_of_them[np.isinf(some)] >= limit[np.isinf(some)] * 0.9999).all()


def test_a_repeating_texture_is_continued() -> None:
    picture, mask = weave(128, 144), disc(128, 144, 20)
    found = filled(picture, mask)
    assert psnr(found[mask][None], picture[mask][None]) > 30
    assert psnr(harmonic(picture, mask)[mask][None], picture[mask][None]) < 13


def test_an_edge_is_continued_through_the_hole() -> None:
    picture = np.zeros((120, 120, 3), np.float32)
    picture[:, 60:] = 0.8
    picture += np.random.default_rng(0).normal(0, 0.02, picture.shape).astype(np.float32)
    mask = disc(120, 120, 18)
    away = np.abs(filled(picture, mask) - picture)[mask].mean(-1)
    assert (away < 0.2).mean() > 0.95  # a smooth fill is grey in the middle
    assert (np.abs(harmonic(picture, mask) - picture)[mask].mean(-1) < 0.2).mean() < 0.8


def test_known_pixels_stay_and_a_seed_gives_the_same_picture(photograph: np.ndarray) -> None:
    mask = disc(200, 212, 25)
    one, again, other = (filled(photograph, mask, seed) for seed in (1, 1, 2))
    assert one.dtype == np.float32
    assert 0 <= one.min() <= one.max() <= 1
    np.testing.assert_array_equal(one[~mask], photograph[~mask])
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_every_filled_pixel_is_a_mean_of_known_ones() -> None:
    picture = np.full((80, 80, 3), (0.2, 0.5, 0.7), np.float32)
    mask = disc(80, 80, 20)
    guess = np.where(mask[..., None], np.float32(0), picture)  # however bad the guess is
    np.testing.assert_allclose(fill(guess, mask), picture, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (2 * RADIUS, 60), (12, 12)])
def test_the_guess_comes_back_where_there_is_nothing_to_take(shape: tuple[int, int]) -> None:
    guess = np.random.default_rng(0).random((*shape, 3), np.float32)
    mask = np.zeros(shape, bool)
    mask[:, : max(1, shape[1] // 2)] = True
    np.testing.assert_array_equal(fill(guess, mask), guess)


def test_a_hole_at_the_edge_and_scattered_holes(photograph: np.ndarray) -> None:
    mask = np.zeros(photograph.shape[:2], bool)
    mask[:30, :40] = True
    mask[100::17, 5::23] = True
    found = filled(photograph, mask)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[~mask], photograph[~mask])
