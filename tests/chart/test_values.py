"""values.yaml is the manual: documented, used, checked by its schema, and its README not stale."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

import pytest
import yaml

from chart.rendering import CHART, NEEDED, RELEASE, ROOT, merged, nested

VALUES = (CHART / "values.yaml").read_text(encoding="utf-8")
TEMPLATES = sorted((CHART / "templates").rglob("*.*"))
#: Keys of the map that a key holds are Kubernetes', not the chart's.
PASSED_THROUGH = {
    "triton.resources",
    "gateway.resources",
    "gateway.ingress.annotations",
    "networkPolicy.dnsNamespace",
    "monitoring.dashboardLabels",
}
EXAMPLES = ("gpu", "keda", "tls", "cpu", "mig", "default")
#: What a refusal says.
REFUSED = "do not fit together"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    sys.path.append(str(ROOT / "helm"))
    spec = importlib.util.spec_from_file_location("generate", ROOT / "helm" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


def leaves(tree: dict, stop: set[str], prefix: str = "") -> set[str]:
    found = set()
    for key, value in tree.items():
        path = f"{prefix}{key}"
        inside = isinstance(value, dict) and value and path not in stop
        found |= leaves(value, stop, f"{path}.") if inside else {path}
    return found


def test_what_is_generated_is_not_out_of_date(need, generate) -> None:
    need(shutil.which("helm") is not None, "helm")
    for path, text in generate.outputs().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run make chart-docs"


def test_without_helm_nothing_is_generated_and_helm_is_named(tmp_path) -> None:
    command = [sys.executable, ROOT / "helm" / "generate.py", "--check"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no helm on the PATH" in done.stderr


def test_a_text_that_may_be_empty_is_one_of_the_choices(generate) -> None:
    text = 'a:\n  # -- B. One of: x, y.\n  b: ""\n  # -- C. One of: x, y.\n  c: x\n'
    found = generate.schema_of(generate.read_values(text))["properties"]["a"]["properties"]
    assert [found[key]["enum"] for key in "bc"] == [["", "x", "y"], ["x", "y"]]


def test_every_value_is_documented_once(generate) -> None:
    documented = [each.path for each in generate.read_values(VALUES)]
    stop = {path for path in documented if path.rpartition(".")[2] in generate.OPEN}
    assert sorted(documented) == sorted(leaves(yaml.safe_load(VALUES), stop))


def test_a_value_without_a_comment_is_refused(generate) -> None:
    with pytest.raises(ValueError, match=r"a\.c has no comment"):
        generate.read_values("a:\n  # -- B.\n  b: 1\n  c: 2\n")


def test_every_default_keeps_the_rules_of_its_own_schema(generate) -> None:
    import jsonschema

    jsonschema.validate(yaml.safe_load(VALUES), generate.schema_of(generate.read_values(VALUES)))


#: What turns on the parts that some values are of.
PARTS = [
    *(yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text()) for name in EXAMPLES),
    *(merged(NEEDED, each) for each in (
        merged(
            nested("gateway.auth.issuers", [{"issuer": "https://l", "audience": "a"}]),
            nested("networkPolicy.gatewayEgress", [{"ports": [{"port": 443}]}]),
        ),
        nested("triton.tls", {"enabled": True, "existingSecret": "s"}),
        nested("triton.tls", {
            "enabled": True, "mutual": True, "existingSecret": "s", "clientSecret": "c",
        }),
        nested("repository", {"source": "image", "image": {"repository": "m", "tag": "1"}}),
        nested("triton", {"tensorrt": {"enabled": True}, "engineCache": {"claimName": "e"}}),
        merged(
            nested("gateway.service.type", "LoadBalancer"),
            nested("networkPolicy.gatewayFromCidrs", ["10.0.0.0/8"]),
        ),
    )),
]  # fmt: skip
#: What goes with a change, where the values would not fit together without.
WITH = {
    # Nothing but a release with faults is refused without it.
    "triton.acceptKnownVulnerabilities": nested("triton.image.release", "26.07"),
    "monitoring.enabled": nested("monitoring.enabled", True),
    **{
        f"{workload}.{key}": {
            workload: {"extraVolumes": [{"name": "a"}], "extraVolumeMounts": [{"name": "a"}]}
        }
        for workload in ("triton", "gateway")
        for key in ("extraVolumes", "extraVolumeMounts")
    },
    "triton.tls.enabled": nested(
        "triton.tls", {"existingSecret": "", "clientSecret": "", "mutual": False}
    ),
    "gateway.auth.enabled": nested("gateway.auth.keysSecret", ""),
    "triton.tls.certManager.enabled": nested(
        "triton.tls", {"existingSecret": "s", "clientSecret": "c"}
    ),
}


@functools.cache
def rendered(values: str) -> str:
    """Give what helm renders, and NOTES, without the keys, which are made anew; or its refusal."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(values)
        file.flush()
        command = ["helm", "install", RELEASE, str(CHART), "--dry-run=client"]
        command += ["--skip-schema-validation", f"--values={file.name}"]
        done = subprocess.run(command, capture_output=True, text=True)
    text = re.sub(r"(LAST DEPLOYED|  admin|  inference): .*", "", done.stdout)
    return text + done.stderr


def other(value: object) -> object:
    """Give another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [{"sentinel": "s"}] if not value or isinstance(value[0], dict) else [*value, 99999]
    return {**value, "WANWU_SENTINEL": "s"} if isinstance(value, dict) else f"{value or 's'}7"


def at(tree: dict, path: str) -> object:
    return functools.reduce(lambda node, key: node[key], path.split("."), tree)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_renders_twice_alike(need, part) -> None:
    need(shutil.which("helm") is not None, "helm")
    values = yaml.safe_dump(part)
    assert REFUSED not in rendered(values)
    assert rendered(values) == rendered.__wrapped__(values)


@pytest.mark.parametrize("path", sorted(leaves(yaml.safe_load(VALUES), PASSED_THROUGH)))
def test_every_value_changes_what_is_rendered(need, path) -> None:
    need(shutil.which("helm") is not None, "helm")
    defaults = yaml.safe_load(VALUES)
    for part in PARTS:
        changed = merged(nested(path, other(at(merged(defaults, part), path))), WITH.get(path, {}))
        before, after = (rendered(yaml.safe_dump(each)) for each in (part, merged(part, changed)))
        if REFUSED not in after and before != after:
            return
    pytest.fail(f"no template uses {path}")


def choices() -> list[tuple[str, list[str]]]:
    """Give the values that are one of several, with these."""

    def walk(node: dict, path: str) -> Iterator[tuple[str, list[str]]]:
        if "enum" in node:
            yield path, node["enum"]
        for key, below in node.get("properties", {}).items():
            yield from walk(below, f"{path}.{key}".lstrip("."))

    return list(walk(json.loads((CHART / "values.schema.json").read_text()), ""))


#: Its effect depends on the cluster: test_monitoring_objects.py has it.
OF_THE_CLUSTER = "monitoring.enabled"


@pytest.mark.parametrize(
    ("path", "each"), [pair for pair in choices() if pair[0] != OF_THE_CLUSTER]
)
def test_every_choice_renders_something_of_its_own(need, path, each) -> None:
    need(shutil.which("helm") is not None, "helm")
    left = set(each)
    for part in PARTS:
        texts = {one: rendered(yaml.safe_dump(merged(part, nested(path, one)))) for one in each}
        taken = [text for text in texts.values() if REFUSED not in text]
        left -= {one for one, text in texts.items() if taken.count(text) == 1}
        if not left:
            return
    pytest.fail(f"nothing tells {path}={', '.join(sorted(left))} from the other choices")


def test_every_value_that_a_template_names_exists() -> None:
    tree = yaml.safe_load(VALUES)
    for path in TEMPLATES:
        for way in re.findall(r"\.Values\.([A-Za-z0-9.]+)", path.read_text(encoding="utf-8")):
            node = tree
            for key in way.split("."):
                assert key in node, f"{path.name} reads .Values.{way}"
                node = node[key]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (nested("triton.gpu.coun", 1), "coun"),
        (nested("triton.profile", "tpu"), "profile"),
        (nested("autoscaling.prometheusUrl", ""), "prometheusUrl"),
        (nested("triton.image.release", 26.1), "release"),
        (nested("triton.image.release", "2026"), "release"),
        (nested("triton.image.digest", "latest"), "digest"),
        (nested("model.fingerprint", 1234), "fingerprint"),
        (nested("triton.batching.maxBatchSize", 128), "maxBatchSize"),
        (nested("triton.replicas", -1), "replicas"),
        (nested("triton.instances.text", 0), "instances"),
        (nested("triton.tensorrt.precision", "FP16"), "precision"),
        (nested("model.precision.image", "FP16"), "precision"),
        (nested("autoscaling.gpuUtilization", 70), "gpuUtilization"),
        (nested("autoscaling.driver", "hpa"), "driver"),
        (nested("gateway.audit.mode", "off"), "mode"),
        (nested("imageRegistry", "https://registry.example.internal"), "imageRegistry"),
        (nested("imagePullSecrets", ["registry"]), "imagePullSecrets"),
        (nested("fullnameOverride", "Wanwu.v1"), "fullnameOverride"),
        (nested("repository.image.path", "models"), "path"),
        (nested("repository.pvc.subPath", "/models"), "subPath"),
        (nested("repository.pvc.subPath", "a/../.."), "subPath"),
        (nested("repository.s3.url", "https://bucket"), "url"),
        (nested("repository.s3.endpoint", "minio:9000"), "endpoint"),
        (nested("gateway.auth.issuers", [{"issuer": "https://login.example"}]), "audience"),
        (
            nested("gateway.auth.issuers", [{"issuer": "i", "audience": "a", "jwks": "login"}]),
            "jwks",
        ),
        (nested("gateway.auth.keysSecret", "My_Keys"), "keysSecret"),
        (nested("gateway.settings", []), "settings"),
        (nested("gateway.settings", {"WANWU_GATEWAY_RATES": "1/second"}), "RATES"),
        (nested("gateway.settings", {"WANWU_GATEWAY_AUTH": "off"}), "WANWU_GATEWAY_AUTH"),
        (nested("gateway.ingress.annotations", {"a": True}), "annotations"),
        (nested("triton.resources.limits.memory", "8GB"), "memory"),
        (nested("triton.resources.limit", {"cpu": 1}), "limit"),
        (nested("triton.shmSize", "256MB"), "shmSize"),
        (nested("triton.extraArgs", ["log-verbose=1"]), "extraArgs"),
        (nested("triton.batching.preferredBatchSizes", ["8"]), "preferredBatchSizes"),
        (nested("triton.latencyBucketsMs", []), "latencyBucketsMs"),
        (nested("triton.tolerations", [{"operator": "Exist"}]), "operator"),
        (nested("triton.nodeSelector", {"gpu": True}), "nodeSelector"),
        (nested("networkPolicy.gatewayFrom", ["shop"]), "gatewayFrom"),
        (nested("networkPolicy.gatewayFrom", [{}]), "gatewayFrom"),
        (nested("networkPolicy.gatewayFromCidrs", ["10.0.0.1"]), "gatewayFromCidrs"),
        (nested("networkPolicy.gatewayFromCidrs", ["10.0.0.0/33"]), "gatewayFromCidrs"),
        (nested("networkPolicy.gatewayFromCidrs", ["fd00::/129"]), "gatewayFromCidrs"),
        (nested("triton.extraArgs", ["--http-port=9000"]), "extraArgs"),
        (nested("gateway.extraEnv", [{"name": "WANWU_GATEWAY_AUTH", "value": "off"}]), "extraEnv"),
        (nested("triton.extraEnv", [{"name": "HOME", "value": "/"}]), "extraEnv"),
        (nested("triton.resourceClaims", [{"name": "gpu"}]), "resourceClaims"),
        (nested("autoscaling.prometheusAuthenticationRef", {"nam": "a"}), "nam"),
        (nested("networkPolicy.gatewayEgress", [{"from": []}]), "gatewayEgress"),
        (nested("networkPolicy.dnsPorts", ["dns"]), "dnsPorts"),
    ],
)
def test_the_schema_refuses(refusal, values, said) -> None:
    assert said in refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        nested("triton.resources.limits.cpu", "2500m"),
        nested("triton.resources.limits.cpu", 2),
        nested("triton.shmSize", 268435456),
        nested("triton.affinity", {"nodeAffinity": {}}),
        nested("gateway.ingress.annotations", {"a.b/c": "d"}),
        nested("triton.resources.limits", {"nvidia.com/gpu": 1, "ephemeral-storage": "10Gi"}),
        nested("triton.cacheSize", "1.5Ti"),
        nested("imageRegistry", "10.0.0.1:5000/team/"),
        nested("repository.pvc.subPath", "models/v1.2"),
        nested("networkPolicy.gatewayFromCidrs", ["10.0.0.0/8", "::/0", "fd00::/128"]),
        nested("triton.extraArgs", ["--http-thread-count=4", "--log-verbose=1"]),
        nested("networkPolicy.tritonFrom", [{"team.example/name": "shop", "tier": "a"}]),
        nested("triton.tolerations", [{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]),
        {"global": {"anything": 1}, "enabled": True},
        nested("repository.pvc.subPath", ".snapshot/..daily/a.b"),
    ],
)
def test_the_schema_takes_what_kubernetes_takes(render, values) -> None:
    assert render(values)


def test_the_readme_shows_every_value() -> None:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    assert "| `triton.batching.maxBatchSize` | `0` |" in readme
