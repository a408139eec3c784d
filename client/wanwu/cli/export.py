"""`wanwu export`: turn a model into ONNX towers and label banks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

INSTALL_EXPORT = "pip install 'wanwu[export]'"


def export(
    source: Annotated[str, typer.Argument(help="The model: `starter`.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", envvar="WANWU_MODEL_REPOSITORY", help="The model repository to fill."
        ),
    ] = Path("model_repository"),
) -> None:
    """Export a model into a Triton model repository, as its next version.

    The ONNX files are compared with PyTorch first; when they differ, nothing is published.
    Exporting the same model again changes nothing.
    """
    import time

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from wanwu.errors import InputError, SetupError

    if source != "starter":
        raise InputError(f"{source!r} is no model this release exports; expected `starter`")
    try:
        from wanwu_export.publish import publish
        from wanwu_export.starter import build_starter
    except ImportError as error:
        raise SetupError(
            f"exporting needs the package {error.name}; run: {INSTALL_EXPORT}"
        ) from error

    started = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("load weights")
        tower, banks = build_starter()
        published = publish(
            tower,
            banks,
            output,
            step=lambda text: progress.update(task, description=text),
        )
    seconds = time.monotonic() - started
    what = "unchanged, still" if published.unchanged else "published as"
    typer.echo(
        f"wanwu: {published.export.model.name} {what} version {published.version} in {output} "
        f"({seconds:.0f} s)"
    )
    for side, parity in published.export.parity.items():
        typer.echo(f"wanwu:   {side} tower against PyTorch: least cosine {parity.least_cosine:.7f}")
    for bank in banks:
        typer.echo(f"wanwu:   bank {bank.name}: {len(bank.concepts)} labels")
