"""Every test here needs a GPU that CUDA runs on; without one each is skipped, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wanwu import Recognizer
from wanwu.embedded.device import CudaError, choose_device, try_cuda
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port


@pytest.fixture(scope="session", autouse=True)
def gpu() -> str:
    """The name of the GPU."""
    try:
        return try_cuda()
    except CudaError as error:
        pytest.skip(f"no GPU: {error}")


def options(repository: Path, device: str) -> ServerOptions:
    """How to serve a repository on a device."""
    return ServerOptions(
        repository,
        grpc_port=free_port(),
        metrics_port=None,
        device=choose_device(device, repository),
    )


@pytest.fixture(scope="session")
def on_gpu(gpu: str, repository: Path) -> Iterator[Recognizer]:
    """A client of a Triton that runs the starter on the GPU."""
    with (
        EmbeddedServer(options(repository, "gpu")) as server,
        Recognizer(server.url, timeout_s=60) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def on_cpu(gpu: str, repository: Path) -> Iterator[Recognizer]:
    """A client of a Triton that runs the same starter on the CPU."""
    with (
        EmbeddedServer(options(repository, "cpu")) as server,
        Recognizer(server.url, timeout_s=60) as client,
    ):
        yield client
