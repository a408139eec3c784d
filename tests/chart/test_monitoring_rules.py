"""The recording rules: what every scaler, alarm and panel reads, in good and in bad times."""

from __future__ import annotations

import numpy as np
import pytest

from chart.rules.promtool import (
    SOURCES,
    Promtool,
    between,
    buckets_ms,
    counter,
    named,
    pod,
    present,
    steady,
    tower,
    write_rules,
)

SIGNALS = (
    "wanwu_request_p95_ms",
    "wanwu_queue_ms",
    "wanwu_middle_pod_p95_ms",
    "wanwu_scaling_p95_ms",
    "wanwu_scaling_queue_ms",
    "wanwu_request_rate",
    "wanwu_error_ratio",
    "wanwu_reject_ratio",
    "wanwu_batch_size",
)
GATEWAY_SIGNALS = (
    "wanwu_gateway_request_rate",
    "wanwu_gateway_error_ratio",
    "wanwu_gateway_refused_ratio",
    "wanwu_gateway_p95_ms",
)


@pytest.fixture(scope="module")
def rules(need, tmp_path_factory: pytest.TempPathFactory) -> Promtool:
    return write_rules(need, tmp_path_factory.mktemp("rules"))


def test_promtool_takes_the_rules(rules: Promtool) -> None:
    rules.check()


def edges_around(value: float) -> tuple[int, int]:
    edges = [0, *buckets_ms()]
    place = int(np.searchsorted(edges, value))
    return edges[place - 1], edges[place]


def test_an_idle_fleet_has_signals_of_zero_and_none_is_nan(rules: Promtool) -> None:
    rules.play(pod("a") | pod("b"), *(("10m", f"sum({each})", 0.0) for each in SIGNALS))


def test_a_steady_fleet_has_the_signals_of_its_load(rules: Promtool) -> None:
    load = pod("a", rate=20, queue_ms=10) | pod("b", rate=60, queue_ms=30, batch=8)
    rules.play(
        load,
        ("10m", between("wanwu_request_rate", 79.9, 80.1), 1),
        # Of all requests, not of all pods: those of the busier pod count more.
        ("10m", between("wanwu_queue_ms", 24.9, 25.1), 1),
        ("10m", between("wanwu_batch_size", 80 / 12.5 - 0.01, 80 / 12.5 + 0.01), 1),
        ("10m", between("wanwu_request_p95_ms", *edges_around(50)), 1),
    )


def test_one_slow_pod_of_ten_shows_as_far_as_its_requests_do(rules: Promtool) -> None:
    fast = {k: v for n in range(9) for k, v in pod(f"fast-{n}", rate=10).items()}
    slow = pod("slow", rate=1, latencies_ms=[1900.0], queue_ms=1800)
    # It answers 1 in 91 requests, so 95 in 100 are fast all the same.
    rules.play(fast | slow, ("10m", between("wanwu_request_p95_ms", 25, 50), 1))
    slow = pod("slow", rate=10, latencies_ms=[1900.0], queue_ms=1800)
    rules.play(fast | slow, ("10m", between("wanwu_request_p95_ms", 1000, 2000), 1))


def test_one_pod_of_ten_that_is_three_times_slower_does_not_move_the_scalers(
    rules: Promtool,
) -> None:
    fleet = {k: v for n in range(9) for k, v in pod(f"fast-{n}", rate=10, queue_ms=4).items()}
    fleet |= pod("slow", rate=10, latencies_ms=[180.0], queue_ms=260)
    rules.play(
        fleet,
        # Before, both of these were read: 197 ms against 150, and 30 ms against 20.
        ("10m", between("wanwu_request_p95_ms", 150, 200), 1),
        ("10m", between("wanwu_queue_ms", 22, 31), 1),
        ("10m", between("wanwu_scaling_p95_ms", 25, 50), 1),
        ("10m", between("wanwu_scaling_queue_ms", 3.9, 4.1), 1),
    )


def slow_model(queue_ms: float) -> dict[str, str]:
    """Return two pods whose model takes 184 ms, above the target of 150, whatever waits."""
    load = {"rate": 6, "latencies_ms": [184.0 + queue_ms], "queue_ms": queue_ms}
    return pod("a", **load) | pod("b", **load)


@pytest.mark.parametrize(
    ("queue_ms", "low", "high"),
    [
        # Without a queue more pods would not help; fewer may do.
        (0, 74, 76),
        (3, 74, 76),
        (4.8, 119, 121),
        # 6 ms are a sign of load: the batcher's delay of 1 ms, and a quarter of queueMs.
        (6, 149, 151),
        (7, 174, 176),
        (12, 190, 200),
    ],
)
def test_a_p95_above_its_target_counts_as_far_as_the_queue_shows_load(
    rules: Promtool, queue_ms: float, low: float, high: float
) -> None:
    rules.play(
        slow_model(queue_ms),
        ("10m", between("wanwu_request_p95_ms", 150, 200), 1),
        ("10m", between("wanwu_scaling_p95_ms", low, high), 1),
    )


def test_a_p95_below_its_target_is_what_it_is_with_and_without_a_queue(rules: Promtool) -> None:
    for queue_ms in (0, 50):
        load = pod(rate=20, latencies_ms=[90.0], queue_ms=queue_ms)
        rules.play(load, ("10m", between("wanwu_scaling_p95_ms", 75, 100), 1))


def test_pods_without_requests_are_not_among_those_that_scalers_read(rules: Promtool) -> None:
    busy = pod("busy", rate=20, latencies_ms=[400.0], queue_ms=100)
    new = pod("new-1") | pod("new-2") | pod("new-3")
    rules.play(
        busy | new,
        ("10m", between("wanwu_scaling_queue_ms", 99, 101), 1),
        ("10m", between("wanwu_scaling_p95_ms", 300, 500), 1),
    )


def test_a_queue_is_no_p95_where_that_has_no_source(rules: Promtool) -> None:
    load = {k: v for k, v in pod(rate=9, queue_ms=50).items() if "histogram" not in k}
    rules.play(load, ("10m", present("wanwu_scaling_p95_ms"), 0))


@pytest.mark.parametrize("seed", range(5))
def test_the_p95_of_a_mixed_fleet_is_that_of_the_pooled_latencies(
    rules: Promtool, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    series, pooled = {}, []
    for number in range(10):
        waited = chance.lognormal(np.log(chance.uniform(15, 400)), 0.5, 400)
        series |= pod(f"pod-{number}", rate=400 / 15, latencies_ms=waited)
        pooled.append(waited)
    true = float(np.quantile(np.concatenate(pooled), 0.95))
    rules.play(series, ("10m", between("wanwu_request_p95_ms", *edges_around(true)), 1))


def test_a_counter_that_begins_anew_neither_jumps_nor_falls(rules: Promtool) -> None:
    restarted = {name: f"{values} {values}" for name, values in pod(rate=20, steps=20).items()}
    restarted |= {named("up"): steady(1, 41)}
    rules.play(
        restarted,
        ("4m45s", between("wanwu_request_rate", 15, 21), 1),
        ("5m30s", between("wanwu_request_rate", 10, 21), 1),
        ("8m", between("wanwu_request_rate", 19.9, 20.1), 1),
        ("5m30s", between("wanwu_request_p95_ms", 25, 50), 1),
    )


def test_signals_are_missing_when_every_scrape_is_lost_so_that_scalers_hold(
    rules: Promtool,
) -> None:
    lost = {name: f"{values} stale" for name, values in pod(rate=20, steps=20).items()}
    lost |= {named("up"): "1x20 0x40"}
    rules.play(
        lost,
        ("4m", present("wanwu_request_p95_ms"), 1),
        ("4m", present("wanwu_scaling_p95_ms"), 1),
        *(("8m", present(signal), 0) for signal in SIGNALS),
    )


def test_the_first_scrape_after_an_outage_is_not_taken_for_idleness(rules: Promtool) -> None:
    # Scraped until 5:00 and again from 10:00; the pods worked all along.
    out = {
        name: f"{values} _x19 {values.replace('0+', '200000+', 1)}"
        for name, values in pod(rate=20, steps=20).items()
    }
    scaled_on = ("wanwu_scaling_p95_ms", "wanwu_scaling_queue_ms", "wanwu_batch_size")
    rules.play(
        out,
        *(("4m", present(signal), 1) for signal in scaled_on),
        *(("10m5s", present(signal), 0) for signal in scaled_on),
        *(("11m", present(signal), 1) for signal in scaled_on),
    )


def test_a_new_pod_takes_nothing_away_and_its_load_is_added(rules: Promtool) -> None:
    new = {name: f"_x20 {values}" for name, values in pod("new", rate=30).items()}
    rules.play(
        pod("old", rate=30) | new,
        ("4m", between("wanwu_request_rate", 29.9, 30.1), 1),
        ("5m15s", between("wanwu_request_rate", 29.9, 60.1), 1),
        ("8m", between("wanwu_request_rate", 59.9, 60.1), 1),
    )


def test_a_pod_of_another_release_or_namespace_does_not_count(rules: Promtool) -> None:
    others = {
        tower("nv_inference_request_success", job="shop/y-wanwu-triton"): counter(500),
        tower("nv_inference_request_success", namespace="lab", job="lab/x-wanwu-triton"): counter(
            500
        ),
    }
    rules.play(pod(rate=20) | others, ("10m", between("sum(wanwu_request_rate)", 19.9, 20.1), 1))


def test_refusals_are_no_errors(rules: Promtool) -> None:
    rules.play(
        pod(rate=90, failed=3, rejected=7),
        ("10m", between("wanwu_error_ratio", 0.0299, 0.0301), 1),
        ("10m", between("wanwu_reject_ratio", 0.0699, 0.0701), 1),
    )


def test_a_fleet_that_fails_everything_has_an_error_ratio_of_one(rules: Promtool) -> None:
    rules.play(pod(rate=0, failed=5), ("10m", "sum(wanwu_error_ratio)", 1))


SUMMARY = "nv_inference_request_summary_us"


@pytest.fixture(scope="module")
def older(need, tmp_path_factory: pytest.TempPathFactory) -> Promtool:
    folder = tmp_path_factory.mktemp("older")
    return write_rules(need, folder, "triton.image.release=24.10")


def summary(name: str, values: str, count: str = "700x80") -> dict[str, str]:
    """Return the P95 of a pod's last minute, in microseconds, and the count of its requests."""
    return {tower(SUMMARY, pod=name, quantile="0.95"): values} | {
        tower(f"{SUMMARY}_count", pod=name): count
    }


def test_an_older_release_gives_the_slowest_pods_quantile(older: Promtool) -> None:
    series = summary("fast", steady(40_000)) | summary("slow", steady(300_000))
    series |= {tower(SUMMARY, pod="slow", quantile="0.5"): steady(900_000)}
    series |= summary("idle", " ".join(["NaN"] * 40))
    older.play(series, ("9m", "sum(wanwu_request_p95_ms)", 300))


def test_an_older_release_that_is_idle_gives_zero(older: Promtool) -> None:
    series = summary("a", " ".join(["NaN"] * 40))
    older.play(series, ("9m", "sum(wanwu_request_p95_ms)", 0))
    older.play(series, ("9m", "sum(wanwu_middle_pod_p95_ms)", 0))


def test_an_older_releases_slow_pod_does_not_move_the_scalers(older: Promtool) -> None:
    fleet = {k: v for n in range(9) for k, v in pod(f"p-{n}", rate=10, queue_ms=4).items()}
    fleet |= {k: v for n in range(9) for k, v in summary(f"p-{n}", steady(50_000)).items()}
    fleet |= pod("slow", rate=10, queue_ms=260) | summary("slow", steady(400_000))
    older.play(
        fleet,
        ("9m", "sum(wanwu_request_p95_ms)", 400),
        ("9m", "sum(wanwu_scaling_p95_ms)", 50),
    )


def test_the_warm_up_of_an_older_release_is_not_read_as_the_fleets_p95(older: Promtool) -> None:
    # Its first four scrapes still have the warm-up, of 2.6 s, in the summary.
    warming = "_x19 2600000x4 60000x40"
    fleet = summary("old", steady(50_000)) | summary("new", warming, "_x19 4+150x80")
    times = [f"{300 + 15 * step}s" for step in range(-1, 20)]
    rules = [(at, between("wanwu_request_p95_ms", 50, 60), 1) for at in times]
    older.play(fleet, *rules, ("8m", "sum(wanwu_request_p95_ms)", 60))


def test_a_container_that_begins_again_is_warming_up_too(older: Promtool) -> None:
    again = summary("again", "50000x20 2600000x4 50000x40", "9000x20 4+150x60")
    times = [f"{300 + 15 * step}s" for step in range(-1, 20)]
    fleet = summary("old", steady(50_000)) | again
    older.play(fleet, *((at, "sum(wanwu_request_p95_ms)", 50) for at in times))


def test_while_all_pods_of_an_older_release_warm_up_the_p95_is_unknown(older: Promtool) -> None:
    fleet = summary("a", "2600000x4 60000x40", "4+150x80")
    older.play(
        fleet,
        ("60s", present("wanwu_request_p95_ms"), 0),
        ("60s", present("wanwu_scaling_p95_ms"), 0),
        ("90s", "sum(wanwu_request_p95_ms)", 60),
    )


def test_an_older_release_whose_scrapes_are_lost_has_no_p95(older: Promtool) -> None:
    lost = summary("a", "50000x20 stale", "9000x20 stale")
    older.play(
        lost,
        ("300s", present("wanwu_request_p95_ms"), 1),
        ("330s", present("wanwu_request_p95_ms"), 0),
    )


def gpus(source: str, metric: str, scale: float) -> tuple[str, dict[str, str]]:
    labels = [{"pod": "x-wanwu-triton-1"}, {"pod": "x-wanwu-triton-2"}]
    if source != "triton":
        exporter = {"namespace": "gpu-operator", "job": "dcgm-exporter", "pod": "dcgm-1"}
        labels = [
            exporter | {"exported_namespace": "shop", "exported_pod": each["pod"]}
            for each in labels
        ]
    shares = (0.4 * scale, 0.8 * scale)
    return source, {
        named(metric, gpu_uuid=f"GPU-{number}", **each): steady(share)
        for number, (each, share) in enumerate(zip(labels, shares, strict=True))
    }


@pytest.mark.parametrize(
    ("source", "series"),
    [
        gpus("triton", "nv_gpu_utilization", 1),
        gpus("dcgm", "DCGM_FI_DEV_GPU_UTIL", 100),
        gpus("dcgm-mig", "DCGM_FI_PROF_GR_ENGINE_ACTIVE", 1),
    ],
)
def test_every_source_gives_the_same_gpu_utilisation(need, tmp_path, source, series) -> None:
    rules = write_rules(need, tmp_path, *SOURCES[source])
    one = 'wanwu_gpu_utilization{namespace="shop",pod="x-wanwu-triton-%d"}'
    rules.play(
        series,
        ("5m", between(one % 1, 0.399, 0.401), 1),
        ("5m", between(one % 2, 0.799, 0.801), 1),
        ("5m", between('wanwu_gpu_utilization_mean{namespace="shop"}', 0.599, 0.601), 1),
        ("5m", present("wanwu_gpu_utilization"), 2),
    )


def test_the_utilisation_of_a_pod_is_the_mean_of_its_gpus(rules: Promtool) -> None:
    series = {
        named("nv_gpu_utilization", gpu_uuid="GPU-1"): steady(0.2),
        named("nv_gpu_utilization", gpu_uuid="GPU-2"): steady(0.6),
    }
    rules.play(series, ("5m", between("wanwu_gpu_utilization", 0.399, 0.401), 1))


def test_rates_are_over_four_scrapes_even_where_values_say_less(need, tmp_path) -> None:
    short = ("monitoring.scrapeIntervalSeconds=30", "monitoring.rateWindowSeconds=10")
    assert "[120s]" in write_rules(need, tmp_path, *short).file.read_text()


def gateway(name: str = "g", **rates: float) -> dict[str, str]:
    """Give the series of a gateway whose API gives each status so often a second, in 0.3 s."""
    where = {"job": "shop/x-wanwu-gateway", "pod": name}
    series = {named("wanwu_gateway_info", version="1", **where): steady(1)}
    for status, rate in rates.items():
        labels = where | {"route": "/v1/recognize", "status": status.strip("_")}
        metric = "wanwu_gateway_request_duration_seconds"
        series[named(f"{metric}_count", **labels)] = counter(rate)
        for le in ("0.2", "0.4", "+Inf"):
            below = 0 if le == "0.2" else rate
            series[named(f"{metric}_bucket", le=le, **labels)] = counter(below)
    return series


def test_an_idle_gateway_has_signals_of_zero_and_none_is_nan(rules: Promtool) -> None:
    rules.play(gateway(), *(("10m", f"sum({each})", 0.0) for each in GATEWAY_SIGNALS))


def test_a_gateways_signals_are_those_of_all_its_pods(rules: Promtool) -> None:
    rules.play(
        gateway("a", _200=30, _429=6, _503=1) | gateway("b", _200=60, _503=3),
        ("10m", between("wanwu_gateway_request_rate", 99.9, 100.1), 1),
        # What callers do too often is no error of the gateway.
        ("10m", between("wanwu_gateway_error_ratio", 0.0399, 0.0401), 1),
        ("10m", between("wanwu_gateway_p95_ms", 200, 400), 1),
    )


def test_a_gateway_that_is_not_scraped_has_no_signals(rules: Promtool) -> None:
    lost = {name: f"{values} stale" for name, values in gateway(_200=9).items()}
    rules.play(lost, *(("30m", present(each), 0) for each in GATEWAY_SIGNALS))


def answered(bank: str, uncertain: float, sure: float) -> dict[str, str]:
    where = {"job": "shop/x-wanwu-gateway", "bank": bank}
    rates = {"uncertain": uncertain, "answered": sure}
    return {
        named("wanwu_gateway_recognitions_total", outcome=name, **where): counter(rate, 300)
        for name, rate in rates.items()
        if rate
    }


def test_the_share_of_uncertain_answers_is_told_for_each_bank_that_is_asked_enough(
    rules: Promtool,
) -> None:
    series = answered("animals", 1, 3) | answered("parts", 0, 2) | answered("rare", 0.01, 0.01)
    share = "wanwu_uncertain_ratio{bank='%s'}"
    rules.play(
        series,
        ("70m", between(share % "animals", 0.249, 0.251), 1),
        ("70m", f"sum({share % 'parts'})", 0),
        # 72 pictures an hour.
        ("70m", present(share % "rare"), 0),
    )
