"""Settings from the environment, read at the edge and then passed on as values."""

from __future__ import annotations

import os
from dataclasses import dataclass

from wanwu.errors import InputError
from wanwu.transport import DEFAULT_URL

DEFAULT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Settings:
    """Where Triton is, and how long one answer may take."""

    url: str
    timeout_s: float

    @classmethod
    def from_env(cls, *, url: str | None = None, timeout_s: float | None = None) -> Settings:
        """Take what is given, else WANWU_URL and WANWU_TIMEOUT_S, else the defaults.

        Raises:
            InputError: the timeout is no positive number of seconds.
        """
        given: object = timeout_s
        if timeout_s is None:
            given = os.environ.get("WANWU_TIMEOUT_S", DEFAULT_TIMEOUT_S)
        try:
            seconds = float(given)  # type: ignore[arg-type]
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise InputError(
                f"the timeout is {given!r}; expected a positive number of seconds "
                "(WANWU_TIMEOUT_S or timeout_s)"
            )
        return cls(url or os.environ.get("WANWU_URL") or DEFAULT_URL, seconds)
