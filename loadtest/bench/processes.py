"""Servers as processes of their own: started, watched and ended by id."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

END_S = 10.0
#: A server is ended before it takes the machine's last memory.
SPARE_BYTES = 1_500_000_000
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """The processes of one system, ended with all that they started when the `with` block ends."""

    def __init__(
        self, commands: Sequence[Sequence[str]], environment: Mapping[str, str], log: Path
    ) -> None:
        self._commands, self._environment, self._log = commands, environment, log
        self._started: list[subprocess.Popen[bytes]] = []
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self.spawned = 0.0
        self.peak_bytes = 0
        self.out_of_memory = False

    @property
    def roots(self) -> list[int]:
        """The process ids that were started here."""
        return [process.pid for process in self._started]

    @property
    def ended(self) -> str | None:
        """Why it runs no longer, or None."""
        if self.out_of_memory:
            return f"ended at {self.peak_bytes / 1e9:.1f} GB, the machine's memory"
        codes = [code for process in self._started if (code := process.poll()) is not None]
        return f"ended with {codes[0]}; see {self._log}" if codes else None

    def __enter__(self) -> Server:
        """Start the processes."""
        self.spawned = time.perf_counter()
        with self._log.open("ab") as log:
            for command in self._commands:
                self._started.append(
                    subprocess.Popen(
                        command,
                        env={**os.environ, **self._environment},
                        start_new_session=True,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes and wait for it."""
        self._done.set()
        self._watcher.join()
        self._end()

    def _end(self) -> None:
        family = tree(self.roots)
        for process in reversed(self._started):
            process.terminate()
        deadline = time.monotonic() + END_S
        while any(_lives(pid, began) for pid, began in family.items()):
            # A server that was ended may leave workers behind.
            number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
            if number == signal.SIGKILL or not any(p.poll() is None for p in self._started):
                for pid, began in family.items():
                    if _lives(pid, began):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, number)
            for process in self._started:
                process.poll()
            time.sleep(0.05)

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            self.peak_bytes = max(self.peak_bytes, memory_bytes(self.roots))
            if _available_bytes() < SPARE_BYTES:
                self.out_of_memory = True
                for pid in tree(self.roots):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return


def tree(roots: Sequence[int]) -> dict[int, int]:
    """Give processes and all that they started: process ids, and when each began."""
    children: dict[int, list[int]] = {}
    began: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        if fields := _stat(path):
            pid = int(path.parent.name)
            children.setdefault(int(fields[1]), []).append(pid)
            began[pid] = int(fields[19])
    found: dict[int, int] = {}
    todo = [pid for pid in roots if pid in began]
    while todo:
        pid = todo.pop()
        found[pid] = began[pid]
        todo += children.get(pid, [])
    return found


def cpu_s(roots: Sequence[int]) -> float:
    """Give the CPU time so far of processes and of all that they started."""
    total = 0
    for pid in tree(roots):
        if fields := _stat(Path("/proc") / str(pid) / "stat"):
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_bytes(roots: Sequence[int]) -> int:
    """Give the resident memory of processes and of all that they started; shared pages once."""
    total = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            for line in (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def _stat(path: Path) -> list[str] | None:
    try:
        # After the name, which may hold spaces: state, ppid, …, utime, stime, …, starttime.
        fields = path.read_text().rpartition(")")[2].split()
    except OSError:
        return None  # it has just ended
    return None if fields[0] == "Z" else fields


def _lives(pid: int, began: int) -> bool:
    fields = _stat(Path("/proc") / str(pid) / "stat")
    return fields is not None and int(fields[19]) == began


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return SPARE_BYTES
