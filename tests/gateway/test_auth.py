"""Who may call: API keys, tokens, and everything that is neither."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.http import Answer, request
from support.tokens import AUDIENCE, ISSUER, Issuer, rsa_key, tokens_of
from wanwu.embedded.server import EmbeddedServer
from wanwu.gateway.keys import create_key, revoke_key
from wanwu.samples import cat_photo

WANWU = Path(sys.executable).with_name("wanwu")
BANKS, EMBED, METRICS = "/v1/banks", "/v1/embed", "/metrics"

Headers = dict[str, str]


def api_key(key: str) -> Headers:
    return {"X-API-Key": key}


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


def by_hand(header: dict[str, str], claims: dict[str, Any], secret: bytes | None) -> str:
    """Make a token as a forger does; PyJWT refuses to."""

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    made = b"" if secret is None else hmac.digest(secret, signed.encode(), hashlib.sha256)
    return f"{signed}.{encoded(made)}"


@dataclass
class Guarded:
    """A gateway with auth, its issuer, and the keys of some callers."""

    gateway: Any
    issuer: Issuer
    keys_file: Path
    key_set: Path
    keys: dict[str, str]

    def asks(self, headers: Headers, path: str = BANKS) -> Answer:
        return request(self.gateway.url + path, headers=headers)

    def audited(self, answer: Answer) -> dict[str, Any]:
        """Give the answer's line in the audit log."""
        lines = map(json.loads, self.gateway.audit.read_text().splitlines())
        number = answer.headers["X-Request-ID"]
        (line,) = (line for line in lines if line.get("request_id") == number)
        found: dict[str, Any] = line
        return found


def until(found: Callable[[], object], within_s: float = 5) -> None:
    ends = time.monotonic() + within_s
    while not found():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def guarded(
    server: EmbeddedServer,
    start_gateway: Any,
    issuer: Issuer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Guarded]:
    """A gateway that knows keys and tokens, for tests that leave both as they are."""
    folder = tmp_path_factory.mktemp("auth")
    with _guarded(server, start_gateway, issuer, folder) as running:
        yield running


@pytest.fixture(scope="module")
def changing(
    server: EmbeddedServer, start_gateway: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """Another, for tests that change its keys or its key set, and put them back."""
    folder = tmp_path_factory.mktemp("changing")
    with _guarded(server, start_gateway, Issuer(), folder) as running:
        yield running


@contextmanager
def _guarded(
    server: EmbeddedServer, start_gateway: Any, issuer: Issuer, folder: Path
) -> Iterator[Guarded]:
    keys_file, key_set = folder / "keys.json", folder / "jwks.json"
    soon = datetime.now(timezone.utc) + timedelta(seconds=0.1)
    keys = {
        "shop": create_key(keys_file, "shop", ("recognise",))[1],
        "operator": create_key(keys_file, "operator", ("admin",))[1],
        "former": create_key(keys_file, "former", ("recognise",), soon)[1],
        "stolen": create_key(keys_file, "stolen", ("recognise",))[1],
    }
    revoke_key(keys_file, "stolen")
    key_set.write_bytes(issuer.key_set())
    arguments = ("--keys-file", str(keys_file), *tokens_of(key_set))
    more = {"AUDIT_REFUSED_LINES": 1_000}
    with start_gateway(server.url, *arguments, folder=folder, **more) as running:
        yield Guarded(running, issuer, keys_file, key_set, keys)


# Who is refused


def signed_with_the_public_key(issuer: Issuer) -> str:
    public = issuer.keys["rsa"].public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    return by_hand({"alg": "HS256", "kid": "rsa"}, claims, pem)


def unsigned(issuer: Issuer) -> str:
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    return by_hand({"alg": "none", "kid": "rsa"}, claims, None)


def changed_claims(issuer: Issuer) -> str:
    head, _, signature = issuer.token().split(".")
    claims = issuer.token(scope="recognise admin").split(".")[1]
    return f"{head}.{claims}.{signature}"


REFUSED_KEYS: dict[str, tuple[Callable[[Guarded], Headers], str]] = {
    "no key": (lambda g: {}, "missing"),
    "an empty key": (lambda g: api_key(""), "invalid"),
    "another text": (lambda g: api_key("password"), "invalid"),
    "a key of another gateway": (lambda g: api_key("wanwu_0123456789ab_secret"), "invalid"),
    "a wrong secret": (lambda g: api_key(g.keys["shop"][:-1] + "-"), "invalid"),
    "no secret": (lambda g: api_key(g.keys["shop"][:19]), "invalid"),
    "a secret that is not ASCII": (lambda g: api_key(g.keys["shop"] + "\xe9"), "invalid"),
    "an expired key": (lambda g: api_key(g.keys["former"]), "expired"),
    "a revoked key": (lambda g: api_key(g.keys["stolen"]), "revoked"),
    "a revoked key as bearer": (lambda g: bearer(g.keys["stolen"]), "revoked"),
    "both headers": (
        lambda g: api_key(g.keys["shop"]) | bearer(g.issuer.token()),
        "invalid",
    ),
    "the same key twice": (
        lambda g: api_key(g.keys["shop"]) | bearer(g.keys["shop"]),
        "invalid",
    ),
    "a password": (lambda g: {"Authorization": "Basic c2hvcDpzaG9w"}, "invalid"),
    "an empty bearer": (lambda g: {"Authorization": "Bearer "}, "missing"),
}

REFUSED_TOKENS: dict[str, tuple[Callable[[Issuer], str], str]] = {
    "garbage": (lambda i: "garbage", "invalid"),
    "garbage with dots": (lambda i: "a.b.c", "invalid"),
    "no signature": (unsigned, "invalid"),
    "HS256 by the public key": (signed_with_the_public_key, "invalid"),
    "claims of another token": (changed_claims, "invalid"),
    "another issuer": (lambda i: i.token(iss="https://login.example.com"), "invalid"),
    "no issuer": (lambda i: i.token(iss=None), "invalid"),
    "another audience": (lambda i: i.token(aud="payroll"), "invalid"),
    "no audience": (lambda i: i.token(aud=None), "invalid"),
    "expired": (lambda i: i.token(exp=time.time() - 61), "expired"),
    "no end": (lambda i: i.token(exp=None), "invalid"),
    "an end that is no number": (lambda i: i.token(exp="soon"), "invalid"),
    "not yet": (lambda i: i.token(nbf=time.time() + 70), "invalid"),
    "made in the future": (lambda i: i.token(iat=time.time() + 70), "invalid"),
    "no subject": (lambda i: i.token(sub=None), "invalid"),
    "an unknown key": (lambda i: i.token("later", key=i.keys["rsa"]), "invalid"),
    "another key's signature": (lambda i: i.token("rsa", key=rsa_key()), "invalid"),
    "another kind of signature": (lambda i: i.token("rsa", key=i.keys["ec"]), "invalid"),
}


def assert_refused(guarded: Guarded, answer: Answer, code: str) -> None:
    assert (answer.status, answer.json()["code"]) == (401, code)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="wanwu"'
    assert answer.headers["Content-Type"] == "application/problem+json"
    line = guarded.audited(answer)
    assert (line["status"], line["code"], line["route"]) == (401, code, BANKS)
    assert "principal" not in line


@pytest.mark.parametrize("case", REFUSED_KEYS)
def test_these_keys_are_refused_and_audited(guarded: Guarded, case: str) -> None:
    headers, why = REFUSED_KEYS[case]
    assert_refused(guarded, guarded.asks(headers(guarded)), f"credentials_{why}")


@pytest.mark.parametrize("case", REFUSED_TOKENS)
def test_these_tokens_are_refused_and_audited(guarded: Guarded, case: str) -> None:
    token, why = REFUSED_TOKENS[case]
    answer = guarded.asks(bearer(token(guarded.issuer)))
    assert_refused(guarded, answer, f"credentials_{why}")


@pytest.mark.parametrize("scope", ["", "admin", "recognise", "Embed embedding", ["recognise"]])
@pytest.mark.parametrize("named", ["scope", "scp"])
def test_a_token_without_the_scope_is_refused(guarded: Guarded, named: str, scope: Any) -> None:
    claims = {"scope": None, named: scope}
    answer = request(
        guarded.gateway.url + EMBED, "POST", headers=bearer(guarded.issuer.token(**claims))
    )
    assert (answer.status, answer.json()["code"]) == (403, "scope_missing")
    line = guarded.audited(answer)
    assert (line["status"], line["code"]) == (403, "scope_missing")
    who = {"kind": "token", "id": "shop", "name": "shop", "issuer": ISSUER}
    assert line["principal"] == who


@pytest.mark.parametrize(("name", "path"), [("shop", METRICS), ("operator", BANKS)])
def test_a_key_without_the_scope_is_refused(guarded: Guarded, name: str, path: str) -> None:
    answer = guarded.asks(api_key(guarded.keys[name]), path)
    assert (answer.status, answer.json()["code"]) == (403, "scope_missing")
    assert "WWW-Authenticate" not in answer.headers
    line = guarded.audited(answer)
    assert (line["status"], line["code"]) == (403, "scope_missing")
    assert (line["principal"]["kind"], line["principal"]["name"]) == ("key", name)


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization"])
def test_two_headers_of_credentials_are_refused(guarded: Guarded, name: str) -> None:
    # A proxy could check the one, and the gateway the other.
    value = guarded.keys["shop"] if name == "X-API-Key" else f"Bearer {guarded.issuer.token()}"
    connection = http.client.HTTPConnection("127.0.0.1", guarded.gateway.port, timeout=30)
    connection.putrequest("GET", BANKS)
    connection.putheader(name, value)
    connection.putheader(name.lower(), value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 401
    assert f"several headers {name} came; send one" in answer.read().decode()
    connection.close()


def test_what_is_refused_is_not_read(guarded: Guarded) -> None:
    answer = request(guarded.gateway.url + "/predict", "POST", body=cat_photo())
    assert answer.status == 401
    assert "pictures" not in guarded.audited(answer)


def test_no_credentials_are_in_an_answer_or_in_a_log(guarded: Guarded) -> None:
    gateway, wrong = guarded.gateway, guarded.keys["shop"][:-1] + "-"
    for headers in (api_key(wrong), api_key(guarded.keys["stolen"]), bearer("garbage.of.secrets")):
        secret = next(iter(headers.values()))[-15:]
        assert secret not in guarded.asks(headers).body.decode()
        assert secret not in gateway.audit.read_text() + gateway.log.read_text()


# Who is let in

ACCEPTED: dict[str, Callable[[Guarded], Headers]] = {
    "a key": lambda g: api_key(g.keys["shop"]),
    "a key as bearer": lambda g: bearer(g.keys["shop"]),
    "a key between spaces": lambda g: api_key(f" {g.keys['shop']} "),
    "a token by RS256": lambda g: bearer(g.issuer.token("rsa")),
    "a token by ES256": lambda g: bearer(g.issuer.token("ec")),
    "bearer in small letters": lambda g: {"authorization": f"bearer {g.issuer.token()}"},
    "a scope among others": lambda g: bearer(g.issuer.token(scope="openid recognise")),
    "scopes as Azure writes them": lambda g: bearer(
        g.issuer.token(scope=None, scp="embed recognise")
    ),
    "a list of scopes": lambda g: bearer(g.issuer.token(scope=None, scp=["recognise"])),
    "a clock that is behind": lambda g: bearer(
        g.issuer.token(iat=time.time() + 50, nbf=time.time() + 50)
    ),
    "a clock that is ahead": lambda g: bearer(g.issuer.token(exp=time.time() - 50)),
    "an audience among others": lambda g: bearer(g.issuer.token(aud=["payroll", AUDIENCE])),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_these_callers_are_let_in(guarded: Guarded, case: str) -> None:
    answer = guarded.asks(ACCEPTED[case](guarded))
    assert answer.status == 200
    assert [bank["name"] for bank in answer.json()["banks"]]
    line = guarded.audited(answer)
    assert line["status"] == 200
    assert line["principal"]["name"] == "shop"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_credentials(guarded: Guarded, path: str) -> None:
    assert guarded.asks({}, path).status == 200
    assert guarded.asks(bearer("garbage"), path).status == 200


def test_metrics_are_for_operators(guarded: Guarded) -> None:
    assert guarded.asks({}, METRICS).status == 401
    assert guarded.asks(api_key(guarded.keys["shop"]), METRICS).status == 403
    answer = guarded.asks(api_key(guarded.keys["operator"]), METRICS)
    assert answer.status == 200
    assert b'wanwu_gateway_rejected_total{reason="credentials_missing"}' in answer.body


# Keys and key sets that change while the gateway runs


def test_a_key_works_once_it_is_made_and_no_longer_once_it_is_revoked(changing: Guarded) -> None:
    _, token = create_key(changing.keys_file, "new", ("recognise",))
    until(lambda: changing.asks(api_key(token)).status == 200)
    revoke_key(changing.keys_file, "new")
    until(lambda: changing.asks(api_key(token)).status == 401)
    assert changing.asks(api_key(token)).json()["code"] == "credentials_revoked"
    assert changing.asks(api_key(changing.keys["shop"])).status == 200


def test_a_rotated_key_and_its_old_secret_are_both_taken(changing: Guarded) -> None:
    create_key(changing.keys_file, "rotated", ("recognise",))
    file, audit = str(changing.keys_file), str(changing.gateway.audit)

    def keys(*arguments: str) -> str:
        command = [str(WANWU), "keys", *arguments, "--file", file]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    token = keys("rotate", "rotated").strip()
    until(lambda: changing.asks(api_key(token)).status == 200)
    listed = [line for line in keys("list", "--audit", audit).splitlines() if "rotated" in line]
    today = f"{datetime.now(timezone.utc):%Y-%m-%d}"
    assert [today in line[-40:] for line in listed] == [False, True]


def test_a_broken_file_of_keys_changes_nothing_and_is_told(changing: Guarded) -> None:
    whole, shop = changing.keys_file.read_bytes(), api_key(changing.keys["shop"])
    told = changing.gateway.log.read_text
    changing.keys_file.write_bytes(whole[:50])
    until(lambda: changing.asks(shop) and "the keys are as they were: " in told())
    changing.keys_file.unlink()
    until(lambda: changing.asks(shop) and "there is no file of keys" in told())
    assert changing.asks(shop).status == 200
    changing.keys_file.write_bytes(whole)
    _, token = create_key(changing.keys_file, "mended", ("recognise",))
    until(lambda: changing.asks(api_key(token)).status == 200)


def test_a_key_set_that_changes_is_read_again(changing: Guarded) -> None:
    old, new = changing.issuer, Issuer()
    new.keys = {f"new {kid}": key for kid, key in new.keys.items()}
    changing.key_set.write_bytes(new.key_set())
    until(lambda: changing.asks(bearer(new.token("new rsa"))).status == 200)
    assert changing.asks(bearer(new.token("new ec"))).status == 200
    assert changing.asks(bearer(old.token("rsa"))).status == 401
    changing.key_set.write_bytes(old.key_set())
    until(lambda: changing.asks(bearer(old.token("rsa"))).status == 200)


def test_a_broken_key_set_changes_nothing_and_is_told(changing: Guarded) -> None:
    whole, token = changing.key_set.read_bytes(), changing.issuer.token()
    changing.key_set.write_text("broken")
    asks, told = changing.asks, changing.gateway.log.read_text
    until(lambda: asks(bearer(token)) and "the key set stays as it was" in told())
    assert asks(bearer(token)).status == 200
    changing.key_set.write_bytes(whole)


# Gateways that are not guarded


def gateway_ends(*arguments: str) -> tuple[int, str]:
    command = [str(WANWU), "gateway", "--port", "0", "--audit", "off", *arguments]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], 2, "nothing says who may call: make a key with `wanwu keys create`"),
        (["--issuers", "[{"], 2, "it is no JSON"),
        (["--issuers", '[{"issuer": "i"}]'], 2, "setting issuers_0_audience is"),
        (["--issuers", '[{"issuer": "i", "audience": "a"}]'], 2, "expected a file or an address"),
        (tokens_of("ftp://example.cn/jwks"), 2, "an address that begins with https://"),
        (tokens_of("http://example.cn/jwks"), 2, "an address that begins with https://"),
        (tokens_of("/no/jwks.json"), 5, "the key set /no/jwks.json cannot be read"),
        (["--keys-file", "/no/keys.json"], 5, "there is no file of keys /no/keys.json"),
    ],
)
def test_a_gateway_that_cannot_tell_who_calls_does_not_start(
    arguments: list[str], code: int, reason: str
) -> None:
    ended, told = gateway_ends(*arguments)
    assert ended == code
    assert reason in told


def test_a_gateway_without_auth_lets_everybody_in_and_says_so(gateway: Any) -> None:
    assert request(gateway.url + METRICS).status == 200
    assert "auth is off: everybody who reaches the port may call" in gateway.log.read_text()
