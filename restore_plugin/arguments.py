"""What the commands read their options with. Imports nothing heavy."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NoReturn

from restore_plugin.errors import InputError

LARGEST_SEED = 2**53  # JSON's numbers are exact up to here


class Parser(argparse.ArgumentParser):
    """Mistakes are reported as all others: in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def whole(most: int = 2**31 - 1, least: int = 0) -> Callable[[str], int]:
    """The type of an argument: a whole number from `least` to `most`."""

    def parsed(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text}")
        return int(text)

    return parsed


def numbers(text: str, separator: str, count: int, expected: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(separator)]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise InputError(f"expected {expected}, got {text}")
    return values
