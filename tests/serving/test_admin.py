"""The protocols that change a server are closed to callers without the admin key."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.serving import server_options
from wanwu.embedded.server import ADMIN_KEY_NAME, EmbeddedServer, free_port

ADMIN_CALLS = {
    "model-repository": lambda client, headers: client.load_model("label_bank", headers=headers),
    "repository index": lambda client, headers: client.get_model_repository_index(headers=headers),
    "shared-memory": lambda client, headers: client.get_system_shared_memory_status(
        headers=headers
    ),
    "trace": lambda client, headers: client.get_trace_settings(headers=headers),
    "logging": lambda client, headers: client.get_log_settings(headers=headers),
}


@pytest.mark.parametrize("call", ADMIN_CALLS.values(), ids=ADMIN_CALLS)
def test_an_admin_call_without_the_key_is_refused(server: EmbeddedServer, call) -> None:  # type: ignore[no-untyped-def]
    with triton.InferenceServerClient(server.url) as client:
        with pytest.raises(InferenceServerException, match="restricted"):
            call(client, {})
        with pytest.raises(InferenceServerException, match="restricted"):
            call(client, dict.fromkeys(server.admin_headers, "wrong"))


@pytest.mark.parametrize("call", ADMIN_CALLS.values(), ids=ADMIN_CALLS)
def test_an_admin_call_with_the_key_is_answered(server: EmbeddedServer, call) -> None:  # type: ignore[no-untyped-def]
    with triton.InferenceServerClient(server.url) as client:
        call(client, server.admin_headers)


def test_every_server_has_a_key_of_its_own(repository: Path) -> None:
    keys = {EmbeddedServer(server_options(repository)).admin_key for _ in range(3)}
    assert len(keys) == 3
    assert all(len(key) >= 32 for key in keys)


def test_http_needs_the_key_too(repository: Path) -> None:
    options = server_options(
        repository, grpc_port=free_port(), http_port=free_port(), metrics_port=free_port()
    )
    with EmbeddedServer(options) as server:
        index = f"http://127.0.0.1:{options.http_port}/v2/repository/index"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(index, method="POST"))
        headers = {ADMIN_KEY_NAME: server.admin_key}
        request = urllib.request.Request(index, method="POST", headers=headers)
        with urllib.request.urlopen(request) as answer:
            assert {"image_encoder", "label_bank"} <= {m["name"] for m in json.load(answer)}
        metrics = f"http://127.0.0.1:{options.metrics_port}/metrics"
        with urllib.request.urlopen(metrics) as answer:
            assert b"nv_inference_request_success" in answer.read()
