"""The archive for a cluster without internet: whole, checkable, and enough to install from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chart.cluster import cluster

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "k8s" / "airgap" / "bundle.py"


def bundle(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def archive(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "wanwu.tar.gz"
    (repository / "manifest.audit.jsonl").touch()
    done = bundle(path, "--models", repository)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return path


@pytest.fixture(scope="module")
def unpacked(archive: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(archive.parent, filter="data")
        return archive.parent / tar.getnames()[0]


def test_what_was_written_verifies(archive: Path) -> None:
    done = bundle(archive, "--verify")
    assert done.returncode == 0
    assert "are as they were written" in done.stdout


def test_who_changed_the_models_is_not_in_the_archive(unpacked: Path) -> None:
    assert [path.name for path in (unpacked / "model_repository").glob("manifest.*")] == [
        "manifest.json"
    ]


def test_the_sums_are_those_of_sha256sum(unpacked: Path) -> None:
    check = ["/usr/bin/sha256sum", "--quiet", "-c", "SHA256SUMS"]
    subprocess.run(check, cwd=unpacked, check=True)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("model_repository/manifest.json", "was changed"),
        ("LICENSE", "is missing"),
        ("extra", "was put there"),
    ],
)
def test_an_archive_that_was_changed_is_refused(
    archive: Path, unpacked: Path, tmp_path: Path, file: str, says: str
) -> None:
    folder = shutil.copytree(unpacked, tmp_path / unpacked.name)
    if says == "is missing":
        (folder / file).unlink()
    else:
        (folder / file).write_text("other")
    with tarfile.open(tmp_path / "changed.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(folder, folder.name)
    done = bundle(tmp_path / "changed.tar.gz", "--verify")
    assert done.returncode == 1
    assert f"{file}: {says}" in done.stderr


def test_an_archive_that_was_cut_short_is_refused(archive: Path, tmp_path: Path) -> None:
    with archive.open("rb") as file:
        (tmp_path / "cut.tar.gz").write_bytes(file.read(1_000_000))
    done = bundle(tmp_path / "cut.tar.gz", "--verify")
    assert done.returncode == 1
    assert "write it again: make bundle" in done.stderr


def test_the_gateway_installs_from_the_wheels_alone(unpacked: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {name: v for name, v in os.environ.items() if not name.startswith("PIP_")}
    subprocess.run(
        [
            *(python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--require-hashes"),
            *("--find-links", unpacked / "wheels", "-r", unpacked / "requirements/gateway.txt"),
        ],
        env=environment,
        check=True,
    )
    wanwu = python.with_name("wanwu")
    done = subprocess.run([wanwu, "gateway"], env={"PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nothing says who may call" in done.stderr


def test_the_sbom_names_every_wheel_and_every_model(unpacked: Path) -> None:
    found = json.loads((unpacked / "sbom.cdx.json").read_text())
    kinds = [component["type"] for component in found["components"]]
    assert found["bomFormat"] == "CycloneDX"
    assert kinds.count("library") == len(list((unpacked / "wheels").glob("*.whl")))
    assert kinds.count("container") == 4
    assert any(each["name"].endswith("image_encoder/1/model.onnx") for each in found["components"])


def test_the_list_of_images_has_those_that_others_make(unpacked: Path) -> None:
    lines = (unpacked / "images.txt").read_text().splitlines()
    listed = {line.partition(":")[0] for line in lines if not line.startswith("#")}
    named = {"nvidia/tritonserver", "wanwu/gateway", "prometheus-adapter", "amazon/aws-cli"}
    assert listed == named


def test_the_archive_says_how_it_is_installed(unpacked: Path) -> None:
    page = (unpacked / "k8s" / "README.md").read_text(encoding="utf-8")
    assert "sh k8s/airgap/install.sh install -f mine.yaml" in page
    assert not (unpacked / "Makefile").exists()


def test_a_repository_without_a_model_is_refused(tmp_path: Path) -> None:
    done = bundle(tmp_path / "a.tar.gz", "--models", tmp_path)
    assert done.returncode != 0
    assert "no exported model" in done.stderr
    assert not (tmp_path / "a.tar.gz").exists()


# Installing


@pytest.fixture
def old_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a cluster that is too old, has nothing and allows little; return its kubeconfig."""
    version = {"major": "1", "minor": "28", "gitVersion": "v1.28.3"}
    monkeypatch.setattr("chart.cluster.VERSION", version)
    with cluster(tmp_path) as (server, config):
        server.denied.add("create deployments.apps")
        yield config


@pytest.fixture
def install(unpacked: Path, tmp_path: Path, need) -> Any:
    for tool in ("helm", "kubectl"):
        need(shutil.which(tool) is not None, tool)
    values = tmp_path / "mine.yaml"
    values.write_text(
        "imageRegistry: registry.example.internal\ngateway: {auth: {keysSecret: wanwu-keys}}\n"
    )

    def run(action: str, kubeconfig: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", unpacked / "k8s/airgap/install.sh", action, "-f", values],
            env=os.environ | {"KUBECONFIG": str(kubeconfig), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_without_a_cluster_nothing_is_begun(install, tmp_path: Path) -> None:
    done = install("install", tmp_path / "none")
    assert done.returncode == 1
    assert "missing: a cluster: kubectl reaches none" in done.stderr
    assert "nothing was changed" in done.stderr


def test_all_that_a_cluster_lacks_is_told_at_once(install, old_cluster: Path) -> None:
    done = install("install", old_cluster)
    assert done.returncode == 1
    for what in (
        "Kubernetes 1.30 or later: the cluster has 1.28",
        "the right to create deployment.apps in namespace wanwu",
        "a default StorageClass",
        "a node that offers 1 nvidia.com/gpu",
    ):
        assert f"missing: {what}" in done.stderr
    assert "nothing was changed" in done.stderr


def test_a_damaged_bundle_is_not_installed(install, old_cluster: Path, unpacked: Path) -> None:
    path = unpacked / "LICENSE"
    before = path.read_bytes()
    path.write_bytes(before + b" ")
    done = install("check", old_cluster)
    path.write_bytes(before)
    assert "missing: files of the bundle as they were written: fetch it again" in done.stderr
