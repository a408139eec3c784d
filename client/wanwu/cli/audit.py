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
    head: Annotated[
        Path | None,
        typer.Option(help="Where the gateway keeps the log's begin and end. [FILE.head]"),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="PEM file of the Ed25519 key that signs the head, or its public half."),
    ] = None,
    kept_days: Annotated[
        float,
        typer.Option(min=0, help="Days that every line must have been kept, at the least."),
    ] = 180,
    chain_only: Annotated[
        bool,
        typer.Option("--chain-only", help="Check the lines alone, such as those of one file."),
    ] = False,
) -> None:
    """Find a line that was changed, is missing or is out of order: exit code 2 tells of one."""
    from wanwu.cli.packages import needs
    from wanwu.errors import InputError
    from wanwu.gateway.audit import files_of, verify
    from wanwu.gateway.audit.head import head_path, read_head

    if len(files) == 1 and not files[0].is_file():
        raise InputError("there is no audit log {0}; check the path", files[0])
    known = None
    if not chain_only:
        with needs("gateway"):
            known = read_head(head or head_path(files[-1]), key)
    found = verify(files_of(files[0]) if len(files) == 1 else files, known)
    if last is not None and found.last.hash != last:
        raise InputError(
            "the last line is number {0} and has hash {1}; expected {2}: lines are missing at the "
            "end",
            found.last.sequence,
            found.last.hash,
            last,
        )
    if known is not None and known.removed_days is not None and known.removed_days < kept_days:
        raise InputError(
            "the gateway removed lines that were {0} days old; expected {1} at the least: see its "
            "settings WANWU_GATEWAY_AUDIT_RETENTION_DAYS and WANWU_GATEWAY_AUDIT_MAX_BYTES",
            f"{known.removed_days:g}",
            f"{kept_days:g}",
        )
    tell(
        "{0} lines, numbers {1} to {2}, are as written",
        found.lines,
        found.first,
        found.last.sequence,
    )
    tell("the last line's hash is {0}", found.last.hash)
    if known is None:
        tell("the log's begin and end were not checked")
    elif key is None:
        tell("the log begins and ends as its head says, which is not signed")
    else:
        tell("the log begins and ends as its signed head says")
    if found.beyond:
        tell("{0} lines are newer than the head", found.beyond)
    if known is not None and known.removed_days is not None:
        tell(
            "lines up to number {0} were removed by the gateway, {1} days old at the least",
            known.before.sequence,
            f"{known.removed_days:g}",
        )
    elif found.first != 1:
        tell("lines before number {0} are in other files, which were not checked", found.first)
