"""What a caller sees when the server is gone, half there, or overloaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from support.serving import server_options
from wanwu import Recognizer, ServerError
from wanwu.doctor import Finding, examine, places
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.samples import cat_photo
from wanwu.transport import Instances

WANWU = Path(sys.executable).with_name("wanwu")


@pytest.fixture
def own_server(repository: Path) -> Iterator[EmbeddedServer]:
    """A Triton that a test may harm."""
    options = server_options(repository, grpc_port=free_port(), metrics_port=None)
    with EmbeddedServer(options) as server:
        yield server


def unload(server: EmbeddedServer, model: str) -> None:
    with triton.InferenceServerClient(server.url) as admin:
        admin.unload_model(model, headers=server.admin_headers)
        while admin.is_model_ready(model):
            pass


def failed(recognizer: Recognizer) -> list[Finding]:
    return [finding for finding in examine(recognizer) if not finding.ok]


def test_a_server_that_ends_in_the_middle_is_a_server_error(own_server: EmbeddedServer) -> None:
    with Recognizer(own_server.url) as client:
        assert client.recognize(cat_photo()).predictions
        own_server.stop()
        with pytest.raises(ServerError, match=r"no Triton answers gRPC at .*wanwu serve"):
            client.recognize(cat_photo())


def test_a_closed_recognizer_says_so(server: EmbeddedServer) -> None:
    client = Recognizer(server.url)
    client.close()
    with pytest.raises(ServerError, match="was closed; make a new Recognizer"):
        client.recognize(cat_photo())


@pytest.mark.parametrize("model", ["image_encoder", "text_encoder", "label_bank"])
def test_a_model_that_is_gone_is_named_to_caller_and_doctor(
    own_server: EmbeddedServer, model: str
) -> None:
    unload(own_server, model)
    with Recognizer(own_server.url, timeout_s=3) as client:
        with pytest.raises(ServerError, match=f"no version of model '{model}' ready.*wanwu doctor"):
            client.recognize(cat_photo(), labels=["猫", "狗"])
        # Triton calls itself not ready while it unloads, and ready again when that is done.
        finding = failed(client)[-1]
        assert finding.what == f"model {model}"
        assert "export the model again, or load it" in finding.detail


def test_an_unknown_bank_lists_the_served_ones(recognizer: Recognizer) -> None:
    with pytest.raises(ServerError, match="Banks served: default, luxury, seed18"):
        recognizer.recognize(cat_photo(), bank="none-such")


def test_a_deadline_that_passes_is_told(server: EmbeddedServer) -> None:
    with (
        Recognizer(server.url, timeout_s=0.001) as client,
        pytest.raises(ServerError, match=r"within 0\.0 s; raise the timeout"),
    ):
        client.recognize(cat_photo())


def test_doctor_finds_a_sound_server_sound(recognizer: Recognizer) -> None:
    findings = list(examine(recognizer))
    assert [finding for finding in findings if not finding.ok] == []
    assert {"server", "contract", "fingerprint", "picture", "Chinese, 火锅", "Chinese, 高铁站"} <= {
        finding.what for finding in findings
    }


def test_doctor_names_what_the_release_lacks(recognizer: Recognizer) -> None:
    (release,) = [finding for finding in examine(recognizer) if finding.what == "release"]
    assert release.ok
    assert release.warning
    assert release.detail.startswith("Triton 2.51.0 lacks the fixes for CVE-2025-23310, ")
    assert release.detail.endswith("server#8870; serve others with release 26.08 or later")


def test_doctor_warns_of_a_release_and_does_not_fail(server: EmbeddedServer) -> None:
    command = [str(WANWU), "doctor", "--url", server.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "WARN release: Triton 2.51.0 lacks the fixes for" in done.stdout


def found_where_restricted(repository: Path, protocol: str, what: str) -> Finding:
    """Return a finding about a server that restricts one of its protocols."""
    restricted = (f"--grpc-restricted-protocol={protocol}:secret=1",)
    options = server_options(
        repository, grpc_port=free_port(), metrics_port=None, arguments=restricted
    )
    with EmbeddedServer(options) as server, Recognizer(server.url) as client:
        (found,) = [finding for finding in examine(client) if finding.what == what]
    return found


def test_doctor_is_content_where_the_metadata_is_restricted(repository: Path) -> None:
    release = found_where_restricted(repository, "metadata", "release")
    assert release.detail == "not said: the server restricts its metadata protocol"


def test_doctor_names_the_device_of_the_towers(recognizer: Recognizer) -> None:
    (device,) = [finding for finding in examine(recognizer) if finding.what == "device"]
    assert device.detail == "image_encoder on CPU (2 instances), text_encoder on CPU (2 instances)"


@pytest.mark.parametrize(
    ("found", "place"),
    [
        ([Instances(2, "KIND_GPU", (0,))], "GPU 0 (2 instances)"),
        ([Instances(2, "KIND_GPU", (0, 3))], "GPU 0, 3 (4 instances)"),
        ([Instances(1, "KIND_CPU")], "CPU"),
    ],
)
def test_doctor_counts_the_instances_of_each_gpu(found: list[Instances], place: str) -> None:
    assert places(found) == place


def test_doctor_is_content_where_the_configuration_is_restricted(repository: Path) -> None:
    device = found_where_restricted(repository, "model-config", "device")
    assert device.ok
    assert device.detail == "not said: the server restricts its model-config protocol"


def test_doctor_tells_how_to_start_a_server_that_is_not_there() -> None:
    command = [str(WANWU), "doctor", "--url", f"127.0.0.1:{free_port()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAIL server: no Triton answers" in done.stdout
    assert "wanwu serve" in done.stdout


def test_no_proxy_of_the_environment_is_used(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with Recognizer(server.url) as client:
        assert client.recognize(cat_photo()).predictions
