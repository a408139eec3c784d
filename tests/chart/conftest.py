"""The chart as the real helm renders it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.rendering import Object, run_helm

Render = Callable[..., list[Object]]
Refusal = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="session")
def render(need) -> Render:
    """Give the objects that some values make: a dict, or a file of folder ci."""

    def rendered(
        values: dict[str, Any] | Path | None = None, kube_version: str = "1.35", helm: str = "helm"
    ) -> list[Object]:
        need(shutil.which(helm) is not None, helm)
        done = run_helm(values or {}, kube_version, helm)
        assert done.returncode == 0, done.stderr
        return [each for each in yaml.safe_load_all(done.stdout) if each]

    return rendered


@pytest.fixture(scope="session")
def refusal(need) -> Refusal:
    """Give what helm says to values that it refuses."""
    need(shutil.which("helm") is not None, "helm")

    def refused(values: dict[str, Any], kube_version: str = "1.35") -> str:
        done = run_helm(values, kube_version)
        assert done.returncode != 0, "helm took values that do not fit together"
        return done.stderr

    return refused
