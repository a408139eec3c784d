"""One load from its start to its report, in the process that leads it."""

from __future__ import annotations

import logging
import sys
import time
from argparse import Namespace
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import WorkerRunner

from wanwu.catalog import message_of
from wanwu.cli.language import translate
from wanwu.errors import WanwuError
from wanwu_loadtest.machine import machine
from wanwu_loadtest.options import planned, settle
from wanwu_loadtest.report import write_report
from wanwu_loadtest.results import SCHEMA, Results
from wanwu_loadtest.summary import told
from wanwu_loadtest.triton_statistics import Counts, TritonStatistics, server
from wanwu_loadtest.verdict import find_knee, judge
from wanwu_loadtest.windows import Windows
from wanwu_loadtest.wires import connect, is_rest

log = logging.getLogger(__name__)
#: Options that say how the load was made.
TOLD = ("rate", "steps", "factor", "arrivals", "mix", "batch_size", "photos", "decode", "bank",
        "timeout_s", "max_in_flight", "seed", "streams")  # fmt: skip


def begin(environment: Environment, **_: Any) -> None:
    """Set a load up, as locust starts; workers only keep count."""
    environment.wanwu_windows = Windows(environment)  # type: ignore[attr-defined]
    if isinstance(environment.runner, WorkerRunner):
        environment.process_exit_code = 0  # the verdict is the master's
        return
    try:
        settle(environment)
        session = Session(environment)
    except WanwuError as error:
        sys.exit(f"wanwu: {translate(message_of(error))}")
    environment.events.test_start.add_listener(session.started)
    environment.events.quitting.add_listener(session.ended)


class Session:
    """Reads Triton's statistics at the bounds of the stages, and reports at the end."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._options = options = environment.parsed_options or Namespace()
        self._stages = planned(self._options)
        self._readings: list[Counts | None] = []
        self._begun = ""
        url = options.triton
        if url is None and not is_rest(options.host):
            url = options.host
        self._triton = TritonStatistics(url) if url else None

    def started(self, **_: Any) -> None:
        """Begin to read, as the streams begin to send."""
        self._begun = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        begun = time.perf_counter()
        for at_s in [stage.start_s for stage in self._stages]:
            gevent.sleep(max(0.0, begun + at_s - time.perf_counter()))
            self._readings.append(self._triton.counts() if self._triton else None)

    def ended(self, **_: Any) -> None:
        """Report, and let the exit code say whether the objectives were met."""
        if not self._begun:
            return
        self._reader.kill()
        results = self._results()
        if self._triton:
            self._triton.close()
            self._triton = None  # a channel that lives until Python ends may hang there
        folder = Path(self._options.report)
        try:
            write_report(results, folder)
        except OSError as error:
            why = translate("{0}: the report cannot be written: {1}", folder, error.strerror)
            sys.exit(f"wanwu: {why}")
        print(told(results, folder), flush=True)  # noqa: T201 - it is what was asked for
        self._environment.process_exit_code = 1 if results.verdict.reasons else 0

    def _results(self) -> Results:
        options = self._options
        windows: Windows = self._environment.wanwu_windows  # type: ignore[attr-defined]
        readings = [*self._readings, self._triton.counts() if self._triton else None]
        first, last = readings[0], readings[-1]
        measured = [
            windows.window(index, stage, server(*readings[index : index + 2]))
            for index, stage in enumerate(self._stages[: len(readings) - 1])
        ]
        total = windows.total(self._stages, server(first, last))
        service = None
        if self._triton and first is not None and last is not None:
            service = self._triton.service(first, last)
        return Results(
            schema=SCHEMA,
            started=self._begun,
            wire="rest" if is_rest(options.host) else "grpc",
            url=options.host,
            model=self._model(),
            shape=options.shape,
            options={name: str(getattr(options, name)) for name in TOLD},
            machine=machine(),
            total=total,
            windows=measured,
            service=service,
            knee=find_knee(measured, p95_ms=options.p95_ms),
            verdict=judge(
                total,
                # Steps are meant to pass the knee: their first one must hold.
                measured[:1] if options.shape == "steps" else measured,
                p95_ms=options.p95_ms,
                error_rate=options.error_rate,
            ),
            errors=windows.errors(),
        )

    def _model(self) -> str:
        options: Any = self._options
        try:
            wire = connect(options.host, bank=options.bank, timeout_s=2.0, at_a_time=1)
            with closing(wire):
                return wire.model()
        except WanwuError as error:
            log.warning("the model's name is not known: %s", error)
            return ""
