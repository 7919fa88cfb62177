"""What a GIMP user reads when something does not work."""

from __future__ import annotations


class Problem(Exception):
    """One or two sentences: what is wrong, and what to do. The image is as it was."""
