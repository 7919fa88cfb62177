"""Peak memory of `restore-video` on a short and on a ten times longer clip.

    python benchmarks/memory.py [--seconds 60] [--times 10] [--task automosaic]

Clips of 320x180 with a moving mosaic, or a moving face, are made and restored, each in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from benchmarks_media import write

from restore_plugin import mosaic

CHILD = """
import resource, sys
from ffmpeg_filters.cli import main
code = main(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def frames(count: int, task: str) -> Iterator[np.ndarray]:
    from skimage import data

    picture = cv2.resize(data.astronaut(), (400, 400), interpolation=cv2.INTER_AREA)
    for index in range(count):
        if task == "automosaic":  # her face goes to and fro, and is seen in every frame
            x, y = (round(20 + 20 * np.sin(index / pace)) for pace in (9, 13))
            yield np.ascontiguousarray(picture[y : y + 180, x : x + 320])
            continue
        frame = np.ascontiguousarray(picture[index % 60 : index % 60 + 180, index % 80 : index % 80 + 320])
        x, y = 100 + round(40 * np.sin(index / 40)), 40
        crop = frame[y : y + 96, x : x + 96].astype(np.float32) / 255
        edges = mosaic.axis_edges(0, 96, 8, 0)
        frame[y : y + 96, x : x + 96] = np.round(mosaic.pixelate(crop, edges, edges) * 255)
        yield frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rate", type=int, default=10, help="frames a second")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--task", choices=("demosaic", "automosaic"), default="demosaic")
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for seconds in (options.seconds, options.seconds * options.times):
            clip = Path(name) / f"{seconds}.mp4"
            write(clip, frames(seconds * options.rate, options.task), options.rate)
            arguments = [str(clip), "-o", str(Path(name) / "out.mp4"), "--quiet", "--overwrite"]
            arguments += ["--task", options.task]
            done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=True)
            code, peak = (int(word) for word in done.stdout.split()[-2:])
            if code:
                raise SystemExit(f"restore-video ended with {code}: {done.stderr}")
            peaks.append(peak)
            print(f"{seconds} s: {peak} MiB peak", flush=True)
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
