"""What a load test measured, as a file: the report draws it, the capacity planner reads it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from wanwu.errors import InputError

SCHEMA = 1


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of two digits, but the largest and the mean."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    mean_ms: float


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What Triton's statistics say of the image tower in the same seconds.

    Attributes:
        pictures: pictures answered.
        requests: requests answered; one may hold several pictures.
        executions: batches that ran.
        failed: requests refused or failed.
        request_ms: mean time of a request in the server.
        queue_ms: of which it waited for an instance.
        compute_ms: of which the model ran, with its input and its output.
    """

    pictures: int
    requests: int
    executions: int
    failed: int
    request_ms: float
    queue_ms: float
    compute_ms: float


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Some seconds of one planned rate.

    Attributes:
        name: as the report calls it.
        start_s: since the load began.
        length_s: seconds.
        planned_rate: requests per second that were meant to be sent.
        sent: requests that were meant to be sent in these seconds, and were.
        pictures: pictures in those that were answered.
        errors: requests that failed.
        rate: answers per second that came in these seconds, whenever they were asked for.
        latency: from when requests were meant to be sent; None when none was answered.
        late: how much later than meant they were sent; much of it tells of a busy sender.
        call: the part that the call to the image tower took, with the network.
        server: None when Triton's statistics could not be read.
    """

    name: str
    start_s: float
    length_s: float
    planned_rate: float
    sent: int
    pictures: int
    errors: int
    rate: float
    latency: Latency | None
    late: Latency | None = None
    call: Latency | None = None
    server: Server | None = None

    @property
    def error_rate(self) -> float:
        """Failed requests among the sent, 0 to 1."""
        return self.errors / self.sent if self.sent else 0.0


class BatchTime(msgspec.Struct, frozen=True, kw_only=True):
    """Mean milliseconds of an execution of `size` pictures, over `count` executions."""

    size: int
    count: int
    mean_ms: float


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """How one Triton serves the image tower, by its own configuration and statistics.

    Attributes:
        instances: executions that run at a time.
        max_batch_size: most pictures in one.
        preferred_batch_sizes: sizes that are not waited on.
        queue_delay_us: how long a batch may wait for more.
        max_queue_size: requests that may wait; 0 is no limit.
        batches: how long executions take, by size.
    """

    instances: int
    max_batch_size: int
    preferred_batch_sizes: list[int]
    queue_delay_us: int
    max_queue_size: int
    batches: list[BatchTime]


class Knee(msgspec.Struct, frozen=True, kw_only=True):
    """The largest rate that the server kept up with, and the P95 it had there."""

    rate: float
    p95_ms: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of the service, and what broke it; no reasons are a pass."""

    p95_ms: float | None
    error_rate: float | None
    reasons: list[str]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole load test.

    Attributes:
        schema: version of this file.
        started: ISO 8601.
        wire: `grpc` or `rest`.
        url: what was loaded.
        model: name of the model, as its contract has it.
        shape: how the rate went.
        options: what else was asked.
        machine: what the load was sent from.
        total: everything as one window.
        windows: in order.
        service: None when Triton could not be asked.
        knee: None when one rate alone was tried.
        verdict: of the objectives.
        errors: how often each came.
    """

    schema: int
    started: str
    wire: str
    url: str
    model: str
    shape: str
    options: dict[str, str]
    machine: dict[str, str]
    total: Window
    windows: list[Window]
    service: Service | None
    knee: Knee | None
    verdict: Verdict
    errors: dict[str, int] = {}

    def write(self, path: Path) -> None:
        """Write the file."""
        written = msgspec.json.encode(self, enc_hook=str)
        path.write_bytes(msgspec.json.format(written, indent=2) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read the file.

        Raises:
            InputError: it is missing, or is none of a load test.
        """
        try:
            results = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise InputError("{0}: cannot be read: {1}", path, error.strerror) from error
        except msgspec.DecodeError as error:
            raise InputError("{0} holds no results of a load test: {1}", path, error) from error
        if results.schema != SCHEMA:
            raise InputError(
                "{0} has schema {1} and this program reads {2}; measure again",
                path,
                results.schema,
                SCHEMA,
            )
        return results
