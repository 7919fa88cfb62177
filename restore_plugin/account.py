"""The account of the faces in a video: who was found, when, how the faces were covered, which frames are worth a look.

It is what `face_pages` shows to a person, and JSON for programs: names are those of the fields, pictures are base64.

    {"account": 1, "source": "in.mp4", "frames": 250, ..., "people": [{"label": "person-1", "tracks": [1, 4],
     "frames": 80, "spans": [[0.0, 3.2]], "shots": [{"frame": 12, "seconds": 0.48, "jpeg": "..."}]}], "suspects": [...]}

Standard library only. The order of people, shots and suspects is kept.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from restore_plugin.errors import InputError

VERSION = 1
LOW_CONFIDENCE = "low confidence"
BEGAN_INSIDE = "began inside the picture"
ENDED_INSIDE = "ended inside the picture"
LONG_UNSEEN = "long without a sighting"
REASONS = (LOW_CONFIDENCE, BEGAN_INSIDE, ENDED_INSIDE, LONG_UNSEEN)

Span: TypeAlias = tuple[float, float]  # from, to; seconds


def merged(spans: Iterable[Span], gap_seconds: float = 0.0) -> tuple[Span, ...]:
    """The same time in as few spans as it takes, in order; gaps up to `gap_seconds` are closed."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] <= gap_seconds:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return tuple(joined)


@dataclass(frozen=True)
class Shot:
    """A picture of a face."""

    frame: int
    seconds: float
    jpeg: bytes

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Shot:
        return Shot(int(entry["frame"]), _seconds(entry["seconds"]), _jpeg(entry["jpeg"]))


@dataclass(frozen=True)
class Person:
    """Somebody in the video.

    `label`: "person-2", or a portrait's name; "" for a track that was not recognised, which is an entry of its own.
    Labels are joined with commas on a command line: raises ValueError for one that could not be typed there.
    `frames`: in which there is a face of this person. `spans`: the same as time. `shots`: best first.
    """

    label: str
    tracks: tuple[int, ...]
    frames: int
    spans: tuple[Span, ...]
    shots: tuple[Shot, ...] = ()

    def __post_init__(self) -> None:
        if "," in self.label or self.label.startswith("-") or self.label != self.label.strip():
            raise ValueError(f"expected a label without commas, spaces around it or a leading -, got {self.label!r}")

    @property
    def seconds(self) -> float:
        """On screen."""
        return sum(end - start for start, end in self.spans)

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Person:
        spans = tuple((_seconds(start), _seconds(end)) for start, end in entry["spans"])
        if any(start > end for start, end in spans):
            raise ValueError(f"expected spans [from, to] in seconds, got {entry['spans']}")
        tracks = tuple(int(track) for track in entry["tracks"])
        shots = tuple(Shot.from_json(shot) for shot in entry["shots"])
        return Person(_text(entry["label"]), tracks, int(entry["frames"]), spans, shots)


@dataclass(frozen=True)
class Suspect:
    """A frame worth a look before the video is published. `reason`: one of REASONS, or in words of its own."""

    frame: int
    seconds: float
    track: int
    label: str
    reason: str
    jpeg: bytes

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Suspect:
        label, reason = _text(entry["label"]), _text(entry["reason"])
        frame, seconds, track = int(entry["frame"]), _seconds(entry["seconds"]), int(entry["track"])
        return Suspect(frame, seconds, track, label, reason, _jpeg(entry["jpeg"]))


@dataclass(frozen=True)
class Account:
    """What was found in one video, and how it was covered.

    `source`: the video's name. `width`, `height`: px. `found`, `between`, `beyond`: faces hidden, one count for every
    frame that each is in: seen there, between two sightings, before the first or after the last. `spared`: the faces
    left visible as asked, counted in the same way. `hidden`: labels that were asked to be hidden; None: everybody. Who
    was not recognised is hidden in any case. `settings`: how it was done, as (name, value), in words for a reader.
    """

    source: str
    width: int
    height: int
    seconds: float
    frames: int
    frames_with_faces: int
    found: int
    between: int
    beyond: int
    spared: int = 0
    people: tuple[Person, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    hidden: tuple[str, ...] | None = None
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def recognised(self) -> tuple[Person, ...]:
        return tuple(person for person in self.people if person.label)

    @property
    def unrecognised(self) -> tuple[Person, ...]:
        """Tracks that belong to nobody known."""
        return tuple(person for person in self.people if not person.label)

    def hides(self, person: Person) -> bool:
        return self.hidden is None or not person.label or person.label in self.hidden

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes; `from_json` is the way back."""
        return {"account": VERSION, **asdict(self, dict_factory=_entry)}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> Account:
        """Raises InputError for anything but an account of this version."""
        try:
            if entry["account"] != VERSION:
                raise ValueError(f"expected version {VERSION}, got {entry['account']}")
            hidden = entry["hidden"]
            return Account(
                _text(entry["source"]),
                int(entry["width"]),
                int(entry["height"]),
                _seconds(entry["seconds"]),
                int(entry["frames"]),
                int(entry["frames_with_faces"]),
                int(entry["found"]),
                int(entry["between"]),
                int(entry["beyond"]),
                int(entry["spared"]),
                tuple(Person.from_json(person) for person in entry["people"]),
                tuple(Suspect.from_json(suspect) for suspect in entry["suspects"]),
                None if hidden is None else tuple(_text(label) for label in hidden),
                tuple((_text(name), _text(value)) for name, value in entry["settings"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(
                f"expected the account of the faces in a video: {what}; write it again with `restore-video faces`"
            ) from None


def _entry(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        name: base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value for name, value in pairs
    }


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"expected a time in seconds, got {value}")
    return seconds


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _jpeg(value: Any) -> bytes:
    return base64.b64decode(value, validate=True)
