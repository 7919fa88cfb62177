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
    from restore_plugin.types import Image, RestoreOptions

__version__ = "0.1.0"
__all__ = ["__version__", "load", "process"]


def load(
    name: str, engine: str = "auto", precision: str = "auto", options: RestoreOptions | None = None
) -> PictureRestorer:
    """The restorer of a task ("demosaic": its default method) or of a method ("cellnet").

    `engine`: "auto", "NAME" or "NAME:device"; an engine asked for by name never falls back. `precision`: what it
    computes in, "auto", "fp32", "fp16" or "bf16". `options`: a
    restore_plugin.types.RestoreOptions. Raises `restore_plugin.errors.InputError` for a name that is not in the
    catalogue.
    """
    from restore_plugin import catalog
    from restore_plugin.pipeline import PictureRestorer

    method = catalog.method(name)
    wanted = catalog.EngineOptions(engine, precision)
    restorer = catalog.build_restorer(method, wanted, options)
    finder = catalog.build_finder(catalog.task(method.task), wanted)
    return PictureRestorer(restorer, finder, method.needs_mask)


def process(frames: Iterable[Image], task: str, engine: str = "auto", precision: str = "auto") -> Iterator[Image]:
    """Restore a stream of pictures, one by one and in order; a frame with nothing to restore passes unchanged.

    `frames`: RGB (H, W, 3), uint8, uint16 or float32 in [0, 1]. A few frames are restored ahead of the caller. For
    files, `restore-video` knows more: it looks at the whole clip before it decides where the regions are.
    """
    import numpy as np

    from restore_plugin.errors import NothingFound
    from restore_plugin.pipeline import ahead, as_pixels, with_neighbours

    restore = load(task, engine, precision)

    def each() -> Iterator[Image]:
        own = map(np.array, frames)  # the caller may use the same array for its next frame
        for frame, neighbours in with_neighbours(own, as_pixels, restore.restorer.needs.context):
            if any(other.shape != frame.shape for other in neighbours):
                neighbours = ()  # of another size: they show something else
            try:
                yield restore(frame, neighbours=neighbours)
            except NothingFound:
                yield frame

    return ahead(each(), 2)
