"""A line of the audit log, and its place in the chain.

    {"seq":2,"time":"…",…,"prev":"<hash of line 1>","hash":"<hash of this line up to here>"}

A line that is changed, missing or out of order breaks the chain. A hash is SHA-256, or "sm3:" and
SM3 (GB/T 32905).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from wanwu.catalog import Message
from wanwu.errors import InputError, SetupError

#: What the first line of all follows.
GENESIS = "0" * 64
#: Of a hash that stands for a text, or names a bank.
DIGEST_CHARS = 16
#: How each line begins.
BEGINS = b'{"seq":'
_HASHED = re.compile(rb'(\{.*),"hash":"((?:sm3:)?[0-9a-f]{64})"\}', re.DOTALL)

Algorithm = Literal["sha256", "sm3"]


class AuditError(Exception):
    """A line could not be written; what it records must not happen."""


@dataclass(frozen=True)
class Link:
    """A line's place in the chain."""

    sequence: int
    hash: str


def now() -> datetime:
    """Return the time."""
    return datetime.now(timezone.utc)


def digest_of(data: bytes, algorithm: Algorithm) -> str:
    """Return the hash of some data, as it stands in a line."""
    digest = hashlib.new(algorithm, data).hexdigest()
    return digest if algorithm == "sha256" else f"{algorithm}:{digest}"


def short_digest(text: str, algorithm: Algorithm) -> str:
    """Return the beginning of a text's hash, which stands for the text in the log."""
    whole = digest_of(text.encode(errors="backslashreplace"), algorithm)
    return whole[: DIGEST_CHARS + len(whole) - 64]


def new_line(
    record: dict[str, Any], before: Link, algorithm: Algorithm = "sha256"
) -> tuple[Link, bytes]:
    """Return the line of a record that follows another, and its place."""
    sequence = before.sequence + 1
    time = now().isoformat(timespec="microseconds").replace("+00:00", "Z")
    whole = {"seq": sequence, "time": time, **record, "prev": before.hash}
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))[:-1]
    # Half of a surrogate pair, which a caller's JSON may hold, becomes its JSON escape.
    head = text.encode(errors="backslashreplace")
    digest = digest_of(head, algorithm)
    return Link(sequence, digest), head + f',"hash":"{digest}"}}\n'.encode()


def link_of(line: bytes, where: str, error: type[InputError | SetupError] = SetupError) -> Link:
    """Return the place of a line.

    Raises:
        InputError, SetupError: the line was changed, or is none.
    """
    match = _HASHED.fullmatch(line.removesuffix(b"\n"))
    try:
        sequence = json.loads(line)["seq"] if match else None
    except (ValueError, KeyError, TypeError):
        sequence = None
    if match is None or not isinstance(sequence, int):
        raise error(
            Message("{0} is no line of an audit log; it was changed, or is of another file", where)
        )
    stated = match[2].decode()
    digest = digest_of(match[1], "sm3" if stated.startswith("sm3:") else "sha256")
    if digest != stated:
        raise error(
            Message(
                "{0} was changed: it holds the hash {1}… and its content has {2}…",
                where,
                stated[:16],
                digest[:16],
            )
        )
    return Link(sequence, digest)


def linked(paths: Iterable[Path]) -> Iterator[tuple[str, Link, Link]]:
    """Yield where each line of a chain is, the line before it, and its own place.

    Raises:
        InputError: a file cannot be read; or a line was changed, is missing, or is not in its
            place. The message names it.
    """
    before: Link | None = None
    for path, number, line in lines_of(paths):
        where = Message("{0} line {1}", path, number)
        link = link_of(line, where, error=InputError)
        prev = json.loads(line).get("prev")
        if link.sequence == 1 and prev != GENESIS:
            raise InputError("{0} is number 1 and follows another line; it was changed", where)
        if before is None:
            before = Link(link.sequence - 1, prev)
        if (prev, link.sequence) != (before.hash, before.sequence + 1):
            raise InputError(
                "{0} is number {1} and does not follow number {2} before it: a line is missing, "
                "was put there, or is out of order",
                where,
                link.sequence,
                before.sequence,
            )
        yield where, before, link
        before = link


def lines_of(paths: Iterable[Path]) -> Iterator[tuple[Path, int, bytes]]:
    """Yield the lines of files, each with its file and its number there.

    Raises:
        InputError: a file cannot be read, or its last line has no end.
    """
    for path in paths:
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        raise InputError(
                            "{0} line {1} has no end: it was cut short, or the gateway is writing "
                            "it",
                            path,
                            number,
                        )
                    yield path, number, line
        except OSError as error:
            raise InputError("the audit log {0} cannot be read: {1}", path, error) from error
