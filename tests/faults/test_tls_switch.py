"""TLS turned on: Tritons that speak it beside those that do not, behind one name.

What docs/runbook.md relies on: in such a fleet a caller of either setting is answered, since a
connection whose other end speaks otherwise never becomes ready, and another is taken.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import trustme

from support.fleet import INPUTS, MODEL, OUTPUTS, Name, served_name, tiny_repository
from support.serving import server_options
from wanwu.channel import Address, Tls
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.errors import ServerError
from wanwu.transport import GrpcTransport

OLD, NEW = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    """Write an authority's certificate, and one that it issued to the name and its addresses."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    issued = authority.issue_cert("triton.wanwu.test", OLD, NEW)
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    for part in issued.cert_chain_pems:
        part.write_to_path(tmp_path / "tls.crt", append=True)
    return tmp_path


def caller_of(setting: str, papers: Path) -> Tls | None:
    own = {"cert": papers / "tls.crt", "key": papers / "tls.key"} if setting == "mutual" else {}
    return None if setting == "plain" else Tls(ca=papers / "ca.crt", **own)


def server_of(setting: str, papers: Path, host: str, port: int) -> EmbeddedServer:
    pair = (f"--grpc-server-cert={papers}/tls.crt", f"--grpc-server-key={papers}/tls.key")
    encrypted = ("--grpc-use-ssl=1", *pair)
    arguments = {
        "plain": (),
        "encrypted": encrypted,
        "mutual": (*encrypted, "--grpc-use-ssl-mutual=1", f"--grpc-root-cert={papers}/ca.crt"),
    }
    options = server_options(
        papers / "models",
        host=host,
        grpc_port=port,
        metrics_port=None,
        arguments=arguments[setting],
        tls=caller_of(setting, papers),
    )
    return EmbeddedServer(options)


def calls(wire: GrpcTransport, count: int) -> None:
    for _ in range(count):
        wire.infer(MODEL, INPUTS, OUTPUTS, timeout_s=10)


@pytest.mark.parametrize(("before", "after"), [("plain", "encrypted"), ("encrypted", "mutual")])
def test_a_fleet_of_both_answers_callers_of_either(papers: Path, before: str, after: str) -> None:
    tiny_repository(papers / "models")
    port, name = free_port(), Name(OLD)
    with contextlib.ExitStack() as old, served_name(name, port) as url:
        first, second = (Address(url, caller_of(each, papers)) for each in (before, after))
        old.enter_context(server_of(before, papers, OLD, port))
        with contextlib.closing(GrpcTransport(first)) as caller:
            calls(caller, 5)
            with server_of(after, papers, NEW, port):
                name.addresses = [OLD, NEW]
                with (
                    contextlib.closing(GrpcTransport(first)) as restarted,
                    contextlib.closing(GrpcTransport(second)) as changed,
                ):
                    for _ in range(20):
                        for wire in (caller, restarted, changed):
                            calls(wire, 5)
                    old.close()
                    name.addresses = [NEW]
                    calls(changed, 20)
                    with pytest.raises(ServerError):
                        calls(restarted, 1)
