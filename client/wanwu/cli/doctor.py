"""`wanwu doctor`: check a server from the outside in."""

from __future__ import annotations

import typer

from wanwu.cli.options import TimeoutS, Url


def doctor(url: Url = None, timeout_s: TimeoutS = None) -> None:
    """Check that a server answers, and answers right. Each line says ok, or what to do."""
    from wanwu import Recognizer
    from wanwu.cli.language import translate
    from wanwu.doctor import examine

    failed = False
    with Recognizer(url, timeout_s=timeout_s) as recognizer:
        for finding in examine(recognizer):
            failed |= not finding.ok
            mark = typer.style("ok  ", fg="green") if finding.ok else typer.style("FAIL", fg="red")
            typer.echo(f"{mark} {translate(finding.what)}: {translate(finding.detail)}")
    if failed:
        raise typer.Exit(1)
