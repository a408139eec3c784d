"""A progress display on standard error for commands that take their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from wanwu.catalog import Message
from wanwu.cli.language import translate

#: Away from a terminal, a line tells how far a bank is after this many seconds.
TOLD_EVERY_S = 10.0


class Steps(Protocol):
    """What a command tells of its work."""

    def step(self, text: str) -> None:
        """Say what is being done now."""

    def count(self, bank: str, done: int, total: int) -> None:
        """Say how many labels of a bank are embedded, of how many."""


class _Display:
    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._task = progress.add_task("", total=None)
        self._told = time.monotonic()

    def step(self, text: str) -> None:
        text = translate(text)
        self._progress.reset(self._task, total=None, description=text)
        if not self._console.is_terminal:
            self._console.print(f"wanwu: {text} …", markup=False, highlight=False)

    def count(self, bank: str, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)
        if not self._console.is_terminal and time.monotonic() - self._told > TOLD_EVERY_S:
            self._told = time.monotonic()
            told = translate(Message("{0} of {1} labels", f"{done:,}", f"{total:,}"))
            self._console.print(f"wanwu:   {told}", highlight=False)


@contextmanager
def steps() -> Iterator[Steps]:
    """Show what is being done; away from a terminal, a line for each step."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield _Display(progress, console)


@contextmanager
def pictures_done(total: int | None, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Give a function to call after each picture; a terminal shows how many, how fast, how long."""
    console = Console(stderr=True)
    columns = (
        TextColumn(translate("pictures")),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
        speed_estimate_period=10,
    ) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


class _RateColumn(ProgressColumn):
    """Pictures a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f}/s")
