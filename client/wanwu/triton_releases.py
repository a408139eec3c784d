"""Known faults of Triton's releases, and those that a server still has.

The table is data/triton-releases.json, which the chart carries too. It lists what touches the
configurations of this project, with the release that fixed it.
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import Literal

import msgspec

Where = Literal["cluster", "embedded"]


class Fault(msgspec.Struct, frozen=True):
    """Faults that one release fixed, for one kind of server.

    `fixed_in` is the release as YEAR.MONTH, and `server` the version that it reports of itself.
    """

    ids: tuple[str, ...]
    fixed_in: str
    server: str
    where: tuple[Where, ...]


class Table(msgspec.Struct, frozen=True):
    """The faults, oldest first, and the day on which their sources were last read."""

    checked: str
    sources: str
    faults: tuple[Fault, ...]


@functools.cache
def table() -> Table:
    """Return the table that this package carries."""
    file = resources.files("wanwu") / "data" / "triton-releases.json"
    return msgspec.json.decode(file.read_bytes(), type=Table)


def lacking(server: str, where: Where | None = None) -> tuple[Fault, ...]:
    """Return the faults that a server has.

    Args:
        server: the version that it reports, such as 2.51.0.
        where: the kind of server; by default both kinds.
    """
    has = _parts(server)
    return tuple(
        fault
        for fault in table().faults
        if has < _parts(fault.server) and (where is None or where in fault.where)
    )


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
