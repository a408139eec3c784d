"""`wanwu plan`: how many pods a traffic needs, and what the chart's scaler would make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanwu.cli.language import say, tell, translate
from wanwu.cli.packages import needs
from wanwu.errors import InputError

if TYPE_CHECKING:
    from wanwu_loadtest.planner import Answer, Faults, Price, Sweep

#: Trials of a sweep that are shown.
SHOWN = 8
LostNode = Annotated[
    float | None,
    typer.Option(min=0, help="Let the pods of one node vanish, hours after the first row."),
]
SlowPod = Annotated[
    float | None,
    typer.Option(min=0, help="Let one pod work at a quarter of its speed, hours after it."),
]


def plan(
    results: Annotated[
        Path, typer.Option("--results", help="What a load test of one pod has written.")
    ],
    traffic: Annotated[
        Path,
        typer.Option(
            "--traffic",
            help="CSV with the header time,pictures_per_second or time,pictures_per_minute. "
            "Times are HH:MM or ISO 8601; rates are linear between the rows.",
        ),
    ],
    p95_ms: Annotated[
        float, typer.Option("--p95-ms", help="P95 that callers shall see, milliseconds.")
    ],
    values: Annotated[
        list[Path] | None,
        typer.Option("--values", help="Values of the chart; may be given several times."),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a GPU for an hour; on CPU nodes of a pod."),
    ] = None,
    currency: Annotated[str, typer.Option(help="Currency of the price.")] = "CNY",
    pods_per_node: Annotated[int, typer.Option(min=1, help="Pods that a lost node takes.")] = 1,
    pod_start_s: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds until a new pod is ready. [the results', or triton.startupSeconds]"
        ),
    ] = None,
    service_cv: Annotated[
        float | None,
        typer.Option(
            min=0, max=5, help="Standard deviation of an execution over its mean. [the results']"
        ),
    ] = None,
    even: Annotated[
        bool, typer.Option("--even", help="Let requests arrive evenly, and not by chance.")
    ] = False,
    tick_s: Annotated[float, typer.Option(min=1, max=5, help="Seconds of a step.")] = 5.0,
    lost_node_at: LostNode = None,
    slow_pod_at: SlowPod = None,
    with_sweep: Annotated[
        bool, typer.Option("--sweep", help="Try other targets of the scaler, too.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for plan.json and plan.png.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell how many pods a traffic needs, and simulate the chart's scaler on it.

    The pod is what a load test measured. The scaler is Kubernetes' HPA with the chart's values,
    with the delays of Prometheus and of new pods.
    """
    with needs("loadtest"):
        from wanwu_loadtest.planner import (
            Question,
            as_dict,
            draw,
            read_traffic,
            read_values,
            write_json,
        )
        from wanwu_loadtest.planner import answer as answered
        from wanwu_loadtest.results import Results

    chart = read_values(values or [])
    if with_sweep and chart.driver == "none":
        raise InputError(
            "--sweep was given and autoscaling.driver is none, so there are no targets; "
            "leave one of them out"
        )
    answer = answered(
        Question(
            results=Results.read(results),
            traffic=read_traffic(traffic),
            values=chart,
            p95_ms=p95_ms,
            pods_per_node=pods_per_node,
            price=_price(price_per_hour, currency),
            pod_start_s=pod_start_s,
            service_cv=service_cv,
            poisson=not even,
            tick_s=tick_s,
            faults=_faults(lost_node_at, slow_pod_at),
        )
    )
    swept = answer.sweep() if with_sweep else None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "plan.json", as_dict(answer, swept, series=True))
        draw(out / "plan.png", answer)
    if as_json:
        typer.echo(json.dumps(as_dict(answer, swept), ensure_ascii=False, indent=2))
        return
    _show(answer)
    if swept is not None:
        _show_sweep(swept)
    if out is not None:
        tell("wrote {0} and {1}", out / "plan.json", out / "plan.png")


def _price(per_hour: float | None, currency: str) -> Price | None:
    from wanwu_loadtest.planner import Price

    return None if per_hour is None else Price(per_hour, currency)


def _faults(lost_node_h: float | None, slow_pod_h: float | None) -> Faults:
    from wanwu_loadtest.planner import Faults

    return Faults(
        lost_node_s=None if lost_node_h is None else lost_node_h * 3600,
        slow_pod_s=None if slow_pod_h is None else slow_pod_h * 3600,
    )


def _show(answer: Answer) -> None:
    _show_pod(answer)
    _show_hours(answer)
    _show_simulation(answer)
    values = answer.scenario.values
    if answer.plan.peak_replicas > values.max_replicas:
        say(
            "  autoscaling.maxReplicas is {0} and the peak needs {1}; raise it",
            values.max_replicas,
            answer.plan.peak_replicas,
        )
    idle_ms = answer.surface.percentile_ms(0) - 1000 * answer.surface.pod.overhead_s
    if values.driver != "none" and idle_ms > values.p95_ms:
        say(
            "  autoscaling.p95Ms is {0} and the P95 of an idle pod is {1} ms, so it adds pods "
            "only as far as requests wait; raise it",
            f"{values.p95_ms:g}",
            f"{idle_ms:.0f}",
        )
    if answer.question.pod_start_s is None and answer.scenario.pod_start_s == values.startup_s:
        say(
            "  a pod's start is taken as {0} s, the most the chart allows; measure it and give "
            "--pod-start-s",
            values.startup_s,
        )


def _show_pod(answer: Answer) -> None:
    surface, rate = answer.surface, answer.plan.rate
    say(
        "one pod keeps a P95 of {0} ms up to {1} pictures a second; it can do {2}",
        f"{answer.plan.p95_ms:g}",
        f"{rate:.4g}",
        f"{surface.capacity:.4g}",
    )
    response = surface.at(rate)
    say(
        "  there P50 is {0} ms, P99 {1} ms and the queue {2} ms, and the model runs {3} of the "
        "time",
        f"{surface.percentile_ms(rate, 50):.0f}",
        f"{surface.percentile_ms(rate, 99):.0f}",
        f"{response.queue_s * 1000:.1f}",
        f"{response.busy:.0%}",
    )
    if answer.knee_rate is not None:
        say(
            "  the load test found it to keep up with {0} pictures a second",
            f"{answer.knee_rate:.4g}",
        )
    if surface.pod.measured_batch < surface.pod.max_batch:
        say(
            "  batches above {0} were not measured, and are extrapolated up to {1}",
            surface.pod.measured_batch,
            surface.pod.max_batch,
        )


def _show_hours(answer: Answer) -> None:
    price = answer.question.price
    headings = ["hour", "peak/s", "replicas", "with a node lost", "GPUs"]
    rows = [
        [
            each.hour.label,
            f"{each.hour.peak:.4g}",
            f"{each.replicas}",
            f"{each.with_spare}",
            f"{each.gpus}",
            *([] if each.cost is None else [f"{each.cost:.2f}"]),
        ]
        for each in answer.plan.hours
    ]
    _table([*headings, *([price.currency] if price else [])], rows)


def _show_simulation(answer: Answer) -> None:
    outcome, plan = answer.outcome, answer.plan
    say(
        "simulated: P95 within {0} ms in {1} of the time, {2} of the pictures rejected",
        f"{plan.p95_ms:g}",
        f"{answer.kept_share:.2%}",
        f"{outcome.rejected_share:.3%}",
    )
    say(
        "  {0} pod-hours, at most {1} pods; {2} pods all the time would be {3}",
        f"{outcome.pod_hours:.1f}",
        f"{outcome['desired'].max():.0f}",
        plan.peak_replicas,
        f"{plan.static_pod_hours:.1f}",
    )
    if answer.cost is not None and plan.static_cost is not None and answer.question.price:
        say(
            "  cost {0} {1}, all the time {2}",
            f"{answer.cost:.2f}",
            answer.question.price.currency,
            f"{plan.static_cost:.2f}",
        )


def _show_sweep(swept: Sweep) -> None:
    from wanwu_loadtest.planner.sweep import SWEPT

    meeting = [each for each in swept.trials if each.meets]
    say(
        "{0} of {1} settings meet the objective, the cheapest first",
        len(meeting),
        len(swept.trials),
    )
    headings = [path.removeprefix("autoscaling.") for path in SWEPT.values()]
    rows = [
        [
            *(f"{getattr(each.values, name):g}" for name in SWEPT),
            *(f"{each.kept_share:.2%}", f"{each.rejected_share:.3%}", f"{each.pod_hours:.1f}"),
        ]
        for each in (meeting or swept.trials)[:SHOWN]
    ]
    _table([*headings, "kept", "rejected", "pod-hours"], rows)
    if not meeting:
        say("  none meets it: these come nearest; a pod that starts sooner helps most")
    for each in swept.findings():
        if each.best is None:
            say("  {0}: {1} is confirmed", each.path, f"{each.chart:g}")
        else:
            say("  {0}: {1} is better than {2}", each.path, f"{each.best:g}", f"{each.chart:g}")


def _table(headings: list[str], rows: list[list[str]]) -> None:
    from rich.cells import cell_len

    lines = [[translate(each) for each in headings], *rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            " " * (width - cell_len(cell)) + cell for cell, width in zip(line, widths, strict=True)
        ]
        typer.echo("  ".join(["", *cells]))
