"""How the tests' Tritons serve: by the profile that `pytest --profile` names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from wanwu.embedded.profiles import BACKENDS_VARIABLE
from wanwu.embedded.server import ServerOptions

#: Read before a test's environment is cleaned.
BACKENDS = os.environ.get(BACKENDS_VARIABLE)
_chosen: dict[str, Any] = {}


def choose_profile(config: pytest.Config) -> None:
    """Take the profile of a test run; all but the embedded one need the backend folder."""
    _chosen["profile"] = config.getoption("--profile")
    _chosen["backends"] = Path(BACKENDS) if BACKENDS else None


def profile() -> str:
    """Return the name of the profile that the tests run by."""
    return str(_chosen["profile"])


def missing_backends() -> str | None:
    """Return why the tests of the chosen profile cannot run here, if they cannot."""
    if profile() == "embedded" or BACKENDS:
        return None
    return f"{BACKENDS_VARIABLE} does not name a folder with Triton's onnxruntime backend"


def server_options(repository: Path, **others: Any) -> ServerOptions:
    """Return the options of a server by the chosen profile."""
    return ServerOptions(repository, **{**_chosen, **others})


def serve_arguments() -> list[str]:
    """Return the arguments of `wanwu serve` for the chosen profile."""
    backends = ["--backends", BACKENDS] if BACKENDS else []
    return ["--profile", profile(), *backends]
