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
    not_one = {frozenset(numbers[trail] for trail in pair) for pair in apart}
    labels = {number: f"person-{number + 1}" for number in people}
    away = {
        number: {name: distance(look, face[None]) for name, face in known.items()} for number, look in looks.items()
    }
    nearest = sorted((min((far, name) for name, far in of.items()), number) for number, of in away.items() if of)
    named: dict[int, str] = {}
    for (far, name), number in nearest:  # of two who are seen together, only the nearer one is the portrait's
        others = (other for other, given in named.items() if given == name)
        if far <= SAME and not any(frozenset((number, other)) in not_one for other in others):
            named[number] = name
    labels |= named
    names = {}
    for number, look in looks.items():
        maybe = {name for name, far in away[number].items() if far < OTHER}
        maybe |= {
            labels[other]
            for other in looks
            if other != number and frozenset((number, other)) not in not_one and distance(look, looks[other]) < OTHER
        }
        names[number] = Name(labels[number], tuple(sorted(maybe - {labels[number]})))
    return [Name() if number is None else names[number] for number in numbers]
