"""`wanwu repository`: the versions of a model repository."""

from __future__ import annotations

import shutil
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wanwu.catalog import Message, recognized
from wanwu.cli.language import padded, tell, translate
from wanwu.cli.options import Keep, ModelRepository, Url
from wanwu.cli.packages import need_export

if TYPE_CHECKING:
    from wanwu.repository import Manifest, Release

MODEL_REPOSITORY = Path("model_repository")
#: Puts what is told of a version under its time.
INDENT = " " * 12

app = typer.Typer(
    help="List, check, go back to, prune and load the versions of a model repository.",
    no_args_is_help=True,
)


class Format(str, Enum):
    """How the versions are printed."""

    table = "table"
    json = "json"


@app.command("list")
def list_versions(
    output_format: Annotated[Format, typer.Option("--format", help="Output.")] = Format.table,
    model_repository: ModelRepository = MODEL_REPOSITORY,
) -> None:
    """List the versions that are kept, newest first; * marks the one served."""
    import json

    manifest = _manifest(model_repository)
    versions = [
        _as_dict(number, manifest.releases[str(number)], served=number == manifest.newest)
        for number in _kept(manifest)
    ]
    on_disk = _disk_bytes(model_repository)
    if output_format is Format.json:
        listed = {"versions": versions, "bytes_on_disk": on_disk}
        typer.echo(json.dumps(listed, ensure_ascii=False, indent=2))
        return
    _print_versions(versions)
    tell("{0} on disk, where versions share what they have in common", _size(on_disk))


@app.command()
def verify(
    all_versions: Annotated[
        bool, typer.Option("--all", help="Check every version that is kept, not the newest alone.")
    ] = False,
    model_repository: ModelRepository = MODEL_REPOSITORY,
) -> None:
    """Check that every published file is as it was published, and that nothing else is served.

    Each problem is a line that says what to do, and the exit code is 1.
    """
    need_export("versions")
    from wanwu_export import versions

    problems = versions.verify(model_repository, all_versions=all_versions)
    for problem in problems:
        tell(problem, err=True, fg="red")
    if problems:
        raise typer.Exit(1)
    manifest = _manifest(model_repository)
    numbers = _kept(manifest) if all_versions else [manifest.newest]
    files = {name for number in numbers for name in manifest.releases[str(number)].files}
    what = (
        Message("version {0}", numbers[0])
        if len(numbers) == 1
        else Message("versions {0}", _joined(numbers))
    )
    tell("{0} files of {1} are as published", len(files), what)


@app.command()
def rollback(
    to: Annotated[
        int | None,
        typer.Option(
            "--to", min=1, help="The version to go back to. [the last that served something else]"
        ),
    ] = None,
    keep: Keep = 3,
    model_repository: ModelRepository = MODEL_REPOSITORY,
) -> None:
    """Publish what an older version served as the next version.

    Its files are checked first. Banks that are younger are kept.
    """
    from wanwu.cli.progress import steps
    from wanwu.gateway.audit.acts import audited
    from wanwu.repository import MANIFEST

    need_export("versions")
    from wanwu_export import versions

    with (
        audited("repository.rollback", model_repository / MANIFEST, to=to) as act,
        steps() as progress,
    ):
        done = versions.rollback(
            model_repository, to, keep=keep, step=progress.step, progress=progress.count
        )
        act.update(to=done.to, version=done.version)
    if done.unchanged:
        if done.version == done.to:
            tell("version {0} is what is served now; nothing was changed", done.version)
        else:
            tell(
                "version {0} has the same files as version {1}, and is what is served now; "
                "nothing was changed",
                done.version,
                done.to,
            )
        return
    tell("version {0} in {1} is what {2} was", done.version, model_repository, done.to)
    tell("`wanwu repository load` puts it into a running server")


@app.command()
def prune(keep: Keep = 3, model_repository: ModelRepository = MODEL_REPOSITORY) -> None:
    """Remove old versions, and what interrupted commands left behind."""
    from wanwu.gateway.audit.acts import audited
    from wanwu.repository import MANIFEST

    need_export("versions")
    from wanwu_export import versions

    before = _disk_bytes(model_repository)
    with audited("repository.prune", model_repository / MANIFEST, keep=keep) as act:
        removed = versions.prune(model_repository, keep)
        act["removed"] = list(map(str, removed))
    freed = before - _disk_bytes(model_repository)
    for folder in removed:
        tell("removed {0}", folder)
    kept = _joined(_kept(_manifest(model_repository)))
    what = Message("{0} freed", _size(freed)) if removed else "nothing to remove"
    tell("{0}; kept: {1}", what, kept)


@app.command()
def load(
    url: Url = None,
    admin_key: Annotated[
        str | None,
        typer.Option(help="The server's key. [WANWU_ADMIN_KEY, or the one `wanwu serve` keeps]"),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0.1, help="Seconds that loading one model may take.")
    ] = 600.0,
    model_repository: ModelRepository = MODEL_REPOSITORY,
) -> None:
    """Let a running Triton serve the newest version, without a restart.

    Clients go on meanwhile. The server must read the same model repository, under explicit model
    control as `wanwu serve` starts it.
    """
    from wanwu.gateway.audit.acts import audited
    from wanwu.loading import load_published
    from wanwu.repository import MANIFEST
    from wanwu.settings import Settings

    address = Settings.from_env(url=url, timeout_s=timeout_s).address.url
    with audited("repository.load", model_repository / MANIFEST, url=address) as act:
        changes = load_published(address, admin_key, model_repository, timeout_s)
        act["changes"] = list(map(str, changes))
    for change in changes:
        tell(change)
    if not changes:
        newest = _manifest(model_repository).newest
        tell("{0} serves version {1} already; nothing was changed", address, newest)


def _manifest(repository: Path) -> Manifest:
    from wanwu.repository import newest_release, read_manifest

    newest_release(repository)  # says what to do where there is none
    manifest = read_manifest(repository)
    assert manifest is not None  # noqa: S101 - it was read just now
    return manifest


def _kept(manifest: Manifest) -> list[int]:
    return sorted(map(int, manifest.releases), reverse=True)


def _as_dict(number: int, release: Release, *, served: bool) -> dict[str, Any]:
    """Give one version as plain values. The fingerprint is text: JSON numbers lose digits."""
    return {
        "version": number,
        "served": served,
        "published": release.published,
        "what": release.what,
        "model": release.model.name,
        "revision": release.model.revision,
        "fingerprint": str(release.fingerprint),
        "precision": {"image": release.precision.image, "text": release.precision.text},
        "banks": {name: bank.count for name, bank in release.banks.items()},
        "bytes": sum(file.bytes for file in release.files.values()),
    }


def _print_versions(versions: list[dict[str, Any]]) -> None:
    """Print three lines a version: 80 columns do not hold a model's name and its banks in one."""
    from rich.cells import cell_len

    heads = [translate(head) for head in ("version", "published (UTC)", "what", "size")]
    whats = [translate(recognized(version["what"])) for version in versions]
    width = max(map(cell_len, (heads[2], *whats)))
    number, published, what, size = heads
    head = f"{padded(number, 9)}{padded(published, 21)}{padded(what, width)}"
    typer.echo(f"   {head}  {size}")
    for version, what in zip(versions, whats, strict=True):
        mark = "*" if version["served"] else " "
        published = version["published"].replace("T", " ").removesuffix("Z")
        typer.echo(
            f"{mark}  {version['version']:<9}{published:<21}{padded(what, width)}  "
            f"{_size(version['bytes'])}"
        )
        typer.echo(f"{INDENT}{version['model']}, {_precision(version['precision'])}")
        typer.echo(f"{INDENT}{_banks(version['banks'])}")


def _precision(towers: dict[str, str]) -> str:
    return towers["image"] if len(set(towers.values())) == 1 else _pairs(towers, "=")


def _banks(counts: dict[str, int]) -> str:
    """Name the banks with their numbers of labels, or count them where the line would be broken."""
    named = _pairs(counts, " ")
    if len(INDENT) + len(named) <= shutil.get_terminal_size().columns:
        return named
    return translate(Message("{0} banks, {1} labels", len(counts), f"{sum(counts.values()):,}"))


def _pairs(values: dict[str, Any], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items())


def _joined(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _disk_bytes(repository: Path) -> int:
    """Give the size of a repository's files; those that versions share are counted once."""
    files = (path.stat() for path in repository.rglob("*") if path.is_file())
    return sum({(file.st_dev, file.st_ino): file.st_size for file in files}.values())
