"""What stands around Triton's pods: Service, disruption budget, keys, certificates."""

from __future__ import annotations

import base64

import pytest

from chart.rendering import NAME, kinds, nested, one, triton

CERT_MANAGER = {"enabled": True, "issuerRef": {"name": "corporate", "kind": "ClusterIssuer"}}


def test_the_service_has_no_address_of_its_own(render) -> None:
    spec = one(render(), "Service", "-triton")["spec"]
    assert spec["clusterIP"] == "None"
    assert {each["name"]: each["port"] for each in spec["ports"]} == {"grpc": 8001, "metrics": 8002}


def test_the_services_ports_are_the_containers(render) -> None:
    objects = render()
    ports = {each["name"]: each["containerPort"] for each in triton(objects)["ports"]}
    for each in one(objects, "Service", "-triton")["spec"]["ports"]:
        assert ports[each["targetPort"]] == each["port"]


def test_a_nodes_upgrade_takes_so_many_pods_at_a_time(render) -> None:
    spec = one(render(nested("triton.pdbMaxUnavailable", 2)), "PodDisruptionBudget", "-triton")
    assert spec["spec"]["maxUnavailable"] == 2
    assert spec["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_keys_are_long_and_differ(render) -> None:
    data = one(render(), "Secret", "-keys")["data"]
    keys = {base64.b64decode(each).decode() for each in data.values()}
    assert set(data) == {"admin", "inference"}
    assert len(keys) == 2
    assert all(len(key) == 40 and key.isalnum() for key in keys)


def test_own_keys_are_not_made_anew(render) -> None:
    assert "Secret" not in kinds(render(nested("triton.security.existingSecret", "s")))


@pytest.mark.parametrize("mutual", [False, True])
def test_cert_manager_makes_what_is_needed(render, mutual) -> None:
    tls = {"enabled": True, "mutual": mutual, "certManager": CERT_MANAGER}
    objects = render({"triton": {"tls": tls}})
    names = {each["metadata"]["name"] for each in objects if each["kind"] == "Certificate"}
    assert names == ({f"{NAME}-triton", f"{NAME}-client"} if mutual else {f"{NAME}-triton"})


def test_the_certificate_names_the_host_that_callers_use(render) -> None:
    objects = render({"triton": {"tls": {"enabled": True, "certManager": CERT_MANAGER}}})
    spec = one(objects, "Certificate", "-triton")["spec"]
    assert f"{NAME}-triton.vision.svc" in spec["dnsNames"]
    assert spec["issuerRef"] == CERT_MANAGER["issuerRef"]
    assert spec["secretName"] == f"{NAME}-triton-tls"


def test_without_tls_there_is_no_certificate(render) -> None:
    assert "Certificate" not in kinds(render())
