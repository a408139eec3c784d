"""JSON Web Tokens, signed by RS256 or ES256 with a key of a set: from a file or from a URL."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import time
import urllib.request
from pathlib import Path
from typing import Any

import jwt

from wanwu.catalog import Message
from wanwu.errors import InputError, SetupError
from wanwu.gateway.checks import Stamp, stamp
from wanwu.gateway.problems import Problem

ALGORITHMS = ("RS256", "ES256")
#: A token of an unknown key makes the set be read again, but not more often than this.
UNKNOWN_KEY_S = 10.0
FETCH_TIMEOUT_S = 5.0
MAX_SET_BYTES = 1_000_000

log = logging.getLogger("wanwu.gateway")


class KeySet:
    """The keys that sign tokens. A file is read again when it changes, a URL after `cache_s`.

    Args:
        source: a path, or an address that begins with https:// or http://.
        cache_s: how old keys of a URL may be.

    Raises:
        InputError: the address is of another kind.
        SetupError: the file cannot be used. A URL is first read when a token comes.
    """

    def __init__(self, source: str, cache_s: float) -> None:
        self._source, self._cache_s = source, cache_s
        self._remote = "://" in source
        if self._remote and not source.startswith(("https://", "http://")):
            raise InputError(
                "the key set's address is {0}; expected a file, or https:// or http://",
                repr(source),
            )
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._stamp: Stamp | None = None
        self._lock = asyncio.Lock()
        if not self._remote:
            self._stamp = stamp(source)
            self._keys = _parse(_read_file(source), source)

    async def key(self, identity: str | None) -> jwt.PyJWK:
        """Give the key of that id; without an id, the only key.

        Raises:
            Problem: there is none, or the set was never read.
        """
        if self._is_old():
            await self._refresh(self._is_old)
        found = self._find(identity)
        if found is None:
            await self._refresh(lambda: self._age() > UNKNOWN_KEY_S)
            found = self._find(identity)
        if found is None and not self._keys:
            raise Problem(
                "auth_unavailable",
                Message(
                    "the key set {0} could not be read; try later, or use an API key", self._source
                ),
                retry_after_s=UNKNOWN_KEY_S,
            )
        if found is None:
            raise Problem(
                "credentials_invalid",
                Message(
                    "the token names the key {0}, which is not in the key set; get a new "
                    "token from the issuer that this gateway trusts",
                    repr(identity),
                ),
            )
        return found

    def _find(self, identity: str | None) -> jwt.PyJWK | None:
        if identity is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(identity)

    def _age(self) -> float:
        return float("inf") if self._read_at is None else time.monotonic() - self._read_at

    def _is_old(self) -> bool:
        return self._age() > (self._cache_s if self._remote else 1.0)

    async def _refresh(self, wanted: Any) -> None:
        async with self._lock:
            if not wanted():
                return  # another request has read it meanwhile
            self._read_at = time.monotonic()
            if not self._remote:
                before, self._stamp = self._stamp, stamp(self._source)
                if self._stamp == before:
                    return
            try:
                read = _fetch if self._remote else _read_file
                data = await asyncio.to_thread(read, self._source)
                self._keys = _parse(data, self._source)
            except (SetupError, OSError, ValueError, http.client.HTTPException) as error:
                # Soon again: a key that was withdrawn must not stay for as long as a good answer.
                self._read_at -= max(0.0, self._cache_s - UNKNOWN_KEY_S)
                log.error("the key set stays as it was: %s", error)


class TokenVerifier:
    """Checks tokens: their signature, issuer, audience and times."""

    def __init__(self, keys: KeySet, *, issuer: str, audience: str, leeway_s: float) -> None:
        self._keys, self._issuer, self._audience = keys, issuer, audience
        self._leeway_s = leeway_s

    async def verify(self, token: str) -> dict[str, Any]:
        """Give the claims of a valid token.

        Raises:
            Problem: it is not valid; the detail says why.
        """
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise Problem(
                "credentials_invalid",
                "the bearer token is no JSON Web Token; send `Authorization: Bearer TOKEN`, or an "
                "API key in X-API-Key",
            ) from error
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise Problem(
                "credentials_invalid",
                Message("the token is signed by {0}; expected RS256 or ES256", repr(algorithm)),
            )
        key = await self._keys.key(header.get("kid"))
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise Problem("credentials_expired", "the token has expired; get a new one") from error
        except jwt.InvalidTokenError as error:
            raise Problem(
                "credentials_invalid", Message("the token is refused: {0}", error)
            ) from error
        return claims


def scopes_of(claims: dict[str, Any]) -> frozenset[str]:
    """Give the scopes of a token: `scope` (RFC 9068) or `scp`, a text with spaces or a list."""
    named: list[str] = []
    for claim in (claims.get("scope"), claims.get("scp")):
        if isinstance(claim, str):
            named += claim.split()
        elif isinstance(claim, list):
            named += [part for part in claim if isinstance(part, str)]
    return frozenset(named)


def _parse(data: bytes, source: str) -> dict[str | None, jwt.PyJWK]:
    try:
        found = jwt.PyJWKSet.from_dict(json.loads(data)).keys
        usable = {each.key_id: each for each in found if each.algorithm_name in ALGORITHMS}
    except (jwt.PyJWTError, ValueError, AttributeError, TypeError) as error:
        raise SetupError(
            "{0} is not a JSON Web Key Set ({1}); expected one as the issuer publishes it",
            source,
            error,
        ) from error
    if not usable:
        raise SetupError(
            "{0} has no key for RS256 or ES256; expected an RSA key, or an EC key on P-256", source
        )
    return usable


def _read_file(source: str) -> bytes:
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise SetupError("the key set {0} cannot be read: {1}", source, error) from error


def _fetch(source: str) -> bytes:
    with urllib.request.urlopen(source, timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310 - checked
        data: bytes = answer.read(MAX_SET_BYTES + 1)
    if len(data) > MAX_SET_BYTES:
        raise ValueError(Message("{0} answered more than {1} bytes", source, MAX_SET_BYTES))
    return data
