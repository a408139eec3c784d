"""Each example file on each Kubernetes: what it renders is valid, hardened and fits together."""

from __future__ import annotations

import re
import shutil
import subprocess

import jsonschema
import pytest
import yaml

from chart.rendering import CHART, CI_FILES, Object, containers_of, kinds, one, pods_of
from support.schemas import validate

VERSIONS = ("1.30", "1.33", "1.35", "1.37")
HOSTS = re.compile(r"\b(docker|gcr|ghcr|nvcr|quay)\.(io|com)\b|registry\.k8s|\.amazonaws\.com")

every_file = pytest.mark.parametrize("file", CI_FILES, ids=lambda file: file.stem)
every_version = pytest.mark.parametrize("version", VERSIONS)


def test_the_examples_are_those_that_the_readme_promises() -> None:
    names = {file.name.removesuffix("-values.yaml") for file in CI_FILES}
    assert names == {"default", "gpu", "cpu", "keda", "airgap", "tls", "mig"} | {"openshift", "k3s"}


@every_version
@every_file
def test_it_is_valid(render, file, version) -> None:
    for each in render(file, version):
        validate(each, version)


def test_a_gateway_api_route_is_valid(render) -> None:
    route = {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["a.internal"]}
    people = {"networkPolicy": {"gatewayFrom": [{"app": "edge"}]}}
    objects = render({"gateway": {"httpRoute": route}, **people})
    validate(one(objects, "HTTPRoute"))


@pytest.mark.parametrize(
    ("kind", "group", "spec"),
    [
        ("HTTPRoute", "gateway.networking.k8s.io/v1", {"parentRef": []}),
        ("ScaledObject", "keda.sh/v1alpha1", {"scaleTargetRef": {"name": "a"}, "triggers": {}}),
        ("PodMonitor", "monitoring.coreos.com/v1", {"selector": {}, "podMetricEndpoints": []}),
        ("PrometheusRule", "monitoring.coreos.com/v1", {"groups": [{"rules": []}]}),
        ("Certificate", "cert-manager.io/v1", {"secretName": "a"}),
    ],
)
def test_the_schemas_refuse_what_is_wrong(kind, group, spec) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate({"apiVersion": group, "kind": kind, "metadata": {}, "spec": spec})


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_an_image_volume_is_valid(render, version) -> None:
    image = {"repository": "models", "tag": "1"}
    for each in render({"repository": {"source": "image", "image": image}}, version):
        validate(each, version)


def test_names_that_look_like_something_else_stay_texts(render) -> None:
    values = {
        "nameOverride": "123",
        "repository": {"pvc": {"claimName": "123"}},
        "gateway": {"ingress": {"enabled": True, "host": "*.example.internal", "className": "on"}},
        "networkPolicy": {"gatewayFrom": [{"team": "1"}]},
    }
    for each in render(values):
        validate(each)


@pytest.mark.parametrize("helm", ["helm", "helm3"])
@every_file
def test_helm_finds_nothing_to_say(need, file, helm) -> None:
    program = shutil.which(helm)
    need(program is not None, helm)
    command = [str(program), "lint", "--strict", str(CHART), f"--values={file}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@every_file
def test_helm_3_renders_the_same(render, file) -> None:
    def stable(objects: list[Object]) -> list[str]:
        # Keys are made anew by each rendering.
        kept = [each for each in objects if each["kind"] != "Secret"]
        return sorted(yaml.safe_dump(each) for each in kept)

    assert stable(render(file, helm="helm3")) == stable(render(file))


@every_file
def test_every_container_is_hardened(render, file) -> None:
    for name, pod in pods_of(render(file)).items():
        assert pod["automountServiceAccountToken"] is False, name
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        user = yaml.safe_load(file.read_text(encoding="utf-8")).get("podUserId", 1000)
        assert security.get("runAsUser", 0) == user
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers_of(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, container["name"]
            assert "memory" in container["resources"]["limits"], container["name"]


@every_file
def test_a_pod_touches_nothing_of_its_node(render, file) -> None:
    for pod in pods_of(render(file)).values():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not [each for each in pod["volumes"] if "hostPath" in each]


@every_file
def test_every_mount_has_its_volume_and_every_volume_its_mount(render, file) -> None:
    objects = render(file)
    claims = {
        claim["metadata"]["name"]
        for each in objects
        if each["kind"] == "StatefulSet"
        for claim in each["spec"]["volumeClaimTemplates"]
    }
    for name, pod in pods_of(objects).items():
        volumes = {each["name"] for each in pod["volumes"]}
        mounts = {m["name"] for each in containers_of(pod) for m in each["volumeMounts"]}
        assert volumes <= mounts <= volumes | claims, name


@every_file
def test_every_image_comes_from_the_named_registry(render, file) -> None:
    text = yaml.safe_dump_all(render(file))
    images = re.findall(r"(?:image|reference): (\S+/\S+)", text)
    assert images
    assert all(image.startswith("registry.example.internal/") for image in images)
    assert not HOSTS.search(text)


def test_no_file_of_the_chart_names_a_public_registry() -> None:
    for path in CHART.rglob("*"):
        if path.is_file():
            assert not HOSTS.search(path.read_text(encoding="utf-8")), path


@every_file
def test_every_selector_finds_its_pods(render, file) -> None:
    objects = render(file)
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        if "template" in each.get("spec", {})
        else each["metadata"]["labels"]
        for each in objects
        if each["kind"] in ("Deployment", "StatefulSet", "Pod")
    ]
    for each in objects:
        selector = each.get("spec", {}).get("selector") or each.get("spec", {}).get("podSelector")
        if selector is None:
            continue
        wanted = selector.get("matchLabels", {}) if "matchLabels" in selector else selector
        assert any(wanted.items() <= have.items() for have in labels), each["metadata"]["name"]


@every_file
def test_every_object_says_what_it_is_of(render, file) -> None:
    for each in render(file):
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "wanwu", each["metadata"]["name"]
        assert labels["app.kubernetes.io/instance"] == "w"


@every_file
def test_a_scaler_starts_from_its_least(render, file) -> None:
    objects = render(file)
    scaled = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"]
        for each in objects
        if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    }
    for each in objects:
        scaler = scaled.get(each["metadata"]["name"])
        if scaler and each["kind"] in ("Deployment", "StatefulSet"):
            least = scaler.get("minReplicas", scaler.get("minReplicaCount"))
            assert each["spec"]["replicas"] == least


@every_file
def test_nothing_asks_for_rights_in_the_cluster(render, file) -> None:
    granting = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    assert not granting & kinds(render(file))
