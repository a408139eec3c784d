"""templates/triton/_args.tpl: Triton's command line."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chart.live import NEWER
from chart.rendering import CI_FILES, arguments, nested, of_release, one, triton
from wanwu.channel import API_KEY_HEADER
from wanwu.embedded.server import ADMIN_KEY_NAME, ADMIN_PROTOCOLS, triton_folder

GROUPS = {
    *("health", "metadata", "inference", "shared-memory", "model-config"),
    *("model-repository", "statistics", "trace", "logging"),
}


def restricted(objects, option: str) -> dict[str, set[str]]:
    found = {}
    for each in arguments(triton(objects)).get(option, []):
        groups, _, key = each.partition(":")
        found[key] = set(groups.split(","))
    return found


@pytest.mark.parametrize("file", CI_FILES, ids=lambda file: file.stem)
def test_triton_knows_every_option(render, file, need) -> None:
    binary = triton_folder() / "bin" / "tritonserver"
    need(shutil.which(str(binary)) is not None, "Triton: pip install 'wanwu[server]'")
    known = subprocess.run([binary, "--help"], capture_output=True, text=True).stderr
    names = set(re.findall(r"(?m)^\s*(--[a-z0-9-]+)", known))
    assert set(arguments(triton(render(file)))) <= names | set(NEWER)


def test_the_rendered_config_is_the_one_that_is_served(render) -> None:
    found = arguments(triton(render()))
    assert found["--model-config-name"] == ["chart"]
    assert found["--model-repository"] == ["/models"]
    assert found["--load-model"] == ["*"]


def test_connections_end_so_that_callers_find_new_pods(render) -> None:
    grpc = {"maxConnectionAgeMs": 12000, "maxConnectionAgeGraceMs": 5000}
    found = arguments(triton(render({"triton": {"grpc": grpc}})))
    assert found["--grpc-max-connection-age"] == ["12000"]
    assert found["--grpc-max-connection-age-grace"] == ["5000"]


def test_only_the_admin_key_changes_the_server(render) -> None:
    found = restricted(render(), "--grpc-restricted-protocol")
    (groups,) = found.values()
    assert set(found) == {f"{ADMIN_KEY_NAME}=$(WANWU_ADMIN_KEY)"}
    assert groups == {*ADMIN_PROTOCOLS.split(","), "model-config"}


def test_a_caller_needs_the_inference_key_where_it_is_wanted(render) -> None:
    found = restricted(
        render(nested("triton.security.inferenceKey", True)), "--grpc-restricted-protocol"
    )
    key = API_KEY_HEADER.removeprefix("triton-grpc-protocol-")
    assert found[f"{key}=$(WANWU_API_KEY)"] == {"inference", "health", "metadata", "statistics"}
    groups = [group for each in found.values() for group in each]
    assert sorted(groups) == sorted(GROUPS)  # each in one alone, and none left out


def test_http_leaves_only_health_open(render) -> None:
    (groups,) = restricted(render(), "--http-restricted-api").values()
    assert groups == GROUPS - {"health"}


@pytest.mark.parametrize(
    ("release", "configs"),
    [
        ("26.01", ["histogram_latencies=true"]),
        ("25.12", ["summary_latencies=true", "summary_quantiles=0.5:0.05,0.95:0.001"]),
    ],
)
def test_latency_is_measured_as_the_release_can(render, release, configs) -> None:
    found = arguments(triton(render(of_release(release))))
    assert found["--metrics-config"] == configs


@pytest.mark.parametrize(
    ("release", "bound"), [("26.08", ["8"]), ("25.03", ["8"]), ("25.02", None)]
)
def test_the_responses_of_a_request_are_bounded_where_the_release_can(
    render, release, bound
) -> None:
    found = arguments(triton(render(of_release(release))))
    assert found.get("--grpc-max-response-pool-size") == bound


def test_keys_come_from_the_secret_and_are_in_no_manifest(render) -> None:
    objects = render(nested("triton.security", {"existingSecret": "s", "inferenceKey": True}))
    names = {each["name"]: each.get("valueFrom") for each in triton(objects)["env"]}
    assert names["WANWU_ADMIN_KEY"] == {"secretKeyRef": {"name": "s", "key": "admin"}}
    assert names["WANWU_API_KEY"] == {"secretKeyRef": {"name": "s", "key": "inference"}}


def test_tls_is_off_on_or_mutual(render) -> None:
    tls = {"enabled": True, "existingSecret": "s"}
    off = arguments(triton(render()))
    on = arguments(triton(render({"triton": {"tls": tls}})))
    tls |= {"mutual": True, "clientSecret": "c"}
    mutual = arguments(triton(render({"triton": {"tls": tls}})))
    assert not [each for each in off if "ssl" in each]
    assert on["--grpc-use-ssl"] == ["true"]
    assert "--grpc-use-ssl-mutual" not in on
    assert mutual["--grpc-root-cert"] == ["/tls/ca.crt"]


def test_the_certificate_is_mounted_where_triton_looks(render) -> None:
    objects = render({"triton": {"tls": {"enabled": True, "existingSecret": "s"}}})
    mounts = {each["name"]: each["mountPath"] for each in triton(objects)["volumeMounts"]}
    certificate = arguments(triton(objects))["--grpc-server-cert"][0]
    assert Path(certificate).parent == Path(mounts["tls"])
    volumes = one(objects, "Deployment", "-triton")["spec"]["template"]["spec"]["volumes"]
    assert {"secretName": "s", "defaultMode": 0o440} in [each.get("secret") for each in volumes]


def test_further_arguments_come_last(render) -> None:
    objects = render(nested("triton.extraArgs", ["--log-verbose=1"]))
    assert triton(objects)["args"][-1] == "--log-verbose=1"


def test_the_cpu_profile_measures_no_gpu(render) -> None:
    found = arguments(triton(render(nested("triton.profile", "cpu"))))
    assert found["--allow-gpu-metrics"] == ["false"]
