"""The API's description: complete, and true of every answer."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wanwu.embedded.server import EmbeddedServer
from wanwu.gateway.keys import SCOPES, create_key
from wanwu.gateway.problems import CODES

#: A schema cannot say that bytes are a picture, nor that a field of a form is no text.
UNSAYABLE = "positive_data_acceptance,negative_data_rejection"


@pytest.fixture(scope="module")
def description(gateway: Any) -> dict[str, Any]:
    with urllib.request.urlopen(f"{gateway.url}/openapi.json") as answer:
        described: dict[str, Any] = json.load(answer)
    return described


def operations(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }


def test_every_address_is_described(description) -> None:
    assert set(operations(description)) == {
        "POST /predict",
        "POST /v1/recognize",
        "POST /v1/embed",
        "GET /v1/banks",
        "GET /v1/banks/{name}/labels",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
    }


def test_every_operation_says_what_it_does_and_how_it_fails(description) -> None:
    for operation in operations(description).values():
        assert operation["description"]
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                schema = answer["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ProblemDocument"}


def test_every_code_is_described(description) -> None:
    text = json.dumps(description)
    # Two are told before there is a request: of its headers alone.
    at_the_door = {"route_unknown", "method_not_allowed", "header_too_large"}
    assert [code for code in CODES if f"`{code}`" not in text and code not in at_the_door] == []


def test_all_but_the_probes_want_credentials(description) -> None:
    free = {name for name, each in operations(description).items() if not each.get("security")}
    assert free == {"GET /healthz", "GET /readyz"}


def test_schemathesis_finds_no_failure_and_nothing_undocumented(
    server: EmbeddedServer,
    start_gateway: Callable[..., Any],
    tmp_path: Path,
    need: Callable[[bool, str], None],
) -> None:
    need(importlib.util.find_spec("schemathesis") is not None, "schemathesis: make install")
    keys = tmp_path / "keys.json"
    _, token = create_key(keys, "schemathesis", SCOPES)
    with start_gateway(server.url, "--keys-file", str(keys), RATE="1000000/minute") as gateway:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json"),
                *("-H", f"X-API-Key: {token}", "--exclude-checks", UNSAYABLE),
                *("--max-examples", "40", "--seed", "1", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: 8" in done.stdout
