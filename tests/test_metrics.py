"""The metrics agree with scikit-image."""

import numpy as np
import pytest
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restore_plugin.metrics import psnr, ssim


@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_agree_with_scikit_image(noise: float) -> None:
    truth = data.astronaut()[100:260, 150:330].astype(np.float32) / 255
    random = np.random.default_rng(3)
    picture = np.clip(truth + random.normal(0, noise, truth.shape), 0, 1).astype(np.float32)
    assert psnr(picture, truth) == pytest.approx(peak_signal_noise_ratio(truth, picture, data_range=1), abs=1e-4)
    theirs = structural_similarity(
        truth, picture, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(picture, truth) == pytest.approx(theirs, abs=1e-4)


def test_equal_pictures() -> None:
    picture = np.random.default_rng(1).random((32, 32, 3)).astype(np.float32)
    assert psnr(picture, picture) == float("inf")
    assert ssim(picture, picture) == pytest.approx(1.0)
