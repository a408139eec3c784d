"""`wanwu doctor`: check a server from the outside in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from wanwu.cli.options import TimeoutS, Url

if TYPE_CHECKING:
    from wanwu.doctor import Finding


def doctor(url: Url = None, timeout_s: TimeoutS = None) -> None:
    """Check that a server answers, and answers right. Each line says ok, or what to do.

    A line with WARN does not make it fail.
    """
    from wanwu import Recognizer
    from wanwu.cli.language import translate
    from wanwu.doctor import examine

    failed = False
    with Recognizer(url, timeout_s=timeout_s) as recognizer:
        for finding in examine(recognizer):
            failed |= not finding.ok
            typer.echo(f"{_mark(finding)} {translate(finding.what)}: {translate(finding.detail)}")
    if failed:
        raise typer.Exit(1)


def _mark(finding: Finding) -> str:
    if not finding.ok:
        return typer.style("FAIL", fg="red")
    return typer.style("WARN", fg="yellow") if finding.warning else typer.style("ok  ", fg="green")
