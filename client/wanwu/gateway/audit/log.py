"""The audit log's file, or standard output: lines are appended, and the chain goes on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from wanwu.catalog import Message, message_of
from wanwu.errors import InputError, SetupError
from wanwu.gateway.audit.chain import (
    BEGINS,
    Algorithm,
    AuditError,
    Link,
    link_of,
    linked,
    new_line,
    now,
)
from wanwu.gateway.audit.files import (
    end_and_age,
    end_of,
    files_of,
    open_locked,
    write_whole,
)
from wanwu.gateway.audit.head import START, Head, HeadFile, head_path
from wanwu.gateway.audit.retention import removable

Record = dict[str, Any]


class AuditLog:
    """Writes the log, to a file or to standard output.

    A file is continued from its last line, and one process writes it. When it has grown to
    `rotate_bytes`, or is of another day, it is set aside as NAME.LAST-LINE.jsonl, and the next goes
    on with the chain. Where the log begins and ends is kept in its head.

    Args:
        path: the file, or None for standard output.
        rotate_bytes: size at which a file is set aside.
        fsync: wait for the disk at each line.
        head: file of the head; by default beside the log, and none for standard output.
        key: PEM file of an Ed25519 key that signs the head.
        algorithm: of the hashes.
        keep_days: age at which files that were set aside are removed.
        max_bytes: size of all files at which the oldest are removed, however young.

    Raises:
        SetupError: a file cannot be written, another process writes it, or its last line was
            changed.
        InputError: the head is damaged, or not signed by this key.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        rotate_bytes: int = 100_000_000,
        fsync: bool = False,
        head: Path | None = None,
        key: Path | None = None,
        algorithm: Algorithm = "sha256",
        keep_days: float = 180,
        max_bytes: int | None = None,
    ) -> None:
        self._path, self._rotate_bytes, self._fsync = path, rotate_bytes, fsync
        self._algorithm, self._keep_days, self._max_bytes = algorithm, keep_days, max_bytes
        _check_algorithm(algorithm)
        self._last, self._head = START, Head()
        self._size, self._size_aside, self._day = 0, 0, ""
        self._head_file: HeadFile | None = None
        try:
            if path is None:
                self._file = sys.stdout.fileno()
                if head is not None:
                    self._follow_head(HeadFile(head, key), [])
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_locked(path, os.O_APPEND)
            try:
                self._continue(path, head or head_path(path), key)
            except BaseException:
                self.close()  # and its lock with it
                raise
        except (OSError, AuditError) as error:
            raise unwritable(str(path or head), error) from error

    @property
    def sequence(self) -> int:
        """The number of the last line."""
        return self._last.sequence

    @property
    def in_bytes(self) -> int:
        """The size of all its files."""
        return self._size + self._size_aside

    def volume(self) -> tuple[int, int] | None:
        """Return the free bytes of the volume that it lies on, and all; None for no file."""
        if self._path is None:
            return None
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def write(self, *records: Record) -> None:
        """Write a line for each record; they are in the file when this returns.

        Raises:
            AuditError: they are not. The file is as it was.
        """
        if self._path is not None:
            self._check_place(self._path)
            today = now().date().isoformat()
            if self._size >= self._rotate_bytes or (self._size and self._day != today):
                self._rotate(self._path)
                records = (*self._remove_old(self._path), *records)
            self._day = today
        self._append(records)

    def close(self) -> None:
        """Close the files; the log last, since whoever waits for it takes the head next."""
        if self._head_file is not None:
            self._head_file.close()
        if self._path is not None:
            os.close(self._file)

    def _append(self, records: Sequence[Record]) -> None:
        data, last = _lines(records, self._last, self._algorithm)
        head = replace(self._head, last=last)
        try:
            write_whole(self._file, data)
            if self._fsync:
                os.fdatasync(self._file)
            if self._head_file is not None:
                self._head_file.write(head)
        except OSError as error:
            if self._path is not None:
                with suppress(OSError):  # then the next write finds the file too long
                    os.ftruncate(self._file, self._size)  # no half line stays
            raise AuditError(message_of(error)) from error
        self._last, self._head = last, head
        self._size += len(data)

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

    def _continue(self, path: Path, head: Path, key: Path | None) -> None:
        """Go on from the last whole line; what a killed process left of another is removed."""
        size, notes = os.fstat(self._file).st_size, []
        self._size, last = end_of(self._file)
        if last is not None:
            self._last = link_of(last, Message("the last line of {0}", path))
            self._day = json.loads(last)["time"][:10]
        else:
            self._last = _last_set_aside(path)
        if cut := size - self._size:
            torn = os.pread(self._file, len(BEGINS), self._size)
            if not BEGINS.startswith(torn):
                raise SetupError(
                    "{0} is no audit log: its last line is no gateway's; give another file", path
                )
            os.ftruncate(self._file, self._size)
            notes.append({"event": "recovered", "half_line_bytes": cut})
        notes += self._follow_head(HeadFile(head, key), files_of(path))
        notes += self._remove_old(path)
        if notes:
            self.write(*notes)

    def _follow_head(self, file: HeadFile, files: Sequence[Path]) -> list[Record]:
        """Go on where the head says; return what is to be noted, should the files end elsewhere."""
        self._head_file = file
        head, found = file.read(), self._last
        if head is None:
            if found == START:
                return []
            self._head = Head(_line_before(files), found)
            return [{"event": "anchored", "lines_before": found.sequence}]
        self._head = head
        # A process that was killed may have written lines, and not the head.
        if found == head.last or (found.sequence > head.last.sequence and _holds(files, head.last)):
            return []
        self._last = head.last
        if not files:
            return []
        return [{"event": "broken", "found": found.sequence, "expected": head.last.sequence}]

    def _remove_old(self, path: Path) -> list[Record]:
        """Remove files that are old enough, or too many; return what is to be noted."""
        old = removable(path, self._size, self._head, self._keep_days, self._max_bytes)
        self._size_aside = old.left_bytes
        if old.head != self._head and self._head_file is not None:
            self._head_file.write(old.head)  # first: so removed files are not taken for lost
        self._head = old.head
        for file in old.files:
            file.unlink()
        if not old.files:
            return []
        names = [file.name for file in old.files]
        return [{"event": "removed", "files": names, "through": old.head.before.sequence}]

    def _rotate(self, path: Path) -> None:
        aside = path.with_name(f"{path.stem}.{self._last.sequence:012d}{path.suffix}")
        try:
            path.rename(aside)
            try:
                new = open_locked(path, os.O_APPEND)
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


def _lines(records: Sequence[Record], before: Link, algorithm: Algorithm) -> tuple[bytes, Link]:
    """Return the lines of records, and the place of the last."""
    lines = []
    for record in records:
        before, line = new_line(record, before, algorithm)
        lines.append(line)
    return b"".join(lines), before


def _last_set_aside(path: Path) -> Link:
    """Return the line before a file's first: it may have ended just after one was set aside."""
    aside = files_of(path)[:-1]
    return end_and_age(aside[-1])[0] if aside else START


def _line_before(files: Sequence[Path]) -> Link:
    return next(before for _, before, _ in linked(files))


def _holds(files: Sequence[Path], link: Link) -> bool:
    """Return whether a line is in the newest two files, and the chain is whole from there on."""
    try:
        return link in [each for _, _, each in linked(files[-2:])]
    except InputError:
        return False


def _check_algorithm(algorithm: Algorithm) -> None:
    try:
        hashlib.new(algorithm)
    except ValueError as error:
        raise SetupError(
            "this machine's OpenSSL has no {0}: {1}; use sha256", algorithm, error
        ) from error
