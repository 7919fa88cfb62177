"""Encoded packets on disk until the output is complete: what lets a run that was cut off go on where it stopped.

The file is a sequence of closed parts. A part starts with a key frame of a freshly opened encoder, holds the packets of
PART_FRAMES frames, or of PART_SECONDS of work (FEWEST_FRAMES at least), and ends with a mark that is written and synced
last; whatever follows the last mark is dropped when the spool is opened again.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PACKET = struct.Struct("<4sqqiBxxxI")  # magic, pts, dts, duration, key, bytes
MARK = struct.Struct("<4sqI")  # magic, frames so far, CRC-32 of the part
PART_FRAMES = 300  # every part costs a key frame, and an encoder that begins anew errs more: short ones cost quality
PART_SECONDS, FEWEST_FRAMES = 60.0, 24  # of work, and in a part all the same: slow methods take hours for PART_FRAMES


@dataclass(frozen=True)
class Coded:
    """One encoded packet, in decoding order; times in the stream's time base."""

    pts: int
    dts: int
    duration: int
    key: bool
    data: bytes


class Spool:
    """Append packets, `close_part` at the end of each part; `frames` tells how many are safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames, end = _scan(path) if path.exists() else (0, 0)
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(end)
        self._file.seek(end)
        self._crc = 0

    def append(self, packet: Coded) -> None:
        head = PACKET.pack(b"PACK", packet.pts, packet.dts, packet.duration, packet.key, len(packet.data))
        self._crc = zlib.crc32(packet.data, zlib.crc32(head, self._crc))
        self._file.write(head)
        self._file.write(packet.data)

    def close_part(self, frames: int) -> None:
        """Everything so far is complete and holds `frames` frames."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.write(MARK.pack(b"MARK", frames, self._crc))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.frames, self._crc = frames, 0

    def close(self) -> None:
        self._file.close()

    def packets(self) -> Iterator[Coded]:
        """All packets of all closed parts."""
        with self.path.open("rb") as file:
            while head := file.read(4):
                if head == b"MARK":
                    file.read(MARK.size - 4)
                    continue
                _, pts, dts, duration, key, size = PACKET.unpack(head + file.read(PACKET.size - 4))
                yield Coded(pts, dts, duration, bool(key), file.read(size))


def frames_in(path: Path) -> int:
    """How many frames of a spool are safe, without a change to it; 0 where there is none."""
    return _scan(path)[0] if path.exists() else 0


def _scan(path: Path) -> tuple[int, int]:
    """(frames, end) of the closed parts that are intact."""
    frames = end = crc = 0
    with path.open("rb") as file:
        while True:
            head = file.read(4)
            if head == b"MARK":
                rest = file.read(MARK.size - 4)
                if len(rest) < MARK.size - 4:
                    break
                _, count, expected = MARK.unpack(head + rest)
                if expected != crc:
                    break
                frames, end, crc = count, file.tell(), 0
            elif head == b"PACK":
                rest = file.read(PACKET.size - 4)
                if len(rest) < PACKET.size - 4:
                    break
                size = PACKET.unpack(head + rest)[-1]
                data = file.read(size)
                if len(data) < size:
                    break
                crc = zlib.crc32(data, zlib.crc32(head + rest, crc))
            else:
                break
    return frames, end


def with_decoding_times(packets: Iterable[Coded], times: list[int]) -> Iterator[Coded]:
    """The decoding times of one stream that was encoded in parts: as late as each packet's place allows.

    `times` are the packets' pts in decoding order. With the sorted times s and the largest displacement d of a packet,
    packet i is decoded at s[i - d]: increasing, and never after it is shown. The first d come before s[0], as far apart
    as the first frames are.
    """
    ordered = sorted(times)
    place = {time: index for index, time in enumerate(ordered)}
    delay = max((index - place[time] for index, time in enumerate(times)), default=0)
    lead = ordered[delay] - ordered[0] if ordered else 0
    for index, packet in enumerate(packets):
        dts = ordered[index - delay] if index >= delay else ordered[index] - lead
        yield Coded(packet.pts, dts, packet.duration, packet.key, packet.data)
