"""A pod's planned end, as the chart times it, before clients that know nothing of Wanwu."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from support.fleet import Name, calling, served_name, tiny_repository
from support.serving import server_options
from wanwu.embedded.server import EmbeddedServer, free_port

FIRST, SECOND = "127.0.0.51", "127.0.0.52"
VALUES = Path(__file__).parents[2] / "helm" / "wanwu" / "values.yaml"
ROUND_ROBIN = (("grpc.lb_policy_name", "round_robin"),)


@pytest.mark.timeout(240)
def test_no_call_of_a_plain_client_fails_when_a_server_ends_as_planned(tmp_path: Path) -> None:
    triton = yaml.safe_load(VALUES.read_text())["triton"]
    age = tuple(
        f"--grpc-max-connection-age{ending}={triton['grpc'][key]}"
        for ending, key in (("", "maxConnectionAgeMs"), ("-grace", "maxConnectionAgeGraceMs"))
    )
    port, repository = free_port(), tiny_repository(tmp_path)
    name = Name(FIRST, SECOND)
    with ExitStack() as stack:
        first, _ = (
            stack.enter_context(
                EmbeddedServer(
                    server_options(
                        repository, host=host, grpc_port=port, metrics_port=None, arguments=age
                    )
                )
            )
            for host in (FIRST, SECOND)
        )
        url = stack.enter_context(served_name(name, port))
        every, one = (
            stack.enter_context(calling("plain", url, callers=2, timeout_s=5, channel_args=args))
            for args in (ROUND_ROBIN, ())
        )
        # The clients have just looked the name up, so they will not for the longest time there is.
        name.addresses = [SECOND]
        time.sleep(triton["preStopSeconds"])
        first.stop()
        time.sleep(2)
    assert [call.error for call in (*every, *one) if call.error] == []
