"""What kinds of cluster need: users, IP families, schedulers, shared GPUs, meshes, CAs."""

from __future__ import annotations

import pytest

from chart.rendering import (
    CI_FILES,
    arguments,
    containers_of,
    environment,
    gateway,
    merged,
    nested,
    one,
    pod_of,
    pods_of,
    triton,
)

EXAMPLES = {file.name.removesuffix("-values.yaml"): file for file in CI_FILES}
CA = {
    "extraEnv": [{"name": "CA", "value": "/ca/ca.crt"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "corporate-ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
}
CLAIM = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]


def labels_of(objects, component: str) -> dict:
    return one(objects, "Deployment", f"-{component}")["spec"]["template"]["metadata"]["labels"]


def test_every_pod_has_one_user_and_group(render) -> None:
    for pod in pods_of(render(nested("podUserId", 4711))).values():
        security = pod["securityContext"]
        assert {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {4711}


def test_on_openshift_the_cluster_chooses_the_user(render) -> None:
    for pod in pods_of(render(EXAMPLES["openshift"])).values():
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["securityContext"])
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in containers_of(pod):
            assert not {"runAsUser", "runAsGroup"} & set(container["securityContext"])


@pytest.mark.parametrize(
    ("families", "policy"),
    [(["IPv6"], "SingleStack"), (["IPv4", "IPv6"], "RequireDualStack"), ([], None)],
)
def test_services_have_the_families_of_the_values(render, families, policy) -> None:
    objects = render(nested("ipFamilies", families))
    for name in ("-triton", "-gateway"):
        spec = one(objects, "Service", name)["spec"]
        assert spec.get("ipFamilies", []) == families
        assert spec.get("ipFamilyPolicy") == policy


@pytest.mark.parametrize(
    ("families", "http", "host"),
    [
        (["IPv6"], ["ipv6:::"], "::"),
        (["IPv6", "IPv4"], ["ipv6:::"], "::"),
        (["IPv4", "IPv6"], None, "::"),
        ([], None, "0.0.0.0"),  # noqa: S104
    ],
)
def test_callers_are_served_by_each_family_and_probes_by_the_first(
    render, families, http, host
) -> None:
    objects = render(nested("ipFamilies", families))
    found = arguments(triton(objects))
    assert found.get("--http-address") == found.get("--metrics-address") == http
    assert found.get("--grpc-address") == (["[::]"] if families else None)
    assert environment(gateway(objects))["WANWU_GATEWAY_HOST"] == host


@pytest.mark.parametrize("workload", ["triton", "gateway"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("priorityClassName", "serving"),
        ("nodeSelector", {"a": "b"}),
        ("affinity", {"podAntiAffinity": {}}),
        ("tolerations", [{"key": "k", "operator": "Exists"}]),
    ],
)
def test_where_pods_run_is_said_for_each_workload(render, workload, key, value) -> None:
    for name, pod in pods_of(render(nested(f"{workload}.{key}", value))).items():
        of_gateway = not name.endswith("-triton")  # the doctor runs where the gateway does
        found = pod.get(key, [] if key == "tolerations" else None)
        if of_gateway == (workload == "gateway"):
            assert found == value or value[0] in found
        else:
            assert found != value


@pytest.mark.parametrize(
    ("key", "value"), [("runtimeClassName", "nvidia"), ("schedulerName", "volcano")]
)
def test_triton_has_a_runtime_and_a_scheduler_of_its_own(render, key, value) -> None:
    objects = render(nested(f"triton.{key}", value))
    assert pod_of(one(objects, "Deployment", "-triton"))[key] == value
    assert key not in pod_of(one(objects, "Deployment", "-gateway"))


@pytest.mark.parametrize("workload", ["triton", "gateway"])
def test_labels_of_pods_leave_those_that_select_them(render, workload) -> None:
    mine = {"sidecar.istio.io/inject": "true", "app.kubernetes.io/component": "other"}
    objects = render(nested(f"{workload}.podLabels", mine))
    found = labels_of(objects, workload)
    assert found["sidecar.istio.io/inject"] == "true"
    assert found["app.kubernetes.io/component"] == workload
    selector = one(objects, "Deployment", f"-{workload}")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= found.items()


@pytest.mark.parametrize("workload", ["triton", "gateway"])
def test_annotations_of_pods_are_beside_the_charts(render, workload) -> None:
    objects = render(nested(f"{workload}.podAnnotations", {"linkerd.io/inject": "enabled"}))
    template = one(objects, "Deployment", f"-{workload}")["spec"]["template"]
    assert template["metadata"]["annotations"]["linkerd.io/inject"] == "enabled"
    assert "kubectl.kubernetes.io/default-container" in template["metadata"]["annotations"]


@pytest.mark.parametrize("workload", ["triton", "gateway"])
def test_a_private_ca_reaches_its_container(render, workload) -> None:
    objects = render({workload: CA})
    pod = pod_of(one(objects, "Deployment", f"-{workload}"))
    container = pod["containers"][0]
    assert environment(container)["CA"] == "/ca/ca.crt"
    assert {"name": "ca", "mountPath": "/ca"} in container["volumeMounts"]
    assert {"name": "ca", "configMap": {"name": "corporate-ca"}} in pod["volumes"]


def test_a_private_ca_reaches_the_copy_out_of_a_bucket(render) -> None:
    objects = render(
        {
            "repository": {
                "source": "s3",
                "s3": {"url": "s3://a/b", "endpoint": "https://s3", "existingSecret": "s"},
            },
            "networkPolicy": {"tritonEgress": [{"ports": [{"port": 443}]}]},
            "triton": CA,
        }
    )
    fetch = pod_of(one(objects, "Deployment", "-triton"))["initContainers"][0]
    assert environment(fetch)["CA"] == "/ca/ca.crt"
    assert {"name": "ca", "mountPath": "/ca"} in fetch["volumeMounts"]


def test_a_resource_claim_stands_in_for_the_gpu(render) -> None:
    values = nested("triton", {"resourceClaims": CLAIM, "gpu": {"count": 0}})
    objects = render(values)
    pod = pod_of(one(objects, "Deployment", "-triton"))
    assert pod["resourceClaims"] == CLAIM
    resources = triton(objects)["resources"]
    assert resources["claims"] == [{"name": "gpu"}]
    assert not [name for name in resources["limits"] if "gpu" in name]


def test_memory_of_a_shared_gpu_is_a_limit(render) -> None:
    objects = render(EXAMPLES["k3s"])
    limits = triton(objects)["resources"]["limits"]
    assert (limits["nvidia.com/gpu"], limits["nvidia.com/gpumem"]) == (1, 8000)
    assert pod_of(one(objects, "Deployment", "-triton"))["schedulerName"] == "hami-scheduler"


def test_the_engines_wait_for_triton_where_it_listens(render) -> None:
    values = {"ipFamilies": ["IPv6"], "triton": {"tensorrt": {"enabled": True}}}
    assert environment(triton(render(values)))["WANWU_HTTP_HOST"] == "::1"


def test_on_cpus_no_container_of_triton_sees_a_gpu(render) -> None:
    pod = pod_of(one(render(nested("triton.profile", "cpu")), "Deployment", "-triton"))
    for container in containers_of(pod):
        assert environment(container)["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_the_doctor_is_in_the_mesh_of_the_gateway(render) -> None:
    mesh = {"sidecar.istio.io/inject": "true", "app.kubernetes.io/component": "gateway"}
    rule = {"ports": [{"port": 15012, "protocol": "TCP"}]}
    objects = render(
        {
            "gateway": {"podLabels": mesh, "podAnnotations": {"a": "b"}},
            "networkPolicy": {"gatewayEgress": [rule]},
        }
    )
    metadata = one(objects, "Pod")["metadata"]
    assert metadata["labels"]["sidecar.istio.io/inject"] == "true"
    assert metadata["labels"]["app.kubernetes.io/component"] == "test"
    assert metadata["annotations"].items() >= {"a": "b", "helm.sh/hook": "test"}.items()
    policy = one(objects, "NetworkPolicy", "-callers")["spec"]
    assert rule in policy["egress"]
    assert policy["podSelector"]["matchExpressions"][0]["values"] == ["gateway", "test"]


def test_an_upload_passes_an_nginx_in_front(render) -> None:
    values = merged(
        nested("gateway.ingress", {"enabled": True, "host": "w.example.internal"}),
        nested("networkPolicy.gatewayFrom", [{"a": "b"}]),
        nested("gateway.ingress.annotations", {"a": "b"}),
    )
    found = one(render(values), "Ingress")["metadata"]["annotations"]
    assert found["nginx.ingress.kubernetes.io/proxy-body-size"] == "32m"
    assert found["nginx.org/client-max-body-size"] == "32m"
    assert found["a"] == "b"


def test_gateways_come_fast_and_go_slowly(render) -> None:
    values = nested("gateway.autoscaling", {"scaleUpPods": 3, "scaleDownPercent": 10})
    behavior = one(render(values), "HorizontalPodAutoscaler", "-gateway")["spec"]["behavior"]
    up, down = behavior["scaleUp"], behavior["scaleDown"]
    assert up["policies"][1] == {"type": "Pods", "value": 3, "periodSeconds": 60}
    assert down["stabilizationWindowSeconds"] == 300
    assert down["policies"] == [{"type": "Percent", "value": 10, "periodSeconds": 60}]


def test_a_connection_ends_before_its_server(render) -> None:
    container = triton(render())
    (age_ms,) = arguments(container)["--grpc-max-connection-age"]
    drain_s = container["lifecycle"]["preStop"]["exec"]["command"][1]
    # gRPC spreads the age by a tenth, and looks a name up again after 30 s at the earliest.
    assert 1.1 * int(age_ms) <= 1000 * int(drain_s)
    assert int(drain_s) > 30
