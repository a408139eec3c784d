"""The audit log: a JSON line for every request, each bound to the one before it by a hash.

    {"seq":2,"time":"…",…,"prev":"<hash of line 1>","hash":"<SHA-256 of this line up to here>"}

A line that is changed, missing or out of order breaks the chain, which `wanwu audit verify` finds.
Lines cut off the end leave a whole chain: compare its last number and hash with a copy kept
elsewhere, such as the metric wanwu_gateway_audit_sequence.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wanwu.catalog import Message, message_of
from wanwu.errors import InputError, SetupError

#: What the first line of all follows.
GENESIS = "0" * 64
_HASHED = re.compile(rb'(\{.*),"hash":"([0-9a-f]{64})"\}', re.DOTALL)
#: How each line begins.
_BEGINS = b'{"seq":'
#: About the length of the line of a request with many pictures.
_LONG_LINE = 4_096
#: The end of a file in which its last line is looked for.
_TAIL_BYTES = 1_000_000


class AuditError(Exception):
    """A line could not be written; what the line tells of must not happen."""


@dataclass(frozen=True)
class Link:
    """A line's place in the chain."""

    sequence: int
    hash: str


class AuditLog:
    """Writes the log, to a file or to standard output.

    A file is continued from its last line, and one process writes it. When it has grown to
    `rotate_bytes` it is set aside as NAME.LAST-LINE.jsonl, and the next goes on with the chain.

    Args:
        path: the file, or None for standard output.
        rotate_bytes: size at which a file is set aside.
        fsync: wait for the disk at each line.

    Raises:
        SetupError: the file cannot be written, another process writes it, or its last line was
            changed.
    """

    def __init__(self, path: Path | None, *, rotate_bytes: int, fsync: bool) -> None:
        self._path, self._rotate_bytes, self._fsync = path, rotate_bytes, fsync
        self._last = Link(0, GENESIS)
        self._size = 0
        self._failing = False
        if path is None:
            self._file = sys.stdout.fileno()
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open(path)
            self._continue(path)
        except (OSError, AuditError) as error:
            raise unwritable(str(path), error) from error

    @property
    def sequence(self) -> int:
        """The number of the last line."""
        return self._last.sequence

    def write(self, record: dict[str, Any]) -> None:
        """Write one line; it is in the file when this returns.

        Raises:
            AuditError: it is not. The file is as it was.
        """
        self._failing = True
        if self._path is not None:
            self._check_place(self._path)
        if self._path is not None and self._size >= self._rotate_bytes:
            self._rotate(self._path)
        link, line = _line(record, self._last)
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(Message("{0} of {1} bytes were written", written, len(line)))
            if self._fsync:
                os.fdatasync(self._file)
        except OSError as error:
            if self._path is not None:
                os.ftruncate(self._file, self._size)  # no half line stays
            raise AuditError(message_of(error)) from error
        self._last = link
        self._size += len(line)
        self._failing = False

    def check(self) -> None:
        """Check that lines can be written, if the last could not.

        Raises:
            AuditError: they cannot.
        """
        if self._failing:
            # As long as other lines, which must fit too.
            self.write({"event": "resumed", "room": " " * _LONG_LINE})

    def close(self) -> None:
        """Let go of the file."""
        if self._path is not None:
            os.close(self._file)

    def _check_place(self, path: Path) -> None:
        """Check that the file is still the one of that name, and as long as it was left."""
        ours = os.fstat(self._file)
        try:
            there = path.stat()
        except OSError as error:
            raise AuditError(
                Message("{0} was moved or removed; start the gateway anew", path)
            ) from error
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise AuditError(
                Message("{0} was replaced by another file; start the gateway anew", path)
            )
        if ours.st_size != self._size:
            raise AuditError(
                Message(
                    "{0} has {1} bytes and this gateway wrote {2}; somebody else changed it: "
                    "see `wanwu audit verify`, and start the gateway anew",
                    path,
                    ours.st_size,
                    self._size,
                )
            )

    def _continue(self, path: Path) -> None:
        """Go on from the last whole line; what a killed process left of another is removed."""
        size = os.fstat(self._file).st_size
        self._size, last = _end_of(self._file)
        if last is not None:
            self._last = _link(last, Message("the last line of {0}", path))
        else:
            self._last = _last_set_aside(path)
        if self._size == size:
            return
        cut = size - self._size
        torn = os.pread(self._file, len(_BEGINS), self._size)
        if not _BEGINS.startswith(torn):
            raise SetupError(
                "{0} is no audit log: its last line is no gateway's; give another file", path
            )
        os.ftruncate(self._file, self._size)
        self.write({"event": "recovered", "half_line_bytes": cut})

    def _rotate(self, path: Path) -> None:
        aside = path.with_name(f"{path.stem}.{self._last.sequence:012d}{path.suffix}")
        try:
            path.rename(aside)
            try:
                new = _open(path)
            except OSError:
                aside.rename(path)
                raise
        except OSError as error:
            raise AuditError(
                Message("{0} cannot be set aside as {1}: {2}", path, aside, error)
            ) from error
        os.close(self._file)
        self._file, self._size = new, 0


@dataclass(frozen=True)
class Verified:
    """What a whole chain holds."""

    lines: int
    first: int
    last: Link


def unwritable(name: str, error: Exception) -> SetupError:
    """Give the error of a log that cannot be begun."""
    return SetupError(
        "the audit log {0} cannot be written: {1}; give a file that this process may write, and "
        "no other gateway does",
        name,
        error,
    )


def verify(paths: Iterable[Path]) -> Verified:
    """Check the chain through files, the oldest first.

    Raises:
        InputError: a file cannot be read or has no line; or a line was changed, is missing, or is
            not in its place. The message names it.
    """
    count, first = 0, 0
    before: Link | None = None
    for path, number, line in _lines(paths):
        where = Message("{0} line {1}", path, number)
        link = _link(line, where, error=InputError)
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


def files_of(path: Path) -> list[Path]:
    """Give an audit log's files, those that were set aside first and the oldest before all."""
    aside = re.compile(re.escape(path.stem) + r"\.\d{12}" + re.escape(path.suffix))
    return [*sorted(p for p in path.parent.iterdir() if aside.fullmatch(p.name)), path]


def _open(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise OSError("another process writes it") from error
    except OSError:
        os.close(file)
        raise
    return file


def _end_of(file: int) -> tuple[int, bytes | None]:
    """Give where the last whole line of a file ends, and that line."""
    size = os.fstat(file).st_size
    tail = os.pread(file, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    whole = tail.rfind(b"\n") + 1
    return size - (len(tail) - whole), next(iter(tail[:whole].splitlines()[-1:]), None)


def _last_set_aside(path: Path) -> Link:
    """Give the line before a file's first: it may have ended just after one was set aside."""
    aside = files_of(path)[:-1]
    if not aside:
        return Link(0, GENESIS)
    try:
        with aside[-1].open("rb") as file:
            _, last = _end_of(file.fileno())
    except OSError as error:
        raise SetupError("the audit log {0} cannot be read: {1}", aside[-1], error) from error
    return _link(last or b"", Message("the last line of {0}", aside[-1]))


def _line(record: dict[str, Any], before: Link) -> tuple[Link, bytes]:
    sequence = before.sequence + 1
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
    whole = {"seq": sequence, "time": now, **record, "prev": before.hash}
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))[:-1]
    # Half of a surrogate pair, which a caller's JSON may hold, becomes its JSON escape.
    head = text.encode(errors="backslashreplace")
    digest = hashlib.sha256(head).hexdigest()
    return Link(sequence, digest), head + f',"hash":"{digest}"}}\n'.encode()


def _link(line: bytes, where: str, error: type[InputError | SetupError] = SetupError) -> Link:
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


def _lines(paths: Iterable[Path]) -> Iterator[tuple[Path, int, bytes]]:
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
