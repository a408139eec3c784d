"""`wanwu export`: turn a model into ONNX towers and label banks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanwu.catalog import Message
from wanwu.cli.language import padded, tell, translate
from wanwu.cli.options import Keep, Templates
from wanwu.cli.packages import need_export

if TYPE_CHECKING:
    from wanwu.contract import Precision
    from wanwu_export.banks import BankPlan
    from wanwu_export.dual_tower import DualTower

STARTER = "starter"
#: Templates of a checkpoint's built-in banks, which are 128,000 prompts under `zh`.
BUILT_IN_TEMPLATES = "zh-short"


def export(
    source: Annotated[
        str,
        typer.Argument(
            help="The model: `starter`, a folder, ORG/NAME on the hub, or modelscope:ORG/NAME."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", envvar="WANWU_MODEL_REPOSITORY", help="The model repository to fill."
        ),
    ] = Path("model_repository"),
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the hub's model.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 or int8; or for each tower: image=int8,text=fp32")
    ] = "fp32",
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels of a bank: .txt, .csv or .tsv. [1000 everyday things]"),
    ] = None,
    bank: Annotated[str, typer.Option(help="The name of that bank.")] = "default",
    templates: Templates = None,
    keep: Keep = 3,
    device: Annotated[
        str,
        typer.Option(
            help="Where the ONNX files run while they are compared: auto, cpu or gpu. "
            "What is published is the same."
        ),
    ] = "cpu",
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Read pickled weights where there are no safetensors."),
    ] = False,
) -> None:
    """Export a model into a Triton model repository, as its next version.

    Everything is read from the checkpoint's own files. The ONNX files are compared with the
    original first; when they answer otherwise, nothing is published. Banks that the repository
    has already are built anew for the model. Exporting the same model again changes nothing.
    """
    import time

    from wanwu.cli.progress import steps
    from wanwu.embedded.device import choose_device
    from wanwu.errors import InputError
    from wanwu.gateway.audit.acts import audited
    from wanwu.repository import MANIFEST

    need_export("publish")
    from wanwu_export.parity import report
    from wanwu_export.precision import read_precision
    from wanwu_export.publish import publish

    if source == STARTER and (revision is not None or allow_pickle):
        raise InputError("--revision and --allow-pickle are for checkpoints; leave them out")
    chosen = read_precision(precision)
    plans = _plans(source, labels, bank, templates)
    place = choose_device(device, None)
    if device == "auto":
        tell("device {0}: {1}", place.kind, place.why)
    started = time.monotonic()
    try:
        with (
            audited("export", output / MANIFEST, source=source, precision=precision) as act,
            steps() as progress,
        ):
            progress.step("load weights")
            tower = _load(source, revision, chosen, allow_pickle)
            published = publish(
                tower,
                plans,
                output,
                step=progress.step,
                progress=progress.count,
                keep=keep,
                gpu=place.why if place.kind == "gpu" else None,
            )
            act.update(version=published.version, fingerprint=str(published.release.fingerprint))
    except KeyboardInterrupt:
        tell("stopped; nothing was published", err=True)
        raise
    seconds = time.monotonic() - started
    release = published.release
    what = "unchanged, still" if published.unchanged else "published as"
    tell(
        "{0} {1} version {2} in {3} ({4} s)",
        release.model.name,
        what,
        published.version,
        output,
        f"{seconds:.0f}",
    )
    banks = [
        (Message("bank {0}", name), Message("{0} labels", f"{built.count:,}"))
        for name, built in release.banks.items()
    ]
    for compared, figure in (*report(release.parity), *banks):
        typer.echo(f"wanwu:   {padded(translate(compared), 19)}{translate(figure)}")


def _plans(source: str, labels: Path | None, bank: str, templates: str | None) -> list[BankPlan]:
    """Give the banks to build: the caller's own, or those that come with Wanwu."""
    from dataclasses import replace

    from wanwu.bank import bank_model
    from wanwu.errors import InputError
    from wanwu_export.banks import built_in_plans, file_plan
    from wanwu_export.templates import load_templates

    bank_model(bank)  # before the long work: is this a name a bank can have?
    chosen = None if templates is None else load_templates(templates)
    built_in = built_in_plans(None if source == STARTER else load_templates(BUILT_IN_TEMPLATES))
    if labels is None:
        if bank != "default":
            raise InputError("--bank {0} was given without --labels; name its label file", bank)
        return [replace(plan, templates=chosen or plan.templates) for plan in built_in]
    plan, notes = file_plan(labels, bank, chosen)
    for note in notes:
        tell(f"{labels}: {translate(note)}", err=True)
    others = [] if bank == "default" else built_in
    return [*(other for other in others if other.name != bank), plan]


def _load(source: str, revision: str | None, precision: Precision, allow_pickle: bool) -> DualTower:
    if source == STARTER:
        from wanwu_export.starter import build_starter

        return build_starter(precision)
    from wanwu_export.checkpoint.source import locate

    checkpoint = locate(source, revision=revision, allow_pickle=allow_pickle)
    from wanwu_export.checkpoint.model import load_checkpoint

    return load_checkpoint(checkpoint, precision)
