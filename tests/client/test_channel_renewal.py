from __future__ import annotations

import weakref

import pytest

from wanwu.channel_renewal import LOOKUP_S, RENEW_S, Channels


class Client:
    """A channel that connects when the test says so."""

    def __init__(self, connections: int) -> None:
        self.connections, self.connected = connections, False


class Bench:
    """Channels, the clients they made that are still held, and the time they see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, by_name: bool = True) -> None:
        self.now = 1000.0
        monkeypatch.setattr("wanwu.channel_renewal.time.monotonic", lambda: self.now)
        self.held: weakref.WeakSet[Client] = weakref.WeakSet()
        self.newest: Client | None = None
        self.channels = Channels(
            self._make, lambda client: lambda: client.connected, by_name=by_name
        )

    def _make(self, connections: int) -> Client:
        self.newest = Client(connections)
        self.held.add(self.newest)
        return self.newest

    def connect_newest(self) -> Client:
        assert self.newest is not None
        self.newest.connected = True
        return self.newest


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_new_channel_takes_over_once_it_is_connected(bench: Bench) -> None:
    first = bench.channels.client()
    bench.now += LOOKUP_S + 1
    assert bench.channels.client() is first
    assert bench.newest is not first
    assert bench.channels.client() is first
    second = bench.connect_newest()
    assert bench.channels.client() is second
    assert second.connections == first.connections


def test_channels_that_never_connect_are_let_go(bench: Bench) -> None:
    first = bench.channels.client()
    for _ in range(20):
        bench.now += LOOKUP_S + 1
        assert bench.channels.client() is first
    bench.newest = None
    assert len(bench.held) == 2
    assert set(bench.channels.all()) == set(bench.held)


def test_a_replaced_channel_lives_as_long_as_a_call_holds_it(bench: Bench) -> None:
    call = bench.channels.client()
    bench.now += LOOKUP_S + 1
    bench.channels.client()
    bench.connect_newest()
    bench.channels.client()
    assert call in bench.held
    assert len(bench.held) == 2
    del call
    assert len(bench.held) == 1


def test_an_address_keeps_its_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, by_name=False)
    first = bench.channels.client()
    bench.now += 10 * LOOKUP_S
    assert bench.channels.client() is first is bench.newest


def test_after_a_silence_connections_are_new_and_stay_so(bench: Bench) -> None:
    bench.channels.renew()
    fresh = bench.connect_newest()
    assert bench.channels.client() is fresh
    assert fresh.connections != 0
    bench.now += LOOKUP_S + 1
    bench.channels.client()
    assert bench.newest is not fresh
    assert bench.newest is not None
    assert bench.newest.connections == fresh.connections


def test_many_silent_calls_renew_connections_once(bench: Bench) -> None:
    bench.channels.renew()
    fresh = bench.newest
    bench.channels.renew()
    assert bench.newest is fresh
    bench.now += RENEW_S + 1
    bench.channels.renew()
    assert bench.newest is not fresh
