"""Fixtures shared by every room: a real export, a real Triton, and a clean environment."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.serving import choose_profile, missing_backends, server_options
from wanwu import Recognizer
from wanwu.embedded.server import EmbeddedServer, free_port

if TYPE_CHECKING:
    from wanwu_export.dual_tower import DualTower

SHARED_PHOTOS = Path(__file__).parents[2] / "shared" / "photos"

Need = Callable[[bool, str], None]

# A shell starts what it puts into the background with Ctrl-C ignored, and the commands under test
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs the tests that serve on Triton's onnxruntime backend."""
    parser.addoption(
        "--profile",
        choices=("embedded", "cpu", "gpu"),
        default="embedded",
        help="configs that the tests' Tritons serve by; cpu and gpu need WANWU_TRITON_BACKENDS",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take the profile of this run."""
    choose_profile(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of a profile whose backend is not here, with the reason."""
    if reason := missing_backends():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting or cache of the person running the tests reaches them."""
    for name in list(os.environ):
        if name.startswith("WANWU_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("WANWU_LANG", "en")


@pytest.fixture(scope="session")
def need() -> Need:
    """Skip a test whose part this machine lacks; in CI fail it instead."""

    def check(available: bool, what: str) -> None:
        if available:
            return
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have {what}")
        pytest.skip(f"this machine has no {what}")

    return check


@pytest.fixture(scope="session")
def starter(need: Need) -> DualTower:
    """The starter's towers, as they are before conversion."""
    need(importlib.util.find_spec("torch") is not None, "torch: pip install 'wanwu[export]'")
    from wanwu_export.starter import build_starter

    return build_starter()


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, starter: DualTower) -> Path:
    """A model repository with the starter and its banks, exported for this test run."""
    from wanwu_export.banks import built_in_plans
    from wanwu_export.publish import publish

    folder = tmp_path_factory.mktemp("exported") / "model_repository"
    publish(starter, built_in_plans(), folder, step=lambda text: None)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path, need: Need) -> Iterator[EmbeddedServer]:
    """A real Triton over the exported starter. Tests that change a server start their own."""
    need(importlib.util.find_spec("pytriton") is not None, "Triton: pip install 'wanwu[server]'")
    options = server_options(repository, grpc_port=free_port(), metrics_port=free_port())
    with EmbeddedServer(options) as running:
        yield running


@pytest.fixture(scope="session")
def recognizer(server: EmbeddedServer) -> Iterator[Recognizer]:
    """A client of that Triton."""
    with Recognizer(server.url) as client:
        yield client


@pytest.fixture(scope="session")
def shared_photos() -> Path:
    """Photographs for measuring, which only the project's own machines have."""
    if not SHARED_PHOTOS.is_dir():
        pytest.skip("the 200 measuring photographs are not part of a checkout")
    return SHARED_PHOTOS
