"""Where `wanwu serve` runs the towers: what it takes, what it refuses, and the reasons it prints.

Here no GPU is needed; `tests/gpu` has what needs one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from wanwu import InputError, SetupError
from wanwu.embedded import device
from wanwu.embedded.cuda import CUDA, TRIAL_MODEL, cuda_session
from wanwu.embedded.device import CPU, CudaError, Device, choose_device, try_cuda, why_not
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port

WANWU = Path(sys.executable).with_name("wanwu")
NO_PROVIDER = (
    "onnxruntime has no CUDA provider; for a GPU run: "
    "pip uninstall -y onnxruntime && pip install 'wanwu[server-gpu]'"
)
#: What onnxruntime-gpu 1.28 prints without CUDA's libraries, without a driver, with an old one.
NO_LIBRARY = (
    "[E:onnxruntime:Default, provider_bridge_ort.cc:2395 TryGetProviderInfo_CUDA] FAIL : Failed to "
    "load library capi/libonnxruntime_providers_cuda.so with error: {}: cannot open shared object "
    "file: No such file or directory\n[W:onnxruntime:Default] Failed to create "
    "CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*."
)
OLD_DRIVER = (
    "RuntimeError: cuda_call.cc:146 CUDA failure 35: CUDA driver version is insufficient for CUDA "
    "runtime version ; GPU=-1 ; hostname=node ; file=cuda_execution_provider.cc ; line=341 ; "
    "expr=cudaSetDevice(info_.device_id);"
)


@pytest.fixture
def without_cuda() -> None:
    """These tests are about a machine without a GPU."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")


@pytest.fixture
def old_repository(repository: Path, tmp_path: Path) -> Path:
    """A repository as a release exported it that knew no GPU in the embedded profile."""
    copy = tmp_path / "old"
    shutil.copytree(repository, copy, copy_function=os.link)
    for config in copy.glob("*/configs/embedded-gpu.pbtxt"):
        config.unlink()
    return copy


def serve(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ports = ("--grpc-port", str(free_port()), "--metrics-port", "0")
    command = [str(WANWU), "serve", "--model-repository", str(repository), *ports, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def a_gpu() -> str:
    return "NVIDIA H100"


def no_gpu() -> str:
    raise CudaError("libcudnn.so.9 cannot be loaded")


def test_auto_takes_the_cpu_and_says_why(without_cuda, repository: Path) -> None:
    chosen = choose_device("auto", repository)
    assert (chosen.kind, chosen.config_name) == ("cpu", "embedded")
    assert chosen.why == NO_PROVIDER


def test_serve_prints_the_device_before_it_starts(without_cuda, tmp_path: Path) -> None:
    done = serve(tmp_path)
    assert done.stdout.startswith(f"wanwu: device cpu: {NO_PROVIDER}\n")


def test_serve_refuses_a_gpu_that_is_not_there(without_cuda, repository: Path) -> None:
    done = serve(repository, "--device", "gpu")
    assert done.returncode == 5
    assert f"the device gpu cannot be used: {NO_PROVIDER}" in done.stderr
    assert "starting Triton" not in done.stdout


def test_auto_takes_a_gpu_that_works(repository: Path) -> None:
    chosen = choose_device("auto", repository, try_gpu=a_gpu)
    assert chosen == Device("gpu", "NVIDIA H100")
    assert chosen.config_name == "embedded-gpu"


def test_the_cpu_is_taken_without_a_look_at_cuda(repository: Path) -> None:
    assert choose_device("cpu", repository, try_gpu=no_gpu) == CPU


def test_a_gpu_that_fails_is_refused_with_its_reason(repository: Path) -> None:
    with pytest.raises(SetupError, match=r"cannot be used: libcudnn\.so\.9 cannot be loaded"):
        choose_device("gpu", repository, try_gpu=no_gpu)


def test_a_gpu_is_refused_for_a_repository_of_an_earlier_release(old_repository: Path) -> None:
    with pytest.raises(SetupError, match=r"embedded-gpu\.pbtxt, .* export again"):
        choose_device("gpu", old_repository, try_gpu=a_gpu)


def test_auto_serves_a_repository_of_an_earlier_release_on_the_cpu(old_repository: Path) -> None:
    chosen = choose_device("auto", old_repository, try_gpu=a_gpu)
    assert chosen.kind == "cpu"
    assert chosen.why.endswith("so an earlier release exported it; export again")


def test_another_device_is_refused(repository: Path) -> None:
    with pytest.raises(InputError, match="the device is 'tpu'; expected one of auto, cpu, gpu"):
        choose_device("tpu", repository)


@pytest.mark.parametrize(
    ("wanted", "profile", "kind"),
    [("auto", "cpu", "cpu"), ("cpu", "cpu", "cpu"), ("auto", "gpu", "gpu"), ("gpu", "gpu", "gpu")],
)
def test_a_profile_of_tritons_own_backend_names_the_device(wanted, profile, kind, tmp_path) -> None:
    chosen = choose_device(wanted, tmp_path, profile=profile, try_gpu=no_gpu)
    assert chosen == Device(kind, f"as the profile {profile} says")


@pytest.mark.parametrize(("wanted", "profile"), [("gpu", "cpu"), ("cpu", "gpu")])
def test_a_device_that_its_profile_contradicts_is_refused(wanted, profile, tmp_path) -> None:
    with pytest.raises(InputError, match=f"device {wanted} does not fit the profile {profile}"):
        choose_device(wanted, tmp_path, profile=profile)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (NO_LIBRARY.format("libcudnn.so.9"), "libcudnn.so.9 cannot be loaded; run: pip install"),
        (NO_LIBRARY.format("libcuda.so.1"), "libcuda.so.1 cannot be loaded; NVIDIA's driver"),
        (OLD_DRIVER, "CUDA says: CUDA driver version is insufficient for CUDA runtime version;"),
        ("Traceback\nOSError: no such GPU\n", "did not run on CUDA: OSError: no such GPU"),
        ("", "a small model did not run on CUDA: no reason given"),
    ],
)
def test_a_failed_trial_is_explained(log: str, reason: str) -> None:
    assert reason in why_not(log)


def test_cuda_is_tried_in_a_process_of_its_own(
    without_cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that it goes on to the trial, where the real onnxruntime of this machine answers.
    monkeypatch.setattr(device, "_has_cuda_library", lambda: True)
    with pytest.raises(CudaError, match="onnxruntime has no CUDA provider"):
        try_cuda()


def test_a_session_never_falls_back_to_the_cpu(without_cuda) -> None:
    with pytest.raises(RuntimeError, match="has no CUDA provider"):
        cuda_session(TRIAL_MODEL)


def test_the_trial_needs_a_convolution_and_a_product() -> None:
    session = onnxruntime.InferenceSession(TRIAL_MODEL, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
    assert found.tolist() == [[16.0]]
    assert b"Conv" in TRIAL_MODEL
    assert b"MatMul" in TRIAL_MODEL


def test_triton_is_run_with_the_configs_of_its_device(without_cuda, repository: Path) -> None:
    options = ServerOptions(
        repository, grpc_port=free_port(), metrics_port=None, device=Device("gpu")
    )
    # Without a GPU those configs cannot be served, and nothing else is served in their place.
    with pytest.raises(SetupError, match=r"(?s)before it was ready.*image_encoder.*GPU"):
        EmbeddedServer(options).__enter__()


def test_the_bound_of_device_memory_reaches_the_model_instances(repository: Path) -> None:
    options = ServerOptions(
        repository, grpc_port=free_port(), metrics_port=None, gpu_memory_mb=1234
    )
    with EmbeddedServer(options) as server:
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"WANWU_GPU_MEMORY_MB=1234" in environment.split(b"\0")
