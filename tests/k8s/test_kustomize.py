"""What a cluster needs beside the chart: every folder builds, fits, and agrees with the chart."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.schemas import validate

K8S = Path(__file__).parents[2] / "k8s"
CHART = K8S.parent / "helm" / "wanwu"
FOLDERS = sorted(path.parent.name for path in K8S.glob("*/kustomization.yaml"))
README = (K8S / "README.md").read_text(encoding="utf-8")

Need = Callable[[bool, str], None]
Objects = list[dict[str, Any]]


def built(need: Need, folder: str) -> Objects:
    kubectl = shutil.which("kubectl")
    need(kubectl is not None, "kubectl")
    done = subprocess.run([kubectl, "kustomize", K8S / folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def rendered(need: Need, *words: str) -> Objects:
    helm = shutil.which("helm")
    need(helm is not None, "helm")
    command = [helm, "template", "x", CHART, "--namespace=wanwu", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def of_kind(objects: Objects, kind: str) -> Objects:
    return [each for each in objects if each["kind"] == kind]


def adapter_config() -> dict[str, Any]:
    return yaml.safe_load((K8S / "prometheus-adapter" / "config.yaml").read_text())


def test_there_are_folders() -> None:
    assert {"namespace", "prometheus-adapter", "dcgm", "kind"} <= set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_builds_and_fits_kubernetes_schema(need, folder: str) -> None:
    objects = built(need, folder)
    assert objects
    for each in objects:
        validate(each)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_container_of_a_folder_is_hardened(need, folder: str) -> None:
    for each in of_kind(built(need, folder), "Deployment"):
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_namespace_takes_restricted_pods_alone(need) -> None:
    (namespace,) = built(need, "namespace")
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_adapter_has_every_metric_that_the_charts_hpa_asks_for(need) -> None:
    objects = rendered(
        need,
        "--set=imageRegistry=registry.example.internal,repository.pvc.claimName=models",
        "--set=gateway.auth.keysSecret=keys,monitoring.enabled=true",
        "--set=autoscaling.driver=prometheus-adapter",
    )
    (hpa,) = (
        each
        for each in of_kind(objects, "HorizontalPodAutoscaler")
        if each["metadata"]["name"].endswith("-triton")
    )
    asked = {
        kind: {m[kind]["metric"]["name"] for m in hpa["spec"]["metrics"] if kind in m}
        for kind in ("pods", "external")
    }
    config = adapter_config()
    assert asked["pods"] == {rule["name"]["as"] for rule in config["rules"]}
    assert asked["external"] == {rule["name"]["as"] for rule in config["externalRules"]}


def test_the_adapter_reads_the_charts_recording_rules_alone(need) -> None:
    recorded = (CHART / "templates" / "monitoring" / "recording-rules.yaml").read_text()
    config = adapter_config()
    for rule in (*config["rules"], *config["externalRules"]):
        series = rule["seriesQuery"].partition("{")[0]
        assert f"record: {series}\n" in recorded


def test_an_outage_is_not_read_as_idleness(need) -> None:
    config = adapter_config()
    for rule in (*config["rules"], *config["externalRules"]):
        assert "vector(" not in rule["metricsQuery"]


def test_the_adapters_own_chart_is_told_the_same_rules() -> None:
    values = yaml.safe_load((K8S / "prometheus-adapter" / "values.yaml").read_text())
    config = adapter_config()
    assert values["rules"]["custom"] == config["rules"]
    assert values["rules"]["external"] == config["externalRules"]
    assert values["rules"]["default"] is False


def test_a_new_series_is_seen_within_a_scrape(need) -> None:
    (adapter,) = of_kind(built(need, "prometheus-adapter"), "Deployment")
    arguments = adapter["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--metrics-relist-interval=15s" in arguments
    values = yaml.safe_load((K8S / "prometheus-adapter" / "values.yaml").read_text())
    assert values["metricsRelistInterval"] == "15s"


def test_one_adapter_answers_while_another_is_moved(need) -> None:
    objects = built(need, "prometheus-adapter")
    (adapter,) = of_kind(objects, "Deployment")
    (budget,) = of_kind(objects, "PodDisruptionBudget")
    pods = adapter["spec"]["template"]
    selected = budget["spec"]["selector"]["matchLabels"]
    assert adapter["spec"]["replicas"] - budget["spec"]["maxUnavailable"] == 1
    assert adapter["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert selected.items() <= pods["metadata"]["labels"].items()
    (spread,) = pods["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == selected
    assert budget["metadata"]["namespace"] == adapter["metadata"]["namespace"]


def test_the_adapters_own_chart_makes_as_many(need) -> None:
    values = yaml.safe_load((K8S / "prometheus-adapter" / "values.yaml").read_text())
    (adapter,) = of_kind(built(need, "prometheus-adapter"), "Deployment")
    assert values["replicas"] == adapter["spec"]["replicas"]
    assert values["podDisruptionBudget"] == {"enabled": True, "maxUnavailable": 1}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_readme_names_every_namespace_that_a_folder_needs(need, folder: str) -> None:
    namespaces = {each["metadata"].get("namespace") for each in built(need, folder)}
    (row,) = (line for line in README.splitlines() if line.startswith(f"| `{folder}` |"))
    for namespace in namespaces - {None, "wanwu", "kube-system"}:
        assert f"`{namespace}`" in row.partition("|")[2], row
        assert f"kubectl create namespace {namespace}" in README


def test_every_readme_makes_the_namespace_alike() -> None:
    root = K8S.parent
    pages = [root / "README.md", root / "README.zh-CN.md", CHART / "README.md", K8S / "README.md"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "kubectl apply -k k8s/namespace" in text, page
        assert "create namespace wanwu" not in text, page


def test_the_adapter_may_look_up_pods_and_nothing_more(need) -> None:
    roles = of_kind(built(need, "prometheus-adapter"), "ClusterRole")
    rules = {role["metadata"]["name"]: role["rules"] for role in roles}
    (rule,) = rules["wanwu-prometheus-adapter"]
    assert (rule["resources"], rule["verbs"]) == (["namespaces", "pods"], ["get", "list", "watch"])


def test_dcgm_counts_what_the_rules_read(need) -> None:
    (config,) = of_kind(built(need, "dcgm"), "ConfigMap")
    lines = config["data"]["dcgm-metrics.csv"].splitlines()
    counted = {line.partition(",")[0] for line in lines if line and not line.startswith("#")}
    rules = "".join(path.read_text() for path in (CHART / "templates" / "monitoring").glob("*.tpl"))
    assert set(re.findall(r"DCGM_\w+", rules)) <= counted
    values = yaml.safe_load((K8S / "dcgm" / "values.yaml").read_text())
    assert values["dcgmExporter"]["config"]["name"] == config["metadata"]["name"]


def test_dcgms_series_keep_the_workloads_names_apart(need) -> None:
    (monitor,) = of_kind(built(need, "dcgm"), "ServiceMonitor")
    assert monitor["spec"]["endpoints"][0]["honorLabels"] is False


def test_the_trial_in_kind_renders_and_finds_its_models(need) -> None:
    objects = rendered(need, f"--values={K8S / 'kind' / 'values.yaml'}")
    text = yaml.safe_dump_all(objects)
    assert "nvidia.com/gpu" not in text
    claims = {
        each["metadata"]["name"] for each in of_kind(built(need, "kind"), "PersistentVolumeClaim")
    }
    assert claims == {"wanwu-models"}
    assert "claimName: wanwu-models" in text


def overlaid(need: Need, folder: Path, page: str, kind: str, name: str) -> dict[str, Any]:
    """Build the overlay of a folder that k8s/README.md shows; return the object of a kind."""
    (text,) = (
        each
        for each in re.findall(r"^```yaml\n(.+?)^```", README, re.M | re.S)
        if f"../../k8s/{page}]" in each
    )
    shutil.copytree(K8S / page, folder / "k8s" / page)
    mine = folder / "overlays" / "mine"
    mine.mkdir(parents=True)
    (mine / "kustomization.yaml").write_text(text)
    (found,) = of_kind(built(need, str(mine)), kind)
    assert found["metadata"]["name"] == name
    return found


def test_the_readmes_overlay_labels_dcgms_monitor(need, tmp_path: Path) -> None:
    found = overlaid(need, tmp_path, "dcgm", "ServiceMonitor", "wanwu-dcgm-exporter")
    assert found["metadata"]["labels"] == {"release": "NAME"}
    assert found["spec"]["selector"] == {"matchLabels": {"app": "nvidia-dcgm-exporter"}}


def test_the_readmes_overlay_leaves_the_adapters_user_to_the_cluster(need, tmp_path: Path) -> None:
    found = overlaid(need, tmp_path, "prometheus-adapter", "Deployment", "prometheus-adapter")
    security = found["spec"]["template"]["spec"]["securityContext"]
    assert "runAsUser" not in security
    assert security["runAsNonRoot"] is True


def test_no_image_names_a_registry(need) -> None:
    for folder in FOLDERS:
        for image in re.findall(
            r"^\s*(?:- )?image: (\S+)", yaml.safe_dump_all(built(need, folder)), re.M
        ):
            assert "." not in image.partition("/")[0].partition(":")[0], (folder, image)
