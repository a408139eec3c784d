"""The options of a load, beside locust's own, on the command line and in the environment."""

from __future__ import annotations

import os
from typing import Any

from locust.argument_parser import (
    LocustArgumentParser,
    get_empty_argument_parser,
    setup_parser_arguments,
)
from locust.env import Environment
from locust.runners import WORKER_REPORT_INTERVAL

from wanwu.channel import DEFAULT_URL
from wanwu.cli.language import translate
from wanwu.errors import InputError
from wanwu_loadtest.arrivals import KINDS
from wanwu_loadtest.shapes import SECONDS, SHAPES, Stage, stages
from wanwu_loadtest.work import read_mix

#: What `--host` may leave out, and how long after the last request answers are waited for.
STOP_TIMEOUT_S = 30.0
PREFIX = "WANWU_LOAD_"


def add_options(parser: LocustArgumentParser) -> None:
    """Add the options. Each may come from the environment: --p95-ms from WANWU_LOAD_P95_MS."""
    group = parser.add_argument_group(
        translate("Wanwu's load"),
        translate("Each may come from the environment: --p95-ms from WANWU_LOAD_P95_MS."),
    )

    def option(name: str, *, help: str, **words: Any) -> None:
        variable = PREFIX + name.removeprefix("--").replace("-", "_").upper()
        group.add_argument(name, env_var=variable, help=translate(help), **words)

    option("--shape", choices=sorted(SHAPES), default="steps", help="How the rate goes.")
    option("--rate", type=float, default=40.0, help="Requests per second: the highest of the "
           "shape, but the rate before and after a spike.")  # fmt: skip
    option("--steps", type=int, default=8, help="Stages of constant, steps and soak.")
    option("--factor", type=float, default=4.0, help="How high a spike is; how deep a night.")
    option("--arrivals", choices=KINDS, default="poisson", help="How callers come.")
    option(
        "--mix",
        default="single",
        help="Kinds of requests, weighed: single=8,batch=1,labels=1.",
    )
    option("--batch-size", type=int, default=8, help="Pictures in a request of kind `batch`.")
    option("--photos", help="Folder of photographs; by default those of the demo.")
    option("--decode", choices=("each", "once"), default="each", help="`once`: photographs are "
           "decoded before the load, which then is the server's alone.")  # fmt: skip
    option("--bank", help="The bank to ask; by default the server's default.")
    option("--timeout-s", type=float, default=10.0, help="Deadline of an answer.")
    option("--max-in-flight", type=int, default=1000, help="Requests of one stream that wait at "
           "a time. Further ones wait to be sent, and that counts as their latency.")  # fmt: skip
    option("--triton", help="HOST:PORT of Triton's gRPC, for its statistics; by default the host.")
    option("--seed", type=int, default=0, help="Of chance: the same seed, the same load.")
    option("--p95-ms", type=float, help="Objective: end with 1 when P95 is above it.")
    option("--error-rate", type=float, default=0.0, help="Objective: end with 1 when a larger "
           "share of requests fails in any stage, 0 to 1.")  # fmt: skip
    option("--report", default="loadtest-report", help="Folder for report.html, results.json and "
           "latency.png.")  # fmt: skip


def settle(environment: Environment) -> None:
    """Decide the whole load, where it is started; workers are sent it with the options.

    Raises:
        InputError: an option is out of range.
    """
    options = environment.parsed_options
    assert options is not None  # noqa: S101 - locust has read them
    options.host = options.host or os.environ.get("WANWU_URL") or DEFAULT_URL
    environment.host = options.host
    for name in ("batch_size", "max_in_flight", "timeout_s"):
        if not getattr(options, name) > 0:
            told = name.replace("_", "-")
            raise InputError(
                "--{0} is {1}; expected more than 0", told, f"{getattr(options, name):g}"
            )
    read_mix(options.mix)
    seconds = float(options.run_time or SECONDS[options.shape])
    options.run_time = seconds
    if options.master:
        # Workers are ended without their last figures, so these must have come before.
        options.run_time += options.timeout_s + WORKER_REPORT_INTERVAL + 1
    options.num_users = options.num_users or max(1, options.expect_workers if options.master else 1)
    options.spawn_rate = options.spawn_rate or options.num_users
    environment.stop_timeout = options.stop_timeout = STOP_TIMEOUT_S + options.timeout_s
    planned = stages(
        options.shape,
        rate=options.rate,
        seconds=seconds,
        steps=options.steps,
        factor=options.factor,
    )
    # Workers are sent what locust does not know by name.
    options.planned = [[each.name, each.start_s, each.length_s, each.rate] for each in planned]
    options.streams = options.num_users


def planned(options: Any) -> list[Stage]:
    """Give the stages that were decided."""
    return [Stage(*each) for each in options.planned]


def print_help() -> None:
    """Print every option, ours before locust's."""
    parser = get_empty_argument_parser()
    parser.description = translate("Usage: wanwu loadtest [options]")
    add_options(parser)
    setup_parser_arguments(parser)
    parser.print_help()


if __name__ == "__main__":
    print_help()
