"""k8s/airgap/install.sh as users with few rights: what they may not look at is not missing."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from cluster.release import NOWHERE, ROOT, Cluster, run

Check = Callable[..., list[str]]
MISSING = "missing: a node that offers 1 nvidia.com/gpu"
VALUES = (
    *(*NOWHERE, "--set", "triton.profile=gpu"),
    *("--set", "gateway.auth.keysSecret=wanwu-test-none"),
)


@contextmanager
def user_of(cluster: Cluster, role: str) -> Iterator[str]:
    """Grant a user a role in the namespace, for as long as the block runs."""
    user = f"wanwu-test-{role}"
    may_look = ("auth", "can-i", "get", "pods", f"--as={user}")
    cluster.kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}")
    try:
        # The API server learns of it a moment later.
        while not cluster.kubectl(*may_look, check=False).startswith("yes"):
            time.sleep(0.2)
        yield user
    finally:
        cluster.kubectl("delete", "rolebinding", user)


@pytest.fixture
def check(cluster: Cluster, tmp_path: Path) -> Check:
    """Return what the script's check says to the user of KUBECONFIG, or to another."""

    def checked(user: str = "") -> list[str]:
        config = yaml.safe_load(run("kubectl", "config", "view", "--raw", "--minify", "--flatten"))
        if user:
            config["users"][0]["user"]["as"] = user
        file = tmp_path / "kubeconfig"
        file.touch(0o600)
        file.write_text(yaml.safe_dump(config))
        done = subprocess.run(
            ["sh", ROOT / "k8s" / "airgap" / "install.sh", "check", *VALUES],
            env=os.environ | {"KUBECONFIG": str(file), "NAMESPACE": cluster.namespace},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.stderr.splitlines()

    return checked


def begin(lines: list[str], start: str) -> list[str]:
    return [line for line in lines if line.startswith(start)]


def test_a_user_of_one_namespace_misses_no_node(cluster: Cluster, check: Check) -> None:
    with user_of(cluster, "edit") as user:
        lines = check(user)
    assert begin(lines, "not checked: a node that offers 1 nvidia.com/gpu")
    assert not begin(lines, "missing: a node")
    assert begin(lines, "missing: Secret/wanwu-test-none in namespace")
    assert not begin(lines, "missing: the right to create deployment.apps")


def test_who_may_look_at_nodes_learns_whether_one_has_a_gpu(check: Check) -> None:
    nodes = json.loads(run("kubectl", "get", "nodes", "-o", "json"))["items"]
    offered = any(int(each["status"]["allocatable"].get("nvidia.com/gpu", 0)) for each in nodes)
    assert bool(begin(check(), MISSING)) == (not offered)


def test_a_user_who_may_only_look_misses_the_rights(cluster: Cluster, check: Check) -> None:
    with user_of(cluster, "view") as user:
        lines = check(user)
    for kind in ("deployment.apps", "networkpolicy.networking.k8s.io", "secret", "pod"):
        # Of helm 4 an install wants to patch too.
        denied = (
            f"missing: the right to {verbs} {kind} in" for verbs in ("create", "create, patch")
        )
        assert any(begin(lines, each) for each in denied), kind
    # That role reads no Secret.
    assert begin(lines, "not checked: Secret/wanwu-test-none in namespace")
