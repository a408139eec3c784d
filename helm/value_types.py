"""What values of the chart must look like, beyond the kind of their defaults, by their keys.

Kubernetes would refuse most of what is refused here too, but only in the cluster, and part by part.
"""

from __future__ import annotations

from typing import Any

from wanwu.gateway.keys import SCOPES
from wanwu.gateway.settings import PREFIX, GatewaySettings

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_KEY = r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_IMAGE = "[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
_PART = r"([^/.]|\.[^/.]|\.\.[^/])[^/]*"
_ADDRESS = r"https?://[^\s]+"

#: Settings of the gateway that the chart writes from other values, or leaves to its proxies.
SET_BY_CHART = {
    *("host", "port", "metrics_port", "tls_cert", "tls_key", "tls_client_ca"),
    *("tls_client_scopes", "auth", "keys_file", "issuers", "audit", "drain_s"),
    *("audit_head", "audit_key"),
}

#: What a text must look like; "" stands for nothing where that is the default.
PATTERNS = {
    # A release without quotes would be read as a number, 26.10 as 26.1.
    "release": r"[0-9]{2}\.(0[1-9]|1[0-2])",
    "fingerprint": "[0-9]*",
    "manifestSha256": "[0-9a-f]{64}",
    "imageRegistry": r"[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*/?",
    "repository": _IMAGE,
    "tag": "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}",
    "digest": "sha256:[0-9a-f]{64}",
    "path": r"/[^\s]*",
    # Neither absolute, nor out of the claim.
    "subPath": f"{_PART}(/{_PART})*/?",
    "url": r"s3://[a-z0-9][a-z0-9.-]*(/[^\s]*)?",
    "endpoint": _ADDRESS,
    "prometheusUrl": _ADDRESS,
    "runbookUrl": _ADDRESS,
    "nameOverride": _LABEL,
    "fullnameOverride": _LABEL,
    "host": rf"(\*\.)?{_NAME}",
    "resourceName": r"[a-z0-9.-]+/[A-Za-z0-9._-]+",
    **dict.fromkeys(
        (
            *("claimName", "existingSecret", "clientSecret", "keysSecret"),
            *("tlsSecret", "storageClassName", "className", "keySecret", "headClaim"),
            *("runtimeClassName", "priorityClassName", "schedulerName"),
        ),
        _NAME,
    ),
}

QUANTITY = {
    "type": ["string", "number"],
    "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
    "minimum": 0,
}
_STRING = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": _STRING}
_LABELS = {**_TEXTS, "propertyNames": {"pattern": f"^{_KEY}$"}}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
    }


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$"}


# Options that the probes, ports, volumes and keys of the pod depend on.
_OWN_ARGS = (
    "^--(model-repository|model-config-name|model-control-mode|load-model|(http|grpc|metrics)-port"
    "|(http|grpc|metrics)-address|grpc-restricted-protocol|http-restricted-api|exit-timeout-secs)(=|$)"
)
_RULES = {
    "type": "array",
    "items": _object(
        [], to={"type": "array", "minItems": 1}, ports={"type": "array", "minItems": 1}
    ),
}
# Labels of none would be those of every namespace.
_NAMESPACE = {**_LABELS, "minProperties": 1}
_NAMESPACES = {"type": "array", "items": _NAMESPACE}
_CIDRS = {
    "type": "array",
    "items": _text(r"([0-9.]+/([12]?[0-9]|3[0-2])|[0-9a-fA-F:]+/([1-9]?[0-9]|1[01][0-9]|12[0-8]))"),
}
_QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
_TOLERATION = _object(
    [],
    key=_STRING,
    operator={"enum": ["Exists", "Equal", "Lt", "Gt"]},
    value=_STRING,
    effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
    tolerationSeconds={"type": "integer"},
)
#: Lists that Kubernetes knows more of than the chart.
_NAMED = {
    "type": "array",
    "items": {"type": "object", "required": ["name"], "properties": {"name": _STRING}},
}
# Those of Wanwu are made from other values, or are gateway.settings.
_OWN = "^(WANWU_|HOME$|CUDA_CACHE_PATH$|ORT_DISABLE_TELEMETRY$|NVIDIA_VISIBLE_DEVICES$|AWS_E|AWS_D)"
_ENVIRONMENT = {
    **_NAMED,
    "items": {
        **_NAMED["items"],
        "properties": {"name": {"type": "string", "not": {"pattern": _OWN}}},
    },
}
_PARENT = _object(
    ["name"],
    name=_text(_NAME),
    namespace=_text(_LABEL),
    group=_STRING,
    kind=_STRING,
    sectionName=_STRING,
    port={"type": "integer"},
)

_SCOPES = {"type": "array", "items": {"enum": list(SCOPES)}}
_ISSUER = _object(
    ["issuer", "audience"],
    issuer=_text(".+"),
    audience=_text(".+"),
    jwks=_text(_ADDRESS),
    jwksSecret=_text(_NAME),
    claims={"type": "array", "items": _STRING},
    roles={"type": "object", "additionalProperties": _SCOPES},
    insecure={"type": "boolean"},
)

#: Whole types of lists, maps and quantities.
TYPES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("shmSize", "cacheSize", "size"), QUANTITY),
    "resources": _object([], requests=_QUANTITIES, limits=_QUANTITIES, claims={"type": "array"}),
    "imagePullSecrets": {"type": "array", "items": _object(["name"], name=_text(_NAME))},
    "gatewayFrom": _NAMESPACES,
    "tritonFrom": _NAMESPACES,
    "monitoringFrom": _NAMESPACES,
    "dnsNamespace": _NAMESPACE,
    "gatewayFromCidrs": _CIDRS,
    "dnsCidrs": _CIDRS,
    "dnsPorts": {
        "type": "array",
        "minItems": 1,
        "items": {"type": "integer", "minimum": 1, "maximum": 65535},
    },
    "gatewayEgress": _RULES,
    "tritonEgress": _RULES,
    "tolerations": {"type": "array", "items": _TOLERATION},
    "nodeSelector": _LABELS,
    "labels": _LABELS,
    "dashboardLabels": _LABELS,
    "annotations": _TEXTS,
    "podAnnotations": _TEXTS,
    "extraArgs": {
        "type": "array",
        "items": {**_text(r"--[a-z][a-z0-9-]*(=.*)?"), "not": {"pattern": _OWN_ARGS}},
    },
    "preferredBatchSizes": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
        "uniqueItems": True,
    },
    "latencyBucketsMs": {"type": "array", "minItems": 1, "items": {"type": "number"}},
    "parentRefs": {"type": "array", "items": _PARENT},
    "hostnames": {"type": "array", "items": _text(PATTERNS["host"])},
    "issuerRef": _object([], name=_STRING, kind=_STRING, group=_STRING),
    "ipFamilies": {
        "type": "array",
        "items": {"enum": ["IPv4", "IPv6"]},
        "maxItems": 2,
        "uniqueItems": True,
    },
    "podLabels": _LABELS,
    "prometheusAuthenticationRef": _object(
        [],
        name=_text(_NAME),
        kind={"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]},
    ),
    "resourceClaims": {
        **_NAMED,
        "items": {
            **_NAMED["items"],
            "oneOf": [
                {"required": ["resourceClaimName"]},
                {"required": ["resourceClaimTemplateName"]},
            ],
        },
    },
    "extraEnv": _ENVIRONMENT,
    "extraVolumes": _NAMED,
    "extraVolumeMounts": _NAMED,
    "issuers": {"type": "array", "items": _ISSUER},
    "settings": {
        "type": "object",
        "propertyNames": {
            "enum": [
                PREFIX + name.upper()
                for name in GatewaySettings.model_fields
                if name not in SET_BY_CHART
            ]
        },
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    },
}
