"""The keys that sign an issuer's tokens: from a file, a URL, or found by OpenID Connect Discovery.

They are read beside the requests, which meanwhile are checked by the keys that are there. PyJWT's
own client of key sets reads them while a request waits, and by the environment's proxy.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from pathlib import Path
from typing import Any

import httpx2
import jwt

from wanwu.catalog import Message
from wanwu.errors import SetupError
from wanwu.gateway.checks import Stamp, stamp
from wanwu.gateway.issuers import Issuer
from wanwu.gateway.problems import Problem

#: What a key may sign by, by its curve or else its type.
ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
    "Ed448": ("EdDSA",),
}
#: A set that could not be read, or lacks a token's key, is read again after this at the earliest.
RETRY_S = 10.0
#: A set must have been fetched within this.
FETCH_S = 5.0
MAX_SET_BYTES = 1_000_000

UNREADABLE = (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, SetupError)

Keys = dict[tuple[str | None, str], jwt.PyJWK]

log = logging.getLogger("wanwu.gateway")


class KeySet:
    """The key set of an issuer. One that cannot be read, or has no key, changes nothing.

    Args:
        issuer: whose keys they are.
        cache_s: how old keys of a URL may be before they are fetched again.

    Raises:
        SetupError: the file cannot be used. A URL is first read by `refresh`.
    """

    def __init__(self, issuer: Issuer, cache_s: float) -> None:
        self._issuer, self._cache_s = issuer, cache_s
        self._keys: Keys = {}
        self._stamp: Stamp | None = None
        self._fetched_at, self._pause_s = float("-inf"), 0.0
        self._lock = asyncio.Lock()
        if not issuer.remote:
            self._read_file()

    def check(self) -> None:
        """Check that the set was read once.

        Raises:
            Problem: it never was.
        """
        if not self._keys:
            raise Problem(
                "auth_unavailable",
                Message(
                    "the key set of {0} could not be read; try later, or use an API key",
                    self._issuer.issuer,
                ),
                retry_after_s=RETRY_S,
            )

    async def key(self, identity: str | None, algorithm: str) -> jwt.PyJWK:
        """Return the key of an id for an algorithm; without an id, the only key.

        Raises:
            Problem: there is none, or the set was never read.
        """
        self.check()
        found = self._find(identity, algorithm)
        if found is None and self._issuer.remote:
            await self._fetch_after(RETRY_S)
            found = self._find(identity, algorithm)
        if found is not None:
            return found
        raise Problem(
            "credentials_invalid",
            Message(
                "the token is signed by the key {0} and {1}, which is not in the key set of {2}; "
                "get a new token there",
                repr(identity),
                algorithm,
                self._issuer.issuer,
            ),
        )

    async def refresh(self, *, at_once: bool = False) -> None:
        """Read the set again if it is old or its file has changed, or at once."""
        if self._issuer.remote:
            await self._fetch_after(0 if at_once else self._pause_s)
        elif at_once or stamp(str(self._issuer.jwks)) != self._stamp:
            try:
                self._read_file()
            except SetupError as error:
                log.error("the key set stays as it was: %s", error)

    def _find(self, identity: str | None, algorithm: str) -> jwt.PyJWK | None:
        if identity is not None:
            return self._keys.get((identity, algorithm))
        only = [key for (_, each), key in self._keys.items() if each == algorithm]
        return only[0] if len(only) == 1 else None

    def _read_file(self) -> None:
        path = Path(str(self._issuer.jwks))
        self._stamp = stamp(path)
        try:
            self._keys = _keys(json.loads(path.read_bytes()), str(path))
        except OSError as error:
            raise SetupError("the key set {0} cannot be read: {1}", path, error) from error
        except ValueError as error:
            raise _no_set(str(path), error) from error

    async def _fetch_after(self, seconds: float) -> None:
        """Fetch the set, if that long has gone by since another did."""
        async with self._lock:
            if time.monotonic() - self._fetched_at < seconds:
                return
            self._fetched_at = time.monotonic()
            try:
                self._keys = await asyncio.wait_for(_fetch(self._issuer), FETCH_S)
                self._pause_s = self._cache_s
            except (*UNREADABLE, asyncio.TimeoutError) as error:
                # Soon again: a withdrawn key must not stay for as long as a good answer.
                self._pause_s = min(self._cache_s, RETRY_S)
                why = str(error) or repr(error)
                log.error("the key set of %s stays as it was: %s", self._issuer.issuer, why)


async def _fetch(issuer: Issuer) -> Keys:
    """Return the keys that an issuer publishes."""
    # Certificates of authorities are read each time, so that renewed ones count.
    trusted = await asyncio.to_thread(ssl.create_default_context)
    async with httpx2.AsyncClient(verify=trusted, trust_env=False, timeout=FETCH_S) as client:
        url = issuer.source
        document = await _get(client, url)
        if issuer.jwks is None:
            if document.get("issuer") != issuer.issuer:
                raise SetupError(
                    "{0} describes the issuer {1}; expected {2}",
                    url,
                    repr(document.get("issuer")),
                    repr(issuer.issuer),
                )
            url = issuer.check_url(str(document.get("jwks_uri")))
            document = await _get(client, url)
    return _keys(document, url)


async def _get(client: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    data = b""
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        async for part in response.aiter_bytes():
            data += part
            if len(data) > MAX_SET_BYTES:
                raise SetupError("{0} answered more than {1} bytes", url, MAX_SET_BYTES)
    document = json.loads(data)
    if not isinstance(document, dict):
        raise SetupError("{0} answered no JSON object", url)
    return document


def _keys(document: Any, source: str) -> Keys:
    """Return the keys of a set that may check a signature.

    Raises:
        SetupError: there is none.
    """
    keys: Keys = {}
    try:
        for each in document["keys"]:
            keys |= _usable(each, source)
    except (KeyError, TypeError) as error:
        raise _no_set(source, error) from error
    if not keys:
        raise SetupError(
            "{0} has no key to check a token by; expected an RSA key of 2048 bits or more, a key "
            "on P-256, P-384 or P-521, or an Ed25519 or Ed448 key, for signatures",
            source,
        )
    return keys


def _usable(key: Any, source: str) -> Keys:
    """Return a key by its id and each algorithm that it may check a signature by."""
    try:
        if key.get("use", "sig") != "sig" or "verify" not in key.get("key_ops", ["verify"]):
            return {}
        names = ALGORITHMS.get(key.get("crv") or key["kty"], ())
        made = [jwt.PyJWK(key, name) for name in names if key.get("alg", name) == name]
        weak = [each.Algorithm.check_key_length(each.key) for each in made]
        if any(weak):
            log.warning("the key %r of %s is not used: %s", key.get("kid"), source, weak[0])
            return {}
        return {(each.key_id, each.algorithm_name): each for each in made}
    except (jwt.PyJWTError, AttributeError, KeyError, TypeError, ValueError) as error:
        log.warning("a key of %s is not used: %s", source, error)
        return {}


def _no_set(source: str, error: Exception) -> SetupError:
    return SetupError(
        "{0} is not a JSON Web Key Set ({1}); expected one as the issuer publishes it",
        source,
        error,
    )
