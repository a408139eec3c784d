"""The Jobs of k8s/loadtest, as the real kubectl builds them: their commands are run here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.schemas import validate
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.samples import cat_photo

FOLDER = Path(__file__).parents[2] / "k8s" / "loadtest"

Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def objects(need: Any) -> Objects:
    kubectl = shutil.which("kubectl")
    need(kubectl is not None, "kubectl")
    built = subprocess.run([kubectl, "kustomize", FOLDER], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    every = list(yaml.safe_load_all(built.stdout))
    return {
        (each["kind"], each["metadata"]["name"].partition("-config")[0]): each for each in every
    }


def job(objects: Objects, name: str) -> dict[str, Any]:
    return objects["Job", f"loadtest-{name}"]


def container(objects: Objects, name: str) -> dict[str, Any]:
    (only,) = job(objects, name)["spec"]["template"]["spec"]["containers"]
    return only


def settings(objects: Objects) -> dict[str, str]:
    (data,) = (each["data"] for (kind, _), each in objects.items() if kind == "ConfigMap")
    return data


def test_they_fit_kubernetes_schema(objects: Objects) -> None:
    for each in objects.values():
        validate(each)


def test_as_many_workers_come_as_the_master_waits_for(objects: Objects) -> None:
    workers = job(objects, "workers")["spec"]
    assert f"--expect-workers={workers['completions']}" in container(objects, "master")["args"]
    assert workers["parallelism"] == workers["completions"]


def test_workers_find_the_master_by_its_service(objects: Objects) -> None:
    service = objects["Service", "loadtest-master"]
    assert "--master-host=loadtest-master" in container(objects, "workers")["args"]
    assert service["spec"]["selector"].items() <= (
        job(objects, "master")["spec"]["template"]["metadata"]["labels"].items()
    )
    assert service["spec"]["ports"][0]["port"] == 5557


@pytest.mark.parametrize("name", ["master", "workers"])
def test_the_pods_may_do_no_more_than_they_need(objects: Objects, name: str) -> None:
    pod = job(objects, name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    security = container(objects, name)["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_commands_run_as_they_are_written(
    objects: Objects, server: EmbeddedServer, start_load: Any, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.jpg").write_bytes(cat_photo())
    environment = {
        **settings(objects),
        "WANWU_URL": server.url,
        "WANWU_LOAD_RATE": "8",
        "WANWU_LOAD_P95_MS": "5000",
        "WANWU_LOAD_PHOTOS": str(tmp_path / "pictures"),
        "WANWU_LOAD_REPORT": str(tmp_path / "report"),
        "LOCUST_RUN_TIME": "6s",
    }
    port = free_port()
    here = {"--master-host=loadtest-master": "--master-host=127.0.0.1"}
    here["--expect-workers=4"] = "--expect-workers=1"

    def start(name: str, option: str) -> Any:
        words = [here.get(each, each) for each in container(objects, name)["args"]]
        return start_load(*words, f"{option}={port}", **environment)

    worker = start("workers", "--master-port")
    master = start("master", "--master-bind-port")
    text, _ = master.communicate(timeout=90)
    worker.communicate(timeout=30)
    assert (master.returncode, worker.returncode) == (0, 0), text
    assert (tmp_path / "report" / "report.html").is_file()
