"""A line of the audit log, and its place in the chain.

    {"seq":2,"time":"…",…,"prev":"<hash of line 1>","hash":"<hash of this line up to here>"}

A line that is changed, missing or out of order breaks the chain.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wanwu.catalog import Message
from wanwu.errors import InputError, SetupError

#: What the first line of all follows.
GENESIS = "0" * 64
#: How each line begins.
BEGINS = b'{"seq":'
_HASHED = re.compile(rb'(\{.*),"hash":"([0-9a-f]{64})"\}', re.DOTALL)


class AuditError(Exception):
    """A line could not be written; what it records must not happen."""


@dataclass(frozen=True)
class Link:
    """A line's place in the chain."""

    sequence: int
    hash: str


def new_line(record: dict[str, Any], before: Link) -> tuple[Link, bytes]:
    """Return the line of a record that follows another, and its place."""
    sequence = before.sequence + 1
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
    whole = {"seq": sequence, "time": now, **record, "prev": before.hash}
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))[:-1]
    # Half of a surrogate pair, which a caller's JSON may hold, becomes its JSON escape.
    head = text.encode(errors="backslashreplace")
    digest = hashlib.sha256(head).hexdigest()
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
    digest = hashlib.sha256(match[1]).hexdigest()
    if digest != match[2].decode():
        raise error(
            Message(
                "{0} was changed: it holds the hash {1}… and its content has {2}…",
                where,
                match[2].decode()[:12],
                digest[:12],
            )
        )
    return Link(sequence, digest)


def files_of(path: Path) -> list[Path]:
    """Return an audit log's files, those that were set aside first and the oldest before all."""
    aside = re.compile(re.escape(path.stem) + r"\.\d{12}" + re.escape(path.suffix))
    return [*sorted(p for p in path.parent.iterdir() if aside.fullmatch(p.name)), path]


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
