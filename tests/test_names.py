"""Names for people, and whom to hide; descriptors at chosen distances."""

import itertools

import numpy as np
import pytest

from restore_plugin.choice import Choice
from restore_plugin.errors import InputError
from restore_plugin.masks.names import Name, name_people
from restore_plugin.masks.people import OTHER, SAME
from restore_plugin.types import Box, Region

SURELY, HARDLY, NOT = SAME - 0.03, (SAME + OTHER) / 2, OTHER + 0.03  # distances: one person, perhaps one, two
NOBODY = np.zeros((0, 128), np.float32)
LABELS = ("", "person-1", "person-2", "person-3", "alice")


def at(x: float, y: float = 0.0) -> np.ndarray:
    """One descriptor at a place in a plane."""
    found = np.zeros((1, 128), np.float32)
    found[0, :2] = x, y
    return found


def named(*regions: tuple[str, tuple[str, ...]]) -> list[Region]:
    return [Region(Box(0, 0, 9, 9), label=label, maybe=maybe) for label, maybe in regions]


# --- names


def test_one_two_and_perhaps_two() -> None:
    assert name_people([at(0), at(SURELY)], (), {}) == [Name("person-1"), Name("person-1")]
    assert name_people([at(0), at(NOT)], (), {}) == [Name("person-1"), Name("person-2")]
    assert name_people([at(0), at(HARDLY)], (), {}) == [
        Name("person-1", ("person-2",)),
        Name("person-2", ("person-1",)),
    ]


def test_numbers_are_in_order_of_appearance() -> None:
    tracks = [at(9), at(0), NOBODY, at(9.1), at(5), at(0.1)]
    labels = [name.label for name in name_people(tracks, (), {})]
    assert labels == ["person-1", "person-2", "", "person-1", "person-3", "person-2"]


def test_nobody() -> None:
    assert name_people([], (), {}) == []
    assert name_people([NOBODY, NOBODY], {(0, 1)}, {"alice": at(0)[0]}) == [Name(), Name()]


@pytest.mark.parametrize("away", [SURELY, HARDLY, 0.0])
def test_seen_together_is_neither_one_nor_perhaps_one(away: float) -> None:
    assert name_people([at(0), at(away)], {(0, 1)}, {}) == [Name("person-1"), Name("person-2")]


def test_seen_together_is_true_of_all_the_tracks() -> None:
    """Tracks 0 and 2 are one person, 1 and 2 are seen together: so 1 is not perhaps that person in track 0 either."""
    assert name_people([at(0), at(HARDLY), at(0.1)], {(1, 2)}, {}) == [
        Name("person-1"),
        Name("person-2"),
        Name("person-1"),
    ]


def test_in_the_middle_of_two() -> None:
    """It may be either of them, they are not each other."""
    names = name_people([at(0), at(2 * HARDLY), at(HARDLY)], (), {})
    assert names == [
        Name("person-1", ("person-3",)),
        Name("person-2", ("person-3",)),
        Name("person-3", ("person-1", "person-2")),
    ]


def test_portraits() -> None:
    """A person takes the name of a portrait that is surely hers; of one that may be hers, it is told."""
    known = {"alice": at(0, 5)[0], "bob": at(0)[0]}
    assert name_people([at(SURELY)], (), known) == [Name("bob")]
    assert name_people([at(HARDLY)], (), known) == [Name("person-1", ("bob",))]
    assert name_people([at(NOT)], (), known) == [Name("person-1")]


def test_the_nearest_portrait_gives_the_name() -> None:
    known = {"alice": at(-0.2)[0], "bob": at(0.1)[0], "carol": at(0, HARDLY)[0], "dave": at(NOT)[0]}
    assert name_people([at(0)], (), known) == [Name("bob", ("alice", "carol"))]


def test_people_beside_a_portrait_keep_their_numbers() -> None:
    tracks = [at(0), at(4), at(HARDLY)]
    assert name_people(tracks, (), {"alice": at(-0.1)[0]}) == [
        Name("alice", ("person-3",)),
        Name("person-2"),
        Name("person-3", ("alice",)),
    ]


@pytest.mark.parametrize("seed", range(10))
def test_whoever_is_not_surely_another_is_told(seed: int) -> None:
    """For one picture of each person, all different people: a portrait's name goes to the nearest of those to whom no
    other portrait is nearer; a name's `maybe` are those nearer than OTHER, and nobody is his own."""
    random = np.random.default_rng(seed)
    tracks = [at(*random.uniform(0, 2, 2)) for _ in range(8)]
    together = {(a, b) for a, b in itertools.combinations(range(8), 2)}  # all are two people
    known = {name: at(*random.uniform(0, 2, 2))[0] for name in ("alice", "bob")}
    apart = name_people(tracks, together, {})
    assert apart == [Name(f"person-{number + 1}") for number in range(8)]
    far = [{who: float(np.hypot(*(track[0] - place)[:2])) for who, place in known.items()} for track in tracks]
    nearest = [min(away, key=lambda who: away[who]) for away in far]
    for number, name in enumerate(name_people(tracks, together, known)):
        away, who = far[number], nearest[number]
        rivals = [other for other in range(8) if nearest[other] == who and far[other][who] < away[who]]
        assert (name.label == who) == (away[who] <= SAME and not rivals)
        assert set(name.maybe) == {who for who in known if away[who] < OTHER} - {name.label}


# --- choice


def test_everybody_is_hidden_by_default() -> None:
    regions = named(*((label, ()) for label in LABELS))
    assert Choice().of(regions) == regions


def test_only_some() -> None:
    """Those, whoever may be one of them, and whoever was not recognised."""
    regions = named(
        ("person-1", ()),
        ("person-2", ()),
        ("person-3", ("person-2",)),
        ("person-4", ("alice", "person-3")),
        ("", ()),
        ("alice", ("person-2",)),
    )
    assert Choice(only=("person-2",)).of(regions) == [regions[at] for at in (1, 2, 4, 5)]
    assert Choice(only=("person-1", "alice")).of(regions) == [regions[at] for at in (0, 3, 4, 5)]


def test_all_but_some() -> None:
    """Only who is surely one of them is spared."""
    regions = named(
        ("person-1", ()), ("person-2", ("person-1",)), ("", ()), ("", ("person-1",)), ("person-3", ("person-2",))
    )
    assert Choice(spared=("person-1",)).of(regions) == regions[1:]
    assert Choice(spared=("person-1", "person-3")).of(regions) == regions[1:4]


@pytest.mark.parametrize("choice", [Choice(), Choice(only=("person-1",)), Choice(spared=LABELS[1:])])
def test_who_was_not_recognised_is_always_hidden(choice: Choice) -> None:
    assert all(choice.hides(region) for region in named(("", ()), ("", ("person-2",))))


def test_order_and_regions_stay() -> None:
    regions = named(("b", ()), ("a", ()), ("b", ("a",)))
    assert Choice(only=("a",)).of(regions) == [regions[1], regions[2]]
    assert Choice(spared=("a",)).of(()) == []


@pytest.mark.parametrize(
    "choice", [Choice(only=("person-9",)), Choice(spared=("person-1", "person-9")), Choice(only=("Alice", "person-9"))]
)
def test_an_unknown_person(choice: Choice) -> None:
    """The line says who there is, and where the names are from."""
    with pytest.raises(InputError, match=r"alice, person-1 .*in\.plan.*got (person-9|Alice)") as raised:
        choice.check({"person-1", "alice", ""}, "in.plan")
    assert "\n" not in str(raised.value)


def test_nobody_was_recognised() -> None:
    with pytest.raises(InputError, match="nobody"):
        Choice(only=("person-1",)).check({""}, "in.plan")


def test_known_people_pass() -> None:
    Choice(only=("alice",), spared=("person-1",)).check({"person-1", "alice", "bob"}, "in.plan")
    Choice().check((), "in.plan")
