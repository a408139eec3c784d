"""Servers and name services that say nothing: a client does at least as well as a plain one."""

from __future__ import annotations

import gc
import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from support.fleet import (
    INPUTS,
    MODEL,
    OUTPUTS,
    SLOW,
    Call,
    Name,
    Relay,
    answered,
    calling,
    requests_of_slow,
    served_name,
    stopped,
    tiny_repository,
    tiny_server,
    wait_until,
)
from support.serving import profile
from wanwu import ServerError
from wanwu.channel import Address
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.transport import GrpcTransport

FIRST, SECOND, RELAY, NOTHING = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"
KINDS = pytest.mark.parametrize("kind", ["sync", "aio"])
#: An attempt is alone for a second of this.
TIMEOUT_S = 4.0

Need = Callable[[bool, str], None]


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Path:
    need(importlib.util.find_spec("pytriton") is not None, "Triton: pip install 'wanwu[server]'")
    return tiny_repository(tmp_path_factory.mktemp("silence") / "model_repository")


@pytest.fixture(scope="module")
def servers(repository: Path, port: int) -> Iterator[tuple[EmbeddedServer, EmbeddedServer]]:
    """Two servers, at FIRST and SECOND."""
    with (
        tiny_server(repository, FIRST, port) as first,
        tiny_server(repository, SECOND, port) as second,
    ):
        yield first, second


def failures(calls: list[Call]) -> list[Exception]:
    return [call.error for call in calls if call.error]


@contextmanager
def one_hangs(servers: tuple[EmbeddedServer, EmbeddedServer], port: int) -> Iterator[tuple]:
    yield Name(FIRST, SECOND), lambda: stopped(servers[0])


@contextmanager
def one_is_cut_off(servers: tuple[EmbeddedServer, EmbeddedServer], port: int) -> Iterator[tuple]:
    with Relay(RELAY, port, to=FIRST) as relay:

        @contextmanager
        def cut() -> Iterator[None]:
            relay.silence(later=True)
            yield

        yield Name(RELAY, SECOND), cut


@pytest.mark.parametrize("fault", [one_hangs, one_is_cut_off])
@pytest.mark.parametrize("callers", [1, 8])
@KINDS
def test_no_call_waits_for_one_of_two_servers_that_is_silent(
    servers, port: int, fault, kind: str, callers: int
) -> None:
    with ExitStack() as stack:
        name, strike = stack.enter_context(fault(servers, port))
        url = stack.enter_context(served_name(name, port))
        with (
            calling(kind, url, callers=callers, timeout_s=TIMEOUT_S) as calls,
            calling("plain", url, callers=callers, timeout_s=TIMEOUT_S) as plain,
            strike(),
        ):
            time.sleep(TIMEOUT_S + 1)
        assert failures(plain)
        assert not failures(calls)
        assert max(call.seconds for call in calls) < 0.8 * TIMEOUT_S
        # Each caller meets the silence once; after that the server is passed by.
        assert sum(call.seconds > 0.9 for call in calls) <= 2 * callers


@KINDS
def test_a_server_that_hung_gets_calls_again(servers, port: int, kind: str) -> None:
    with (
        served_name(Name(FIRST, SECOND), port) as url,
        calling(kind, url, callers=2, timeout_s=TIMEOUT_S) as calls,
    ):
        with stopped(servers[0]):
            time.sleep(2)
        before = answered(servers[0])
        wait_until(lambda: answered(servers[0]) >= before + 10)
    assert not failures(calls)


@KINDS
def test_a_cut_connection_to_the_only_address_is_replaced(servers, port: int, kind: str) -> None:
    with (
        Relay(RELAY, port, to=FIRST) as relay,
        served_name(Name(RELAY), port) as url,
        calling(kind, url, callers=2, timeout_s=TIMEOUT_S) as calls,
        calling("plain", url, callers=1, timeout_s=TIMEOUT_S) as plain,
    ):
        relay.silence(later=False)
        time.sleep(TIMEOUT_S + 1)
    assert failures(plain)
    assert not failures(calls)


@pytest.mark.parametrize("fault", ["silent", "missing"])
@KINDS
def test_a_lost_name_service_is_not_noticed_and_servers_are_found_after_it(
    servers, port: int, monkeypatch: pytest.MonkeyPatch, kind: str, fault: str
) -> None:
    monkeypatch.setattr("wanwu.channel_renewal.LOOKUP_S", 0.5)
    name = Name(FIRST)
    with (
        served_name(name, port) as url,
        calling(kind, url, callers=2, timeout_s=TIMEOUT_S) as calls,
    ):
        setattr(name, fault, True)
        channels = open_channels()
        time.sleep(3)
        assert open_channels() <= channels + 1
        before = answered(servers[1])
        name.addresses.append(SECOND)
        setattr(name, fault, False)
        wait_until(lambda: answered(servers[1]) >= before + 10)
    assert not failures(calls)
    assert max(call.seconds for call in calls) < 0.9


def open_channels() -> int:
    kinds = (grpc.Channel, grpc.aio.Channel)
    # By the type: to read the class of an object may run its code.
    return sum(issubclass(type(each), kinds) for each in gc.get_objects())


@KINDS
def test_dead_addresses_behind_a_name_cost_nothing(
    servers, port: int, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("wanwu.channel_renewal.LOOKUP_S", 0.5)
    name = Name(NOTHING, FIRST)
    with (
        Relay(RELAY, port, to=SECOND) as relay,
        served_name(name, port) as url,
        calling(kind, url, callers=2, timeout_s=TIMEOUT_S) as calls,
    ):
        relay.silence(later=True)
        name.addresses.append(RELAY)
        time.sleep(2)
    assert not failures(calls)
    assert max(call.seconds for call in calls) < 0.9


@pytest.mark.skipif(profile() != "embedded", reason="the slow model runs on the Python backend")
@KINDS
def test_servers_that_are_slow_alike_get_hardly_any_duplicates(
    repository: Path, servers, port: int, kind: str
) -> None:
    before = requests_of_slow(repository)
    with (
        served_name(Name(FIRST, SECOND), port) as url,
        calling(kind, url, callers=2, timeout_s=TIMEOUT_S, model=SLOW) as calls,
    ):
        time.sleep(3)
    assert not failures(calls)
    # Until the first answers are there, nothing tells slow from silent.
    assert len(calls) <= requests_of_slow(repository) - before <= len(calls) + 4


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    """Threads take turns a thousand times as often, so that a race is seen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_threads")
def test_callers_of_one_client_get_their_own_answers(servers, port: int) -> None:
    wrong: list[int] = []

    def caller(wire: GrpcTransport, number: int) -> None:
        ids = {"INPUT_IDS": np.full((1, 4), number, np.int64)}
        expected = wire.infer(MODEL, ids, OUTPUTS, timeout_s=TIMEOUT_S)["EMBEDDING"]
        for _ in range(300):
            answer = wire.infer(MODEL, ids, OUTPUTS, timeout_s=TIMEOUT_S)["EMBEDDING"]
            if not np.array_equal(answer, expected):
                wrong.append(number)

    with (
        served_name(Name(FIRST, SECOND), port) as url,
        closing(GrpcTransport(Address(url))) as wire,
    ):
        threads = [threading.Thread(target=caller, args=(wire, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_closing_ends_a_call_that_waits_for_a_silent_server(servers, port: int) -> None:
    with (
        Relay(RELAY, port, to=FIRST) as relay,
        served_name(Name(RELAY), port) as url,
        closing(GrpcTransport(Address(url))) as wire,
    ):
        wire.infer(MODEL, INPUTS, OUTPUTS, timeout_s=TIMEOUT_S)
        relay.silence(later=True)
        threading.Timer(0.5, wire.close).start()
        started = time.monotonic()
        with pytest.raises(ServerError, match="was closed"):
            wire.infer(MODEL, INPUTS, OUTPUTS, timeout_s=60.0)
        assert time.monotonic() - started < 10
