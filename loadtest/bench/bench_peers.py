"""Benchmark Wanwu against what users have today, in one run, one system at a time.

    make bench                                            # about half an hour, after the first time
    make bench OPTIONS=--quick                            # a smoke run with a small model
    make bench OPTIONS="--only wanwu-grpc-int8 litserve"

Every system has the same weights, photographs and cores. Its answers are compared with Wanwu's
in fp32 before it is measured. The load comes from a process of its own (`driver.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

try:
    import msgspec
    from environments import interpreter, pins
    from jobs import Answers, Best, Job, Load, Measured
    from machine import describe
    from processes import Server
    from results import Cell, Whole, ahead, cell_of, losses, medians
    from systems import LEFT_OUT, REFERENCE, SYSTEMS, Launch, Place, System
    from table import markdown
    from workshop import ROOT, Workshop
except ImportError as missing:
    sys.exit(f"{missing}; run: pip install 'wanwu[export,server,gateway,demo]' aiohttp")

DRIVER = Path(__file__).with_name("driver.py")
CORES = 2
WARM_S = 2.0
LIMIT_S = 60.0
#: A driver is given up then, beside the seconds it was asked to measure.
DRIVER_S = 400.0
CHECKED, CHECKED_SLOW = 5, 1
#: A system that encodes the labels for each request is checked by one photograph from so many
#: labels on, and not at all from so many.
LONG, TOO_LONG = 1000, 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What is measured, on how large a model."""

    family: str
    folder: str
    sizes: tuple[int, ...]
    clients: tuple[int, ...]
    seconds: float
    systems: tuple[str, ...]


EVERYTHING = tuple(system.name for system in SYSTEMS)
FULL = Plan("Chinese-CLIP ViT-B/16", "full", (18, 1000, 50_000), (1, 4, 16, 64), 8.0, EVERYTHING)
QUICK = Plan("chinese_clip", "quick", (18,), (1, 4), 2.0, (*EVERYTHING[:3], "seed"))


def main() -> None:
    """Prepare, measure in turns, report."""
    given = _arguments()
    # So that the servers are ended whichever way this is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    plan = QUICK if given.quick else FULL
    names = given.only or plan.systems
    # Everything is compared with the first, so it is always there.
    systems = [s for s in SYSTEMS if s.name in names or s == REFERENCE]
    workshop = Workshop(given.folder / "models" / plan.folder, plan.family, plan.sizes)
    for name in {system.environment for system in systems if system.environment}:
        interpreter(name, given.folder)
    place = Place(workshop, given.folder, workshop.prepare())
    machine, started = describe(), time.monotonic()
    bench = Bench(place, given.clients or plan.clients, given.seconds or plan.seconds)
    for _ in range(given.rounds):
        for labels in given.labels or plan.sizes:
            for system in systems:
                bench.turn(system, labels)
    cells = medians(bench.cells)
    ours = [system.name for system in systems if system.ours]
    lost = losses(cells, ours)
    minutes = (time.monotonic() - started) / 60
    conditions = (
        f"{plan.family} with random weights, {machine['cpu']}, cores {machine['cores']}, "
        f"{datetime.now(timezone.utc):%Y-%m-%d}; load average before {machine['load_before']:.1f}; "
        f"{given.rounds} round(s) of {bench.seconds:g} s a cell, {minutes:.0f} minutes."
    )
    titles = {system.name: system.title for system in systems}
    text = markdown(cells, bench.wholes, titles, lost, ours, conditions, LEFT_OUT)
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    if given.json:
        environments = {s.environment: pins(s.environment) for s in systems if s.environment}
        found = {
            "machine": machine,
            "conditions": conditions,
            "titles": titles,
            "cells": cells,
            "systems": bench.wholes,
            "losses": lost,
            "ahead_in_pictures": {name: ahead(cells, lost, name, ours) for name in ours},
            "environments": environments,
            "left_out": LEFT_OUT,
        }
        text = json.dumps(msgspec.to_builtins(found), ensure_ascii=False, indent=1)
        given.json.write_text(text + "\n", encoding="utf-8")
    if unfit := [cell for cell in cells if cell.system in ours and not cell.comparable]:
        sys.exit(f"{len(unfit)} cells of Wanwu have no figures to compare: {unfit[0].problem}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run with a small model")
    parser.add_argument(
        "--only", nargs="+", choices=EVERYTHING, metavar="NAME", help=", ".join(EVERYTHING)
    )
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--labels", type=int, nargs="+", help="some of the label lists")
    parser.add_argument("--clients", type=int, nargs="+", help="other numbers of clients")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument(
        "--folder",
        type=Path,
        default=ROOT / ".venv-peers",
        help="where environments and models are kept [.venv-peers]",
    )
    given = parser.parse_args()
    given.folder = given.folder.resolve()
    return given


class Bench:
    """Turns of the systems, and what they showed."""

    def __init__(self, place: Place, clients: Sequence[int], seconds: float) -> None:
        self.place, self.clients, self.seconds = place, clients, seconds
        self.cells: list[Cell] = []
        self.wholes: dict[str, Whole] = {}
        self._reference: dict[int, list[Best]] = {}

    def turn(self, system: System, labels: int) -> None:
        """Start a system, check its answers, measure it with each number of clients, end it."""
        whole = self.wholes.setdefault(system.name, Whole())
        todo = list(self.clients)
        while todo:
            launch = system.launch(self.place)
            log = self.place.workshop.folder / f"{system.name}.log"
            with Server(launch.commands, launch.environment, log) as server:
                try:
                    self._check(system, labels, launch, server, whole)
                    self._measure(system, labels, launch, server, todo)
                except UnusableError as error:
                    problem = server.ended or str(error)
                    whole.problems.append(f"{labels:,} labels: {problem}")
                    self.cells += [Cell(system.name, labels, n, problem=problem) for n in todo]
                    todo.clear()
            whole.peak_bytes.append(server.peak_bytes)

    def _check(
        self, system: System, labels: int, launch: Launch, server: Server, whole: Whole
    ) -> None:
        photos = CHECKED
        if system.encodes_labels and labels >= LONG:
            photos = CHECKED_SLOW if labels < TOO_LONG else 0
        job = self._job(launch, server, labels, photos=photos)
        answers = drive(job, Answers, DRIVER_S)
        whole.cold_start_s.append(answers.first_s)
        if system == REFERENCE:
            self._reference[labels] = answers.best
        if labels not in self._reference:
            raise UnusableError(f"{REFERENCE.title} gave no answers to compare with")
        off_by = difference(self._reference[labels], answers.best, system.tolerance)
        if photos:
            whole.off_by = max(whole.off_by or 0.0, off_by)

    def _measure(
        self, system: System, labels: int, launch: Launch, server: Server, todo: list[int]
    ) -> None:
        """Take numbers of clients off the list; return early when the server must start anew."""
        while todo:
            clients = todo.pop(0)
            load = Load(clients, WARM_S, self.seconds, LIMIT_S, last=not todo)
            job = self._job(launch, server, labels, load=load)
            found = drive(job, Measured, DRIVER_S)
            cell = cell_of(system.name, labels, load.clients, found, LIMIT_S)
            if server.ended:
                cell = msgspec.structs.replace(cell, problem=server.ended)
            print(_line(cell), file=sys.stderr, flush=True)
            self.cells.append(cell)
            if not cell.pictures:
                # More clients at once get no answer sooner.
                why = f"{cell.problem} with {load.clients} clients"
                self.cells += [Cell(system.name, labels, n, problem=why) for n in todo]
                todo.clear()
            if server.ended or not found.drained:
                return

    def _job(
        self,
        launch: Launch,
        server: Server,
        labels: int,
        *,
        load: Load | None = None,
        photos: int = 0,
    ) -> Job:
        return Job(
            launch.wire,
            str(self.place.workshop.folder),
            labels,
            server.roots,
            load,
            photos,
            server.spawned,
        )


class UnusableError(Exception):
    """A system that cannot be measured, and why."""


def drive(job: Job, kind: type[T], limit_s: float) -> T:
    """Let a driver do a job in a process of its own.

    Raises:
        UnusableError: the system gave no answer, or the driver failed.
    """
    encoded = msgspec.json.encode(job)
    command = [sys.executable, str(DRIVER)]
    try:
        done = subprocess.run(
            command, input=encoded, capture_output=True, check=False, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise UnusableError(f"no answer within {limit_s:.0f} s") from None
    if done.returncode:
        words = done.stderr.decode().strip().splitlines() or [f"ended with {done.returncode}"]
        raise UnusableError(words[-1])
    return msgspec.json.decode(done.stdout, type=kind)


def difference(reference: Sequence[Best], found: Sequence[Best], tolerance: float) -> float:
    """Give the largest difference of a best label's probability.

    Raises:
        UnusableError: another label is best, and was not as good; or the difference is too large.
    """
    largest = 0.0
    for number, (expected, best) in enumerate(zip(reference, found, strict=False)):
        label, chance = best[0]
        # Among labels that are as good as equal, rounding chooses.
        known = dict(expected)
        if label not in known or expected[0][1] - known[label] > tolerance:
            raise UnusableError(
                f"photograph {number}: {label} {chance:.4f} instead of "
                f"{expected[0][0]} {expected[0][1]:.4f}"
            )
        largest = max(largest, abs(known[label] - chance))
    if largest > tolerance:
        raise UnusableError(f"probabilities are off by up to {largest:.4f}; {tolerance:g} may be")
    return largest


def _line(cell: Cell) -> str:
    figures = f"{cell.rate:8.2f} pictures/s, p50 {cell.p50_ms:.0f} ms, {cell.failed} failed"
    told = figures if cell.pictures else ""
    return f"{cell.labels:>6} labels {cell.clients:>3} clients {cell.system:<16}{told}" + (
        f"  {cell.problem}" if cell.problem else ""
    )


if __name__ == "__main__":
    main()
