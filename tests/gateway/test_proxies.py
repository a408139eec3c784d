"""Behind a proxy: a path of its own, pages of other origins, rates of several gateways."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.gateway import RunningGateway
from support.http import request
from wanwu.embedded.server import free_port

ROOT = "/vision/wanwu"


@pytest.fixture(scope="module")
def below(server: Any, start_gateway: Any) -> Iterator[RunningGateway]:
    with start_gateway(server.url, ROOT_PATH=ROOT, CORS_ORIGINS="https://a.example") as running:
        yield running


@pytest.mark.parametrize("root", [ROOT, ""], ids=["kept", "taken away"])
@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/static/page.js", "/openapi.json", "/v1/banks", "/healthz", "/readyz"],
)
def test_a_path_is_found_whether_or_not_the_proxy_takes_its_beginning_away(
    below: RunningGateway, root: str, path: str
) -> None:
    assert request(f"{below.url}{root}{path}").status == 200


def test_the_description_names_the_path(below: RunningGateway) -> None:
    described = request(f"{below.url}{ROOT}/openapi.json").json()
    assert described["servers"] == [{"url": ROOT}]
    assert "/v1/recognize" in described["paths"]


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_a_page_names_its_files_from_where_it_is(below: RunningGateway, page: str) -> None:
    text = request(f"{below.url}{ROOT}{page}").body.decode()
    assert 'src="static/' in text
    assert 'src="/' not in text
    assert 'href="/' not in text


def test_the_path_alone_leads_to_the_page(below: RunningGateway) -> None:
    answer = request(f"{below.url}{ROOT}")
    assert (answer.status, answer.headers["Location"]) == (308, f"{ROOT}/")


def test_probes_and_routes_are_noted_as_without_the_path(below: RunningGateway) -> None:
    before = below.audit.read_text()
    for path in ("/healthz", "/readyz", "/v1/banks"):
        request(f"{below.url}{ROOT}{path}")
    (line,) = below.audit.read_text().removeprefix(before).splitlines()
    assert '"route":"/v1/banks"' in line


def test_a_page_of_another_origin_may_read_what_it_needs(below: RunningGateway) -> None:
    answer = request(f"{below.url}/v1/banks", headers={"Origin": "https://a.example"})
    exposed = {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
    assert {"X-Request-ID", "Retry-After", "RateLimit-Remaining"} <= exposed


def test_a_root_path_that_is_none_is_refused(server: Any, start_gateway: Any) -> None:
    with pytest.raises(pytest.fail.Exception, match="root_path is 'wanwu/'"):
        start_gateway(server.url, ROOT_PATH="wanwu/").__enter__()


# Rates


@pytest.fixture(scope="module")
def redis(need: Callable[[bool, str], None], tmp_path_factory: Any) -> Iterator[str]:
    need(shutil.which("redis-server") is not None, "redis-server: apt-get install redis-server")
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        yield f"redis://127.0.0.1:{port}"
        process.terminate()


def test_an_answer_says_what_is_left_of_the_rate(server: Any, start_gateway: Any) -> None:
    with start_gateway(server.url, RATE="3/minute") as gateway:
        answers = [request(f"{gateway.url}/v1/banks") for _ in range(4)]
    assert [each.status for each in answers] == [200, 200, 200, 429]
    left = [each.headers["RateLimit-Remaining"] for each in answers]
    assert left == ["2", "1", "0", "0"]
    assert {each.headers["RateLimit-Limit"] for each in answers} == {"3"}
    assert all(0 < int(each.headers["RateLimit-Reset"]) <= 60 for each in answers)


def test_gateways_that_share_a_storage_count_together(
    server: Any, start_gateway: Any, redis: str
) -> None:
    shared = {"RATE": "4/minute", "RATE_STORAGE": f"{redis}/0"}
    with start_gateway(server.url, **shared) as first, start_gateway(server.url, **shared) as other:
        statuses = [
            request(f"{gateway.url}/v1/banks").status
            for _ in range(3)
            for gateway in (first, other)
        ]
    assert sorted(statuses) == [200] * 4 + [429] * 2


def test_a_storage_that_is_none_is_refused_and_not_shown(server: Any, start_gateway: Any) -> None:
    with pytest.raises(pytest.fail.Exception, match="rate_storage is no address") as caught:
        start_gateway(server.url, RATE_STORAGE="http://:geheim@127.0.0.1").__enter__()
    assert "geheim" not in str(caught.value)


def test_without_its_storage_a_gateway_counts_for_itself(
    server: Any, start_gateway: Any, tmp_path: Path
) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}"
    with start_gateway(server.url, RATE="2/minute", RATE_STORAGE=nowhere) as gateway:
        started = time.monotonic()
        statuses = [request(f"{gateway.url}/v1/banks").status for _ in range(3)]
        assert time.monotonic() - started < 5
        assert statuses == [200, 200, 429]
        assert "counted by this gateway alone" in gateway.log.read_text()
