"""The traffic to plan for: pictures per second over time, linear between the rows of a file."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wanwu.catalog import Message
from wanwu.errors import InputError

#: Column of the rate, and how many of its unit make a picture per second.
RATES = {"pictures_per_second": 1.0, "pictures_per_minute": 60.0}
HEADER = "expected time,pictures_per_second or time,pictures_per_minute"
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
#: Stands for a day without a date.
_ANY_DAY = datetime(2000, 1, 1)


@dataclass(frozen=True)
class Hour:
    """One hour of the clock.

    Attributes:
        label: as the report calls it.
        peak: largest rate in it, pictures per second.
        pictures: how many arrive in it.
        seconds: how much of it the traffic covers.
    """

    label: str
    peak: float
    pictures: float
    seconds: float


@dataclass(frozen=True)
class Traffic:
    """Rates at times.

    Attributes:
        start: of the first row.
        dated: whether the rows have dates.
        times_s: seconds since the first row.
        rates: pictures per second then.
    """

    start: datetime
    dated: bool
    times_s: NDArray[np.float64]
    rates: NDArray[np.float64]

    @property
    def length_s(self) -> float:
        """Seconds from the first row to the last."""
        return float(self.times_s[-1])

    @property
    def peak(self) -> float:
        """Largest rate, pictures per second."""
        return float(self.rates.max())

    @property
    def pictures(self) -> float:
        """How many arrive in all."""
        return float(self.arrived(np.array([self.length_s]))[0])

    def arrived(self, at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give how many pictures have arrived until then: the exact integral of the rate."""
        steps = np.diff(self.times_s)
        whole = np.concatenate([[0.0], np.cumsum(steps * (self.rates[:-1] + self.rates[1:]) / 2)])
        row = np.clip(np.searchsorted(self.times_s, at_s, side="right") - 1, 0, len(steps) - 1)
        since = at_s - self.times_s[row]
        slope = (self.rates[row + 1] - self.rates[row]) / steps[row]
        return np.asarray(whole[row] + since * (self.rates[row] + slope * since / 2))

    def hours(self) -> list[Hour]:
        """Give the hours of the clock that the traffic covers."""
        into = timedelta(minutes=self.start.minute, seconds=self.start.second).total_seconds()
        edges = np.arange(3600 - into, self.length_s, 3600)
        edges = np.concatenate([[0.0], edges, [self.length_s]])
        pattern = "%m-%d %H:%M" if self.dated else "%H:%M"
        return [
            self._hour((self.start + timedelta(seconds=begin)).strftime(pattern), begin, end)
            for begin, end in pairwise(edges.tolist())
        ]

    def _hour(self, label: str, begin: float, end: float) -> Hour:
        inside = self.rates[(self.times_s >= begin) & (self.times_s <= end)]
        both = np.array([begin, end])
        peak = max(*np.interp(both, self.times_s, self.rates), *inside)
        pictures = float(np.diff(self.arrived(both))[0])
        return Hour(label, float(peak), pictures, float(end - begin))


def read_traffic(path: Path) -> Traffic:
    """Read a CSV of traffic.

    Raises:
        InputError: it is missing, or a line cannot be used.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream))
    except OSError as error:
        raise InputError(
            "{0}: cannot be read: {1}; check the path", path, error.strerror
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError("{0} is no CSV in UTF-8: {1}; save it as one", path, error) from error
    divisor = _divisor(path, lines)
    rows: list[tuple[datetime, bool, float]] = []
    for number, line in enumerate(lines[1:], start=2):
        if any(cell.strip() for cell in line):
            rows.append(_row(Message("{0} line {1}", path, number), line, divisor, rows))
    if len(rows) < 2:
        raise InputError(
            "{0} has {1} rows of traffic; expected at least 2: add some", path, len(rows)
        )
    start, dated, _ = rows[0]
    times = [(when - start).total_seconds() for when, _, _ in rows]
    return Traffic(start, dated, np.array(times), np.array([rate for _, _, rate in rows]))


def _divisor(path: Path, lines: list[list[str]]) -> float:
    header = [cell.strip() for cell in lines[0]] if lines else []
    if len(header) != 2 or header[0] != "time" or header[1] not in RATES:
        raise InputError("{0} line 1 is {1}; {2}", path, repr(",".join(header)), HEADER)
    return RATES[header[1]]


def _row(
    where: str, line: list[str], divisor: float, before: list[tuple[datetime, bool, float]]
) -> tuple[datetime, bool, float]:
    if len(line) != 2:
        raise InputError("{0} has {1} columns; expected 2: a time and a rate", where, len(line))
    when, dated = _time(where, line[0].strip())
    if before:
        last, was_dated, _ = before[-1]
        if dated != was_dated or (when.tzinfo is None) != (last.tzinfo is None):
            raise InputError(
                "{0} has the time {1}, written otherwise than the line before; write all of them "
                "alike, with or without date and time zone",
                where,
                repr(line[0]),
            )
        if when <= last:
            raise InputError(
                "{0} has the time {1}, not after the line before; put the rows in order, and give "
                "dates when they cross midnight",
                where,
                repr(line[0]),
            )
    return when, dated, _rate(where, line[1].strip()) / divisor


def _time(where: str, text: str) -> tuple[datetime, bool]:
    clock = _CLOCK.fullmatch(text)
    if clock:
        minutes = int(clock[1]) * 60 + int(clock[2])
        if int(clock[2]) < 60 and minutes <= 24 * 60:
            return _ANY_DAY + timedelta(minutes=minutes), False
    else:
        try:
            # Python 3.10 knows no Z.
            return datetime.fromisoformat(re.sub("[Zz]$", "+00:00", text)), True
        except ValueError:
            pass
    raise InputError(
        "{0} has the time {1}; expected HH:MM, or ISO 8601 with a date", where, repr(text)
    )


def _rate(where: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < float("inf"):
        raise InputError("{0} has the rate {1}; expected a number of at least 0", where, repr(text))
    return rate
