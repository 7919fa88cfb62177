"""The metrics agree with independent implementations: scikit-image (PSNR, SSIM), sewar (VIF), piq (GMSD)."""

from collections.abc import Iterator

import numpy as np
import pytest
import sewar
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restore_plugin.metrics import dice, gmsd, psnr, ssim, vif

LUMA = np.array([0.299, 0.587, 0.114])

# piq 0.8.0's gmsd in float64. Recorded, because piq needs torch and torchvision; compared anew where it is installed.
PIQ_GMSD = {
    "astronaut, mosaic": 0.312517378,
    "astronaut, stripes": 0.298690331,
    "astronaut, motion": 0.128590504,
    "astronaut, contrast": 0.071752063,
    "astronaut, negative": 0.075885455,
    "coffee, mosaic": 0.289918861,
    "coffee, stripes": 0.315022139,
    "coffee, motion": 0.110373708,
    "coffee, contrast": 0.081488324,
    "coffee, negative": 0.085245022,
}


def pictures() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, damaged, truth), float32 (H, W, 3); damaged without random numbers, so that records stay true."""
    for name, picture in {"astronaut": data.astronaut()[60:301, :300], "coffee": data.coffee()[:260, 120:375]}.items():
        truth = picture.astype(np.float32) / 255
        height, width = truth.shape[:2]
        small = truth[::8, ::8]
        yield f"{name}, mosaic", np.repeat(np.repeat(small, 8, 0), 8, 1)[:height, :width], truth
        stripes = (np.arange(width) % 7 == 0) * np.float32(0.3)
        yield f"{name}, stripes", np.minimum(truth + stripes[:, None], 1), truth
        shifts = [np.roll(truth, step, axis=1) for step in range(-4, 5)]
        yield f"{name}, motion", np.mean(shifts, axis=0, dtype=np.float32), truth
        yield f"{name}, contrast", np.clip((truth - 0.5) * 1.4 + 0.5, 0, 1), truth
        yield f"{name}, negative", 1 - truth, truth


each = pytest.mark.parametrize(("name", "picture", "truth"), [pytest.param(*row, id=row[0]) for row in pictures()])


@each
def test_psnr_and_ssim_agree_with_scikit_image(name: str, picture: np.ndarray, truth: np.ndarray) -> None:
    wide, wide_truth = picture.astype(np.float64), truth.astype(np.float64)
    assert psnr(picture, truth) == pytest.approx(
        peak_signal_noise_ratio(wide_truth, wide, data_range=1), rel=0, abs=1e-9
    )
    options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = structural_similarity(wide_truth, wide, data_range=1, **options)
    assert ssim(picture, truth) == pytest.approx(theirs, rel=0, abs=1e-9)


@each
def test_vif_agrees_with_sewar(name: str, picture: np.ndarray, truth: np.ndarray) -> None:
    """sewar takes one channel of [0, 255], the truth first."""
    theirs = sewar.vifp(truth.astype(np.float64) @ LUMA * 255, picture.astype(np.float64) @ LUMA * 255)
    assert vif(picture, truth) == pytest.approx(theirs, rel=0, abs=1e-9)


@each
def test_gmsd_agrees_with_the_record_of_piq(name: str, picture: np.ndarray, truth: np.ndarray) -> None:
    assert gmsd(picture, truth) == pytest.approx(PIQ_GMSD[name], rel=0, abs=1e-7)


def test_vif_and_gmsd_agree_with_piq() -> None:
    torch, piq = pytest.importorskip("torch"), pytest.importorskip("piq")
    for name, picture, truth in pictures():
        x, y = (torch.from_numpy(p.astype(np.float64).transpose(2, 0, 1)[None]) for p in (picture, truth))
        assert vif(picture, truth) == pytest.approx(float(piq.vif_p(x, y)), rel=0, abs=1e-7), name
        assert gmsd(picture, truth) == pytest.approx(float(piq.gmsd(x, y)), rel=0, abs=1e-9), name


def test_gmsd_by_hand() -> None:
    """A step of 1 against none, 4 x 4 px halved to 2 x 2: every gradient is known.

    With zeros around, the truth [[0, 1], [0, 1]] has Prewitt gradients of 2/3 in x and 1/3 (left) and 1/3 (right) in y
    up to sign; the black picture has none.
    """
    truth = np.zeros((4, 4, 3), np.float32)
    truth[:, 2:] = 1
    c = 170 / 255**2
    left, right = (2 / 3) ** 2 + (1 / 3) ** 2, (1 / 3) ** 2
    similar = [c / (left + c), c / (right + c)]
    assert gmsd(np.zeros_like(truth), truth) == pytest.approx(abs(similar[0] - similar[1]) / 2)


def test_dice_of_masks_agrees_with_scipy() -> None:
    """scipy has the dissimilarity: 1 minus it."""
    from scipy.spatial.distance import dice as dissimilarity

    random = np.random.default_rng(3)
    one, other = (random.random((20, 30)) < share for share in (0.3, 0.6))
    expected = 1 - dissimilarity(one.ravel(), other.ravel())
    as_pictures = [np.repeat(each[..., None], 3, 2).astype(np.float32) for each in (one, other)]
    assert dice(*as_pictures) == pytest.approx(expected)
    assert dice(as_pictures[0], as_pictures[0]) == 1
    assert dice(as_pictures[0], 1 - as_pictures[0]) == 0


def test_dice_of_pictures_by_hand() -> None:
    """As the docstring warns: a picture has less than 1 with itself, and one that is too bright more than itself."""
    truth = np.full((2, 2, 3), 0.25, np.float32)
    truth[0] = 0.75
    with_itself = dice(truth, truth)
    assert with_itself == pytest.approx((0.25**2 + 0.75**2) / (0.25 + 0.75))
    brighter = np.where(truth > 0.5, np.float32(1), truth)
    assert dice(brighter, truth) == pytest.approx(2 * (1 * 0.75 + 0.25**2) / (1 + 0.25 + 0.75 + 0.25))
    assert dice(brighter, truth) > with_itself
    black = np.zeros_like(truth)
    assert dice(black, truth) == 0
    assert dice(black, black) == 1


def test_equal_pictures() -> None:
    picture = np.random.default_rng(1).random((48, 51, 3)).astype(np.float32)
    assert psnr(picture, picture) == float("inf")
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert vif(picture, picture) == pytest.approx(1.0)
    assert gmsd(picture, picture) == 0.0


def test_more_noise_is_worse_by_all() -> None:
    truth = data.astronaut()[:200, :200].astype(np.float32) / 255
    noise = np.random.default_rng(2).normal(0, 1, truth.shape)
    little, much = (np.clip(truth + s * noise, 0, 1).astype(np.float32) for s in (0.02, 0.1))
    for metric in (psnr, ssim, vif):
        assert metric(little, truth) > metric(much, truth)
    assert gmsd(little, truth) < gmsd(much, truth)


def test_vif_at_its_limits() -> None:
    flat = np.full((41, 41, 3), 0.5, np.float32)
    assert vif(flat, flat) == 1.0
    with pytest.raises(ValueError, match="at least 41 x 41"):
        vif(flat[:40], flat[:40])
