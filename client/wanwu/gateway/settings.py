"""Settings of the gateway, each from the environment as WANWU_GATEWAY_ and its name in capitals."""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from cryptography import x509
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from wanwu.catalog import Message
from wanwu.errors import InputError
from wanwu.gateway.checks import check_rate
from wanwu.gateway.issuers import Issuer
from wanwu.gateway.keys import Scope
from wanwu.gateway.validation import reason_of

PREFIX = "WANWU_GATEWAY_"

Strings = Annotated[tuple[str, ...], NoDecode]


class GatewaySettings(BaseSettings):
    """What the gateway may do, and for whom.

    Lists are written with commas between their parts. Sizes are bytes, times are seconds.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    #: Port of /metrics without auth; without it /metrics is on the main port, for scope admin.
    metrics_port: int | None = Field(None, ge=0, le=65535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    #: Authorities of callers' certificates, which then may stand for a key.
    tls_client_ca: Path | None = None
    #: The scopes of each certificate's subject, `*` for any other, as a JSON object.
    tls_client_scopes: Annotated[dict[str, tuple[Scope, ...]], NoDecode] = Field({})

    auth: Literal["on", "off"] = "on"
    keys_file: Path | None = None
    #: Who issues tokens, as a JSON list.
    issuers: Annotated[tuple[Issuer, ...], NoDecode] = ()
    jwt_leeway_s: float = Field(60, ge=0, le=300)
    jwks_cache_s: float = Field(300, ge=1)

    #: Requests a principal may make; a key may have a rate of its own.
    rate: str = "6000/minute"
    #: Connections that may be open; fewer where the system lets the process open fewer files.
    max_connections: int = Field(2_000, ge=16)
    #: Redis in which requests are counted for all gateways together, redis://HOST:PORT or rediss://;
    #: without it each process counts for itself.
    rate_storage: SecretStr | None = None
    #: Requests of a principal, and of all, that may be under way.
    concurrent_per_principal: int = Field(64, ge=1)
    concurrent: int = Field(256, ge=1)

    #: File of the audit log, `-` for standard output, or `off`.
    audit: str = "-"
    audit_rotate_bytes: int = Field(100_000_000, ge=10_000)
    #: Wait for the disk at each line: no line is lost with the machine, and each answer is later.
    audit_fsync: bool = False
    #: Write the labels and texts that callers bring as their hashes, or as they are.
    audit_texts: Literal["hash", "text"] = "hash"
    #: Where the log's begin and end are kept; none: beside the log. A PEM file of an Ed25519 key
    #: signs them.
    audit_head: Path | None = None
    audit_key: Path | None = None
    audit_hash: Literal["sha256", "sm3"] = "sha256"
    #: Files that were set aside are removed at this age; with a size, the oldest go before that.
    audit_retention_days: int = Field(180, ge=1)
    audit_max_bytes: int | None = Field(None, ge=100_000)
    #: Longest time that a line may take; its request fails after that.
    audit_timeout_s: float = Field(5, gt=0)
    #: Refused requests of an unknown caller in a minute that have lines of their own; the rest of
    #: the minute is one line with their number.
    audit_refused_lines: int = Field(5, ge=0)

    #: A request's body, and all bodies that are held at a time.
    max_body_bytes: int = Field(32_000_000, ge=1_000)
    max_held_bytes: int = Field(128_000_000, ge=1_000)
    max_pictures: int = Field(16, ge=1)
    max_pixels: int = Field(40_000_000, ge=1)
    max_labels: int = Field(2_000, ge=1)
    #: Time for a request's headers, and for its body.
    header_timeout_s: float = Field(10, gt=0)
    body_timeout_s: float = Field(30, gt=0)
    #: Time for all of a request, from its headers to its answer, with what waits for a decoder.
    deadline_s: float = Field(60, gt=0)
    #: Pictures that are decoded at a time; of large ones, one less.
    decoders: int = Field(3, ge=1, le=256)
    #: Time that requests under way have once the gateway is told to end.
    drain_s: int = Field(30, ge=1)

    #: Path before all addresses, such as /wanwu, whether or not a proxy takes it away.
    root_path: str | None = Field(None, pattern=r"^(/[A-Za-z0-9._~-]+)+$")
    #: Addresses or networks of proxies whose X-Forwarded-For is believed.
    trusted_proxies: Strings = ()
    #: Origins of web pages that may call the API from a browser.
    cors_origins: Strings = ()

    @field_validator("trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("issuers", "tls_client_scopes", mode="before")
    @classmethod
    def _json(cls, value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError(
                Message("it is no JSON ({0}); docs/gateway.md shows an example", error)
            ) from error

    @field_validator("tls_client_scopes")
    @classmethod
    def _subjects(cls, value: dict[str, tuple[Scope, ...]]) -> dict[str, tuple[Scope, ...]]:
        for each in value:
            if each != "*" and _subject(each) != each:
                raise ValueError(
                    Message(
                        "{0} is no subject; expected one as `openssl x509 -noout -subject "
                        "-nameopt RFC2253` writes it, such as CN=shop,O=Example, or *",
                        repr(each),
                    )
                )
        return value

    @field_validator("issuers")
    @classmethod
    def _distinct(cls, value: tuple[Issuer, ...]) -> tuple[Issuer, ...]:
        names = [each.issuer for each in value]
        if len(set(names)) < len(names):
            raise ValueError("it names an issuer twice; name each once")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            ipaddress.ip_network(each)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            scheme, separator, host = each.partition("://")
            if scheme not in ("http", "https") or not separator or not host or "/" in host:
                raise ValueError(
                    Message("{0} is no origin; expected one such as https://example.cn", repr(each))
                )
        return value

    @field_validator("rate")
    @classmethod
    def _rate(cls, value: str) -> str:
        return check_rate(value)

    @model_validator(mode="after")
    def _fit_together(self) -> GatewaySettings:
        if self.auth == "on" and not (self.keys_file or self.issuers or self.tls_client_ca):
            raise ValueError(
                "nothing says who may call: make a key with `wanwu keys create`, and give "
                "--keys-file; or name who issues tokens by --issuers; or whose certificates count "
                "by WANWU_GATEWAY_TLS_CLIENT_CA; or, where everybody may, --no-auth"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert came without tls_key, or the other way round; give both")
        if (self.tls_client_ca and not self.tls_cert) or (
            self.tls_client_scopes and not self.tls_client_ca
        ):
            raise ValueError(
                "callers' certificates need all of tls_cert, tls_key and tls_client_ca; give them"
            )
        if self.metrics_port and self.metrics_port == self.port:
            raise ValueError(
                Message("port and metrics_port are both {0}; choose another", self.port)
            )
        if self.deadline_s < self.body_timeout_s:
            raise ValueError(
                Message(
                    "deadline_s is {0} and body_timeout_s {1}; no time would be left for an "
                    "answer: raise the first",
                    f"{self.deadline_s:g}",
                    f"{self.body_timeout_s:g}",
                )
            )
        if self.audit_key and not self.audit_head and self.audit in ("-", "off"):
            raise ValueError(
                Message(
                    "audit_key came, audit is {0} and there is no audit_head, so that nothing "
                    "would be signed; give audit_head too, or a file for the audit log",
                    self.audit,
                )
            )
        if self.max_held_bytes < self.max_body_bytes:
            raise ValueError(
                Message(
                    "max_held_bytes is {0} and max_body_bytes {1}; no body that large could "
                    "be held: raise the first",
                    self.max_held_bytes,
                    self.max_body_bytes,
                )
            )
        return self

    def shown(self) -> dict[str, object]:
        """Return the settings that are set, without secrets: addresses lose user and query."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {name: _bare(value) for name, value in values.items()}


def _bare(value: object) -> object:
    if isinstance(value, dict):
        return {name: _bare(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_bare(each) for each in value]
    if not isinstance(value, str) or "://" not in value:
        return value
    parts = urlsplit(value)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _subject(text: str) -> str | None:
    try:
        return x509.Name.from_rfc4514_string(text).rfc4514_string()
    except ValueError:
        return None


def gateway_settings(**given: object) -> GatewaySettings:
    """Take what is given and is not None, else what the environment says, else the defaults.

    Raises:
        InputError: a setting cannot be used, or there is none of a name; the message names it.
    """
    known = {PREFIX + name.upper() for name in GatewaySettings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise InputError(
            "the gateway has no setting {0}; docs/gateway.md lists those it has", ", ".join(unknown)
        )
    try:
        return GatewaySettings(**{key: each for key, each in given.items() if each is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        place = "_".join(map(str, first["loc"]))
        message = reason_of(first)
        if not place:
            raise InputError(message) from error
        raise InputError(
            "the gateway's setting {0} is {1}: {2} (WANWU_GATEWAY_{3})",
            place,
            repr(first["input"]),
            message,
            str(first["loc"][0]).upper(),
        ) from error
