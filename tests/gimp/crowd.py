"""Inside GIMP: one of two that work at the same time with one worker."""

from __future__ import annotations

import os

from bench import DEMOSAIC, DERAIN, case, done, make_image, native, run_cases


@case
def twelve_calls() -> int:
    results = set()
    image, layer = make_image()
    for number in range(12):
        procedure, arguments = ((DEMOSAIC, {"method": "bicubic"}), (DERAIN, {}))[number % 2]
        made = done(procedure, image, layer, **arguments)
        results.add((number % 2, native(made)))
        image.remove_layer(made)
    assert len(results) == 2
    return int(os.environ.get("RESTORE_TEST_NUMBER", 0))


def run() -> None:
    run_cases("crowd")
