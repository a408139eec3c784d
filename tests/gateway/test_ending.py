"""The gateway ends in order, and says so when Triton is overloaded or too slow."""

from __future__ import annotations

import io
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
from PIL import Image

from support.clones import with_queue
from support.fleet import Name, served_name, stopped
from support.http import Answer, form, post_picture, request
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu.samples import cat_photo

#: The beginning of a request whose end does not come.
SLOW = (
    b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 9\r\n\r\n-"
)


def test_it_finishes_what_it_has_and_ends(server, start_gateway) -> None:
    body, kind = form(("file", cat_photo()))
    head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with start_gateway(server.url) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
            connection.sendall(head.encode() + body[:-100])
            time.sleep(0.3)
            gateway.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", gateway.port))
            connection.sendall(body[-100:])
            answer = connection.recv(100_000)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert gateway.process.wait(30) == 0


def test_what_does_not_end_in_time_is_left(server, start_gateway) -> None:
    with start_gateway(server.url, DRAIN_S=1) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
            connection.sendall(SLOW)
            time.sleep(0.3)
            started = time.monotonic()
            gateway.stop()
            answer = connection.recv(100_000)
        assert time.monotonic() - started < 10
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"the gateway is ending" in answer
    assert "Traceback" not in gateway.log.read_text()


def test_a_full_queue_is_503_and_tells_when_to_come_back(
    repository: Path, tmp_path: Path, start_gateway
) -> None:
    folder = with_queue(repository, tmp_path / "model_repository", 1)
    options = ServerOptions(folder, grpc_port=free_port(), metrics_port=None)
    with EmbeddedServer(options) as small, start_gateway(small.url) as gateway:
        post_picture(gateway.url, "/predict", cat_photo())

        def ask(_: int) -> Any:
            return post_picture(gateway.url, "/predict", cat_photo())

        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(ask, range(96)))
    refused = [answer for answer in answers if answer.status != 200]
    assert {(each.status, each.json()["code"]) for each in refused} == {(503, "overloaded")}
    assert all(int(each.headers["Retry-After"]) >= 1 for each in refused)
    assert len(refused) < len(answers)


def test_a_triton_that_hangs_is_504(repository: Path, start_gateway) -> None:
    options = ServerOptions(repository, grpc_port=free_port(), metrics_port=None)
    with (
        EmbeddedServer(options) as server,
        start_gateway(server.url, "--timeout-s", "1") as gateway,
    ):
        assert post_picture(gateway.url, "/predict", cat_photo()).status == 200
        with stopped(server):
            started = time.monotonic()
            answer = post_picture(gateway.url, "/predict", cat_photo())
            spent = time.monotonic() - started
    assert (answer.status, answer.json()["code"]) == (504, "deadline")
    assert spent < 3


def test_a_triton_that_has_gone_is_told_at_once_and_its_return_too(
    repository: Path, start_gateway
) -> None:
    options = ServerOptions(repository, grpc_port=free_port(), metrics_port=None)
    with (
        EmbeddedServer(options) as server,
        start_gateway(server.url, "--timeout-s", "2") as gateway,
    ):
        assert request(f"{gateway.url}/readyz").status == 200
        with stopped(server):
            post_picture(gateway.url, "/predict", cat_photo())
            for _ in range(3):
                status, spent_s = timed(lambda: post_picture(gateway.url, "/predict", cat_photo()))
                assert (status, spent_s < 1.2) == (503, True)
            status, spent_s = timed(lambda: request(f"{gateway.url}/readyz"))
            assert (status, spent_s < 3.5) == (503, True)
        back = time.monotonic() + 3
        while post_picture(gateway.url, "/predict", cat_photo()).status != 200:
            assert time.monotonic() < back
        assert request(f"{gateway.url}/readyz").status == 200


def test_one_triton_of_two_that_hangs_takes_no_gateway_out_of_service(
    repository: Path, start_gateway
) -> None:
    addresses, port = ("127.0.0.1", "127.0.0.2"), free_port()
    first, second = (
        ServerOptions(repository, host=address, grpc_port=port, metrics_port=None)
        for address in addresses
    )
    with (
        EmbeddedServer(first) as server,
        EmbeddedServer(second),
        served_name(Name(*addresses), port) as both,
        start_gateway(both, "--timeout-s", "2") as gateway,
    ):
        assert request(f"{gateway.url}/readyz").status == 200
        with stopped(server):
            for _ in range(4):
                status, spent_s = timed(lambda: request(f"{gateway.url}/readyz"))
                assert (status, spent_s < 3.5) == (200, True)
                time.sleep(2.1)  # longer than an answer counts


def timed(work: Callable[[], Answer]) -> tuple[int, float]:
    """Return an answer's status and the seconds until it came."""
    started = time.monotonic()
    return work().status, time.monotonic() - started


def test_probes_answer_while_pictures_are_decoded(gateway) -> None:
    # Made first: that holds this process's interpreter for a second, and the probes with it.
    large = _large_png()
    slowest = 0.0
    ended = threading.Event()

    def probe() -> None:
        nonlocal slowest
        while not ended.is_set():
            started = time.monotonic()
            with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                assert connection.recv(9999).startswith(b"HTTP/1.1 200")
            slowest = max(slowest, time.monotonic() - started)

    probing = threading.Thread(target=probe)
    probing.start()
    for _ in range(2):
        assert post_picture(gateway.url, "/predict", large).status == 200
    ended.set()
    probing.join()
    assert slowest < 1.0  # decoding takes longer than that


def _large_png() -> bytes:
    held = io.BytesIO()
    Image.effect_noise((5000, 5000), 60).save(held, "PNG", compress_level=1)
    return held.getvalue()


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    command = ["gateway", "--no-auth", "--port", "0", "--audit", "off"]
    for option in ("--tls-cert", "--tls-key"):
        command += [option, str(tmp_path / "cert.pem")]
    program = "from wanwu.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True)
    assert done.returncode == 5
    assert f"the certificate {tmp_path / 'cert.pem'} and its key" in done.stderr


def test_it_speaks_https(server, start_gateway, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = ("--tls-cert", str(tmp_path / "both.pem"), "--tls-key", str(tmp_path / "both.pem"))
    with start_gateway(server.url, *options) as gateway:
        url = f"https://127.0.0.1:{gateway.port}"
        with urllib.request.urlopen(f"{url}/healthz", context=context) as answer:
            assert answer.headers["Strict-Transport-Security"]
