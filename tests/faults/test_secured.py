"""Certificates and keys, right and wrong, with a real Triton."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from support.serving import server_options
from wanwu import AsyncRecognizer, Recognizer, ServerError, SetupError, Tls
from wanwu.embedded.server import EmbeddedServer, free_port

KEY = "correct-horse"
PROTOCOLS = "inference,health,metadata,statistics"


@dataclass(frozen=True)
class Papers:
    """PEM files of an authority, and of a server and a client that it vouches for."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]


def papers(folder: Path) -> Papers:
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    pairs = []
    for who in ("localhost", "client@wanwu.test"):
        issued = authority.issue_cert(who)
        cert, key = folder / f"{who}.pem", folder / f"{who}.key"
        issued.private_key_pem.write_to_path(key)
        for part in issued.cert_chain_pems:
            part.write_to_path(cert, append=True)
        pairs.append((cert, key))
    return Papers(folder / "ca.pem", *pairs)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers(tmp_path_factory.mktemp("ours") / "papers")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers(tmp_path_factory.mktemp("theirs") / "papers")


@pytest.fixture(scope="module")
def secured(repository: Path, ours: Papers) -> Iterator[EmbeddedServer]:
    """A Triton that wants a certificate of ours, and a key."""
    cert, key = ours.server
    own_cert, own_key = ours.client
    options = server_options(
        repository,
        host="localhost",
        grpc_port=free_port(),
        metrics_port=None,
        arguments=(
            "--grpc-use-ssl=1",
            "--grpc-use-ssl-mutual=1",
            f"--grpc-server-cert={cert}",
            f"--grpc-server-key={key}",
            f"--grpc-root-cert={ours.ca}",
            f"--grpc-restricted-protocol={PROTOCOLS}:wanwu-api-key={KEY}",
        ),
        tls=Tls(ca=ours.ca, cert=own_cert, key=own_key),
        api_key=KEY,
    )
    with EmbeddedServer(options) as server:
        yield server


def mutual(of: Papers, ca: Path) -> Tls:
    return Tls(ca=ca, cert=of.client[0], key=of.client[1])


def test_the_right_certificate_and_key_are_answered(secured: EmbeddedServer, ours: Papers) -> None:
    tls = mutual(ours, ours.ca)
    with Recognizer(secured.url, tls=tls, api_key=KEY) as recognizer:
        assert recognizer.embed_texts(["猫"]).shape[0] == 1
        assert "default" in recognizer.banks()
        assert recognizer.is_ready()

    async def go() -> int:
        async with AsyncRecognizer(secured.url, tls=tls, api_key=KEY) as client:
            return len(await client.labels("seed18"))

    assert asyncio.run(go()) == 18


def test_the_environment_gives_them_as_well(
    secured: EmbeddedServer, ours: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANWU_URL", secured.url)
    monkeypatch.setenv("WANWU_API_KEY", KEY)
    for name, path in zip(("CA", "CERT", "KEY"), (ours.ca, *ours.client), strict=True):
        monkeypatch.setenv(f"WANWU_TLS_{name}", str(path))
    with Recognizer() as recognizer:
        assert recognizer.is_ready("image_encoder")


@pytest.mark.parametrize("key", [None, "wrong-horse"])
def test_a_wrong_key_is_told_apart(secured: EmbeddedServer, ours: Papers, key: str | None) -> None:
    came = "no key" if key is None else "a key that is not the server's"
    with (
        Recognizer(secured.url, tls=mutual(ours, ours.ca), api_key=key) as recognizer,
        pytest.raises(SetupError, match=f"wants an API key and {came} came; set WANWU_API_KEY"),
    ):
        recognizer.embed_texts(["猫"])


@pytest.mark.parametrize("wrong", ["authority", "own", "none", "plain"])
def test_a_wrong_certificate_is_told_apart(
    secured: EmbeddedServer, ours: Papers, theirs: Papers, wrong: str
) -> None:
    tls = {
        "authority": mutual(ours, theirs.ca),
        "own": mutual(theirs, ours.ca),
        "none": Tls(ca=ours.ca),
        "plain": None,
    }[wrong]
    advice = "TLS needs WANWU_TLS=1" if wrong == "plain" else "certificate must be signed by"
    with (
        Recognizer(secured.url, tls=tls, api_key=KEY, timeout_s=5) as recognizer,
        pytest.raises(ServerError, match=advice),
    ):
        recognizer.embed_texts(["猫"])
