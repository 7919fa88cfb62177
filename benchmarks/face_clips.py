"""Clips with faces whose whereabouts are known: real faces moved over real backgrounds.

    python benchmarks/face_clips.py OUT --faces PICTURES --backgrounds FOLDER --detector yunet.onnx [--quick]

PICTURES hold one frontal face each, pictures of one person being neighbours by name (Caltech's, say); FOLDER holds
photographs and videos without people. The truth comes from the pictures, once: `cv2.FaceDetectorYN` finds eyes and
mouth in them at high confidence, so it does not depend on the finder that is measured.

A head is cut out (GrabCut), laid on a shape with a nose that is turned in space, tilted about the neck of a torso in
plain clothes, moved, blurred along its way, partly hidden and lit; then noise and H.264 at crf 20. Beside each
CLIP.mp4 there is CLIP.json: for each frame its faces, each with

- `person`: the same number for the same person in all of the clip;
- `outline`: the whole inner face (brow to chin) as it is seen from here, also where something is before it or where it
  is out of the picture; `visible`: polygons (filled, even-odd) of the part that can be seen; `share`: of it, 0 to 1;
- `height_px`: brow to chin before turning; `blur_px`: length of the motion blur, or full width of the defocus;
- `counts`: at least 30 % can be seen and it is at least 18 px high.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from face_heads import Head, people_of
from face_props import FILMS, RATE, Array, board, film, hand, photograph, smooth, swing, through, wander
from face_scenes import Actor, Motion, Obstacle, Scene, draw

NOISE, DARK_NOISE = 1.5 / 255, 3.0  # standard deviation; so much more of it as the light goes


@dataclass(frozen=True)
class Stage:
    """What a kind of clip is made with."""

    random: np.random.Generator
    size: tuple[int, int]
    heads: list[Head]  # of different people
    backgrounds: list[Path]
    seconds: float

    @property
    def count(self) -> int:
        return round(self.seconds * RATE)

    def background(self, count: int) -> Iterator[Array]:
        path = self.backgrounds[int(self.random.integers(len(self.backgrounds)))]
        show = film if path.suffix in FILMS else photograph
        return show(path, self.size, count, self.random)

    def calm(self, count: int, place: float = 0.5, large: float = 0.22) -> Motion:
        """Somebody who stands, talks and sways; `place`: across the picture, `large`: the face, of the height."""
        width, height = self.size
        random, face = self.random, large * height
        return Motion(
            x=place * width + wander(random, count, -0.6 * face, 0.6 * face, 1.6),
            y=0.52 * height + wander(random, count, -0.25 * face, 0.25 * face, 1.3),
            height=face * wander(random, count, 0.92, 1.1, 2.5),
            roll=wander(random, count, -9, 9, 1.2),
            yaw=wander(random, count, -22, 22, 1.2),
            pitch=wander(random, count, -9, 9, 1.1),
            defocus=np.zeros(count),
            light=np.full(count, random.uniform(0.85, 1.05)),
        )

    def scene(self, motions: list[Motion], obstacles: Sequence[Obstacle] = (), light: Array | None = None) -> Scene:
        count = len(motions[0].x)
        actors = [Actor(person, self.heads[person], motion) for person, motion in enumerate(motions)]
        return Scene(count, self.background(count), actors, list(obstacles), light)


def turning(stage: Stage) -> list[Scene]:
    """Looks far to either side, up and down."""
    motion, n = stage.calm(stage.count), stage.count
    return [stage.scene([replace(motion, yaw=swing(stage.random, n, 75), pitch=wander(stage.random, n, -25, 25, 1.2))])]


def tilting(stage: Stage) -> list[Scene]:
    """Tilts the head to either shoulder, turned a little."""
    motion, n = stage.calm(stage.count), stage.count
    return [
        stage.scene([replace(motion, roll=swing(stage.random, n, 40, 2.2), yaw=wander(stage.random, n, -55, 55, 1.3))])
    ]


def far(stage: Stage) -> list[Scene]:
    """Goes away until the face has 20 px, and comes back, looking about."""
    n, random = stage.count, stage.random
    size = np.exp(through(n, *np.log([0.24 * stage.size[1], 60, 20, 20, 20, 60, 0.2 * stage.size[1]])))
    y = stage.size[1] * (0.42 + 0.12 * (size / size.max()))
    motion = replace(
        stage.calm(n), height=size, y=y, yaw=wander(random, n, -70, 70, 1), roll=wander(random, n, -25, 25)
    )
    return [stage.scene([replace(motion, x=wander(random, n, 0.25, 0.75, 2.5) * stage.size[0])])]


def fast(stage: Stage) -> list[Scene]:
    """Runs to and fro: motion blur."""
    n, random, (width, height) = stage.count, stage.random, stage.size
    x = width * wander(random, n, 0.1, 0.9, 0.55)
    y = height * wander(random, n, 0.38, 0.72, 0.5)
    return [stage.scene([replace(stage.calm(n, large=0.15), x=x, y=y, yaw=wander(random, n, -65, 65, 0.7))])]


def unfocused(stage: Stage) -> list[Scene]:
    """The lens hunts for focus while somebody turns."""
    n, random = stage.count, stage.random
    motion = stage.calm(n, large=0.15)
    soft = motion.height * np.clip(wander(random, n, -0.05, 0.15, 0.9), 0, 0.08)
    return [stage.scene([replace(motion, defocus=soft, yaw=wander(random, n, -65, 65, 1.1))])]


def lit(stage: Stage) -> list[Scene]:
    """The light goes down and comes back; a lamp too much; somebody turns meanwhile."""
    n = stage.count
    light = through(n, 1, 1, 0.2, 0.16, 0.9, 1.8, 1.8, 1, 0.2, 0.9)
    motion = replace(stage.calm(n, large=0.14), yaw=swing(stage.random, n, 65, 3))
    return [stage.scene([motion], light=light)]


def dusk(stage: Stage) -> list[Scene]:
    """Two people at a distance in the last light: small, dim, noisy, turning as they walk."""
    n, random, width = stage.count, stage.random, stage.size[0]
    motions = []
    for large in (0.05, 0.075):
        x = width * wander(random, n, 0.1, 0.9, 2.5)
        roll, yaw = wander(random, n, -20, 20), wander(random, n, -70, 70, 1.1)
        motions.append(replace(stage.calm(n, large=large), x=x, roll=roll, yaw=yaw))
    return [stage.scene(motions, light=through(n, 0.5, 0.3, 0.22, 0.35, 0.22))]


def hidden(stage: Stage) -> list[Scene]:
    """Things and hands pass before the face; some stay a while over half of it."""
    n, random = stage.count, stage.random
    motion = replace(stage.calm(n, large=0.2), yaw=wander(random, n, -55, 55, 1.2))
    face = float(motion.height.mean())
    obstacles = []
    passes = max(3, round(stage.seconds / 1.8))
    for index in range(passes):
        middle = (index + 0.5) * n / passes
        time = (np.arange(n) - middle) / (n / passes)  # -0.5 to 0.5 while it is there
        side = random.choice([-1, 1])
        stay = side * random.uniform(0.15, 0.5) * face  # about half of it is hidden then
        way = np.sign(time) * np.clip(np.abs(time) - random.uniform(0.05, 0.25), 0, 0.5) * side * 3.4 * face
        way = smooth(way, 0.06) * np.where(np.abs(time) > 0.8, 30, 1)
        middle_y = motion.y - 0.85 * motion.height
        if index % 2:
            picture = hand(stage.heads[-1].skin * random.uniform(0.8, 1), int(1.5 * face), random)
            x, y = motion.x + stay + 0.4 * way, middle_y + random.uniform(0, 0.5) * face + np.abs(way) * 1.6
        else:
            path = stage.backgrounds[int(random.integers(len(stage.backgrounds)))]
            while path.suffix in FILMS:
                path = stage.backgrounds[int(random.integers(len(stage.backgrounds)))]
            picture = board(path, int(random.uniform(0.6, 0.9) * face), int(random.uniform(1.5, 2.6) * face), random)
            x, y = motion.x + stay + way, middle_y + random.uniform(-0.3, 0.5) * face
        obstacles.append(Obstacle(picture, x, y, wander(random, n, -25, 25, 1.5)))
    return [stage.scene([motion], obstacles)]


def leaving(stage: Stage) -> list[Scene]:
    """Out at one edge and back, half in for a while, then out at the top or below."""
    n, random, (width, height) = stage.count, stage.random, stage.size
    motion = stage.calm(n, large=0.24)
    side = random.choice([0, 1])
    x = through(n, 0.5, 0.5, 1.03, 1.3, 1.3, 0.98, 0.99, 0.6, 0.4, 0.45, 0.5, 0.5) * width
    y = through(n, 0.55, 0.5, 0.5, 0.5, 0.55, 0.5, 0.55, 0.5, 0.5, *((1.4, 1.2, 0.6) if side else (0.1, 0.05, 0.6)))
    return [
        stage.scene([replace(motion, x=(width - x) if side else x, y=y * height, yaw=wander(random, n, -40, 40, 1.2))])
    ]


def two(stage: Stage) -> list[Scene]:
    """Two people change sides, one passing before the other, and turn to each other."""
    n, random, (width, height) = stage.count, stage.random, stage.size
    first, second = stage.calm(n, large=0.17), stage.calm(n, large=0.21)
    x = through(n, 0.22, 0.25, 0.75, 0.78, 0.3, 0.22, 0.75) * width
    first = replace(first, x=first.x - width / 2 + x, yaw=swing(random, n, 50, 3.1))
    second = replace(second, x=second.x + width / 2 - x, y=second.y + 0.04 * height, yaw=swing(random, n, 50, 2.7))
    return [stage.scene([first, second])]


def six(stage: Stage) -> list[Scene]:
    """Six people stroll across and past one another, some out of the picture and back."""
    n, random, (width, height) = stage.count, stage.random, stage.size
    motions = []
    for index in range(6):
        large = 0.09 + 0.022 * index
        motion = stage.calm(n, large=large)
        x = smooth(wander(random, n, -0.06, 1.06, 2.3), 0.15) * width
        y = motion.y + (0.02 + 0.035 * index) * height - 0.08 * height
        motions.append(replace(motion, x=x, y=y, yaw=wander(random, n, -60, 60, 1.2)))
    return [stage.scene(motions)]


def cuts(stage: Stage) -> list[Scene]:
    """Five scenes: people change places and sizes, one is missing, none is there, all are back."""
    casts = [
        ((0, 0.28, 0.2), (1, 0.72, 0.2)),
        ((1, 0.3, 0.22), (0, 0.7, 0.2)),
        ((1, 0.5, 0.3),),
        (),
        ((2, 0.25, 0.15), (0, 0.5, 0.17), (1, 0.76, 0.16)),
    ]
    scenes = []
    for cast in casts:
        count = stage.count // (len(casts) + 1) * (1 if len(cast) < 2 else 4) // (1 if len(cast) < 2 else 3)
        actors = []
        for person, place, large in cast:
            motion = stage.calm(count, place, large)
            motion = replace(motion, yaw=wander(stage.random, count, -55, 55, 0.9))
            actors.append(Actor(person, stage.heads[person], motion))
        scenes.append(Scene(count, stage.background(count), actors))
    return scenes


def everything(stage: Stage) -> list[Scene]:
    """Three people who turn, tilt and run, a passing board, a change of light."""
    n, random, (width, height) = stage.count, stage.random, stage.size
    motions = []
    for index, large in enumerate((0.12, 0.16, 0.2)):
        motion = stage.calm(n, large=large)
        x = width * wander(random, n, 0.0, 1.0, 1.4)
        roll, yaw = wander(random, n, -38, 38, 0.9), wander(random, n, -70, 70, 0.9)
        soft = motion.height * np.clip(wander(random, n, -0.06, 0.05, 1), 0, 0.05)
        motions.append(replace(motion, x=x, y=motion.y + 0.05 * index * height, roll=roll, yaw=yaw, defocus=soft))
    photographs = [path for path in stage.backgrounds if path.suffix not in FILMS]
    picture = board(photographs[int(random.integers(len(photographs)))], int(0.14 * height), int(0.5 * height), random)
    passing = Obstacle(
        picture, through(n, -0.2, 1.2, 0.4, -0.2) * width, np.full(n, 0.5 * height), swing(random, n, 12)
    )
    return [stage.scene(motions, [passing], through(n, 1, 0.5, 1.2, 0.7, 1))]


def nobody(stage: Stage) -> list[Scene]:
    """No face at all."""
    return [Scene(stage.count // 3, stage.background(stage.count // 3), []) for _ in range(3)]


KINDS: dict[str, Callable[[Stage], list[Scene]]] = {
    function.__name__: function
    for function in (
        turning,
        tilting,
        far,
        fast,
        unfocused,
        lit,
        dusk,
        hidden,
        leaving,
        two,
        six,
        cuts,
        everything,
        nobody,
    )
}
VGA, HD, FULL_HD = (640, 480), (1280, 720), (1920, 1080)
FULL = [(kind, VGA) for kind in KINDS] + [
    *((kind, VGA) for kind in ("turning", "far", "hidden", "leaving")),
    *((kind, HD) for kind in ("far", "two", "six", "everything")),
    *((kind, FULL_HD) for kind in ("fast", "six")),
]
QUICK = [(kind, VGA) for kind in ("turning", "far", "hidden", "leaving", "dusk", "cuts")]


def write_clip(path: Path, scenes: list[Scene], size: tuple[int, int], seed: int) -> list[list[dict[str, Any]]]:
    """H.264 crf 20; returns the truth, frame by frame."""
    random, truth = np.random.default_rng(seed), []
    with av.open(str(path), "w") as container:
        options = {"crf": "20", "preset": "veryfast", "threads": "1"}
        stream: Any = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for scene in scenes:
            for t, background in enumerate(scene.background):
                frame, faces = draw(scene, t, background)
                light = 1.0 if scene.light is None else float(scene.light[t])
                noise = np.float32(NOISE * (1 + DARK_NOISE * max(0.0, 1 - light)))
                frame += noise * random.standard_normal(frame.shape, np.float32)
                picture = (frame.clip(0, 1) * 255).round().astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
                truth.append(faces)
        container.mux(stream.encode(None))
    return truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--faces", type=Path, required=True, help="pictures with one face each")
    parser.add_argument("--backgrounds", type=Path, required=True, help="photographs and videos without people")
    parser.add_argument("--detector", type=Path, required=True, help="YuNet, the yardstick that finds eyes and mouths")
    parser.add_argument("--quick", action="store_true", help=f"{len(QUICK)} clips instead of {len(FULL)}")
    parser.add_argument("--only", action="append", help="only clips whose name has this in it")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    backgrounds = sorted(path for path in options.backgrounds.iterdir() if not path.name.startswith("."))
    pictures = sorted(path for path in options.faces.iterdir() if path.suffix in (".jpg", ".png"))
    for number, (kind, size) in enumerate(QUICK if options.quick else FULL):
        name = f"{'quick' if options.quick else 'clip'}{number:02d}-{kind}-{size[1]}p"
        if options.only and not any(part in name for part in options.only):
            continue
        seed = 1000 * options.seed + number + (500 if options.quick else 0)
        random = np.random.default_rng(seed)
        names, heads = people_of(pictures, 6, str(options.detector), random)
        stage = Stage(random, size, heads, backgrounds, float(random.uniform(6.5, 9.5)))
        path = options.output / f"{name}.mp4"
        truth = write_clip(path, KINDS[kind](stage), size, seed)
        entry = {"clip": path.name, "kind": kind, "width": size[0], "height": size[1], "rate": RATE, "seed": seed}
        path.with_suffix(".json").write_text(json.dumps({**entry, "people": names, "frames": truth}) + "\n")
        counted = sum(face["counts"] for faces in truth for face in faces)
        print(f"{path.name}: {len(truth)} frames, {counted} face-frames", flush=True)


if __name__ == "__main__":
    main()
