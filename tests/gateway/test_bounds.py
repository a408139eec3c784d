"""What nobody's requests, known or not, take from others: connections, decoders, time."""

from __future__ import annotations

import io
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from PIL import Image

from support.gateway import RunningGateway
from support.http import Answer, form, post_picture, request
from wanwu.gateway.connections import Connections, Refusals
from wanwu.gateway.keys import create_key
from wanwu.gateway.metrics import Metrics
from wanwu.samples import cat_photo

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


# Connections, by themselves


class Counted:
    """Connections of a gateway that takes 16; those that were closed are in `closed`."""

    def __init__(self, *trusted: str, handshake_s: float = 60) -> None:
        self.connections = Connections(16, trusted, handshake_s, Metrics())
        self.closed: list[int] = []

    def comes(self, host: str, port: int, *, waits: bool = True) -> bool:
        """Accept a connection, on which a request is under way unless it waits."""
        came = self.connections.accept((host, port))
        if came:
            self.connections.waits((host, port), lambda: self.closed.append(port))
            if not waits:
                self.connections.answers((host, port))
        return came


def test_the_one_that_waits_longest_makes_room() -> None:
    counted = Counted()
    for port in range(16):
        assert counted.comes(f"10.0.0.{port}", port)
    assert counted.comes("10.0.1.1", 100)
    assert counted.comes("10.0.1.1", 101)
    assert counted.closed == [0, 1]


def test_where_no_connection_waits_there_is_no_room() -> None:
    counted = Counted()
    for port in range(16):
        assert counted.comes(f"10.0.0.{port}", port, waits=False)
    assert not counted.comes("10.0.1.1", 100)
    counted.connections.remove(("10.0.0.3", 3))
    assert counted.comes("10.0.1.1", 100)


def test_one_source_closes_its_own_connections_alone() -> None:
    counted = Counted()
    counted.comes("10.0.0.2", 1)
    for port in range(100, 200):
        counted.comes("10.0.0.1", port)
    assert counted.closed == list(range(100, 192))


def test_a_proxy_that_is_trusted_may_have_them_all() -> None:
    counted = Counted("10.0.0.0/8")
    assert [counted.comes("10.0.0.1", port, waits=False) for port in range(17)].count(True) == 16


def test_addresses_of_one_ipv6_network_are_one_source() -> None:
    counted = Counted()
    came = [counted.comes(f"2001:db8::{port}", port, waits=False) for port in range(1, 12)]
    assert came == [True] * 8 + [False] * 3
    assert counted.comes("2001:db8:0:1::1", 100, waits=False)


def test_a_handshake_that_does_not_come_makes_room() -> None:
    counted = Counted(handshake_s=0.05)
    accepted = [counted.connections.accept(("10.0.0.1", port)) for port in range(9)]
    assert accepted == [True] * 8 + [False]
    time.sleep(0.06)
    assert counted.connections.accept(("10.0.0.1", 9))


@pytest.mark.parametrize(
    ("soft", "hard", "most"), [(256, 4_096, 2_000), (256, 256, 64), (1_024, 1_024, 832)]
)
def test_the_limit_of_open_files_is_raised_or_kept_to(soft: int, hard: int, most: int) -> None:
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from wanwu.gateway.connections import most_connections
print(most_connections(2_000))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout == f"{most}\n"
    assert ("since" in answer.stderr) == (most < 2_000)


# Connections of a gateway


@contextmanager
def opened(gateway: RunningGateway, count: int, sends: bytes) -> Iterator[list[socket.socket]]:
    """Open connections from 127.0.0.2, and send a part of a request on each."""
    with ExitStack() as stack:
        lines = []
        for _ in range(count):
            line = socket.create_connection(
                ("127.0.0.1", gateway.port), 10, source_address=("127.0.0.2", 0)
            )
            lines.append(stack.enter_context(line))
            try:
                line.sendall(sends)
            except OSError:
                continue  # it was closed, to make room
        yield lines


@pytest.fixture(scope="module")
def narrow(server: Any, start_gateway: Any) -> Iterator[RunningGateway]:
    with start_gateway(server.url, MAX_CONNECTIONS=64) as running:
        yield running


@pytest.mark.parametrize("sends", [b"", HEALTH, HEALTH[:-2]], ids=["silent", "idle", "half"])
def test_more_connections_than_there_may_be_stop_nobody(
    narrow: RunningGateway, sends: bytes
) -> None:
    before = narrow.log.stat().st_size
    with opened(narrow, 300, sends):
        for _ in range(5):
            assert request(f"{narrow.url}/v1/banks", timeout_s=5).status == 200
    assert narrow.log.stat().st_size == before


def test_who_keeps_to_one_connection_is_answered_on_it_all_the_time(
    narrow: RunningGateway,
) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port), 10) as mine:
        for _ in range(4):
            mine.sendall(HEALTH)
            answer = b"".join(iter(lambda: mine.recv(1), b"}"))
            assert answer.startswith(b"HTTP/1.1 200")
            with opened(narrow, 80, b""):
                pass


def test_connections_without_a_tls_handshake_stop_nobody(
    server: Any, start_gateway: Any, tmp_path: Path
) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    pair.write_to_path(tmp_path / "both.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    both = {"TLS_CERT": tmp_path / "both.pem", "TLS_KEY": tmp_path / "both.pem"}
    with (
        start_gateway(server.url, MAX_CONNECTIONS=32, **both) as gateway,
        opened(gateway, 100, b""),
        socket.create_connection(("127.0.0.1", gateway.port), 10) as bare,
        trusting.wrap_socket(bare, server_hostname="127.0.0.1") as line,
    ):
        line.sendall(HEALTH)
        assert line.recv(10_000).startswith(b"HTTP/1.1 200")


def test_who_is_refused_again_and_again_waits_and_nobody_else() -> None:
    refusals = Refusals()
    delays = [refusals.delay_s("10.0.0.1") for _ in range(130)]
    assert delays == [0.0] * 120 + [1.0] * 10
    assert refusals.delay_s("10.0.0.2") == 0.0
    for number in range(20_000):
        refusals.delay_s(f"10.1.{number // 256}.{number % 256}")
    assert len(refusals._counts) == 10_000


def test_an_answer_to_a_key_does_not_wait_for_the_refusals_of_its_address(
    two_keys: tuple[RunningGateway, Callable[[str, bytes], Answer]],
) -> None:
    gateway, send = two_keys
    send("small", cat_photo())
    refused_s = [
        timed(lambda: request(f"{gateway.url}/v1/banks", headers={"X-API-Key": "no"}), 401)
        for _ in range(121)
    ]
    assert refused_s[-1] >= 1 > min(refused_s)
    assert timed(lambda: send("small", cat_photo()), 200) < 1


# Decoders and time


def png_of(side: int) -> bytes:
    """Return a picture of few bytes that takes long to decode."""
    held = io.BytesIO()
    Image.new("RGBA", (side, side), (1, 2, 3, 4)).save(held, "PNG", compress_level=1)
    return held.getvalue()


@pytest.fixture(scope="module")
def large() -> bytes:
    return png_of(6_000)


@pytest.fixture(scope="module")
def two_keys(
    server: Any, start_gateway: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningGateway, Callable[[str, bytes], Answer]]]:
    """A gateway with two keys, and how a picture is sent with one of them."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = {name: create_key(file, name, ("recognise",))[1] for name in ("greedy", "small")}
    with start_gateway(server.url, "--keys-file", str(file)) as running:

        def send(name: str, data: bytes) -> Answer:
            headers = {"X-API-Key": keys[name]}
            return post_picture(running.url, "/predict", data, headers=headers)

        yield running, send


def timed(work: Callable[[], Answer], status: int = 200) -> float:
    """Return the seconds until an answer came."""
    started = time.monotonic()
    assert work().status == status
    return time.monotonic() - started


def test_one_keys_large_pictures_do_not_starve_another_key(
    two_keys: tuple[RunningGateway, Callable[[str, bytes], Answer]], large: bytes
) -> None:
    _, send = two_keys
    send("small", cat_photo())
    large_alone_s = timed(lambda: send("greedy", large))
    with ThreadPoolExecutor(12) as greedy:
        sent = [greedy.submit(send, "greedy", large) for _ in range(12)]
        time.sleep(1)
        small_s = [timed(lambda: send("small", cat_photo())) for _ in range(5)]
        assert sum(each.done() for each in sent) < 12, "the large pictures ended too soon"
        statuses = {each.result().status for each in sent}
    # In turn with the large ones it would wait for six of them or more.
    assert sorted(small_s)[2] < large_alone_s
    assert statuses <= {200, 503}


def test_what_cannot_be_decoded_in_time_is_refused_at_once(
    server: Any, start_gateway: Any, large: bytes
) -> None:
    with start_gateway(server.url, DEADLINE_S=4, BODY_TIMEOUT_S=2, DECODERS=1) as gateway:
        post_picture(gateway.url, "/predict", large)
        body, kind = form(*(("file", large) for _ in range(16)))
        started = time.monotonic()
        answer = request(
            f"{gateway.url}/v1/recognize", "POST", headers={"Content-Type": kind}, body=body
        )
        assert time.monotonic() - started < 3
    assert (answer.status, answer.json()["code"]) == (503, "overloaded")
    assert int(answer.headers["Retry-After"]) > 1


def test_a_request_ends_at_its_deadline(server: Any, start_gateway: Any, large: bytes) -> None:
    with start_gateway(server.url, DEADLINE_S=0.5, BODY_TIMEOUT_S=0.5, DECODERS=1) as gateway:
        answer = post_picture(gateway.url, "/predict", large)
        assert (answer.status, answer.json()["code"]) in {(504, "deadline"), (503, "overloaded")}
        assert request(f"{gateway.url}/v1/banks").status == 200


def test_the_work_of_a_caller_who_has_left_is_dropped_and_noted(
    server: Any, start_gateway: Any, large: bytes
) -> None:
    body, kind = form(("file", large))
    head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with start_gateway(server.url, DECODERS=1) as gateway:
        large_alone_s = timed(lambda: post_picture(gateway.url, "/predict", large))
        lines = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(16)]
        for line in lines:
            line.sendall(head.encode() + body)
        time.sleep(large_alone_s / 2)
        for line in lines:
            line.close()
        # One is being decoded, and the others' turns do not come.
        assert timed(lambda: post_picture(gateway.url, "/predict", cat_photo())) < (
            10 * large_alone_s
        )
        gateway.stop()
        noted = [json.loads(line) for line in gateway.audit.read_text().splitlines()]
    left = [line for line in noted if line.get("code") == "caller_left"]
    assert len(left) == 16
    assert {line["status"] for line in left} == {499}
