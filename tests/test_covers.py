"""What is laid over a face, against ellipses that are worked out for every pixel."""

import cv2
import numpy as np
import pytest

from restore_plugin.masks.covers import cover, steadied, steadied_ways, windows
from restore_plugin.plan import check_inside
from restore_plugin.types import Region, ScanOptions

WIDTH, HEIGHT = 200, 150  # px, of the picture


def covered(region: Region) -> np.ndarray:
    """(HEIGHT, WIDTH) bool."""
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[region.box.slices] = region.mask()
    return whole


def inside_ellipse(quad: np.ndarray, enlarged: float) -> np.ndarray:
    """(HEIGHT, WIDTH) bool: pixels whose middle lies in the ellipse inscribed in a box that is enlarged."""
    x0, y0, x1, y1 = quad
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    along_x, along_y = (x - (x0 + x1) / 2) / ((x1 - x0) / 2), (y - (y0 + y1) / 2) / ((y1 - y0) / 2)
    return along_x**2 + along_y**2 <= enlarged**2


def boxes(seed: int, count: int = 60) -> list[np.ndarray]:
    """Boxes of faces from 8 px up to the picture's height, some of them partly outside of it."""
    random = np.random.default_rng(seed)
    height = random.uniform(8, 120, count)
    width = height * random.uniform(0.6, 1.1, count)
    x, y = random.uniform(0, WIDTH, count), random.uniform(0, HEIGHT, count)
    return list(np.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), 1))


@pytest.mark.parametrize("margin", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("as_boxes", [False, True])
def test_the_face_s_ellipse_is_covered(margin: float, as_boxes: bool) -> None:
    """And the whole box, where covers are boxes; the region is inside the picture."""
    for quad in boxes(1):
        region = cover(quad, WIDTH, HEIGHT, ScanOptions(margin=margin, boxes=as_boxes))
        check_inside([region], (WIDTH, HEIGHT))
        ellipse = inside_ellipse(quad, margin)
        assert ellipse.any()
        assert not (ellipse & ~covered(region)).any(), quad
        if as_boxes:
            assert region.outline == ()
            x0, y0, x1, y1 = (max(0, round(value)) for value in quad)
            assert covered(region)[y0:y1, x0:x1].all()


@pytest.mark.parametrize("margin", [1.0, 1.05, 1.3, 2.0])
def test_what_fades_is_not_the_face(margin: float) -> None:
    """Soft edges lie in what the margin adds: every pixel of the face is farther inside, if it is in the picture."""
    assert (cover((50, 40, 90, 95), WIDTH, HEIGHT, ScanOptions(margin=margin)).soft >= 1) == (margin > 1)
    for quad in boxes(3):
        region = cover(quad, WIDTH, HEIGHT, ScanOptions(margin=margin))
        # what is beyond the picture's edge is no edge
        whole = cv2.copyMakeBorder(covered(region).astype(np.uint8), 40, 40, 40, 40, cv2.BORDER_REPLICATE)
        deep = cv2.distanceTransform(whole, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[40:-40, 40:-40]
        face = inside_ellipse(quad, 1.0)
        assert deep[face].min(initial=np.inf) > region.soft, quad


def test_not_much_more_than_the_face_is_covered() -> None:
    """2 px around the ellipse at most, where the face is not narrow; a narrow one's cover is as wide as a head."""
    for quad in boxes(2):
        x0, y0, x1, y1 = quad
        region = cover(quad, WIDTH, HEIGHT, ScanOptions(margin=1.3))
        head = max(x1 - x0, 0.7 * (y1 - y0)) / 2
        wider = np.array([(x0 + x1) / 2 - head, y0, (x0 + x1) / 2 + head, y1])
        side_x, side_y = head * 1.3, (y1 - y0) / 2 * 1.3
        about = inside_ellipse(wider, 1.3 * (min(side_x, side_y) + 3) / min(side_x, side_y))
        assert not (covered(region) & ~about).any(), quad


def test_a_narrow_face_is_a_head_seen_from_the_side() -> None:
    narrow = covered(cover((95, 40, 105, 100), WIDTH, HEIGHT, ScanOptions(margin=1.0)))
    assert not (inside_ellipse(np.array([79, 40, 121, 100]), 1.0) & ~narrow).any()


def test_corners_are_left_open_by_an_ellipse_alone() -> None:
    quad = (60, 40, 120, 110)
    ellipse, box = (cover(quad, WIDTH, HEIGHT, ScanOptions(boxes=as_boxes)) for as_boxes in (False, True))
    assert ellipse.box == box.box
    assert not ellipse.mask()[0, 0]
    assert box.mask().all()
    assert ellipse.mask().sum() < 0.85 * box.mask().sum()


@pytest.mark.parametrize(("motion", "wider", "higher"), [((20, 0), True, False), ((0, -20), False, True)])
def test_motion_enlarges_a_cover(motion: tuple[float, float], wider: bool, higher: bool) -> None:
    """By half of a frame's movement on both sides at least: a shutter that is open all the time smears it so far."""
    still = cover((80, 50, 120, 100), WIDTH, HEIGHT, ScanOptions())
    moving = cover((80, 50, 120, 100), WIDTH, HEIGHT, ScanOptions(), motion)
    assert (moving.box.x <= still.box.x - 10, moving.box.right >= still.box.right + 10) == (wider, wider)
    assert (moving.box.y <= still.box.y - 10, moving.box.bottom >= still.box.bottom + 10) == (higher, higher)
    assert not (covered(still) & ~covered(moving)).any()
    if not wider:
        assert moving.box.width == still.box.width


@pytest.mark.parametrize("quad", [(-80, 20, -50, 60), (300, 20, 330, 60), (50, -70, 80, -40), (50, 400, 80, 440)])
@pytest.mark.parametrize("as_boxes", [False, True])
def test_a_face_that_has_left(quad: tuple[float, ...], as_boxes: bool) -> None:
    region = cover(quad, WIDTH, HEIGHT, ScanOptions(boxes=as_boxes))
    check_inside([region], (WIDTH, HEIGHT))
    assert covered(region).sum() <= 1


def test_a_tiny_picture() -> None:
    region = cover((-10, -10, 30, 40), 2, 1, ScanOptions())
    check_inside([region], (2, 1))
    assert region.mask().all()


# --- over time


def way(frames: int = 60, tremble: float = 0.0) -> np.ndarray:
    """(frames, 4): a face on a slow curve that comes nearer; its box trembles by so many px."""
    at = np.arange(frames)
    x, y, side = 100 + 1.5 * at, 80 + 20 * np.sin(at / 20), 30 + 0.2 * at
    quads = np.stack((x - side, y - 1.3 * side, x + side, y + 1.3 * side), 1)
    return (quads + np.random.default_rng(3).normal(0, tremble, quads.shape)).astype(np.float32)


def trembling(values: np.ndarray) -> float:
    """Variance of the second differences: nothing for a movement that is even."""
    return float(np.diff(values, 2, axis=0).var())


def test_steadied_is_never_smaller() -> None:
    quads = way(tremble=3)
    steady, _ = steadied(quads)
    assert steady.dtype == np.float32
    assert steady.shape == quads.shape
    assert (steady[:, :2] <= quads[:, :2]).all()
    assert (steady[:, 2:] >= quads[:, 2:]).all()


def test_steadied_is_steadier() -> None:
    """Its edges, its middle and its sides. And not much larger: it holds what trembles by 3 px, on either side."""
    quads = way(tremble=3)
    steady, _ = steadied(quads)
    assert trembling(steady) < 0.5 * trembling(quads)
    assert trembling(steady[:, :2] + steady[:, 2:]) < 0.5 * trembling(quads[:, :2] + quads[:, 2:])
    assert trembling(steady[:, 2:] - steady[:, :2]) < 0.5 * trembling(quads[:, 2:] - quads[:, :2])
    assert ((steady[:, 2:] - steady[:, :2]) - (way()[:, 2:] - way()[:, :2])).mean() < 2 * 2 * 3


def test_what_does_not_move_stays() -> None:
    still = np.tile(np.array([10, 20, 40, 60], np.float32), (7, 1))
    steady, motion = steadied(still)
    np.testing.assert_array_equal(steady, still)
    np.testing.assert_array_equal(motion, np.zeros((7, 2)))


def test_motion_is_the_fastest_step_around() -> None:
    """A face that jumps once by (12, -5): felt two frames to either side."""
    quads = np.tile(np.array([10, 20, 40, 60], np.float32), (11, 1))
    quads[5:] += np.array([12, -5, 12, -5], np.float32)
    _, motion = steadied(quads)
    np.testing.assert_array_equal(motion, [[12, 5] if 3 <= frame <= 7 else [0, 0] for frame in range(11)])


def test_one_frame() -> None:
    quads = np.array([[10, 20, 40, 60]], np.float32)
    steady, motion = steadied(quads)
    np.testing.assert_array_equal(steady, quads)
    np.testing.assert_array_equal(motion, [[0, 0]])


def test_windows_by_hand() -> None:
    found = windows(np.array([[1.0], [2.0], [3.0], [4.0]]))
    np.testing.assert_array_equal(found[..., 0], [[1, 1, 1, 2, 3], [1, 1, 2, 3, 4], [1, 2, 3, 4, 4], [2, 3, 4, 4, 4]])


def test_a_second_way_is_no_movement() -> None:
    """Two faces that stand still, 200 px apart: no cover spans both, or grows."""
    one, other = np.array([[10, 10, 50, 60], [210, 10, 250, 60]], np.float32)
    frames = [0, 1, 2, 3, 2, 3, 4, 5]
    quads = np.stack([one] * 4 + [other] * 4)
    steady, motion = steadied_ways(frames, quads)
    np.testing.assert_array_equal(steady, quads)
    np.testing.assert_array_equal(motion, np.zeros((8, 2)))
    assert steadied(quads)[1].max() == 200  # as one way it would be a leap
    growing = [0, 1, 2, 3, 4, 5, 6, 7]
    for several, alone in zip(steadied_ways(growing, quads), steadied(quads), strict=True):
        np.testing.assert_array_equal(several, alone)
