"""Tokens of a real OpenID Connect provider, found by discovery, over TLS."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.http import Answer, request
from support.tokens import OidcProvider, oidc_provider
from wanwu.embedded.server import EmbeddedServer
from wanwu.gateway.keys import create_key

ROLES = {"Wanwu.Reader": ["recognise"], "Wanwu.Operator": ["admin"]}


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[OidcProvider]:
    with oidc_provider(tmp_path) as running:
        yield running


@pytest.fixture
def trusting(provider: OidcProvider, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Return the arguments of a gateway that trusts the provider, and has a proxy set."""
    monkeypatch.setenv("SSL_CERT_FILE", str(provider.authority))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    claims = ["roles", "realm_access.roles"]
    trusted = {"issuer": provider.url, "audience": "wanwu", "claims": claims, "roles": ROLES}
    return ("--issuers", json.dumps([trusted]))


def asks(gateway: Any, token: str, path: str = "/v1/banks") -> Answer:
    return request(gateway.url + path, headers={"Authorization": f"Bearer {token}"})


def test_roles_of_a_real_issuer_are_scopes(
    server: EmbeddedServer, start_gateway: Any, provider: OidcProvider, trusting: tuple[str, ...]
) -> None:
    with start_gateway(server.url, *trusting) as gateway:
        reader = provider.token("小王", roles=["Wanwu.Reader"])
        operator = provider.token("li", realm_access={"roles": ["Wanwu.Operator"]})
        nobody = provider.token("zhao", roles=["admin", "recognise"])
        assert asks(gateway, reader).status == 200
        assert asks(gateway, reader, "/metrics").status == 403
        assert asks(gateway, operator, "/metrics").status == 200
        assert asks(gateway, nobody).status == 403
        lines = gateway.audit.read_text().splitlines()
        first = next(line for line in map(json.loads, lines) if "principal" in line)
        who = {"kind": "token", "id": "小王", "name": "小王", "issuer": provider.url}
        assert first["principal"] == who


def test_a_token_for_another_service_is_refused(
    server: EmbeddedServer, start_gateway: Any, provider: OidcProvider, trusting: tuple[str, ...]
) -> None:
    with start_gateway(server.url, *trusting) as gateway:
        answer = asks(gateway, provider.token("li", "payroll", roles=["Wanwu.Reader"]))
        assert (answer.status, answer.json()["code"]) == (401, "credentials_invalid")
        assert "Audience doesn't match" in answer.json()["detail"]


def test_known_keys_go_on_while_the_issuer_is_down(
    server: EmbeddedServer, start_gateway: Any, provider: OidcProvider, trusting: tuple[str, ...]
) -> None:
    with start_gateway(server.url, *trusting, JWKS_CACHE_S=1) as gateway:
        token = provider.token("li", roles=["Wanwu.Reader"])
        assert asks(gateway, token).status == 200
        provider.stop()
        ends = time.monotonic() + 15
        while "stays as it was" not in gateway.log.read_text():
            assert asks(gateway, token).status == 200
            assert time.monotonic() < ends
            time.sleep(0.1)
        assert asks(gateway, token).status == 200
        assert request(f"{gateway.url}/readyz").status == 200


def test_a_gateway_whose_issuer_was_never_reached_is_not_ready(
    server: EmbeddedServer,
    start_gateway: Any,
    provider: OidcProvider,
    trusting: tuple[str, ...],
    tmp_path: Path,
) -> None:
    token = provider.token("li", roles=["Wanwu.Reader"])
    provider.stop()
    _, key = create_key(tmp_path / "keys.json", "shop", ("recognise",))
    keys = ("--keys-file", str(tmp_path / "keys.json"))
    with start_gateway(server.url, *trusting, *keys) as gateway:
        for answer in (request(f"{gateway.url}/readyz"), asks(gateway, token)):
            assert (answer.status, answer.json()["code"]) == (503, "auth_unavailable")
            assert provider.url in answer.json()["detail"]
        assert request(f"{gateway.url}/healthz").status == 200
        assert request(f"{gateway.url}/v1/banks", headers={"X-API-Key": key}).status == 200
