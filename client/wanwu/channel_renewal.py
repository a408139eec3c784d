"""Which gRPC channel a client uses: the newest that is connected."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Client = TypeVar("Client")

#: A name is looked up again this often, so that servers added behind it get their share.
LOOKUP_S = 15.0
#: Connections are replaced after a silence, at most this often.
RENEW_S = 5.0

_NUMBERS = itertools.count(1)


class Channels(Generic[Client]):
    """The client in use; behind a name, replaced by one that has looked the name up again.

    gRPC looks a name up only when a connection breaks, so a server added behind the name would
    stay idle. A new channel looks it up, and takes over connections that are still open. It comes
    into use once it is connected: while the name service is silent, or names no server that runs,
    the old one stays. After a silence the new channel makes connections of its own instead. None
    is made to a server that hangs or is cut off, so calls pass it by until it is back.

    Nothing here closes a client: it closes itself when it is freed, and calls under way hold it.

    Args:
        make: makes a client; those made with one number share their connections.
        watch: makes a client connect, and returns what says whether it is connected.
        by_name: the address is a name, which may come to stand for other servers.
    """

    def __init__(
        self,
        make: Callable[[int], Client],
        watch: Callable[[Client], Callable[[], bool]],
        *,
        by_name: bool,
    ) -> None:
        self.by_name = by_name
        self._make, self._watch = make, watch
        self._lock = threading.Lock()
        self._connections = 0
        self._looked_up, self._renewed = time.monotonic(), float("-inf")
        self._client = make(self._connections)
        self._next: tuple[Client, Callable[[], bool]] | None = None

    def client(self) -> Client:
        """Return the client to use for the next attempt."""
        if not self.by_name:
            return self._client
        with self._lock:
            if self._next is not None and self._next[1]():
                self._client, self._next = self._next[0], None
            if time.monotonic() - self._looked_up > LOOKUP_S:
                self._look_up()
            return self._client

    def renew(self) -> None:
        """Connect again, because a server is silent."""
        with self._lock:
            if time.monotonic() - self._renewed > RENEW_S:
                self._renewed = time.monotonic()
                self._connections = next(_NUMBERS)
                self._look_up()

    def all(self) -> list[Client]:
        """Return the client in use, and the one that is to follow it."""
        with self._lock:
            return [self._client, *([self._next[0]] if self._next else [])]

    def _look_up(self) -> None:
        self._looked_up = time.monotonic()
        client = self._make(self._connections)
        self._next = client, self._watch(client)
