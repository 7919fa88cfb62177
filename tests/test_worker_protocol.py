"""The worker's protocol over a bare socket, as docs/worker.md tells it: what is right, and everything that is wrong."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_worker import COMMAND, PATIENCE_SECONDS, running, scene, until

from restore_plugin import worker_messages
from restore_plugin.errors import RestoreError
from restore_plugin.worker import ADDRESS, PIXELS
from restore_plugin.worker_client import LONGEST_MESSAGE, PROTOCOL, connect
from restore_plugin.worker_messages import Malformed, decode, encode, find_request, options_of, restore_request
from restore_plugin.worker_server import MOST_BUFFERS, MOST_JOBS

Message = dict[str, Any]
PAGE = (Path(__file__).parent.parent / "docs" / "worker.md").read_text(encoding="utf-8")

PIXELS_OF = {"buffer": "b", "offset": 0, "width": 16, "height": 8, "channels": 3, "dtype": "u8"}
RESTORE: Message = {
    "id": 1,
    "request": "restore",
    "method": "bicubic",
    "pixels": PIXELS_OF,
    "mask": {"buffer": "b", "offset": 384},
    "regions": [{"id": 0, "box": [0, 0, 8, 8], "block": [4, 4], "phase": [0, 0], "outline": [[[0, 0], [7, 0], [7, 7]]],
                 "confidence": 1.0}],
    "options": {"engine": "auto", "precision": "auto", "linear_light": False, "search": None, "block": [4, 4],
                "phase": [0, 0], "strength": 1.0, "blend": True},
}  # fmt: skip
FIND: Message = {"id": 1, "request": "find", "finder": "mosaic", "pixels": PIXELS_OF, "mask": {"buffer": "b"}}
DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]
ODD = (None, True, -1, 0, 1, 2.5, 2**31, 2**53 + 1, 2**70, 1e300, "", "x", "\ud800", "x" * 5000, [], {}, [1], [[[]]],
       [None, None], [1e300, 1], {"x": 1}, DEEP)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running(tmp_path_factory.mktemp("worker") / "run", "--tcp", "--max-megapixels", "2") as made:
        yield made


class Bare:
    """A connection that sends what it is told to."""

    def __init__(self, folder: Path, greet: bool = True) -> None:
        address = json.loads((folder / ADDRESS).read_text())
        self.token = address["token"]
        self.sock = socket.create_connection(("127.0.0.1", address["port"]), PATIENCE_SECONDS)
        self.file = self.sock.makefile("rb")
        if greet:
            self.greeting = self.ask({"id": 0, **self.hello()})

    def hello(self, **more: Any) -> Message:
        return {"request": "hello", "protocol": PROTOCOL, "client": "bare", "token": self.token, **more}

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()
        self.sock.close()

    def send(self, *messages: Message | bytes) -> None:
        lines = [each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in messages]
        self.sock.sendall(b"".join(lines))

    def receive(self) -> Message | None:
        """The next that is no progress; None at the end."""
        while line := self.file.readline():
            reply: Message = json.loads(line)
            if reply["reply"] != "progress":
                return reply
        return None

    def ask(self, message: Message | bytes) -> Message:
        self.send(message)
        reply = self.receive()
        assert reply is not None
        return reply

    def buffer(self, size: int = 512) -> tuple[str, Path]:
        made = self.ask({"id": 99, "request": "buffer", "bytes": size})
        return made["buffer"], Path(made["path"])


@pytest.fixture
def bare(folder: Path) -> Iterator[Bare]:
    with Bare(folder) as made:
        yield made


def slow_job(bare: Bare, identity: int) -> Message:
    """A request that takes long, on the scene."""
    name, path = bare.buffer(scene().nbytes)
    path.write_bytes(scene().tobytes())
    regions = [{"box": [step % 128, step % 120, 96, 96], "block": [8, 8]} for step in range(3000)]
    pixels = {"buffer": name, "width": 240, "height": 224, "channels": 3, "dtype": "u8"}
    return {"id": identity, "request": "restore", "method": "cellnet", "pixels": pixels, "regions": regions}


# --- what the page says


def test_hello_tells_what_the_page_says(bare: Bare) -> None:
    example = next(line for line in objects_of(PAGE) if "tasks" in line)
    told = bare.greeting
    assert told.keys() == example.keys()
    assert example["options"] == told["options"]
    assert example["protocol"] == told["protocol"]
    assert example["limits"].keys() == told["limits"].keys()
    assert told["limits"]["pixels"] == 2_000_000
    assert {**told["limits"], "pixels": 0} == {**example["limits"], "pixels": 0}
    for name in ("tasks", "methods"):
        assert example[name][0] in told[name]


def objects_of(page: str) -> list[Message]:
    """The JSON objects of the page's examples."""
    found = []
    for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL):
        at = 0
        while at < len(block):
            made, end = json.JSONDecoder().raw_decode(block[at:])
            found.append(made)
            at += end + len(block[at + end :]) - len(block[at + end :].lstrip())
    return found


def test_the_page_lists_every_option_and_kind() -> None:
    for name in worker_messages.CHECKS:
        assert f"| `{name}` |" in PAGE
    kinds = [name for _, name in worker_messages.KINDS]
    kinds += [fault.kind for fault in worker_messages.WorkerFault.__subclasses__()]
    for kind in (*kinds, "error", "defect"):
        assert f"| `{kind}` |" in PAGE


def test_the_page_s_exchange_works(bare: Bare) -> None:
    """Its requests, in their order, with a picture of its size."""
    sent, names = [], {}
    for example in objects_of(PAGE):
        if "request" not in example or example["request"] in ("hello", "quit"):
            continue
        message = json.loads(json.dumps(example).replace('"b1"', json.dumps(names.get("b1", "b1"))))
        if example["request"] == "release":
            continue
        reply = bare.ask(message)
        sent.append(example["request"])
        if example["request"] == "buffer":
            names["b1"] = reply["buffer"]
            assert Path(reply["path"]).stat().st_size == example["bytes"]
        if example["request"] in ("restore", "find"):
            assert reply.get("kind", "done") in ("nothing_found", "done")  # the picture is black
        else:
            assert reply["reply"] == "done"
    assert sent == ["buffer", "restore", "find", "cancel"]


def test_the_page_s_python(folder: Path) -> None:
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "connect" in block)
    picture = scene()
    said: list[str] = []
    known = {
        "width": 240,
        "height": 224,
        "pixels": b"".join(picture[y, x].tobytes() + b"\x80" for y in range(224) for x in range(240)),
        "mask": bytes([255]) * 240 * 224,
        "show": lambda share, text: said.append(text),
        "asked_to_stop": lambda: False,
    }
    before = known["pixels"]
    assert '["/opt/venv/bin/restore-plugin"], client="my-host 1.0"' in code
    code = code.replace('["/opt/venv/bin/restore-plugin"]', repr(COMMAND))
    exec(code.replace('client="my-host 1.0"', f'client="my-host 1.0", directory={str(folder)!r}'), known)
    assert known["pixels"] != before
    assert len(known["pixels"]) == len(before)
    assert said


# --- several requests on one connection


def test_other_requests_are_answered_while_a_job_runs(bare: Bare) -> None:
    bare.send(slow_job(bare, 1), {"id": 2, "request": "status"}, {"id": 1, "request": "status"})
    first, second = bare.receive(), bare.receive()
    assert first is not None
    assert second is not None
    assert (first["id"], first["reply"]) == (2, "done")
    assert first["running"] + first["waiting"] == 1
    assert (second["id"], second["kind"]) == (None, "protocol")
    assert "under way" in second["text"]
    assert bare.ask({"id": 3, "request": "release", "buffer": first_buffer(bare)})["kind"] == "busy"
    bare.send({"id": 4, "request": "cancel", "job": 1})
    last = {reply["id"]: reply for reply in (bare.receive(), bare.receive()) if reply}
    assert last[4]["found"] is True
    assert last[1]["kind"] == "cancelled"
    assert bare.ask({"id": 5, "request": "cancel", "job": 1})["found"] is False


def first_buffer(bare: Bare) -> str:
    """The name of the first buffer of a fresh connection: names count on over all of them."""
    made, _ = bare.buffer(1)
    return f"b{int(made[1:]) - 1}"


def test_a_heartbeat_while_nothing_happens(bare: Bare) -> None:
    jobs = [slow_job(bare, identity) for identity in range(1, 4)]  # two run; the third waits
    bare.send(*jobs)
    waited = 0
    while waited < 3:
        reply = json.loads(bare.file.readline())
        assert reply["reply"] == "progress"
        waited += reply["id"] == 3
        assert reply["id"] != 3 or reply["text"].startswith("waiting")


def test_too_many_jobs_are_refused(bare: Bare, folder: Path) -> None:
    until(lambda: idle(folder))
    job = slow_job(bare, 0)
    bare.send(*({**job, "id": identity} for identity in range(1, MOST_JOBS + 2)))
    reply = bare.receive()
    assert reply is not None
    assert (reply["id"], reply["kind"]) == (MOST_JOBS + 1, "busy")
    bare.__exit__()
    until(lambda: idle(folder))


def idle(folder: Path) -> bool:
    with connect(None, "test", folder) as client:
        told = client.status()
    return told["running"] + told["waiting"] == 0


def test_too_many_buffers_are_refused(bare: Bare, folder: Path) -> None:
    for _ in range(MOST_BUFFERS):
        bare.buffer(10)
    assert bare.ask({"id": 1, "request": "buffer", "bytes": 10})["kind"] == "busy"
    bare.sock.shutdown(socket.SHUT_WR)  # half of it is enough
    assert bare.receive() is None
    assert idle(folder)
    assert list((folder / PIXELS).iterdir()) == []


def test_buffers_belong_to_their_connection(bare: Bare, folder: Path) -> None:
    name, _ = bare.buffer()
    with Bare(folder) as other:
        assert "of this connection" in other.ask({"id": 1, "request": "release", "buffer": name})["text"]
        stolen = {**RESTORE, "pixels": {**PIXELS_OF, "buffer": name}, "mask": None}
        assert other.ask(stolen)["kind"] == "input"
    assert bare.ask({"id": 1, "request": "release", "buffer": name})["reply"] == "done"


# --- what is no greeting


@pytest.mark.parametrize("first", [{"request": "status"}, {"request": "quit"}, {"request": "buffer", "bytes": 1}, {}])
def test_hello_comes_first(folder: Path, first: Message) -> None:
    with Bare(folder, greet=False) as bare:
        assert bare.ask({"id": 0, **first})["kind"] == "protocol"
        assert bare.ask({"id": 1, **bare.hello()})["reply"] == "done"


@pytest.mark.parametrize("token", ["", "wrong", None, 5, "\ud800", "é" * 16, [], {"a": 1}])
def test_without_the_token_nothing_is_answered(folder: Path, token: Any) -> None:
    with Bare(folder, greet=False) as bare:
        assert bare.ask({"id": 0, **bare.hello(token=token)})["kind"] == "access"
        assert bare.receive() is None


@pytest.mark.parametrize("protocol", [0, PROTOCOL + 1, -1, "1", None, 1.5, [PROTOCOL], 10**30])
def test_another_protocol(folder: Path, protocol: Any) -> None:
    with Bare(folder, greet=False) as bare:
        reply = bare.ask({"id": 7, **bare.hello(protocol=protocol)})
        assert (reply["id"], reply["kind"], reply["protocol"]) == (7, "version", PROTOCOL)
        assert bare.ask({"id": 8, "request": "status"})["kind"] == "protocol"


def test_another_protocol_may_still_say_quit(tmp_path: Path) -> None:
    with running(tmp_path / "run", "--tcp") as own, Bare(own, greet=False) as bare:
        bare.ask({"id": 0, **bare.hello(protocol=99)})
        assert bare.ask({"id": 1, "request": "quit"})["reply"] == "done"
        assert bare.receive() is None


# --- what is no message


def lines() -> Iterator[bytes]:
    chance = random.Random(8)
    whole = json.dumps(RESTORE).encode()
    for length in (1, 10, 100, 1000):
        yield bytes(chance.randrange(256) for _ in range(length)).replace(b"\n", b"") + b"\n"
    for _ in range(5):
        yield whole[: chance.randrange(len(whole) - 1)] + b"\n"
    yield b"[" * 100_000 + b"\n"
    yield b'{"id":1,"request":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    yield b'{"id":' + b"9" * 5000 + b"}\n"
    yield b'{"id": 1, "request": "status", "x": NaN}\n'
    yield b"\xff\xfe{}\n"
    yield b"\n"
    yield b"[]\n"
    yield b'"status"\n'


LINES = list(lines())


@pytest.mark.parametrize("line", LINES, ids=[f"line{index}" for index in range(len(LINES))])
def test_no_object_ends_the_connection(folder: Path, line: bytes) -> None:
    with Bare(folder) as bare:
        reply = bare.ask(line)
        assert (reply["id"], reply["reply"], reply["kind"]) == (None, "error", "protocol")
        assert bare.receive() is None
    assert idle(folder)


def test_a_line_that_does_not_end(folder: Path) -> None:
    with Bare(folder) as bare:
        bare.send(b"x" * (LONGEST_MESSAGE + 100_000))
        try:
            reply = bare.receive()
        except ConnectionError:  # it closed while we still sent
            reply = None
        assert reply is None or reply["kind"] == "protocol"
    assert idle(folder)


def test_half_a_message_is_none(folder: Path) -> None:
    with Bare(folder) as bare:
        bare.send(b'{"id": 1, "request": "quit", "now": true}')
    time.sleep(0.1)
    assert idle(folder)


@pytest.mark.parametrize("identity", [None, -1, 1.5, True, "1", [], 2**53 + 1])
def test_ids_are_whole_numbers(bare: Bare, identity: Any) -> None:
    reply = bare.ask({"id": identity, "request": "status"})
    assert (reply["id"], reply["kind"]) == (None, "protocol")
    assert bare.ask({"id": 2**53, "request": "status"})["id"] == 2**53


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a message."""
    if way:
        yield way
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*way, key))


def put(message: Message, way: tuple[Any, ...], value: Any) -> Message:
    changed: Any = json.loads(json.dumps(message))
    at = changed
    for key in way[:-1]:
        at = at[key]
    at[way[-1]] = value
    return changed


@pytest.mark.parametrize("kind", ["restore", "find", "buffer", "cancel", "release"])
def test_wrong_values_get_an_explanation(bare: Bare, folder: Path, kind: str) -> None:
    """Every value of a message is replaced by what it should not be. None may be taken for a defect of ours."""
    name, path = bare.buffer()
    path.write_bytes(bytes(random.Random(1).randrange(256) for _ in range(512)))
    right = {
        "restore": RESTORE,
        "find": FIND,
        "buffer": {"id": 1, "request": "buffer", "bytes": 10**9},
        "cancel": {"id": 1, "request": "cancel", "job": 77},
        "release": {"id": 1, "request": "release", "buffer": "none"},
    }[kind]
    right = json.loads(json.dumps(right).replace('"b"', json.dumps(name)))
    sent = 0
    for way in places(right):
        for value in ODD:
            reply = bare.ask(put(right, way, value))
            told = reply.get("kind", "")
            assert told != "defect", (way, value, reply)
            assert reply["reply"] == "done" or (told and len(reply["text"]) < 600), (way, value, reply)
            if reply.get("buffer"):
                bare.ask({"id": 1, "request": "release", "buffer": reply["buffer"]})
            sent += 1
    assert sent >= 2 * len(ODD)
    assert idle(folder)


def test_random_messages(bare: Bare, folder: Path) -> None:
    chance = random.Random(3)
    name, path = bare.buffer()
    path.write_bytes(b"\x01" * 512)
    for _ in range(200):
        message = json.loads(json.dumps(chance.choice((RESTORE, FIND))).replace('"b"', json.dumps(name)))
        ways = chance.sample([way for way in places(message) if way[0] != "id"], 3)
        for way in sorted(ways, key=len, reverse=True):  # what is inside before what is around it
            message = put(message, way, chance.choice(ODD))
        assert bare.ask(message).get("kind") != "defect", message
    assert idle(folder)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pixels": {**PIXELS_OF, "width": 2**40, "height": 2**40}}, "expected width"),
        ({"pixels": {**PIXELS_OF, "width": 2000, "height": 1001}}, "larger than the 2 megapixels"),
        ({"pixels": {**PIXELS_OF, "height": 10_000}, "mask": None}, "make a larger one"),
        ({"pixels": {**PIXELS_OF, "offset": 129}, "mask": None}, "make a larger one"),
        ({"pixels": {**PIXELS_OF, "offset": 2**53}, "mask": None}, "make a larger one"),
        ({"mask": {"buffer": "b", "offset": 385}}, "make a larger one"),
        ({"mask": {"buffer": "b", "offset": 383}}, "one over the other"),
        ({"mask": {"buffer": "../b"}}, "name of a buffer"),
        ({"regions": [{"box": [0, 0, 17, 8]}]}, "reaches outside"),
        ({"regions": [{"box": [0, 0, 2**40, 2**40], "block": [4, 4]}]}, "reaches outside"),
        ({"regions": [{"box": [0, 0, 8, 8], "block": [4, 1e30]}]}, "within 1048576 px"),
        ({"options": {"block": 1}}, "at least 2 px"),
        ({"options": {"strength": 2}}, "0 to 1"),
        ({"options": {"nonsense": 1}}, "expected options out of"),
    ],
)
def test_sizes_are_checked(bare: Bare, change: Message, text: str) -> None:
    name, path = bare.buffer()
    path.write_bytes(b"\x01" * 512)
    message = json.loads(json.dumps({**RESTORE, **change}).replace('"b"', json.dumps(name)))
    reply = bare.ask(message)
    assert reply["kind"] == "input"
    assert text in reply["text"]


def test_who_does_not_listen_is_given_up(folder: Path) -> None:
    """Answers are not piled up without end for a client that reads none of them."""
    with Bare(folder) as bare:
        bare.sock.settimeout(5)
        request = json.dumps({"id": 1, **bare.hello()}).encode() + b"\n"
        with pytest.raises(OSError, match=r".+"):
            bare.sock.sendall(request * 100_000)
    assert idle(folder)


# --- reading, without a worker


def test_right_messages_are_read() -> None:
    request = restore_request(RESTORE, 10**6)
    assert request.method.name == "bicubic"
    assert (request.pixels.area.size, request.mask and request.mask.offset) == (384, 384)
    assert find_request(FIND | {"mask": None}, 10**6).finder.name == "mosaic"
    assert options_of({"options": {"block": 8}}).block == (8.0, 8.0)
    assert options_of({}) == worker_messages.Options()


def test_random_bytes_are_malformed_or_an_object() -> None:
    chance = random.Random(5)
    whole = json.dumps(RESTORE).encode()
    for _ in range(2000):
        line = bytearray(whole)
        for _ in range(chance.randrange(1, 8)):
            line[chance.randrange(len(line))] = chance.randrange(256)
        with contextlib.suppress(RestoreError):
            restore_request(decode(bytes(line)), 10**6)


def test_a_reply_fits_into_a_message() -> None:
    outline = [[[x, x] for x in range(1000)]]
    regions = [{"id": index, "box": [0, 0, 1, 1], "outline": outline} for index in range(2000)]
    line = encode({"id": 1, "reply": "done", "regions": regions})
    assert len(line) <= LONGEST_MESSAGE
    assert json.loads(line)["regions"][0] == {"id": 0, "box": [0, 0, 1, 1]}
    assert encode({"id": 1, "reply": "done", "regions": regions[:1]}).count(b"outline") == 1
    with pytest.raises(Malformed):
        decode(b"{")
