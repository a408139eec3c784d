"""API keys: a file of their hashes, read again when it changes.

A key is 256 random bits, so its plain SHA-256 cannot be searched and is checked in microseconds.
The key itself is told once and kept nowhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from wanwu.catalog import Message
from wanwu.errors import InputError, SetupError
from wanwu.gateway.checks import check_rate, stamp
from wanwu.gateway.problems import Problem
from wanwu.gateway.validation import reason_of

Scope = Literal["recognise", "embed", "admin"]
SCOPES: tuple[Scope, ...] = ("recognise", "embed", "admin")
PREFIX = "wanwu_"
_END_OF_TIME = datetime.max.replace(tzinfo=timezone.utc)

log = logging.getLogger("wanwu.gateway")


class Key(BaseModel):
    """What is kept of a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    name: str = Field(min_length=1, max_length=100)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None
    rate: str | None = None

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("it holds control characters; use letters, digits and spaces")
        return value

    @field_validator("rate")
    @classmethod
    def _rate(cls, value: str | None) -> str | None:
        return None if value is None else check_rate(value)

    def state(self, now: datetime) -> Literal["valid", "expired", "revoked"]:
        """Tell whether it may be used."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


class KeyFile(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    keys: tuple[Key, ...] = ()


def read_keys(path: Path) -> KeyFile:
    """Read a file of keys.

    Raises:
        SetupError: it is missing or cannot be read as one.
    """
    try:
        return KeyFile.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise SetupError(
            "there is no file of keys {0}; make one with `wanwu keys create --file {1}`", path, path
        ) from error
    except OSError as error:
        raise SetupError("the file of keys {0} cannot be read: {1}", path, error) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise SetupError(
            "{0} is not a file of keys ({1}: {2}); restore it, or make another with `wanwu keys "
            "create`",
            path,
            place,
            reason_of(first),
        ) from error


def create_key(
    path: Path,
    name: str,
    scopes: tuple[Scope, ...],
    expires: datetime | None = None,
    rate: str | None = None,
) -> tuple[Key, str]:
    """Add a key to a file, which is made where there is none; give it and its secret.

    Raises:
        InputError: the name is taken by a valid key, or a value cannot be used.
        SetupError: the file cannot be read or written.
    """
    now = datetime.now(timezone.utc)
    try:
        key, token = _new(
            name=name,
            scopes=tuple(dict.fromkeys(scopes)),
            created=now,
            expires=expires,
            rate=rate,
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(
            "the key's {0} is {1}: {2}; change it", place, repr(first["input"]), reason_of(first)
        ) from error
    if key.state(now) == "expired":
        raise InputError("the key would expire at {0}, which is past; give a later time", expires)

    def add(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if any(each.name == name and each.state(now) == "valid" for each in keys):
            raise InputError(
                "there is a valid key named {0}; choose another name, or revoke that one",
                repr(name),
            )
        return (*keys, key)

    _change(path, add, missing_ok=True)
    return key, token


def rotate_key(path: Path, which: str, grace: timedelta) -> tuple[Key, Key, str]:
    """Make another secret for a valid key; return the old key, the new one, and its secret.

    Args:
        path: the file.
        which: the id or name of the key.
        grace: how long the old secret goes on.

    Raises:
        InputError: there is no such valid key.
        SetupError: the file cannot be read or written.
    """
    now = datetime.now(timezone.utc)
    made: list[tuple[Key, Key, str]] = []

    def change(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        key = _one(which, [key for key in keys if key.state(now) == "valid"])
        end = now + grace
        old = key.model_copy(update={"expires": min(end, key.expires or end)})
        # It lives as long as the old one was meant to.
        expires = key.expires and now + min(key.expires - key.created, _END_OF_TIME - now)
        new, token = _new(
            name=key.name, scopes=key.scopes, created=now, expires=expires, rate=key.rate
        )
        made.append((old, new, token))
        return (*(old if each.id == old.id else each for each in keys), new)

    _change(path, change, missing_ok=False)
    return made[0]


def revoke_key(path: Path, which: str) -> Key:
    """Revoke the key of that id, or the valid one of that name.

    Raises:
        InputError: there is none.
        SetupError: the file cannot be read or written.
    """
    now = datetime.now(timezone.utc)
    found: list[Key] = []

    def change(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        named = [key for key in keys if which in (key.id, key.name) and key.revoked is None]
        # Expired ones may have the name too.
        valid = [key for key in named if key.state(now) == "valid"]
        found.append(_one(which, valid or named))
        return tuple(
            key.model_copy(update={"revoked": now}) if key.id == found[0].id else key
            for key in keys
        )

    _change(path, change, missing_ok=False)
    return found[0]


def last_uses(log: Iterable[bytes]) -> dict[str, datetime]:
    """Return when each key, by its id, was last used, from the lines of an audit log."""
    found: dict[str, datetime] = {}
    for line in log:
        if b'"kind":"key"' not in line:
            continue
        try:
            record = json.loads(line)
            used, identity = record["time"], record["principal"]["id"]
            moment = datetime.fromisoformat(used.replace("Z", "+00:00"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                "a line is no audit log's: {0}; give the file that the gateway writes",
                repr(line[:80]),
            ) from error
        found[identity] = max(moment, found.get(identity, moment))
    return found


class KeyStore:
    """The keys of a file, as it is now. A file that has become unusable changes nothing.

    Raises:
        SetupError: the file cannot be used at the beginning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = stamp(self._path)
        self._keys = _by_id(read_keys(path))

    def find(self, token: str) -> Key:
        """Give the valid key that a caller's token is.

        Raises:
            Problem: it is none, or may not be used any more.
        """
        identity = token.removeprefix(PREFIX).partition("_")[0]
        key = self._keys.get(identity)
        # An unknown id takes as long as a wrong secret.
        expected = key.sha256 if key is not None else "0" * 64
        same = hmac.compare_digest(_digest(token), expected)
        if key is None or not same:
            raise Problem(
                "credentials_invalid",
                "the API key is not one that this gateway knows; check it, or ask for another",
            )
        state = key.state(datetime.now(timezone.utc))
        if state == "revoked":
            raise Problem(
                "credentials_revoked",
                Message("the API key {0} was revoked; ask for another", repr(key.name)),
            )
        if state == "expired":
            raise Problem(
                "credentials_expired",
                Message(
                    "the API key {0} expired at {1}; ask for another", repr(key.name), key.expires
                ),
            )
        return key

    async def refresh(self, *, at_once: bool = False) -> None:
        """Read the file again if it has changed, or at once."""
        now_seen = stamp(self._path)
        if now_seen == self._seen and not at_once:
            return
        self._seen = now_seen
        try:
            self._keys = _by_id(read_keys(self._path))
        except SetupError as error:
            log.error("the keys are as they were: %s", error)
        else:
            log.info("the file of keys was read again: %s", self._path)


def _new(**values: Any) -> tuple[Key, str]:
    """Return a key and its secret."""
    identity = secrets.token_hex(6)
    token = f"{PREFIX}{identity}_{secrets.token_urlsafe(32)}"
    return Key(id=identity, sha256=_digest(token), **values), token


def _one(which: str, keys: Sequence[Key]) -> Key:
    """Return the only key of an id or a name.

    Raises:
        InputError: there is none, or several.
    """
    found = [key for key in keys if which in (key.id, key.name)]
    if not found:
        raise InputError(
            "no valid key has the id or name {0}; `wanwu keys list` shows them", repr(which)
        )
    if len(found) > 1:
        raise InputError(
            "{0} keys are named {1}: {2}; give the id of one",
            len(found),
            repr(which),
            ", ".join(key.id for key in found),
        )
    return found[0]


def _by_id(file: KeyFile) -> dict[str, Key]:
    return {key.id: key for key in file.keys}


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _change(
    path: Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]], *, missing_ok: bool
) -> None:
    """Change the file as a whole, one process at a time."""
    try:
        if missing_ok:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            keys = KeyFile().keys if missing_ok and not path.exists() else read_keys(path).keys
            data = KeyFile(keys=change(keys)).model_dump_json(indent=2) + "\n"
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as half:
                half.write(data.encode())
            # The file keeps its permissions, and its owner where root changes it for another; a
            # new one is for its owner alone.
            if path.exists():
                was = path.stat()
                if os.geteuid() == 0:
                    os.chown(half.name, was.st_uid, was.st_gid)
                Path(half.name).chmod(was.st_mode & 0o777)
            Path(half.name).replace(path)
    except OSError as error:
        raise SetupError("the file of keys {0} cannot be written: {1}", path, error) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
