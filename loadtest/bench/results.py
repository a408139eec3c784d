"""What the benchmark found, and who is ahead of whom: data alone, no printing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import msgspec
from jobs import Measured

#: Metrics beside pictures a second.
SLOWNESS = ("p50 ms", "p95 ms", "CPU s a picture")


class Cell(msgspec.Struct, frozen=True):
    """One system under one load. `problem` says why there are no figures, or why not to trust them.

    CPU is in seconds a picture. `pictures` is how many were answered within the measured seconds.
    """

    system: str
    labels: int
    clients: int
    pictures: int = 0
    failed: int = 0
    rate: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    server_cpu_s: float = 0.0
    caller_cpu_s: float = 0.0
    problem: str | None = None

    @property
    def comparable(self) -> bool:
        """Whether the figures may be compared with others."""
        return self.pictures > 0 and not self.failed and self.problem is None


class Whole(msgspec.Struct):
    """What holds for a system at large, one value for each of its starts."""

    cold_start_s: list[float] = msgspec.field(default_factory=list)
    peak_bytes: list[int] = msgspec.field(default_factory=list)
    #: The largest difference of a probability from Wanwu's in fp32.
    off_by: float | None = None
    problems: list[str] = msgspec.field(default_factory=list)


class Loss(msgspec.Struct, frozen=True):
    """A peer that is ahead of a Wanwu system somewhere. `ratio` below 1 is by how much."""

    ours: str
    peer: str
    labels: int
    clients: int
    metric: str
    our_value: float
    peer_value: float
    ratio: float


def cell_of(system: str, labels: int, clients: int, found: Measured, limit_s: float) -> Cell:
    """Sum up one load."""
    problem = found.errors[0] if found.errors else None
    count = len(found.latencies_s)
    if count == 0:
        problem = problem or f"> {limit_s:.0f} s a picture"
        return Cell(system, labels, clients, failed=found.failed, problem=problem)
    spent = sorted(found.latencies_s)
    return Cell(
        system=system,
        labels=labels,
        clients=clients,
        pictures=count,
        failed=found.failed,
        rate=count / found.seconds,
        p50_ms=statistics.median(spent) * 1000,
        p95_ms=spent[min(count - 1, int(count * 0.95))] * 1000,
        server_cpu_s=found.server_cpu_s / count,
        caller_cpu_s=found.caller_cpu_s / count,
        problem=problem,
    )


def medians(cells: list[Cell]) -> list[Cell]:
    """Join the rounds of each cell: medians; failed requests are added up."""
    groups: dict[tuple[str, int, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.system, cell.labels, cell.clients), []).append(cell)
    return [_median(group) for group in groups.values()]


def _median(cells: list[Cell]) -> Cell:
    names = ("rate", "p50_ms", "p95_ms", "server_cpu_s", "caller_cpu_s")
    good = [cell for cell in cells if cell.pictures] or cells
    middle = {name: statistics.median(getattr(cell, name) for cell in good) for name in names}
    problems = [cell.problem for cell in cells if cell.problem]
    return msgspec.structs.replace(
        cells[0],
        **middle,
        pictures=sum(cell.pictures for cell in cells),
        failed=sum(cell.failed for cell in cells),
        problem=problems[0] if problems else None,
    )


def losses(cells: list[Cell], ours: list[str]) -> list[Loss]:
    """Give every cell in which a peer is ahead of a Wanwu system, for each metric."""
    return [
        loss
        for our in cells
        if our.system in ours
        for peer in cells
        if peer.system not in ours and (peer.labels, peer.clients) == (our.labels, our.clients)
        for loss in _compare(our, peer)
    ]


def _compare(our: Cell, peer: Cell) -> Iterator[Loss]:
    if not peer.comparable:
        return
    if not our.comparable:
        where = (our.system, peer.system, our.labels, our.clients)
        yield Loss(*where, our.problem or "failed requests", 0.0, 0.0, 0.0)
        return
    our_cpu = our.server_cpu_s + our.caller_cpu_s
    peer_cpu = peer.server_cpu_s + peer.caller_cpu_s
    for metric, our_value, peer_value, ratio in (
        ("pictures/s", our.rate, peer.rate, our.rate / peer.rate),
        ("p50 ms", our.p50_ms, peer.p50_ms, peer.p50_ms / our.p50_ms),
        ("p95 ms", our.p95_ms, peer.p95_ms, peer.p95_ms / our.p95_ms),
        ("CPU s a picture", our_cpu, peer_cpu, peer_cpu / max(our_cpu, 1e-9)),
    ):
        if ratio < 1:
            where = (our.system, peer.system, our.labels, our.clients)
            yield Loss(*where, metric, our_value, peer_value, ratio)


def ahead(cells: list[Cell], lost: list[Loss], name: str, ours: list[str]) -> str:
    """Tell in how many cells a Wanwu system answers more pictures a second than every peer.

    A cell counts when at least one peer has figures there.
    """
    peers = [c for c in cells if c.system not in ours and c.comparable]
    places = {(c.labels, c.clients) for c in peers}
    behind = {(x.labels, x.clients) for x in lost if x.ours == name and x.metric not in SLOWNESS}
    return f"{len(places - behind)} of {len(places)}"
