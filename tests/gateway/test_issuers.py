"""Scopes in the claims of the issuers that enterprises have."""

from __future__ import annotations

from typing import Any

import pytest

from wanwu.errors import InputError
from wanwu.gateway.issuers import Issuer
from wanwu.gateway.settings import gateway_settings

ENTRA_ID = {"aud": "wanwu", "roles": ["recognise", "embed"], "scp": "profile"}
KEYCLOAK = {
    "realm_access": {"roles": ["admin", "offline_access"]},
    "resource_access": {
        "wanwu": {"roles": ["recognise"]},
        "payroll": {"roles": ["admin", "embed"]},
    },
}
AUTH0 = {"https://wanwu.example/roles": ["embed"]}


def scopes(token: dict[str, Any], /, **settings: Any) -> set[str]:
    trusted = {"issuer": "https://login.example.cn", "audience": "wanwu", **settings}
    known = {"recognise", "embed", "admin"}
    return set(Issuer.model_validate(trusted).scopes(token)) & known


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({"scope": "openid recognise"}, {"recognise"}),
        ({"scp": ["recognise", "embed"]}, {"recognise", "embed"}),
        (ENTRA_ID, {"recognise", "embed"}),
        # The roles of another client are none of ours, nor are those of the whole realm.
        (KEYCLOAK, {"recognise"}),
        ({"resource_access": {"wanwu": ["recognise"]}, "roles": {"recognise": 1}}, set()),
        ({"roles": [{"recognise": 1}, 1, None], "scope": 1, "scp": None}, set()),
    ],
)
def test_scopes_are_found_where_issuers_put_them(claims: dict[str, Any], found: set[str]) -> None:
    assert scopes(claims) == found


@pytest.mark.parametrize(
    ("claims", "paths", "found"),
    [
        (KEYCLOAK, ["realm_access.roles"], {"admin"}),
        (KEYCLOAK, ["resource_access.*.roles"], {"recognise", "admin", "embed"}),
        (AUTH0, ["https://wanwu.example/roles"], {"embed"}),
        (AUTH0, ["roles"], set()),
        ({"scope": "admin"}, [], set()),
    ],
)
def test_scopes_come_from_the_claims_that_are_named(
    claims: dict[str, Any], paths: list[str], found: set[str]
) -> None:
    assert scopes(claims, claims=paths) == found


def test_roles_of_other_names_stand_for_scopes() -> None:
    named = {"Wanwu.Operator": ["recognise", "admin"]}
    assert scopes({"roles": ["Wanwu.Operator"]}, roles=named) == {"recognise", "admin"}
    # Once they are named, nothing else counts, not even the name of a scope.
    assert scopes({"roles": ["embed", "Wanwu.Reader"]}, roles=named) == set()


def test_the_roles_of_a_client_with_dots_in_its_name_are_found() -> None:
    claims = {"resource_access": {"cn.example.wanwu": {"roles": ["embed"]}}}
    assert scopes(claims, audience="cn.example.wanwu") == {"embed"}


@pytest.mark.parametrize(
    ("issuers", "reason"),
    [
        ("[", "it is no JSON"),
        ("{}", "Input should be a valid tuple"),
        ('[{"issuer": "https://i"}]', "issuers_0_audience"),
        ('[{"issuer": "https://i", "audience": "a", "realm": "r"}]', "issuers_0_realm"),
        ('[{"issuer": "https://i", "audience": "a", "roles": {"r": ["write"]}}]', "'recognise'"),
        ('[{"issuer": "i", "audience": "a"}]', "would come from 'i/.well-known"),
        ('[{"issuer": "i", "audience": "a", "jwks": "http://i/k"}]', "begins with https://"),
    ],
)
def test_issuers_that_cannot_be_used_are_refused(issuers: str, reason: str) -> None:
    with pytest.raises(InputError) as refused:
        gateway_settings(issuers=issuers)
    assert reason in str(refused.value)
    assert "(WANWU_GATEWAY_ISSUERS)" in str(refused.value)


def test_an_issuer_is_named_once() -> None:
    one = '{"issuer": "https://i", "audience": "a"}'
    with pytest.raises(InputError, match="names an issuer twice"):
        gateway_settings(issuers=f"[{one}, {one}]")
