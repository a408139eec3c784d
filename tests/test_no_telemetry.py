"""Nothing that Wanwu installs or starts reports to anybody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wanwu.embedded.server import EmbeddedServer

UPLOADERS = (b"events.data.microsoft.com", b"OneDsTelemetry")


@pytest.mark.parametrize("package", ["onnxruntime", "tritonclient", "tokenizers", "pytriton"])
def test_no_installed_library_holds_an_uploader(package: str) -> None:
    spec = pytest.importorskip(package)
    libraries = list(Path(spec.__file__).parent.rglob("*.so*"))
    found = [path.name for path in libraries if any(u in path.read_bytes() for u in UPLOADERS)]
    assert found == [], f"{package} reports to its vendor; hold it at an older version"


def test_triton_and_its_stubs_are_told_not_to_report(server: EmbeddedServer) -> None:
    group = [
        path
        for path in Path("/proc").glob("[0-9]*")
        if path.joinpath("stat").exists() and os.getpgid(int(path.name)) == server.pid
    ]
    assert len(group) > 5
    for process in group:
        assert b"ORT_DISABLE_TELEMETRY=1" in (process / "environ").read_bytes().split(b"\0")


def test_the_export_is_told_not_to_report() -> None:
    program = "import wanwu_export, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
