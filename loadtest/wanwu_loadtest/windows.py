"""What each stage of the load showed, by locust's own statistics, added up over its workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from locust.env import Environment
from locust.stats import RequestStats, StatsEntry

from wanwu_loadtest.results import Latency, Server, Window
from wanwu_loadtest.shapes import Stage

#: From the moment at which a request was meant to be sent; how late it was sent; and the part of
#: it that the call to the image tower took. All three count where a request was meant to be sent;
#: `done` counts where its answer came.
ANSWERED, LATE, CALLED, DONE = "answered", "late", "called", "done"
MESSAGE = "wanwu_windows"


class Windows:
    """Statistics of each stage. Workers send theirs with locust's."""

    def __init__(self, environment: Environment) -> None:
        self._stats = RequestStats()
        self._errors: Counter[str] = Counter()
        environment.events.report_to_master.add_listener(self._tell)
        environment.events.worker_report.add_listener(self._hear)

    def answered(self, stage: int, pictures: int, seconds: float, called_s: float | None) -> None:
        """Note an answer, by the seconds since it was meant to be asked for."""
        self._note(stage, ANSWERED, seconds, pictures)
        if called_s is not None:
            self._note(stage, CALLED, called_s)

    def done(self, stage: int) -> None:
        """Note that an answer came in this stage, whenever it was asked for."""
        self._note(stage, DONE, 0.0)

    def failed(self, stage: int, error: str, times: int = 1) -> None:
        """Note requests without an answer."""
        self._errors[error] += times
        for _ in range(times):
            self._stats.get(str(stage), ANSWERED).log_error(error)

    def sent(self, stage: int, late_s: float) -> None:
        """Note a request, by how much later it was sent than it was meant to be."""
        self._note(stage, LATE, late_s)

    def window(self, index: int, stage: Stage, server: Server | None) -> Window:
        """Give what one stage showed."""
        return self._window([index], stage, server)

    def total(self, stages: Sequence[Stage], server: Server | None) -> Window:
        """Give what all stages showed together."""
        length = sum(stage.length_s for stage in stages)
        rate = sum(stage.rate * stage.length_s for stage in stages) / length
        return self._window(range(len(stages)), Stage("total", 0.0, length, rate), server)

    def errors(self) -> dict[str, int]:
        """Give how often each error came, the most frequent first."""
        return dict(self._errors.most_common())

    def _window(self, indices: Sequence[int], stage: Stage, server: Server | None) -> Window:
        answered = self._entry(indices, ANSWERED)
        return Window(
            name=stage.name,
            start_s=stage.start_s,
            length_s=stage.length_s,
            planned_rate=stage.rate,
            sent=answered.num_requests + answered.num_failures,
            pictures=answered.total_content_length,
            errors=answered.num_failures,
            rate=self._entry(indices, DONE).num_requests / stage.length_s,
            latency=latency(answered),
            late=latency(self._entry(indices, LATE)),
            call=latency(self._entry(indices, CALLED)),
            server=server,
        )

    def _entry(self, indices: Sequence[int], what: str) -> StatsEntry:
        whole = StatsEntry(self._stats, "", what)
        for index in indices:
            whole.extend(self._stats.get(str(index), what))
        return whole

    def _note(self, stage: int, what: str, seconds: float, pictures: int = 0) -> None:
        # Locust keeps two digits of whole numbers, so they are microseconds here.
        self._stats.get(str(stage), what).log(round(seconds * 1e6), pictures)

    def _tell(self, client_id: str, data: dict[str, Any]) -> None:
        data[MESSAGE] = {"entries": self._stats.serialize_stats(), "errors": dict(self._errors)}
        self._errors.clear()

    def _hear(self, client_id: str, data: dict[str, Any]) -> None:
        told = data.get(MESSAGE, {"entries": [], "errors": {}})
        for each in told["entries"]:
            entry = StatsEntry.unserialize(each, self._stats)
            self._stats.get(entry.name, entry.method).extend(entry)
        self._errors.update(told["errors"])


def latency(entry: StatsEntry) -> Latency | None:
    """Give an entry's milliseconds, of two digits."""
    if not entry.num_requests:
        return None
    p50, p95, p99 = (entry.get_response_time_percentile(each) / 1e3 for each in (0.5, 0.95, 0.99))
    return Latency(
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=entry.max_response_time / 1e3,
        mean_ms=entry.avg_response_time / 1e3,
    )
