"""Poisson blending and the harmonic fill, against a sparse direct solver, hand-worked arrays and OpenCV."""

import cv2
import numpy as np
import pytest
from skimage import data

from restore_plugin.classical import multigrid
from restore_plugin.classical.blend import poisson
from restore_plugin.classical.harmonic import harmonic

LEVEL = 1 / 255


def photograph() -> np.ndarray:
    return (data.astronaut()[:200, 100:330] / 255).astype(np.float32)


def holes(size: tuple[int, int]) -> dict[str, np.ndarray]:
    height, width = size
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 3) ** 2
    corner = (y < height / 2) & (x < width / 2)
    grid = (y % 16 < 5) | (x % 16 < 5)  # one hole with islands
    speckles = np.random.default_rng(0).random(size) < 0.4
    nearly_all = np.ones(size, bool)
    nearly_all[3, 5] = False
    return {"disc": disc, "corner": corner, "grid": grid, "speckles": speckles, "nearly_all": nearly_all}


def direct(source: np.ndarray, target: np.ndarray, mask: np.ndarray, mixed: bool = False) -> np.ndarray:
    """Eq. 7 of the paper written down as it stands, pixel by pixel, for scipy to solve."""
    sparse = pytest.importorskip("scipy.sparse")
    linalg = pytest.importorskip("scipy.sparse.linalg")
    height, width = mask.shape
    number = np.full(mask.shape, -1)
    places = np.argwhere(mask)
    number[mask] = np.arange(len(places))
    rows, columns, values, wanted = [], [], [], np.zeros((len(places), 3))
    for index, (y, x) in enumerate(places):
        neighbours = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        neighbours = [(b, a) for b, a in neighbours if 0 <= b < height and 0 <= a < width]
        rows, columns, values = [*rows, index], [*columns, index], [*values, float(len(neighbours))]
        for b, a in neighbours:
            step = source[y, x].astype(float) - source[b, a]
            other = target[y, x].astype(float) - target[b, a]
            wanted[index] += np.where(np.abs(other) > np.abs(step), other, step) if mixed else step
            if mask[b, a]:
                rows, columns, values = [*rows, index], [*columns, number[b, a]], [*values, -1.0]
            else:
                wanted[index] += target[b, a]
    matrix = sparse.csc_matrix((values, (rows, columns)), (len(places), len(places)))
    found = target.astype(np.float64)
    found[mask] = np.clip(linalg.splu(matrix).solve(wanted), 0, 1)
    return found


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("hole", ["disc", "corner", "grid", "speckles", "nearly_all"])
def test_poisson_is_what_a_direct_solver_finds(hole: str, mixed: bool) -> None:
    target = photograph()[:48, :61]
    source = photograph()[120:168, 20:81]
    mask = holes((48, 61))[hole]
    found = poisson(source, target, mask, mixed)
    assert found.dtype == np.float32
    assert np.abs(found - direct(source, target, mask, mixed)).max() < 0.2 * LEVEL
    np.testing.assert_array_equal(found[~mask], target[~mask])


def test_poisson_beside_opencv() -> None:
    """cv2.seamlessClone solves the same on 8 bits, in a mask that it shrinks by 3 px; pictures are soft, as it is."""
    target = cv2.GaussianBlur(photograph(), (0, 0), 5)
    source = target[::-1, ::-1].copy()
    mask = np.zeros(target.shape[:2], bool)
    mask[60:141, 70:171] = True
    found = poisson(source, target, cv2.erode(mask.astype(np.uint8), np.ones((7, 7))).astype(bool))
    stored = [np.round(each * 255).astype(np.uint8) for each in (source, target)]
    around = cv2.boundingRect(mask.astype(np.uint8))
    centre = (around[0] + around[2] // 2, around[1] + around[3] // 2)
    theirs = cv2.seamlessClone(*stored, mask.astype(np.uint8) * 255, centre, cv2.NORMAL_CLONE) / 255
    inner = cv2.erode(mask.astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert np.abs(source - theirs)[inner].mean() > 20 * LEVEL
    assert np.abs(found - theirs)[inner].mean() < 3 * LEVEL


def test_source_of_another_brightness_leaves_no_trace() -> None:
    """A copy of the picture, lighter and shaded: only its steps count, and the shade is taken off at the border."""
    target = photograph() * 0.6
    mask = holes((200, 230))["disc"]
    np.testing.assert_allclose(poisson(target + np.float32(0.3), target, mask), target, atol=0.2 * LEVEL)
    ramp = np.linspace(0, 0.3, 230, dtype=np.float32)[None, :, None]  # harmonic itself
    np.testing.assert_allclose(poisson(target + ramp, target, mask), target, atol=0.2 * LEVEL)


def test_what_the_mask_hides_in_the_target_has_no_influence() -> None:
    target, source, mask = photograph(), photograph()[::-1].copy(), holes((200, 230))["disc"]
    other = np.where(mask[..., None], np.float32(0.5), target)
    np.testing.assert_array_equal(poisson(source, target, mask), poisson(source, other, mask))


def test_harmonic_by_hand() -> None:
    """A line of three between 0 and 1 has the quarters; a single pixel the mean of its four neighbours."""
    line = np.zeros((1, 5, 3), np.float32)
    line[0, 4] = 1
    hidden = np.array([[False, True, True, True, False]])
    np.testing.assert_allclose(harmonic(line, hidden)[0, :, 0], [0, 0.25, 0.5, 0.75, 1], atol=1e-3)
    cross = np.zeros((3, 3, 3), np.float32)
    cross[0, 1], cross[1, 0], cross[1, 2], cross[2, 1], cross[0, 0] = 0.1, 0.2, 0.3, 0.8, 1.0
    middle = np.zeros((3, 3), bool)
    middle[1, 1] = True
    np.testing.assert_allclose(harmonic(cross, middle)[1, 1], 0.35, atol=1e-3)


@pytest.mark.parametrize("hole", ["disc", "corner", "grid", "speckles", "nearly_all"])
def test_harmonic_keeps_to_its_surroundings(hole: str) -> None:
    picture, mask = photograph(), holes((200, 230))[hole]
    found = harmonic(np.where(mask[..., None], np.float32(7), picture), mask)
    np.testing.assert_array_equal(found[~mask], picture[~mask])
    low, high = picture[~mask].min(0), picture[~mask].max(0)
    assert (found[mask] >= low - 0.2 * LEVEL).all()  # no pixel is beyond those around (the maximum principle)
    assert (found[mask] <= high + 0.2 * LEVEL).all()


def test_harmonic_misses_less_than_fast_marching() -> None:
    picture, mask = photograph(), holes((200, 230))["disc"]
    telea = cv2.inpaint(np.round(picture * 255).astype(np.uint8), mask.astype(np.uint8), 3, cv2.INPAINT_TELEA) / 255
    assert ((harmonic(picture, mask) - picture)[mask] ** 2).mean() < ((telea - picture)[mask] ** 2).mean()


def test_nothing_hidden_and_all_hidden() -> None:
    picture, nothing = photograph(), np.zeros((200, 230), bool)
    for found in (harmonic(picture, nothing), poisson(picture[::-1], picture, nothing)):
        np.testing.assert_array_equal(found, picture)
        assert found is not picture
    with pytest.raises(ValueError, match="hides all"):
        harmonic(picture, ~nothing)
    with pytest.raises(ValueError, match="hides all"):
        poisson(picture, picture, ~nothing)
    with pytest.raises(ValueError, match=r"\(200, 230\).*got \(200, 230, 3\) and \(200, 229\)"):
        poisson(picture, picture, nothing[:, 1:])


def test_that_does_not_settle_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multigrid, "CYCLES", 1)
    with pytest.raises(ArithmeticError, match="expected to settle in 1 steps"):
        harmonic(photograph(), holes((200, 230))["disc"])
