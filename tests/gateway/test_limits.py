"""How much callers may ask for, each and all together."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.http import Answer, form, request
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.errors import InputError
from wanwu.gateway.keys import create_key
from wanwu.gateway.settings import gateway_settings
from wanwu.samples import cat_photo

WANWU = Path(sys.executable).with_name("wanwu")
FAST = "100000/minute"
#: Each caller's own rate; the gateway's where there is none.
RATES = {
    **{"hasty": None, "first": None, "second": None},
    **{"rare": "1/hour", "patient": "1/second", "eager": "9/minute"},
    **{"frequent": FAST, "left": FAST, "right": FAST, "third": FAST},
}
BODY, KIND = form(("file", cat_photo()))


@dataclass
class Limited:
    """A gateway of few requests, and its callers' keys."""

    gateway: Any
    metrics: str
    keys: dict[str, str]
    held: int = 0

    def asks(self, caller: str) -> Answer:
        headers = {"X-API-Key": self.keys[caller]}
        return request(f"{self.gateway.url}/v1/banks", headers=headers)

    @contextmanager
    def slow(self, caller: str) -> Iterator[http.client.HTTPConnection]:
        """Send part of a picture, and leave in the end; `finish` sends the rest."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        connection.putrequest("POST", "/predict")
        connection.putheader("X-API-Key", self.keys[caller])
        connection.putheader("Content-Type", KIND)
        connection.putheader("Content-Length", str(len(BODY)))
        connection.endheaders(BODY[:1000])
        self.held += 1
        try:
            self._until(lambda under_way: under_way == self.held)
            yield connection
        finally:
            connection.close()
            self.held -= 1
            self._until(lambda under_way: under_way <= self.held)

    def _until(self, expected: Callable[[float], bool]) -> None:
        ends = time.monotonic() + 5
        while not expected(under_way := self._under_way()):
            assert time.monotonic() < ends, f"{under_way} under way, {self.held} held"
            time.sleep(0.02)

    def _under_way(self) -> float:
        metrics = request(self.metrics).body.decode()
        return float(metrics.partition("\nwanwu_gateway_requests_in_flight ")[2].split()[0])


def finish(connection: http.client.HTTPConnection) -> int:
    connection.send(BODY[1000:])
    return connection.getresponse().status


@pytest.fixture(scope="module")
def limited(
    server: EmbeddedServer, start_gateway: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Limited]:
    """At most 3 requests a minute; at a time 1 of each caller and 2 of all."""
    keys_file, port = tmp_path_factory.mktemp("limits") / "keys.json", free_port()
    keys = {
        name: create_key(keys_file, name, ("recognise",), rate=rate)[1]
        for name, rate in RATES.items()
    }
    arguments = ("--keys-file", str(keys_file), "--metrics-port", str(port))
    limits = {"RATE": "3/minute", "CONCURRENT_PER_PRINCIPAL": 1, "CONCURRENT": 2}
    with start_gateway(server.url, *arguments, **limits) as running:
        yield Limited(running, f"http://127.0.0.1:{port}/metrics", keys)


def refused(answer: Answer) -> tuple[int, str]:
    assert int(answer.headers["Retry-After"]) >= 1
    return answer.status, answer.json()["code"]


# How often


def test_a_caller_of_too_many_requests_is_told_when_to_come_back(limited: Limited) -> None:
    assert [limited.asks("hasty").status for _ in range(3)] == [200] * 3
    answer = limited.asks("hasty")
    assert refused(answer) == (429, "rate_limited")
    assert 30 <= int(answer.headers["Retry-After"]) <= 61
    assert "your limit is 3/minute" in answer.json()["detail"]
    assert '"code":"rate_limited"' in limited.gateway.audit.read_text().splitlines()[-1]


def test_one_callers_requests_do_not_count_for_another(limited: Limited) -> None:
    assert [limited.asks("first").status for _ in range(4)] == [200, 200, 200, 429]
    assert limited.asks("second").status == 200


def test_a_key_may_have_a_rate_of_its_own(limited: Limited) -> None:
    assert {limited.asks("frequent").status for _ in range(10)} == {200}
    assert [limited.asks("rare").status for _ in range(2)] == [200, 429]
    assert "your limit is 1/hour" in limited.asks("rare").json()["detail"]


def test_a_caller_who_comes_back_when_told_is_let_in(limited: Limited) -> None:
    while (answer := limited.asks("patient")).status == 200:
        pass
    assert refused(answer) == (429, "rate_limited")
    time.sleep(int(answer.headers["Retry-After"]))
    assert limited.asks("patient").status == 200


# How many at a time


def test_a_callers_second_request_at_a_time_is_refused(limited: Limited) -> None:
    with limited.slow("left") as upload:
        answer = limited.asks("left")
        assert refused(answer) == (429, "concurrency_limited")
        assert "1 requests of yours are under way" in answer.json()["detail"]
        assert limited.asks("right").status == 200
        assert finish(upload) == 200
        assert limited.asks("left").status == 200


def test_more_requests_than_the_gateway_takes_are_refused(limited: Limited) -> None:
    with limited.slow("left") as upload, limited.slow("right"):
        answer = limited.asks("third")
        assert refused(answer) == (503, "overloaded")
        assert "2 requests are under way" in answer.json()["detail"]
        assert limited.asks("left").json()["code"] == "concurrency_limited"
        assert finish(upload) == 200
        assert limited.asks("third").status == 200


def test_probes_are_answered_by_a_gateway_that_takes_no_more(limited: Limited) -> None:
    with limited.slow("left"), limited.slow("right"):
        assert request(f"{limited.gateway.url}/healthz").status == 200
        assert request(f"{limited.gateway.url}/readyz").status == 200


def test_a_caller_who_leaves_makes_room(limited: Limited) -> None:
    with limited.slow("left"):
        assert limited.asks("left").status == 429
    assert limited.asks("left").status == 200


def test_what_is_too_much_at_a_time_does_not_count_for_the_rate(limited: Limited) -> None:
    with limited.slow("eager") as upload:
        assert {limited.asks("eager").json()["code"] for _ in range(20)} == {"concurrency_limited"}
        assert finish(upload) == 200
    assert limited.asks("eager").status == 200


# Settings of the environment


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("RATE", "often", "couldn't parse rate limit string 'often'"),
        ("RATE", "0/minute", "nobody could ever call"),
        ("RATE", "10/minute;5/second", "several rates came; give one"),
        ("CONCURRENT", "0", "greater than or equal to 1"),
        ("CONCURRENT_PER_PRINCIPAL", "many", "valid integer"),
        ("PORT", "70000", "less than or equal to 65535"),
        ("AUTH", "perhaps", "'on' or 'off'"),
        ("MAX_PIXELS", "-1", "greater than or equal to 1"),
        ("MAX_PICTURES", "1.5", "valid integer"),
        ("BODY_TIMEOUT_S", "0", "greater than 0"),
        ("ISSUERS", '[{"issuer": "https://login.example.cn"}]', "Field required"),
        ("JWT_LEEWAY_S", "3600", "less than or equal to 300"),
        ("TRUSTED_PROXIES", "10.0.0.1,proxy", "'proxy' does not appear to be"),
        ("CORS_ORIGINS", "example.cn", "'example.cn' is no origin"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv("WANWU_GATEWAY_AUTH", "off")
    monkeypatch.setenv(f"WANWU_GATEWAY_{name}", value)
    with pytest.raises(InputError) as raised:
        gateway_settings()
    assert reason in str(raised.value)
    assert str(raised.value).endswith(f"(WANWU_GATEWAY_{name})")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"PORT": "81", "METRICS_PORT": "81"}, "port and metrics_port are both 81"),
        ({"MAX_PIXLES": "5"}, "the gateway has no setting WANWU_GATEWAY_MAX_PIXLES"),
        ({"MAX_HELD_BYTES": "5000"}, "max_held_bytes is 5000 and max_body_bytes 32000000"),
        ({"TLS_CERT": "cert.pem"}, "tls_cert came without tls_key"),
    ],
)
def test_settings_that_do_not_fit_together_are_told(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], reason: str
) -> None:
    for name, value in {"AUTH": "off", **settings}.items():
        monkeypatch.setenv(f"WANWU_GATEWAY_{name}", value)
    with pytest.raises(InputError, match=reason):
        gateway_settings()


def test_a_gateway_with_a_setting_that_cannot_be_used_ends_with_code_2() -> None:
    command = [str(WANWU), "gateway", "--no-auth", "--port", "0", "--audit", "off"]
    environment = os.environ | {"WANWU_GATEWAY_RATE": "often"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "the gateway's setting rate is 'often'" in done.stderr
    assert "(WANWU_GATEWAY_RATE)" in done.stderr
    assert "Traceback" not in done.stderr
