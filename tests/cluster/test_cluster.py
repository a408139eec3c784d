"""The chart in a real cluster: whatever KUBECONFIG names, kind or a control plane without a node.

    make test-cluster                      # needs helm, kubectl, and the right to make a namespace
    make test-cluster VALUES=mine.yaml NAMESPACE=mine

VALUES names images and models that the cluster has. What it names of claims and Secrets must be in
NAMESPACE: a claim cannot be copied. Tests install a release `wanwu` there and uninstall it; the
namespace stays, and so do the claims of the audit log. Without NAMESPACE they make a namespace of
their own, which is removed at the end.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.release import BASE, CHART, Cluster

EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))


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


def test_where_there_are_nodes_the_release_tests_itself(ready: Cluster) -> None:
    ready.helm("test", "wanwu")


def test_uninstalling_leaves_nothing_behind(installed: Cluster) -> None:
    installed.helm("uninstall", "wanwu", "--wait", "--timeout", "2m")
    left = [f"{each['kind']}/{each['metadata']['name']}" for each in installed.objects()]
    assert [name for name in left if not name.startswith("Pod/")] == []
