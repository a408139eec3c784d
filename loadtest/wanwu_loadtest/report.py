"""The report of a load: a page that needs nothing else, the figures as JSON, and the picture."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

from wanwu_loadtest.plot import draw
from wanwu_loadtest.results import Results
from wanwu_loadtest.summary import HEAD, cells
from wanwu_loadtest.verdict import remarks

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True
)


def write_report(results: Results, folder: Path) -> None:
    """Write report.html, results.json and latency.png into a folder, which is made.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "latency.png"
    draw(results, picture)
    results.write(folder / "results.json")
    page = TEMPLATES.get_template("report.html").render(
        results=results,
        head=HEAD,
        rows=[cells(window) for window in results.windows],
        total=cells(results.total),
        remarks=remarks(results.total),
        picture=base64.b64encode(picture.read_bytes()).decode(),
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
