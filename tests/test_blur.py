"""The blurs that networks are trained on: no light is lost, nothing shifts, and it is light that adds up."""

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from restore_plugin.training import blur

SEEDS = range(12)
PURE = {"NOISY": 0.0, "COMPRESSED": 0.0, "GLARE": 0.0}


@pytest.fixture
def pure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what comes after the blur."""
    for name, value in PURE.items():
        monkeypatch.setattr(blur, name, value)


def photograph() -> np.ndarray:
    """(200, 240, 3) uint8"""
    return np.ascontiguousarray(data.astronaut()[:200, 120:360])


def spot(height: int = 121, width: int = 141) -> np.ndarray:
    """(H, W, 3) float32: light in the middle, none near the borders."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    light = np.exp(-((y - height // 2) ** 2 + (x - width // 2) ** 2) / (2 * 2.0**2))
    return np.repeat(light[..., None], 3, 2)


def centroid(picture: np.ndarray) -> np.ndarray:
    """(2,): x, y from the middle."""
    light = picture.sum(2, dtype=np.float64) if picture.ndim == 3 else picture.astype(np.float64)
    y, x = np.mgrid[: light.shape[0], : light.shape[1]]
    middle = np.array([light.shape[1] // 2, light.shape[0] // 2])
    return np.array([(x * light).sum(), (y * light).sum()]) / light.sum() - middle


# --- where light goes


@pytest.mark.parametrize("points", [7, 13, blur.POINTS])
def test_trajectories_are_centred_and_as_long_as_asked(points: int) -> None:
    for seed in SEEDS:
        path = blur.trajectory(20.0, np.random.default_rng(seed), points)
        assert path.shape == (points, 2)
        np.testing.assert_allclose(path.mean(0), 0, atol=1e-4)
        way = np.hypot(*np.diff(path, axis=0).T).sum()
        assert way < 20.0 + 1e-3
        if points == blur.POINTS:
            assert way > 19.0
        np.testing.assert_array_equal(path, blur.trajectory(20.0, np.random.default_rng(seed), points))


def test_trajectories_differ_in_direction_and_in_shape() -> None:
    paths = [blur.trajectory(20.0, np.random.default_rng(seed)) for seed in range(200)]
    reach = np.array([np.hypot(*(path[-1] - path[0])) for path in paths])
    assert (reach > 17).mean() > 0.1  # nearly straight
    assert (reach < 12).mean() > 0.1  # bent, or shaken
    angles = np.array([np.arctan2(*(path[-1] - path[0])) for path in paths])
    assert np.abs(np.exp(1j * angles).mean()) < 0.25


def test_kernels_keep_light_and_place() -> None:
    for seed in SEEDS:
        for length in (0.8, 5.0, 40.0):
            spread = blur.kernel(blur.trajectory(length, np.random.default_rng(seed)))
            assert spread.shape[0] == spread.shape[1] <= 2 * (length + 2) + 1
            assert spread.shape[0] % 2 == 1
            assert spread.min() >= 0
            assert spread.sum() == pytest.approx(1, abs=1e-5)
            np.testing.assert_allclose(centroid(spread), 0, atol=1e-3)


@pytest.mark.parametrize("radius", [0.6, 2.5, 6.0])
def test_disc_is_a_disc(radius: float) -> None:
    """Small: a neighbour gets the segment beyond half a px, by its formula. Large: the variance is a disc's."""
    spread = blur.disc(radius)
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(spread, spread[::-1, ::-1], atol=1e-7)
    np.testing.assert_allclose(spread, spread.T, atol=1e-7)
    x = np.arange(len(spread)) - len(spread) // 2
    if radius < 1:
        segment = radius**2 * np.arccos(0.5 / radius) - 0.5 * np.sqrt(radius**2 - 0.25)
        assert spread[x == 1, x == 0] == pytest.approx(segment / (np.pi * radius**2), rel=0.05)
    else:
        assert (spread * x**2).sum() == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.03)  # of a disc, and of a pixel


@pytest.mark.parametrize("side", [3, 11, 13, 41])  # directly, and through Fourier transforms
def test_convolution_is_scipys(side: int) -> None:
    random = np.random.default_rng(side)
    picture, spread = random.random((60, 75, 3)).astype(np.float32), random.random((side, side)).astype(np.float32)
    spread /= spread.sum()
    expected = np.stack([ndimage.convolve(plane, spread, mode="mirror") for plane in picture.transpose(2, 0, 1)], 2)
    np.testing.assert_allclose(blur.convolve(picture, spread), expected, atol=1e-5)


@pytest.mark.parametrize("steps", [[(3, 0), (-1, 0), (-2, 0)], [(0, 9), (4, -3), (-4, -6)]])
def test_smearing_is_the_mean_of_moved_pictures(steps: list[tuple[int, int]]) -> None:
    picture = np.random.default_rng(0).random((64, 80, 3)).astype(np.float32)
    found = blur.smear(picture, blur.Motion(np.array(steps, np.float32)))
    expected = np.mean([np.roll(picture, (y, x), (0, 1)) for x, y in steps], 0)
    np.testing.assert_allclose(found[12:-12, 12:-12], expected[12:-12, 12:-12], atol=1e-5)


def test_turning_about_a_far_point_is_moving() -> None:
    """Clockwise by t about (0, -c) moves x by -c t at the top: the picture's axes point right and down."""
    picture = cv2.GaussianBlur(np.random.default_rng(1).random((64, 64, 3)).astype(np.float32), (0, 0), 2)
    far, moves = 40_000.0, np.array([-4, -2, 0, 2, 4], np.float32)
    turned = blur.smear(picture, blur.Motion(np.zeros((5, 2), np.float32), -moves / far, (32.0, -far)))
    moved = blur.smear(picture, blur.Motion(np.stack((moves, 0 * moves), 1)))
    np.testing.assert_allclose(turned[8:-8, 8:-8], moved[8:-8, 8:-8], atol=0.02)


@pytest.mark.parametrize("turning", [False, True])
def test_camera_motion_loses_no_light_and_shifts_nothing(turning: bool) -> None:
    picture = spot()
    for seed in SEEDS:
        motion = blur.Motion.random(30.0, picture.shape[:2], turning, np.random.default_rng(seed))
        found = blur.smear(picture, motion)
        assert found.sum() == pytest.approx(picture.sum(), rel=2e-3)
        np.testing.assert_allclose(centroid(found), 0, atol=0.3 if turning else 0.02)
        assert found.max() < 0.9 * picture.max()


@pytest.mark.parametrize("kind", ["handshake", "defocus"])
def test_small_blurs_lose_no_light_and_shift_nothing(kind: str) -> None:
    picture = spot()
    for seed in SEEDS:
        found = blur.BLURS[kind](picture, np.random.default_rng(seed))
        assert found.sum() == pytest.approx(picture.sum(), rel=1e-3)
        np.testing.assert_allclose(centroid(found), 0, atol=0.02)


def test_lengths_are_mostly_short(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    def still(length: float, size: object, turning: bool, random: object) -> blur.Motion:
        lengths.append(length)
        return blur.Motion(np.zeros((1, 2), np.float32))

    monkeypatch.setattr(blur.Motion, "random", staticmethod(still))
    monkeypatch.setattr(blur, "OBJECT", 0.0)
    random, picture = np.random.default_rng(0), np.zeros((8, 8, 3), np.float32)
    for _ in range(1000):
        blur.moved(picture, random)
    assert blur.MOTION_PX[0] <= min(lengths) < max(lengths) <= blur.LONGEST_PX
    assert np.mean(np.array(lengths) < 25) > 0.7
    assert np.mean(np.array(lengths) > 30) > 0.08


def test_a_part_moves_apart_from_the_rest() -> None:
    picture = cv2.GaussianBlur(np.random.default_rng(2).random((128, 160, 3)).astype(np.float32), (0, 0), 1)
    picture = (picture - picture.min()) / np.ptp(picture)
    still = []
    for seed in range(30):
        found = blur.layered(picture, 16.0, np.random.default_rng(seed))
        assert -1e-5 < found.min() <= found.max() < 1 + 1e-5
        still.append((np.abs(found - picture).max(2) < 1e-4).mean())
    assert np.mean(np.array(still) > 0.1) > 0.25  # one of the two stands still in half of them
    assert np.mean(np.array(still) < 0.02) > 0.25
    assert max(still) < 0.97


# --- light, and what is stored


@pytest.mark.parametrize(("exponent", "expected"), [(1.0, 85), (2.2, 155)])
@pytest.mark.usefixtures("pure")
def test_an_exposure_adds_light(exponent: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the time white, else black: a third of the light, 255 * (1/3)^(1/2.2) as stored."""
    monkeypatch.setattr(blur, "curve", lambda random: exponent)
    black, white = np.zeros((4, 5, 3), np.uint8), np.full((4, 5, 3), 255, np.uint8)
    found, truth = blur.exposure([white, black, black], np.random.default_rng(0))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(truth, black)


def test_an_exposure_has_a_middle() -> None:
    frames = [np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 60, 90)]
    assert blur.exposure(frames[:3], np.random.default_rng(0))[1] is frames[1]
    with pytest.raises(ValueError, match="odd number of frames, got 4"):
        blur.exposure(frames, np.random.default_rng(0))


def test_bright_lights_are_brighter_than_white() -> None:
    plain, glaring = blur.light(2.2), blur.light(2.2, glare=3.0)
    np.testing.assert_allclose(plain, (np.arange(256) / 255) ** 2.2, atol=1e-6)
    np.testing.assert_array_equal(glaring[: blur.WHITE + 1], plain[: blur.WHITE + 1])
    assert glaring[255] == pytest.approx(4.0)
    assert (np.diff(glaring) > 0).all()


@pytest.mark.parametrize("kind", blur.BLURS)
def test_blurred_pictures_are_deterministic_and_softer(kind: str) -> None:
    picture = photograph()
    before = picture.copy()
    seen = []
    for seed in SEEDS:
        found = blur.blurred(picture, kind, np.random.default_rng(seed))
        assert (found.dtype, found.shape) == (np.uint8, picture.shape)
        np.testing.assert_array_equal(found, blur.blurred(picture, kind, np.random.default_rng(seed)))
        seen.append(found)
    np.testing.assert_array_equal(picture, before)
    assert len({each.tobytes() for each in seen}) == len(seen)
    edges = [np.abs(np.diff(each.astype(float), axis=1)).mean() for each in (picture, *seen)]
    assert np.mean(edges[1:]) < 0.9 * edges[0]


@pytest.mark.parametrize("kind", blur.BLURS)
@pytest.mark.usefixtures("pure")
def test_even_colours_stay(kind: str) -> None:
    """No colour shift, and no darker borders."""
    picture = np.empty((64, 80, 3), np.uint8)
    picture[:] = (200, 90, 30)
    for seed in SEEDS:
        found = blur.blurred(picture, kind, np.random.default_rng(seed))
        assert np.abs(found.astype(int) - picture).max() <= 1


def test_noise_grows_with_light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blur, "NOISY", 1.0)
    monkeypatch.setattr(blur, "COMPRESSED", 0.0)
    linear = np.full((64, 64, 3), 0.1, np.float32)
    linear[32:] = 0.6
    for seed in SEEDS:
        noise = blur.developed(linear, 1.0, np.random.default_rng(seed)).astype(float)
        assert 0.2 < noise[:32].std() < noise[32:].std() < 5  # of 255: mild


def test_unknown_blur_names_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"motion, handshake, defocus.*'fog'"):
        blur.blurred(photograph(), "fog", np.random.default_rng(0))
