"""TLS turned on: Tritons that speak it beside those that do not, behind one name.

What docs/runbook.md relies on: in such a fleet a caller of either setting is answered, since a
connection whose other end speaks otherwise never becomes ready, and the other is taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from support.fleet import INPUTS, MODEL, OUTPUTS, Name, served_name, tiny_repository, tiny_server
from support.serving import server_options
from wanwu.channel import Address, Tls
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.errors import ServerError
from wanwu.transport import GrpcTransport

OLD, NEW = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    """Write an authority's certificate, and one that it issued to the name and to NEW."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    issued = authority.issue_cert("triton.wanwu.test", NEW)
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    for part in issued.cert_chain_pems:
        part.write_to_path(tmp_path / "tls.crt", append=True)
    return Tls(ca=tmp_path / "ca.crt")


@contextlib.contextmanager
def secured(repository: Path, port: int, tls: Tls) -> Iterator[EmbeddedServer]:
    folder = Path(str(tls.ca)).parent
    pair = (f"--grpc-server-cert={folder}/tls.crt", f"--grpc-server-key={folder}/tls.key")
    options = server_options(
        repository,
        host=NEW,
        grpc_port=port,
        metrics_port=None,
        arguments=("--grpc-use-ssl=1", *pair),
        tls=tls,
    )
    with EmbeddedServer(options) as server:
        yield server


def calls(wire: GrpcTransport, count: int) -> None:
    for _ in range(count):
        wire.infer(MODEL, INPUTS, OUTPUTS, timeout_s=10)


def test_a_fleet_of_both_answers_callers_of_either(tmp_path: Path, tls: Tls) -> None:
    repository, port = tiny_repository(tmp_path / "models"), free_port()
    name = Name(OLD)
    with (
        contextlib.ExitStack() as old,
        served_name(name, port) as url,
        contextlib.closing(GrpcTransport(Address(url))) as plain,
    ):
        old.enter_context(tiny_server(repository, OLD, port))
        calls(plain, 5)
        with secured(repository, port, tls):
            name.addresses = [OLD, NEW]
            with (
                contextlib.closing(GrpcTransport(Address(url))) as plain_and_new,
                contextlib.closing(GrpcTransport(Address(url, tls))) as encrypted,
            ):
                for _ in range(20):
                    for wire in (plain, plain_and_new, encrypted):
                        calls(wire, 5)
                old.close()
                name.addresses = [NEW]
                calls(encrypted, 20)
                with pytest.raises(ServerError):
                    calls(plain_and_new, 1)
