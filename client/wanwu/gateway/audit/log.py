"""The audit log's file, or standard output: lines are appended, and the chain goes on."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from wanwu.catalog import Message, message_of
from wanwu.errors import SetupError
from wanwu.gateway.audit.chain import (
    BEGINS,
    GENESIS,
    AuditError,
    Link,
    files_of,
    link_of,
    new_line,
)

#: The end of a file in which its last line is looked for first.
_TAIL_BYTES = 1_000_000


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

    @property
    def failing(self) -> bool:
        """Whether the last lines could not be written."""
        return self._failing

    def write(self, *records: dict[str, Any]) -> None:
        """Write a line for each record; they are in the file when this returns.

        Raises:
            AuditError: they are not. The file is as it was.
        """
        self._failing = True
        if self._path is not None:
            self._check_place(self._path)
            if self._size >= self._rotate_bytes:
                self._rotate(self._path)
        data, last = _lines(records, self._last)
        try:
            _write_whole(self._file, data)
            if self._fsync:
                os.fdatasync(self._file)
        except OSError as error:
            if self._path is not None:
                with suppress(OSError):  # then the next write finds the file too long
                    os.ftruncate(self._file, self._size)  # no half line stays
            raise AuditError(message_of(error)) from error
        self._last = last
        self._size += len(data)
        self._failing = False

    def close(self) -> None:
        """Close the file."""
        if self._path is not None:
            os.close(self._file)

    def _check_place(self, path: Path) -> None:
        """Check that the file is still the one of that name, and as long as it was left."""
        ours = os.fstat(self._file)
        try:
            there = path.stat()
        except OSError as error:
            raise AuditError(
                Message("{0} was moved or removed; restart the gateway", path)
            ) from error
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise AuditError(Message("{0} was replaced by another file; restart the gateway", path))
        if ours.st_size != self._size:
            raise AuditError(
                Message(
                    "{0} has {1} bytes and this gateway wrote {2}; somebody else changed it: "
                    "see `wanwu audit verify`, and restart the gateway",
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
            self._last = link_of(last, Message("the last line of {0}", path))
        else:
            self._last = _last_set_aside(path)
        if self._size == size:
            return
        cut = size - self._size
        torn = os.pread(self._file, len(BEGINS), self._size)
        if not BEGINS.startswith(torn):
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


def unwritable(name: str, error: Exception) -> SetupError:
    """Return the error of a log that cannot be begun."""
    return SetupError(
        "the audit log {0} cannot be written: {1}; give a file that this process may write, and "
        "no other gateway does",
        name,
        error,
    )


def _lines(records: Sequence[dict[str, Any]], before: Link) -> tuple[bytes, Link]:
    """Return the lines of records, and the place of the last."""
    lines = []
    for record in records:
        before, line = new_line(record, before)
        lines.append(line)
    return b"".join(lines), before


def _write_whole(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


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
    """Return where the last whole line of a file ends, and that line."""
    size, span = os.fstat(file).st_size, _TAIL_BYTES
    while True:
        tail = os.pread(file, span, max(0, size - span))
        whole = tail.rfind(b"\n") + 1
        begins = tail.rfind(b"\n", 0, max(0, whole - 1)) + 1
        if begins or span >= size:
            return size - (len(tail) - whole), tail[begins:whole] or None
        span *= 4  # a line of many labels may be longer


def _last_set_aside(path: Path) -> Link:
    """Return the line before a file's first: it may have ended just after one was set aside."""
    aside = files_of(path)[:-1]
    if not aside:
        return Link(0, GENESIS)
    try:
        with aside[-1].open("rb") as file:
            _, last = _end_of(file.fileno())
    except OSError as error:
        raise SetupError("the audit log {0} cannot be read: {1}", aside[-1], error) from error
    return link_of(last or b"", Message("the last line of {0}", aside[-1]))
