"""OpenVINO without its usage statistics: by default it reports every import over the network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

REPORTER = "openvino_telemetry"


@contextmanager
def no_telemetry() -> Iterator[None]:
    """What is imported within takes the package that reports for not installed; there is no other switch for it."""
    blocked = REPORTER not in sys.modules
    if blocked:
        sys.modules[REPORTER] = None  # type: ignore[assignment]  # an import of it fails
    try:
        yield
    finally:
        if blocked:
            del sys.modules[REPORTER]
