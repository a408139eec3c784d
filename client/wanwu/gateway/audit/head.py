"""The head of an audit log: where it begins and ends, kept in a file of its own.

Lines that are cut off either end leave a whole chain, and so does a log that is begun again. The
head shows both, the better the farther it lies from the log. With a key it is signed: a JSON Web
Signature by Ed25519, so that whoever checks it needs the public half alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wanwu.errors import InputError, SetupError
from wanwu.gateway.audit.chain import GENESIS, Link
from wanwu.gateway.audit.files import open_locked

START = Link(0, GENESIS)
#: Two places are written in turns, so that a machine's end leaves one of them whole.
_SLOT = 4_096
_ALGORITHM = "EdDSA"


@dataclass(frozen=True)
class Head:
    """Where a log begins and ends.

    Args:
        before: the line before the first that is kept.
        last: the last line.
        removed_days: the age of the youngest line that was removed; None if none was.
    """

    before: Link = START
    last: Link = START
    removed_days: float | None = None


class HeadFile:
    """The file, for its one writer.

    Raises:
        SetupError: the key cannot sign.
        OSError: the file cannot be opened, or another process writes it.
    """

    def __init__(self, path: Path, key: Path | None) -> None:
        self.path, self._key = path, None if key is None else read_key(key, signs=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_locked(path)
        os.posix_fallocate(self._file, 0, 2 * _SLOT)  # a full disk does not stop it later
        self._turn = 0

    def read(self) -> Head | None:
        """Return the head, None where none was written yet.

        Raises:
            InputError: there is one, and it is damaged or not signed by this key.
        """
        found = _read(self.path, self._key)
        self._turn = 0 if found is None else 1 - found[1]
        return found and found[0]

    def write(self, head: Head) -> None:
        """Write it; it is in the file when this returns."""
        claims = asdict(head)
        if self._key is None:
            text = json.dumps(claims)
        else:
            import jwt

            text = jwt.encode(claims, self._key, algorithm=_ALGORITHM)
        os.pwrite(self._file, f"{text:{_SLOT - 1}}\n".encode(), self._turn * _SLOT)
        self._turn = 1 - self._turn

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def head_path(log: Path) -> Path:
    """Return where the head of a log is unless another place is named."""
    return log.with_name(f"{log.name}.head")


def read_head(path: Path, key: Path | None) -> Head:
    """Return a log's head.

    Raises:
        InputError: there is none, or it is damaged or not signed by this key.
    """
    found = _read(path, None if key is None else read_key(key))
    if found is None:
        raise InputError(
            "there is no head {0}, so that lines missing at the log's ends cannot be found; name "
            "it by --head, or check the lines alone by --chain-only",
            path,
        )
    return found[0]


def read_key(path: Path, *, signs: bool = False) -> Any:
    """Return the Ed25519 key of a PEM file; to check heads, its public half is enough.

    Raises:
        SetupError: it holds none.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import (
        load_pem_private_key,
        load_pem_public_key,
    )

    key: object = None
    try:
        pem = path.read_bytes()
        key = load_pem_public_key(pem) if b" PUBLIC " in pem else load_pem_private_key(pem, None)
        reason = type(key).__name__
    except (OSError, ValueError, TypeError) as error:
        reason = str(error)
    if not isinstance(key, Ed25519PrivateKey if signs else (Ed25519PrivateKey, Ed25519PublicKey)):
        raise SetupError(
            "the key {0} of the audit log cannot be used: {1}; expected one such as `openssl "
            "genpkey -algorithm ed25519` writes",
            path,
            reason,
        )
    return key


def _read(path: Path, key: Any) -> tuple[Head, int] | None:
    """Return the newest head of the two places, and its place."""
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise InputError("the head {0} cannot be read: {1}", path, error) from error
    texts = [data[place : place + _SLOT].strip(b"\0 \n") for place in (0, _SLOT)]
    if not any(texts):
        return None
    found = [(head, place) for place, text in enumerate(texts) if (head := _parsed(text, key))]
    if not found:
        raise InputError(
            "{0} is no head of an audit log {1}; restore it, or name another file",
            path,
            "without a signature" if key is None else "that is signed by this key",
        )
    return max(found, key=lambda each: each[0].last.sequence)


def _parsed(text: bytes, key: Any) -> Head | None:
    """Return a head; None for half of one, where a machine ended, or one of another key."""
    try:
        claims = json.loads(text) if key is None else _checked(text, key)
        links = {name: Link(**claims[name]) for name in ("before", "last")}
        return Head(**links, removed_days=claims["removed_days"])
    except (ValueError, KeyError, TypeError):
        return None


def _checked(text: bytes, key: Any) -> dict[str, Any]:
    import jwt

    try:
        claims: dict[str, Any] = jwt.decode(text, key, algorithms=[_ALGORITHM])
    except jwt.PyJWTError as error:
        raise ValueError(str(error)) from error
    return claims
