"""Names for the people of a video, from the descriptors of their trails."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from restore_plugin.masks.people import OTHER, SAME, Descriptor, Descriptors, distance, group


@dataclass(frozen=True)
class Name:
    """`label`: "person-2" or a portrait's name; empty: not recognised. `maybe`: others whom it may be as well."""

    label: str = ""
    maybe: tuple[str, ...] = ()


def name_people(
    described: Sequence[Descriptors], apart: Collection[tuple[int, int]], known: Mapping[str, Descriptor]
) -> list[Name]:
    """A name for each trail, from its descriptors (n, 128), which may be none. `apart`: pairs that are two people.

    People are numbered in order of appearance. Where two of them are neither surely one nor surely two, each may be
    the other.
    """
    numbers = group(described, apart)
    people: dict[int, list[int]] = {}
    for trail, number in enumerate(numbers):
        if number is not None:
            people.setdefault(number, []).append(trail)
    looks = {number: np.concatenate([described[trail] for trail in trails]) for number, trails in people.items()}
    labels = {number: f"person-{number + 1}" for number in people}
    for number, look in looks.items():
        near = {name: distance(look, portrait[None]) for name, portrait in known.items()}
        if near and min(near.values()) <= SAME:
            labels[number] = min(near, key=lambda name: near[name])
    not_one = {frozenset(numbers[trail] for trail in pair) for pair in apart}
    names = {}
    for number, look in looks.items():
        maybe = {name for name, portrait in known.items() if distance(look, portrait[None]) < OTHER}
        maybe |= {
            labels[other]
            for other in looks
            if other != number and frozenset((number, other)) not in not_one and distance(look, looks[other]) < OTHER
        }
        names[number] = Name(labels[number], tuple(sorted(maybe - {labels[number]})))
    return [Name() if number is None else names[number] for number in numbers]
