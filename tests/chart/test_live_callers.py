"""The rendered gateway and doctor, run as they are written, before a real Triton and real TLS."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
import yaml
from dnslib import QTYPE, RCODE, RR, A
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from chart.live import ChartServer, Container, Machine, Secrets, lay
from chart.rendering import CHART, NAME, environment, gateway, merged, one
from support.http import post_picture, request
from wanwu.channel import Tls
from wanwu.embedded.server import ServerOptions, free_port
from wanwu.gateway.keys import create_key
from wanwu.samples import cat_photo

#: Who is refused at the door waits for this long, for it may be that the door opens.
QUICK = {"WANWU_TIMEOUT_S": "3"}
#: What PyPI's Triton, 24.10 and without a GPU, needs; and what makes it start and end soon.
HERE = {
    "triton": {
        "profile": "cpu",
        "image": {"release": "24.10"},
        "acceptKnownVulnerabilities": True,
        "warmup": False,
        "batching": {"queueTimeoutUs": 2000000},
        "exitTimeoutSeconds": 2,
    }
}


def example(name: str) -> dict:
    values: dict = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    return values


@pytest.fixture(scope="module")
def tls_objects(render, model) -> list[dict]:
    return render(merged(example("tls"), HERE, {"model": model}))


@pytest.fixture(scope="module")
def papers(tls_objects) -> Secrets:
    """What cert-manager would write for the rendered Certificates."""
    authority = trustme.CA()
    found = {}
    for each in tls_objects:
        if each["kind"] == "Certificate":
            spec = each["spec"]
            # The harness asks at localhost whether Triton is ready.
            issued = authority.issue_cert(
                *spec["dnsNames"], "localhost", common_name=spec.get("commonName")
            )
            found[spec["secretName"]] = {
                "tls.crt": b"".join(part.bytes() for part in issued.cert_chain_pems),
                "tls.key": issued.private_key_pem.bytes(),
                "ca.crt": authority.cert_pem.bytes(),
            }
    return found


@pytest.fixture(scope="module")
def secrets(papers: Secrets, tmp_path_factory) -> Secrets:
    """Every Secret that the examples name; the caller's key lies beside its hash."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    _, token = create_key(file, "shop", ("recognise",))
    keys = {"keys.json": file.read_bytes(), "token": token.encode()}
    triton_keys = {"admin": b"rules-the-house", "inference": b"correct-horse"}
    return {"wanwu-gateway-keys": keys, "triton-keys": triton_keys, **papers}


@pytest.fixture(scope="module")
def secured(tls_objects, secrets, repository: Path, tmp_path_factory) -> Iterator[ChartServer]:
    """A Triton by the command line of the example with TLS."""
    folder = tmp_path_factory.mktemp("triton")
    laid = lay(tls_objects, repository, folder)
    assert laid.returncode == 0, laid.stderr
    machine = Machine(folder, secrets, {"/models": folder / "models"})
    container = machine.container(one(tls_objects, "Deployment", "-triton"))
    for name, text in secrets[f"{NAME}-client-tls"].items():
        (folder / name).write_bytes(text)
    tls = Tls(ca=folder / "ca.crt", cert=folder / "tls.crt", key=folder / "tls.key")
    options = options_of(repository, tls, container.environment["WANWU_API_KEY"])
    with ChartServer(options, container) as server:
        yield server


def options_of(repository: Path, tls: Tls, api_key: str | None = None) -> ServerOptions:
    return ServerOptions(
        repository,
        host="localhost",
        grpc_port=free_port(),
        http_port=free_port(),
        metrics_port=free_port(),
        tls=tls,
        api_key=api_key,
    )


class Name(BaseResolver):
    """One name, that of this machine."""

    def __init__(self, name: str) -> None:
        self.name = name

    def resolve(self, request, handler):
        reply = request.reply()
        if not request.q.qname.matchGlob(self.name):
            reply.header.rcode = RCODE.NXDOMAIN
        elif QTYPE[request.q.qtype] == "A":
            reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A("127.0.0.1")))
        return reply


@pytest.fixture(scope="module")
def url(tls_objects, secured: ChartServer) -> Iterator[str]:
    """The address that callers have in the cluster, looked up and connected to here."""
    rendered = environment(gateway(tls_objects))["WANWU_URL"]
    host = rendered.removeprefix("dns:///").removesuffix(":8001")
    assert host == f"{NAME}-triton.vision.svc"
    quiet = DNSLogger(logf=lambda line: None)
    port = free_port()
    names = DNSServer(Name(host), address="127.0.0.1", port=port, logger=quiet)
    names.start_thread()
    yield f"dns://127.0.0.1:{port}/{host}:{secured.options.grpc_port}"
    names.stop()
    names.server.server_close()


@dataclass(frozen=True)
class Running:
    """A gateway that answers: its addresses, a caller's key, and what it writes down."""

    url: str
    metrics: str
    key: str
    audit: Path
    log: Path


@contextmanager
def started(objects: list[dict], secrets: Secrets, url: str, folder: Path) -> Iterator[Running]:
    """Run the rendered gateway until the block ends; it must end in order."""
    ports = {"http": free_port(), "metrics": free_port()}
    changed = {
        "WANWU_URL": url,
        "WANWU_GATEWAY_PORT": str(ports["http"]),
        "WANWU_GATEWAY_METRICS_PORT": str(ports["metrics"]),
    }
    workload = one(objects, "Deployment", "-gateway")
    container = Machine(folder, secrets).container(workload, **changed)
    base = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    key = secrets["wanwu-gateway-keys"]["token"].decode()
    running = Running(base["http"], base["metrics"], key, folder / "out", folder / "err")
    with running.audit.open("wb") as out, running.log.open("wb") as err:
        process = subprocess.Popen(
            container.words, env=container.environment, stdout=out, stderr=err, cwd=folder
        )
        try:
            probe = gateway(objects)["readinessProbe"]["httpGet"]
            wait_for(base[probe["port"]] + probe["path"], process, running.log)
            yield running
            process.terminate()
            assert process.wait(40) == 0, running.log.read_text()
        finally:
            process.kill()
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask as the kubelet does, until it is ready."""
    for _ in range(200):
        assert process.poll() is None, log.read_text()
        try:
            if request(url).status == 200:
                return
        except urllib.error.URLError:
            pass
        time.sleep(0.1)
    pytest.fail(f"{url} never became ready: {log.read_text()}")


@pytest.fixture(scope="module", params=["default", "tls"])
def running(request, render, secrets, tmp_path_factory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gateway")
    if request.param == "tls":
        objects, url = request.getfixturevalue("tls_objects"), request.getfixturevalue("url")
    else:
        objects, url = render(example("default")), request.getfixturevalue("server").url
    with started(objects, secrets, url, folder) as gateway:
        yield gateway


def test_a_caller_with_a_key_is_answered(running: Running) -> None:
    headers = {"X-API-Key": running.key}
    answer = post_picture(running.url, "/predict", cat_photo(), headers)
    assert answer.status == 200, answer.body
    assert "猫" in answer.json()["results"][0]["label"]


@pytest.mark.parametrize("key", [None, "wanwu_000000000000_wrong"])
def test_a_caller_without_a_key_is_refused(running: Running, key: str | None) -> None:
    headers = {} if key is None else {"X-API-Key": key}
    assert post_picture(running.url, "/predict", cat_photo(), headers).status == 401


def test_the_metrics_are_those_that_the_rules_read(running: Running, render) -> None:
    post_picture(running.url, "/predict", cat_photo(), {"X-API-Key": running.key})
    text = request(f"{running.metrics}/metrics").body.decode()
    rules = yaml.safe_dump(render({"monitoring": {"enabled": True}}), width=10_000)
    read = set(re.findall(r"(wanwu_gateway_\w+){namespace=\S+?,job=", rules))
    assert len(read) >= 4
    assert read <= set(re.findall(r"(?m)^(\w+)[{ ]", text))


def test_the_audit_log_goes_to_the_pods_output(running: Running) -> None:
    assert post_picture(running.url, "/predict", cat_photo()).status == 401
    lines = [json.loads(line) for line in running.audit.read_text().splitlines()]
    assert lines[0]["event"] == "start"
    assert any(line.get("status") == 401 for line in lines)


def doctor(objects: list[dict], secrets: Secrets, url: str, folder: Path) -> Container:
    return Machine(folder, secrets).container(one(objects, "Pod", "-doctor"), WANWU_URL=url)


@pytest.fixture
def tls_doctor(tls_objects, secrets, url: str, tmp_path: Path) -> Container:
    return doctor(tls_objects, secrets, url, tmp_path)


def test_helm_test_passes_with_the_certificates_and_the_key(tls_doctor: Container) -> None:
    done = tls_doctor.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout


def test_nobody_is_heard_without_a_certificate(tls_doctor: Container) -> None:
    done = tls_doctor.run(**QUICK, WANWU_TLS_CERT=None, WANWU_TLS_KEY=None)
    assert done.returncode == 1
    assert "WANWU_TLS_CERT and WANWU_TLS_KEY" in done.stdout


def test_nobody_is_heard_with_a_certificate_of_another_authority(
    tls_doctor: Container, tmp_path: Path
) -> None:
    other = trustme.CA().issue_cert("w-wanwu-gateway.vision.svc")
    other.cert_chain_pems[0].write_to_path(tmp_path / "client-tls" / "tls.crt")
    other.private_key_pem.write_to_path(tmp_path / "client-tls" / "tls.key")
    done = tls_doctor.run(**QUICK)
    assert done.returncode == 1
    assert "no secure connection" in done.stdout


def test_nobody_is_heard_without_tls(tls_doctor: Container) -> None:
    names = ("WANWU_TLS_CA", "WANWU_TLS_CERT", "WANWU_TLS_KEY")
    done = tls_doctor.run(**QUICK, **dict.fromkeys(names))
    assert done.returncode == 1
    assert "behind TLS needs WANWU_TLS=1" in done.stdout


@pytest.mark.parametrize(("key", "came"), [(None, "no key"), ("wrong", "a key that is not")])
def test_nobody_is_answered_without_the_inference_key(tls_doctor, key, came) -> None:
    done = tls_doctor.run(**QUICK, WANWU_API_KEY=key)
    assert done.returncode == 1
    assert f"wants an API key and {came}" in done.stdout


def test_a_triton_that_is_not_called_by_its_certificates_name_is_not_trusted(
    tls_doctor: Container, secured: ChartServer
) -> None:
    address = f"127.0.0.1:{secured.options.grpc_port}"
    done = tls_doctor.run(**QUICK, WANWU_URL=address)
    assert done.returncode == 1
    assert "name this host" in done.stdout


def test_the_kubelets_probe_needs_no_certificate(tls_objects, secured: ChartServer) -> None:
    container = one(tls_objects, "Deployment", "-triton")["spec"]["template"]["spec"]["containers"]
    probe = container[0]["readinessProbe"]["httpGet"]
    assert probe["port"] == "http"
    port = secured.options.http_port
    assert request(f"http://127.0.0.1:{port}{probe['path']}").status == 200


def test_tls_for_everybody_and_the_command_line_of_a_newer_release_are_taken_too(
    render, model, secrets, secured: ChartServer, repository: Path, tmp_path: Path
) -> None:
    own = {
        "image": {"release": "26.08"},
        "tls": {"enabled": True, "existingSecret": f"{NAME}-triton-tls"},
        "security": {"existingSecret": "triton-keys"},
    }
    objects = render(merged(HERE, {"model": model, "triton": own}))
    # The configs stay those for 24.10: model_metrics, rendered from 26.01, is unknown to it.
    machine = Machine(tmp_path, secrets, {"/models": secured.models})
    container = machine.container(one(objects, "Deployment", "-triton"))
    ca = tmp_path / "ca.crt"
    ca.write_bytes(secrets[f"{NAME}-triton-tls"]["ca.crt"])
    with ChartServer(options_of(repository, Tls(ca=ca)), container) as server:
        done = doctor(objects, secrets, server.url, tmp_path).run()
    assert done.returncode == 0, done.stdout + done.stderr
