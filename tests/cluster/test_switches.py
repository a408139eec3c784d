"""Settings switched in a running release, by the runbook, while callers are answered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
import trustme
import yaml

from cluster.release import BASE, CHART, Cluster, run

#: Calls the gateway, each time by a new connection, and prints each answer's status.
CALLER = """
import http.client, time
while True:
    try:
        connection = http.client.HTTPConnection("wanwu-gateway", timeout=10)
        connection.request("GET", "/readyz")
        print(connection.getresponse().status, flush=True)
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        print("failed", time.strftime("%X"), repr(error), flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def gateway_from(ready: Cluster) -> tuple[str, ...]:
    """Values by which the pods of this namespace reach the gateway."""
    here = [{"kubernetes.io/metadata.name": ready.namespace}]
    return ("--set-json", f"networkPolicy.gatewayFrom={json.dumps(here)}")


@pytest.fixture
def answers(ready: Cluster, gateway_from: tuple[str, ...]) -> Iterator[Callable[[], list[str]]]:
    """Call the gateway from a pod, over and over; return what was answered so far."""
    doctor = ("-s", "templates/tests/doctor.yaml")
    pod = yaml.safe_load(ready.helm("template", "wanwu", str(CHART), *BASE, *doctor))
    pod["metadata"] = {"name": "caller"}
    del pod["spec"]["containers"][0]["args"]
    pod["spec"]["containers"][0]["command"] = ["python", "-uc", CALLER]
    pod["spec"]["terminationGracePeriodSeconds"] = 1
    ready.upgrade(*gateway_from, "--set", "gateway.audit.mode=stdout")
    ready.kubectl("rollout", "status", "deployment/wanwu-gateway", "--timeout=15m")
    ready.kubectl("apply", "-f", "-", given=yaml.safe_dump(pod))
    try:
        ready.kubectl("wait", "pod/caller", "--for=condition=Ready", "--timeout=5m")
        time.sleep(5)
        yield lambda: ready.kubectl("logs", "caller", "--tail=-1").splitlines()
    finally:
        ready.kubectl("delete", "pod", "caller", "--ignore-not-found")


def all_right(answers: Callable[[], list[str]], more_than: int = 0) -> int:
    """Check that the callers had the right answer each time; return how many there were."""
    found = answers()
    assert len(found) > more_than + 50
    assert set(found) == {"200"}, [each for each in found if each != "200"]
    return len(found)


@pytest.mark.timeout(7200)
def test_the_audit_mode_is_switched_under_a_steady_load(
    ready: Cluster, gateway_from: tuple[str, ...], answers: Callable[[], list[str]]
) -> None:
    default = 'storageclass.kubernetes.io/is-default-class: "true"'
    if default not in run("kubectl", "get", "storageclass", "-o", "yaml"):
        pytest.skip("the cluster has no default StorageClass for the claims of the audit log")
    count = all_right(answers)
    pvc = ("--set", "gateway.audit.mode=pvc")
    refused = ready.helm("upgrade", "wanwu", str(CHART), *BASE, *pvc, check=False)
    assert "helm.sh/resource-policy=keep" in refused
    heading = "Switch the audit mode"
    ready.follow(heading, *gateway_from, *pvc)
    kinds = {
        each["kind"] for each in ready.objects() if each["metadata"]["name"] == "wanwu-gateway"
    }
    assert "StatefulSet" in kinds
    assert "Deployment" not in kinds
    count = all_right(answers, count)
    ready.follow(heading, *gateway_from, "--set", "gateway.audit.mode=stdout", swapped=True)
    time.sleep(20)  # by then the last pod of the other kind has ended
    all_right(answers, count)


@pytest.fixture
def certificate(ready: Cluster) -> str:
    """Make a Secret with a certificate of Triton's name; return the Secret's."""
    authority = trustme.CA()
    host = f"wanwu-triton.{ready.namespace}.svc"
    issued = authority.issue_cert(host, f"{host}.cluster.local")
    data = {
        "tls.crt": b"".join(part.bytes() for part in issued.cert_chain_pems),
        "tls.key": issued.private_key_pem.bytes(),
        "ca.crt": authority.cert_pem.bytes(),
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wanwu-test-tls"}}
    secret["stringData"] = {name: each.decode() for name, each in data.items()}
    ready.kubectl("apply", "-f", "-", given=yaml.safe_dump(secret))
    return "wanwu-test-tls"


@pytest.mark.timeout(7200)
def test_tls_is_turned_on_and_off_under_a_steady_load(
    ready: Cluster,
    gateway_from: tuple[str, ...],
    answers: Callable[[], list[str]],
    certificate: str,
) -> None:
    heading = "Turn TLS on or off"
    secret = ("--set", f"triton.tls.existingSecret={certificate}")
    count = all_right(answers)
    ready.follow(heading, *gateway_from, "--set", "triton.tls.enabled=true", *secret)
    count = all_right(answers, count)
    ready.follow(heading, *gateway_from, "--set", "triton.tls.enabled=false")
    time.sleep(20)
    all_right(answers, count)
