"""Key sets: which keys may check a token, and how sets are fetched."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from support.http import Answer, request
from support.tokens import (
    AUDIENCE,
    ISSUER,
    Issuer,
    Publisher,
    published,
    publishing,
    rsa_key,
    tokens_of,
)
from wanwu.embedded.server import EmbeddedServer
from wanwu.errors import SetupError
from wanwu.gateway import issuers
from wanwu.gateway.key_sets import KeySet

BANKS = "/v1/banks"
RSA = rsa_key()
KEYS: dict[str, Any] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
SIGNER = Issuer()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def until(found: Callable[[], object], within_s: float = 5) -> None:
    ends = time.monotonic() + within_s
    while not found():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.1)


# What a key may do


def key_set_of(tmp_path: Path, document: Any) -> KeySet:
    file = tmp_path / "jwks.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return KeySet(issuers.Issuer(issuer=ISSUER, audience=AUDIENCE, jwks=str(file)), cache_s=300)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<html>",
        "[]",
        "{}",
        '{"keys": []}',
        '{"keys": 1}',
        '{"keys": [1, {"kty": "RSA", "alg": [[]]}, {"kty": []}, {}]}',
        '{"keys": [{"kty": "oct", "k": "AAAA", "alg": "HS256"}]}',
    ],
)
def test_a_key_set_that_no_token_can_be_checked_by_is_refused(
    tmp_path: Path, document: str
) -> None:
    with pytest.raises(SetupError, match=r"not a JSON Web Key Set|no key to check a token by"):
        key_set_of(tmp_path, document)


@pytest.mark.parametrize(
    "key",
    [
        published("weak", rsa_key(1024)),
        published("for encryption", RSA, use="enc"),
        published("for encryption", RSA, use=None, key_ops=["encrypt", "wrapKey"]),
        published("of another curve", ec.generate_private_key(ec.SECP256K1()), alg="ES256"),
        published("of another kind", RSA, alg="RSA-OAEP"),
    ],
    ids=lambda key: f"{key['kid']} {key.get('use')}",
)
def test_a_key_that_must_not_check_a_signature_is_left_out(
    tmp_path: Path, key: dict[str, Any]
) -> None:
    with pytest.raises(SetupError, match="no key to check a token by; expected an RSA key of 2048"):
        key_set_of(tmp_path, {"keys": [key]})
    key_set_of(tmp_path, {"keys": [key, published("good", RSA, key_ops=["verify"])]})


@pytest.fixture(scope="module")
def trusting(
    server: EmbeddedServer, start_gateway: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A gateway whose issuer signs by every algorithm."""
    file = tmp_path_factory.mktemp("trusting") / "jwks.json"
    keys = {id(key): published(name, key) for name, key in KEYS.items()}
    file.write_text(
        json.dumps(
            {
                "keys": [
                    *({**key, "kid": KIDS[number]} for number, key in keys.items()),
                    published("448", KEYS_448),
                    published("weak", WEAK),
                    published("one only", RSA, alg="RS256"),
                ]
            }
        )
    )
    with start_gateway(server.url, *tokens_of(file)) as running:
        yield running


KIDS = {id(key): f"key {number}" for number, key in enumerate(dict.fromkeys(KEYS.values()))}
KEYS_448, WEAK = ed448.Ed448PrivateKey.generate(), rsa_key(1024)


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_token_may_be_signed_by(trusting: Any, algorithm: str) -> None:
    key = KEYS[algorithm]
    token = SIGNER.token(KIDS[id(key)], key=key, alg=algorithm)
    assert request(trusting.url + BANKS, headers=bearer(token)).status == 200


def test_a_token_may_be_signed_on_the_longer_edwards_curve(trusting: Any) -> None:
    token = SIGNER.token("448", key=KEYS_448)
    assert request(trusting.url + BANKS, headers=bearer(token)).status == 200


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
@pytest.mark.parametrize(
    ("kid", "key", "algorithm"),
    [
        ("weak", WEAK, "RS256"),
        ("one only", RSA, "RS512"),
        ("one only", RSA, "PS256"),
        (KIDS[id(KEYS["ES256"])], KEYS["ES384"], "ES384"),
    ],
)
def test_a_token_by_another_key_or_algorithm_is_refused(
    trusting: Any, kid: str, key: Any, algorithm: str
) -> None:
    token = SIGNER.token(kid, key=key, alg=algorithm)
    answer = request(trusting.url + BANKS, headers=bearer(token))
    assert (answer.status, answer.json()["code"]) == (401, "credentials_invalid")
    assert f"the key '{kid}' and {algorithm}, which is not in" in answer.json()["detail"]


# A key set that is fetched


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing() as made:
        yield made


@pytest.fixture
def fetching(
    server: EmbeddedServer, start_gateway: Any, publisher: Publisher
) -> Iterator[Callable[[str], Answer]]:
    """Ask a gateway that fetches its key set, and keeps it for a second."""
    publisher.document = SIGNER.key_set()
    arguments = tokens_of(publisher.url, insecure=True)
    with start_gateway(server.url, *arguments, JWKS_CACHE_S=1) as running:
        yield lambda token: request(running.url + BANKS, headers=bearer(token))


def test_a_key_set_at_an_address_is_fetched_again_when_it_is_old(
    fetching: Callable[[str], Answer], publisher: Publisher
) -> None:
    new = Issuer()
    assert fetching(SIGNER.token("rsa")).status == 200
    assert fetching(SIGNER.token("ec")).status == 200
    publisher.document = new.key_set()
    until(lambda: fetching(new.token("rsa")).status == 200)
    assert fetching(SIGNER.token("rsa")).status == 401


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        b"HTTP/1.0 200 OK\r\n\r\n[]",
        b'HTTP/1.0 200 OK\r\n\r\n{"keys": []}',
        b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
    ],
)
def test_a_broken_answer_changes_nothing(
    fetching: Callable[[str], Answer], publisher: Publisher, raw: bytes
) -> None:
    publisher.raw, before = raw, publisher.fetches
    until(lambda: publisher.fetches > before + 1)
    assert fetching(SIGNER.token()).status == 200
    publisher.raw = None
    until(lambda: fetching(SIGNER.token()).status == 200)


def test_nobody_waits_for_an_issuer_that_is_slow(
    fetching: Callable[[str], Answer], publisher: Publisher
) -> None:
    publisher.slow_s, before = 60, publisher.fetches
    until(lambda: publisher.fetches > before)
    for _ in range(5):
        began = time.monotonic()
        assert fetching(SIGNER.token()).status == 200
        assert time.monotonic() - began < 2
    began = time.monotonic()
    assert fetching(SIGNER.token("unknown", key=SIGNER.keys["rsa"])).status == 401
    assert time.monotonic() - began < 8
    # A fetch ends by itself, and the next one is whole.
    publisher.slow_s = 0
    new = Issuer()
    publisher.document = new.key_set()
    until(lambda: fetching(new.token()).status == 200, within_s=20)


def test_tokens_of_unknown_keys_do_not_make_it_fetch_again_and_again(
    server: EmbeddedServer, start_gateway: Any, publisher: Publisher
) -> None:
    new = Issuer()
    new.keys = {"new": new.keys["rsa"]}
    publisher.document = SIGNER.key_set()
    with start_gateway(server.url, *tokens_of(publisher.url, insecure=True)) as running:

        def asks(token: str) -> int:
            return request(running.url + BANKS, headers=bearer(token)).status

        assert asks(SIGNER.token()) == 200
        fetched, publisher.document = time.monotonic(), new.key_set()
        unknown = [SIGNER.token(f"kid {n}", key=SIGNER.keys["rsa"]) for n in range(20)]
        assert set(map(asks, unknown)) == {401}
        assert publisher.fetches == 1
        until(lambda: asks(new.token("new")) == 200, within_s=15)
        assert time.monotonic() - fetched > 8
        assert publisher.fetches == 2


# Discovery


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ({"issuer": "https://another.example"}, "describes the issuer 'https://another.example'"),
        ({"jwks_uri": "file:///etc/passwd"}, "would come from 'file:///etc/passwd'"),
        ({"jwks_uri": None}, "would come from 'None'"),
    ],
)
def test_a_description_of_another_issuer_is_not_believed(
    server: EmbeddedServer,
    start_gateway: Any,
    publisher: Publisher,
    described: dict[str, Any],
    reason: str,
) -> None:
    issuer = f"http://{publisher.host}/realms/shops/"
    good = {"issuer": issuer, "jwks_uri": publisher.url}
    publisher.document = json.dumps({**good, **described}).encode()
    with start_gateway(server.url, *tokens_of(None, issuer=issuer, insecure=True)) as running:
        assert request(f"{running.url}/readyz").json()["code"] == "auth_unavailable"
        assert reason in running.log.read_text()
    assert publisher.paths[0] == "/realms/shops/.well-known/openid-configuration"


def test_callers_of_two_issuers_are_told_apart(
    server: EmbeddedServer, start_gateway: Any, tmp_path: Path
) -> None:
    other, trusted = Issuer(), []
    for name, signer in (("https://a.example", SIGNER), ("https://b.example", other)):
        file = tmp_path / f"{len(trusted)}.json"
        file.write_bytes(signer.key_set())
        trusted.append({"issuer": name, "audience": AUDIENCE, "jwks": str(file)})
    arguments = ("--issuers", json.dumps(trusted))
    with start_gateway(server.url, *arguments, RATE="2/minute") as running:

        def asks(token: str) -> int:
            return request(running.url + BANKS, headers=bearer(token)).status

        first, second = SIGNER.token(iss="https://a.example"), other.token(iss="https://b.example")
        # The same subject, but each has a rate of its own; and none signs for the other.
        assert [asks(first), asks(first), asks(first)] == [200, 200, 429]
        assert asks(second) == 200
        assert asks(SIGNER.token(iss="https://b.example")) == 401
        lines = map(json.loads, running.audit.read_text().splitlines())
        named = [line["principal"]["issuer"] for line in lines if "principal" in line]
    assert set(named) == {"https://a.example", "https://b.example"}
