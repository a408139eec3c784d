"""Where `make test-cluster` works: a namespace of its own, or the one that NAMESPACE names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chart.cluster import KeptObjects, cluster
from chart.rendering import ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]
#: Stands before helm, for the cluster here has no schemas, and sees no object go.
STANDS_IN = """#!/bin/sh
case "$*" in
  *' upgrade '*) exec {helm} "$@" --disable-openapi-validation ;;
  *' uninstall '*) exec {helm} -n "$2" uninstall wanwu --ignore-not-found ;;
esac
exec {helm} "$@"
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[KeptObjects, Path]]:
    with cluster(tmp_path) as (server, config):
        mine = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mine"}}
        server.kept["/api/v1/namespaces/mine"] = mine
        yield server, config


@pytest.fixture
def run(need, served, tmp_path: Path) -> Run:
    """Run one of the cluster's tests there."""
    helm = shutil.which("helm")
    need(bool(helm and shutil.which("kubectl")), "helm and kubectl")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "helm").write_text(STANDS_IN.replace("{helm}", str(helm)))
    (tmp_path / "bin" / "helm").chmod(0o755)

    def tested(**environment: str) -> subprocess.CompletedProcess[str]:
        homes = {f"HELM_{each}_HOME": str(tmp_path) for each in ("CACHE", "CONFIG", "DATA")}
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, "-m", "pytest", "tests/cluster/test_cluster.py"]
        return subprocess.run(
            [*command, "-k", "an_upgrade_of_the_batching", "-p", "no:cacheprovider"],
            env=os.environ | homes | {"PATH": path, "KUBECONFIG": str(served[1]), **environment},
            capture_output=True,
            text=True,
            cwd=ROOT,
        )

    return tested


def left(server: KeptObjects) -> list[str]:
    return sorted(path for path in server.kept if path.startswith("/api/v1/namespaces/"))


def test_without_a_name_the_tests_make_a_namespace_and_remove_it(run: Run, served) -> None:
    done = run()
    assert "1 passed" in done.stdout, done.stdout
    assert left(served[0])[0] == "/api/v1/namespaces/mine"
    assert not [path for path in left(served[0]) if path.count("/") == 4 and "wanwu-test" in path]


def test_a_namespace_that_is_named_stays_with_its_secrets(run: Run, served) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}}
    served[0].kept["/api/v1/namespaces/mine/secrets/keys"] = secret
    done = run(NAMESPACE="mine")
    assert "1 passed" in done.stdout, done.stdout
    assert left(served[0]) == ["/api/v1/namespaces/mine", "/api/v1/namespaces/mine/secrets/keys"]


def test_a_release_that_is_there_is_not_touched(run: Run, served) -> None:
    path = "/api/v1/namespaces/mine"
    helm = shutil.which("helm")
    values = "imageRegistry=r,gateway.auth.keysSecret=k,repository.pvc.claimName=m"
    command = [helm, "install", "wanwu", ROOT / "helm" / "wanwu", "-n", "mine", f"--set={values}"]
    config = {"KUBECONFIG": str(served[1])}
    subprocess.run(
        [*command, "--disable-openapi-validation"],
        env=os.environ | config,
        capture_output=True,
        check=True,
    )
    before = left(served[0])
    done = run(NAMESPACE="mine")
    assert "NAMESPACE=mine has a release wanwu, which these tests would change" in done.stdout
    assert left(served[0]) == before
    assert path in before
