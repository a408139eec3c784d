"""Which files of the audit log may be removed. The head says what was, so that nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from wanwu.errors import SetupError
from wanwu.gateway.audit.files import end_and_age, files_of
from wanwu.gateway.audit.head import Head


@dataclass(frozen=True)
class Old:
    """Files to remove, the oldest first; the head after that, and the size of those that stay."""

    files: tuple[Path, ...]
    head: Head
    left_bytes: int


def removable(path: Path, size: int, head: Head, keep_days: float, max_bytes: int | None) -> Old:
    """Return which of the files that were set aside are to be removed.

    Args:
        path: the log.
        size: bytes of its newest file.
        head: as it is.
        keep_days: age of a file's last line at which it goes.
        max_bytes: size of the log at which the oldest go, however young.
    """
    sizes = {file: file.stat().st_size for file in files_of(path)[:-1]}
    left, gone = sum(sizes.values()), []
    for file in sizes:
        try:
            last, age = end_and_age(file)
        except SetupError:
            break  # it was changed: it is kept for whoever looks into it
        left_over = last.sequence <= head.before.sequence  # of a process that was killed
        full = max_bytes is not None and size + left > max_bytes
        if not (left_over or full or age >= keep_days):
            break
        gone.append(file)
        left -= sizes[file]
        if not left_over:
            youngest = age if head.removed_days is None else min(age, head.removed_days)
            head = replace(head, before=last, removed_days=round(youngest, 3))
    return Old(tuple(gone), head, left)
