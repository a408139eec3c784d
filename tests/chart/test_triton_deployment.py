"""templates/triton/deployment.yaml: probes, drain, hardware, the repository, and each switch."""

from __future__ import annotations

import subprocess
import time

import pytest

from chart.rendering import (
    MODEL,
    NAME,
    arguments,
    containers_of,
    environment,
    merged,
    nested,
    one,
    pod_of,
    triton,
)


def deployment(objects) -> dict:
    return one(objects, "Deployment", "-triton")


def volume(objects, name: str) -> dict:
    volumes = pod_of(deployment(objects))["volumes"]
    return next(each for each in volumes if each["name"] == name)


def start(objects, name: str) -> dict:
    return next(
        each for each in pod_of(deployment(objects))["initContainers"] if each["name"] == name
    )


def test_the_probes_ask_triton_itself_over_http(render) -> None:
    container = triton(render(nested("triton.startupSeconds", 62)))
    assert container["startupProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 65


def test_a_rollout_waits_longer_than_a_pods_start(render) -> None:
    spec = deployment(render(nested("triton.startupSeconds", 3000)))["spec"]
    assert spec["progressDeadlineSeconds"] == 3300


def test_the_times_of_the_drain_reach_pod_and_triton(render) -> None:
    times = {"preStopSeconds": 1, "exitTimeoutSeconds": 12, "terminationGracePeriodSeconds": 14}
    objects = render({"triton": {**times, "grpc": {"maxConnectionAgeMs": 900}}})
    assert pod_of(deployment(objects))["terminationGracePeriodSeconds"] == 14
    assert arguments(triton(objects))["--exit-timeout-secs"] == ["12"]
    command = triton(objects)["lifecycle"]["preStop"]["exec"]["command"]
    began = time.monotonic()
    subprocess.run(command, check=True)
    assert 1 <= time.monotonic() - began < 3


@pytest.mark.parametrize(("surge", "away"), [(1, 0), (2, 0), (0, 1)])
def test_a_rollout_fits_the_gpus_that_are_there(render, surge, away) -> None:
    spec = deployment(render(nested("triton.maxSurge", surge)))["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": surge, "maxUnavailable": away}


def test_the_gpu_profile_asks_for_gpus_and_bears_their_taint(render) -> None:
    gpu = {"resourceName": "example.internal/gpu", "count": 2}
    objects = render({"triton": {"gpu": gpu, "tolerations": [{"key": "night"}]}})
    assert triton(objects)["resources"]["limits"]["example.internal/gpu"] == 2
    assert triton(objects)["resources"]["requests"] == {"cpu": "2", "memory": "6Gi"}
    keys = [each["key"] for each in pod_of(deployment(objects))["tolerations"]]
    assert keys == ["nvidia.com/gpu", "night"]


def test_the_cpu_profile_sees_no_gpu(render) -> None:
    objects = render(nested("triton.profile", "cpu"))
    assert set(triton(objects)["resources"]["limits"]) == {"cpu", "memory"}
    assert "tolerations" not in pod_of(deployment(objects))
    assert environment(triton(objects))["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_shared_memory_is_a_volume_of_memory(render) -> None:
    objects = render(nested("triton.shmSize", "1Gi"))
    assert volume(objects, "shm")["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    mounts = {each["name"]: each["mountPath"] for each in triton(objects)["volumeMounts"]}
    assert mounts["shm"] == "/dev/shm"  # noqa: S108 - a container's


def test_engines_are_made_in_the_pod_and_kept_there_or_in_a_claim(render) -> None:
    made = {"cacheSize": "3Gi", "tensorrt": {"enabled": True}}
    objects = render(nested("triton", made))
    assert volume(objects, "cache")["emptyDir"] == {"sizeLimit": "3Gi"}
    found = environment(triton(objects))
    assert found["WANWU_ENGINES_KEPT"] == found["WANWU_ENGINES"].replace("cache", "cache/kept")
    objects = render(nested("triton", {**made, "engineCache": {"claimName": "e"}}))
    assert volume(objects, "cache")["emptyDir"] == {"sizeLimit": "3Gi"}
    assert volume(objects, "engines")["persistentVolumeClaim"] == {"claimName": "e"}
    kept = environment(triton(objects))["WANWU_ENGINES_KEPT"]
    assert kept == found["WANWU_ENGINES"].replace("cache", "engines")


def test_triton_starts_with_its_engines_where_tensorrt_runs(render) -> None:
    assert triton(render())["command"] == ["tritonserver"]
    objects = render(nested("triton.tensorrt.enabled", True))
    command = triton(objects)["command"]
    assert command == ["bash", "/configs/with-engines.sh", "tritonserver"]
    mounts = {each["mountPath"]: each["name"] for each in triton(objects)["volumeMounts"]}
    assert mounts["/configs"] == "configs"
    assert "with-engines.sh" in one(objects, "ConfigMap", "-triton")["data"]


def test_triton_cannot_write_to_its_models(render) -> None:
    mounts = {each["name"]: each for each in triton(render())["volumeMounts"]}
    assert mounts["models"]["readOnly"] is True
    assert mounts["repository"]["readOnly"] is True


def test_models_from_a_claim(render) -> None:
    objects = render(nested("repository.pvc", {"claimName": "m", "subPath": "v3"}))
    claim = {"claimName": "m", "readOnly": True}
    assert volume(objects, "repository")["persistentVolumeClaim"] == claim
    mounts = [each["volumeMounts"][0] for each in (triton(objects), start(objects, "lay-models"))]
    assert [each["subPath"] for each in mounts] == ["v3", "v3"]
    assert environment(start(objects, "lay-models"))["WANWU_REPOSITORY"] == "/repository"


def test_models_from_an_image_volume(render) -> None:
    image = {"repository": "models", "tag": "3"}
    objects = render({"repository": {"source": "image", "image": image}})
    reference = volume(objects, "repository")["image"]["reference"]
    assert reference == "registry.example.internal/models:3"
    found = environment(start(objects, "lay-models"))["WANWU_REPOSITORY"]
    assert found == "/repository/model_repository"


def test_models_out_of_an_image_at_start(render) -> None:
    image = {"repository": "models", "tag": "3", "path": "/m"}
    objects = render({"repository": {"source": "initImage", "image": image}})
    fetch = start(objects, "fetch-models")
    assert fetch["image"] == "registry.example.internal/models:3"
    assert fetch["command"] == ["cp", "-R", "/m/.", "/repository/"]
    assert volume(objects, "repository")["emptyDir"] == {}


def test_models_out_of_a_bucket(render) -> None:
    s3 = {"url": "s3://b/f", "endpoint": "https://s3:9000", "existingSecret": "key"}
    rule = {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}
    values = {"repository": {"source": "s3", "s3": s3}, "networkPolicy": {"tritonEgress": [rule]}}
    fetch = start(render(values), "fetch-models")
    assert fetch["command"][-2:] == ["s3://b/f", "/repository"]
    assert environment(fetch)["AWS_ENDPOINT_URL"] == "https://s3:9000"
    assert fetch["envFrom"] == [{"secretRef": {"name": "key"}}]


def test_a_claim_is_not_copied(render) -> None:
    names = [each["name"] for each in pod_of(deployment(render()))["initContainers"]]
    assert names == ["lay-models"]


def test_a_digest_wins_over_a_tag(render) -> None:
    digest = "sha256:" + "a" * 64
    objects = render(nested("triton.image", {"digest": digest, "tag": "mine"}))
    image = f"registry.example.internal/nvidia/tritonserver@{digest}"
    assert {each["image"] for each in containers_of(pod_of(deployment(objects)))} == {image}


def template(objects) -> dict:
    return deployment(objects)["spec"]["template"]


@pytest.mark.parametrize(
    "change",
    [
        nested("model.version", "9"),
        nested("model.fingerprint", "9"),
        nested("model.manifestSha256", "0" * 64),
        nested("triton.batching.queueDelayUs", 77),
        nested("triton.latencyBucketsMs", [1, 20000]),
    ],
)
def test_another_model_or_config_starts_new_pods(render, change) -> None:
    before = template(render({"model": MODEL}))
    assert template(render(merged({"model": MODEL}, change))) != before


def test_another_number_of_pods_starts_no_new_ones(render) -> None:
    assert template(render(nested("triton.replicas", 7))) == template(render())


def test_pods_are_spread_unless_told_not_to(render) -> None:
    spread = pod_of(deployment(render()))["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    off = render(nested("triton.topologySpread", False))
    assert "topologySpreadConstraints" not in pod_of(deployment(off))


def test_where_pods_run_is_passed_on(render) -> None:
    values = {"nodeSelector": {"disk": "fast"}, "affinity": {"nodeAffinity": {}}}
    pod = pod_of(deployment(render({"triton": values})))
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert pod["affinity"] == {"nodeAffinity": {}}


def test_a_long_name_still_fits_a_service(render) -> None:
    objects = render(nested("fullnameOverride", "x" * 60))
    assert all(len(each["metadata"]["name"]) < 64 for each in objects)


def test_the_secrets_of_the_registry_reach_every_pod(render) -> None:
    objects = render({"imagePullSecrets": [{"name": "r"}]})
    assert pod_of(deployment(objects))["imagePullSecrets"] == [{"name": "r"}]
    assert pod_of(one(objects, "Pod", f"{NAME}-doctor"))["imagePullSecrets"] == [{"name": "r"}]
