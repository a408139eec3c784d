"""The network policies: nothing but what is named."""

from __future__ import annotations

import pytest

from chart.rendering import kinds, merged, nested, one

UNWATCHED = {"networkPolicy": {"monitoringFrom": []}, "autoscaling": {"driver": "none"}}
SHOP = {"kubernetes.io/metadata.name": "shop"}


def policy(objects, name: str) -> dict:
    return one(objects, "NetworkPolicy", f"-{name}")["spec"]


def sources(spec: dict, port: int) -> list[dict]:
    return [
        peer
        for rule in spec.get("ingress") or []
        if rule["ports"][0]["port"] == port
        for peer in rule["from"]
    ]


def test_everything_is_denied_to_every_pod_of_the_release(render) -> None:
    spec = policy(render(), "deny")
    assert set(spec) == {"podSelector", "policyTypes"}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "app.kubernetes.io/component" not in spec["podSelector"]["matchLabels"]


def test_the_policies_can_be_left_out(render) -> None:
    assert "NetworkPolicy" not in kinds(render(nested("networkPolicy.enabled", False)))


def test_triton_hears_the_gateway_the_doctor_and_named_namespaces(render) -> None:
    spec = policy(render(nested("networkPolicy.tritonFrom", [SHOP])), "triton")
    key = "app.kubernetes.io/component"
    peers = sources(spec, 8001)
    pods = [each["podSelector"]["matchLabels"][key] for each in peers if "podSelector" in each]
    spaces = [each["namespaceSelector"] for each in peers if "namespaceSelector" in each]
    assert pods == ["gateway", "test"]
    assert spaces == [{"matchLabels": SHOP}]


def test_nobody_hears_tritons_http(render) -> None:
    rules = policy(render(), "triton")["ingress"]
    assert {each["port"] for rule in rules for each in rule["ports"]} == {8001, 8002}


def test_triton_reaches_nothing_unless_told(render) -> None:
    assert "egress" not in policy(render(), "triton")
    rule = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    egress = policy(render(nested("networkPolicy.tritonEgress", [rule])), "triton")["egress"]
    assert egress[-1] == rule


def test_the_gateway_hears_named_namespaces_alone(render) -> None:
    assert not sources(policy(render(), "gateway"), 8000)
    spec = policy(render(nested("networkPolicy.gatewayFrom", [SHOP])), "gateway")
    assert sources(spec, 8000) == [{"namespaceSelector": {"matchLabels": SHOP}}]


def test_the_gateway_hears_addresses_outside_the_cluster(render) -> None:
    cidrs = ["10.0.0.0/8", "2001:db8::/32"]
    wanted = [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]
    values = nested("networkPolicy.gatewayFromCidrs", cidrs)
    assert sources(policy(render(values), "gateway"), 8000) == wanted
    both = merged(values, nested("networkPolicy.gatewayFrom", [SHOP]))
    named = {"namespaceSelector": {"matchLabels": SHOP}}
    assert sources(policy(render(both), "gateway"), 8000) == [named, *wanted]


def test_callers_reach_names_and_triton_and_no_more(render) -> None:
    egress = policy(render(), "callers")["egress"]
    assert [[each["port"] for each in rule["ports"]] for rule in egress] == [[53, 53], [8001]]
    assert all(rule["to"] for rule in egress)


def test_the_gateway_reaches_what_the_values_add(render) -> None:
    rule = {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [{"port": 443}]}
    objects = render(nested("networkPolicy.gatewayEgress", [rule]))
    assert policy(objects, "callers")["egress"][-1] == rule
    assert "egress" not in policy(objects, "gateway")


@pytest.mark.parametrize(("component", "port"), [("triton", 8002), ("gateway", 9090)])
def test_prometheus_reads_the_metrics(render, component, port) -> None:
    space = {"kubernetes.io/metadata.name": "metrics"}
    objects = render(nested("networkPolicy.monitoringFrom", [space]))
    wanted = [{"namespaceSelector": {"matchLabels": space}}]
    assert sources(policy(objects, component), port) == wanted
    # No namespace named is nobody, not everybody.
    objects = render(UNWATCHED)
    rules = policy(objects, component).get("ingress") or []
    assert port not in [each["port"] for rule in rules for each in rule["ports"]]


def test_no_rule_is_open_to_everybody(render) -> None:
    for each in render(UNWATCHED):
        if each["kind"] == "NetworkPolicy":
            for rule in each["spec"].get("ingress") or []:
                assert rule["from"]


def test_names_can_be_had_elsewhere(render) -> None:
    space = {"kubernetes.io/metadata.name": "openshift-dns"}
    values = {"dnsNamespace": space, "dnsPorts": [5353], "dnsCidrs": ["169.254.20.10/32"]}
    rule = policy(render({"networkPolicy": values}), "callers")["egress"][0]
    assert rule["to"] == [
        {"namespaceSelector": {"matchLabels": space}},
        {"ipBlock": {"cidr": "169.254.20.10/32"}},
    ]
    assert rule["ports"] == [{"port": 5353, "protocol": each} for each in ("UDP", "TCP")]
