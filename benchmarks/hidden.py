"""Who can still be told apart when faces are hidden, and how well people are told apart when they are not.

    python benchmarks/hidden.py FACES --enrolled 5 [--people 40] [--surroundings]
    python benchmarks/hidden.py FACES --pairs

FACES holds a folder of pictures for each person, one face in each. The first pictures of a person are enrolled, the
others looked up among them; a table gives the share that is named rightly (top-1) for each style:

* dlib, clear gallery: descriptors of the hidden pictures against descriptors of clear ones;
* dlib, hidden gallery: against pictures hidden in the same style ("parrot" attack);
* pixels: nearest neighbour on the hidden pixels themselves, hidden gallery, plain or whitened by how pictures of one
  person differ: the attacker who knows the style, and is given the face's place. The better of the two counts;
* each again after our own de-mosaic, which is told the true blocks (network for mosaics, bicubic for blur);
* each again after our own deblur.

All but the hidden place is made grey, so that only what the cover lets through counts. With --surroundings the pictures
stay as they are: hair, neck and background tell something too, under any cover; "solid" shows how much. `blocks` takes
its colour from them, and the de-mosaic draws them into the hidden place's rim, so "pixels" then tell of them as well.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import dlib
import numpy as np

import restore_plugin
from restore_plugin import hiding
from restore_plugin.masks.people import LOWER, OTHER, SAME, SQUARE, Describer
from restore_plugin.pipeline import ArrayFrame
from restore_plugin.regions import restore_frame
from restore_plugin.types import Box, Region, RestoreOptions, Support

MARGIN = 1.3  # the hidden ellipse's sides, of the face's
FRAME = (168, 216)  # px; every picture is brought to this size,
FACE = Box(34, 44, 100, 128)  # with its face here, so that the place tells nothing
PATCH = (9, 12)  # px; what the nearest neighbour on pixels sees; few, so that whitening has enough examples
CORNERS = 48  # of the ellipse
SUFFIXES = (".jpg", ".jpeg", ".png", ".pgm", ".ppm")


@dataclass(frozen=True)
class Style:
    build: Callable[..., hiding.Hide]
    cells: tuple[int, int]  # that the de-mosaic is told
    undo: str | None  # the de-mosaic's method; None: nothing to undo


STYLES = {
    "blocks": Style(hiding.blocks, hiding.BLOCKS_CELLS, "cellnet"),
    "solid": Style(hiding.solid, hiding.BLOCKS_CELLS, None),
    "pixelate": Style(hiding.pixelate, hiding.PIXELATE_CELLS, "cellnet"),
    "blur": Style(hiding.blur, hiding.BLUR_CELLS, "bicubic"),
}


@dataclass(frozen=True)
class Person:
    enrolled: tuple[Path, ...]
    probes: tuple[Path, ...]


def people_in(folder: Path, enrolled: int) -> list[Person]:
    """Everybody with more than `enrolled` pictures, in an order that does not depend on names."""
    people = []
    for each in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(path for path in each.iterdir() if path.suffix.lower() in SUFFIXES)
        if len(files) > enrolled:
            people.append(Person(tuple(files[:enrolled]), tuple(files[enrolled:])))
    np.random.default_rng(0).shuffle(people)  # type: ignore[arg-type]
    return people


@cache
def read(path: Path) -> np.ndarray:
    """FRAME, its face in FACE: where dlib's detector finds one, or in the picture's middle."""
    picture = opened(path)
    height, width = picture.shape[:2]
    x, y, side = square(path) or (width / 2, 0.55 * height, 0.68 * width)
    # dlib's square in the proportions that the descriptors' boxes have
    scale = side / SQUARE / (FACE.width * FACE.height) ** 0.5
    middle = (FACE.x + FACE.width / 2, FACE.y + FACE.height * (0.5 + LOWER))
    to_picture = np.array([[scale, 0, x - scale * middle[0]], [0, scale, y - scale * middle[1]]], np.float32)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, to_picture, FRAME, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def opened(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


@cache
def square(path: Path) -> tuple[float, float, float] | None:
    """Middle and side of what dlib's detector finds: the largest face."""
    picture = opened(path)
    border = picture.shape[1] // 2  # faces fill these pictures
    padded = cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_REPLICATE)
    found = max(detector()(padded, 1), key=lambda each: each.area(), default=None)
    return (found.center().x - border, found.center().y - border, found.width()) if found else None


@cache
def detector() -> dlib.fhog_object_detector:
    return dlib.get_frontal_face_detector()


def hidden_place() -> Region:
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    x = FACE.x + FACE.width / 2 * (1 + MARGIN * np.cos(angles))
    y = FACE.y + FACE.height / 2 * (1 + MARGIN * np.sin(angles))
    outline = tuple((round(float(a)), round(float(b))) for a, b in zip(x, y, strict=True))
    columns, rows = zip(*outline, strict=True)
    return Region(Box.between(min(columns), min(rows), max(columns) + 1, max(rows) + 1), outline=(outline,))


PLACE = hidden_place()
HIDDEN = np.zeros(FRAME[::-1], bool)
HIDDEN[PLACE.box.slices] = PLACE.mask()


Undo = Callable[[ArrayFrame], object]  # changes a picture with a hidden face


def demosaicked(style: Style) -> Undo | None:
    """By our own de-mosaic, which is told the blocks."""
    if style.undo is None:
        return None
    restorer, (columns, rows), box = restore_plugin.load(style.undo).restorer, style.cells, PLACE.box
    mosaic = replace(PLACE, block=(box.width / columns, box.height / rows), phase=(box.x, box.y))
    return lambda frame: restore_frame(frame, [mosaic], restorer)


def deblurred() -> Undo:
    restorer = restore_plugin.load("deblur").restorer
    return lambda frame: restore_frame(frame, [Region(Box(0, 0, *FRAME))], restorer)


class Hider:
    """Pictures as an attacker gets them. `style`: None leaves them clear; `undo`: what the attacker does first."""

    def __init__(self, style: Style | None, undo: Undo | None, surroundings: bool) -> None:
        self._undo = undo
        self._surroundings = surroundings
        self._hide = style.build(None, RestoreOptions(), Support()) if style else None

    def __call__(self, path: Path) -> np.ndarray:
        frame = ArrayFrame(read(path).copy())
        if not self._surroundings:
            frame.image[~HIDDEN] = 128
        if self._hide is not None:
            restore_frame(frame, [PLACE], self._hide)
        if self._undo is not None:
            self._undo(frame)
        return frame.image


def patch(picture: np.ndarray) -> np.ndarray:
    """Only the hidden pixels, reduced."""
    grey = np.where(HIDDEN, picture.astype(np.float32).mean(2), 128)[PLACE.box.slices]
    small = cv2.resize(grey, PATCH, interpolation=cv2.INTER_AREA)
    return small[cv2.resize(HIDDEN[PLACE.box.slices].astype(np.float32), PATCH, interpolation=cv2.INTER_AREA) > 0]


def top_1(gallery: np.ndarray, named: np.ndarray, probes: np.ndarray, truth: np.ndarray) -> float:
    """Share of probes whose nearest is of the same name; ties count in part."""
    hits = []
    for probe, name in zip(probes, truth, strict=True):
        away = np.linalg.norm(gallery - probe, axis=1)
        hits.append((named[away <= away.min() + 1e-6] == name).mean())
    return float(np.mean(hits))


def whitening(sets: Iterator[np.ndarray]) -> np.ndarray:
    """(d, d): what makes the differences between pictures of one person equally large in all directions."""
    away = np.concatenate([each - each.mean(0) for each in sets if len(each) > 1])
    scatter = away.T @ away / len(away)
    return np.linalg.cholesky(
        np.linalg.inv(scatter + np.eye(len(scatter)) * (0.02 * np.trace(scatter) / len(scatter) + 1e-6))
    )


@dataclass(frozen=True)
class Set:
    """Who is enrolled and looked up; `others` are people that an attacker may learn from."""

    people: Sequence[Person]
    others: Sequence[Person]

    def named(self, of: Callable[[Path], np.ndarray], probes: bool) -> tuple[np.ndarray, np.ndarray]:
        pairs = [
            (of(path), number)
            for number, person in enumerate(self.people)
            for path in (person.probes if probes else person.enrolled)
        ]
        return np.stack([value for value, _ in pairs]), np.array([number for _, number in pairs])


@cache
def described(pixels: bytes) -> np.ndarray:
    """The descriptor of a picture of FRAME; covers that hold nothing are often the same."""
    return describer().describe(np.frombuffer(pixels, np.uint8).reshape(*FRAME[::-1], 3), FACE)


@cache
def describer() -> Describer:
    return Describer()


def attacks(data: Set, hider: Hider, clear: Callable[[Path], np.ndarray]) -> dict[str, float]:
    """Top-1 of the three attackers."""

    @cache
    def seen(path: Path) -> np.ndarray:
        return hider(path)

    def hidden(path: Path) -> np.ndarray:
        return described(seen(path).tobytes())

    @cache
    def pixels(path: Path) -> np.ndarray:
        return patch(seen(path))

    clear_gallery, names = data.named(clear, probes=False)
    hidden_gallery, _ = data.named(hidden, probes=False)
    probes, truth = data.named(hidden, probes=True)
    flat_gallery, _ = data.named(pixels, probes=False)
    flat, _ = data.named(pixels, probes=True)
    learnt = [np.stack([pixels(path) for path in person.enrolled]) for person in data.people]
    learnt += [np.stack([pixels(path) for path in (*person.enrolled, *person.probes)]) for person in data.others]
    white = whitening(iter(learnt))
    return {
        "clear gallery": top_1(clear_gallery, names, probes, truth),
        "hidden gallery": top_1(hidden_gallery, names, probes, truth),
        "pixels": max(top_1(flat_gallery, names, flat, truth), top_1(flat_gallery @ white, names, flat @ white, truth)),
    }


def identification(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    everybody = people_in(options.faces, options.enrolled)
    several = options.people or len(everybody)
    data = Set(everybody[:several], everybody[several : 2 * several])
    plain = Hider(None, None, options.surroundings)
    sharpen = deblurred()

    def clear(path: Path) -> np.ndarray:
        return described(plain(path).tobytes())

    looked_up = sum(len(person.probes) for person in data.people)
    print(f"{len(data.people)} people, {looked_up} pictures looked up, chance {1 / len(data.people):.1%}\n")
    ways = ("", "de-mosaicked", "deblurred")
    heads = [f"{way}{': ' if way else ''}{head}" for way in ways for head in ("dlib, clear", "dlib, hidden", "pixels")]
    print("| style |", " | ".join(heads), "|\n" + "|---" * (len(heads) + 1) + "|")
    table = {"not hidden": attacks(data, plain, clear)}
    print("| not hidden |", " | ".join(f"{share:.1%}" for share in table["not hidden"].values()), "|")
    for name in options.style or STYLES:
        style = STYLES[name]
        undone = {"": None, "de-mosaicked": demosaicked(style), "deblurred": sharpen}
        print(f"| {name} |", end="", flush=True)
        for way in ways:
            if way and undone[way] is None:
                print(" | | |", end="")
                continue
            found = attacks(data, Hider(style, undone[way], options.surroundings), clear)
            table[f"{name}, {way}" if way else name] = found
            print("".join(f" {share:.1%} |" for share in found.values()), end="", flush=True)
        print(flush=True)
    return table


def pairs(options: argparse.Namespace) -> dict[str, float]:
    """Same or different: every two pictures of the people with several. Where dlib finds no face, none is compared."""
    people = people_in(options.faces, 1)[: options.people]
    files = [(number, path) for number, person in enumerate(people) for path in (*person.enrolled, *person.probes)]
    total = len(files)
    files = [(number, path) for number, path in files if square(path)]
    found = np.stack([described(read(path).tobytes()) for _, path in files])
    numbers = np.array([number for number, _ in files])
    one, two = np.triu_indices(len(files), 1)
    away = np.concatenate(
        [np.linalg.norm(found[part_one] - found[part_two], axis=1) for part_one, part_two in halves(one, two)]
    )
    equal = numbers[one] == numbers[two]
    same, different = np.sort(away[equal]), np.sort(away[~equal])
    limits = np.linspace(0.2, 1.2, 2001)
    missed = 1 - np.searchsorted(same, limits, "right") / len(same)
    wrong = np.searchsorted(different, limits, "right") / len(different)
    at = int(np.abs(missed - wrong).argmin())
    result = {
        "pairs of one person": len(same),
        "pairs of two": len(different),
        "equal error rate": (missed[at] + wrong[at]) / 2,
        "at distance": limits[at],
        "one person, SAME": (same <= SAME).mean(),
        "one person, uncertain": ((same > SAME) & (same < OTHER)).mean(),
        "one person, OTHER": (same >= OTHER).mean(),
        "two people, SAME": (different <= SAME).mean(),
        "two people, uncertain": ((different > SAME) & (different < OTHER)).mean(),
        "two people, OTHER": (different >= OTHER).mean(),
    }
    print(f"{len(files)} pictures ({total - len(files)} without a face that dlib finds);", end=" ")
    print(f"{len(same)} pairs of one person, {len(different)} of two; equal error rate", end=" ")
    print(f"{result['equal error rate']:.2%} at {result['at distance']:.3f}\n")
    print(f"| pairs | same (up to {SAME}) | uncertain | other (from {OTHER}) |\n|---|---|---|---|")
    for of in ("one person", "two people"):
        print(
            f"| {of} | "
            + " | ".join(f"{result[f'{of}, {said}']:.3%}" for said in ("SAME", "uncertain", "OTHER"))
            + " |"
        )
    return {key: float(value) for key, value in result.items()}


def halves(one: np.ndarray, two: np.ndarray, size: int = 200_000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(one), size):
        yield one[start : start + size], two[start : start + size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--enrolled", type=int, default=1, help="pictures of each person that are known")
    parser.add_argument("--people", type=int, help="look up this many only")
    parser.add_argument("--style", action="append", choices=list(STYLES), help="only these")
    parser.add_argument("--surroundings", action="store_true", help="leave what is around the hidden place as it is")
    parser.add_argument("--pairs", action="store_true", help="same or different, not hidden")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = pairs(options) if options.pairs else identification(options)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
