"""Measure what a caller notices while others attack the gateway.

    make bench-attacks

One caller sends a photograph five times a second, alone and then under each attack. The attackers
run on the same machine, at the lowest priority, since they stand for other machines.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench_client import form
from bench_gateway import gateway
from measured import machine, run_wanwu
from PIL import Image

from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu.gateway.keys import create_key
from wanwu.samples import cat_photo

ALONE_S, ATTACK_S, PAUSE_S = 60.0, 600.0, 0.2
KIND = "multipart/form-data; boundary=wanwu"
#: Attackers at a time, each in a thread; and connections that one of them holds.
ATTACKERS, HELD = 32, 20
#: A side of a large picture: 40 megapixels in a few hundred kB.
LARGE_SIDE = 6_324


def main() -> None:
    """Export, serve, measure alone and under each attack, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=ATTACK_S, help="of each attack")
    parser.add_argument("--attack", choices=ATTACKS, help="one alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wanwu-bench-") as name:
        folder = Path(name)
        run_wanwu("export", "starter", "--output", str(folder / "starter"))
        options = ServerOptions(folder / "starter", grpc_port=free_port(), metrics_port=None)
        with EmbeddedServer(options) as server, gateway(folder, server.url) as (port, _, key):
            _, greedy = create_key(folder / "keys.json", "greedy", ("recognise",))
            time.sleep(2)  # the gateway sees a new key within a second
            for attack in [arguments.attack] if arguments.attack else ATTACKS:
                measure(attack, port, key, greedy, arguments.seconds)
        size = sum(path.stat().st_size for path in folder.glob("audit*.jsonl"))
    print(f"\n{machine()}; audit log {size / 1e6:.1f} MB")


def measure(attack: str, port: int, key: str, greedy: str, seconds: float) -> None:
    """Print what the caller notices of one attack."""
    alone = caller(port, key, min(ALONE_S, seconds))
    attacking = multiprocessing.Process(target=attackers, args=(attack, port, greedy, seconds + 2))
    attacking.start()
    time.sleep(2)
    attacked = caller(port, key, seconds)
    attacking.terminate()
    attacking.join()
    print(
        f"{attack:10} alone P95 {p95(alone):5.0f} ms of {len(alone)}, attacked P95 "
        f"{p95(attacked):5.0f} ms of {len(attacked)}, {p95(attacked) / p95(alone):.2f} times",
        flush=True,
    )


def p95(values: list[float]) -> float:
    """Return the value that 95 % stay below."""
    return statistics.quantiles(values, n=20)[-1]


def caller(port: int, key: str, seconds: float) -> list[float]:
    """Return the milliseconds of each request of one caller; all must be answered."""
    body, found = form(cat_photo(), None), []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        started = time.monotonic()
        connection.request("POST", "/predict", body, {"X-API-Key": key, "Content-Type": KIND})
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(f"the caller was answered {answer.status}: {answer.read().decode()}")
        answer.read()
        found.append((time.monotonic() - started) * 1000)
        time.sleep(PAUSE_S)
    return found


def attackers(attack: str, port: int, key: str, seconds: float) -> None:
    """Attack from 127.0.0.2 for so long."""
    os.nice(19)
    ends = time.monotonic() + seconds

    def work() -> None:
        while time.monotonic() < ends:
            with contextlib.suppress(OSError, http.client.HTTPException):
                ATTACKS[attack](port, key)

    threads = [threading.Thread(target=work) for _ in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def connected(port: int) -> socket.socket:
    """Return a connection from the attackers' address."""
    return socket.create_connection(("127.0.0.1", port), 5, source_address=("127.0.0.2", 0))


def hold_connections(port: int, _: str) -> None:
    """Hold connections, each with half of a request's headers."""
    with contextlib.ExitStack() as held:
        for _ in range(HELD):
            line = held.enter_context(connected(port))
            line.sendall(b"GET /v1/banks HTTP/1.1\r\nHost: a\r\n")
        time.sleep(1)


def ask_without_key(port: int, _: str) -> None:
    """Send requests that are refused, in Chinese and with a long path."""
    with connected(port) as line:
        for _ in range(10):
            line.sendall(
                b"GET /" + b"a" * 3_000 + b" HTTP/1.1\r\nHost: a\r\nAccept-Language: zh\r\n\r\n"
            )
            if not line.recv(65_536):
                return


def offer_upgrade(port: int, key: str) -> None:
    """Offer an upgrade, and send another request as the body."""
    inner = f"GET /v1/banks HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n".encode()
    head = (
        f"POST /v1/recognize HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nConnection: Upgrade\r\n"
        f"Upgrade: h2c\r\nContent-Type: application/json\r\nContent-Length: {len(inner)}\r\n\r\n"
    )
    with connected(port) as line:
        line.sendall(head.encode())
        time.sleep(0.05)
        line.sendall(inner)
        line.recv(65_536)


def send_large(port: int, key: str) -> None:
    """Send a large picture, and wait for its answer."""
    with connected(port) as line:
        line.sendall(large_request(key))
        line.settimeout(90)
        while line.recv(65_536):
            pass


def leave(port: int, key: str) -> None:
    """Send a large picture, and leave."""
    with connected(port) as line:
        line.sendall(large_request(key))
        time.sleep(0.2)


def large_request(key: str) -> bytes:
    """Return a request with a large picture of few bytes."""
    body = form(LARGE, None)
    head = (
        f"POST /predict HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nConnection: close\r\n"
        f"Content-Type: {KIND}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def large_picture() -> bytes:
    """Return a picture of 40 megapixels."""
    held = io.BytesIO()
    Image.new("RGBA", (LARGE_SIDE, LARGE_SIDE), (1, 2, 3, 4)).save(held, "PNG")
    return held.getvalue()


LARGE = large_picture()
ATTACKS: dict[str, Callable[[int, str], None]] = {
    "connections": hold_connections,
    "refused": ask_without_key,
    "upgrade": offer_upgrade,
    "large": send_large,
    "leave": leave,
}

if __name__ == "__main__":
    main()
