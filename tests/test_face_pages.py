"""The account of the faces in a video, and the two pages about it: their text, and what they do in a real browser."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import Browser, Page
from skimage import data

from restore_plugin.account import REASONS, Account, Person, Shot, Suspect, merged
from restore_plugin.errors import InputError
from restore_plugin.face_pages import clock, people_page, report_page

VOID = {"meta", "link", "img", "input", "br", "hr"}
HOSTILE = """a "><script>alert(1)</script> & 'b' $(touch c) `d`\r\n\\e é.mp4"""
NAMES = ["in.mp4", "two words.mp4", "it's.mp4", HOSTILE, "-o.mp4", "line\r\nend.mp4", "日本\u202egpj.mp4"]


@lru_cache(maxsize=32)
def picture(seed: int, side_px: int = 64) -> bytes:
    """A JPEG of some part of the astronaut's portrait."""
    y, x = divmod(seed * 37 % 300, 20)
    crop = np.ascontiguousarray(data.astronaut()[y : y + 200, 150 + x : 350 + x, ::-1])
    return cv2.imencode(".jpg", cv2.resize(crop, (side_px, side_px), interpolation=cv2.INTER_AREA))[1].tobytes()


def person(label: str, track: int, spans: tuple[tuple[float, float], ...], shots: int = 3) -> Person:
    frames = sum(round((end - start) * 25) for start, end in spans)
    taken = tuple(Shot(round(spans[0][0] * 25) + n, spans[0][0] + n / 25, picture(track + n)) for n in range(shots))
    return Person(label, (track,), frames, spans, taken)


ACCOUNT = Account(
    source="market day.mp4",
    width=1280,
    height=720,
    seconds=40.0,
    frames=1000,
    frames_with_faces=640,
    found=700,
    between=40,
    beyond=10,
    spared=250,
    people=(
        person("person-1", 1, ((0.0, 10.0), (30.0, 40.0)), shots=6),
        person("person-2", 2, ((4.0, 12.0),)),
        person("alice", 5, ((20.0, 22.0),), shots=0),
        person("", 3, ((1.0, 1.2),), shots=1),
        person("", 4, ((30.0, 31.0),), shots=1),
    ),
    suspects=(
        Suspect(30, 1.2, 3, "", REASONS[2], picture(9)),
        Suspect(100, 4.0, 2, "person-2", REASONS[1], picture(8)),
        Suspect(25, 1.0, 3, "", REASONS[0], picture(7)),
        Suspect(25, 1.0, 1, "person-1", "two of them, by hand", b""),
    ),
    hidden=("person-2", "alice"),
    settings=(("Cover", "solid colour"),),
)
NOBODY = replace(
    ACCOUNT, people=(), suspects=(), found=0, between=0, beyond=0, spared=0, frames_with_faces=0, hidden=None
)
UNKNOWN = replace(ACCOUNT, people=ACCOUNT.unrecognised, hidden=None, settings=(), suspects=())
EVIL = replace(
    ACCOUNT,
    source=HOSTILE,
    people=(person(HOSTILE.replace(".mp4", ""), 1, ((0.0, 3.0),)), *ACCOUNT.people),
    suspects=(Suspect(1, 0.04, 1, HOSTILE, HOSTILE, picture(1)),),
    hidden=None,
    settings=((HOSTILE, HOSTILE),),
)
ACCOUNTS = {
    "market": ACCOUNT,
    "nobody": NOBODY,
    "unknown": UNKNOWN,
    "evil": EVIL,
    "still": replace(NOBODY, seconds=0.0),
}


def pages() -> Iterator[tuple[str, str]]:
    for name, account in ACCOUNTS.items():
        yield f"{name}-people", people_page(account, account.source, "plan.jsonl")
        yield f"{name}-report", report_page(account)


PAGES = dict(pages())


# --- the account


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=ACCOUNTS)
def test_json_holds_all_of_it(account: Account) -> None:
    text = json.dumps(account.to_json())
    assert Account.from_json(json.loads(text)) == account
    assert json.dumps(Account.from_json(json.loads(text)).to_json()) == text


def test_json_is_what_its_description_says() -> None:
    entry = json.loads(json.dumps(ACCOUNT.to_json()))
    assert (entry["account"], entry["source"], entry["hidden"]) == (1, "market day.mp4", ["person-2", "alice"])
    assert entry["people"][1]["spans"] == [[4.0, 12.0]]
    assert entry["people"][1]["shots"][0]["jpeg"].startswith("/9j/")  # the first bytes of every JPEG


def change(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Sets what lies at the path but for its last part, which is the value."""

    def apply(entry: Any) -> None:
        for key in path[:-2]:
            entry = entry[key]
        entry[path[-2]] = path[-1]

    return apply


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda entry: entry.pop("people"), "'people' is missing"),
        (change("account", 2), "expected version 1, got 2"),
        (change("people", 0, "label", 5), "expected text, got 5"),
        (change("people", 0, "label", "a,b"), "without commas"),
        (change("people", 0, "spans", [[3.0, 1.0]]), "expected spans"),
        (change("people", 0, "spans", [[3.0]]), "not enough values"),
        (change("people", 0, "shots", 0, "jpeg", "no base64!"), "base64"),
        (change("suspects", 0, "seconds", float("nan")), "expected a time in seconds, got nan"),
        (change("seconds", -1), "expected a time in seconds, got -1"),
        (change("frames", "many"), "many"),
        (change("frames", float("inf")), "infinity"),
        (change("suspects", None), "NoneType"),
    ],
)
def test_what_is_no_account_is_told(damage: Callable[[dict[str, Any]], None], told: str) -> None:
    entry = json.loads(json.dumps(ACCOUNT.to_json()))
    damage(entry)
    with pytest.raises(
        InputError, match=r"expected the account of the faces in a video: .*restore-video faces"
    ) as error:
        Account.from_json(entry)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", ["a,b", "-x", " a", "a "])
def test_labels_can_be_typed(label: str) -> None:
    with pytest.raises(ValueError, match="expected a label"):
        Person(label, (1,), 1, ())


@pytest.mark.parametrize("seed", range(20))
def test_merged_spans_cover_the_same_time(seed: int) -> None:
    random = np.random.default_rng(seed)
    starts = random.integers(0, 90, 8)
    spans = [
        (float(start), float(start + length)) for start, length in zip(starts, random.integers(1, 9, 8), strict=True)
    ]
    gap = seed % 3
    marks = np.zeros(100, bool)
    for start, end in spans:
        marks[int(start) : int(end)] = True
    for start in range(99):  # close the gaps on the marks
        for width in range(1, gap + 1):
            if (
                start + width + 1 < 100
                and marks[start]
                and marks[start + width + 1]
                and not marks[start + 1 : start + width + 1].any()
            ):
                marks[start + 1 : start + width + 1] = True
    edges = np.flatnonzero(np.diff(np.r_[False, marks, False])).reshape(-1, 2)
    assert merged(spans, gap) == tuple((float(start), float(end)) for start, end in edges)


def test_who_is_hidden() -> None:
    assert [ACCOUNT.hides(person) for person in ACCOUNT.people] == [False, True, True, True, True]
    assert all(replace(ACCOUNT, hidden=None).hides(person) for person in ACCOUNT.people)
    assert [replace(ACCOUNT, hidden=()).hides(person) for person in ACCOUNT.people] == [False] * 3 + [True] * 2


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0:00.0"), (3.24, "0:03.2"), (59.96, "1:00.0"), (3599.96, "1:00:00.0"), (3723.4, "1:02:03.4")],
)
def test_clock(seconds: float, told: str) -> None:
    assert clock(seconds) == told


# --- the pages as text


class Outline(HTMLParser):
    """Reads a page and fails where tags are not balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.named: dict[str, str] = {}  # what follows a tag with an id
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} says {names}"
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> is for SVG"
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if self.found:
            self.named.setdefault(self.found[-1][1].get("id", ""), data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]

    def text(self, tag: str) -> str:
        return "".join(text for name, text in self.texts if name == tag)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_pages_are_whole_and_named(page: str) -> None:
    outline = Outline(page)
    assert page.startswith("<!doctype html>")
    assert outline.all("html") == [{"lang": "en"}]
    assert outline.text("title")
    ids = Counter(attributes["id"] for _, attributes in outline.found if "id" in attributes)
    assert set(ids.values()) <= {1}
    for link in outline.all("a"):
        assert link["href"][0] == "#"
        assert link["href"][1:] in ids
    assert all(image["alt"] and image["src"].startswith("data:image/jpeg;base64,") for image in outline.all("img"))
    titles = [int(tag[1]) for tag, _ in outline.found if re.fullmatch("h[1-6]", tag)]
    assert titles[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(titles))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_pages_ask_for_nothing(page: str) -> None:
    outline = Outline(page)
    for tag, attributes in outline.found:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "action")]
        assert attributes.get("src", "data:").startswith("data:"), tag
    assert [link["href"] for link in outline.all("link")] == ["data:,"]
    assert "url(" not in outline.text("style")
    assert "@import" not in outline.text("style")
    policy = next(
        meta["content"] for meta in outline.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy


def test_a_hostile_name_stays_text() -> None:
    for kind, scripts in (("people", 1), ("report", 0)):
        outline = Outline(PAGES[f"evil-{kind}"])
        assert len(outline.all("script")) == scripts
        assert HOSTILE in outline.text("title")
        assert HOSTILE in outline.text("bdi")
    assert HOSTILE in Outline(PAGES["evil-report"]).text("dd")


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_reads_the_file_names_back(name: str) -> None:
    page = people_page(replace(EVIL, source=name), name, name + ".jsonl")
    line = Outline(page).named["everybody"].removeprefix("restore-video")
    shown = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    file = "./" + name if name.startswith("-") else name
    assert shown.decode().split("\0")[:-1] == [file, "--task", "automosaic", "--plan", file + ".jsonl"]


def test_a_name_that_is_no_unicode_can_be_written(tmp_path: Path) -> None:
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    for page in (people_page(ACCOUNT, name, name), report_page(replace(ACCOUNT, source=name))):
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        assert "caf?.mp4" in page


def test_report_says_what_to_look_at() -> None:
    text = " ".join(" ".join(text for _, text in Outline(PAGES["market-report"]).texts).split())
    assert "Look at these frames before you publish. A face may be uncovered in 3 frames" in text
    assert "Left visible, as asked: person-1 . Everybody else was to be hidden." in text
    for figures in ("Seen 700 93.3 %", "Between sightings 40 5.3 %", "Beyond sightings 10 1.3 %"):
        assert figures in text
    assert text.index("0:01.0 frame 25") < text.index("0:01.2 frame 30") < text.index("0:04.0 frame 100")


@pytest.mark.parametrize(("missing", "told"), [(1, "over 99.9 %"), (100, "99.0 %")])
def test_nothing_is_rounded_to_all(missing: int, told: str) -> None:
    whole = 10_000
    page = report_page(replace(ACCOUNT, found=whole - missing, between=missing, beyond=0))
    assert told in page
    assert "100.0 %" not in page


# --- the pages in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        opened.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        yield opened


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Callable[..., Page]:
    """Opens the text of a page as a file."""

    def opened(text: str, **how: Any) -> Page:
        file = tmp_path / "page.html"
        file.write_text(text, encoding="utf-8")
        return browser.open(file.as_uri(), **how)

    return opened


def lines(page: Page) -> list[str]:
    return [page.text(f"#{option}") for option in ("everybody", "only", "except")]


EVERYBODY = "restore-video 'market day.mp4' --task automosaic --plan plan.jsonl"


def test_ticks_make_the_command_lines(show: Callable[..., Page]) -> None:
    page = show(PAGES["market-people"])
    waiting = [EVERYBODY, *["Tick somebody in the sheet above."] * 2]
    assert lines(page) == waiting
    page.click("#person-1 img")
    assert lines(page) == [EVERYBODY, f"{EVERYBODY} --only person-2", f"{EVERYBODY} --except person-2"]
    page.click("#person-0 input")
    page.click("#person-2 .name")
    both = "person-1,person-2,alice"
    assert lines(page) == [EVERYBODY, f"{EVERYBODY} --only {both}", f"{EVERYBODY} --except {both}"]
    assert page.text("#ticked") == "3 of 3 ticked: person-1, person-2, alice"
    page.click("#person-1 input")
    assert lines(page)[1] == f"{EVERYBODY} --only person-1,alice"
    page.click("#none")
    assert lines(page) == waiting
    assert page.run("document.querySelectorAll('#unknown input').length") == 0
    assert page.complaints == []
    assert [address.rpartition("/")[2] for address in page.fetched] == ["page.html"]


def test_keys_alone_suffice(show: Callable[..., Page]) -> None:
    page = show(PAGES["market-people"])
    reached: list[str] = []
    while not reached or reached[-1] != "person-1":
        page.press("Tab")
        reached.append(page.run("document.activeElement.value ?? document.activeElement.hash"))
        assert len(reached) < 10
    page.press(" ", " ")
    assert lines(page)[1] == f"{EVERYBODY} --only person-1"


@pytest.mark.parametrize("key", ["everybody", "only"])
def test_copy(show: Callable[..., Page], key: str) -> None:
    page = show(PAGES["market-people"])
    assert page.run("document.querySelector('[data-copy=only]').disabled")  # nobody is ticked yet
    page.click("#person-1 input")
    page.call("Page.bringToFront")  # a clipboard serves the page in front
    page.click(f"[data-copy={key}]")
    page.until(f"document.getElementById('{key}-said').textContent == 'Copied.'")
    assert page.run("navigator.clipboard.readText()") == page.text(f"#{key}")
    assert page.complaints == []


def test_copy_that_is_not_allowed_leaves_the_line_selected(show: Callable[..., Page]) -> None:
    page = show(PAGES["market-people"])
    page.run("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    page.click("[data-copy=everybody]")
    page.until("document.getElementById('everybody-said').textContent.startsWith('Selected')")
    assert page.run("getSelection().toString()") == EVERYBODY
    assert page.complaints == []


def test_without_scripts_the_lines_stand(show: Callable[..., Page]) -> None:
    page = show(PAGES["market-people"], script=False)
    assert lines(page) == [EVERYBODY, f"{EVERYBODY} --only person-1", f"{EVERYBODY} --except person-1"]
    seen = "[...document.querySelectorAll('{}')].filter(one => one.checkVisibility()).length"
    assert page.run(seen.format("button, .bar")) == 0
    assert page.run(seen.format("noscript p")) == 1


def test_hostile_names_are_shown_and_quoted(show: Callable[..., Page]) -> None:
    page = show(PAGES["evil-people"])
    assert page.text(".file") == HOSTILE
    page.click("#person-0 input")
    page.click("#person-1 input")
    label = HOSTILE.replace(".mp4", "")
    wanted = ["restore-video", HOSTILE, "--task", "automosaic", "--plan", "plan.jsonl", "--only", f"{label},person-1"]
    assert lines(page)[1] == shlex.join(wanted)
    assert page.run("document.scripts.length") == 1
    assert page.complaints == []


@pytest.mark.parametrize("kind", PAGES)
def test_pages_fit_and_can_be_read(show: Callable[..., Page], kind: str) -> None:
    page = show(PAGES[kind], width=400)
    for width, dark in itertools.product((400, 1200), (False, True)):
        page.look(width, 900, dark)
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run(CONTRAST) == []
    assert page.complaints == []


# Texts with less than 4.5:1 against the nearest ground that is painted (WCAG 2.2: relative luminance, contrast ratio).
CONTRAST = """(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => numbers(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, index) => sum + v * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = one => {
    const colour = getComputedStyle(one).backgroundColor;
    return (numbers(colour)[3] ?? 1) == 1 ? colour : ground(one.parentElement);
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *:not(script)")) {
    if (![...one.childNodes].some(node => node.nodeType == 3 && node.data.trim()) || !one.checkVisibility()) continue;
    const style = getComputedStyle(one), a = luminance(ground(one instanceof SVGElement ? one.closest("div") : one));
    const b = luminance(one instanceof SVGElement ? style.fill : style.color);
    if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) poor.push(one.outerHTML);
  }
  return poor;
})()"""


def test_dark_is_dark(show: Callable[..., Page]) -> None:
    page = show(PAGES["market-report"], dark=True)
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert max(page.run(ground)) < 64
    page.look(1200, dark=False)
    assert min(page.run(ground)) > 192


def test_timeline_lies_where_the_time_is(show: Callable[..., Page]) -> None:
    page = show(PAGES["market-people"])
    found = page.run(
        "[...document.querySelectorAll('.strip')].map(strip => { const whole = strip.getBoundingClientRect();"
        "return [...strip.querySelectorAll('rect')].map(bar => { const box = bar.getBBox();"
        "return [box.x / whole.width, (box.x + box.width) / whole.width]; }); })"
    )
    wanted = [[(0, 0.25), (0.75, 1)], [(0.1, 0.3)], [(0.5, 0.55)], [(0.025, 0.03), (0.75, 0.775)]]  # of 40 s
    assert [len(row) for row in found] == [len(row) for row in wanted]
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(wanted), atol=1e-3)
    assert page.text(".strip rect:nth-of-type(2) title") == "person-1: 0:30.0 to 0:40.0"
    labels = page.run("[...document.querySelectorAll('.axis text')].map(text => text.textContent)")
    assert labels == ["0:00", "0:10", "0:20", "0:30", "0:40"]
    inside = "one.getBoundingClientRect()[side] - one.parentElement.getBoundingClientRect()[side]"
    reach = "(side => [...document.querySelectorAll('.axis text')].map(one => Math.round({})))('{}')"
    assert min(page.run(reach.format(inside, "left"))) >= 0
    assert max(page.run(reach.format(inside, "right"))) <= 0


def test_reasons_can_be_left_out(show: Callable[..., Page]) -> None:
    page = show(PAGES["market-report"])
    shown = (
        "[...document.querySelectorAll('.look')].filter(one => one.checkVisibility())"
        ".map(one => one.lastChild.textContent)"
    )
    assert page.run(shown) == ["two of them, by hand", REASONS[0], REASONS[2], REASONS[1]]
    page.click("#show-2")
    page.click("#show-4")
    assert page.run(shown) == [REASONS[0], REASONS[1]]


def test_a_crowd(show: Callable[..., Page]) -> None:
    people = tuple(person(f"person-{n}", n, ((n % 30, n % 30 + 5.0),)) for n in range(1, 201))
    suspects = tuple(
        Suspect(n, n / 25, n % 200 + 1, f"person-{n}", REASONS[n % 4], picture(n % 32)) for n in range(500)
    )
    crowd = replace(ACCOUNT, people=people, suspects=suspects, hidden=None)
    whole = "Promise.all([...document.images].map(image => image.decode())).then(all => all.length)"
    page = show(report_page(crowd))
    assert page.run(whole) == 200 + 500
    page = show(people_page(crowd, "in.mp4", "plan.jsonl"), width=400)
    assert page.run(whole) == 200 * 3
    page.click("#person-199 input")
    assert lines(page)[2].endswith(" --except person-200")
    assert page.complaints == []


def test_the_policy_holds(show: Callable[..., Page]) -> None:
    page = show(PAGES["market-people"])
    blocked = page.run(
        "new Promise(done => { addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));"
        "new Image().src = 'http://127.0.0.1:9/face.jpg'; })"
    )
    assert blocked == "img-src"
    assert page.complaints != []  # and such a thing would have been noticed above
