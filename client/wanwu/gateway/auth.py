"""Who calls, what they may do, and how much of it at a time."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from limits import RateLimitItem, WindowStats, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import ConfigurationError, StorageError
from pydantic import SecretStr
from starlette.datastructures import Headers

from wanwu.catalog import Message
from wanwu.errors import SetupError
from wanwu.gateway.bearer import TokenVerifier
from wanwu.gateway.key_sets import KeySet
from wanwu.gateway.keys import PREFIX, SCOPES, KeyStore, Scope
from wanwu.gateway.problems import Problem
from wanwu.gateway.reload import Source
from wanwu.gateway.settings import GatewaySettings

KEY_HEADER = "X-API-Key"
#: The shared storage of rates answers within this time; else it is left alone for the other.
STORAGE_TIMEOUT_S, STORAGE_PAUSE_S = 0.2, 5.0

log = logging.getLogger("wanwu.gateway")


@dataclass(frozen=True)
class Principal:
    """Who calls.

    Args:
        kind: `key`, `token`, `certificate`, or `anonymous` where auth is off.
        identity: the key's id, the subject of the token or of the certificate (RFC 4514), or the
            source address.
        name: the key's name; else as the identity.
        scopes: what it may do.
        rate: how often, where that is its own.
        issuer: who issued the token.
    """

    kind: str
    identity: str
    name: str
    scopes: frozenset[str]
    rate: str | None = None
    issuer: str | None = None

    @property
    def who(self) -> tuple[str, str]:
        """What tells principals apart: a subject is an issuer's own."""
        return self.issuer or self.kind, self.identity

    def require(self, scope: Scope) -> None:
        """Check that it may do something.

        Raises:
            Problem: it may not.
        """
        if scope not in self.scopes:
            has = ", ".join(sorted(self.scopes & set(SCOPES))) or "none"
            raise Problem(
                "scope_missing",
                Message(
                    "this needs the scope {0} and the credentials have {1}; ask the gateway's "
                    "operator for a key with that scope",
                    scope,
                    has,
                ),
            )


class Authenticator:
    """Tells who calls, by an API key, a token or a certificate.

    Raises:
        SetupError: the keys cannot be read.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._off = settings.auth == "off"
        self._subjects = settings.tls_client_scopes
        self._keys = KeyStore(settings.keys_file) if settings.keys_file else None
        self._tokens: TokenVerifier | None = None
        if settings.issuers:
            self._tokens = TokenVerifier(
                settings.issuers, leeway_s=settings.jwt_leeway_s, cache_s=settings.jwks_cache_s
            )

    @property
    def sources(self) -> list[Source]:
        """What is read again while the gateway runs."""
        return [*([self._keys] if self._keys else []), *self._key_sets]

    def check(self) -> None:
        """Check that every issuer's key set was read once.

        Raises:
            Problem: one never was.
        """
        for each in [] if self._off else self._key_sets:
            each.check()

    @property
    def _key_sets(self) -> list[KeySet]:
        return self._tokens.key_sets if self._tokens else []

    async def principal(self, headers: Headers, source: str, subject: str | None) -> Principal:
        """Return who calls.

        Args:
            headers: the request's.
            source: the caller's address.
            subject: of the caller's certificate, which counts where no other credentials came.

        Raises:
            Problem: no credentials came, or they are not valid.
        """
        if self._off:
            return Principal("anonymous", source, source, frozenset(SCOPES))
        key, scheme, token = _credentials(headers)
        if key is not None and self._keys is not None:
            found = self._keys.find(key.strip())
            return Principal("key", found.id, found.name, frozenset(found.scopes), found.rate)
        if token and scheme == "bearer" and self._tokens is not None:
            issuer, claims = await self._tokens.verify(token)
            name, scopes = _printable(str(claims["sub"])), issuer.scopes(claims)
            return Principal("token", name, name, scopes, issuer=issuer.issuer)
        if subject is not None and key is None and not token:
            granted = self._subjects.get(subject, self._subjects.get("*", ()))
            return Principal("certificate", _printable(subject), subject, frozenset(granted))
        code = "credentials_missing" if key is None and not token else "credentials_invalid"
        raise Problem(code, self._needed())

    def _needed(self) -> str:
        headers = [f"{KEY_HEADER}: KEY"] if self._keys else []
        if self._tokens:
            headers.append("Authorization: Bearer TOKEN")
        if headers:
            return Message("the request needs the header {0}", " or ".join(headers))
        return "the connection needs a client certificate"


def _credentials(headers: Headers) -> tuple[str | None, str, str]:
    """Return the API key, and the scheme and the text of other credentials.

    Raises:
        Problem: several came.
    """
    for name in (KEY_HEADER, "Authorization"):
        if len(headers.getlist(name)) > 1:
            raise Problem(
                "credentials_invalid", Message("several headers {0} came; send one", name)
            )
    key = headers.get(KEY_HEADER)
    scheme, _, text = headers.get("Authorization", "").partition(" ")
    scheme, text = scheme.lower(), text.strip()
    if key is None and scheme == "bearer" and text.startswith(PREFIX):
        key, text = text, ""
    if key is not None and text:
        raise Problem(
            "credentials_invalid",
            "both X-API-Key and Authorization came; send one of them",
        )
    return key, scheme, text


def _printable(subject: str) -> str:
    if not subject or not subject.isprintable():
        raise Problem(
            "credentials_invalid",
            Message("the credentials are of {0}; expected a printable name", repr(subject)),
        )
    return subject


class Admission:
    """How much each principal, and all together, may ask for at a time. For one event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._shared = _shared_limiter(settings.rate_storage)
        self._shared_after = 0.0
        self._under_way: Counter[tuple[str, str]] = Counter()

    @asynccontextmanager
    async def admit(self, principal: Principal, headers: dict[str, str]) -> AsyncIterator[None]:
        """Admit a request, and count it while it is under way.

        Args:
            principal: who calls.
            headers: of the answer; what is left of the rate is added.

        Raises:
            Problem: its principal, or all together, have too many.
        """
        who = principal.who
        self._check_under_way(who)
        self._under_way[who] += 1
        try:
            await self._check_rate(who, principal.rate or self._settings.rate, headers)
            yield
        finally:
            self._under_way[who] -= 1
            if not self._under_way[who]:
                del self._under_way[who]

    def _check_under_way(self, who: tuple[str, str]) -> None:
        most = self._settings.concurrent_per_principal
        if self._under_way[who] >= most:
            raise Problem(
                "concurrency_limited",
                Message(
                    "{0} requests of yours are under way, which is the limit; wait for one to end",
                    most,
                ),
                retry_after_s=1,
            )
        if self._under_way.total() >= self._settings.concurrent:
            raise Problem(
                "overloaded",
                Message(
                    "{0} requests are under way, which is this gateway's limit; try again",
                    self._settings.concurrent,
                ),
                retry_after_s=1,
            )

    async def _check_rate(self, who: tuple[str, str], rate: str, headers: dict[str, str]) -> None:
        limit = parse(rate)
        admitted, window = await self._count(limit, who)
        wait_s = max(0.0, window.reset_time - time.time())
        headers["RateLimit-Limit"] = str(limit.amount)
        headers["RateLimit-Remaining"] = str(window.remaining)
        headers["RateLimit-Reset"] = str(math.ceil(wait_s))
        if not admitted:
            raise Problem(
                "rate_limited",
                Message("your limit is {0}; wait, or ask the gateway's operator for more", rate),
                retry_after_s=wait_s,
            )

    async def _count(self, limit: RateLimitItem, who: tuple[str, str]) -> tuple[bool, WindowStats]:
        """Count a request, here alone while the shared storage does not answer."""
        if self._shared is not None and time.monotonic() >= self._shared_after:
            try:
                return await _counted(self._shared, limit, who)
            except StorageError as error:
                self._shared_after = time.monotonic() + STORAGE_PAUSE_S
                log.error("requests are counted by this gateway alone: %s", error)
        return await _counted(self._own, limit, who)


async def _counted(
    limiter: MovingWindowRateLimiter, limit: RateLimitItem, who: tuple[str, str]
) -> tuple[bool, WindowStats]:
    return await limiter.hit(limit, *who), await limiter.get_window_stats(limit, *who)


def _shared_limiter(uri: SecretStr | None) -> MovingWindowRateLimiter | None:
    if uri is None:
        return None
    if not uri.get_secret_value().startswith(("redis://", "rediss://")):
        raise SetupError("rate_storage is no address such as redis://HOST:6379/0; change it")
    try:
        storage = RedisStorage(
            f"async+{uri.get_secret_value()}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="wanwu",
            socket_timeout=STORAGE_TIMEOUT_S,
            socket_connect_timeout=STORAGE_TIMEOUT_S,
        )
    except (ConfigurationError, ValueError) as error:
        raise SetupError("the storage of rates cannot be used: {0}", error) from error
    return MovingWindowRateLimiter(storage)
