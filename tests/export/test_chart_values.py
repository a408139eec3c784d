"""The values file that the chart takes says what the repository serves, after every change."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import yaml

from wanwu.repository import newest_release
from wanwu_export.banks import model_file
from wanwu_export.chart_values import VALUES
from wanwu_export.onnx_bank import read_bank
from wanwu_export.versions import remove_bank


def values_of(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((repository / VALUES).read_text(encoding="utf-8"))
    return found["model"]


def test_the_values_are_the_contracts(repository: Path) -> None:
    release = newest_release(repository)
    contract = read_bank(model_file(repository, release, "label_bank")).contract
    assert values_of(repository) == {
        "name": "wanwu-starter",
        "version": "1",
        "fingerprint": str(contract.fingerprint),
        "manifestSha256": hashlib.sha256((repository / "manifest.json").read_bytes()).hexdigest(),
        "image": {"height": contract.image.height, "width": contract.image.width},
        "text": {"maxLength": contract.text.max_length},
        "precision": {"image": "fp32", "text": "fp32"},
    }


def test_another_version_has_other_values(repository: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(repository, tmp_path / "model_repository")
    remove_bank(folder, "luxury")
    before, after = values_of(repository), values_of(folder)
    assert (before["version"], after["version"]) == ("1", "2")
    assert before["manifestSha256"] != after["manifestSha256"]
    assert before["fingerprint"] == after["fingerprint"]
