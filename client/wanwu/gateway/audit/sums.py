"""Counts of what unknown callers were refused, in place of a line for each such request."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

#: A window's sums are written at its end.
WINDOW_S = 60.0
#: Callers that are counted apart in a window; those after them are counted together.
MOST_CALLERS = 100
OTHERS = "others"


@dataclass(frozen=True)
class Refused:
    """What is counted as the same: who, and the outcome. Files of the page have no code."""

    source: str
    principal: str | None
    status: int
    code: str | None


class Sums:
    """The sums of one window. For one event loop.

    Args:
        own_lines: requests of a caller that have lines of their own before its sum begins.
    """

    def __init__(self, own_lines: int) -> None:
        self._own_lines = own_lines
        self._seen: Counter[tuple[str, str | None]] = Counter()
        self._counts: Counter[Refused] = Counter()
        self._since = _now()

    @property
    def began(self) -> bool:
        """Whether anybody was seen in this window."""
        return bool(self._seen or self._counts)

    def add(self, refused: Refused) -> bool:
        """Count a request, unless it is to have a line of its own: then return False."""
        caller = (refused.source, refused.principal)
        if caller in self._seen or len(self._seen) < MOST_CALLERS:
            self._seen[caller] += 1
            if self._seen[caller] <= self._own_lines:
                return False
        else:
            refused = Refused(OTHERS, None, refused.status, refused.code)
        self._counts[refused] += 1
        return True

    def records(self) -> tuple[list[dict[str, Any]], Counter[Refused]]:
        """Return the records of the window until now, and the counts that they hold."""
        window = {"since": self._since, "until": _now()}
        records = [
            {"event": "refused" if what.code else "served", **vars(what), "count": count, **window}
            for what, count in self._counts.items()
        ]
        return records, self._counts.copy()

    def written(self, counts: Counter[Refused]) -> None:
        """Begin the next window, with what was counted since."""
        self._counts -= counts
        self._seen.clear()
        self._since = _now()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
