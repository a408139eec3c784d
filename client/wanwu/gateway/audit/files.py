"""Files of the audit log: how one is opened, extended, and what its last line is."""

from __future__ import annotations

import fcntl
import json
import os
import re
from datetime import datetime, timedelta
from pathlib import Path

from wanwu.catalog import Message
from wanwu.errors import SetupError
from wanwu.gateway.audit.chain import Link, link_of, now

#: The end of a file in which its last line is looked for first.
_TAIL_BYTES = 1_000_000


def files_of(path: Path) -> list[Path]:
    """Return an audit log's files, those that were set aside first and the oldest before all."""
    aside = re.compile(re.escape(path.stem) + r"\.\d{12}" + re.escape(path.suffix))
    return [*sorted(p for p in path.parent.iterdir() if aside.fullmatch(p.name)), path]


class BusyError(OSError):
    """Another process writes a file."""


def open_locked(path: Path, flags: int = 0) -> int:
    """Open a file for its one writer.

    Raises:
        BusyError: another process writes it.
        OSError: it cannot be opened.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise BusyError("another process writes it") from error
    except OSError:
        os.close(file)
        raise
    return file


def write_whole(file: int, data: bytes) -> None:
    """Write all of some data: a pipe may take it in parts."""
    while data:
        data = data[os.write(file, data) :]


def end_of(file: int) -> tuple[int, bytes | None]:
    """Return where the last whole line of a file ends, and that line."""
    size, span = os.fstat(file).st_size, _TAIL_BYTES
    while True:
        tail = os.pread(file, span, max(0, size - span))
        whole = tail.rfind(b"\n") + 1
        begins = tail.rfind(b"\n", 0, max(0, whole - 1)) + 1
        if begins or span >= size:
            return size - (len(tail) - whole), tail[begins:whole] or None
        span *= 4  # a line of many labels may be longer


def end_and_age(file: Path) -> tuple[Link, float]:
    """Return the last line of a file that was set aside, and its age in days."""
    try:
        with file.open("rb") as stream:
            line = end_of(stream.fileno())[1] or b""
    except OSError as error:
        raise SetupError("the audit log {0} cannot be read: {1}", file, error) from error
    link = link_of(line, Message("the last line of {0}", file))
    written = datetime.fromisoformat(json.loads(line)["time"].replace("Z", "+00:00"))
    return link, (now() - written) / timedelta(days=1)
