"""Settings from the environment, read at the edge and then passed on as values."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wanwu.cache import default_folder
from wanwu.channel import DEFAULT_URL, Address, Tls
from wanwu.errors import InputError

DEFAULT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Settings:
    """Where Triton is, how long one answer may take, and where banks are kept."""

    address: Address
    timeout_s: float
    cache: Path | None

    @classmethod
    def from_env(
        cls,
        *,
        url: str | None = None,
        timeout_s: float | None = None,
        api_key: str | None = None,
        tls: Tls | None = None,
        cache: Path | str | bool = True,
    ) -> Settings:
        """Take what is given, else what the environment says, else the defaults.

        The variables are WANWU_URL, WANWU_TIMEOUT_S, WANWU_API_KEY, WANWU_TLS (1 for TLS),
        WANWU_TLS_CA, WANWU_TLS_CERT, WANWU_TLS_KEY (each means TLS too) and WANWU_CACHE_DIR.

        Raises:
            InputError: the address is none, or the timeout no positive number of seconds.
            SetupError: a TLS file cannot be read.
        """
        address = Address(
            url or os.environ.get("WANWU_URL") or DEFAULT_URL,
            tls or _tls(),
            api_key or os.environ.get("WANWU_API_KEY") or None,
        )
        return cls(address, _timeout(timeout_s), _folder(cache))


def _timeout(given: float | None) -> float:
    value: object = given
    if value is None:
        value = os.environ.get("WANWU_TIMEOUT_S", DEFAULT_TIMEOUT_S)
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(
            "the timeout is {0}; expected a positive number of seconds (WANWU_TIMEOUT_S or "
            "timeout_s)",
            repr(value),
        )
    return seconds


def _tls() -> Tls | None:
    wanted = os.environ.get("WANWU_TLS", "")
    if wanted not in ("", "0", "1"):
        raise InputError("WANWU_TLS is {0}; expected 1 for TLS, or 0", repr(wanted))
    ca, cert, key = (os.environ.get(f"WANWU_TLS_{name}") or None for name in ("CA", "CERT", "KEY"))
    return Tls(ca=ca, cert=cert, key=key) if wanted == "1" or ca or cert or key else None


def _folder(cache: Path | str | bool) -> Path | None:
    if isinstance(cache, bool):
        return default_folder() if cache else None
    return Path(cache)
