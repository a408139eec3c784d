"""Loads in a process of their own, as users start them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.gateway import start_gateway  # noqa: F401 - a fixture
from wanwu_loadtest.results import Results

PROGRAM = "from wanwu.cli import main; main()"


@dataclass
class Load:
    """A load that has ended."""

    code: int
    text: str
    folder: Path

    @property
    def results(self) -> Results:
        """What it measured."""
        return Results.read(self.folder / "results.json")


StartLoad = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_load(tmp_path: Path, need: Callable[[bool, str], None]) -> StartLoad:
    """Start `wanwu loadtest`; the report goes to tmp_path / "report"."""
    need(importlib.util.find_spec("locust") is not None, "locust: pip install 'wanwu[loadtest]'")

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("WANWU_")}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "loadtest", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env={**inherited, "WANWU_LOAD_REPORT": "report", **environment},
        )

    return start


@pytest.fixture
def load(start_load: StartLoad, tmp_path: Path) -> Callable[..., Load]:
    """Run a load to its end."""

    def run(*arguments: str, **environment: str) -> Load:
        process = start_load(*arguments, **environment)
        text, _ = process.communicate(timeout=120)
        return Load(process.returncode, text, tmp_path / "report")

    return run
