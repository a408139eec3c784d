"""What needs a GPU: it is taken, it answers as the CPU does, it is named, its memory is bounded."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from wanwu import Recognizer, SetupError
from wanwu.contract import Precision
from wanwu.doctor import examine
from wanwu.embedded.cuda import CUDA, TRIAL_MODEL, cuda_session, gpu_name
from wanwu.embedded.device import choose_device
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu.samples import cat_photo
from wanwu_export.onnx_towers import write_image_encoder
from wanwu_export.parity import Gate
from wanwu_export.precision import convert

TEXTS = ["猫", "一只白色的小狗", "高铁站里停着高速列车的站台"]
SMI = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0")


def used_mb() -> float:
    done = subprocess.run(SMI, capture_output=True, text=True, check=True)
    return float(done.stdout)


def on_gpu_within(repository: Path, bound_mb: int) -> ServerOptions:
    return ServerOptions(
        repository,
        grpc_port=free_port(),
        metrics_port=None,
        device=choose_device("gpu", repository),
        gpu_memory_mb=bound_mb,
    )


def test_auto_takes_the_gpu_and_names_it(gpu: str, repository: Path) -> None:
    chosen = choose_device("auto", repository)
    assert (chosen.kind, chosen.why) == ("gpu", gpu)
    assert gpu == gpu_name()


def test_an_image_is_encoded_as_on_the_cpu(on_gpu: Recognizer, on_cpu: Recognizer) -> None:
    there, here = (client.embed_image(cat_photo()) for client in (on_gpu, on_cpu))
    assert float(there @ here) > 0.9999


def test_texts_are_encoded_as_on_the_cpu(on_gpu: Recognizer, on_cpu: Recognizer) -> None:
    there, here = (client.embed_texts(TEXTS) for client in (on_gpu, on_cpu))
    assert (there * here).sum(1) == pytest.approx(1.0, abs=1e-4)


def test_labels_get_the_scores_of_the_cpu(on_gpu: Recognizer, on_cpu: Recognizer) -> None:
    there, here = (client.recognize(cat_photo(), top_k=5) for client in (on_gpu, on_cpu))
    assert there.top.label == here.top.label
    scores = [[each.score for each in answer.predictions] for answer in (there, here)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_a_batch_on_the_gpu_answers_as_its_images_do_alone(on_gpu: Recognizer) -> None:
    alone = on_gpu.embed_image(cat_photo())
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(on_gpu.embed_image, [cat_photo()] * 256))
    assert np.stack(together) @ alone == pytest.approx(1.0, abs=1e-4)


def test_doctor_names_the_gpu_and_finds_the_server_sound(on_gpu: Recognizer) -> None:
    findings = list(examine(on_gpu))
    assert [finding for finding in findings if not finding.ok] == []
    (device,) = [finding for finding in findings if finding.what == "device"]
    assert "image_encoder on GPU 0" in device.detail
    assert "text_encoder on GPU 0" in device.detail


def test_a_session_on_the_gpu_computes_right() -> None:
    session = cuda_session(TRIAL_MODEL)
    assert session.get_providers()[0] == CUDA
    (found,) = session.run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
    assert found.tolist() == [[16.0]]


def test_a_gpu_that_is_not_there_fails_the_session() -> None:
    with pytest.raises(RuntimeError, match="CUDA"):
        cuda_session(TRIAL_MODEL, device_id=63)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_gate_compares_on_the_gpu(gpu: str, starter, tmp_path: Path, precision: str) -> None:
    path = tmp_path / "fp32" / "model.onnx"
    path.parent.mkdir()
    write_image_encoder(starter, path)
    if precision == "fp16":
        lowered = tmp_path / "model.onnx"
        convert(path, precision, lowered)
        path = lowered
    found = Gate(starter, gpu=gpu).check_image(path, precision)
    assert found.device == gpu
    assert found.least_cosine >= found.required_cosine


def test_an_export_on_the_gpu_publishes_what_one_on_the_cpu_does(
    gpu: str, starter, repository: Path, tmp_path: Path
) -> None:
    from wanwu.repository import newest_release
    from wanwu_export.banks import built_in_plans
    from wanwu_export.publish import publish

    assert starter.precision == Precision(image="fp32", text="fp32")
    banks = [plan for plan in built_in_plans() if plan.name == "default"]
    release = publish(starter, banks, tmp_path, step=len, gpu=gpu).release
    assert {check.device for checks in release.parity.towers.values() for check in checks} == {gpu}
    towers = [name for name in release.files if "encoder" in name]
    on_cpu = newest_release(repository).files
    assert [release.files[name] for name in towers] == [on_cpu[name] for name in towers]


def test_device_memory_stays_within_its_bound(repository: Path) -> None:
    bound_mb, context_mb = 1024, 1024
    before = used_mb()
    with (
        EmbeddedServer(on_gpu_within(repository, bound_mb)) as server,
        Recognizer(server.url, timeout_s=60) as client,
        ThreadPoolExecutor(64) as pool,
    ):
        list(pool.map(client.embed_image, [cat_photo()] * 512))
        used = used_mb() - before
    # Four instances, each a process with a context of its own, and Triton's.
    assert used < 4 * bound_mb + 5 * context_mb


def test_a_bound_that_the_weights_pass_is_refused_at_the_start(repository: Path) -> None:
    with pytest.raises(SetupError, match="before it was ready"):
        EmbeddedServer(on_gpu_within(repository, 1)).__enter__()
