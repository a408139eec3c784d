"""Real gateways, each in a process of its own, in front of a real Triton."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from wanwu.embedded.server import free_port

PROGRAM = "from wanwu.cli import main; main()"


@dataclass
class RunningGateway:
    """A gateway that answers at `url`; what it says is in `log`, what it noted in `audit`."""

    url: str
    port: int
    audit: Path
    log: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> int:
        """End it in order, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


StartGateway = Callable[..., AbstractContextManager[RunningGateway]]


@pytest.fixture(scope="session")
def start_gateway(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[[bool, str], None]
) -> StartGateway:
    """Start gateways: arguments go to `wanwu gateway`, names in capitals to its environment.

    A name such as MAX_PIXELS stands for WANWU_GATEWAY_MAX_PIXELS. Auth is off unless the arguments
    say otherwise.
    """
    need(importlib.util.find_spec("fastapi") is not None, "FastAPI: pip install 'wanwu[gateway]'")

    @contextmanager
    def start(
        triton: str,
        *arguments: str,
        audit: Path | None = None,
        folder: Path | None = None,
        **settings: object,
    ) -> Iterator[RunningGateway]:
        folder = folder or tmp_path_factory.mktemp("gateway")
        audit, log, port = audit or folder / "audit.jsonl", folder / "log.txt", free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WANWU_")}
        environment |= {f"WANWU_GATEWAY_{name}": str(value) for name, value in settings.items()}
        with_auth = any(argument in ("--keys-file", "--issuers") for argument in arguments)
        command = (
            *("gateway", "--url", triton, "--port", str(port), "--audit", str(audit)),
            *(() if with_auth else ("--no-auth",)),
            *arguments,
        )
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *command],
                env=environment | {"WANWU_LANG": "en"},
                stdout=out,
                stderr=out,
            )
        running = RunningGateway(f"http://127.0.0.1:{port}", port, audit, log, process)
        try:
            _wait(running)
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(30)

    return start


def _wait(gateway: RunningGateway) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", gateway.port)) == 0:
                return
        if gateway.process.poll() is not None:
            pytest.fail(f"the gateway ended: {gateway.log.read_text()}")
        time.sleep(0.05)
    pytest.fail(f"the gateway did not start: {gateway.log.read_text()}")
