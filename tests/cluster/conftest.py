"""A namespace of the cluster that KUBECONFIG names, and a release of the chart in it."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from cluster.release import VALUES, Cluster, run


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    for tool in ("helm", "kubectl"):
        if shutil.which(tool) is None:
            pytest.skip(f"this machine has no {tool}")
    answer = subprocess.run(
        ["kubectl", "version", "--request-timeout=5s"], capture_output=True, text=True
    )
    if answer.returncode != 0:
        pytest.skip(f"kubectl reaches no cluster: {answer.stderr.strip().splitlines()[-1]}")
    if named := os.environ.get("NAMESPACE"):
        yield _given(Cluster(named))
        return
    found = Cluster(f"wanwu-test-{secrets.token_hex(4)}")
    run("kubectl", "create", "namespace", found.namespace)
    try:
        # The chart's pods must be let in by the strictest standard there is.
        level = "pod-security.kubernetes.io/enforce=restricted"
        run("kubectl", "label", "namespace", found.namespace, level)
        yield found
    finally:
        run("kubectl", "delete", "namespace", found.namespace, "--wait=false")


def _given(found: Cluster) -> Cluster:
    """Return a namespace of someone's own, unless a release is there that tests would change."""
    if found.helm("list", "--short", "--filter", "^wanwu$").strip():
        pytest.fail(
            f"NAMESPACE={found.namespace} has a release wanwu, which these tests would change and "
            "uninstall; choose a namespace without one"
        )
    return found


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Cluster]:
    cluster.upgrade()
    yield cluster
    cluster.helm("uninstall", "wanwu", "--ignore-not-found", "--wait", "--timeout", "5m")


@pytest.fixture
def ready(installed: Cluster) -> Cluster:
    """A release whose pods run: where there are nodes, and values with images for them."""
    if not run("kubectl", "get", "nodes", "-o", "name").strip():
        pytest.skip("the cluster has no node to run a pod on")
    if not VALUES:
        pytest.skip("no images to run: make test-cluster VALUES=mine.yaml NAMESPACE=mine")
    for component in ("triton", "gateway"):
        chosen = f"app.kubernetes.io/instance=wanwu,app.kubernetes.io/component={component}"
        for kind in ("deployment", "statefulset"):
            if installed.kubectl("get", kind, "-l", chosen, "-o", "name").strip():
                installed.kubectl("rollout", "status", kind, "-l", chosen, "--timeout=15m")
    return installed
