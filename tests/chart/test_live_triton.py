"""The rendered start script, configs and command line, run by a real Triton (2.51, from PyPI).

Its Python backend stands in for onnxruntime's, which PyPI's Triton lacks; the rest is as rendered.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from chart.live import ChartServer, Container, Machine, lay, secrets_of
from chart.rendering import nested, one, triton
from wanwu import Recognizer, SetupError
from wanwu.embedded.server import ServerOptions, free_port
from wanwu.repository import newest_release
from wanwu.samples import cat_photo


@pytest.fixture(scope="module")
def objects(render, model) -> list[dict]:
    values = {
        "profile": "cpu",
        "image": {"release": "24.10"},
        "acceptKnownVulnerabilities": True,
        "resources": {"limits": {"cpu": 2}},
        "batching": {
            "maxBatchSize": 16,
            "queueDelayUs": 2500,
            "maxQueueSize": 99,
            "text": {"maxQueueSize": 5},
        },
        "security": {"inferenceKey": True},
        "exitTimeoutSeconds": 10,
    }
    return render({"model": model, "triton": values})


@pytest.fixture(scope="module")
def laid(objects, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pod")
    done = lay(objects, repository, folder)
    assert done.returncode == 0, done.stderr
    return folder / "models"


@pytest.fixture(scope="module")
def serving(objects, laid: Path, repository: Path) -> Iterator[ChartServer]:
    container = pod_here(objects, laid)
    options = replace(ports(repository), api_key=container.environment["WANWU_API_KEY"])
    with ChartServer(options, container) as server:
        yield server


def ports(repository: Path) -> ServerOptions:
    return ServerOptions(
        repository, grpc_port=free_port(), http_port=free_port(), metrics_port=free_port()
    )


def pod_here(objects: list[dict], laid: Path) -> Container:
    machine = Machine(laid.parent, secrets_of(objects), {"/models": laid})
    return machine.container(one(objects, "Deployment", "-triton"))


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
    with Recognizer(serving.url, api_key=serving.options.api_key) as client:
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


def test_a_full_queue_of_texts_refuses_at_once_and_answers_again(serving: ChartServer) -> None:
    headers = {"triton-grpc-protocol-wanwu-api-key": serving.options.api_key}
    ids = triton_grpc.InferInput("INPUT_IDS", [64, 64], "INT64")
    ids.set_data_from_numpy(np.ones((64, 64), np.int64))
    call = {"model_name": "text_encoder", "inputs": [ids], "headers": headers}
    ended: queue.Queue[Exception | None] = queue.Queue()
    with triton_grpc.InferenceServerClient(serving.url) as client:
        for _ in range(40):
            client.async_infer(**call, callback=lambda result, error: ended.put(error))
        refused = [str(error) for _ in range(40) if (error := ended.get(timeout=60))]
        assert 0 < len(refused) < 40
        assert all("Exceeds maximum queue size" in each for each in refused)
        assert client.infer(**call).as_numpy("EMBEDDING").any()


def test_nobody_calls_without_the_key(serving: ChartServer) -> None:
    with Recognizer(serving.url) as client, pytest.raises(SetupError, match="no key came"):
        client.recognize(cat_photo())


def test_a_caller_may_not_change_the_server(serving: ChartServer) -> None:
    client = triton_grpc.InferenceServerClient(serving.url)
    headers = {"triton-grpc-protocol-wanwu-api-key": serving.options.api_key}
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


def test_engines_are_kept_once_a_real_triton_is_ready(
    render, serving: ChartServer, tmp_path: Path
) -> None:
    script = tmp_path / "with-engines.sh"
    objects = render(nested("triton.tensorrt.enabled", True))
    script.write_text(one(objects, "ConfigMap", "-triton")["data"][script.name])
    folders = {"WANWU_ENGINES": f"{tmp_path}/made", "WANWU_ENGINES_KEPT": f"{tmp_path}/kept"}
    quick = {"WANWU_HTTP_PORT": str(serving.options.http_port), "WANWU_ENGINES_EVERY_S": "0.5"}
    making = ["sh", "-c", "echo engine >$WANWU_ENGINES/an.engine; sleep 15"]
    environment = {"PATH": os.environ["PATH"], **folders, **quick}
    subprocess.run(["bash", script, *making], env=environment, check=True)
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.name.endswith(".an.engine")
    assert kept.read_text() == "engine\n"


def test_the_latency_that_older_scalers_read_is_there(serving: ChartServer) -> None:
    with Recognizer(serving.url, api_key=serving.options.api_key) as client:
        client.recognize(cat_photo())
    url = f"http://127.0.0.1:{serving.options.metrics_port}/metrics"
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
    assert re.search(r'nv_inference_request_summary_us\{model="image_encoder".*0\.95"\}', text)
