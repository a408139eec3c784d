"""The bulk job, as the real kubectl builds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.schemas import validate
from wanwu.cli.pictures import Shard
from wanwu.embedded.server import free_port
from wanwu.samples import cat_photo

FOLDER = Path(__file__).parents[2] / "k8s" / "bulk-job"
WANWU = Path(sys.executable).with_name("wanwu")


@pytest.fixture(scope="module")
def job(need) -> dict[str, Any]:
    kubectl = shutil.which("kubectl")
    need(kubectl is not None, "kubectl")
    built = subprocess.run([kubectl, "kustomize", FOLDER], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (resource,) = yaml.safe_load_all(built.stdout)
    return resource


def test_the_job_fits_kubernetes_schema(job: dict[str, Any]) -> None:
    validate(job)


def test_every_index_has_one_part_and_a_file_of_its_own(job: dict[str, Any]) -> None:
    count = job["spec"]["completions"]
    assert job["spec"]["completionMode"] == "Indexed"
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    outputs = set()
    for index in range(count):
        filled = [each.replace("$(JOB_COMPLETION_INDEX)", str(index)) for each in arguments]
        shard, output = (each.partition("=")[2] for each in filled[:2])
        assert Shard.parse(shard) == Shard(index, count)
        outputs.add(output)
    assert len(outputs) == count


def test_the_command_takes_the_jobs_arguments(job: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "answers").mkdir()
    for number in range(60):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(cat_photo())
    container = job["spec"]["template"]["spec"]["containers"][0]
    words = [*container["command"], *container["args"], f"--url=127.0.0.1:{free_port()}"]
    command = [
        word.replace("$(JOB_COMPLETION_INDEX)", "0")
        .replace("/pictures", str(tmp_path / "pictures"))
        .replace("/answers", str(tmp_path / "answers"))
        for word in words
    ]
    done = subprocess.run([WANWU, *command[1:]], capture_output=True, text=True, cwd=tmp_path)
    # All was understood but the server, which is not there.
    assert done.returncode == 3, done.stderr
    assert "no Triton answers" in done.stderr


def test_the_pods_may_do_no_more_than_they_need(job: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    container = pod["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "limits" in container["resources"]
