"""k8s/airgap/install.sh, with the real helm and kubectl, in a small cluster that keeps its objects.

The cluster has no nodes. Where a pod would have to run, a folder stands for the claim, and what the
script would run in the pod is run here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
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
STANDS_IN = """#!{python} -IS
import os, subprocess, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
real, claim = {real!r}[name], {claim!r}
with open({log!r}, "a") as log:
    print(name, *words, file=log)
if name == "helm" and words[0] == "test":
    sys.exit(0)
if name == "helm" and words[0] == "upgrade":
    at = words.index("--timeout")
    words[at : at + 2] = []
    words.remove("--wait")
    words.append("--disable-openapi-validation")
verb = words[2] if words[:1] == ["-n"] else words[0]
if name == "kubectl" and verb in ("wait", "delete"):
    sys.exit(0)
if name == "kubectl" and verb == "apply":
    words[words.index("apply")] = "create"
    words.append("--validate=false")
if name == "kubectl" and verb == "exec":
    words = words[words.index("--") + 1 :]
    status = subprocess.call([word.replace("/models", claim) for word in words])
    if status != 0:
        print("command terminated with exit code", status, file=sys.stderr)
    sys.exit(status)
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


def mounted(volume: Object) -> Object:
    """Return the values of a volume that a container sees."""
    mount = {"name": volume["name"], "mountPath": f"/{volume['name']}"}
    return {"extraVolumes": [volume], "extraVolumeMounts": [mount]}


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
    shutil.copytree(ROOT / "k8s", root / "k8s")
    models = root / "model_repository"
    (models / "image_encoder" / "1").mkdir(parents=True)
    (models / "image_encoder" / "1" / "model.onnx").write_bytes(b"onnx")
    (models / ".lock").touch()
    (models / "manifest.json").write_text('{"version": 1}')
    (models / "values.yaml").write_text("model: {name: tiny, fingerprint: '42'}\n")
    return root


@pytest.fixture
def run(need, checkout: Path, served, tmp_path: Path, monkeypatch) -> Run:
    programs = {name: shutil.which(name) for name in ("helm", "kubectl")}
    for name, program in programs.items():
        need(program is not None, name)
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl keeps a server's kinds there
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


def test_nothing_is_printed_as_an_error_where_all_is_well(run: Run) -> None:
    assert run("install").stderr == ""


def test_the_pod_that_brings_them_runs_where_the_gateway_does(run: Run, served) -> None:
    tolerations = [{"key": "night", "operator": "Exists"}]
    gateway = {"nodeSelector": {"disk": "large"}, "tolerations": tolerations}
    assert run("install", merged(MINE, {"gateway": gateway})).returncode == 0
    pod = served[0].kept["/api/v1/namespaces/wanwu/pods/wanwu-models"]["spec"]
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"disk": "large"}, tolerations)
    assert set(pod) >= {"volumes", "containers"}


def test_the_pod_that_brings_them_ends_at_once(run: Run, served) -> None:
    namespace = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
    done = subprocess.run([*namespace, "true"], capture_output=True)
    if done.returncode != 0:
        pytest.skip("this machine makes no process namespace, where a program is the first process")
    assert run("install").returncode == 0
    pod = served[0].kept["/api/v1/namespaces/wanwu/pods/wanwu-models"]["spec"]
    command = pod["containers"][0]["command"]
    with subprocess.Popen([*namespace, *command]) as around:
        children = Path(f"/proc/{around.pid}/task/{around.pid}/children")
        while not (first := children.read_text()):
            time.sleep(0.05)
        time.sleep(1)  # by then the program has taken its place, and set what it hears
        os.kill(int(first), signal.SIGTERM)
        try:
            assert around.wait(10) == 0
        finally:
            around.kill()


@pytest.mark.parametrize(
    ("values", "first", "upgrade"),
    [
        ({"replicas": 7, "maxSurge": 3, "startupSeconds": 100}, 475, 3 * 475),
        ({"replicas": 3, "maxSurge": 0, "terminationGracePeriodSeconds": 100}, 1300, 3 * 1300),
    ],
)
def test_its_timeout_fits_the_rollout(run: Run, tmp_path: Path, values, first, upgrade) -> None:
    mine = merged(MINE, {"triton": values, "autoscaling": {"driver": "none"}})
    for _ in range(2):
        assert run("install", mine).returncode == 0
    log = (tmp_path / "log").read_text()
    assert re.findall(r"helm upgrade .*--timeout (\d+)s", log) == [str(first), str(upgrade)]


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
        (
            nested(
                "gateway.auth.issuers", [{"issuer": "i", "audience": "a", "jwksSecret": "jwks"}]
            ),
            "Secret/jwks in namespace wanwu",
        ),
        (nested("imagePullSecrets", [{"name": "pull"}]), "Secret/pull in namespace wanwu"),
        (nested("repository.pvc.claimName", "theirs"), "PersistentVolumeClaim/theirs in namespace"),
        (nested("repository.pvc.claimName", "wanwu-models"), "PersistentVolumeClaim/wanwu-models"),
        (nested("repository.pvc.subPath", "v1"), "values without repository.pvc.subPath"),
        (nested("triton.security.existingSecret", "admin"), "Secret/admin in namespace wanwu"),
        (nested("triton.profile", "gpu"), "a node that offers 1 nvidia.com/gpu: install the GPU"),
        (nested("triton.runtimeClassName", "nvidia"), "missing: RuntimeClass/nvidia, which your"),
        (nested("gateway.priorityClassName", "high"), "missing: PriorityClass/high, which your"),
        (
            nested("gateway", mounted({"name": "ca", "configMap": {"name": "corporate"}})),
            "missing: ConfigMap/corporate in namespace wanwu, which your values name",
        ),
        (
            nested("triton", mounted({"name": "ca", "secret": {"secretName": "plain"}})),
            "missing: Secret/plain in namespace wanwu, which your values name",
        ),
        (nested("triton.replica", 3), "values that the chart takes: see the message above"),
        (nested("monitoring.enabled", True), "the cluster has no API monitoring.coreos.com"),
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


#: What a user lacks whose rights end with one namespace.
OF_THE_CLUSTER = {
    *("get namespaces", "create namespaces", "list nodes"),
    *("get storageclasses.storage.k8s.io", "list storageclasses.storage.k8s.io"),
}


def test_what_one_may_not_look_at_is_not_missing(run: Run, served) -> None:
    served[0].denied |= OF_THE_CLUSTER
    done = run("check", merged(MINE, nested("triton.profile", "gpu")))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("not checked: ") for line in lines)
    assert [line.partition(" (")[0].removeprefix("not checked: ") for line in lines] == [
        "namespace wanwu",
        "a default StorageClass: set STORAGE_CLASS to one that lets many pods read a claim",
        "a node that offers 1 nvidia.com/gpu",
    ]


def test_a_secret_that_one_may_not_read_is_not_missing(run: Run, served) -> None:
    served[0].denied.add("get secrets")
    done = run("check", merged(MINE, nested("imagePullSecrets", [{"name": "pull"}])))
    assert done.returncode == 0, done.stderr
    assert "not checked: Secret/pull in namespace wanwu, which your values name" in done.stderr


def test_every_kind_that_the_chart_makes_wants_its_right(run: Run, served) -> None:
    served[0].denied |= {"create networkpolicies.networking.k8s.io", "create pods/exec"}
    served[0].denied |= {"create statefulsets.apps", "patch services"}
    done = run("check")
    assert done.returncode == 1
    assert done.stderr.splitlines()[:-1] == [
        # helm 4 makes objects by patches.
        "missing: the right to create networkpolicy.networking.k8s.io in namespace wanwu",
        "missing: the right to patch service in namespace wanwu",
        "missing: the right to create pods --subresource=exec in namespace wanwu",
    ]
    audited = run("check", merged(MINE, nested("gateway.audit.mode", "pvc")))
    assert "the right to create statefulset.apps in namespace wanwu" in audited.stderr


def test_an_upgrade_wants_the_right_to_change_what_is_there(run: Run, served) -> None:
    assert run("install").returncode == 0
    served[0].denied.add("patch services")
    assert "missing: the right to patch service in namespace wanwu" in run("check").stderr


def test_another_error_of_the_cluster_is_shown_as_it_is(run: Run, served, monkeypatch) -> None:
    from chart import cluster as module

    monkeypatch.delitem(module.KINDS, "storage.k8s.io/v1")
    done = run("check")
    assert done.returncode == 1
    assert done.stderr.startswith("missing: an answer to `kubectl get storageclass -o jsonpath=")
    assert "default StorageClass" not in done.stderr


@pytest.mark.parametrize("offers", [{"nvidia.com/gpu": "8"}, {"nvidia.com/mig-1g.10gb": "1"}])
def test_the_gpu_is_the_one_that_the_values_name(run: Run, served, offers: Object) -> None:
    gpu = {"resourceName": "nvidia.com/mig-1g.10gb", "count": 2}
    mine = {"triton": {"profile": "gpu", "gpu": gpu}, "autoscaling": {"gpuSource": "dcgm-mig"}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    served[0].kept["/api/v1/nodes/n"] = node | {"status": {"allocatable": {"cpu": "4", **offers}}}
    done = run("check", merged(MINE, mine))
    assert "missing: a node that offers 2 nvidia.com/mig-1g.10gb: " in done.stderr
    node["status"] = {"allocatable": {"nvidia.com/mig-1g.10gb": "7"}}
    served[0].kept["/api/v1/nodes/o"] = node
    assert run("check", merged(MINE, mine)).returncode == 0


def with_gpus(served, **offers: str) -> None:
    """Add a node that offers devices."""
    named = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{len(offers)}"}}
    served[0].kept["/api/v1/nodes/n"] = named | {"status": {"allocatable": {"cpu": "4", **offers}}}


def test_memory_that_a_scheduler_counts_is_in_no_nodes_list(run: Run, served) -> None:
    limits = {"nvidia.com/gpumem": 8000, "nvidia.com/gpucores": 30}
    mine = merged(MINE, {"triton": {"profile": "gpu", "resources": {"limits": limits}}})
    assert "missing: a node that offers 1 nvidia.com/gpu: " in run("check", mine).stderr
    with_gpus(served, **{"nvidia.com/gpu": "10"})
    done = run("check", mine)
    assert done.returncode == 0, done.stderr
    with_gpus(served, **{"nvidia.com/gpu": "10", "nvidia.com/gpucores": "20"})
    assert "missing: a node that offers 30 nvidia.com/gpucores: " in run("check", mine).stderr


def test_fewer_gpus_than_pods_is_said(run: Run, served) -> None:
    gpu = merged(MINE, {"triton": {"profile": "gpu"}, "autoscaling": {"minReplicas": 3}})
    with_gpus(served, **{"nvidia.com/gpu": "2"})
    done = run("check", gpu)
    assert done.returncode == 0, done.stderr
    assert "later: 3 pods want 1 nvidia.com/gpu each and the nodes hold 2: add nodes" in done.stdout
    with_gpus(served, **{"nvidia.com/gpu": "3"})
    assert "later: 3 pods" not in run("check", gpu).stdout


def test_what_is_optional_is_not_missing(run: Run) -> None:
    optional = {"name": "ca", "configMap": {"name": "corporate", "optional": True}}
    done = run("check", merged(MINE, nested("gateway", mounted(optional))))
    assert done.returncode == 0, done.stderr


def test_the_pod_that_brings_them_has_the_charts_user_or_none(run: Run, served) -> None:
    at = "/api/v1/namespaces/wanwu/pods/wanwu-models"
    assert run("install").returncode == 0
    user = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
    assert user.items() <= served[0].kept.pop(at)["spec"]["securityContext"].items()
    done = run("install", merged(MINE, {"podUserId": 0}))
    assert done.returncode == 0, done.stderr
    security = served[0].kept[at]["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert not user.keys() & security.keys()


@pytest.mark.parametrize("named", ["", "nfs"])
def test_a_class_for_one_node_is_found(run: Run, served, named: str) -> None:
    nfs = served[0].kept["/apis/storage.k8s.io/v1/storageclasses/nfs"]
    nfs["provisioner"] = "rancher.io/local-path"
    found = run("check", STORAGE_CLASS=named)
    assert found.returncode == 1
    assert "rancher.io/local-path makes volumes for one node" in found.stderr
    nfs["provisioner"] = "nfs.csi.k8s.io"
    assert run("check", STORAGE_CLASS=named).returncode == 0


def test_the_access_mode_is_the_callers(run: Run, served) -> None:
    nfs = served[0].kept["/apis/storage.k8s.io/v1/storageclasses/nfs"]
    nfs["provisioner"] = "rancher.io/local-path"
    assert "ACCESS_MODE as ReadWriteMany or" in run("check", ACCESS_MODE="RWX").stderr
    done = run("install", ACCESS_MODE="ReadWriteOnce")
    assert done.returncode == 0, done.stderr
    claim = served[0].kept["/api/v1/namespaces/wanwu/persistentvolumeclaims/wanwu-models"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_a_claim_that_is_pending_is_found(run: Run, served) -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "theirs"}}
    claim |= {"spec": {"storageClassName": "nfs"}, "status": {"phase": "Pending"}}
    served[0].kept["/api/v1/namespaces/wanwu/persistentvolumeclaims/theirs"] = claim
    mine = merged(MINE, nested("repository.pvc.claimName", "theirs"))
    assert "missing: a volume for the claim theirs: it is Pending" in run("check", mine).stderr
    nfs = served[0].kept["/apis/storage.k8s.io/v1/storageclasses/nfs"]
    nfs["volumeBindingMode"] = "WaitForFirstConsumer"
    assert run("check", mine).returncode == 0


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("20GB", "missing: MODELS_SIZE as a quantity such as 20Gi: it is '20GB'"),
        ("1.5M", "missing: MODELS_SIZE of at least 3Mi, which the models take: it is 1.5M"),
        ("0.01Gi", ""),
    ],
)
def test_the_claim_must_hold_the_models(run: Run, checkout: Path, size: str, said: str) -> None:
    (checkout / "model_repository" / "weights").write_bytes(os.urandom(2_500_000))
    done = run("check", MODELS_SIZE=size)
    assert done.returncode == bool(said)
    assert done.stderr.partition("\n")[0] == said


def test_models_that_outgrew_their_claim_are_found(run: Run, checkout: Path) -> None:
    assert run("install", MODELS_SIZE="1Mi").returncode == 0
    (checkout / "model_repository" / "weights").write_bytes(os.urandom(2_500_000))
    found = run("check", MODELS_SIZE="1Mi").stderr
    assert "missing: the claim wanwu-models of at least 3Mi, which the models take: it is" in found
    assert "MODELS_SIZE" not in found


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
        (("-nother",), "missing: arguments without -nother: set NAMESPACE"),
        (("-f", "-"), "missing: a values file -: it is read several times"),
        (("--values=none.yaml",), "missing: a values file none.yaml: it is read several times"),
        (("-fnone.yaml",), "missing: a values file none.yaml: it is read several times"),
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


def test_a_cluster_without_the_adapter_scales_later(run: Run, served, monkeypatch) -> None:
    from chart import cluster as module

    done = run("check")
    assert "later: prometheus-adapter (k8s/prometheus-adapter), or" in done.stdout
    monkeypatch.setitem(module.KINDS, "external.metrics.k8s.io/v1beta1", ["MetricValue"])
    assert "later" not in run("check").stdout


def test_where_the_prometheus_operator_is_its_kinds_want_rights(run, served, monkeypatch) -> None:
    from chart import cluster as module

    kinds = ["PodMonitor", "PrometheusRule"]
    monkeypatch.setitem(module.KINDS, "monitoring.coreos.com/v1", kinds)
    served[0].denied.add("create podmonitors.monitoring.coreos.com")
    found = run("check").stderr
    assert found.startswith("missing: the right to create podmonitor.monitoring.coreos.com in")


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
    ours = yaml.safe_load((ROOT / "k8s" / "namespace" / "namespace.yaml").read_text())
    assert labels == ours["metadata"]["labels"]
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
    assert not [line for line in done.stderr.splitlines() if line.startswith("#")]
