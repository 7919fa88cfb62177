"""Holes to train on: of the share that is asked for, of every kind, the same from the same seed."""

import cv2
import numpy as np
import pytest

from restore_plugin.training import holes

SHARES = (0.03, 0.1, 0.2, 0.4, 0.6)


@pytest.mark.parametrize("kind", [*holes.SHAPES, "mixed"])
@pytest.mark.parametrize("size", [(128, 128), (96, 240)])
def test_share_is_about_what_was_asked_for(kind: str, size: tuple[int, int]) -> None:
    for seed, share in enumerate(SHARES):
        hidden = holes.hidden(*size, kind, share, np.random.default_rng(seed))
        assert hidden.shape == size
        assert hidden.dtype == bool
        wanted = min(share, holes.LIMITS.get(kind, 0.7))
        assert 0.6 * wanted - 0.01 <= hidden.mean() <= 1.15 * wanted + 0.011


@pytest.mark.parametrize("kind", [*holes.SHAPES, "mixed"])
def test_same_seed_same_hole(kind: str) -> None:
    first, again, other = (holes.hidden(96, 96, kind, 0.1, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_kinds_differ_in_how_deep_they_are() -> None:
    """The deepest pixel of a hole: a scratch is thin, a box is not."""

    def depth_px(kind: str, share: float) -> float:
        found = [holes.hidden(192, 192, kind, share, np.random.default_rng(seed)) for seed in range(8)]
        return float(np.median([cv2.distanceTransform(each.astype(np.uint8), cv2.DIST_L2, 5).max() for each in found]))

    assert depth_px("scratches", 0.1) < 6
    assert depth_px("writing", 0.1) < 12
    assert depth_px("boxes", 0.4) > 25
    assert depth_px("outlines", 0.4) > 25


def test_kind_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"expected one of mixed, strokes.*got 'rain'"):
        holes.hidden(8, 8, "rain", 0.1, np.random.default_rng(0))
