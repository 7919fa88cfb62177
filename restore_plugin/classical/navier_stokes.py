"""Bertalmio, Bertozzi & Sapiro 2001, "Navier-Stokes, fluid dynamics, and image and video inpainting": lines of equal
brightness are carried on into the hole. OpenCV's implementation."""

from __future__ import annotations

import cv2

from restore_plugin.classical.multigrid import BoolArray, FloatArray
from restore_plugin.classical.telea import opencv


def navier_stokes(picture: FloatArray, mask: BoolArray) -> FloatArray:
    """`picture` (H, W, 3) float32 in [0, 1], filled where `mask` (H, W) is True; other pixels are as they were."""
    return opencv(picture, mask, cv2.INPAINT_NS)
