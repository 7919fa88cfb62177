"""A command with actions below it, as `restore-plugin engines` and `worker` have them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

Command = Callable[[argparse.Namespace], int]


def add_actions(
    commands: Any, name: str, summary: str, actions: Iterable[tuple[str, Command, str]]
) -> dict[str, argparse.ArgumentParser]:
    """Enter a command and its actions, each a name, what it runs, and its summary; returns their parsers by name.

    `commands`: what argparse's add_subparsers returned. Summaries begin with a small letter and have no full stop.
    """
    own = commands.add_parser(name, help=summary, description=sentence(summary))
    below = own.add_subparsers(metavar="ACTION", required=True)
    made = {}
    for action, command, text in actions:
        made[action] = below.add_parser(action, help=text, description=sentence(text))
        made[action].set_defaults(command=command)
    return made


def sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."
