"""Where a request ends: one request, one answer, one line in the audit log."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.gateway import RunningGateway
from wanwu.samples import cat_photo

INNER = b"GET /v1/banks HTTP/1.1\r\nHost: wanwu\r\nX-Request-ID: inner\r\n\r\n"
LENGTH = f"Content-Length: {len(INNER)}"
CHUNKED = [f"{len(INNER):x}\r\n".encode(), INNER, b"\r\n0\r\n\r\n"]
JSON = "Content-Type: application/json"


def answers_to(gateway: RunningGateway, *parts: bytes, wait_s: float = 0.3) -> list[int]:
    """Send parts, each in a packet of its own, and return the statuses that come back."""
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            line.sendall(part)
            time.sleep(wait_s)
        line.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: line.recv(65_536), b""))
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def head(*headers: str, method: str = "POST", path: str = "/v1/recognize") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: wanwu", "X-Request-ID: outer", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def noted(gateway: RunningGateway) -> list[str]:
    """Return the ids of the requests that the audit log has."""
    lines = map(json.loads, gateway.audit.read_text().splitlines())
    return [line["request_id"] for line in lines if line["event"] == "request"]


@pytest.mark.parametrize(
    "headers",
    [
        ("Connection: Upgrade", "Upgrade: h2c", LENGTH),
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk", LENGTH),
        ("Connection: Upgrade", "Upgrade: websocket", LENGTH),
        ("Upgrade: h2c", LENGTH),
        ("Connection: keep-alive", LENGTH),
        ("Connection: close", LENGTH),
        ("Expect: 100-continue", LENGTH),
    ],
    ids=str,
)
def test_a_body_in_a_later_packet_is_no_request(
    gateway: RunningGateway, headers: tuple[str, ...]
) -> None:
    before = noted(gateway)
    statuses = answers_to(gateway, head(JSON, *headers), INNER)
    assert [each for each in statuses if each != 100] == [400]
    assert noted(gateway)[len(before) :] == ["outer"]


@pytest.mark.parametrize(
    "headers", [(), ("Connection: Upgrade", "Upgrade: h2c"), ("Trailer: X",)], ids=str
)
def test_a_chunked_body_in_later_packets_is_no_request(
    gateway: RunningGateway, headers: tuple[str, ...]
) -> None:
    before = noted(gateway)
    first = head(JSON, "Transfer-Encoding: chunked", *headers)
    assert answers_to(gateway, first, *CHUNKED) == [400]
    assert noted(gateway)[len(before) :] == ["outer"]


@pytest.mark.parametrize(
    "headers",
    [
        ("Transfer-Encoding: chunked", LENGTH),
        (LENGTH, "Transfer-Encoding: chunked"),
        (LENGTH, "Content-Length: 0"),
        ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Content-Length : 5",),
        ("Content-Length: +5",),
        ("Content-Length: 5, 6",),
    ],
    ids=str,
)
def test_a_body_whose_end_is_in_doubt_is_refused_and_the_connection_closed(
    gateway: RunningGateway, headers: tuple[str, ...]
) -> None:
    assert answers_to(gateway, head(JSON, *headers), INNER, INNER) == [400]
    assert "inner" not in noted(gateway)


def test_requests_behind_an_offered_upgrade_are_answered_in_turn(gateway: RunningGateway) -> None:
    first = head("Connection: Upgrade", "Upgrade: h2c", method="GET", path="/v1/banks")
    assert answers_to(gateway, first + INNER, INNER) == [200, 200, 200]


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE", "OPTIONS"])
def test_a_body_of_a_method_that_needs_none_is_no_request(
    gateway: RunningGateway, method: str
) -> None:
    before = noted(gateway)
    assert len(answers_to(gateway, head(LENGTH, method=method, path="/v1/banks"), INNER)) == 1
    assert noted(gateway)[len(before) :] == ["outer"]


def test_an_address_with_the_host_in_it_is_that_of_this_server(gateway: RunningGateway) -> None:
    whole = head("Connection: close", method="GET", path="http://wanwu/v1/banks?")
    assert answers_to(gateway, whole) == [200]


def test_what_callers_offer_is_no_line_in_the_log(gateway: RunningGateway) -> None:
    before = gateway.log.stat().st_size
    for _ in range(3):
        answers_to(gateway, head("Connection: Upgrade", "Upgrade: h2c", method="GET"), wait_s=0)
        answers_to(gateway, b"no HTTP\r\n\r\n", wait_s=0)
    assert gateway.log.stat().st_size == before


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "cat.jpg"
    path.write_bytes(cat_photo())
    return path


def test_curl_that_offers_http_2_is_answered(
    gateway: RunningGateway, photo: Path, need: Callable[[bool, str], None]
) -> None:
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=False)
    need("HTTP2" in version.stdout, "curl with HTTP/2")
    command = ["curl", "-sS", "--http2", "-F", f"file=@{photo}", f"{gateway.url}/predict"]
    answer: Any = json.loads(subprocess.check_output(command))
    assert len(answer["results"]) == 5


def test_the_client_of_java_that_offers_http_2_is_answered(
    gateway: RunningGateway, photo: Path, need: Callable[[bool, str], None]
) -> None:
    need(shutil.which("java") is not None, "a JDK: apt-get install default-jdk-headless")
    source = Path(__file__).with_name("DefaultClient.java")
    command = ["java", str(source), f"{gateway.url}/v1/recognize", str(photo)]
    answers = subprocess.check_output(command, text=True, timeout=120).splitlines()
    assert answers == ["200", "200"]


def test_the_client_of_node_is_answered(
    gateway: RunningGateway, photo: Path, need: Callable[[bool, str], None]
) -> None:
    need(shutil.which("node") is not None, "Node: apt-get install nodejs")
    program = """
    const [url, path] = process.argv.slice(1), form = new FormData();
    form.append("file", new Blob([require("fs").readFileSync(path)]), "cat.jpg");
    fetch(url, {method: "POST", body: form})
      .then(async answer => console.log((await answer.json()).results.length));
    """
    command = ["node", "-e", program, f"{gateway.url}/predict", str(photo)]
    assert subprocess.check_output(command, text=True, timeout=60).strip() == "5"
