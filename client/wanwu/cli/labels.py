"""`wanwu labels`: the label banks of an exported model."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from wanwu.cli.language import tell, translate
from wanwu.cli.options import Keep, ModelRepository, Templates
from wanwu.cli.packages import need_export

MODEL_REPOSITORY = Path("model_repository")

app = typer.Typer(help="Build, list, show, compare and remove label banks.", no_args_is_help=True)


class Format(str, Enum):
    """How a command answers."""

    table = "table"
    json = "json"


class ListFormat(str, Enum):
    """How a list of labels is printed. A TSV file can be built again."""

    table = "table"
    tsv = "tsv"
    json = "json"


OutputFormat = Annotated[Format, typer.Option("--format", help="Output.")]


@app.command()
def build(
    file: Annotated[Path, typer.Argument(help="The labels: .txt, .csv or .tsv, in UTF-8.")],
    bank: Annotated[
        str | None,
        typer.Option("--bank", help="The bank's name, needed; `default` replaces the default one."),
    ] = None,
    templates: Templates = None,
    model_repository: ModelRepository = MODEL_REPOSITORY,
    keep: Keep = 3,
) -> None:
    """Embed a file of labels with the exported model and publish it as a bank.

    The towers stay as they are. A build that was stopped goes on from where it was.
    """
    import time

    from wanwu.bank import bank_model
    from wanwu.cli.progress import steps
    from wanwu.errors import InputError
    from wanwu.gateway.audit.acts import audited
    from wanwu.repository import MANIFEST

    need_export("label_banks")
    from wanwu_export import label_banks
    from wanwu_export.banks import file_plan
    from wanwu_export.templates import load_templates

    if bank is None:
        raise InputError(
            "the bank for {0} has no name; give one, such as `--bank {1}`, or `--bank default`, "
            "which replaces the default bank",
            file,
            _example(file),
        )
    bank_model(bank)  # is this a name a bank can have?
    plan, notes = file_plan(file, bank, None if templates is None else load_templates(templates))
    _print_notes(file, notes)
    resumed: int | None = None
    started = time.monotonic()

    def count(name: str, done: int, total: int) -> None:
        nonlocal resumed
        if resumed is None:
            resumed = done
            if done:
                tell(
                    "going on from an interrupted build: {0} of {1} labels are done",
                    f"{done:,}",
                    f"{total:,}",
                    err=True,
                )
        progress.count(name, done, total)

    try:
        with (
            audited(
                "labels.build", model_repository / MANIFEST, bank=bank, labels=str(file)
            ) as act,
            steps() as progress,
        ):
            built = label_banks.build(
                model_repository, plan, keep=keep, step=progress.step, progress=count
            )
            act["digest"] = built.release.banks[bank].digest
    except KeyboardInterrupt:
        tell("stopped; the same command goes on from here", err=True)
        raise
    seconds = time.monotonic() - started
    labels = built.release.banks[bank].count
    version = built.release.served[bank_model(bank)]
    what = "unchanged, still" if built.unchanged else "published as"
    tell(
        "bank {0} {1} version {2} in {3}: {4} labels in {5} s, {6} labels a second",
        bank,
        what,
        version,
        model_repository,
        f"{labels:,}",
        f"{seconds:.1f}",
        f"{(labels - (resumed or 0)) / seconds:,.0f}",
    )
    if not built.unchanged:
        tell("`wanwu repository load` puts it into a running server")


@app.command("list")
def list_banks(
    output_format: OutputFormat = Format.table,
    model_repository: ModelRepository = MODEL_REPOSITORY,
) -> None:
    """List the banks of a model repository."""
    from dataclasses import asdict

    need_export("label_banks")
    from wanwu.cli.label_tables import print_banks, print_json
    from wanwu_export.label_banks import summaries

    banks = summaries(model_repository)
    if output_format is Format.json:
        print_json([asdict(bank) for bank in banks])
    else:
        print_banks(banks)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The bank: NAME, or NAME@VERSION.")],
    output_format: Annotated[
        ListFormat, typer.Option("--format", help="Output; tsv can be built again.")
    ] = ListFormat.table,
    limit: Annotated[int | None, typer.Option(min=1, help="How many labels. [all]")] = None,
    model_repository: ModelRepository = MODEL_REPOSITORY,
) -> None:
    """Show the labels of a bank, with all that is known of them."""
    from dataclasses import asdict

    need_export("label_banks")
    from wanwu.cli.label_tables import print_concepts, print_json, print_tsv
    from wanwu_export.label_banks import published_concepts

    concepts = published_concepts(model_repository, name)
    shown = concepts[:limit]
    if output_format is ListFormat.json:
        print_json([asdict(concept) for concept in shown])
    elif output_format is ListFormat.tsv:
        print_tsv(shown)
    else:
        print_concepts(shown)
        if len(shown) < len(concepts):
            left = len(concepts) - len(shown)
            tell("{0} more labels are not shown: --limit {1}", f"{left:,}", limit, err=True)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="NAME, NAME@VERSION or a label file.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The same; what A became.")],
    output_format: OutputFormat = Format.table,
    model_repository: ModelRepository = MODEL_REPOSITORY,
) -> None:
    """Compare two lists of labels: + added, - removed, ~ changed."""
    need_export("label_banks")
    from wanwu.cli.label_tables import diff_as_dict, print_diff, print_json
    from wanwu_export import label_banks

    sides = []
    for side in (before, after):
        found = label_banks.read_list(model_repository, side)
        _print_notes(side, found.notes)
        sides.append(found.concepts)
    difference = label_banks.diff(*sides)
    if output_format is Format.json:
        print_json(diff_as_dict(difference))
    else:
        print_diff(difference)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The bank.")],
    model_repository: ModelRepository = MODEL_REPOSITORY,
    keep: Keep = 3,
) -> None:
    """Remove a bank for good, from every kept version too; no rollback brings it back.

    `wanwu labels show NAME --format tsv` saves its labels first.
    """
    from wanwu.gateway.audit.acts import audited
    from wanwu.repository import MANIFEST

    need_export("label_banks")
    from wanwu_export.versions import remove_bank

    with audited("labels.remove", model_repository / MANIFEST, bank=name):
        remove_bank(model_repository, name, keep)
    tell("bank {0} removed from {1}", name, model_repository)
    tell("`wanwu repository load` takes it out of a running server")


def _example(file: Path) -> str:
    """Give the file's name as a bank's name, where it can be one."""
    from wanwu.bank import bank_model
    from wanwu.errors import InputError

    try:
        bank_model(file.stem)
    except InputError:
        return "pets"
    return file.stem


def _print_notes(source: str | Path, notes: Iterable[str]) -> None:
    for note in notes:
        tell(f"{source}: {translate(note)}", err=True)
