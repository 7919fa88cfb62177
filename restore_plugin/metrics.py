"""How near two pictures are. Pictures are RGB, (H, W, 3) float32 in [0, 1], gamma-encoded, both of one size.

PSNR and SSIM are taken over all three channels. VIF and GMSD are defined on brightness: they are taken on BT.601 luma
of the gamma-encoded values, 0.299 R + 0.587 G + 0.114 B, not rounded. All of them compute in float64. The Dice
coefficient is there because it is quoted for inpainting; it says little.
"""

from __future__ import annotations

import cv2
import numpy as np

from restore_plugin.types import Luma, Pixels

LUMA = np.array([0.299, 0.587, 0.114])  # BT.601

SIGMA = 1.5
WINDOW = 11
K1, K2 = 0.01, 0.03

VIF_MINIMUM = 41  # px, smallest side: below it the coarsest scale has no whole window
VIF_NOISE = 2.0  # variance of the eye's noise, for values in [0, 255]
VIF_TINY = 1e-10

GMSD_C = 170 / 255**2


def psnr(picture: Pixels, truth: Pixels) -> float:
    """Peak signal-to-noise ratio in dB over pixels and channels, peak 1; infinite for equal pictures."""
    error = float(np.mean((picture.astype(np.float64) - truth) ** 2))
    return float("inf") if error == 0 else -10.0 * float(np.log10(error))


def ssim(picture: Pixels, truth: Pixels) -> float:
    """Structural similarity, mean over pixels and channels, at most 1 (Wang et al. 2004, eq. 13; Gaussian window, sigma
    1.5). Pixels whose window the picture's edge cuts are left out."""

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


def vif(picture: Pixels, truth: Pixels) -> float:
    """Visual information fidelity in the pixel domain (VIF-P), on luma.

    The share of the information in `truth` that `picture` keeps: 1 for equal pictures, 0 where nothing is left, above 1
    for a picture of more contrast; not symmetric. Sheikh and Bovik 2006, "Image information and visual quality", in the
    form that its authors released for pixels (vifp_mscale): four scales, Gaussian windows of 17, 9, 5 and 3 px with
    sigma a fifth of that, windows that the edge cuts left out, values in [0, 255], noise variance 2. 1 for a truth
    without any detail. Raises ValueError for pictures under 41 px.
    """
    if min(truth.shape[:2]) < VIF_MINIMUM:
        raise ValueError(f"VIF needs pictures of at least {VIF_MINIMUM} x {VIF_MINIMUM} px, got {truth.shape[:2]}")
    x, y = _luma(truth) * 255, _luma(picture) * 255
    kept = there = 0.0
    for size in (17, 9, 5, 3):
        if size < 17:
            x, y = _window_means(x, size)[::2, ::2], _window_means(y, size)[::2, ::2]
        mean_x, mean_y = _window_means(x, size), _window_means(y, size)
        var_x = np.maximum(_window_means(x * x, size) - mean_x**2, 0)
        var_y = np.maximum(_window_means(y * y, size) - mean_y**2, 0)
        covariance = _window_means(x * y, size) - mean_x * mean_y
        # the channel y = gain * x + noise of variance `rest`; where there is none, all of y is noise
        gain = covariance / (var_x + VIF_TINY)
        rest = var_y - gain * covariance
        none = (var_x < VIF_TINY) | (var_y < VIF_TINY) | (gain < 0)
        gain, rest = np.where(none, 0, gain), np.maximum(np.where(none, var_y, rest), VIF_TINY)
        var_x = np.where(var_x < VIF_TINY, 0, var_x)
        kept += float(np.log10(1 + gain**2 * var_x / (rest + VIF_NOISE)).sum())
        there += float(np.log10(1 + var_x / VIF_NOISE).sum())
    return kept / there if there else 1.0


def gmsd(picture: Pixels, truth: Pixels) -> float:
    """Gradient magnitude similarity deviation on luma: a perceptual distance, 0 for equal pictures, larger is worse
    (an 8 px mosaic of a photograph has about 0.3).

    Xue et al. 2014, "Gradient magnitude similarity deviation": halved by means of 2 x 2 px, Prewitt gradients m, the
    similarity (2 m_x m_y + c) / (m_x^2 + m_y^2 + c) at every pixel with c 170 for values in [0, 255], and of these the
    (population) standard deviation. Zeros lie beyond the edge, as in the authors' program.
    """
    x, y = _gradient(_halved(_luma(picture))), _gradient(_halved(_luma(truth)))
    return float(np.std((2 * x * y + GMSD_C) / (x**2 + y**2 + GMSD_C)))


def dice(picture: Pixels, truth: Pixels) -> float:
    """The Dice coefficient, 2 sum(x y) / (sum(x) + sum(y)) over pixels and channels; 1 for two black pictures.

    Defined for sets (Dice 1945): for masks, of 0 and 1, it is twice what both share over what each has, 1 for equal
    ones. Tutorials of autoencoders that fill holes take it of pictures, by the same formula. There it measures little:
    a picture with itself has mean(x^2) / mean(x), below 1 unless all its values are 0 or 1, and brighter pictures have
    more. It can only be compared for the same truth, and a picture that is too bright may be above the truth itself.
    """
    x, y = picture.astype(np.float64), truth.astype(np.float64)
    total = float(x.sum() + y.sum())
    return 2 * float((x * y).sum()) / total if total else 1.0


def _luma(picture: Pixels) -> Luma:
    """(H, W) float64."""
    return picture.astype(np.float64) @ LUMA


def _window_means(values: Luma, size: int) -> Luma:
    """Gaussian-weighted means over windows of `size` px, sigma size / 5; only whole windows."""
    kernel = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * (size / 5) ** 2))
    kernel /= kernel.sum()
    edge = size // 2
    return np.asarray(cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel))[edge:-edge, edge:-edge]


def _halved(values: Luma) -> Luma:
    height, width = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2)))
    return even.reshape((height + 1) // 2, 2, (width + 1) // 2, 2).mean((1, 3))


def _gradient(values: Luma) -> Luma:
    """Magnitude of the Prewitt gradient."""
    across, along = np.array([-1.0, 0.0, 1.0]), np.full(3, 1 / 3)
    x = cv2.sepFilter2D(values, cv2.CV_64F, across, along, borderType=cv2.BORDER_CONSTANT)
    y = cv2.sepFilter2D(values, cv2.CV_64F, along, across, borderType=cv2.BORDER_CONSTANT)
    return np.hypot(x, y)
