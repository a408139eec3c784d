"""The key that may load models, for as long as a server runs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wanwu.errors import SetupError


def default_key_file(grpc_port: int) -> Path:
    """Give the file where the server on a port keeps its admin key."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "wanwu" / f"admin-key-{grpc_port}"


@contextmanager
def kept_admin_key(
    given: str | None, key_file: Path | None, grpc_port: int
) -> Iterator[tuple[str, Path | None]]:
    """Give the admin key, and the file that holds it; a given key is written nowhere.

    Raises:
        SetupError: the file cannot be written.
    """
    if given:
        yield given, None
        return
    key = secrets.token_urlsafe(24)
    path = key_file or default_key_file(grpc_port)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key)
    except OSError as error:
        raise SetupError(
            "the admin key cannot be kept in {0}: {1}; choose another --admin-key-file, or give a "
            "key by WANWU_ADMIN_KEY",
            path,
            error,
        ) from error
    try:
        yield key, path
    finally:
        path.unlink(missing_ok=True)
