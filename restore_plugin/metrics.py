"""How near two pictures are: PSNR and SSIM. Pictures are (H, W, C) in [0, 1]."""

from __future__ import annotations

import cv2
import numpy as np

from restore_plugin.types import Pixels

SIGMA = 1.5
WINDOW = 11
K1, K2 = 0.01, 0.03


def psnr(picture: Pixels, truth: Pixels) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = float(np.mean((picture.astype(np.float64) - truth) ** 2))
    return float("inf") if error == 0 else -10.0 * float(np.log10(error))


def ssim(picture: Pixels, truth: Pixels) -> float:
    """Structural similarity, mean over pixels and channels (Wang et al. 2004, eq. 13; Gaussian window, sigma 1.5)."""

    def blur(values: Pixels) -> Pixels:
        return np.asarray(cv2.GaussianBlur(values, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REFLECT), np.float64)

    x, y = picture.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    index = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    edge = WINDOW // 2  # where the window is cut by the picture's edge
    inner = index[edge:-edge, edge:-edge] if min(index.shape[:2]) > WINDOW else index
    return float(inner.mean())
