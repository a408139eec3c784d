"""Benchmark the gateway: what it costs beside the client, in one run and in turns.

    make bench-client

The same photographs go to the same Triton directly, by `Recognizer` in threads, and through the
gateway with auth and audit log on, over as many kept connections. The gateway's own CPU time is
told apart from the callers' and Triton's; decoding, which a direct caller pays as well, is measured
beside it.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench_client import Pictures, form, group_cpu_s, in_threads, listens, make_photos
from measured import machine, run_wanwu

from wanwu import Recognizer
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu.gateway.keys import create_key
from wanwu.images import to_pixels

CONNECTIONS = (1, 4, 16, 64)
ROUNDS, SECONDS = 3, 4.0
DIRECT, GATEWAY = "direct, by `Recognizer`", "through the gateway"
BANK = "seed18"


@dataclass(frozen=True)
class Figure:
    """One timed part: seconds of each picture, and the CPU time of the gateway and of all."""

    latencies: list[float]
    seconds: float
    gateway_s: float
    all_s: float


def main() -> None:
    """Export, serve, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round")
    quick = parser.parse_args().quick
    rounds, seconds = (1, 0.5) if quick else (ROUNDS, SECONDS)
    with tempfile.TemporaryDirectory(prefix="wanwu-bench-") as name:
        folder = Path(name)
        run_wanwu("export", "starter", "--output", str(folder / "starter"))
        options = ServerOptions(folder / "starter", grpc_port=free_port(), metrics_port=None)
        with (
            EmbeddedServer(options) as server,
            Recognizer(server.url) as client,
            gateway(folder, server.url) as (port, group, token),
        ):
            decoding = decode_ms(client)
            figures = measure(client, server.pid, port, group, token, rounds, seconds)
    print(f"\n{machine()}, the starter, medians of {rounds} rounds of {seconds:g} s\n")
    report(figures, decoding)


@contextmanager
def gateway(folder: Path, triton: str) -> Iterator[tuple[int, int, str]]:
    """Run a gateway with auth and audit log: its port, its process group and a key."""
    keys, port = folder / "keys.json", free_port()
    _, token = create_key(keys, "bench", ("recognise",), rate="1000000/minute")
    command = [
        *(str(Path(sys.executable).with_name("wanwu")), "gateway", "--url", triton),
        *("--port", str(port), "--keys-file", str(keys), "--audit", str(folder / "audit.jsonl")),
    ]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        try:
            while not listens(port):
                if process.poll() is not None:
                    sys.exit(f"{' '.join(command)} ended with {process.returncode}")
                time.sleep(0.1)
            yield port, process.pid, token
        finally:
            process.terminate()


def decode_ms(client: Recognizer) -> float:
    """Give the CPU time of decoding one photograph as the client does."""
    geometry, photos = client.contract(BANK).image, make_photos()
    started = time.process_time()
    for photo in photos * 20:
        to_pixels(photo, geometry)
    return (time.process_time() - started) / len(photos * 20) * 1000


def measure(
    client: Recognizer,
    triton: int,
    port: int,
    group: int,
    token: str,
    rounds: int,
    seconds: float,
) -> dict[tuple[str, int], list[Figure]]:
    """Measure both ways in turns."""

    def direct(pictures: Iterator[bytes], at: int) -> list[float]:
        def work(_: int) -> list[float]:
            return [client.recognize(picture, bank=BANK).seconds for picture in pictures]

        return in_threads(work, range(at))

    def through(pictures: Iterator[bytes], at: int) -> list[float]:
        def work(_: int) -> list[float]:
            with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
                return [_post(connection, picture, token) for picture in pictures]

        return in_threads(work, range(at))

    ways: dict[str, Callable[[Iterator[bytes], int], list[float]]]
    ways = {DIRECT: direct, GATEWAY: through}
    photos = make_photos()
    for way in ways.values():
        way(iter(photos), 1)  # fetches the bank
    figures: dict[tuple[str, int], list[Figure]] = {}
    for at, (name, way), _ in itertools.product(CONNECTIONS, ways.items(), range(rounds)):
        before, started = (group_cpu_s(group), _all_cpu_s(group, triton)), time.perf_counter()
        latencies = way(Pictures(photos, seconds), at)
        spent = time.perf_counter() - started
        after = (group_cpu_s(group), _all_cpu_s(group, triton))
        figure = Figure(latencies, spent, after[0] - before[0], after[1] - before[1])
        figures.setdefault((name, at), []).append(figure)
    return figures


def _all_cpu_s(group: int, triton: int) -> float:
    return time.process_time() + group_cpu_s(group) + group_cpu_s(triton)


def _post(connection: http.client.HTTPConnection, picture: bytes, token: str) -> float:
    started = time.perf_counter()
    kind = "multipart/form-data; boundary=wanwu"
    headers = {"Content-Type": kind, "X-API-Key": token}
    connection.request("POST", "/v1/recognize", form(picture, None, bank=BANK), headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        sys.exit(f"the gateway answered {response.status}: {answer.decode()}")
    assert len(json.loads(answer)["results"][0]["predictions"]) == 5
    return time.perf_counter() - started


def report(figures: dict[tuple[str, int], list[Figure]], decoding: float) -> None:
    """Print the table."""
    columns = ("connections", "pictures/s", "p50 ms", "p95 ms", "CPU ms, all", "CPU ms, gateway")
    print(f"| | {' | '.join(columns)} | beside decoding |")
    print("|---|" + "---|" * (len(columns) + 1))
    for (name, at), found in figures.items():
        count = [len(figure.latencies) for figure in found]
        rate = statistics.median(n / f.seconds for n, f in zip(count, found, strict=True))
        spent = sorted(s * 1000 for figure in found for s in figure.latencies)
        p50, p95 = spent[len(spent) // 2], spent[int(len(spent) * 0.95)]
        whole = statistics.median(f.all_s / n * 1000 for n, f in zip(count, found, strict=True))
        own = statistics.median(f.gateway_s / n * 1000 for n, f in zip(count, found, strict=True))
        shown = [f"{own:.1f}", f"{own - decoding:.1f}"] if name == GATEWAY else ["", ""]
        cells = [name, at, f"{rate:.1f}", f"{p50:.1f}", f"{p95:.1f}", f"{whole:.1f}", *shown]
        print(f"| {' | '.join(map(str, cells))} |")
    print(f"\nDecoding one photograph: {decoding:.1f} ms of CPU.")


if __name__ == "__main__":
    main()
