"""How the images are built: their Dockerfile, their names, and what chooses the wheels."""

from __future__ import annotations

import ensurepip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
IMAGES = K8S / "images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text()
WORKLOADS = [K8S / "bulk-job/job.yaml", K8S / "loadtest/master.yaml", K8S / "loadtest/workers.yaml"]


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(K8S / "airgap"))
    import wheels

    return wheels


def pod_of(path: Path) -> dict[str, Any]:
    (job,) = (each for each in yaml.safe_load_all(path.read_text()) if each["kind"] == "Job")
    return job["spec"]["template"]["spec"]


def choose(path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", IMAGES / "engine.sh"]
    return subprocess.run(
        command, env={"PATH": path, **environment}, capture_output=True, text=True
    )


def engine(folder: Path, name: str, *, works: bool) -> None:
    """Write a client whose daemon answers, or does not."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\nexit {0 if works else 1}\n")
    (folder / name).chmod(0o755)


# Names and users


def test_every_image_that_is_run_is_one_that_is_built(wheels) -> None:
    values = yaml.safe_load((ROOT / "helm/wanwu/values.yaml").read_text())
    run = {values["gateway"]["image"]["repository"]}
    run |= {pod_of(path)["containers"][0]["image"] for path in WORKLOADS}
    assert run == {"wanwu/gateway", "wanwu/loadtest"}
    assert run <= {f"wanwu/{name}" for name in wheels.IMAGES}


def test_the_user_is_that_of_the_image_everywhere() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\S+)$", last, re.M)
    for path in WORKLOADS:
        security = pod_of(path)["securityContext"]
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == user == "1000:1000"
        assert security.get("fsGroup", 1000) == 1000


# The Dockerfile


def test_the_base_names_no_registry() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.M)
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base)


def test_what_builds_an_image_stays_behind() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "RUN" not in last
    assert re.findall(r"^COPY (.+)$", last, re.M) == ["--from=build /opt/wanwu /opt/wanwu"]


def wheel(folder: Path) -> str:
    """Make a wheel of a package that has a test; return its hash."""
    file = folder / "tiny-1.0-py3-none-any.whl"
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("tiny/__init__.py", "")
        made.writestr("tiny/tests/test_tiny.py", "")
        made.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("hash_is_right", [True, False])
def test_an_images_command_installs_wheels_by_their_hash_alone(
    tmp_path: Path, hash_is_right: bool
) -> None:
    (tmp_path / "wheels").mkdir()
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    shutil.copy(pip, tmp_path / "wheels")
    digest = wheel(tmp_path / "wheels")
    wanted = digest if hash_is_right else "0" * 64
    (tmp_path / "requirements.txt").write_text(f"tiny==1.0 --hash=sha256:{wanted}\n")
    (command,) = re.findall(r"^RUN ((?:.*\\\n)*.*)$", DOCKERFILE, re.M)
    command = re.sub(r" (/wheels|/opt/wanwu|/requirements)", rf" {tmp_path}\1", command)
    path = f"{Path(sys.executable).resolve().parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["/bin/sh", "-c", command], env={"PATH": path}, capture_output=True, text=True
    )
    assert (done.returncode == 0) == hash_is_right, done.stderr
    installed = list((tmp_path / "opt").glob("wanwu/lib/python*/site-packages/tiny/*"))
    assert [path.name for path in installed if path.suffix == ".py"] == (
        ["__init__.py"] if hash_is_right else []
    )
    assert not any(path.name == "tests" for path in installed)


# The engine


def test_the_engine_is_the_first_that_works(tmp_path: Path) -> None:
    engine(tmp_path, "docker", works=False)
    engine(tmp_path, "buildah", works=True)
    assert choose(str(tmp_path)).stdout == "buildah\n"
    engine(tmp_path, "podman", works=True)
    assert choose(str(tmp_path)).stdout == "podman\n"
    assert choose(str(tmp_path), ENGINE="buildah").stdout == "buildah\n"


def test_without_an_engine_it_says_what_to_install(tmp_path: Path) -> None:
    done = choose(str(tmp_path))
    assert done.returncode == 2
    assert "install docker, podman or buildah, or start its daemon" in done.stderr


def test_an_engine_that_does_not_work_is_named(tmp_path: Path) -> None:
    engine(tmp_path, "docker", works=False)
    engine(tmp_path, "podman", works=True)
    done = choose(str(tmp_path), ENGINE="docker")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("docker: none works here")


def test_an_image_whose_wheels_are_missing_is_not_begun(tmp_path: Path) -> None:
    engine(tmp_path / "bin", "buildah", works=True)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", IMAGES / "build.sh", "loadtest"],
        env={"PATH": path, "ENGINE": "buildah", "CONTEXT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "make images IMAGES=loadtest" in done.stderr


# The wheels


def test_the_hubs_client_is_left_out_where_tokenizers_alone_names_it(wheels) -> None:
    metadata = {
        "wanwu": {"requires_dist": ["tokenizers", 'transformers; extra == "export"']},
        "tokenizers": {"requires_dist": ["huggingface-hub<3"]},
        "transformers": {"requires_dist": ["huggingface_hub", "tokenizers"]},
        "huggingface-hub": {"requires_dist": ['rich; extra == "cli"']},
    }
    serving = wheels._reached(metadata, [Requirement("wanwu[gateway]")])
    exporting = wheels._reached(metadata, [Requirement("wanwu[export]")])
    assert serving == {"wanwu", "tokenizers"}
    assert exporting == set(metadata)
