"""The rendered start script, configs and command line, run by a real Triton (2.51, from PyPI).

Its Python backend stands in for onnxruntime's, which PyPI's Triton lacks; the rest is as rendered.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc

from chart.rendering import environment, one, pod_of, triton
from wanwu import Recognizer, SetupError
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu.repository import newest_release
from wanwu.samples import cat_photo
from wanwu_export.banks import model_file
from wanwu_export.onnx_bank import read_bank

API_KEY = "correct-horse"


class ChartServer(EmbeddedServer):
    """The Triton that PyPI ships, started by the chart's command line."""

    def __init__(self, options: ServerOptions, container: dict, models: Path) -> None:
        super().__init__(options)
        self._rendered, self._models = container["args"], models

    def _arguments(self, backends: Path, models: Path) -> list[str]:
        given = {
            "$(WANWU_ADMIN_KEY)": self.admin_key,
            "$(WANWU_API_KEY)": API_KEY,
            "=/models": f"={self._models}",
            "--http-port=8000": f"--http-port={self.options.http_port}",
            "--grpc-port=8001": f"--grpc-port={self.options.grpc_port}",
            "--metrics-port=8002": f"--metrics-port={self.options.metrics_port}",
        }
        line = "\n".join(self._rendered)
        for rendered, here in given.items():
            line = line.replace(rendered, here)
        own = [f"--backend-directory={backends}"]
        own.append(f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}")
        return [*line.split("\n"), *own]


@pytest.fixture(scope="module")
def model(repository: Path) -> dict:
    """What `wanwu export` writes into the values file beside the models."""
    contract = read_bank(model_file(repository, newest_release(repository), "label_bank")).contract
    digest = hashlib.sha256((repository / "manifest.json").read_bytes()).hexdigest()
    return {
        "name": contract.model.name,
        "version": "1",
        "fingerprint": str(contract.fingerprint),
        "manifestSha256": digest,
        "image": {"height": contract.image.height, "width": contract.image.width},
        "text": {"maxLength": contract.text.max_length},
    }


@pytest.fixture(scope="module")
def objects(render, model) -> list[dict]:
    values = {
        "profile": "cpu",
        "image": {"release": "24.10"},
        "resources": {"limits": {"cpu": 2}},
        "batching": {"maxBatchSize": 16, "queueDelayUs": 2500, "maxQueueSize": 99},
        "security": {"inferenceKey": True},
        "exitTimeoutSeconds": 10,
    }
    return render({"model": model, "triton": values})


def for_python(config: str) -> str:
    """Put the Python backend in onnxruntime's place, whose parameters it does not know."""
    lines = config.replace('backend: "onnxruntime"', 'backend: "python"').splitlines()
    return "\n".join(line for line in lines if not line.startswith("parameters"))


def lay(objects: list[dict], repository: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the rendered init container here, over `repository` into folder/models."""
    configs = folder / "configs"
    configs.mkdir(exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    for name, text in one(objects, "ConfigMap", "-triton")["data"].items():
        (configs / name).write_text(for_python(text) if name.endswith(".pbtxt") else text)
    (container,) = pod_of(one(objects, "Deployment", "-triton"))["initContainers"]
    paths = {"/repository": repository, "/configs": configs, "/models": folder / "models"}
    found = environment(container)
    here = {name: str(paths.get(value, value)) for name, value in found.items()}
    command = [each.replace("/configs", str(configs)) for each in container["command"]]
    return subprocess.run(
        command, env={**here, "PATH": os.environ["PATH"]}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def laid(objects, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pod")
    done = lay(objects, repository, folder)
    assert done.returncode == 0, done.stderr
    return folder / "models"


@pytest.fixture(scope="module")
def serving(objects, laid: Path, repository: Path) -> Iterator[ChartServer]:
    options = ServerOptions(
        repository,
        grpc_port=free_port(),
        http_port=free_port(),
        metrics_port=free_port(),
        api_key=API_KEY,
    )
    with ChartServer(options, triton(objects), laid) as server:
        yield server


def test_models_are_linked_and_configs_are_copied(laid: Path, repository: Path) -> None:
    served = newest_release(repository).served
    assert {each.name for each in laid.iterdir()} == set(served)
    for folder in laid.iterdir():
        version = folder / str(served[folder.name])
        assert version.is_symlink()
        assert (version / "model.onnx").is_file()
        static = repository / folder.name / "configs" / "gpu.pbtxt"
        assert (folder / "configs" / "gpu.pbtxt").read_bytes() == static.read_bytes()
        assert (folder / "configs" / "chart.pbtxt").is_file()


def test_laying_out_again_changes_nothing(objects, repository: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert lay(objects, repository, tmp_path).returncode == 0
    assert {each.name for each in (tmp_path / "models").iterdir()} == set(
        newest_release(repository).served
    )


def test_folders_that_are_no_models_are_left_out(objects, repository: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(repository, copied)
    (copied / "lost+found").mkdir()
    done = lay(objects, copied, tmp_path)
    assert "lost+found is no model of Wanwu" in done.stdout
    assert not (tmp_path / "models" / "lost+found").exists()


def test_another_repository_than_the_values_is_refused(
    objects, repository: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(repository, copied)
    with (copied / "manifest.json").open("a") as file:
        file.write("\n")
    done = lay(objects, copied, tmp_path)
    assert done.returncode == 1
    assert "run helm upgrade with the values.yaml that lies beside these models" in done.stderr


def test_a_repository_without_models_is_refused(objects, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = lay(objects, tmp_path / "empty", tmp_path)
    assert done.returncode == 1
    assert "holds no exported model" in done.stderr


def test_an_incomplete_repository_is_refused(render, model, repository, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(repository, copied)
    shutil.rmtree(copied / "text_encoder")
    done = lay(render({"model": model}), copied, tmp_path)
    assert done.returncode == 1
    assert "lacks image_encoder, text_encoder or label_bank" in done.stderr


def test_it_recognises_after_its_warm_up(serving: ChartServer, repository: Path) -> None:
    with Recognizer(serving.url, api_key=API_KEY) as client:
        assert client.recognize(cat_photo(), labels=["猫", "狗"]).top.label == "猫"
    assert set(serving.versions) == set(newest_release(repository).served)


def test_triton_batches_as_the_values_say(serving: ChartServer) -> None:
    client = triton_grpc.InferenceServerClient(serving.url)
    found = client.get_model_config("image_encoder", headers=serving.admin_headers).config
    assert found.max_batch_size == 16
    assert found.instance_group[0].count == 2
    assert found.dynamic_batching.max_queue_delay_microseconds == 2500
    assert found.dynamic_batching.default_queue_policy.max_queue_size == 99
    assert [each.batch_size for each in found.model_warmup] == [1, 16]
    client.close()


def test_nobody_calls_without_the_key(serving: ChartServer) -> None:
    with Recognizer(serving.url) as client, pytest.raises(SetupError, match="no key came"):
        client.recognize(cat_photo())


def test_a_caller_may_not_change_the_server(serving: ChartServer) -> None:
    client = triton_grpc.InferenceServerClient(serving.url)
    headers = {"triton-grpc-protocol-wanwu-api-key": API_KEY}
    with pytest.raises(triton_grpc.InferenceServerException, match="restricted"):
        client.unload_model("label_bank", headers=headers)
    client.close()


def http(server: ChartServer, path: str) -> int:
    url = f"http://127.0.0.1:{server.options.http_port}{path}"
    try:
        with urllib.request.urlopen(url) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_probes_pass_and_http_gives_nothing_else(objects, serving: ChartServer) -> None:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert http(serving, triton(objects)[name]["httpGet"]["path"]) == 200
    for path in ("/v2", "/v2/models/image_encoder", "/v2/models/image_encoder/config"):
        assert http(serving, path) == 403


def test_the_latency_that_older_scalers_read_is_there(serving: ChartServer) -> None:
    with Recognizer(serving.url, api_key=API_KEY) as client:
        client.recognize(cat_photo())
    url = f"http://127.0.0.1:{serving.options.metrics_port}/metrics"
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
    assert re.search(r'nv_inference_request_summary_us\{model="image_encoder".*0\.95"\}', text)


def test_the_command_line_for_a_newer_release_is_taken_too(
    render, model, laid: Path, repository: Path
) -> None:
    # Its configs are not: 2.51 does not know model_metrics, which is rendered from 26.01.
    container = triton(render({"model": model, "triton": {"profile": "cpu"}}))
    options = ServerOptions(
        repository, grpc_port=free_port(), http_port=free_port(), metrics_port=free_port()
    )
    with ChartServer(options, container, laid) as server:
        assert server.versions
