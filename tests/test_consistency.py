"""keep_means: what a mosaic shows is kept exactly, by masked pixels alone."""

from itertools import pairwise

import numpy as np
import pytest

from restore_plugin import mosaic
from restore_plugin.consistency import keep_means

SIDE = 48
KEPT = 1e-4  # of [0, 1]; a fortieth of a level of 255


def means_of(picture: np.ndarray, y_edges: np.ndarray, x_edges: np.ndarray) -> np.ndarray:
    return np.array(
        [[picture[y0:y1, x0:x1].mean((0, 1)) for x0, x1 in pairwise(x_edges)] for y0, y1 in pairwise(y_edges)]
    )


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """A random truth with plain black and white parts, a mask that cuts cells, and a random grid."""
    random = np.random.default_rng(seed)
    truth = np.clip(random.normal(random.choice([0.02, 0.5, 0.98], (SIDE, SIDE, 1)), 0.3, (SIDE, SIDE, 3)), 0, 1)
    mask = np.zeros((SIDE, SIDE), bool)
    y, x = random.integers(0, 12, 2)
    mask[y : y + random.integers(12, 36), x : x + random.integers(12, 36)] = True
    y_edges = mosaic.axis_edges(0, SIDE, random.uniform(3, 14), random.uniform(0, 14))
    x_edges = mosaic.axis_edges(0, SIDE, random.uniform(3, 14), random.uniform(0, 14))
    return truth.astype(np.float32), mask, y_edges, x_edges, random


@pytest.mark.parametrize("seed", range(12))
def test_reaches_the_means_of_any_true_picture(seed: int) -> None:
    truth, mask, y_edges, x_edges, random = scene(seed)
    means = means_of(truth, y_edges, x_edges).astype(np.float32)
    guess = np.where(mask[..., None], random.normal(0.5, 0.6, truth.shape), truth).astype(np.float32)  # often clipped
    out = keep_means(guess, mask, means, y_edges, x_edges)
    np.testing.assert_allclose(means_of(out, y_edges, x_edges), means, atol=KEPT)
    assert out.min() >= 0
    assert out.max() <= 1
    np.testing.assert_array_equal(out[~mask], truth[~mask])


def test_moves_a_cell_evenly() -> None:
    """The nearest picture with these means is the same one with a constant added to each cell."""
    truth, mask, y_edges, x_edges, random = scene(3)
    guess = (0.5 + 0.1 * random.random(truth.shape)).astype(np.float32)
    means = means_of(guess, y_edges, x_edges) + random.uniform(-0.1, 0.1, (len(y_edges) - 1, len(x_edges) - 1, 3))
    out = keep_means(guess, np.ones_like(mask), means.astype(np.float32), y_edges, x_edges)
    moved = out - guess
    y0, y1, x0, x1 = y_edges[1], y_edges[2], x_edges[1], x_edges[2]
    np.testing.assert_allclose(moved[y0:y1, x0:x1], np.broadcast_to(moved[y0, x0], (y1 - y0, x1 - x0, 3)), atol=1e-5)
    assert np.abs(moved).max() > 0.05


@pytest.mark.parametrize("seed", range(4))
def test_in_linear_light(seed: int) -> None:
    truth, mask, y_edges, x_edges, random = scene(seed)
    light = mosaic.srgb_to_linear(truth)
    means = mosaic.linear_to_srgb(means_of(light, y_edges, x_edges).astype(np.float32))
    guess = np.where(mask[..., None], random.normal(0.5, 0.4, truth.shape), truth).astype(np.float32)
    out = keep_means(guess, mask, means, y_edges, x_edges, linear_light=True)
    kept = mosaic.linear_to_srgb(means_of(mosaic.srgb_to_linear(out), y_edges, x_edges).astype(np.float32))
    np.testing.assert_allclose(kept, means, atol=1e-3)  # near black the curve makes twelve of one
    np.testing.assert_allclose(out[~mask], truth[~mask], atol=1e-5)


def test_tolerance_is_used_and_not_exceeded() -> None:
    truth, mask, y_edges, x_edges, random = scene(5)
    mask[:] = True
    guess = (truth * 0.5 + 0.25).astype(np.float32)
    off = random.choice([-0.2, -0.01, 0.01, 0.2], (len(y_edges) - 1, len(x_edges) - 1, 3))
    before = means_of(guess, y_edges, x_edges)
    out = keep_means(guess, mask, (before + off).astype(np.float32), y_edges, x_edges, tolerance=0.03)
    after = means_of(out, y_edges, x_edges)
    small = np.abs(off) < 0.03
    np.testing.assert_allclose(after[small], before[small], atol=1e-6)
    expected = before + np.sign(off) * (np.abs(off) - 0.03)
    np.testing.assert_allclose(after[~small], expected[~small], atol=KEPT)


def test_tolerance_leaves_cells_alone_that_are_mostly_known() -> None:
    edges = np.array([0, 8, 16])
    picture = np.full((16, 16, 3), 0.5, np.float32)
    mask = np.zeros((16, 16), bool)
    mask[:, :11] = True  # all of the left cells, three of eight columns of the right ones
    means = np.full((2, 2, 3), 0.6, np.float32)
    out = keep_means(picture, mask, means, edges, edges, tolerance=0.02)
    np.testing.assert_allclose(out[:, :8], 0.58, atol=KEPT)
    np.testing.assert_array_equal(out[:, 8:], picture[:, 8:])
    exact = keep_means(picture, mask, means, edges, edges)
    np.testing.assert_allclose(exact[:, 8:11], 0.5 + 0.1 * 8 / 3, atol=KEPT)


def test_impossible_cells_keep_their_pixels() -> None:
    edges = np.array([0, 8, 16])
    picture = np.full((8, 16, 3), 0.5, np.float32)
    mask = np.zeros((8, 16), bool)
    mask[:, 7:] = True  # one column of the left cell
    means = np.array([[[0.9, 0.5, 0.1]] * 2], np.float32)
    out = keep_means(picture, mask, means, np.array([0, 8]), edges)
    np.testing.assert_array_equal(out[:, :8], picture[:, :8])  # 0.9 would need 3.7 of that column
    np.testing.assert_allclose(out[:, 8:], np.broadcast_to(means[:, 1:], (8, 8, 3)), atol=KEPT)


def test_an_empty_mask_changes_nothing() -> None:
    truth, mask, y_edges, x_edges, _ = scene(7)
    means = np.zeros((len(y_edges) - 1, len(x_edges) - 1, 3), np.float32)
    np.testing.assert_array_equal(keep_means(truth, np.zeros_like(mask), means, y_edges, x_edges), truth)


def test_a_tolerance_of_rounding_dust_is_none() -> None:
    """A lossless mosaic measures a noise of some 1e-8: its cells on the outline are as exact as all others."""
    edges = np.array([0, 8])
    picture = np.full((8, 8, 3), 0.5, np.float32)
    mask = np.zeros((8, 8), bool)
    mask[:, :3] = True
    out = keep_means(picture, mask, np.full((1, 1, 3), 0.6, np.float32), edges, edges, tolerance=3e-8)
    np.testing.assert_allclose(out.mean((0, 1)), 0.6, atol=KEPT)


def test_a_mean_of_eight_bits_may_ask_for_a_little_too_much() -> None:
    """Four black pixels stand for a cell of 64 whose mean was rounded down: black is what comes nearest."""
    edges = np.array([0, 8])
    picture = np.full((8, 8, 3), 100.49 * 64 / 60 / 255, np.float32)
    mask = np.zeros((8, 8), bool)
    mask[0, :4] = True
    out = keep_means(picture, mask, np.full((1, 1, 3), 100 / 255, np.float32), edges, edges)
    np.testing.assert_allclose(out[0, :4], 0, atol=KEPT)
