"""The rain generator and the table of degradations, on pictures drawn here."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from restore_plugin.training.degradations import DEGRADATIONS, degrade
from restore_plugin.training.rain import LEVEL_DECIBELS, LEVELS, Drop, Haze, Rain
from restore_plugin.training.streaks import DrawnLayer, NoiseLayer

SEEDS = range(12)


def drawn_picture(seed: int, height: int = 160, width: int = 200) -> np.ndarray:
    """Sky, ground, boxes and discs in all tones, with some texture: (H, W, 3) float32 in [0, 1]."""
    random = np.random.default_rng(1000 + seed)
    slope = np.linspace(random.uniform(0.5, 0.9), random.uniform(0.05, 0.4), height)
    picture = np.ascontiguousarray(np.repeat(np.repeat(slope[:, None, None], width, axis=1), 3, axis=2), np.float32)
    for _ in range(14):
        at = (int(random.integers(0, width)), int(random.integers(0, height)))
        colour = tuple(float(v) for v in random.beta(0.9, 1.1, 3))
        if random.random() < 0.5:
            cv2.circle(picture, at, int(random.integers(6, 30)), colour, -1)
        else:
            to = (at[0] + int(random.integers(8, 60)), at[1] + int(random.integers(8, 60)))
            cv2.rectangle(picture, at, to, colour, -1)
    return np.clip(picture + random.normal(0, 0.02, picture.shape), 0, 1).astype(np.float32)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2) + 1e-12))


def plain(rain: Rain, **changes: object) -> Rain:
    """The rain without veil, drops on the lens and refraction."""
    return replace(rain, **{"haze": None, "drops": (), "refraction_px": 0.0, **changes})


def rain_angle(difference: np.ndarray) -> tuple[float, float]:
    """Direction of a streak picture, degrees from the vertical (positive to the right), and coherence in [0, 1]."""
    grey = cv2.GaussianBlur(difference, (0, 0), 1.0)
    gy, gx = np.gradient(grey)
    xx, yy, xy = (gx * gx).mean(), (gy * gy).mean(), (gx * gy).mean()
    across = 0.5 * np.arctan2(2 * xy, xx - yy)  # the strongest gradient lies across the streaks
    coherence = np.hypot(xx - yy, 2 * xy) / (xx + yy)
    return float(-np.rad2deg(across)), float(coherence)


@pytest.mark.parametrize("level", [None, *LEVELS])
@pytest.mark.parametrize("size", [(16, 16), (128, 128), (37, 91), (1, 1)])
def test_keeps_shape_dtype_and_range(level: str | None, size: tuple[int, int]) -> None:
    for seed in SEEDS:
        grey = np.full((*size, 3), 0.5, np.float32)
        rainy = Rain.random(np.random.default_rng(seed), level).fall(grey, time=0.2 * (seed % 2))
        assert rainy.shape == grey.shape
        assert rainy.dtype == np.float32
        assert 0.0 <= rainy.min() <= rainy.max() <= 1.0
        assert (grey == 0.5).all()  # what was given stays as it was


def test_is_deterministic() -> None:
    picture = drawn_picture(0)
    for seed in SEEDS:
        first, second = (Rain.random(np.random.default_rng(seed)) for _ in range(2))
        assert first == second
        for time in (0.0, 0.12):
            np.testing.assert_array_equal(first.fall(picture, time), second.fall(picture, time))
    a, b = (Rain.random(np.random.default_rng(seed), "heavy").fall(picture) for seed in (1, 2))
    assert np.abs(a - b).max() > 0.1


def test_is_never_dry() -> None:
    picture = np.full((160, 200, 3), 0.35, np.float32)
    for seed in range(60):
        assert psnr(Rain.random(np.random.default_rng(seed)).fall(picture), picture) < 48


def test_levels_are_ordered_and_as_stated() -> None:
    pictures, means = [drawn_picture(seed) for seed in range(40)], []
    for level in LEVELS:
        values = [psnr(Rain.random(np.random.default_rng(s), level).fall(p), p) for s, p in enumerate(pictures)]
        means.append(np.mean(values))
        low, high = LEVEL_DECIBELS[level]
        assert low - 0.5 < means[-1] < high + 0.5, (level, means[-1])
    assert means == sorted(means, reverse=True)


def test_unknown_level() -> None:
    with pytest.raises(ValueError, match=r"light, medium, heavy, very heavy.*'torrential'"):
        Rain.random(np.random.default_rng(0), "torrential")
    with pytest.raises(ValueError, match="height, width, 3"):
        Rain.random(np.random.default_rng(0)).fall(np.zeros((8, 8), np.float32))


def test_adding_light_never_darkens() -> None:
    picture = drawn_picture(3)
    for seed in SEEDS:
        rain = plain(Rain.random(np.random.default_rng(seed), LEVELS[seed % 4]))
        for blending in ("add", "screen"):
            assert (replace(rain, blending=blending).fall(picture) >= picture - 1e-6).all()


def test_directions_vary_and_are_as_stated() -> None:
    dark = np.full((200, 200, 3), 0.2, np.float32)
    measured = []
    for seed in range(60):
        rain = plain(Rain.random(np.random.default_rng(seed), "medium"), blending="add", gust_seed=None)
        layers = [layer for layer in rain.layers if layer.length_px > 12]
        for layer in layers[:1]:
            angle, coherence = rain_angle((replace(rain, layers=(layer,)).fall(dark) - dark)[..., 1])
            away = (angle - layer.angle_degrees + 90) % 180 - 90
            if coherence > 0.3:
                assert abs(away) < 6, (seed, layer, angle)
                measured.append(angle)
    assert len(measured) > 30
    assert np.std(measured) > 15
    assert min(measured) < -20
    assert max(measured) > 20


def test_heavy_rain_is_crossed_at_times() -> None:
    spreads = []
    for seed in range(40):
        angles = [layer.angle_degrees for layer in Rain.random(np.random.default_rng(seed), "very heavy").layers]
        spreads.append(max(angles) - min(angles))
    assert sum(spread > 30 for spread in spreads) >= 8
    assert sum(spread < 15 for spread in spreads) >= 8


@pytest.mark.parametrize("family", [NoiseLayer, DrawnLayer])
def test_streaks_move_along_their_direction(family: type) -> None:
    """Between two near times the streaks shift by speed x time: measured by phase correlation."""
    for seed in range(6):
        random, angle = np.random.default_rng(seed), (-40.0, -15.0, 0.0, 20.0, 55.0, 80.0)[seed]
        if family is NoiseLayer:
            layer = replace(NoiseLayer.random(angle, 0.1, random), clumped=False, soft_px=0.0, length_px=20.0)
        else:
            layer = DrawnLayer.random(angle, 0.1, "middle", random)
            layer = replace(layer, spread_degrees=0.0, crisp=False)
        step_px = 7.3
        before, after = (layer.render(256, 256, step_px * n / layer.speed_px) for n in (3, 4))
        window = cv2.createHanningWindow((256, 256), cv2.CV_64F)
        (x, y), _ = cv2.phaseCorrelate(before.astype(np.float64), after.astype(np.float64), window)
        expected = step_px * np.sin(np.deg2rad(angle)), step_px * np.cos(np.deg2rad(angle))
        np.testing.assert_allclose((x, y), expected, atol=0.5)


def test_video_moves_before_a_scene_that_stays() -> None:
    """Light frames differ where it rains only; their darkest or median is the scene, their mean nearly."""
    picture = drawn_picture(5)
    for seed in SEEDS:
        rain = plain(Rain.random(np.random.default_rng(seed), "light"))
        frames = np.stack([rain.fall(picture, number / 25) for number in range(48)])
        assert np.abs(frames[1] - frames[0]).max() > 0.02
        dry = np.median(frames, axis=0) if rain.blending == "mix" else frames.min(axis=0)
        assert psnr(dry, picture) > 40
        assert psnr(frames.mean(axis=0), picture) > psnr(frames[0], picture) + 2.5
        assert np.ptp([psnr(frame, picture) for frame in frames]) < 8  # few streaks on a small picture, no flicker


def test_drops_stay_while_rain_moves() -> None:
    picture = drawn_picture(6)
    drop = replace(Drop.random(np.random.default_rng(0)), x=0.5, y=0.5, radius_px=20.0)
    dry = replace(plain(Rain.random(np.random.default_rng(1), "light")), drops=(drop,))
    wet = dry.fall(picture, 0.5) - plain(dry).fall(picture, 0.5)
    changed = np.abs(wet).max(axis=2) > 0.02
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 300
    assert rows.min() > 80 - 40
    assert rows.max() < 80 + 40
    assert columns.min() > 100 - 40
    assert columns.max() < 100 + 40


def test_haze_goes_towards_the_airlight() -> None:
    picture = drawn_picture(7)
    veiled = Haze(seed=1, amount=0.3, airlight=0.8).veil(picture)
    share = (veiled - picture) / np.where(np.abs(0.8 - picture) < 0.05, np.nan, 0.8 - picture)
    assert np.nanmin(share) >= 0.3 * 0.4 - 1e-3
    assert np.nanmax(share) <= 0.3 * 1.6 + 1e-3
    assert np.abs(np.diff(share[..., 0], axis=1))[~np.isnan(np.diff(share[..., 0], axis=1))].max() < 0.02


def test_every_degradation_is_deterministic_and_keeps_the_picture() -> None:
    picture = np.round(drawn_picture(8) * 255).astype(np.uint8)
    before = picture.copy()
    for name in DEGRADATIONS:
        damaged = degrade(name, picture, 3)
        assert damaged.dtype == np.uint8
        assert damaged.shape == picture.shape
        np.testing.assert_array_equal(damaged, degrade(name, picture, 3))
        assert (damaged == picture).all() == (name == "none")
        assert not np.shares_memory(damaged, picture)
    np.testing.assert_array_equal(picture, before)


def test_mosaic_rows_are_means_of_blocks() -> None:
    picture = np.round(drawn_picture(9) * 255).astype(np.uint8)
    damaged = degrade("mosaic-8", picture, 0)
    by_hand = picture.reshape(20, 8, 25, 8, 3).mean(axis=(1, 3))
    assert np.abs(damaged[::8, ::8] - by_hand).max() <= 0.51
    rows = np.diff(degrade("mosaic-6.5", picture, 0).astype(int), axis=0).any(axis=(1, 2)).nonzero()[0] + 1
    assert set(rows) <= {int(np.ceil(line * 6.5 - 0.5)) for line in range(1, 25)}


def test_unknown_degradation_names_what_there_is() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"none, rain-light, .*rain-very-heavy, mosaic-4, mosaic-6\.5.*'snow'"):
        degrade("snow", picture, 0)
    with pytest.raises(ValueError, match="uint8"):
        degrade("none", picture.astype(np.float32), 0)  # type: ignore[arg-type]
