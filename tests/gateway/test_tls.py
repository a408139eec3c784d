"""TLS of the gateway: certificates that are renewed, and those of its callers."""

from __future__ import annotations

import json
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from cryptography import x509

from support.tokens import Issuer, publishing, tokens_of
from wanwu.embedded.server import EmbeddedServer
from wanwu.errors import InputError
from wanwu.gateway.keys import create_key
from wanwu.gateway.settings import gateway_settings

BANKS = "/v1/banks"


def until(found: Callable[[], object], within_s: float = 5) -> None:
    ends = time.monotonic() + within_s
    while not found():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.1)


@dataclass
class Secured:
    """A gateway with TLS, and the folder of its certificate."""

    gateway: Any
    folder: Path
    authority: trustme.CA

    def client(self, certificate: trustme.LeafCert | None = None) -> httpx2.Client:
        trusted = ssl.create_default_context()
        self.authority.configure_trust(trusted)
        if certificate is not None:
            certificate.configure_cert(trusted)
        url = f"https://127.0.0.1:{self.gateway.port}"
        return httpx2.Client(base_url=url, verify=trusted, trust_env=False)

    def shown(self) -> int:
        """Return the serial number of the certificate that a new connection is shown."""
        return serial(ssl.get_server_certificate(("127.0.0.1", self.gateway.port)).encode())

    def says(self, text: str) -> bool:
        return text in self.gateway.log.read_text()


def serial(pem: bytes) -> int:
    return x509.load_pem_x509_certificate(pem).serial_number


def subject_of(certificate: trustme.LeafCert) -> str:
    pem = certificate.cert_chain_pems[0].bytes()
    return x509.load_pem_x509_certificate(pem).subject.rfc4514_string()


def renew(folder: Path, authority: trustme.CA) -> int:
    """Write a certificate and its key, and return its serial number."""
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    return serial(issued.cert_chain_pems[0].bytes())


@pytest.fixture
def start(
    server: EmbeddedServer, start_gateway: Any, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """Start a gateway with TLS."""
    authority = trustme.CA()
    renew(tmp_path, authority)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    pair = ("--tls-cert", str(tmp_path / "tls.crt"), "--tls-key", str(tmp_path / "tls.key"))
    started = []

    def start(*arguments: str, **settings: object) -> Secured:
        context = start_gateway(server.url, *pair, *arguments, folder=tmp_path, **settings)
        started.append(context)
        return Secured(context.__enter__(), tmp_path, authority)

    yield start
    for each in started:
        each.__exit__(None, None, None)


def test_a_renewed_certificate_is_shown_to_new_connections(start: Callable[..., Secured]) -> None:
    secured = start()
    first = secured.shown()
    with secured.client() as kept:
        assert kept.get("/healthz").status_code == 200
        renewed = renew(secured.folder, secured.authority)
        assert renewed != first
        until(lambda: secured.shown() == renewed)
        # A connection that was there goes on.
        assert kept.get("/healthz").status_code == 200
    assert secured.gateway.process.poll() is None


def test_a_certificate_without_its_key_changes_nothing(start: Callable[..., Secured]) -> None:
    secured = start()
    first = secured.shown()
    whole = (secured.folder / "tls.key").read_bytes()
    secured.authority.issue_cert("127.0.0.1").cert_chain_pems[0].write_to_path(
        secured.folder / "tls.crt"
    )
    until(lambda: secured.says("the certificate stays as it was: the certificate"))
    assert secured.shown() == first
    (secured.folder / "tls.key").write_bytes(b"")
    time.sleep(1.5)
    assert secured.shown() == first
    (secured.folder / "tls.key").write_bytes(whole)
    renewed = renew(secured.folder, secured.authority)
    until(lambda: secured.shown() == renewed)


# Certificates of callers


def start_with(
    start: Callable[..., Secured], folder: Path, staff: trustme.CA, **scopes: list[str]
) -> tuple[Secured, str]:
    """Start a gateway that takes certificates of an authority, and the key that comes with it."""
    _, key = create_key(folder / "keys.json", "robot", ("recognise",))
    staff.cert_pem.write_to_path(folder / "staff.crt")
    more = {"TLS_CLIENT_CA": folder / "staff.crt", "TLS_CLIENT_SCOPES": json.dumps(scopes)}
    return start("--keys-file", str(folder / "keys.json"), **more), key


def test_a_callers_certificate_stands_for_a_key(
    start: Callable[..., Secured], tmp_path: Path
) -> None:
    staff = trustme.CA()
    shop, other = (staff.issue_cert(common_name=name) for name in ("门店, 一", "kitchen"))
    secured, _ = start_with(start, tmp_path, staff, **{subject_of(shop): ["recognise"]})
    with secured.client(shop) as client:
        assert client.get(BANKS).status_code == 200
        assert client.get("/metrics").status_code == 403
    with secured.client(other) as client:
        assert client.get(BANKS).json()["code"] == "scope_missing"
    lines = map(json.loads, secured.gateway.audit.read_text().splitlines())
    named = [line["principal"] for line in lines if "principal" in line]
    assert [each["id"] for each in named] == [*[subject_of(shop)] * 2, subject_of(other)]
    assert named[0] == {"kind": "certificate", "id": named[0]["id"], "name": named[0]["id"]}


def test_a_certificate_is_wanted_of_nobody_and_a_key_counts_before_it(
    start: Callable[..., Secured], tmp_path: Path
) -> None:
    staff = trustme.CA()
    secured, key = start_with(start, tmp_path, staff, **{"*": ["embed"]})
    with secured.client() as client:
        assert client.get("/readyz").status_code == 200
        assert client.get(BANKS).json()["code"] == "credentials_missing"
        assert client.get(BANKS, headers={"X-API-Key": key}).status_code == 200
    with secured.client(staff.issue_cert(common_name="shop")) as client:
        assert client.post("/v1/embed").json()["code"] == "media_type_unsupported"
        assert client.get(BANKS).json()["code"] == "scope_missing"
        assert client.get(BANKS, headers={"X-API-Key": key}).status_code == 200
        wrong = client.get(BANKS, headers={"X-API-Key": "wrong"})
        assert wrong.json()["code"] == "credentials_invalid"


def test_a_certificate_of_another_authority_is_refused_until_that_one_counts(
    start: Callable[..., Secured], tmp_path: Path
) -> None:
    staff, other = trustme.CA(), trustme.CA()
    secured, _ = start_with(start, tmp_path, staff, **{"*": ["recognise"]})
    foreign = other.issue_cert(common_name="shop")

    def answered() -> bool:
        with secured.client(foreign) as client:
            try:
                return client.get(BANKS).status_code == 200
            except httpx2.TransportError:
                return False

    assert not answered()
    other.cert_pem.write_to_path(tmp_path / "staff.crt")
    until(answered)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"tls_client_ca": "ca.crt"}, "need all of tls_cert, tls_key and tls_client_ca"),
        (
            {"tls_cert": "a", "tls_key": "b", "tls_client_scopes": '{"CN=shop": ["embed"]}'},
            "need all of tls_cert, tls_key and tls_client_ca",
        ),
        ({"tls_client_scopes": '{"shop": ["embed"]}'}, "'shop' is no subject; expected one as"),
        ({"tls_client_scopes": '{"CN=shop, O=a": ["embed"]}'}, "'CN=shop, O=a' is no subject"),
        ({"tls_client_scopes": '{"CN=shop": ["write"]}'}, "'recognise'"),
        ({"tls_client_scopes": "shop"}, "it is no JSON"),
    ],
)
def test_settings_of_certificates_that_cannot_be_used_are_refused(
    settings: dict[str, str], reason: str
) -> None:
    with pytest.raises(InputError) as refused:
        gateway_settings(auth="off", **settings)
    assert reason in str(refused.value)


# SIGHUP


def test_sighup_reads_everything_again_and_ends_nothing(start: Callable[..., Secured]) -> None:
    signer = Issuer()
    with publishing() as publisher:
        publisher.document = signer.key_set()
        secured = start(*tokens_of(publisher.url, insecure=True))
        assert publisher.fetches == 1
        secured.gateway.process.send_signal(signal.SIGHUP)
        until(lambda: publisher.fetches == 2)
        until(lambda: secured.says("the certificate was read again"))
        assert secured.says("SIGHUP: keys, key sets and certificates are read again")
        with secured.client() as client:
            authorization = {"Authorization": f"Bearer {signer.token()}"}
            assert client.get(BANKS, headers=authorization).status_code == 200
        assert secured.gateway.stop() == 0
