"""Two pages about the faces in a video, each one HTML file that works offline: who to hide, and how it went.

`people_page` shows who was found and makes a command line out of the people that are ticked; `report_page` is the
account of a run. Whatever comes from outside is escaped; the content security policy allows the pages nothing but their
own style, script and pictures, so that nothing about the people in them can leave the machine. Standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from restore_plugin.account import (
    BEGAN_INSIDE,
    ENDED_INSIDE,
    LONG_UNSEEN,
    LOW_CONFIDENCE,
    Account,
    Person,
    Shot,
    Span,
    Suspect,
    merged,
)
from restore_plugin.face_style import SCRIPT, STYLE

SHOTS = 4  # of a person; the first is large
SPOKEN_SPANS = 12  # that a timeline's description lists
FINEST = 1 / 2000  # of a timeline's length: gaps shorter than that are not drawn
TICKS = 6  # at most, on a timeline
TICK_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)

OTHER = "other"
WORTH_A_LOOK = {
    LOW_CONFIDENCE: "The detector was not sure that this is a face, or where it ends.",
    BEGAN_INSIDE: "A face appeared here away from the picture's edge: was it there before, and uncovered?",
    ENDED_INSIDE: "A face was lost here away from the picture's edge: is it still there, and uncovered?",
    LONG_UNSEEN: "For many frames the cover followed a face that was not seen: does it lie where the face is?",
    OTHER: "For a reason that stands with the picture.",
}
BEFORE_PUBLISHING = "<strong>Look at these frames before you publish.</strong>"
FOOTER = (
    "This page shows faces uncovered: keep it as safe as the video itself, and do not publish it. It works without a "
    "network and sends nothing anywhere."
)


@dataclass(frozen=True)
class Section:
    """A part of a page that its links lead to. `count`: shown beside the title."""

    anchor: str
    title: str
    body: str
    count: int | None = None


def people_page(account: Account, video: str, plan: str) -> str:
    """The page to choose people on.

    `video`, `plan`: the files as the reader would type them; they go into the command lines, quoted for a shell.
    """
    people, unknown = account.recognised, account.unrecognised
    if people:
        note = "<p>Tick people, then copy a command line. Nothing is hidden before you run it.</p>"
    elif unknown:
        note = "<p class=note>Faces were found, but nobody was recognised: they can only be hidden all together.</p>"
    else:
        note = "<p class=note>No face was found, so there is nobody to choose.</p>"
    sections = []
    if people:
        sections.append(Section("people", "People", _sheet(people), len(people)))
    if account.people:
        sections.append(Section("time", "When they appear", _timeline(account, portraits=False)))
        sections.append(Section("commands", "Command lines", _commands(account, video, plan)))
    if unknown:
        sections.append(Section("unknown", "Not recognised", _unknown(unknown), len(unknown)))
    return _page(
        account, f"People in {account.source}", "Who is in this video", note, sections, SCRIPT if account.people else ""
    )


def report_page(account: Account) -> str:
    """The page that tells how a video's faces were hidden, and which frames to look at."""
    frames = len({suspect.frame for suspect in account.suspects})
    kind = "note"
    if frames:
        kind = "note warn"
        verdict = f"{BEFORE_PUBLISHING} A face may be uncovered in <a href='#look'>{_count(frames, 'frame')}</a>."
    elif account.people:
        verdict = "<strong>No frame stood out.</strong> Still, watch the whole result before you publish."
    else:
        kind = "note warn"
        verdict = "<strong>No face was found, and none was hidden.</strong> Watch the video before you publish."
    sections = [Section("totals", "In short", _totals(account, frames))]
    if account.people:
        sections.append(Section("covered", "How faces were covered", _covered(account)))
        sections.append(Section("time", "People, and when they appear", _timeline(account, portraits=True)))
    if frames:
        sections.append(Section("look", "Frames worth a look", _look(account.suspects), frames))
    if account.settings:
        rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in account.settings)
        sections.append(Section("settings", "Settings", f"<dl class=settings>{rows}</dl>"))
    note = f"<p class='{kind}'>{verdict}</p>"
    return _page(account, f"Faces hidden in {account.source}", "Account of the hidden faces", note, sections)


# --- the page


def _page(account: Account, title: str, heading: str, note: str, sections: Sequence[Section], script: str = "") -> str:
    allowed = f"style-src '{_hash(STYLE)}'" + (f"; script-src '{_hash(script)}'" if script else "")
    policy = f"default-src 'none'; img-src data:; {allowed}; base-uri 'none'; form-action 'none'"
    facts = (
        f"{account.width}x{account.height}",
        clock(account.seconds),
        _count(account.frames, "frame"),
        f"{account.frames_with_faces:,} with faces",
    )
    links = "".join(f"<a href='#{section.anchor}'>{section.title}</a>" for section in sections)
    body = "".join(
        f"<section id={section.anchor}><h2>{section.title}"
        f"{'' if section.count is None else f' <small>{section.count:,}</small>'}</h2>{section.body}</section>"
        for section in sections
    )
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        "<meta name=viewport content='width=device-width, initial-scale=1'><meta name=referrer content=no-referrer>"
        f"<title>{_text(title)}</title><link rel=icon href='data:,'><style>{STYLE}</style></head><body>"
        f"<header><h1>{heading}</h1><p class=file><bdi>{_text(account.source)}</bdi></p>"
        f"<p class=facts>{''.join(f'<span>{fact}</span>' for fact in facts)}</p>"
        f"{f'<nav aria-label=Contents>{links}</nav>' if links else ''}</header>"
        f"<main>{note}{body}</main><footer><p>{FOOTER}</p></footer>"
        f"{f'<script>{script}</script>' if script else ''}</body></html>\n"
    )


def _hash(text: str) -> str:
    """As a content security policy names a style or a script that stands in the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _text(value: str) -> str:
    """Escaped, for text and for quoted attributes; of odd file names, what no UTF-8 file can hold becomes "?"."""
    return escape(value.encode("utf-8", "replace").decode()).replace("\r", "&#13;")


def _picture(jpeg: bytes, text: str) -> str:
    if not jpeg:
        return f"<span class=blank role=img aria-label='{_text(text)}: no picture'></span>"
    data = base64.b64encode(jpeg).decode("ascii")
    return f"<img src='data:image/jpeg;base64,{data}' alt='{_text(text)}' title='{_text(text)}' decoding=async>"


# --- numbers in words


def clock(seconds: float, tenths: bool = True) -> str:
    """0:03.2, 1:02:03.4."""
    count = round(seconds * 10)
    minutes, rest = divmod(count, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02}:{rest // 10:02}" if hours else f"{minutes}:{rest // 10:02}"
    return f"{text}.{rest % 10}" if tenths else text


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _percent(part: int, whole: int) -> str:
    """Never 0 % of something, nor 100 % where something is missing."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.05:
        return "under 0.1 %"
    return "over 99.9 %" if 99.95 <= share < 100 else f"{share:.1f} %"


def _figures(person: Person) -> str:
    time = f"{clock(person.seconds)} on screen"
    if not person.label and person.spans:
        time = f"at {clock(person.spans[0][0])}"
    return f"<span>{time}</span> <span>{_count(person.frames, 'frame')}</span>"


# --- choosing people


def _sheet(people: Iterable[Person]) -> str:
    cards = []
    for index, person in enumerate(people):
        anchor, name = f"person-{index}", _text(person.label)
        typed = _text(shlex.join(("--only", person.label)))
        cards.append(
            f"<li class=card id={anchor}><label>{_shots(person.label, person.shots[:SHOTS])}<span class=name>"
            f"<input type=checkbox name=person value='{name}' aria-label='{name}' aria-describedby={anchor}-figures>"
            f"<bdi>{name}</bdi></span><span class=figures id={anchor}-figures>{_figures(person)}</span>"
            f"<code>{typed}</code></label></li>"
        )
    return (
        f"<ul class=sheet>{''.join(cards)}</ul><p class=bar hidden><span id=ticked role=status></span> "
        "<a href='#commands'>Command lines</a> <button type=button id=none>Untick all</button></p>"
    )


def _unknown(tracks: Iterable[Person]) -> str:
    cards = []
    for track in tracks:
        name = "Track " + ", ".join(map(str, track.tracks))
        cards.append(
            f"<li class=card>{_shots(name, track.shots[:1])}<span class=name>{name}</span>"
            f"<span class=figures>{_figures(track)}</span></li>"
        )
    return (
        "<p>Faces that could not be told apart for certain: too small, too blurred, or turned away. "
        "<strong>They are always hidden</strong>, whichever command line you use.</p>"
        f"<ul class='sheet small'>{''.join(cards)}</ul>"
    )


def _shots(name: str, shots: Sequence[Shot]) -> str:
    shown = [_picture(shot.jpeg, f"{name} at {clock(shot.seconds)}, frame {shot.frame}") for shot in shots]
    return f"<span class=shots>{''.join(shown) or _picture(b'', name)}</span>"


def _commands(account: Account, video: str, plan: str) -> str:
    """Command lines that are whole without the script; with it, they follow the ticks."""
    # a leading hyphen would make an option of it
    files = ["./" + name if name.startswith("-") else name for name in (video, plan)]
    everybody = shlex.join(("restore-video", files[0], "--task", "automosaic", "--plan", files[1]))
    rows = [("everybody", "Hide everybody", "Covers every face that was found.", everybody)]
    without_script = ""
    if account.recognised:
        first = shlex.quote(account.recognised[0].label)
        only = "Covers them, and whoever was not recognised. Everybody else stays visible."
        but = "Leaves them visible. Everybody else is covered, and whoever was not recognised."
        rows.append(("only", "Hide only the people ticked", only, f"{everybody} --only {first}"))
        rows.append(("except", "Hide everybody but the people ticked", but, f"{everybody} --except {first}"))
        without_script = (
            "<noscript><p>Scripts are off here, so ticks do nothing: put the people's names into the line yourself, "
            "with commas between them.</p></noscript>"
        )
    listed = "".join(
        f"<div class=command><h3>{title}</h3><p>{note}</p><pre><code id={key}>{_text(line)}</code></pre>"
        f"<button type=button data-copy={key} aria-label='Copy: {title}' hidden>Copy</button>"
        f"<p role=status id={key}-said></p></div>"
        for key, title, note, line in rows
    )
    return f"<p>For a terminal. A plan goes with the video that it was made for.</p>{without_script}{listed}"


# --- the report


def _totals(account: Account, frames: int) -> str:
    people, tracks = len(account.recognised), len(account.unrecognised)
    tiles = [
        (account.frames_with_faces, f"of {_count(account.frames, 'frame')} with faces"),
        (people, "person recognised" if people == 1 else "people recognised"),
        (tracks, "track not recognised" if tracks == 1 else "tracks not recognised"),
        (account.found + account.between + account.beyond, "faces covered, counted frame by frame"),
    ]
    if account.spared:
        tiles.append((account.spared, "faces left visible as asked, counted frame by frame"))
    tiles.append((frames, "frame worth a look" if frames == 1 else "frames worth a look"))
    shown = "".join(f"<li><b>{figure:,}</b> {what}</li>" for figure, what in tiles)
    spared = [f"<bdi>{_text(person.label)}</bdi>" for person in account.people if not account.hides(person)]
    asked = "Everybody was to be hidden."
    if spared:
        asked = f"Left visible, as asked: <strong>{', '.join(spared)}</strong>. Everybody else was to be hidden."
    return f"<ul class=totals>{shown}</ul><p>{asked}</p>"


def _covered(account: Account) -> str:
    origins = (
        ("found", account.found, "Seen", "The face was detected in the frame itself."),
        ("between", account.between, "Between sightings", "Followed from frames before and after, where it was seen."),
        ("beyond", account.beyond, "Beyond sightings", "Before the first sighting, or after the last."),
    )
    whole = sum(count for _, count, _, _ in origins)
    bars, keys, reached = [], [], 0
    for key, count, name, what in origins:
        place = f"x='{_part(reached, whole or 1)}' width='{_part(count, whole or 1)}' height='100%'"
        bars.append(f"<rect class={key} {place}><title>{name}: {_percent(count, whole)}</title></rect>")
        figures = f"<b>{name}</b> {count:,} <span>{_percent(count, whole)}</span>"
        keys.append(f"<li><i class={key}></i>{figures}<small>{what}</small></li>")
        reached += count
    return (
        f"<p>{_count(whole, 'face')} covered, each counted once for every frame that it is in.</p>"
        f"<svg class=share aria-hidden=true>{''.join(bars)}</svg><ul class=keys>{''.join(keys)}</ul>"
    )


def _look(suspects: Iterable[Suspect]) -> str:
    ordered = sorted(suspects, key=lambda suspect: (suspect.frame, suspect.track, suspect.reason))
    kinds = [suspect.reason if suspect.reason in WORTH_A_LOOK else OTHER for suspect in ordered]
    counts, numbers = Counter(kinds), {kind: number for number, kind in enumerate(WORTH_A_LOOK)}
    filters = "".join(
        f"<label><input type=checkbox id=show-{number} checked><span><b>{kind}</b>&nbsp;{counts[kind]:,}"
        f"<small>{WORTH_A_LOOK[kind]}</small></span></label>"
        for kind, number in numbers.items()
        if counts[kind]
    )
    pictures = []
    for suspect, kind in zip(ordered, kinds, strict=True):
        who = suspect.label or "not recognised"
        pictures.append(
            f"<li class='look reason-{numbers[kind]}'>{_picture(suspect.jpeg, f'Frame {suspect.frame}: {who}')}"
            f"<p><b>{clock(suspect.seconds)}</b> frame {suspect.frame:,}</p>"
            f"<p><bdi>{_text(who)}</bdi>, track {suspect.track}</p><p class=reason>{_text(suspect.reason)}</p></li>"
        )
    return (
        f"<p>{BEFORE_PUBLISHING} They are in the order of the video.</p>"
        f"<fieldset class=filters><legend>Show</legend>{filters}</fieldset><ol class=looks>{''.join(pictures)}</ol>"
    )


# --- when people appear


def _timeline(account: Account, portraits: bool) -> str:
    """One row a person, and one for all that was not recognised; `portraits`: with a picture, and what was done."""
    length = max([account.seconds, *(person.spans[-1][1] for person in account.people if person.spans)]) or 1.0
    ticks = _ticks(length)
    rows = []
    for index, person in enumerate(account.recognised):
        picture, name, done = "", f"<bdi>{_text(person.label)}</bdi>", ""
        if portraits:
            picture = _picture(person.shots[0].jpeg if person.shots else b"", person.label)
            done = " <em>hidden</em>" if account.hides(person) else " <em class=spared>left visible</em>"
        else:
            name = f"<a href='#person-{index}'>{name}</a>"
        strip = _strip(person.label, person.spans, length, ticks)
        rows.append(f"{picture}<span>{name}{done}<small>{_figures(person)}</small></span>{strip}")
    if unknown := account.unrecognised:
        name, picture, done = "Not recognised", "", ""
        if portraits:
            picture, done = "<span class=blank></span>", " <em>hidden</em>"
        spans = merged(span for track in unknown for span in track.spans)
        seconds = sum(end - start for start, end in spans)
        figures = f"<span>{clock(seconds)} on screen</span> <span>{_count(len(unknown), 'track')}</span>"
        strip = _strip(name, spans, length, ticks)
        rows.append(f"{picture}<span>{name}{done}<small>{figures}</small></span>{strip}")
    kind = "timeline portraits" if portraits else "timeline"
    return (
        f"<div class='{kind}'><div class='row axis' aria-hidden=true>{_axis(ticks, length)}</div>"
        f"<ul>{''.join(f'<li class=row>{row}</li>' for row in rows)}</ul></div>"
    )


def _strip(name: str, spans: Sequence[Span], length: float, ticks: Sequence[float]) -> str:
    """When somebody appears, drawn from 0 to `length` in seconds."""
    spans = merged(spans, length * FINEST)
    told = [f"{clock(start)} to {clock(end)}" for start, end in spans[:SPOKEN_SPANS]]
    if len(spans) > SPOKEN_SPANS:
        told.append(f"and {len(spans) - SPOKEN_SPANS} times more")
    lines = "".join(f"<line x1='{_part(tick, length)}' x2='{_part(tick, length)}' y2='100%'/>" for tick in ticks[1:])
    bars = "".join(
        f"<rect x='{_part(start, length)}' width='{_part(end - start, length)}' y='20%' height='60%'>"
        f"<title>{_text(name)}: {clock(start)} to {clock(end)}</title></rect>"
        for start, end in spans
    )
    return f"<svg class=strip role=img aria-label='{_text(name)}: {'; '.join(told)}'>{lines}{bars}</svg>"


def _axis(ticks: Sequence[float], length: float) -> str:
    texts = []
    for tick in ticks:
        side = "first" if not tick else "last" if tick > 0.94 * length else "middle"  # stay within the axis
        texts.append(f"<text class={side} x='{_part(tick, length)}' y=14>{clock(tick, tenths=tick % 1 > 0)}</text>")
    return f"<svg>{''.join(texts)}</svg>"


def _part(share: float, whole: float) -> str:
    return f"{100 * share / whole:.3f}%"


def _ticks(length: float) -> list[float]:
    """Round times from 0 up to `length` in seconds."""
    hours = 3600.0 * math.ceil(length / TICKS / 3600)
    step = next((step for step in TICK_SECONDS if length / step <= TICKS), hours)
    return [round(index * step, 1) for index in range(math.floor(length / step) + 1)]
