"""Clients that tools generate from the API's description import, and their calls are answered."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from wanwu.samples import cat_photo

CLIENTS = Path(__file__).with_name("clients")
PYTHON = CLIENTS / ".venv" / "bin"
NODE_MODULES = CLIENTS / "node_modules"


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_openapi_python_client_makes_one_that_imports_and_calls(
    gateway: Any, tmp_path: Path, need: Any
) -> None:
    tool = PYTHON / "openapi-python-client"
    need(tool.exists(), "openapi-python-client: make install-clients")
    (tmp_path / "cat.jpg").write_bytes(cat_photo())
    made = ("--output-path", "made/wanwu_client", "--meta", "none")
    (tmp_path / "made").mkdir()
    run(tool, "generate", "--url", f"{gateway.url}/openapi.json", *made, cwd=tmp_path)
    called = run(
        PYTHON / "python", CLIENTS / "call.py", "made", gateway.url, "cat.jpg", cwd=tmp_path
    )
    assert called == "called\n"


def test_openapi_typescript_makes_types_by_which_a_client_calls(
    gateway: Any, tmp_path: Path, need: Any
) -> None:
    need(shutil.which("node") is not None, "Node.js: apt install nodejs npm")
    need(NODE_MODULES.is_dir(), "openapi-typescript: make install-clients")
    (tmp_path / "cat.jpg").write_bytes(cat_photo())
    shutil.copy(CLIENTS / "call.ts", tmp_path)
    shutil.copy(CLIENTS / "package.json", tmp_path)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    tools = NODE_MODULES / ".bin"
    run(tools / "openapi-typescript", f"{gateway.url}/openapi.json", "-o", "api.d.ts", cwd=tmp_path)
    strict = ("--strict", "--module", "nodenext", "--target", "es2022", "--types", "node")
    run(tools / "tsc", *strict, "call.ts", cwd=tmp_path)
    assert run("node", "call.js", gateway.url, "cat.jpg", cwd=tmp_path) == "called\n"
