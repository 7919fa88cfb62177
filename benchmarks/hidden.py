"""Who can still be told apart when faces are hidden, and how well people are told apart when they are not.

    python benchmarks/hidden.py FACES --enrolled 5 [--people 40] [--alone]
    python benchmarks/hidden.py FACES --pairs

FACES holds a folder of pictures for each person, one face in each. The first pictures of a person are enrolled, the
others looked up among them; a table gives the share that is named rightly (top-1) for each style:

* dlib, clear gallery: descriptors of the hidden pictures against descriptors of clear ones;
* dlib, hidden gallery: against pictures hidden in the same style ("parrot" attack);
* pixels: nearest neighbour on the hidden pixels themselves, hidden gallery, plain or whitened by how pictures of one
  person differ: the attacker who knows the style, and is given the face's place. The better of the two counts;
* each again after our own de-mosaic, which is told the true blocks (network for mosaics, bicubic for the others).

Surroundings stay as they are, and tell something too: "solid" shows how much. With --alone all but the hidden place is
grey, so that only what the cover lets through counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import dlib
import numpy as np

import restore_plugin
from restore_plugin import hiding
from restore_plugin.masks.people import LOWER, OTHER, SAME, SQUARE, Describer
from restore_plugin.pipeline import ArrayFrame, PictureRestorer
from restore_plugin.regions import restore_frame
from restore_plugin.types import Box, Region, RestoreOptions, Support

MARGIN = 1.3  # the hidden ellipse's sides, of the face's
NARROW = 0.78  # a face's width, of its height
PATCH = (120, 160)  # px; what the nearest neighbour on pixels sees
CORNERS = 48  # of the ellipse
SUFFIXES = (".jpg", ".jpeg", ".png", ".pgm", ".ppm")


@dataclass(frozen=True)
class Style:
    build: Callable[..., hiding.Hide]
    cells: tuple[int, int]  # that the de-mosaic is told
    undo: str  # the de-mosaic's method


STYLES = {
    "blocks": Style(hiding.blocks, hiding.BLOCKS_CELLS, "cellnet"),
    "solid": Style(hiding.solid, hiding.BLOCKS_CELLS, "bicubic"),
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
    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


@cache
def face(path: Path) -> Box:
    """Forehead to chin: dlib's square, in the proportions that the descriptors' boxes have; the picture's middle where
    dlib finds none."""
    picture = read(path)
    height, width = picture.shape[:2]
    border = width // 2  # faces fill these pictures
    padded = cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_REPLICATE)
    found = sorted(detector()(padded, 1), key=lambda square: -square.area())
    side = found[0].width() if found else 0.68 * width
    x, y = (found[0].center().x - border, found[0].center().y - border) if found else (width / 2, 0.55 * height)
    tall = side / SQUARE / NARROW**0.5
    wide, middle = NARROW * tall, y - LOWER * tall
    return Box.between(round(x - wide / 2), round(middle - tall / 2), round(x + wide / 2), round(middle + tall / 2))


@cache
def detector() -> dlib.fhog_object_detector:
    return dlib.get_frontal_face_detector()


def hidden_place(path: Path) -> Region:
    box = face(path)
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    x = box.x + box.width / 2 * (1 + MARGIN * np.cos(angles))
    y = box.y + box.height / 2 * (1 + MARGIN * np.sin(angles))
    outline = tuple((round(float(a)), round(float(b))) for a, b in zip(x, y, strict=True))
    columns, rows = zip(*outline, strict=True)
    return Region(Box.between(min(columns), min(rows), max(columns) + 1, max(rows) + 1), outline=(outline,))


class Hider:
    """Pictures as an attacker gets them. `style`: None leaves them clear; `undone`: after our own de-mosaic."""

    def __init__(self, style: Style | None, undone: bool, alone: bool) -> None:
        self._style = style
        self._alone = alone
        self._hide = style.build(None, RestoreOptions(), Support()) if style else None
        self._undo: PictureRestorer | None = restore_plugin.load(style.undo) if style and undone else None

    def __call__(self, path: Path) -> np.ndarray:
        frame, region = ArrayFrame(read(path).copy()), hidden_place(path)
        if self._alone:
            seen = np.ones((frame.height, frame.width), bool)
            inside = region.box.intersect(Box(0, 0, frame.width, frame.height))
            seen[inside.slices] = ~region.shift(-inside.x, -inside.y).mask()[
                inside.y - region.box.y :, inside.x - region.box.x :
            ][: inside.height, : inside.width]
            frame.image[seen] = 128
        if self._hide is None or self._style is None:
            return frame.image
        restore_frame(frame, [region], self._hide)
        if self._undo is not None:
            columns, rows = self._style.cells
            block = (region.box.width / columns, region.box.height / rows)
            mosaic = Region(region.box, 0, block, (region.box.x, region.box.y), region.outline)
            restore_frame(frame, [mosaic], self._undo.restorer)
        return frame.image


def patch(picture: np.ndarray, path: Path) -> np.ndarray:
    """The hidden ellipse's pixels, in a frame of its own, reduced so that whitening has enough examples."""
    box = hidden_place(path).box
    wide, tall = PATCH
    to_picture = np.array([[box.width / wide, 0, box.x], [0, box.height / tall, box.y]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(picture, to_picture, PATCH, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    small = cv2.resize(laid.astype(np.float32).mean(2), (9, 12), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:12, :9]
    return small[((x + 0.5) / 4.5 - 1) ** 2 + ((y + 0.5) / 6 - 1) ** 2 <= 1]


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


def attacks(data: Set, hider: Hider, clear: Callable[[Path], np.ndarray], describe: Describer) -> dict[str, float]:
    """Top-1 of the three attackers."""

    @cache
    def seen(path: Path) -> np.ndarray:
        return hider(path)

    @cache
    def described(path: Path) -> np.ndarray:
        return describe.describe(seen(path), face(path))

    @cache
    def pixels(path: Path) -> np.ndarray:
        return patch(seen(path), path)

    clear_gallery, names = data.named(clear, probes=False)
    hidden_gallery, _ = data.named(described, probes=False)
    probes, truth = data.named(described, probes=True)
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
    describer = Describer()
    plain = Hider(None, False, options.alone)

    @cache
    def clear(path: Path) -> np.ndarray:
        return describer.describe(plain(path), face(path))

    looked_up = sum(len(person.probes) for person in data.people)
    print(f"{len(data.people)} people, {looked_up} pictures looked up, chance {1 / len(data.people):.1%}\n")
    print("| style | dlib, clear gallery | dlib, hidden gallery | pixels | after de-mosaic: clear | hidden | pixels |")
    print("|---|---|---|---|---|---|---|")
    table = {"not hidden": attacks(data, plain, clear, describer)}
    print("| not hidden | " + " | ".join(f"{share:.1%}" for share in table["not hidden"].values()) + " | | | |")
    for name in options.style or STYLES:
        for undone in (False, True):
            found = attacks(data, Hider(STYLES[name], undone, options.alone), clear, describer)
            table[f"{name}, de-mosaicked" if undone else name] = found
            text = " | ".join(f"{share:.1%}" for share in found.values())
            print(f" | {text} |" if undone else f"| {name} | {text}", end="\n" if undone else "", flush=True)
    return table


def pairs(options: argparse.Namespace) -> dict[str, float]:
    """Same or different: every two pictures of the people with several."""
    people = people_in(options.faces, 1)[: options.people]
    describer = Describer()
    files = [(number, path) for number, person in enumerate(people) for path in (*person.enrolled, *person.probes)]
    found = np.stack([describer.describe(read(path), face(path)) for _, path in files])
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
    parser.add_argument("--alone", action="store_true", help="make the surroundings grey")
    parser.add_argument("--pairs", action="store_true", help="same or different, not hidden")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = pairs(options) if options.pairs else identification(options)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
