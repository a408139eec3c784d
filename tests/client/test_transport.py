from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from wanwu import InputError, ServerError
from wanwu.channel import Address, ModelMissingError, as_bytes, by_name, check_url
from wanwu.embedded.server import free_port
from wanwu.transport import GrpcTransport

ROWS = {"ROWS": np.array([0, 1], dtype=np.int64)}


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def http_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port() -> int:
    """A port where nothing listens."""
    return free_port()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8001",
        "localhost:1",
        "triton.models.svc.cluster.local:65535",
        "[::1]:8001",
        "dns:///triton:8001",
        "ipv4:10.0.0.1:8001",
    ],
)
def test_an_address_of_host_and_port_is_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "triton",
        "8001",
        ":8001",
        "triton:",
        "triton:grpc",
        "triton:0",
        "triton:65536",
        "triton:-1",
        "triton:8001/",
        "triton:8001 ",
        "triton:²",
        "[::1]",
    ],
)
def test_an_address_without_host_or_port_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"is not HOST:PORT; .*'127\.0\.0\.1:8001'"):
        check_url(url)


@pytest.mark.parametrize("scheme", ["http", "https", "grpc", "grpcs", "HTTP"])
def test_a_web_address_is_refused_with_the_address_meant(scheme: str) -> None:
    with pytest.raises(InputError, match=f"starts with {scheme}://.*'triton:8001'"):
        check_url(f"{scheme}://triton:8001/")


@pytest.mark.parametrize("rest", ["", "triton", "triton:8000/v2/models", "user@triton:8001"])
def test_the_address_a_refusal_suggests_would_be_taken(rest: str) -> None:
    with pytest.raises(InputError) as caught:
        check_url(f"http://{rest}")
    suggested = str(caught.value).rpartition("such as ")[2].strip("'")
    assert check_url(suggested) == suggested


def test_nothing_listening_is_told_with_the_address_and_the_way_on() -> None:
    url = f"127.0.0.1:{free_port()}"
    with closing(GrpcTransport(Address(url))) as wire:
        for ask in (
            lambda: wire.is_ready(timeout_s=2.0),
            lambda: wire.is_ready("label_bank", timeout_s=2.0),
            lambda: wire.models(timeout_s=2.0),
            lambda: wire.infer("label_bank", ROWS, ["LABELS"], timeout_s=2.0),
        ):
            with pytest.raises(ServerError, match=f"no Triton answers gRPC at {url}.*wanwu serve"):
                ask()


def test_a_host_that_does_not_exist_is_told_as_no_answer() -> None:
    with (
        closing(GrpcTransport(Address("no-such-host.invalid:8001"))) as wire,
        pytest.raises(ServerError, match=r"no-such-host\.invalid:8001") as caught,
    ):
        wire.is_ready(timeout_s=5.0)
    assert not isinstance(caught.value, ModelMissingError)


def test_a_port_of_http_is_told_within_the_timeout(http_port: int) -> None:
    started = time.monotonic()
    with (
        closing(GrpcTransport(Address(f"127.0.0.1:{http_port}"))) as wire,
        pytest.raises(ServerError, match=f"127.0.0.1:{http_port}"),
    ):
        wire.infer("label_bank", ROWS, ["LABELS"], timeout_s=3.0)
    assert time.monotonic() - started < 4.0


def test_a_server_that_never_answers_is_told_at_the_deadline(silent_port: int) -> None:
    started = time.monotonic()
    with (
        closing(GrpcTransport(Address(f"127.0.0.1:{silent_port}"))) as wire,
        pytest.raises(ServerError, match=r"gave no answer within 1\.0 s; raise the timeout"),
    ):
        wire.infer("label_bank", ROWS, ["LABELS"], timeout_s=1.0)
    assert 0.9 < time.monotonic() - started < 3.0


@pytest.mark.parametrize("value", [b"\xe7\x8c\xab", "猫", np.str_("猫")])
def test_an_element_of_text_is_given_as_bytes(value: object) -> None:
    assert as_bytes(value) == "猫".encode()


def test_a_server_never_heard_of_is_given_up_after_a_second(closed_port: int) -> None:
    started = time.monotonic()
    with (
        closing(GrpcTransport(Address(f"127.0.0.1:{closed_port}"))) as wire,
        pytest.raises(ServerError, match="no Triton answers"),
    ):
        wire.is_ready(timeout_s=60.0)
    assert 0.4 < time.monotonic() - started < 3.0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8001", False),
        ("[::1]:8001", False),
        ("ipv4:10.0.0.1:8001", False),
        ("triton:8001", True),
        ("triton.models.svc.cluster.local:8001", True),
        ("dns:///triton:8001", True),
        ("dns://10.0.0.53/triton:8001", True),
        ("unix:///run/triton.sock:1", False),
    ],
)
def test_a_name_is_told_from_an_address(url: str, expected: bool) -> None:
    assert by_name(url) is expected
