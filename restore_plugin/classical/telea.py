"""Telea 2004, "An image inpainting technique based on the fast marching method": from a hole's border inwards, every
pixel is a weighted mean of known ones nearby. OpenCV's implementation."""

from __future__ import annotations

import cv2
import numpy as np

from restore_plugin.classical.multigrid import BoolArray, FloatArray

RADIUS_PX = 3.0
WHITE = np.float32(65535)


def telea(picture: FloatArray, mask: BoolArray) -> FloatArray:
    """`picture` (H, W, 3) float32 in [0, 1], filled where `mask` (H, W) is True; other pixels are as they were."""
    return opencv(picture, mask, cv2.INPAINT_TELEA)


def opencv(picture: FloatArray, mask: BoolArray, how: int) -> FloatArray:
    """In 16 bits, channel by channel: OpenCV takes three at once with 8 bits only, and rounds floats."""
    marked, stored = mask.astype(np.uint8), np.round(picture * WHITE).astype(np.uint16)
    filled = [cv2.inpaint(np.ascontiguousarray(stored[..., channel]), marked, RADIUS_PX, how) for channel in range(3)]
    return np.where(mask[..., None], np.stack(filled, -1).astype(np.float32) / WHITE, picture)
