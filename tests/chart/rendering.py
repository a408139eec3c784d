"""Runs the real helm over the chart, and finds objects in what it renders."""

from __future__ import annotations

import copy
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "wanwu"
CI_FILES = sorted((CHART / "ci").glob("*-values.yaml"))
RELEASE, NAMESPACE = "w", "vision"
NAME = f"{RELEASE}-wanwu"

#: The least that an install needs.
NEEDED: dict[str, Any] = {
    "imageRegistry": "registry.example.internal",
    "repository": {"pvc": {"claimName": "models"}},
    "gateway": {"auth": {"keysSecret": "keys"}},
}
#: What `wanwu export` writes beside the models.
MODEL: dict[str, Any] = {
    "name": "tiny",
    "version": "2",
    "fingerprint": "4611686018427387904",
    "image": {"height": 224, "width": 200},
    "text": {"maxLength": 52},
}

Object = dict[str, Any]


def nested(path: str, value: Any) -> dict[str, Any]:
    """Give {"a": {"b": value}} for "a.b"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    found: dict[str, Any] = value
    return found


def merged(*trees: dict[str, Any]) -> dict[str, Any]:
    """Give values with those of later trees over those of earlier ones."""
    whole: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            before = whole.get(key)
            if isinstance(value, dict) and isinstance(before, dict):
                whole[key] = merged(before, value)
            else:
                whole[key] = copy.deepcopy(value)
    return whole


def run_helm(
    values: dict[str, Any], kube_version: str = "1.35", helm: str = "helm"
) -> subprocess.CompletedProcess[str]:
    """Render the chart."""
    program = shutil.which(helm)
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        command = [program, "template", RELEASE, str(CHART), f"--namespace={NAMESPACE}"]
        command += [f"--values={file}", f"--kube-version={kube_version}"]
        return subprocess.run(command, capture_output=True, text=True)


def objects_of(text: str) -> list[Object]:
    """Read what helm printed, by the loader that takes a tenth of the time where it is there."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [each for each in yaml.load_all(text, loader) if each]


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    """Give the one object of a kind, or of a kind and a name's ending."""
    found = [
        each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(name)
    ]
    assert len(found) == 1, f"{len(found)} objects are a {kind} {name}"
    return found[0]


def kinds(objects: list[Object], component: str = "") -> set[str]:
    """Give the kinds of a component's objects."""
    key = "app.kubernetes.io/component"
    return {
        each["kind"]
        for each in objects
        if component in ("", each["metadata"].get("labels", {}).get(key))
    }


def of_release(release: str) -> dict[str, Any]:
    """Return values for a release of Triton, whatever is known of it."""
    return {"triton": {"image": {"release": release}, "acceptKnownVulnerabilities": True}}


def pod_of(thing: Object) -> Object:
    """Give the pod's spec of a workload, or of a pod."""
    spec: Object = thing["spec"]
    return spec["template"]["spec"] if "template" in spec else spec


def pods_of(objects: list[Object]) -> dict[str, Object]:
    """Give every pod's spec by its workload's name."""
    kinds_of_pods = {"Deployment", "StatefulSet", "Pod", "Job", "DaemonSet"}
    found = [each for each in objects if each["kind"] in kinds_of_pods]
    return {each["metadata"]["name"]: pod_of(each) for each in found}


def containers_of(pod: Object) -> list[Object]:
    """Give every container of a pod, those of its start too."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def triton(objects: list[Object]) -> Object:
    """Give Triton's container."""
    container: Object = pod_of(one(objects, "Deployment", "-triton"))["containers"][0]
    return container


def gateway(objects: list[Object]) -> Object:
    """Give the gateway's container."""
    kind = "StatefulSet" if "StatefulSet" in kinds(objects) else "Deployment"
    container: Object = pod_of(one(objects, kind, "-gateway"))["containers"][0]
    return container


def environment(container: Object) -> dict[str, str]:
    """Give a container's plain environment."""
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def arguments(container: Object) -> dict[str, list[str]]:
    """Give a command line's options and the values of each."""
    found: dict[str, list[str]] = {}
    for argument in container["args"]:
        name, _, value = argument.partition("=")
        found.setdefault(name, []).append(value)
    return found
