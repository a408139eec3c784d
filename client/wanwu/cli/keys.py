"""`wanwu keys`: the API keys of the gateway."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

import typer

from wanwu.cli.language import padded, tell, translate

app = typer.Typer(
    help="Make, list, rotate and revoke the API keys of the gateway.", no_args_is_help=True
)

File = Annotated[
    Path,
    typer.Option(
        "--file",
        envvar="WANWU_GATEWAY_KEYS_FILE",
        help="The file of keys. It holds their hashes, not the keys.",
    ),
]
DEFAULT_FILE = Path("keys.json")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Who will use it.")],
    file: File = DEFAULT_FILE,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="recognise, embed or admin; may be given several times. [recognise]"),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0.0, help="Days until it expires. [never]")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Requests it may make, such as 100/minute. [the gateway's]")
    ] = None,
) -> None:
    """Make a key, add its hash to the file, and print the key: it is shown this once.

    A running gateway takes it within a second.
    """
    from wanwu.cli.packages import needs
    from wanwu.errors import InputError

    with needs("gateway"):
        from wanwu.gateway.audit.acts import audited
        from wanwu.gateway.keys import SCOPES, create_key

    wanted = scope or ["recognise"]
    for each in wanted:
        if each not in SCOPES:
            raise InputError("the scope is {0}; expected one of {1}", repr(each), ", ".join(SCOPES))
    try:
        expires = None if days is None else datetime.now(timezone.utc) + timedelta(days=days)
    except OverflowError as error:
        raise InputError(
            "--days is {0}, which is past the year 9999; leave it out for a key that never expires",
            f"{days:g}",
        ) from error
    with audited("keys.create", file, name=name, scopes=wanted) as act:
        key, token = create_key(file, name, tuple(wanted), expires, rate)  # type: ignore[arg-type]
        act["id"] = key.id
    tell("key {0} for {1} in {2}; it is shown this once:", key.id, key.name, file, err=True)
    typer.echo(token)


@app.command("list")
def list_keys(
    file: File = DEFAULT_FILE,
    audit: Annotated[
        list[typer.FileBinaryRead] | None,
        typer.Option(
            help="An audit log, to list each key's last use in it too; - for standard input; may "
            "be given several times."
        ),
    ] = None,
) -> None:
    """List the keys of the file."""
    from wanwu.cli.packages import needs

    with needs("gateway"):
        from wanwu.gateway.keys import last_uses, read_keys

    used = last_uses(line for log in audit or [] for line in log)
    now = datetime.now(timezone.utc)
    for key in read_keys(file).keys:
        state = padded(translate(key.state(now)), 8)
        scopes = padded(",".join(key.scopes), 22)
        rate = f"{key.rate or '-':12}" + (f"  {_minute(used.get(key.id)):17}" if audit else "")
        typer.echo(f"{key.id}  {state}  {_minute(key.expires):17}  {scopes}  {rate}  {key.name}")


@app.command()
def rotate(
    which: Annotated[str, typer.Argument(metavar="ID-OR-NAME", help="The key to rotate.")],
    file: File = DEFAULT_FILE,
    grace_hours: Annotated[
        float,
        typer.Option(min=0.0, max=8760.0, help="Hours that the old secret is still taken."),
    ] = 24.0,
) -> None:
    """Make another secret for a key, and print it: it is shown this once.

    The new key has the old one's name, scopes, rate and length of life. Of the two, each has its
    own id.
    """
    from wanwu.cli.packages import needs

    with needs("gateway"):
        from wanwu.gateway.audit.acts import audited
        from wanwu.gateway.keys import rotate_key

    with audited("keys.rotate", file, which=which, grace_hours=grace_hours) as act:
        old, new, token = rotate_key(file, which, timedelta(hours=grace_hours))
        act.update(id=new.id, name=new.name, old_id=old.id)
    tell("key {0} of {1} ends at {2}", old.id, old.name, _minute(old.expires), err=True)
    tell("key {0} for {1} in {2}; it is shown this once:", new.id, new.name, file, err=True)
    typer.echo(token)


@app.command()
def revoke(
    which: Annotated[str, typer.Argument(metavar="ID-OR-NAME", help="The key to revoke.")],
    file: File = DEFAULT_FILE,
) -> None:
    """Revoke a key. A running gateway refuses it within a second."""
    from wanwu.cli.packages import needs

    with needs("gateway"):
        from wanwu.gateway.audit.acts import audited
        from wanwu.gateway.keys import revoke_key

    with audited("keys.revoke", file, which=which) as act:
        key = revoke_key(file, which)
        act.update(id=key.id, name=key.name)
    tell("revoked key {0} of {1}", key.id, key.name)


def _minute(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M}Z"
