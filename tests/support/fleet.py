"""Several servers behind one DNS name, what may befall them, and clients that go on calling."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from dnslib import QTYPE, RCODE, RR, A, DNSError
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from support.serving import server_options
from support.tiny import publish_files
from wanwu.async_transport import AsyncGrpcTransport
from wanwu.channel import CHANNEL_ARGS, Address, infer_arguments
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.transport import GrpcTransport

MODEL, SLOW, OUTPUTS = "text_encoder", "slow", ["EMBEDDING"]
INPUTS = {"INPUT_IDS": np.ones((1, 4), np.int64)}

#: Between two calls of one caller.
PAUSE_S = 0.02

SLOW_MODEL = """
import os
import time
from wanwu.embedded.backend import model_beside

class TritonPythonModel(model_beside(__file__)):
    def execute(self, requests):
        with open(f"{__file__}.{os.getpid()}.requests", "a") as count:
            count.write("x" * len(requests))
        time.sleep(1.5)
        return super().execute(requests)
"""


class Name(BaseResolver):
    """A DNS name that stands for a list of addresses, which may change."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.silent = self.missing = False

    def resolve(self, request, handler):
        if self.silent:
            raise DNSError("no answer is sent")
        reply = request.reply()
        if self.missing:
            reply.header.rcode = RCODE.NXDOMAIN
        elif QTYPE[request.q.qtype] == "A":
            for address in self.addresses:
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address), ttl=1))
        return reply


@contextmanager
def served_name(name: Name, port: int) -> Iterator[str]:
    """Answer for a name, and give the gRPC address of a port behind it."""
    log = DNSLogger("-request,-reply,-error")
    dns = DNSServer(name, port=free_port(), address="127.0.0.1", logger=log)
    dns.start_thread()
    try:
        yield f"dns://127.0.0.1:{dns.server.server_address[1]}/triton.wanwu.test:{port}"
    finally:
        dns.stop()
        dns.server.server_close()


def tiny_repository(folder: Path) -> Path:
    """Publish tiny models, and a copy of the text tower, SLOW, that takes 1.5 s for a batch."""
    from wanwu_export.concepts import Concept

    publish_files(folder, 12345, {"default": [Concept("猫"), Concept("狗")]})
    shutil.copytree(folder / MODEL, folder / SLOW)
    (folder / SLOW / "1" / "model.py").write_text(SLOW_MODEL)
    return folder


def requests_of_slow(repository: Path) -> int:
    """Return how many requests the servers of a repository have run by SLOW."""
    return sum(path.stat().st_size for path in (repository / SLOW / "1").glob("*.requests"))


def tiny_server(repository: Path, host: str, port: int) -> EmbeddedServer:
    return EmbeddedServer(server_options(repository, host=host, grpc_port=port, metrics_port=None))


@contextmanager
def stopped(server: EmbeddedServer) -> Iterator[None]:
    """Hang a server, with every process of it."""
    os.killpg(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGCONT)


def answered(server: EmbeddedServer) -> int:
    """Return how many requests a server's text tower has answered."""
    with triton.InferenceServerClient(server.url) as client:
        entries = client.get_inference_statistics(MODEL).model_stats
    return sum(entry.inference_count for entry in entries)


class Relay:
    """Passes TCP on to a port, until it falls silent: connections stay open, nothing passes."""

    def __init__(self, host: str, port: int, to: str) -> None:
        self._to = (to, port)
        self._listener = socket.create_server((host, port))
        self._sockets: list[socket.socket] = []
        self._passing = threading.Event()
        self._passing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self, *, later: bool) -> None:
        """Pass nothing on the connections that are open and, with `later`, on new ones."""
        self._passing.clear()
        if not later:
            self._passing = threading.Event()
            self._passing.set()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *ending: object) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                self._sockets += near, far
                for ends in ((near, far), (far, near)):
                    pump = (*ends, self._passing)
                    threading.Thread(target=self._pump, args=pump, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, passing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                passing.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


@dataclass
class Call:
    """What came of one call."""

    seconds: float
    error: Exception | None


@contextmanager
def calling(
    kind: str,
    url: str,
    *,
    callers: int,
    timeout_s: float,
    model: str = MODEL,
    channel_args: Sequence[tuple[str, Any]] = CHANNEL_ARGS,
) -> Iterator[list[Call]]:
    """Call a name again and again; the list grows, and is whole when the block has ended.

    Args:
        kind: `sync` and `aio` are Wanwu's transports, `plain` is tritonclient as it is.
        url: the name's gRPC address.
        callers: threads, or tasks, that call one after the other.
        timeout_s: the deadline of each call.
        model: what is called.
        channel_args: options of gRPC, for `plain`.
    """
    calls: list[Call] = []
    ended = threading.Event()
    plain = functools.partial(_plain, channel_args)
    run = {"sync": _sync, "aio": _aio, "plain": plain}[kind]
    thread = threading.Thread(target=run, args=(url, callers, timeout_s, model, calls, ended))
    thread.start()
    try:
        wait_until(lambda: len(calls) >= 4 * callers)
        assert not any(call.error for call in calls), calls
        yield calls
    finally:
        ended.set()
        thread.join()


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.02)


def _sync(url, callers, timeout_s, model, calls, ended) -> None:
    with contextlib.closing(GrpcTransport(Address(url))) as wire:

        def call() -> object:
            return wire.infer(model, INPUTS, OUTPUTS, timeout_s=timeout_s)

        _in_threads(call, callers, calls, ended)


def _plain(channel_args, url, callers, timeout_s, model, calls, ended) -> None:
    with triton.InferenceServerClient(url, channel_args=channel_args) as client:
        arguments = infer_arguments(model, INPUTS, OUTPUTS)

        def call() -> object:
            return client.infer(**arguments, client_timeout=timeout_s)

        _in_threads(call, callers, calls, ended)


def _in_threads(call: Callable[[], Any], callers, calls, ended) -> None:
    def caller() -> None:
        while not ended.is_set():
            started, error = time.monotonic(), None
            try:
                call()
            except Exception as failure:
                error = failure
            calls.append(Call(time.monotonic() - started, error))
            time.sleep(PAUSE_S)

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _aio(url, callers, timeout_s, model, calls, ended) -> None:
    async def caller(wire: AsyncGrpcTransport) -> None:
        while not ended.is_set():
            started, error = time.monotonic(), None
            try:
                await wire.infer(model, INPUTS, OUTPUTS, timeout_s=timeout_s)
            except Exception as failure:
                error = failure
            calls.append(Call(time.monotonic() - started, error))
            await asyncio.sleep(PAUSE_S)

    async def go() -> None:
        wire = AsyncGrpcTransport(Address(url))
        await asyncio.gather(*(caller(wire) for _ in range(callers)))
        await wire.close()

    asyncio.run(go())
