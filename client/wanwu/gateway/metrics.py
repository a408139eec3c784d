"""Prometheus metrics of one gateway."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from wanwu import __version__
from wanwu.answers import Recognition
from wanwu.gateway.audit import AuditWriter
from wanwu.gateway.trace import Picture

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 10)
BYTES = tuple(float(10_000 * 4**n) for n in range(7))
PIXELS = tuple(float(10_000 * 4**n) for n in range(7))
SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
#: The bank's name in metrics and in the audit log where a caller brought labels.
OWN_LABELS = "(labels)"


class Metrics:
    """What is counted. A drift of the pictures or of the model shows in the scores."""

    def __init__(self) -> None:
        # Each series would have another beside it that tells when it began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        build = Gauge("wanwu_gateway_info", "Always 1", ["version"], registry=self.registry)
        build.labels(__version__).set(1)
        self.requests = self._histogram(
            "request_duration_seconds",
            "Time from a request's headers to its answer",
            ("route", "status"),
            SECONDS,
        )
        self.in_flight = Gauge(
            "wanwu_gateway_requests_in_flight", "Requests under way", registry=self.registry
        )
        self.rejected = Counter(
            "wanwu_gateway_rejected",
            "Requests that were answered with a problem, by its code",
            ["reason"],
            registry=self.registry,
        )
        self.connections_ended = Counter(
            "wanwu_gateway_connections_ended",
            "Connections that were refused, or that waited and made room for others",
            ["reason"],
            registry=self.registry,
        )
        self.picture_bytes = self._histogram(
            "picture_bytes", "Size of each picture as it came", (), BYTES
        )
        self.picture_pixels = self._histogram(
            "picture_pixels", "Width x height of each picture", (), PIXELS
        )
        self.triton = self._histogram(
            "triton_call_duration_seconds",
            "Time of each call of Triton",
            ("model", "outcome"),
            SECONDS,
        )
        self.top_score = self._histogram(
            "top_score", "Score of the best label of each picture", ("bank",), SCORES
        )
        self.recognitions = Counter(
            "wanwu_gateway_recognitions",
            "Pictures that were recognised; uncertain: no label was right",
            ["bank", "outcome"],
            registry=self.registry,
        )
        # Of a log that is no file they stay 0.
        self.audit_bytes = self._gauge("audit_bytes", "Size of the audit log's files")
        self.audit_free_bytes = self._gauge("audit_free_bytes", "Free space of the log's volume")
        self.audit_volume_bytes = self._gauge("audit_volume_bytes", "Size of the log's volume")
        self.audit_sequence = Gauge(
            "wanwu_gateway_audit_sequence",
            "Number of the last line of the audit log",
            registry=self.registry,
        )
        self.audit_failures = Counter(
            "wanwu_gateway_audit_failures",
            "Lines of the audit log that could not be written",
            registry=self.registry,
        )

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(f"wanwu_gateway_{name}", about, registry=self.registry)

    def watch(self, audit: AuditWriter) -> None:
        """Follow an audit log."""
        self.audit_sequence.set_function(lambda: audit.sequence)
        if audit.volume is None:
            return
        self.audit_bytes.set_function(lambda: audit.in_bytes)
        self.audit_free_bytes.set_function(lambda: _volume(audit)[0])
        self.audit_volume_bytes.set_function(lambda: _volume(audit)[1])

    def came(self, picture: Picture) -> None:
        """Count one picture as it came."""
        self.picture_bytes.observe(picture.bytes)
        if picture.width is not None and picture.height is not None:
            self.picture_pixels.observe(picture.width * picture.height)

    def recognised(self, answer: Recognition) -> None:
        """Count one picture's answer."""
        bank = ",".join(answer.banks) or OWN_LABELS
        outcome = "uncertain" if answer.uncertain else "answered"
        self.recognitions.labels(bank, outcome).inc()
        if answer.predictions:
            self.top_score.labels(bank).observe(answer.predictions[0].score)

    def _histogram(
        self, name: str, about: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        return Histogram(
            f"wanwu_gateway_{name}", about, labels, buckets=buckets, registry=self.registry
        )


def _volume(audit: AuditWriter) -> tuple[int, int]:
    return audit.volume or (0, 0)
