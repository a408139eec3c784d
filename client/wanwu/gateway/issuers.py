"""Who issues tokens, and where their claims hold the caller's scopes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wanwu.catalog import Message
from wanwu.gateway.keys import Scope


class Issuer(BaseModel):
    """An issuer of JSON Web Tokens that the gateway trusts.

    Args:
        issuer: what `iss` must be. Without `jwks` its key set is found by OpenID Connect Discovery.
        audience: what `aud` must be or hold.
        jwks: file or URL of the key set.
        claims: where the scopes are: names joined by dots, with `*` for any name.
        roles: the scopes that each value of the claims stands for; without it, a value that is the
            name of a scope stands for that.
        insecure: take the key set by http too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    jwks: str | None = None
    claims: tuple[str, ...] | None = None
    roles: dict[str, tuple[Scope, ...]] | None = None
    insecure: bool = False

    @model_validator(mode="after")
    def _reachable(self) -> Issuer:
        if self.remote:
            self.check_url(self.source)
        return self

    @property
    def source(self) -> str:
        """Where the key set, or else the issuer's description, is."""
        return self.jwks or f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"

    @property
    def remote(self) -> bool:
        """Whether the key set comes from a URL."""
        return self.jwks is None or "://" in self.jwks

    def check_url(self, url: str) -> str:
        """Return a URL that a key set may come from.

        Raises:
            ValueError: it is of another kind.
        """
        if not url.startswith(("https://", "http://") if self.insecure else "https://"):
            raise ValueError(
                Message(
                    "the key set of {0} would come from {1}; expected a file or an address that "
                    'begins with https:// (or "insecure": true, for a trial by http)',
                    self.issuer,
                    repr(url),
                )
            )
        return url

    def scopes(self, claims: dict[str, Any]) -> frozenset[str]:
        """Return the scopes that a token's claims stand for."""
        # Keycloak's roles of other clients, and of the whole realm, may be named like a scope.
        usual = ("scope", "scp", "roles", f"resource_access.{self.audience}.roles")
        named = frozenset(
            name
            for path in (usual if self.claims is None else self.claims)
            for found in _at(claims, path)
            for name in _names(found)
        )
        if self.roles is None:
            return named
        return frozenset(scope for name in named for scope in self.roles.get(name, ()))


def _at(node: Any, path: str) -> Iterator[Any]:
    """Yield what stands at a path; a name in it may have dots of its own."""
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name == path:
            yield value
        for head in (name, "*"):
            if path.startswith(f"{head}."):
                yield from _at(value, path[len(head) + 1 :])


def _names(claim: Any) -> list[str]:
    """Return the names in a claim, which is a text with spaces or a list."""
    if isinstance(claim, str):
        return claim.split()
    return [each for each in claim if isinstance(each, str)] if isinstance(claim, list) else []
