"""What the Makefile would run, by the real make: models that are there are nobody's to replace."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXPORT = "wanwu export starter"


@pytest.fixture
def checkout(need, tmp_path: Path) -> Path:
    """Make a checkout whose models are older than everything else, as after `git pull`."""
    need(shutil.which("make") is not None, "make")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "mine.yaml").touch()
    for old, name in enumerate(
        ["client/wanwu/a.py", ".venv/.installed", "pyproject.toml", "constraints.txt"]
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (2_000 - old, 2_000 - old))
    models = tmp_path / "model_repository"
    models.mkdir()
    (models / "manifest.json").touch()
    os.utime(models / "manifest.json", (1_000, 1_000))
    return tmp_path


def would_run(checkout: Path, *words: str) -> str:
    # As from a shell, where these tests are run by make themselves.
    environment = {name: each for name, each in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-n", "--no-print-directory", *words]
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("target", ["bundle", "demo", "serve", "bench-load"])
def test_models_that_are_there_are_not_exported_again(checkout: Path, target: str) -> None:
    assert EXPORT not in would_run(checkout, target)


@pytest.mark.parametrize("target", ["bundle", "demo", "serve", "bench-load"])
def test_where_there_are_no_models_the_starter_is_exported(checkout: Path, target: str) -> None:
    (checkout / "model_repository" / "manifest.json").unlink()
    assert EXPORT in would_run(checkout, target)


def test_an_export_that_is_named_is_done(checkout: Path) -> None:
    assert EXPORT in would_run(checkout, "export")


def test_deploying_needs_neither_models_nor_an_environment(checkout: Path) -> None:
    shutil.rmtree(checkout / "model_repository")
    shutil.rmtree(checkout / ".venv")
    planned = would_run(checkout, "deploy", "VALUES=mine.yaml")
    assert planned.splitlines()[-1] == 'sh k8s/airgap/install.sh install -f "mine.yaml"'
    assert EXPORT not in planned
    assert "pip install" not in planned
