"""templates/gateway: the workload in both kinds, its environment, and how it is reached."""

from __future__ import annotations

import subprocess
import time

import pytest

from chart.rendering import (
    NAME,
    environment,
    gateway,
    kinds,
    merged,
    nested,
    one,
    pod_of,
)
from wanwu.gateway.settings import GatewaySettings, gateway_settings

PVC = nested("gateway.audit", {"mode": "pvc", "storageClassName": "fast", "size": "1Gi"})
FROM = nested("networkPolicy.gatewayFrom", [{"a": "b"}])
INGRESS = {"enabled": True, "host": "w.example.internal"}
ISSUER = {"issuer": "i", "audience": "a", "jwksSecret": "corporate"}


def in_gateway(**values: object) -> dict:
    return {"gateway": values}


def settings_of(objects, monkeypatch: pytest.MonkeyPatch) -> GatewaySettings:
    """Read a rendered environment as the gateway does."""
    for name, value in environment(gateway(objects)).items():
        monkeypatch.setenv(name, value)
    return gateway_settings()


def test_the_gateway_can_be_left_out(render) -> None:
    left = kinds(render(nested("gateway.enabled", False)), "gateway")
    assert left == set()


def test_by_default_it_is_a_deployment_whose_pods_a_scaler_counts(render) -> None:
    objects = render()
    spec = one(objects, "HorizontalPodAutoscaler", "-gateway")["spec"]
    assert spec["scaleTargetRef"]["kind"] == "Deployment"


def test_with_claims_it_is_a_stateful_set(render) -> None:
    objects = render(PVC)
    spec = one(objects, "StatefulSet", "-gateway")["spec"]
    claim = spec["volumeClaimTemplates"][0]["spec"]
    assert claim["storageClassName"] == "fast"
    assert claim["resources"]["requests"]["storage"] == "1Gi"
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    target = one(objects, "HorizontalPodAutoscaler", "-gateway")["spec"]["scaleTargetRef"]
    assert target["kind"] == "StatefulSet"
    assert len([each for each in objects if each["metadata"]["name"] == f"{NAME}-gateway"]) == 6


@pytest.mark.parametrize("values", [{}, PVC], ids=["Deployment", "StatefulSet"])
def test_without_a_scaler_the_values_say_how_many(render, values) -> None:
    off = {"autoscaling": {"enabled": False}, "replicas": 3}
    objects = render(merged(values, {"gateway": off}))
    kind = "StatefulSet" if values else "Deployment"
    assert one(objects, kind, "-gateway")["spec"]["replicas"] == 3
    assert "HorizontalPodAutoscaler" not in kinds(objects, "gateway")


def test_the_scalers_bounds(render) -> None:
    bounds = {"minReplicas": 4, "maxReplicas": 5, "targetCpuPercent": 55}
    spec = one(render(in_gateway(autoscaling=bounds)), "HorizontalPodAutoscaler", "-gateway")[
        "spec"
    ]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (4, 5)
    assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 55


def test_the_gateway_takes_its_environment(render, monkeypatch) -> None:
    settings = settings_of(render(in_gateway(drainSeconds=17)), monkeypatch)
    assert (settings.host, settings.port, settings.metrics_port) == ("0.0.0.0", 8000, 9090)  # noqa: S104
    assert settings.drain_s == 17
    assert settings.audit == "-"
    assert str(settings.keys_file) == "/keys/keys.json"


def test_the_ports_are_those_it_listens_on(render, monkeypatch) -> None:
    objects = render()
    ports = {each["name"]: each["containerPort"] for each in gateway(objects)["ports"]}
    settings = settings_of(objects, monkeypatch)
    assert ports == {"http": settings.port, "metrics": settings.metrics_port}


def test_further_settings_reach_it(render, monkeypatch) -> None:
    further = {"WANWU_GATEWAY_MAX_BODY_BYTES": 16000000, "WANWU_GATEWAY_RATE": "9/second"}
    settings = settings_of(render(in_gateway(settings=further)), monkeypatch)
    assert (settings.max_body_bytes, settings.rate) == (16000000, "9/second")


def test_what_the_chart_sets_is_no_further_setting(render, refusal) -> None:
    auth = {"issuers": [ISSUER]}
    written = set(environment(gateway(render(in_gateway(auth=auth)))))
    written.add("WANWU_GATEWAY_AUTH")
    told = refusal(in_gateway(settings=dict.fromkeys(written | {"RATE"}, "1")))
    for name in written | {"RATE"}:
        assert f"invalid propertyName '{name}'" in told


def test_a_load_balancer_has_the_annotations_of_its_cloud(render) -> None:
    inside = {"cloud.example/load-balancer": "internal"}
    service = {"type": "LoadBalancer", "annotations": inside, "externalTrafficPolicy": "Local"}
    values = in_gateway(service=service) | nested("networkPolicy.gatewayFromCidrs", ["10.0.0.0/8"])
    found = one(render(values), "Service", "-gateway")
    assert found["metadata"]["annotations"] == inside
    assert found["spec"]["type"] == "LoadBalancer"
    assert found["spec"]["externalTrafficPolicy"] == "Local"
    assert "externalTrafficPolicy" not in one(render(), "Service", "-gateway")["spec"]


def test_auth_can_be_off_for_a_trial(render, monkeypatch) -> None:
    objects = render(in_gateway(auth={"enabled": False, "keysSecret": ""}))
    assert settings_of(objects, monkeypatch).auth == "off"
    assert "keys" not in [each["name"] for each in gateway(objects)["volumeMounts"]]


def test_tokens_are_those_of_the_issuers_that_are_named(render, monkeypatch) -> None:
    found = {"issuer": "https://l/b?c&d", "audience": "b", "roles": {"Reader": ["recognise"]}}
    auth = {"keysSecret": "", "issuers": [ISSUER, found]}
    egress = nested("networkPolicy.gatewayEgress", [{"ports": [{"port": 443}]}])
    by_file, by_discovery = settings_of(
        render(merged(in_gateway(auth=auth), egress)), monkeypatch
    ).issuers
    assert (by_file.issuer, by_file.audience) == ("i", "a")
    assert by_file.source == "/jwks/0/jwks.json"
    assert by_discovery.source.startswith("https://l/b?c&d/.well-known/")
    assert by_discovery.roles == {"Reader": ("recognise",)}


def test_files_of_keys_are_mounted_as_folders(render) -> None:
    # A file mounted by subPath is never renewed, and a revoked key would go on.
    second = {"issuer": "j", "audience": "a", "jwksSecret": "other"}
    pod = render(in_gateway(auth={"issuers": [ISSUER, second]}))
    mounts = {each["name"]: each for each in gateway(pod)["volumeMounts"]}
    assert mounts["keys"] == {"name": "keys", "mountPath": "/keys", "readOnly": True}
    assert mounts["jwks"] == {"name": "jwks", "mountPath": "/jwks", "readOnly": True}
    spec = one(pod, "Deployment", "-gateway")["spec"]["template"]["spec"]
    (volume,) = (each for each in spec["volumes"] if each["name"] == "jwks")
    assert [each["secret"] for each in volume["projected"]["sources"]] == [
        {"name": name, "items": [{"key": "jwks.json", "path": f"{number}/jwks.json"}]}
        for number, name in enumerate(("corporate", "other"))
    ]


def test_the_audit_log_lies_in_the_claim(render, monkeypatch) -> None:
    objects = render(PVC)
    mounts = {each["name"]: each["mountPath"] for each in gateway(objects)["volumeMounts"]}
    assert settings_of(objects, monkeypatch).audit == f"{mounts['audit']}/audit.jsonl"


def test_the_head_of_the_log_lies_on_another_claim_and_is_signed(render, monkeypatch) -> None:
    apart = nested("gateway.audit", {"keySecret": "signs", "headClaim": "heads"})
    objects = render(merged(PVC, apart))
    mounts = {each["name"]: each for each in gateway(objects)["volumeMounts"]}
    settings = settings_of(objects, monkeypatch)
    assert str(settings.audit_head).startswith(mounts["audit-head"]["mountPath"])
    assert str(settings.audit_key) == f"{mounts['audit-key']['mountPath']}/key.pem"
    assert mounts["audit-head"]["subPathExpr"] == "$(POD_NAME)"
    names = {each["name"]: each for each in gateway(objects)["env"]}
    assert names["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    volumes = pod_of(one(objects, "StatefulSet", "-gateway"))["volumes"]
    assert {"audit-key", "audit-head"} <= {each["name"] for each in volumes}


@pytest.mark.parametrize("name", ["keySecret", "headClaim"])
def test_a_log_on_standard_output_has_no_head(refusal, name) -> None:
    told = refusal(nested(f"gateway.audit.{name}", "any"))
    assert "set mode to pvc, or leave them out" in told


def test_the_probes_are_those_of_the_gateway(render) -> None:
    container = gateway(render())
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_kubelet_waits_for_the_drain(render) -> None:
    objects = render(in_gateway(preStopSeconds=1, drainSeconds=12))
    pod = pod_of(one(objects, "Deployment", "-gateway"))
    assert pod["terminationGracePeriodSeconds"] == 18
    command = gateway(objects)["lifecycle"]["preStop"]["exec"]["command"]
    began = time.monotonic()
    subprocess.run(command, check=True)
    assert 1 <= time.monotonic() - began < 3


def test_its_account_may_do_nothing(render) -> None:
    objects = render()
    assert one(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    pod = pod_of(one(objects, "Deployment", "-gateway"))
    assert pod["serviceAccountName"] == f"{NAME}-gateway"


def test_the_service(render) -> None:
    spec = one(render(in_gateway(service={"port": 81})), "Service", "-gateway")
    assert spec["spec"]["type"] == "ClusterIP"
    assert spec["spec"]["ports"] == [{"name": "http", "port": 81, "targetPort": "http"}]


def test_the_disruption_budget(render) -> None:
    budget = one(render(in_gateway(pdbMaxUnavailable=3)), "PodDisruptionBudget", "-gateway")
    assert budget["spec"]["maxUnavailable"] == 3


def test_where_pods_run_is_passed_on(render) -> None:
    values = in_gateway(nodeSelector={"a": "b"}, tolerations=[{"key": "night"}])
    pod = pod_of(one(render(values), "Deployment", "-gateway"))
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"a": "b"}, [{"key": "night"}])
    # Of the same image, for the same nodes.
    doctor = pod_of(one(render(values), "Pod", "-doctor"))
    assert (doctor["nodeSelector"], doctor["tolerations"]) == ({"a": "b"}, [{"key": "night"}])


def test_no_ingress_and_no_route_unless_told(render) -> None:
    assert not {"Ingress", "HTTPRoute"} & kinds(render())


def test_the_ingress(render) -> None:
    ingress = {**INGRESS, "className": "nginx", "annotations": {"a.b/c": "d"}, "tlsSecret": "t"}
    found = one(render(merged(FROM, in_gateway(ingress=ingress))), "Ingress")
    assert found["metadata"]["annotations"]["a.b/c"] == "d"
    assert found["spec"]["ingressClassName"] == "nginx"
    assert found["spec"]["tls"] == [{"hosts": ["w.example.internal"], "secretName": "t"}]
    backend = found["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": f"{NAME}-gateway", "port": {"name": "http"}}


def test_the_ingress_leaves_class_and_tls_to_the_cluster(render) -> None:
    spec = one(render(merged(FROM, in_gateway(ingress=INGRESS))), "Ingress")["spec"]
    assert set(spec) == {"rules"}


def test_the_route(render) -> None:
    route = {"enabled": True, "parentRefs": [{"name": "g"}], "hostnames": ["w.example.internal"]}
    values = merged(FROM, in_gateway(httpRoute=route, service={"port": 81}))
    spec = one(render(values), "HTTPRoute")["spec"]
    assert spec["parentRefs"] == [{"name": "g"}]
    assert spec["hostnames"] == ["w.example.internal"]
    assert spec["rules"][0]["backendRefs"] == [{"name": f"{NAME}-gateway", "port": 81}]
