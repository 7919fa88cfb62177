"""Moving the pitch of sound while every word stays at its time.

Overlap-add of grains that are read faster or slower than they are played, each laid where it goes on best from the one
before: the waveform similarity of Verhelst and Roelands (WSOLA, ICASSP 1993), with the resampling inside the grain.
Grain k is read around k * hop of the input and played around k * hop of the output, so nothing can drift. Voices come
out clean; in chords and cymbals the grains can be heard. Formants move with the pitch, as they do on a tape.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np

Samples = np.ndarray[Any, np.dtype[Any]]
Semitones = Callable[[float], float]  # at a time in seconds

HOP_SECONDS = 0.0125  # half a grain: two periods of a deep voice fit into a whole one
SEARCH_SECONDS = 0.007  # how far a grain may be moved: half a period of a deep voice
NEARNESS = 0.4  # how much more alike (of 1) a place at the end of the search must be than the one in its time
TAPS, PHASES = 32, 512  # of the interpolation


class Wander:
    """A shift that goes slowly and at random up and down around its mean, so that no one number undoes it.

    Every WANDER_SECONDS it reaches another place within `mean` +- `width` semitones. The places come from a key that is
    drawn for this object and kept nowhere; all tracks that share the object move alike.
    """

    WANDER_SECONDS = 2.5

    def __init__(self, mean: float, width: float) -> None:
        self.mean, self.width = mean, width
        self._key = secrets.token_bytes(16)

    def __call__(self, seconds: float) -> float:
        knot, part = divmod(seconds / self.WANDER_SECONDS, 1)
        one, other = self._place(int(knot)), self._place(int(knot) + 1)
        return self.mean + self.width * (one + (other - one) * (1 - math.cos(math.pi * part)) / 2)

    def _place(self, knot: int) -> float:
        drawn = blake2b(str(knot).encode(), key=self._key, digest_size=8).digest()
        return int.from_bytes(drawn, "big") / 2**63 - 1


class PitchShifter:
    """Feed it sound in pieces of any length; what it gives back, `end` included, is as long as what it got.

    `semitones` tells the shift at a time in seconds from the first sample, and never leaves +-`largest`.
    """

    def __init__(self, channels: int, rate: int, semitones: Semitones, largest: float) -> None:
        self._rate, self._semitones = rate, semitones
        self._hop, self._search = round(HOP_SECONDS * rate), round(SEARCH_SECONDS * rate)
        self._reach = self._search + math.ceil(2 ** (largest / 12) * self._hop) + TAPS  # read around a grain's centre
        angle = np.arange(-self._hop, self._hop) * math.pi / self._hop
        self._window = (0.5 + 0.5 * np.cos(angle)).astype(np.float32)  # with its neighbours it adds up to 1
        self._kernel = _kernel(2 ** (-largest / 12))
        self._sound = np.zeros((channels, self._reach), np.float32)
        self._first = -self._reach  # which sample stands first in _sound
        self._fed = self._given = self._centre = 0
        self._last: float | None = None  # where the grain before was read
        self._tail = np.zeros((channels, self._hop), np.float32)

    def feed(self, samples: Samples) -> Samples:
        """(channels, n) float32 -> (channels, m) float32; about 30 ms are kept for the next call."""
        self._fed += samples.shape[1]
        return self._go_on(samples, self._fed)

    def end(self) -> Samples:
        """The rest."""
        silence = np.zeros((len(self._sound), self._reach + self._hop), np.float32)
        return self._go_on(silence, self._fed + silence.shape[1])[:, : self._fed - self._given]

    def _go_on(self, samples: Samples, until: int) -> Samples:
        self._sound = np.concatenate((self._sound, samples), axis=1)
        done = [self._tail[:, :0]]
        while self._centre + self._reach <= until:
            grain = self._grain()
            if self._centre:  # half of the first grain comes before the sound
                done.append(self._tail + grain[:, : self._hop])
            self._tail = grain[:, self._hop :]
            self._centre += self._hop
            # the next one goes on from here or is read around its own centre, whichever comes first
            keep = min(math.floor(self._last or 0) - 1, self._centre - self._reach)
            self._sound, self._first = self._sound[:, keep - self._first :], keep
        given = np.concatenate(done, axis=1)
        if until == self._fed:
            self._given += given.shape[1]
        return given

    def _grain(self) -> Samples:
        """The windowed grain that is played around _centre: (channels, 2 hop)."""
        ratio = 2 ** (self._semitones(self._centre / self._rate) / 12)
        self._last = self._centre if self._last is None else self._place(self._last, ratio)
        at = self._last - self._first + ratio * np.arange(-self._hop, self._hop)
        whole = np.floor(at).astype(int)
        taps = np.lib.stride_tricks.sliding_window_view(self._sound, TAPS, axis=1)[:, whole - (TAPS // 2 - 1)]
        weights = self._kernel[((at - whole) * PHASES).astype(int)]
        return np.einsum("cnt,nt->cn", taps, weights) * self._window

    def _place(self, last: float, ratio: float) -> float:
        """Where to read the next grain, near _centre, so that its first half looks like what followed at `last`."""
        length = max(1, round(ratio * self._hop))
        target = round(last)
        nearest = round(self._centre - ratio * self._hop)
        follows = self._sound[:, target - self._first :][:, :length]
        start = nearest - self._search - self._first
        around = self._sound[:, start : start + 2 * self._search + length]
        size = 1 << (around.shape[1] - 1).bit_length()  # the lags asked for do not wrap around
        spectra = np.fft.rfft(around, size) * np.fft.rfft(follows, size).conj()
        lags = 2 * self._search + 1
        alike = np.fft.irfft(spectra.sum(axis=0), size)[:lags]
        energy = np.concatenate(([0.0], np.cumsum(np.square(around, dtype=np.float64).sum(axis=0))))
        energies = np.append(energy[length:], energy[-1])[:lags] - energy[:lags]
        own = float(np.square(follows, dtype=np.float64).sum())
        alike /= np.sqrt(own * np.maximum(energies, 0)) + 1e-9
        best = int(np.argmax(alike - NEARNESS * np.abs(np.arange(lags) - self._search) / self._search))
        while 0 < best < lags - 1 and max(alike[best - 1], alike[best + 1]) > alike[best]:  # to the top of its hill
            best += 1 if alike[best + 1] > alike[best - 1] else -1
        part = 0.0
        if 0 < best < lags - 1 and (bend := alike[best - 1] - 2 * alike[best] + alike[best + 1]) < 0:
            part = float(np.clip((alike[best - 1] - alike[best + 1]) / (2 * bend), -0.5, 0.5))
        return last - target + nearest + best - self._search + part + ratio * self._hop


def _kernel(slowest: float) -> Samples:
    """(PHASES, TAPS) windowed sines that let through what a reading at 1 / slowest keeps below half the rate."""
    cut = 0.95 * min(1.0, slowest)
    at = np.arange(TAPS) - (TAPS // 2 - 1) - (np.arange(PHASES)[:, None] + 0.5) / PHASES
    kernel = np.sinc(cut * at) * np.i0(8 * np.sqrt(np.clip(1 - (at / (TAPS / 2)) ** 2, 0, None)))
    return (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
