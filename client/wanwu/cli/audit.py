"""`wanwu audit`: check, search and export audit logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanwu.cli.language import tell

if TYPE_CHECKING:
    from datetime import datetime

    from wanwu.gateway.audit import Verified
    from wanwu.gateway.audit.head import Head
    from wanwu.gateway.audit.search import Wanted

app = typer.Typer(
    help="Check, search and export the audit log of the gateway.", no_args_is_help=True
)

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="The log; of several files, the oldest first. Of one, those that were set aside "
        "before it are read too.",
    ),
]
Since = Annotated[
    str | None, typer.Option(help="From this time on: 2026-11-28 or 2026-11-28T08:00+08:00. [UTC]")
]
Until = Annotated[str | None, typer.Option(help="Before this time.")]
Principal = Annotated[
    str | None, typer.Option(help="Id or name of the key, or subject of the token.")
]
Label = Annotated[
    str | None,
    typer.Option(help="A label or text that was asked or answered, found by its hash too."),
]
RequestId = Annotated[str | None, typer.Option(help="The answer's X-Request-ID.")]


@app.command()
def verify(
    files: Files,
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
    from wanwu.gateway.audit import verify
    from wanwu.gateway.audit.head import head_path, read_head

    paths = _paths(files)
    known = None
    if not chain_only:
        with needs("gateway"):
            known = read_head(head or head_path(files[-1]), key)
    found = verify(paths, known)
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
    _report(found, known, signed=key is not None)


@app.command()
def search(
    files: Files,
    since: Since = None,
    until: Until = None,
    principal: Principal = None,
    label: Label = None,
    request_id: RequestId = None,
) -> None:
    """Print the lines that fit all options, as they are in the log."""
    import json

    from wanwu.gateway.audit.search import search

    wanted = _wanted(since, until, principal, label, request_id)
    for line in search(_paths(files), wanted):
        typer.echo(json.dumps(line, ensure_ascii=False, separators=(",", ":")))


@app.command()
def export(
    files: Files,
    output: Annotated[Path, typer.Option(help="The CSV file to write.")],
    since: Since = None,
    until: Until = None,
    principal: Principal = None,
    label: Label = None,
    request_id: RequestId = None,
) -> None:
    """Write the lines that fit all options to a CSV file, for a spreadsheet."""
    from wanwu.errors import SetupError
    from wanwu.gateway.audit.search import search, write_csv

    wanted = _wanted(since, until, principal, label, request_id)
    try:
        # Excel takes a file without the mark for one in the system's own encoding.
        with output.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as to:
            count = write_csv(search(_paths(files), wanted), to)
    except OSError as error:
        raise SetupError("{0} cannot be written: {1}", output, error) from error
    tell("{0} lines in {1}", count, output)


def _paths(files: list[Path]) -> list[Path]:
    from wanwu.errors import InputError
    from wanwu.gateway.audit import files_of

    if len(files) > 1:
        return files
    if not files[0].is_file():
        raise InputError("there is no audit log {0}; check the path", files[0])
    return files_of(files[0])


def _wanted(
    since: str | None,
    until: str | None,
    principal: str | None,
    label: str | None,
    request_id: str | None,
) -> Wanted:
    from wanwu.gateway.audit.search import Wanted

    return Wanted(_time("--since", since), _time("--until", until), principal, label, request_id)


def _time(option: str, given: str | None) -> datetime | None:
    """Return the time that an option names, in UTC where it names no zone."""
    from datetime import datetime, timezone

    from wanwu.errors import InputError

    if given is None:
        return None
    try:
        time = datetime.fromisoformat(given.replace("Z", "+00:00"))
    except ValueError as error:
        raise InputError(
            "{0} is {1}; expected a time such as 2026-11-28 or 2026-11-28T08:00+08:00",
            option,
            repr(given),
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _report(found: Verified, known: Head | None, *, signed: bool) -> None:
    tell(
        "{0} lines, numbers {1} to {2}, are as written",
        found.lines,
        found.first,
        found.last.sequence,
    )
    tell("the last line's hash is {0}", found.last.hash)
    if known is None:
        tell("the log's begin and end were not checked")
        if found.first != 1:
            tell("lines before number {0} are in other files, which were not checked", found.first)
        return
    if signed:
        tell("the log begins and ends as its signed head says")
    else:
        tell("the log begins and ends as its head says, which is not signed")
    if found.beyond:
        tell("{0} lines are newer than the head", found.beyond)
    if known.removed_days is not None:
        tell(
            "lines up to number {0} were removed by the gateway, {1} days old at the least",
            known.before.sequence,
            f"{known.removed_days:g}",
        )
