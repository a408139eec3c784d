"""How the gateway and `helm test` speak to Triton, the doctor's command itself, and the notes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from chart.rendering import (
    CHART,
    NAME,
    NEEDED,
    environment,
    gateway,
    merged,
    nested,
    one,
    pod_of,
)
from wanwu.channel import by_name, check_url
from wanwu.embedded.server import EmbeddedServer, free_port

MUTUAL = {"enabled": True, "mutual": True, "existingSecret": "server", "clientSecret": "client"}


def doctor(objects) -> dict:
    return pod_of(one(objects, "Pod", "-doctor"))["containers"][0]


def both(objects) -> list[dict]:
    return [gateway(objects), doctor(objects)]


def test_callers_look_up_every_pod_of_triton(render) -> None:
    for container in both(render()):
        url = environment(container)["WANWU_URL"]
        assert url == f"dns:///{NAME}-triton.vision.svc:8001"
        assert by_name(check_url(url))


def test_callers_bring_the_key_where_it_is_wanted(render) -> None:
    for container in both(render(nested("triton.security.inferenceKey", True))):
        wanted = {"secretKeyRef": {"name": f"{NAME}-keys", "key": "inference"}}
        assert {"name": "WANWU_API_KEY", "valueFrom": wanted} in container["env"]
    for container in both(render()):
        assert "WANWU_API_KEY" not in [each["name"] for each in container["env"]]


def test_callers_bring_their_certificate_for_mutual_tls(render) -> None:
    for container in both(render(nested("triton.tls", MUTUAL))):
        found = environment(container)
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        assert found["WANWU_TLS_CA"] == f"{mounts['server-tls']}/ca.crt"
        assert found["WANWU_TLS_CERT"] == f"{mounts['client-tls']}/tls.crt"
        assert found["WANWU_TLS_KEY"] == f"{mounts['client-tls']}/tls.key"


def test_callers_never_see_the_servers_key(render) -> None:
    objects = render(nested("triton.tls", MUTUAL))
    for pod in (one(objects, "Deployment", "-gateway"), one(objects, "Pod", "-doctor")):
        volumes = {each["name"]: each.get("secret") for each in pod_of(pod)["volumes"]}
        assert volumes["server-tls"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
        assert volumes["client-tls"]["secretName"] == "client"


def test_the_time_of_an_answer_is_the_values(render) -> None:
    for container in both(render(nested("gateway.timeoutSeconds", 7))):
        assert environment(container)["WANWU_TIMEOUT_S"] == "7"


def test_helm_test_is_a_hook_that_cleans_up(render) -> None:
    pod = one(render(), "Pod", "-doctor")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["restartPolicy"] == "Never"


def run_doctor(container: dict, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the rendered command here, with Triton's address and /tmp replaced."""
    found = environment(container) | {"WANWU_URL": url, "WANWU_CACHE_DIR": str(folder / "cache")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [*container["command"], container["args"][0].replace("/tmp/", f"{folder}/")]  # noqa: S108
    return subprocess.run(
        command, env={**found, "PATH": path, "WANWU_LANG": "en"}, capture_output=True, text=True
    )


def test_the_doctor_finds_the_model_of_the_values(
    render, server: EmbeddedServer, recognizer, tmp_path: Path
) -> None:
    fingerprint = str(recognizer.contract().fingerprint)
    container = doctor(render(nested("model.fingerprint", fingerprint)))
    done = run_doctor(container, server.url, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert fingerprint in done.stdout


def test_the_doctor_fails_on_another_model(render, server: EmbeddedServer, tmp_path: Path) -> None:
    done = run_doctor(doctor(render(nested("model.fingerprint", "12345"))), server.url, tmp_path)
    assert done.returncode == 1
    assert "another model than model.fingerprint, 12345" in done.stderr


def test_the_doctor_fails_without_triton(render, tmp_path: Path) -> None:
    done = run_doctor(doctor(render()), f"127.0.0.1:{free_port()}", tmp_path)
    assert done.returncode != 0
    assert "FAIL" in done.stdout


@pytest.fixture
def notes(need, tmp_path: Path) -> Callable[[dict], str]:
    """Return the notes that helm shows after an install with some values."""
    helm = shutil.which("helm")
    need(helm is not None, "helm")

    def shown(values: dict) -> str:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(merged(NEEDED, values)))
        command = [str(helm), "install", "w", str(CHART), "--dry-run=client", f"--values={file}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:")[2]

    return shown


OUTSIDE = nested("networkPolicy.gatewayFromCidrs", ["10.0.0.0/8"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "port-forward service/w-wanwu-gateway 8000:80"),
        ({}, "networkPolicy.gatewayFrom is empty"),
        ({}, "model.image is not set"),
        (nested("gateway.enabled", False), "wanwu recognize photo.jpg --url dns:///w-wanwu-triton"),
        (
            nested("gateway", {"auth": {"enabled": False, "keysSecret": ""}}),
            "gateway.auth.enabled is false",
        ),
        (nested("networkPolicy.enabled", False), "networkPolicy.enabled is false"),
        (nested("triton.replicas", 12), "triton.replicas is 12 and counts only where"),
        (nested("gateway.replicas", 1), "gateway.replicas is 1 and counts only where"),
        (nested("triton.tensorrt.enabled", True), "builds TensorRT engines for minutes"),
        (
            nested("model", {"name": "m", "precision": {"image": "fp16"}}),
            "serves m in namespace default, images in fp16 and texts in ?.",
        ),
        (nested("model.precision.image", "fp32"), "takes twice the memory of fp16"),
        *(
            (
                {"triton": {"profile": "cpu"}, **nested(f"model.precision.{tower}", "fp16")},
                f"model.precision.{tower} is fp16: CPUs compute it in FP32, slower than int8.",
            )
            for tower in ("image", "text")
        ),
        (
            {
                "triton": {"image": {"release": "25.08"}, "acceptKnownVulnerabilities": True},
                "autoscaling": {"driver": "keda"},
                "monitoring": {"enabled": True},
            },
            "triton.image.release 25.08 has no latency histogram",
        ),
        (
            nested("triton", {"image": {"release": "26.07"}, "acceptKnownVulnerabilities": True}),
            "is true, and release 26.07 lacks the fixes for server#8870.",
        ),
        (
            {
                "triton": {"profile": "cpu"},
                "autoscaling": {"driver": "keda"},
                "monitoring": {"enabled": True},
            },
            "autoscaling.p95Ms is 0: a P95 of 300 ms is held, the default of the cpu profile.",
        ),
        (
            {
                "gateway": {"ingress": {"enabled": True, "host": "w.example", "tlsSecret": "t"}},
                "networkPolicy": {"gatewayFrom": [{"a": "b"}]},
            },
            "   https://w.example\n",
        ),
        (
            {
                "gateway": {
                    "httpRoute": {
                        "enabled": True,
                        "parentRefs": [{"name": "corporate"}],
                        "hostnames": ["w.example"],
                    }
                },
                "networkPolicy": {"gatewayFrom": [{"a": "b"}]},
            },
            "https://w.example    # http where the Gateway's listener is",
        ),
        (OUTSIDE | nested("gateway.service.type", "LoadBalancer"), "http://EXTERNAL-IP:80"),
        (OUTSIDE | nested("gateway.service.type", "NodePort"), "http://NODE:NODE_PORT"),
        (nested("gateway.enabled", False), "networkPolicy.tritonFrom is empty: nobody but"),
        (
            {"gateway": {"enabled": False}, "triton": {"security": {"inferenceKey": True}}},
            'export WANWU_API_KEY="$(kubectl -n default get secret w-wanwu-keys '
            "-o jsonpath='{.data.inference}' | base64 -d)\"",
        ),
        (
            {
                "gateway": {"enabled": False},
                "triton": {"tls": {"enabled": True, "existingSecret": "corporate"}},
            },
            "get secret corporate -o jsonpath='{.data.ca\\.crt}' | base64 -d > ca.crt",
        ),
    ],
)
def test_the_notes_give_the_next_command_and_what_to_know(notes, values, said) -> None:
    found = notes(values)
    assert said in found
    assert "helm -n default test w" in found


@pytest.mark.parametrize(
    ("profile", "precision"), [("cpu", "fp32"), ("gpu", "fp16"), ("cpu", "int8"), ("gpu", "")]
)
def test_the_notes_have_nothing_to_say_to_the_precision_of_a_profile(
    notes, profile, precision
) -> None:
    model = {"image": {"height": 8, "width": 8}, "precision": {"image": precision}}
    quiet = merged(
        nested("networkPolicy.gatewayFrom", [{"a": "b"}]),
        nested("gateway.autoscaling.enabled", False),
        nested("autoscaling.p95Ms", 200),
    )
    assert "Note:" not in notes({"triton": {"profile": profile}, "model": model, **quiet})
