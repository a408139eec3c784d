"""Load a Wanwu server with locust: `wanwu loadtest --help`, or `locust -f` this file."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

# Locust makes Python's own waiting cooperative as it is imported; gRPC has to be told apart, and
# before its first channel.
import grpc.experimental.gevent
import locust  # noqa: F401
from locust import events

grpc.experimental.gevent.init_gevent()

from wanwu_loadtest.options import add_options  # noqa: E402
from wanwu_loadtest.session import begin  # noqa: E402
from wanwu_loadtest.stream import Stream  # noqa: E402

__all__ = ["Stream"]

_ended: list[int] = []


def _leave() -> None:
    # As Python ends it frees gRPC's channels, which then may wait for ever: gevent ended before.
    # This runs after locust's own handlers, which were registered later.
    if _ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_ended[0])


def _note(exit_code: int, **_: Any) -> None:
    _ended.append(exit_code)


atexit.register(_leave)
events.quit.add_listener(_note)
events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(begin)
