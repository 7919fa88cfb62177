"""Repair pictures and video: one engine, used from the command line, from Python and from inside other tools.

    import restore_plugin
    restore = restore_plugin.load("demosaic")
    out = restore(image)

Importing this loads nothing heavy; `load` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restore_plugin.pipeline import PictureRestorer
    from restore_plugin.types import Image

__version__ = "0.1.0"
__all__ = ["__version__", "load", "process"]


def load(name: str, engine: str = "auto") -> PictureRestorer:
    """The restorer of a task ("demosaic": its default method) or of a method ("cellnet").

    `engine`: "auto" or the name of an engine; an engine asked for by name never falls back. Raises
    `restore_plugin.errors.InputError` for a name that is not in the catalogue.
    """
    from restore_plugin import catalog
    from restore_plugin.pipeline import PictureRestorer

    method = catalog.method(name)
    return PictureRestorer(
        catalog.build_restorer(method, engine), catalog.build_finder(catalog.task(method.task), engine)
    )


def process(frames: Iterable[Image], task: str, engine: str = "auto") -> Iterator[Image]:
    """Restore a stream of pictures, one by one and in order; a frame with nothing to restore passes unchanged.

    `frames`: RGB (H, W, 3), uint8, uint16 or float32 in [0, 1]. A few frames are restored ahead of the caller. For
    files, `restore-video` knows more: it looks at the whole clip before it decides where the regions are.
    """
    from restore_plugin.errors import NothingFound
    from restore_plugin.pipeline import ahead

    restore = load(task, engine)

    def each() -> Iterator[Image]:
        for frame in frames:
            try:
                yield restore(frame)
            except NothingFound:
                yield frame

    return ahead(each(), 2)
