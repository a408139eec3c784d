"""What a real helm keeps over an upgrade, and takes from a cluster when it only renders."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from chart.cluster import KINDS, KeptObjects, cluster
from chart.rendering import CHART, NAME, NAMESPACE, NEEDED, RELEASE, Object, merged, nested, one

Helm = Callable[..., str]
KEYS = f"{NAME}-keys"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[KeptObjects, Path]]:
    with cluster(tmp_path) as found:
        yield found


@pytest.fixture(params=["helm", "helm3"])
def helm(request, need, served, tmp_path: Path) -> Helm:
    """Run a verb of helm over the chart, and give what it prints."""
    program = shutil.which(request.param)
    need(program is not None, request.param)

    def run(*verb: str, values: Object | None = None, refused: bool = False) -> str:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(merged(NEEDED, values or {})))
        command = [str(program), *verb, RELEASE, str(CHART), f"--values={file}"]
        command += [f"--namespace={NAMESPACE}", f"--kubeconfig={served[1]}"]
        command += ["--disable-openapi-validation"]  # the cluster here has no schemas
        homes = {f"HELM_{each}_HOME": str(tmp_path) for each in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | homes)
        assert (done.returncode != 0) == refused, done.stderr
        return done.stderr if refused else done.stdout

    return run


def test_an_upgrade_keeps_the_keys(helm: Helm, served) -> None:
    helm("install")
    first = dict(served[0].secret(NAMESPACE, KEYS)["data"])
    assert set(first) == {"admin", "inference"}
    changed = nested("triton.batching.maxBatchSize", 8)
    helm("upgrade", values=changed)
    config = served[0].kept[f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}-triton"]
    assert "max_batch_size: 8" in config["data"]["image_encoder.pbtxt"]
    assert served[0].secret(NAMESPACE, KEYS)["data"] == first


SCALED = {
    "autoscaling": {"minReplicas": 3, "maxReplicas": 9},
    "gateway": {"autoscaling": {"minReplicas": 3}},
}
UNSCALED = merged(
    nested("autoscaling.driver", "none"), nested("gateway.autoscaling.enabled", False)
)


def deployment(served, component: str) -> Object:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}-{component}"
    found: Object = served[0].kept[path]
    return found


@pytest.mark.parametrize("component", ["triton", "gateway"])
@pytest.mark.parametrize("before", [UNSCALED, SCALED], ids=["scaler turned on", "scaler goes on"])
@pytest.mark.parametrize(("live", "kept"), [(6, 6), (1, 3), (0, 3)])
def test_an_upgrade_keeps_the_live_number_of_pods(
    helm: Helm, served, before, component, live, kept
) -> None:
    helm("install", values=before)
    deployment(served, component)["spec"]["replicas"] = live
    helm("upgrade", values=merged(SCALED, nested("triton.batching.maxBatchSize", 8)))
    assert deployment(served, component)["spec"]["replicas"] == kept


def test_an_upgrade_keeps_the_pods_of_a_gateway_with_claims(helm: Helm, served) -> None:
    audited = merged(SCALED, nested("gateway.audit.mode", "pvc"))
    helm("install", values=audited)
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/{NAME}-gateway"
    served[0].kept[path]["spec"]["replicas"] = 5
    helm("upgrade", values=audited)
    assert served[0].kept[path]["spec"]["replicas"] == 5


def test_a_fleet_above_the_scalers_most_is_brought_to_it(helm: Helm, served) -> None:
    helm("install", values=SCALED)
    deployment(served, "triton")["spec"]["replicas"] = 12
    helm("upgrade", values=SCALED)
    assert deployment(served, "triton")["spec"]["replicas"] == 9


def test_the_notes_say_what_scaling_still_needs(helm: Helm) -> None:
    found = helm("install", values=SCALED)
    assert "Triton scales from 3 to 9 pods by GPU utilization, P95 latency and queue time" in found
    assert "its pods stays as it is until the cluster has:\n- the Prometheus operator" in found
    assert "external.metrics.k8s.io/v1beta1: kubectl apply -k k8s/prometheus-adapter" in found
    assert "monitoring.labels is empty" not in found


def test_where_all_is_there_the_notes_ask_for_nothing(helm: Helm, monkeypatch) -> None:
    operator = ["PodMonitor", "PrometheusRule"]
    monkeypatch.setitem(KINDS, "monitoring.coreos.com/v1", operator)
    for group in ("custom", "external"):
        monkeypatch.setitem(KINDS, f"{group}.metrics.k8s.io/v1beta1", ["MetricValue"])
    found = helm("install", values=SCALED)
    assert "until the cluster has" not in found
    assert "monitoring.labels is empty: a Prometheus that selects PodMonitors by label" in found


def test_a_rendering_that_asks_the_cluster_keeps_the_keys_too(helm: Helm, served) -> None:
    helm("install")
    first = served[0].secret(NAMESPACE, KEYS)["data"]
    objects = list(yaml.safe_load_all(helm("template", "--dry-run=server")))
    assert one(objects, "Secret", "-keys")["data"] == first


def test_a_rendering_without_the_cluster_makes_new_ones(helm: Helm, served) -> None:
    helm("install")
    first = served[0].secret(NAMESPACE, KEYS)["data"]
    objects = list(yaml.safe_load_all(helm("template")))
    assert one(objects, "Secret", "-keys")["data"] != first


def test_a_key_that_is_missing_is_added_and_the_other_kept(helm: Helm, served) -> None:
    helm("install")
    kept = served[0].secret(NAMESPACE, KEYS)["data"]
    admin = kept["admin"]
    del kept["inference"]
    helm("upgrade")
    after = served[0].secret(NAMESPACE, KEYS)["data"]
    assert after["admin"] == admin
    assert len(after["inference"]) == 56


AUDIT = {mode: nested("gateway.audit.mode", mode) for mode in ("stdout", "pvc")}
WORKLOADS = {"stdout": "deployment", "pvc": "statefulset"}


def workloads(server: KeptObjects) -> set[str]:
    """Return the kinds that the gateway runs as."""
    folder = f"/apis/apps/v1/namespaces/{NAMESPACE}"
    return {
        each for each in WORKLOADS.values() if f"{folder}/{each}s/{NAME}-gateway" in server.kept
    }


@pytest.mark.parametrize(("before", "after"), [("stdout", "pvc"), ("pvc", "stdout")])
def test_a_switch_of_the_audit_mode_keeps_what_answers(helm: Helm, served, before, after) -> None:
    old, new = WORKLOADS[before], WORKLOADS[after]
    helm("install", values=AUDIT[before])
    refusal = helm("upgrade", values=AUDIT[after], refused=True)
    assert workloads(served[0]) == {old}
    (command,) = re.findall(r"`(kubectl .+?)`", refusal.replace("\n", " "))
    config = {"KUBECONFIG": str(served[1])}
    subprocess.run(shlex.split(command), env=os.environ | config, check=True)
    helm("upgrade", values=AUDIT[after])
    assert workloads(served[0]) == {old, new}
    del served[0].kept[f"/apis/apps/v1/namespaces/{NAMESPACE}/{old}s/{NAME}-gateway"]
    helm("upgrade", values=AUDIT[after])
    assert workloads(served[0]) == {new}
