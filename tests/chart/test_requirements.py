"""templates/requirements.yaml: each rule across values fails with the value to change."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import pytest
import yaml

from chart.rendering import CHART, merged, nested, of_release

S3 = {"source": "s3", "s3": {"url": "s3://a/b", "endpoint": "https://s3", "existingSecret": "s"}}
INGRESS = {"enabled": True, "host": "a.example.internal"}
INGRESS_OF_NODES = nested("gateway.ingress", INGRESS)
NO_SCALER = nested("autoscaling.driver", "none")
SCALED = {"autoscaling": {"driver": "keda"}, "monitoring": {"enabled": True}}
ISSUER = {"issuer": "https://login", "audience": "a"}
CLAIM = [{"name": "gpu", "resourceClaimName": "shared"}]
CA = {"name": "ca", "mountPath": "/ca"}
CERT_MANAGER = {"enabled": True, "issuerRef": {"name": "corporate"}}
TENSORRT = {"tensorrt": {"enabled": True}}
IMAGE_VOLUME = {"repository": {"source": "image", "image": {"repository": "m", "tag": "1"}}}

#: Values, and what the message says first. They are rendered for Kubernetes 1.32.
REFUSED = [
    ({"imageRegistry": ""}, "imageRegistry is empty"),
    (nested("triton.resourceClaims", CLAIM), "so a pod would ask for GPUs twice"),
    (nested("triton.gpu.count", 0), "so no pod would get a GPU"),
    (
        nested("triton.image.tag", "26.07-py3"),
        "triton.image.tag is 26.07-py3 and triton.image.release is 26.08",
    ),
    (nested("gateway.extraVolumeMounts", [CA]), "which gateway.extraVolumes does not"),
    (
        nested("gateway.audit", {"keySecret": "signs"}),
        "is set and gateway.audit.mode is stdout, where each pod begins a log of its own",
    ),
    (nested("triton.extraVolumes", [CA]), "triton.extraVolumes has ca, which nothing mounts"),
    (nested("triton.extraVolumes", [{"name": "tmp"}]), "a name that the chart's own volumes have"),
    (
        nested("triton", {"resourceClaims": CLAIM, "gpu": {"count": 0}}),
        "triton.resourceClaims is set and this is Kubernetes v1.32",
    ),
    (nested("triton.grpc.maxConnectionAgeMs", 32000), "maxConnectionAgeMs is 32000, up to a tenth"),
    (nested("triton.preStopSeconds", 10), "maxConnectionAgeMs is 15000, up to a tenth"),
    (
        nested("triton.image.release", "26.05"),
        "triton.image.release is 26.05, which lacks the fixes for CVE-2026-47606, CVE-2026-47627, "
        "CVE-2026-47628, CVE-2026-47629, CVE-2026-47630, bulletin 5875, server#8870 "
        "(files/triton-releases.json): set 26.08 or",
    ),
    (nested("fullnameOverride", "1st"), "the objects would be called 1st…"),
    (
        nested("triton.resources.limits.cpu", "1500m"),
        "triton.resources.requests.cpu is 2 and triton.resources.limits.cpu is 1500m",
    ),
    (
        nested("gateway.resources.requests.memory", "4G"),
        "gateway.resources.requests.memory is 4G and gateway.resources.limits.memory is 2Gi",
    ),
    (nested("repository.pvc.claimName", ""), "repository.pvc.claimName is empty"),
    (nested("repository.source", "initImage"), "repository.image.repository is empty"),
    (
        {"repository": {"source": "initImage", "image": {"repository": "models"}}},
        "neither repository.image.tag nor repository.image.digest",
    ),
    ({"repository": merged(S3, {"s3": {"url": ""}})}, "repository.s3.url is empty"),
    ({"repository": merged(S3, {"s3": {"endpoint": ""}})}, "repository.s3.endpoint is empty"),
    (
        {"repository": merged(S3, {"s3": {"existingSecret": ""}})},
        "repository.s3.existingSecret is empty",
    ),
    (IMAGE_VOLUME, "set repository.source to initImage"),
    ({"repository": S3}, "networkPolicy.tritonEgress is empty"),
    (nested("model.image.height", 224), "only one of model.image.height and model.image.width"),
    (
        {"triton": {"profile": "cpu", "resources": {"limits": {"cpu": None}}}},
        "triton.resources.limits.cpu is missing",
    ),
    (nested("triton.preStopSeconds", 45), "triton.terminationGracePeriodSeconds is 75"),
    (nested("triton.exitTimeoutSeconds", 40), "triton.terminationGracePeriodSeconds is 75"),
    (nested("triton.exitTimeoutSeconds", 9), "triton.exitTimeoutSeconds is 9"),
    (
        nested("triton.instances.image", 1),
        "or triton.batching.maxQueueSize and triton.batching.queueTimeoutUs to 0",
    ),
    (
        nested("triton.instances.text", 1),
        "or triton.batching.text.maxQueueSize and triton.batching.queueTimeoutUs to 0",
    ),
    (
        nested("triton", {"instances": {"text": 1}, "batching": {"text": {"maxQueueSize": 0}}}),
        "triton.instances.text is 1, and with a limit",
    ),
    (
        nested("triton", {"instances": {"image": 1}, "batching": {"queueTimeoutUs": 0}}),
        "triton.instances.image is 1, and with a limit",
    ),
    ({"triton": {"profile": "cpu", **TENSORRT}}, "triton.profile is cpu, where no TensorRT runs"),
    (nested("triton.engineCache.claimName", "a"), "so nothing would be kept there"),
    (
        {"triton": {"profile": "cpu", "engineCache": {"claimName": "a"}, **TENSORRT}},
        "so nothing would be kept there",
    ),
    *(
        (
            nested(f"model.precision.{tower}", "int8"),
            f"model.precision.{tower} is int8 and triton.profile is gpu: neither CUDA nor TensorRT "
            "has all of its operators; export again with --precision fp16, or set triton.profile",
        )
        for tower in ("image", "text")
    ),
    (
        {"triton": {"batching": {"maxBatchSize": 3}}},
        "triton.batching.maxBatchSize is 3: the client sends four",
    ),
    (
        {"triton": {"batching": {"maxBatchSize": 8, "preferredBatchSizes": [4, 16]}}},
        "triton.batching.preferredBatchSizes has 16",
    ),
    (nested("triton.latencyBucketsMs", [10, 5, 9000]), "triton.latencyBucketsMs has 5 after 10"),
    (nested("triton.latencyBucketsMs", [1.5, 9000]), "triton.latencyBucketsMs has 1.5"),
    (
        merged(SCALED, nested("autoscaling.p95Ms", 6000)),
        "triton.latencyBucketsMs ends at 10000 and autoscaling.p95Ms is 6000",
    ),
    (
        merged(SCALED, nested("triton.profile", "cpu"), nested("triton.latencyBucketsMs", [400])),
        "triton.latencyBucketsMs ends at 400 and autoscaling.p95Ms is 300",
    ),
    (
        {"monitoring": {"enabled": True, "alerts": {"p95Ms": 8000}}},
        "triton.latencyBucketsMs ends at 10000 and monitoring.alerts.p95Ms is 8000",
    ),
    (
        merged(SCALED, nested("triton.gpu.resourceName", "nvidia.com/mig-1g.10gb")),
        "change autoscaling.gpuSource",
    ),
    (nested("triton.tls.enabled", True), "name triton.tls.existingSecret"),
    (
        nested("triton.tls", {"enabled": True, "existingSecret": "s", "certManager": CERT_MANAGER}),
        "triton.tls.existingSecret and triton.tls.certManager.enabled are both set",
    ),
    (
        nested("triton.tls", {"enabled": True, "clientSecret": "c", "certManager": CERT_MANAGER}),
        "triton.tls.clientSecret and triton.tls.certManager.enabled are both set",
    ),
    (
        nested("triton.tls", {"enabled": True, "certManager": {"enabled": True}}),
        "triton.tls.certManager.issuerRef has no name",
    ),
    (nested("triton.tls.mutual", True), "triton.tls.enabled is false"),
    (nested("triton.tls.certManager", CERT_MANAGER), "triton.tls.enabled is false"),
    (nested("triton.tls.existingSecret", "s"), "so nothing would be encrypted"),
    (
        nested("triton.tls", {"enabled": True, "existingSecret": "s", "clientSecret": "c"}),
        "so no certificate would be asked for",
    ),
    (
        merged(
            {"autoscaling": {"driver": "prometheus-adapter"}, "monitoring": {"enabled": True}},
            nested("networkPolicy.monitoringFrom", []),
        ),
        "networkPolicy.monitoringFrom is empty",
    ),
    (
        nested("triton.tls", {"enabled": True, "mutual": True, "existingSecret": "s"}),
        "triton.tls.clientSecret is empty",
    ),
    (nested("gateway.auth.keysSecret", ""), "set gateway.auth.keysSecret or gateway.auth.issuers"),
    (nested("gateway.auth.enabled", False), "leave gateway.auth.enabled out"),
    (
        nested("gateway.auth.issuers", [{**ISSUER, "jwks": "https://k", "jwksSecret": "k"}]),
        "jwks and jwksSecret for https://login: leave one out",
    ),
    (nested("gateway.auth.issuers", [ISSUER]), "networkPolicy.gatewayEgress is empty"),
    (nested("gateway.timeoutSeconds", 31), "gateway.drainSeconds is 30"),
    (
        nested("gateway.service.type", "LoadBalancer"),
        "gateway.service.type is LoadBalancer and networkPolicy.gatewayFromCidrs is empty",
    ),
    (nested("gateway", {"enabled": False, "service": {"type": "NodePort"}}), "publishes the"),
    (nested("gateway.ingress.enabled", True), "gateway.ingress.host is empty"),
    (nested("gateway.httpRoute.enabled", True), "gateway.httpRoute.parentRefs is empty"),
    (nested("gateway.ingress", INGRESS), "networkPolicy.gatewayFrom is empty"),
    (nested("gateway.resources.requests.cpu", None), "gateway.resources.requests.cpu is missing"),
    (nested("gateway", {"enabled": False, "ingress": INGRESS}), "gateway.enabled is false"),
    (nested("monitoring.enabled", False), "prometheus-adapter and monitoring.enabled is false"),
    (merged(SCALED, nested("autoscaling.minReplicas", 11)), "autoscaling.minReplicas is 11"),
    (merged(SCALED, nested("autoscaling.minReplicas", 0)), "autoscaling.minReplicas is 0"),
    (nested("gateway.autoscaling.maxReplicas", 1), "gateway.autoscaling.minReplicas is 2"),
]


@pytest.fixture(scope="module")
def said(refusal) -> Callable[[dict], str]:
    """Give what helm says to values, asking it once for each."""

    @functools.cache
    def ask(values: str) -> str:
        told: str = refusal(yaml.safe_load(values), "1.32")
        return told

    return lambda values: ask(yaml.safe_dump(values))


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_values_that_do_not_fit_together_are_refused(said, values, message) -> None:
    assert message in said(values)


def test_an_image_volume_is_taken_from_kubernetes_1_33(render) -> None:
    assert render(IMAGE_VOLUME, "1.33")


def test_all_that_is_wrong_is_told_at_once(refusal) -> None:
    said = refusal({"imageRegistry": "", "gateway": {"timeoutSeconds": 99}})
    assert "imageRegistry is empty" in said
    assert "gateway.drainSeconds is 30" in said


#: Said of what a cluster has, and not by values alone: test_upgrade.py has it.
OF_THE_CLUSTER = "of the other mode runs"


def rules_by_name() -> list[str]:
    """Give the message of every rule, as its template has it."""
    text = (CHART / "templates" / "requirements.yaml").read_text(encoding="utf-8")
    found = re.findall(r'append \$wrong (?:\(printf )?"(.+?)"', text)
    assert len(found) == text.count("append $wrong")
    return [each for each in found if OF_THE_CLUSTER not in each]


@pytest.mark.parametrize("rule", rules_by_name())
def test_every_rule_is_tested(said, rule: str) -> None:
    # What is filled in differs; all else is the rule's own.
    pattern = re.sub(r"%[sdv]", ".+", re.escape(rule))
    assert any(re.search(pattern, said(values)) for values, _ in REFUSED)


@pytest.mark.parametrize(
    "values",
    [
        merged(SCALED, of_release("25.08"), nested("autoscaling.p95Ms", 9000)),
        merged(NO_SCALER, nested("triton.latencyBucketsMs", [10, 20])),
        merged(SCALED, nested("autoscaling.gpuSource", "dcgm-mig")),
        merged(NO_SCALER, nested("autoscaling.minReplicas", 99)),
        nested("triton.resources", {"requests": {"cpu": 4}, "limits": {"cpu": "4000m"}}),
        *(
            nested(
                "triton",
                {"instances": {tower: 1}, "batching": {**queue, "queueTimeoutUs": 0}},
            )
            for tower, queue in (
                ("image", {"maxQueueSize": 0}),
                ("text", {"text": {"maxQueueSize": 0}}),
            )
        ),
        nested("triton", {"gpu": {"count": 0}, "resources": {"limits": {"a.b/vgpu": 1}}}),
        nested("triton.image.tag", "26.08-py3-house.1"),
        nested("triton.image.tag", "house"),
        {"triton": {"profile": "cpu"}, "model": {"precision": {"image": "int8", "text": "int8"}}},
        nested("triton", {"engineCache": {"claimName": "a"}, **TENSORRT}),
        nested("gateway", {"enabled": False, "resources": {"requests": {"cpu": 64}}}),
        merged(INGRESS_OF_NODES, nested("networkPolicy.gatewayFromCidrs", ["10.0.0.0/8"])),
    ],
    ids=[
        *(
            "no histogram",
            "nobody reads the histogram",
            "slices of MIG's strategy single",
            "no scaler",
            "as much as the limit",
        ),
        *(
            "no limit",
            "no limit of texts",
            "a GPU by another name",
            "a tag of the release",
            "a tag",
            "int8 on CPUs",
            "engines of TensorRT",
        ),
        *("no gateway", "an ingress controller that is no pod"),
    ],
)
def test_a_rule_holds_only_where_its_subject_is(render, values) -> None:
    assert render(values)
