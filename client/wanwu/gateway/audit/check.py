"""Checks an audit log's chain."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wanwu.catalog import Message
from wanwu.errors import InputError
from wanwu.gateway.audit.chain import GENESIS, Link, lines_of, link_of


@dataclass(frozen=True)
class Verified:
    """What a whole chain holds."""

    lines: int
    first: int
    last: Link


def verify(paths: Iterable[Path]) -> Verified:
    """Check the chain through files, the oldest first.

    Raises:
        InputError: a file cannot be read or has no line; or a line was changed, is missing, or is
            not in its place. The message names it.
    """
    count, first = 0, 0
    before: Link | None = None
    for path, number, line in lines_of(paths):
        where = Message("{0} line {1}", path, number)
        link = link_of(line, where, error=InputError)
        record = json.loads(line)
        if before is None:
            first = link.sequence
            if first == 1 and record.get("prev") != GENESIS:
                raise InputError("{0} is number 1 and follows another line; it was changed", where)
        elif (record.get("prev"), link.sequence) != (before.hash, before.sequence + 1):
            raise InputError(
                "{0} is number {1} and does not follow number {2} before it: a line is missing, "
                "was put there, or is out of order",
                where,
                link.sequence,
                before.sequence,
            )
        before = link
        count += 1
    if before is None:
        raise InputError("the audit log has no line; expected the file that the gateway writes")
    return Verified(count, first, before)
