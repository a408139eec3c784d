"""Every page of documentation: what is copied from it into a shell is one command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "k8s/**/*.md", "helm/**/*.md*", "client/**/*.md")
    for page in ROOT.glob(pattern)
)
FENCED = re.compile(r"^(```+).*?^\1 *$", re.M | re.S)
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.S)


def test_there_are_pages() -> None:
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {"README.md", "docs/runbook.md", "helm/wanwu/README.md.in", "k8s/README.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_command_in_a_line_is_broken_over_two(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    spans = [
        found[2] for paragraph in re.split(r"\n\s*\n", text) for found in SPAN.finditer(paragraph)
    ]
    assert [span for span in spans if "\n" in span] == []
