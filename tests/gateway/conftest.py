"""A gateway for tests that change nothing of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.gateway import RunningGateway, StartGateway, start_gateway
from wanwu.embedded.server import EmbeddedServer

__all__ = ["start_gateway"]


@pytest.fixture(scope="session")
def gateway(server: EmbeddedServer, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    """A gateway without auth, for tests that change nothing of it."""
    with start_gateway(server.url, AUDIT_REFUSED_LINES=1_000) as running:
        yield running
