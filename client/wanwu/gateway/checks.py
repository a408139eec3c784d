"""Small checks that several parts of the gateway make."""

from __future__ import annotations

import os
from pathlib import Path

from limits import parse_many

Stamp = tuple[int, int, int]


def check_rate(text: str) -> str:
    """Check that a text is one rate, such as 100/minute.

    Raises:
        ValueError: it is none, or several.
    """
    rates = parse_many(text)
    if len(rates) > 1:
        raise ValueError("several rates came; give one")
    if rates[0].amount < 1:
        raise ValueError("nobody could ever call; give a rate of at least one")
    return text


def stamp(path: str | os.PathLike[str]) -> Stamp | None:
    """Give what changes when a file is written or replaced; None where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
