"""Acts of administration in an audit log: who changed keys, labels or versions, and the outcome."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wanwu.catalog import message_of
from wanwu.errors import SetupError
from wanwu.gateway.audit.chain import AuditError
from wanwu.gateway.audit.files import BusyError
from wanwu.gateway.audit.log import AuditLog

#: Names the file of acts; `off` records none.
VARIABLE = "WANWU_AUDIT"
#: Time to wait for another command that writes to it.
WAIT_S = 10.0


@contextmanager
def audited(act: str, thing: Path, **about: Any) -> Iterator[dict[str, Any]]:
    """Record that an act begins, and how it ended; what is put into the yielded dict goes along.

    The log is the file that WANWU_AUDIT names, else one beside the file that is changed:
    `keys.audit.jsonl` for `keys.json`. Nothing is recorded where that file is not there, before the
    first act and after one that failed to make it.

    Args:
        act: such as `keys.create`.
        thing: the file that is changed.
        about: what is done to it.

    Raises:
        SetupError: the log cannot be written. If it could not from the beginning, nothing was done.
    """
    path = _path(thing)
    record = {"event": "act", "act": act, "user": os_user(), "file": str(thing), **about}
    outcome: dict[str, Any] = {}
    _write(path, thing, {**record, "state": "begun"})
    try:
        yield outcome
    except BaseException as error:
        _write(path, thing, {**record, "state": "failed", "error": type(error).__name__})
        raise
    _write(path, thing, {**record, **outcome, "state": "done"})


def os_user() -> str:
    """Return the name of the operating system's user, or its number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _path(thing: Path) -> Path | None:
    named = os.environ.get(VARIABLE)
    if named == "off":
        return None
    return Path(named) if named else thing.with_name(f"{thing.stem}.audit.jsonl")


def _write(path: Path | None, thing: Path, record: dict[str, Any]) -> None:
    if path is None or not thing.exists():
        return
    try:
        log = _opened(path)
        try:
            log.write(record)
        finally:
            log.close()
    except (AuditError, SetupError) as error:
        raise SetupError(
            "what this command does cannot be recorded: {0}; name another file by WANWU_AUDIT, or "
            "`off` to record nothing",
            message_of(error),
        ) from error


def _opened(path: Path) -> AuditLog:
    """Open the log, once no other command writes to it."""
    ends = time.monotonic() + WAIT_S
    while True:
        try:
            return AuditLog(path)
        except SetupError as error:
            if not isinstance(error.__cause__, BusyError) or time.monotonic() > ends:
                raise
            time.sleep(0.05)
