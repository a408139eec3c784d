"""Checks an audit log: its chain, and that it begins and ends as its head says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wanwu.errors import InputError
from wanwu.gateway.audit.chain import Link, linked
from wanwu.gateway.audit.head import Head


@dataclass(frozen=True)
class Verified:
    """What a whole chain holds; `beyond` are its lines that are newer than its head."""

    lines: int
    first: int
    last: Link
    beyond: int = 0


def verify(paths: Iterable[Path], head: Head | None = None) -> Verified:
    """Check the chain through files, the oldest first, and where it begins and ends.

    Args:
        paths: the files.
        head: what was kept apart from them, read before they are; None checks the chain alone.

    Raises:
        InputError: a file cannot be read or has no line; or a line was changed, is missing, or is
            not in its place. The message names it.
    """
    count, first = 0, 0
    last: Link | None = None
    for where, before, link in linked(paths):
        if last is None:
            first = link.sequence
            if head is not None:
                _check_first(before, head, where)
        if head is not None:
            _check_same(link, head, where)
        last = link
        count += 1
    if head is not None and (last is None or last.sequence < head.last.sequence):
        raise InputError(
            "the log ends at number {0} and its head says {1}: lines are missing at the end",
            0 if last is None else last.sequence,
            head.last.sequence,
        )
    if last is None:
        raise InputError("the audit log has no line; expected the file that the gateway writes")
    return Verified(count, first, last, 0 if head is None else last.sequence - head.last.sequence)


def _check_first(before: Link, head: Head, where: str) -> None:
    """Check that no line is missing before the first but those that the gateway removed."""
    if before.sequence > head.before.sequence:
        raise InputError(
            "{0} is number {1} and its head says that number {2} is kept: the oldest lines are "
            "missing, and it was not the gateway that removed them",
            where,
            before.sequence + 1,
            head.before.sequence + 1,
        )
    _check_same(before, head, where)


def _check_same(link: Link, head: Head, where: str) -> None:
    """Check that a line of the head's is the one that the head means."""
    for known in (head.before, head.last):
        if link.sequence == known.sequence and link.hash != known.hash:
            raise InputError(
                "{0}: number {1} is another line than its head says: the log was begun again, or "
                "replaced",
                where,
                link.sequence,
            )
