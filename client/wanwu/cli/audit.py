"""`wanwu audit`: check the gateway's audit log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wanwu.cli.language import tell

app = typer.Typer(help="Check the audit log of the gateway.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="The log; of several files, the oldest first. Of one, those that were set aside "
            "before it are checked too.",
        ),
    ],
    last: Annotated[
        str | None,
        typer.Option(
            help="The hash that its last line must have: lines cut off the end are found by this."
        ),
    ] = None,
) -> None:
    """Find a line that was changed, is missing or is out of order: exit code 2 tells of one."""
    from wanwu.errors import InputError
    from wanwu.gateway.audit import files_of, verify

    if len(files) == 1 and not files[0].is_file():
        raise InputError("there is no audit log {0}; check the path", files[0])
    found = verify(files_of(files[0]) if len(files) == 1 else files)
    if last is not None and found.last.hash != last:
        raise InputError(
            "the last line is number {0} and has hash {1}; expected {2}: lines are missing at the "
            "end",
            found.last.sequence,
            found.last.hash,
            last,
        )
    tell(
        "{0} lines, numbers {1} to {2}, are as written",
        found.lines,
        found.first,
        found.last.sequence,
    )
    tell("the last line's hash is {0}", found.last.hash)
    if found.first != 1:
        tell("lines before number {0} are in other files, which were not checked", found.first)
