"""A stream of requests, sent when they are due, however long the answers take."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.pool import Pool
from locust import User, task
from locust.exception import StopUser
from locust.runners import LocalRunner

from wanwu.errors import WanwuError
from wanwu_loadtest.arrivals import arrivals
from wanwu_loadtest.options import planned
from wanwu_loadtest.shapes import stage_at
from wanwu_loadtest.windows import Windows
from wanwu_loadtest.wires import connect
from wanwu_loadtest.work import Question, Questions, read_mix, read_photos

log = logging.getLogger(__name__)
NOT_ANSWERED = "the load ended before an answer came"
NOT_SENT = "never sent: too many requests waited, see --max-in-flight"

_numbers = itertools.count()


class Stream(User):
    """One of several streams that share the rate; a locust user.

    Locust's users wait for an answer before they ask again, so a slow server is asked less and
    looks better than it is. A stream asks when it planned to, and latency counts from then.
    """

    def on_start(self) -> None:
        """Connect, and ask once, before the first request is due."""
        try:
            self.prepare()
        except WanwuError as error:
            log.error("the load cannot begin: %s", error)
            self.windows.failed(0, f"{type(error).__name__}: {error}")
            if isinstance(self.environment.runner, LocalRunner):
                self.environment.runner.quit()
            raise StopUser from error

    def prepare(self) -> None:
        """Connect, read the photographs, and ask once, so that nothing is slow for being first.

        Raises:
            WanwuError: the server does not answer, or an option does not fit it.
        """
        options: Any = self.environment.parsed_options
        self.wire = connect(
            self.environment.host or "",
            bank=options.bank,
            timeout_s=options.timeout_s,
            at_a_time=options.max_in_flight,
        )
        # A worker's streams differ by number, the workers' by name.
        name = (
            f"{options.seed} {getattr(self.environment.runner, 'client_id', '')} {next(_numbers)}"
        )
        self.randomness = random.Random(name)  # noqa: S311 - a load, not a secret
        photos = read_photos(options.photos)
        images = self.wire.prepared(photos) if options.decode == "once" else photos
        mix = read_mix(options.mix)
        labels = self.wire.labels() if "labels" in mix else []
        self.questions = Questions(images, labels, mix, options.batch_size, self.randomness)
        self.wire.ask(self.questions.next())

    @property
    def windows(self) -> Windows:
        """Where everything is noted."""
        windows: Windows = self.environment.wanwu_windows
        return windows

    def on_stop(self) -> None:
        """Let go of the connection."""
        if hasattr(self, "wire"):
            self.wire.close()

    @task
    def send(self) -> None:
        """Send the whole stream, and wait for its answers."""
        options: Any = self.environment.parsed_options
        pool = Pool(options.max_in_flight)
        self.stages = planned(options)
        due = arrivals(
            self.stages,
            kind=options.arrivals,
            share=1 / options.streams,
            randomness=self.randomness,
        )
        self.begun = begun = time.perf_counter()
        try:
            for at_s, stage in due:
                gevent.sleep(max(0.0, begun + at_s - time.perf_counter()))
                self.room(pool, stage)
                pool.spawn(self.one, self.questions.next(), begun + at_s, stage)
            pool.join()
        finally:
            self.give_up(due, time.perf_counter() - begun)
            pool.kill()
        raise StopUser

    def room(self, pool: Pool, stage: int) -> None:
        """Wait until another request may be under way."""
        try:
            pool.wait_available()
        except gevent.GreenletExit:
            self.windows.failed(stage, NOT_SENT)
            raise

    def give_up(self, due: Iterator[tuple[float, int]], passed_s: float) -> None:
        """Count what should have been sent by now, and was not."""
        for _, stage in itertools.takewhile(lambda each: each[0] <= passed_s, due):
            self.windows.failed(stage, NOT_SENT)

    def one(self, question: Question, due: float, stage: int) -> None:
        """Ask one question; its latency counts from the moment it was due."""
        self.windows.sent(stage, time.perf_counter() - due)
        failure: BaseException | None = None
        called_s = None
        try:
            called_s = self.wire.ask(question)
        except gevent.GreenletExit:
            failure = RuntimeError(NOT_ANSWERED)
        except WanwuError as error:
            failure = error
        seconds = time.perf_counter() - due
        pictures = len(question.images)
        self.environment.events.request.fire(
            request_type="ask",
            name=question.kind,
            response_time=seconds * 1000,
            response_length=pictures,
            exception=failure,
            context={},
        )
        if failure is None:
            self.windows.answered(stage, pictures, seconds, called_s)
            if (now := stage_at(self.stages, time.perf_counter() - self.begun)) is not None:
                self.windows.done(now)
        else:
            self.windows.failed(stage, f"{type(failure).__name__}: {failure}")
