"""Inside GIMP: what can go wrong with the worker. Each ends in a sentence, and the image is as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

from bench import (
    DEMOSAIC,
    DERAIN,
    FAKE,
    FIND,
    OUTSIDE,
    RUNTIME,
    SETTINGS,
    call,
    case,
    done,
    instead,
    left_over,
    make_image,
    native,
    refused,
    run_cases,
    worker,
)


def with_fault(fault: str) -> str:
    """The sentence that De-mosaic ends in; the finder ends in one, too."""
    with instead([*FAKE, fault]):
        image, layer = make_image()
        told = refused(DEMOSAIC, image, layer, output="in-place")
        if fault != "hangs":  # it takes half a minute
            assert refused(FIND, image, layer)
    return told


@case
def not_installed() -> str:
    with instead(["/nowhere/restore-plugin"]):
        image, layer = make_image()
        told = refused(DEMOSAIC, image, layer)
    assert "still installed" in told
    return told


@case
def settings_are_missing() -> str:
    image, layer = make_image()
    for wrong in ("", "{", '{"command": "one text"}', '{"command": []}', "[]"):
        with instead([]):
            SETTINGS.write_text(wrong, encoding="utf-8")
            told = refused(DEMOSAIC, image, layer)
        assert "restore-plugin install-gimp" in told
    return told


@case
def dies_at_start() -> str:
    told = with_fault("dies-at-start")
    assert "numpy is damaged" in told
    assert "doctor" in told
    return told


@case
def never_listens() -> str:
    told = with_fault("never-listens")
    assert "did not start" in told or "not running" in told
    return told


@case
def dies_in_the_middle() -> str:
    told = with_fault("dies")
    assert "ended unexpectedly" in told
    return told


@case
def hangs() -> str:
    told = with_fault("hangs")
    assert "no longer answers" in told
    return told


@case
def wrong_version() -> str:
    told = with_fault("another-version")
    assert "different versions" in told
    return told


@case
def nonsense() -> str:
    told = with_fault("talks-nonsense")
    assert "do not understand each other" in told
    return told


@case
def told_disk_full() -> str:
    told = with_fault("disk-full")
    assert "room on the disk" in told
    return told


@case
def pixel_file_missing() -> str:
    told = with_fault("no-such-file")
    assert "handed to" in told
    return told


@case
def pixel_file_cut() -> str:
    told = with_fault("cut")
    assert "handed to" in told
    return told


@case
def odd_answer() -> str:
    told = with_fault("odd-answer")
    assert "Please report this" in told
    return told


@case
def busy() -> str:
    told = with_fault("busy")
    assert "too much to do" in told
    return told


@case
def an_error_of_a_later_version() -> str:
    told = with_fault("unheard-of")
    assert "meteor" in told
    return told


@case
def really_full_disk() -> str:
    """Where the tests may mount (they are root in a mount namespace of their own)."""
    image, layer = make_image()
    worker("start")
    pixels = RUNTIME / "pixels"
    mount = [*OUTSIDE, "mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "tmpfs", str(pixels)]
    if subprocess.run(mount, capture_output=True).returncode:
        return "may not mount"
    try:
        told = refused(DEMOSAIC, image, layer)
    finally:
        subprocess.run([*OUTSIDE, "umount", str(pixels)], check=True)
    assert "room on the disk" in told
    done(DEMOSAIC, image, layer)  # the worker goes on
    return told


@case
def somebody_elses_folder() -> str:
    worker("stop", "--now")
    image, layer = make_image()
    RUNTIME.chmod(0o777)
    try:
        told = refused(DEMOSAIC, image, layer)
    finally:
        RUNTIME.chmod(0o700)
    assert "entered by other users" in told
    return told


@case
def killed_between_calls() -> None:
    """A worker that was killed leaves a dead socket and its pixels: the next call starts a new one."""
    image, layer = make_image()
    done(DEMOSAIC, image, layer)
    os.kill(int((RUNTIME / "worker.lock").read_text()), signal.SIGKILL)
    (RUNTIME / "pixels" / "old").write_bytes(b"left")
    time.sleep(0.2)
    done(DEMOSAIC, image, layer)
    assert left_over() == []


@case
def fifty_calls() -> dict[str, float]:
    image, layer = make_image()
    done(DEMOSAIC, image, layer, method="bicubic")
    pid = (RUNTIME / "worker.lock").read_text()
    times, results = [], set()
    for number in range(50):
        begun = time.monotonic()
        if number % 10 == 9:
            wrong = call(DEMOSAIC, image, [])
            assert wrong.value is None
        else:
            made = done(DEMOSAIC, image, layer, method="bicubic")
            results.add(native(made))
            image.remove_layer(made)
        times.append(time.monotonic() - begun)
    assert len(results) == 1
    assert (RUNTIME / "worker.lock").read_text() == pid
    assert left_over() == []
    status = json.loads(worker("status", "--json").stdout)
    assert (status["running"], status["waiting"], status["buffers"]) == (0, 0, 0)
    done(DERAIN, image, layer)
    return {"median": sorted(times)[25], "longest": max(times)}


def run() -> None:
    run_cases("faults")
