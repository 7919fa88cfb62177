"""What the tests with GIMP share. They skip where there is none, and fail instead with REQUIRE_GIMP=1."""

from __future__ import annotations

import ast
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gimp.session import HERE, Host, NoGimp, Session, find


def gimp_host() -> Host:
    try:
        return find()
    except NoGimp as why:
        if os.environ.get("REQUIRE_GIMP") == "1":
            pytest.fail(str(why))
        pytest.skip(str(why))


def window_host() -> Host:
    """One that has a screen and its tools beside GIMP, as those of .ci/gimp-root have."""
    host = gimp_host()
    missing = [name for name in ("gimp", "Xvfb", "openbox", "xdotool") if not (host.inside / "usr/bin" / name).exists()]
    if missing and os.environ.get("REQUIRE_GIMP") == "1":
        pytest.fail(f"not beside GIMP: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not beside GIMP: {', '.join(missing)}")
    return host


@contextmanager
def gimp_session(**environment: str) -> Iterator[Session]:
    """A session in a folder with a short name, which vanishes with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix="gimp"))
    made = Session(gimp_host(), folder, environment)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


def cases_of(file: str) -> list[str]:
    """The names of the cases in a file beside this one, which only GIMP's Python can import."""
    tree = ast.parse((HERE / f"{file}.py").read_text(encoding="utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == "case" for mark in node.decorator_list)
    ]
