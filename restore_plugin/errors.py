"""What can go wrong, as the user meets it: one sentence that says what was expected, what came, what to do next.

The host's edge (a command line, a dialog) turns these into an exit code or a message; nothing else catches them.
"""

from __future__ import annotations

import errno

# an OSError's number where another place, or more of it, would help
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
NO_PLACE = NO_ROOM | {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENAMETOOLONG}


class RestoreError(Exception):
    """Base of the errors that are explained to the user; anything else is a defect of ours."""

    exit_code = 1


class InputError(RestoreError):
    """The input or an option is not what was expected."""

    exit_code = 2


class NothingFound(RestoreError):
    """There was nothing to restore; nothing was written."""

    exit_code = 3


class Refused(RestoreError):
    """Something in the input could not be kept, so no work was started."""

    exit_code = 4


class OutputError(RestoreError):
    """The result could not be written; inputs and earlier outputs are untouched."""

    exit_code = 5


class MissingExtra(RestoreError):
    """A feature needs packages that are not installed."""

    exit_code = 6

    def __init__(self, what: str, extra: str, also: str = "") -> None:
        """`also`: a command that has to follow."""
        command = f"pip install 'restore-plugin[{extra}]'" + (f" && {also}" if also else "")
        super().__init__(f"{what} needs the extra `{extra}`: {command}")
