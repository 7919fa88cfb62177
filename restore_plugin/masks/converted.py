"""Networks that come in files of other packages, made fit for the engines once and kept in the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from restore_plugin.errors import InputError, MissingExtra


def converted(source: Path, name: str, convert: Callable[[bytes], bytes], missing: MissingExtra) -> Path:
    """The ONNX file that `convert` makes of a file's bytes.

    Raises `missing` where that needs a package, InputError for a file that holds another network.
    """
    from engines.cache import default_folder
    from engines.contract import EngineError, MissingPackage

    data = source.read_bytes()
    made = default_folder().parent / "networks" / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}.onnx"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        part = made.with_suffix(f".{os.getpid()}.part")
        try:
            part.write_bytes(convert(data))
        except MissingPackage:
            raise missing from None
        except EngineError as error:
            raise InputError(f"{source}: {error}") from None
        part.replace(made)
    return made
