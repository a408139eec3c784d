"""JSON Web Tokens of the issuers that the gateway trusts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jwt

from wanwu.catalog import Message
from wanwu.gateway.issuers import Issuer
from wanwu.gateway.key_sets import ALGORITHMS, KeySet
from wanwu.gateway.problems import Problem

SIGNATURES = tuple(dict.fromkeys(name for names in ALGORITHMS.values() for name in names))


class TokenVerifier:
    """Checks tokens: their issuer, signature, audience and times.

    Raises:
        SetupError: the file of a key set cannot be used.
    """

    def __init__(self, issuers: Sequence[Issuer], *, leeway_s: float, cache_s: float) -> None:
        self._leeway_s = leeway_s
        self._trusted = {each.issuer: (each, KeySet(each, cache_s)) for each in issuers}
        self.key_sets = [key_set for _, key_set in self._trusted.values()]

    async def verify(self, token: str) -> tuple[Issuer, dict[str, Any]]:
        """Return the issuer and the claims of a valid token.

        Raises:
            Problem: it is not valid; the detail says why.
        """
        algorithm, identity, named = _unverified(token)
        if named not in self._trusted:
            raise Problem(
                "credentials_invalid",
                Message(
                    "the token is of the issuer {0}; expected {1}",
                    repr(named),
                    ", ".join(self._trusted),
                ),
            )
        issuer, key_set = self._trusted[named]
        key = await key_set.key(identity, algorithm)
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=issuer.issuer,
                audience=issuer.audience,
                leeway=self._leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise Problem("credentials_expired", "the token has expired; get a new one") from error
        except jwt.PyJWTError as error:
            raise Problem(
                "credentials_invalid", Message("the token is refused: {0}", error)
            ) from error
        return issuer, claims


def _unverified(token: str) -> tuple[str, str | None, str]:
    """Return the algorithm, the key's id and the issuer that a token names.

    Raises:
        Problem: it is no token, or is signed by something else.
    """
    try:
        parts = jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        raise Problem(
            "credentials_invalid",
            "the bearer token is no JSON Web Token; send `Authorization: Bearer TOKEN`, or an "
            "API key in X-API-Key",
        ) from error
    algorithm = parts["header"].get("alg")
    if algorithm not in SIGNATURES:
        raise Problem(
            "credentials_invalid",
            Message(
                "the token is signed by {0}; expected one of {1}",
                repr(algorithm),
                ", ".join(SIGNATURES),
            ),
        )
    return algorithm, parts["header"].get("kid"), str(parts["payload"].get("iss"))
