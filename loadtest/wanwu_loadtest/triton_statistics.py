"""Triton's own statistics of the image tower: how long requests waited there, and ran."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from wanwu.channel import Address
from wanwu.settings import Settings
from wanwu_loadtest.results import BatchTime, Server, Service
from wanwu_loadtest.wires import IMAGE_ENCODER

log = logging.getLogger(__name__)
TIMEOUT_S = 5.0
#: Counts and nanoseconds since Triton started, of all versions and servers.
Counts: TypeAlias = "dict[str, int]"


class TritonStatistics:
    """The statistics of every server that an address stands for.

    Args:
        url: HOST:PORT of Triton's gRPC; every address of the name is asked, but with TLS, where
            certificates are for names.
    """

    def __init__(self, url: str) -> None:
        address = Settings.from_env(url=url, timeout_s=TIMEOUT_S).address
        urls = [url] if address.tls else addresses(url)
        self._headers = address.headers
        self._clients = [
            triton.InferenceServerClient(**Address(each, address.tls, address.api_key).arguments())
            for each in urls
        ]

    def counts(self) -> Counts | None:
        """Read the statistics; None, and a line in the log, when they cannot be read."""
        whole: Counts = {}
        for client in self._clients:
            try:
                answer = client.get_inference_statistics(
                    IMAGE_ENCODER, headers=self._headers, client_timeout=TIMEOUT_S
                )
            except InferenceServerException as error:
                log.warning("Triton's statistics cannot be read: %s", error.message())
                return None
            for model in answer.model_stats:
                for name, value in counted(model).items():
                    whole[name] = whole.get(name, 0) + value
        return whole

    def service(self, before: Counts, after: Counts) -> Service | None:
        """Read how Triton is configured, and join it with the times of the batches since."""
        try:
            config = (
                self._clients[0]
                .get_model_config(IMAGE_ENCODER, headers=self._headers, client_timeout=TIMEOUT_S)
                .config
            )
        except InferenceServerException as error:
            log.warning("Triton's configuration cannot be read: %s", error.message())
            return None
        batching = config.dynamic_batching
        return Service(
            instances=sum(each.count * max(1, len(each.gpus)) for each in config.instance_group),
            max_batch_size=config.max_batch_size,
            preferred_batch_sizes=list(batching.preferred_batch_size),
            queue_delay_us=batching.max_queue_delay_microseconds,
            max_queue_size=batching.default_queue_policy.max_queue_size,
            batches=batch_times(difference(before, after)),
        )

    def close(self) -> None:
        """Let go of the connections."""
        for client in self._clients:
            client.close()


def addresses(url: str) -> list[str]:
    """Give HOST:PORT of every address that a name stands for; the name itself if it has none."""
    host, _, port = url.removeprefix("dns:///").rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return [url]
    hosts = sorted({str(each[4][0]) for each in found})
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts]


def counted(model: Any) -> Counts:
    """Give the counts of one model's statistics as flat names."""
    times = model.inference_stats
    counts = {
        "pictures": model.inference_count,
        "executions": model.execution_count,
        "requests": times.success.count,
        "failed": times.fail.count,
        "request_ns": times.success.ns,
        "queue_ns": times.queue.ns,
        "compute_ns": times.compute_input.ns + times.compute_infer.ns + times.compute_output.ns,
    }
    for batch in model.batch_stats:
        counts[f"batch {batch.batch_size} count"] = batch.compute_infer.count
        counts[f"batch {batch.batch_size} ns"] = (
            batch.compute_input.ns + batch.compute_infer.ns + batch.compute_output.ns
        )
    return counts


def difference(before: Counts, after: Counts) -> Counts:
    """Give what was counted between two readings.

    A reading that went back is of a server that started anew: it counts as it is.
    """
    if any(after.get(name, 0) < value for name, value in before.items()):
        return after
    return {name: value - before.get(name, 0) for name, value in after.items()}


def server(before: Counts | None, after: Counts | None) -> Server | None:
    """Give what the server did between two readings."""
    if before is None or after is None:
        return None
    told = difference(before, after)
    requests = max(1, told.get("requests", 0))
    return Server(
        **{name: told.get(name, 0) for name in ("pictures", "requests", "executions", "failed")},
        request_ms=told.get("request_ns", 0) / requests / 1e6,
        queue_ms=told.get("queue_ns", 0) / requests / 1e6,
        compute_ms=told.get("compute_ns", 0) / requests / 1e6,
    )


def batch_times(told: Counts) -> list[BatchTime]:
    """Give the mean time of executions by the size of the batch."""
    sizes: Sequence[int] = sorted(int(name.split()[1]) for name in told if name.endswith(" count"))
    return [
        BatchTime(
            size=size,
            count=told[f"batch {size} count"],
            mean_ms=told[f"batch {size} ns"] / told[f"batch {size} count"] / 1e6,
        )
        for size in sizes
        if told[f"batch {size} count"]
    ]
