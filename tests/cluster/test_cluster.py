"""The chart in a real cluster: whatever KUBECONFIG names, kind or a control plane without a node.

    make test-cluster                      # needs helm, kubectl, and the right to make a namespace
    make test-cluster VALUES=mine.yaml     # with images and models that the cluster has

Every test works in one namespace of its own, which is removed at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "helm" / "wanwu"
EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))
KINDS = "deployments,statefulsets,services,configmaps,secrets,serviceaccounts,poddisruptionbudgets"
KINDS += ",networkpolicies,horizontalpodautoscalers,ingresses,pods,jobs,roles,rolebindings"
#: Without values of one's own, the objects are made and their images are nowhere.
VALUES = os.environ.get("VALUES")
NOWHERE = (
    *("--set", "imageRegistry=registry.example.internal", "--set", "gateway.auth.keysSecret=keys"),
    *("--set", "repository.pvc.claimName=models", "--set", "triton.profile=cpu"),
)
BASE = ("-f", VALUES) if VALUES else NOWHERE


@dataclass(frozen=True)
class Cluster:
    """A namespace of a cluster."""

    namespace: str

    def kubectl(self, *arguments: str, given: str = "", check: bool = True) -> str:
        return _run("kubectl", "-n", self.namespace, *arguments, given=given, check=check)

    def helm(self, *arguments: str, check: bool = True) -> str:
        return _run("helm", "-n", self.namespace, *arguments, check=check)

    def objects(self) -> list[dict[str, Any]]:
        """Give what there is of the release, of every kind that a chart makes."""
        chosen = ("-l", "app.kubernetes.io/instance=wanwu", "-o", "json")
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", KINDS, *chosen))["items"]
        return items

    def deployment(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.kubectl("get", "deployment", "wanwu-triton", "-o", "json")
        )
        return found


def _run(*command: str, given: str = "", check: bool = True) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=1000)
    assert not check or done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout + ("" if done.returncode == 0 else done.stderr)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    for tool in ("helm", "kubectl"):
        if shutil.which(tool) is None:
            pytest.skip(f"this machine has no {tool}")
    answer = subprocess.run(
        ["kubectl", "version", "--request-timeout=5s"], capture_output=True, text=True
    )
    if answer.returncode != 0:
        pytest.skip(f"kubectl reaches no cluster: {answer.stderr.strip().splitlines()[-1]}")
    found = Cluster(f"wanwu-test-{secrets.token_hex(4)}")
    _run("kubectl", "create", "namespace", found.namespace)
    try:
        # The chart's pods must be let in by the strictest standard there is.
        level = "pod-security.kubernetes.io/enforce=restricted"
        _run("kubectl", "label", "namespace", found.namespace, level)
        yield found
    finally:
        _run("kubectl", "delete", "namespace", found.namespace, "--wait=false")


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    cluster.helm("install", "wanwu", str(CHART), *BASE)
    return cluster


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_cluster_takes_every_object_of_an_example(cluster: Cluster, example: Path) -> None:
    served = set(cluster.kubectl("api-versions").split())
    rendered = cluster.helm("template", "wanwu", str(CHART), "-f", str(example))
    objects = [each for each in yaml.safe_load_all(rendered) if each]
    known = [each for each in objects if each["apiVersion"] in served]
    unknown = {each["apiVersion"] for each in objects} - served
    given = yaml.safe_dump_all(known)
    cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", given=given)
    if unknown:
        pytest.skip(f"all else is taken, but this cluster serves no {', '.join(sorted(unknown))}")


def test_it_installs_and_its_pods_are_let_in(installed: Cluster) -> None:
    kinds = {each["kind"] for each in installed.objects()}
    assert {"Deployment", "Service", "ConfigMap", "Secret", "NetworkPolicy"} <= kinds
    warned = installed.kubectl("get", "events", "-o", "jsonpath={.items[*].message}")
    assert "violates PodSecurity" not in warned


def test_an_upgrade_of_the_batching_rolls_out_and_keeps_the_keys(installed: Cluster) -> None:
    before = installed.deployment()["spec"]["template"]
    keys = installed.kubectl("get", "secret", "wanwu-keys", "-o", "jsonpath={.data}")
    changed = ("--set", "triton.batching.queueDelayUs=2345")
    installed.helm("upgrade", "wanwu", str(CHART), *BASE, *changed)
    config = installed.kubectl("get", "configmap", "wanwu-triton", "-o", "yaml")
    assert "max_queue_delay_microseconds: 2345" in config
    assert installed.deployment()["spec"]["template"] != before
    assert installed.kubectl("get", "secret", "wanwu-keys", "-o", "jsonpath={.data}") == keys
    installed.helm("rollback", "wanwu", "1")
    assert installed.deployment()["spec"]["template"] == before


def test_its_pods_may_do_nothing_in_the_cluster(installed: Cluster) -> None:
    assert not [each for each in installed.objects() if each["kind"].startswith("Role")]
    names = "jsonpath={.items[*].metadata.name}"
    accounts = installed.kubectl("get", "serviceaccounts", "-o", names)
    for account in accounts.split():
        who = f"--as=system:serviceaccount:{installed.namespace}:{account}"
        for verb, what in (("get", "secrets"), ("create", "pods"), ("list", "nodes")):
            answer = installed.kubectl("auth", "can-i", verb, what, who, check=False)
            assert answer.split()[0] == "no", (account, verb, what)


def test_where_there_are_nodes_the_release_tests_itself(installed: Cluster) -> None:
    if not _run("kubectl", "get", "nodes", "-o", "name").strip():
        pytest.skip("the cluster has no node to run a pod on")
    if not VALUES:
        pytest.skip("no images to run: give VALUES=mine.yaml, with a registry that has them")
    for name in ("wanwu-triton", "wanwu-gateway"):
        installed.kubectl("rollout", "status", f"deployment/{name}", "--timeout=15m")
    installed.helm("test", "wanwu", "--logs")


def test_uninstalling_leaves_nothing_behind(installed: Cluster) -> None:
    installed.helm("uninstall", "wanwu", "--wait", "--timeout", "2m")
    left = [f"{each['kind']}/{each['metadata']['name']}" for each in installed.objects()]
    assert [name for name in left if not name.startswith("Pod/")] == []
