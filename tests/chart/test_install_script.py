"""k8s/airgap/install.sh, with the real helm and kubectl, in a small cluster that keeps its objects.

The cluster has no nodes. Where a pod would have to run, a folder stands for the claim, and what the
script would run in the pod is run here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.cluster import KeptObjects, cluster
from chart.rendering import ROOT, Object, merged, nested

Run = Callable[..., subprocess.CompletedProcess[str]]
MINE = {
    "imageRegistry": "registry.example.internal",
    "gateway": {"auth": {"keysSecret": "keys"}},
    "triton": {"profile": "cpu"},
}
#: Stands before the real programs, and does what needs a node, or a real cluster's schemas.
STANDS_IN = """#!{python}
import os, subprocess, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
real, claim = {real!r}[name], {claim!r}
with open({log!r}, "a") as log:
    print(name, *words, file=log)
if name == "helm" and words[0] == "test":
    sys.exit(0)
if name == "helm" and words[0] == "upgrade":
    words = [each for each in words if each not in ("--wait", "--timeout", "30m")]
    words.append("--disable-openapi-validation")
verb = words[2] if words[:1] == ["-n"] else words[0]
if name == "kubectl" and verb in ("wait", "delete"):
    sys.exit(0)
if name == "kubectl" and verb == "apply":
    words[words.index("apply")] = "create"
    words.append("--validate=false")
if name == "kubectl" and verb == "exec":
    words = words[words.index("--") + 1 :]
    sys.exit(subprocess.call([word.replace("/models", claim) for word in words]))
os.execv(real, [real, *words])
"""


def kept(namespace: str = "wanwu") -> Object:
    """Give what the cluster has: a namespace, a key file, a default storage class."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    found = {
        f"/api/v1/namespaces/{namespace}": ("v1", "Namespace", {"name": namespace}),
        f"/api/v1/namespaces/{namespace}/secrets/keys": ("v1", "Secret", {"name": "keys"}),
        "/apis/storage.k8s.io/v1/storageclasses/nfs": (
            "storage.k8s.io/v1",
            "StorageClass",
            {"name": "nfs", "annotations": default},
        ),
    }
    return {
        path: {"apiVersion": version, "kind": kind, "metadata": metadata}
        for path, (version, kind, metadata) in found.items()
    }


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[KeptObjects, Path]]:
    with cluster(tmp_path) as (server, config):
        server.kept.update(kept())
        yield server, config


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Give a checkout with a model, in a folder whose name has a space."""
    root = tmp_path / "my checkout"
    shutil.copytree(ROOT / "helm", root / "helm")
    shutil.copytree(ROOT / "k8s" / "airgap", root / "k8s" / "airgap")
    models = root / "model_repository"
    (models / "image_encoder" / "1").mkdir(parents=True)
    (models / "image_encoder" / "1" / "model.onnx").write_bytes(b"onnx")
    (models / ".lock").touch()
    (models / "manifest.json").write_text('{"version": 1}')
    (models / "values.yaml").write_text("model: {name: tiny, fingerprint: '42'}\n")
    return root


@pytest.fixture
def run(need, checkout: Path, served, tmp_path: Path) -> Run:
    programs = {name: shutil.which(name) for name in ("helm", "kubectl")}
    for name, program in programs.items():
        need(program is not None, name)
    (tmp_path / "claim").mkdir()
    (tmp_path / "bin").mkdir()
    for name in programs:
        text = STANDS_IN.replace("{python}", sys.executable)
        text = text.replace("{real!r}", repr(programs))
        text = text.replace("{claim!r}", repr(str(tmp_path / "claim")))
        text = text.replace("{log!r}", repr(str(tmp_path / "log")))
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def script(
        action: str, values: Object = MINE, more: tuple[str, ...] = (), **environment: str
    ) -> Any:
        mine = tmp_path / "my values.yaml"
        mine.write_text(yaml.safe_dump(values))
        homes = {f"HELM_{each}_HOME": str(tmp_path) for each in ("CACHE", "CONFIG", "DATA")}
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["/bin/sh", checkout / "k8s" / "airgap" / "install.sh", action, "-f", mine, *more],
            env=os.environ | homes | {"PATH": path, "KUBECONFIG": str(served[1]), **environment},
            capture_output=True,
            text=True,
        )

    return script


@pytest.fixture
def folder(checkout: Path) -> str:
    """Name of the folder that the claim has these models in."""
    manifest = (checkout / "model_repository" / "manifest.json").read_bytes()
    return hashlib.sha256(manifest).hexdigest()[:12]


def changes(tmp_path: Path) -> list[str]:
    """Give the verbs by which something was changed."""
    lines = (tmp_path / "log").read_text().splitlines()
    verbs = ("apply", "create", "delete", "exec", "label", "upgrade")
    found = [line.replace("-n wanwu ", "").split()[1] for line in lines if "can-i" not in line]
    return [verb for verb in found if verb in verbs]


def test_a_check_changes_nothing(run: Run, tmp_path: Path) -> None:
    done = run("check")
    assert done.returncode == 0, done.stderr
    assert "everything is there; the models are those of" in done.stdout
    assert changes(tmp_path) == []


def test_it_brings_the_models_into_a_folder_of_their_own(
    run: Run, served, tmp_path: Path, folder: str
) -> None:
    done = run("install")
    assert done.returncode == 0, done.stdout + done.stderr
    brought = tmp_path / "claim" / folder
    files = {str(each.relative_to(brought)) for each in brought.rglob("*") if each.is_file()}
    assert files == {"manifest.json", "values.yaml", "image_encoder/1/model.onnx"}
    objects = served[0].kept
    triton = objects["/apis/apps/v1/namespaces/wanwu/deployments/wanwu-triton"]
    pod = json.dumps(triton["spec"]["template"]["spec"])
    assert f'"subPath": "{folder}"' in pod
    assert '"claimName": "wanwu-models"' in pod
    doctor = (tmp_path / "log").read_text()
    assert "helm test wanwu" in doctor
    claim = objects["/api/v1/namespaces/wanwu/persistentvolumeclaims/wanwu-models"]["spec"]
    assert claim["accessModes"] == ["ReadWriteMany"]


def test_the_pod_that_brings_them_is_pulled_and_secured_as_the_charts(run: Run, served) -> None:
    served[0].kept |= {
        f"/api/v1/namespaces/wanwu/secrets/{name}": {
            **{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        }
        for name in ("first", "second")
    }
    image = {"repository": "team/recogniser", "tag": "7"}
    mine = {
        "gateway": {"image": image},
        "imagePullSecrets": [{"name": "first"}, {"name": "second"}],
    }
    done = run("install", merged(MINE, mine))
    assert done.returncode == 0, done.stderr
    pod = served[0].kept["/api/v1/namespaces/wanwu/pods/wanwu-models"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "first"}, {"name": "second"}]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example.internal/team/recogniser:7"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_models_that_are_there_are_not_brought_again(run: Run, tmp_path: Path, folder: str) -> None:
    assert run("install").returncode == 0
    (tmp_path / "claim" / folder / "mark").touch()
    done = run("install")
    assert f"has these models already, in {folder}" in done.stdout
    assert (tmp_path / "claim" / folder / "mark").exists()


def test_a_new_version_leaves_the_old_ones_models(
    run: Run, checkout: Path, tmp_path: Path, folder: str
) -> None:
    assert run("install").returncode == 0
    (checkout / "model_repository" / "manifest.json").write_text('{"version": 2}')
    assert run("install").returncode == 0
    assert len(list((tmp_path / "claim").iterdir())) == 2
    assert (tmp_path / "claim" / folder / "manifest.json").read_text() == '{"version": 1}'


def test_half_a_copy_is_begun_again(run: Run, tmp_path: Path, folder: str) -> None:
    (tmp_path / "claim" / ".half").mkdir()
    (tmp_path / "claim" / ".half" / "rest").touch()
    assert run("install").returncode == 0
    assert [each.name for each in (tmp_path / "claim").iterdir()] == [folder]
    assert not (tmp_path / "claim" / folder / "rest").exists()


def test_models_that_the_values_name_are_taken_as_they_are(
    run: Run, checkout: Path, served, tmp_path: Path
) -> None:
    shutil.rmtree(checkout / "model_repository")
    image = {"repository": "wanwu/models", "tag": "3"}
    mine = merged(MINE, {"repository": {"source": "initImage", "image": image}})
    done = run("install", mine)
    assert done.returncode == 0, done.stderr
    assert "the models are those that repository.* of your values names" in done.stdout
    assert not list((tmp_path / "claim").iterdir())
    assert not [path for path in served[0].kept if "persistentvolumeclaims" in path]


@pytest.mark.parametrize(
    ("values", "lacks"),
    [
        (nested("gateway.auth.keysSecret", "others"), "Secret/others in namespace wanwu, which"),
        (nested("imagePullSecrets", [{"name": "pull"}]), "Secret/pull in namespace wanwu"),
        (nested("repository.pvc.claimName", "theirs"), "PersistentVolumeClaim/theirs in namespace"),
        (nested("repository.pvc.claimName", "wanwu-models"), "PersistentVolumeClaim/wanwu-models"),
        (nested("repository.pvc.subPath", "v1"), "values without repository.pvc.subPath"),
        (nested("triton.security.existingSecret", "admin"), "Secret/admin in namespace wanwu"),
        (nested("triton.profile", "gpu"), "a node with a GPU resource"),
        (nested("triton.replica", 3), "values that the chart takes: see the message above"),
        (
            {
                "triton": {"profile": "gpu"},
                "autoscaling": {"driver": "prometheus-adapter"},
                "monitoring": {"enabled": True},
            },
            "the cluster has no API custom.metrics.k8s.io",
        ),
        (
            {"autoscaling": {"driver": "keda"}, "monitoring": {"enabled": True}},
            "KEDA (k8s/keda): the cluster has no API keda.sh",
        ),
        (
            merged(
                nested("gateway.httpRoute", {"enabled": True, "parentRefs": [{"name": "a"}]}),
                nested("networkPolicy.gatewayFrom", [{"team": "edge"}]),
            ),
            "the Gateway API, or gateway.httpRoute.enabled: false",
        ),
    ],
)
def test_what_is_missing_is_told_and_nothing_changed(
    run: Run, tmp_path: Path, values: Object, lacks: str
) -> None:
    done = run("install", merged(MINE, values))
    assert done.returncode == 1
    assert lacks in done.stderr
    assert "nothing was changed" in done.stderr
    assert changes(tmp_path) == []


def test_a_claim_that_is_named_nothing_is_not_named(run: Run, served, folder: str) -> None:
    done = run("install", merged(MINE, nested("repository.pvc", {"claimName": "", "subPath": ""})))
    assert done.returncode == 0, done.stderr
    triton = served[0].kept["/apis/apps/v1/namespaces/wanwu/deployments/wanwu-triton"]
    assert f'"subPath": "{folder}"' in json.dumps(triton["spec"]["template"]["spec"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("-n", "other"), "missing: arguments without -n: set NAMESPACE"),
        (("--kube-context=prod",), "missing: arguments without --kube-context=prod"),
        (("-f", "-"), "missing: a values file -: it is read several times"),
    ],
)
def test_arguments_that_helm_alone_would_take_are_refused(run: Run, more, said: str) -> None:
    done = run("install", more=more)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_cluster_without_metrics_scales_no_gateway(run: Run, served, monkeypatch) -> None:
    from chart import cluster as module

    monkeypatch.delitem(module.KINDS, "metrics.k8s.io/v1beta1")
    done = run("check")
    assert "missing: metrics-server, or gateway.autoscaling.enabled: false" in done.stderr
    quiet = run("check", merged(MINE, nested("gateway.autoscaling.enabled", False)))
    assert quiet.returncode == 0, quiet.stderr


def test_a_namespace_is_made_and_labelled_and_one_that_is_there_left_alone(
    run: Run, served, tmp_path: Path
) -> None:
    assert run("install").returncode == 0
    mine = "/api/v1/namespaces/wanwu"
    assert "labels" not in served[0].kept[mine]["metadata"]
    served[0].kept |= {path: each for path, each in kept("shop").items() if path.endswith("/keys")}
    done = run("install", NAMESPACE="shop")
    assert done.returncode == 0, done.stderr
    labels = served[0].kept["/api/v1/namespaces/shop"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_storage_class_is_asked_for_where_the_cluster_has_no_default(run: Run, served) -> None:
    classes = "/apis/storage.k8s.io/v1/storageclasses/nfs"
    del served[0].kept[classes]["metadata"]["annotations"]
    assert "missing: a default StorageClass: set STORAGE_CLASS" in run("check").stderr
    assert "missing: the StorageClass ceph" in run("check", STORAGE_CLASS="ceph").stderr
    assert run("check", STORAGE_CLASS="nfs").returncode == 0
    audited = run("check", merged(MINE, nested("gateway.audit.mode", "pvc")), STORAGE_CLASS="nfs")
    assert "or set gateway.audit.storageClassName" in audited.stderr


def test_another_storage_class_for_a_claim_that_is_there_is_refused(run: Run, served) -> None:
    assert run("install", STORAGE_CLASS="nfs").returncode == 0
    again = run("check", STORAGE_CLASS="ceph")
    assert "it is there with class nfs; delete it, or leave STORAGE_CLASS out" in again.stderr
    assert run("check").returncode == 0


def test_without_values_it_says_how_it_is_called(checkout: Path) -> None:
    script = checkout / "k8s" / "airgap" / "install.sh"
    done = subprocess.run(["/bin/sh", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert "install.sh install -f mine.yaml" in done.stderr
    assert "set -eu" not in done.stderr
