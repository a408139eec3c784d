"""The chart as the real helm renders it."""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.rendering import NEEDED, Object, merged, objects_of, run_helm
from wanwu.repository import newest_release

Render = Callable[..., list[Object]]
Refusal = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="session")
def render(need) -> Render:
    """Give the objects that some values make: a dict, or a file of folder ci."""

    @functools.cache
    def text(values: str, kube_version: str, helm: str) -> str:
        done = run_helm(yaml.safe_load(values), kube_version, helm)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rendered(
        values: dict[str, Any] | Path | None = None, kube_version: str = "1.35", helm: str = "helm"
    ) -> list[Object]:
        need(shutil.which(helm) is not None, helm)
        if isinstance(values, Path):
            written = values.read_text(encoding="utf-8")
        else:
            written = yaml.safe_dump(merged(NEEDED, values or {}))
        return objects_of(text(written, kube_version, helm))

    return rendered


@pytest.fixture(scope="session")
def refusal(need) -> Refusal:
    """Give what helm says to values that it refuses."""
    need(shutil.which("helm") is not None, "helm")

    def refused(values: dict[str, Any], kube_version: str = "1.35") -> str:
        done = run_helm(merged(NEEDED, values), kube_version)
        assert done.returncode != 0, "helm took values that do not fit together"
        return done.stderr

    return refused


@pytest.fixture(scope="session")
def model(repository: Path) -> dict[str, Any]:
    """What `wanwu export` writes into the values file beside the models."""
    from wanwu_export.banks import model_file
    from wanwu_export.onnx_bank import read_bank

    contract = read_bank(model_file(repository, newest_release(repository), "label_bank")).contract
    digest = hashlib.sha256((repository / "manifest.json").read_bytes()).hexdigest()
    return {
        "name": contract.model.name,
        "version": "1",
        "fingerprint": str(contract.fingerprint),
        "manifestSha256": digest,
        "image": {"height": contract.image.height, "width": contract.image.width},
        "text": {"maxLength": contract.text.max_length},
    }
