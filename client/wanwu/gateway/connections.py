"""How many connections are open, before anybody knows whose they are.

A connection that waits for a request has cost its caller nothing, so under pressure the one that
has waited longest makes room for a new one.
"""

from __future__ import annotations

import logging
import resource
import socket
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from wanwu.catalog import Message
from wanwu.errors import SetupError
from wanwu.gateway.metrics import Metrics

#: Connections that are accepted before the event loop does anything else.
BACKLOG = 128
#: Files that the gateway needs besides its callers' connections.
RESERVED_FILES = 64 + BACKLOG
#: One source may have this share of all connections.
SHARE_OF_ONE = 0.25
#: With fewer connections no gateway starts.
FEWEST = 16

#: So many refusals of a source in so many seconds are answered at once, and later ones after a
#: pause, so that who sends nothing else cannot keep the gateway busy.
REFUSALS, REFUSALS_S, REFUSAL_DELAY_S = 120, 60.0, 1.0
#: Sources whose refusals are counted.
SOURCES = 10_000

#: A caller's address and port.
Peer = tuple[str, int]

log = logging.getLogger("wanwu.gateway")


class Connections:
    """The open connections; for one event loop.

    A source is an IPv4 address, or the 64 bits of an IPv6 address that one customer has.

    Args:
        most: how many there may be.
        trusted: addresses or networks of proxies, each of which may have them all.
        handshake_s: how long a TLS handshake takes at most.
        metrics: counts.
    """

    def __init__(
        self, most: int, trusted: Collection[str], handshake_s: float, metrics: Metrics
    ) -> None:
        self._most, self._most_of_one = most, max(FEWEST // 2, int(most * SHARE_OF_ONE))
        self._trusted = [ip_network(each) for each in trusted]
        self._handshake_s, self._metrics = handshake_s, metrics
        self._sources: dict[Peer, str] = {}
        self._of: Counter[str] = Counter()
        # In their TLS handshake, or just accepted: since when.
        self._accepted: OrderedDict[Peer, float] = OrderedDict()
        # Those that wait for a request, the one that has waited longest first: how to close each.
        self._waiting: OrderedDict[Peer, Callable[[], None]] = OrderedDict()
        self._waiting_of: defaultdict[str, OrderedDict[Peer, None]] = defaultdict(OrderedDict)

    def accept(self, peer: Peer) -> bool:
        """Count a new connection, if there is room for it or another makes room."""
        now = time.monotonic()
        while self._accepted and next(iter(self._accepted.values())) < now - self._handshake_s:
            self.remove(next(iter(self._accepted)))
        source = source_of(peer[0])
        if self._of[source] >= self._most_of_one and not self._is_trusted(peer[0]):
            room = self._close_first(self._waiting_of[source])
        else:
            room = len(self._sources) < self._most or self._close_first(self._waiting)
        if not room:
            self._metrics.connections_ended.labels("refused").inc()
            return False
        self._sources[peer], self._accepted[peer] = source, now
        self._of[source] += 1
        return True

    def remove(self, peer: Peer) -> None:
        """Count a connection no more."""
        self.answers(peer)
        source = self._sources.pop(peer, None)
        if source is not None:
            self._of[source] -= 1
            if not self._of[source]:
                del self._of[source]
                self._waiting_of.pop(source, None)

    def waits(self, peer: Peer, close: Callable[[], None]) -> None:
        """Note that no request is under way on a connection, and how it is closed."""
        self._accepted.pop(peer, None)
        source = self._sources.get(peer)
        if source is not None:
            self._waiting[peer], self._waiting_of[source][peer] = close, None

    def answers(self, peer: Peer) -> None:
        """Note that a request is under way on a connection."""
        self._accepted.pop(peer, None)
        if self._waiting.pop(peer, None) is not None:
            del self._waiting_of[self._sources[peer]][peer]

    def _close_first(self, waiting: Collection[Peer]) -> bool:
        first = next(iter(waiting), None)
        if first is None:
            return False
        close = self._waiting[first]
        self.remove(first)
        close()
        self._metrics.connections_ended.labels("made_room").inc()
        return True

    def _is_trusted(self, host: str) -> bool:
        return any(_address(host) in network for network in self._trusted)


def source_of(host: str) -> str:
    """Return the name of a source, by an address in it; another text is its own source."""
    try:
        address = _address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)


def _address(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host.partition("%")[0])
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


class Refusals:
    """How many requests of unknown callers each source has had refused of late."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def delay_s(self, host: str) -> float:
        """Count a refusal, and return how long its answer waits: not at all for the first ones."""
        source, now = source_of(host), time.monotonic()
        began, count = self._counts.pop(source, (now, 0))
        if now - began >= REFUSALS_S:
            began, count = now, 0
        self._counts[source] = began, count + 1
        if len(self._counts) > SOURCES:
            self._counts.popitem(last=False)
        return REFUSAL_DELAY_S if count >= REFUSALS else 0.0


class Listener(socket.socket):
    """A listening socket, whose connections are counted as they are accepted."""

    connections: Connections

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises:
            BlockingIOError: none came, or it was closed since there are too many.
        """
        accepted, peer = super().accept()
        if self.connections.accept(peer[:2]):
            return accepted, peer
        accepted.close()
        raise BlockingIOError


def most_connections(wanted: int) -> int:
    """Return how many connections this process may have open, of those wanted.

    The soft limit of open files is raised as far as it has to be and may be.

    Raises:
        SetupError: hardly any may.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - RESERVED_FILES)
    if most < FEWEST:
        raise SetupError(
            "this process may open {0} files; expected {1} or more: raise `ulimit -n`",
            soft,
            FEWEST + RESERVED_FILES,
        )
    if most < wanted:
        log.warning(
            "%s", Message("{0} connections at most, since {1} files may be open", most, soft)
        )
    return most
