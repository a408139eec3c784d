"""templates/triton/_config.tpl: the rendered model configs, as Triton's protobuf reads them."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup, ModelQueuePolicy

from chart.rendering import CI_FILES, MODEL, ROOT, merged, nested, of_release, one

MODELS = ("image_encoder", "text_encoder", "label_bank")
CPU = nested("triton.profile", "cpu")
TENSORRT = nested("triton.tensorrt.enabled", True)
#: Those of onnxruntime_backend's README that the chart may come to use.
BACKENDS_TENSORRT_KEYS = {
    *("max_workspace_size_bytes", "trt_builder_optimization_level"),
    *("trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix"),
    *("trt_timing_cache_enable", "trt_timing_cache_path", "trt_force_timing_cache"),
    *("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes"),
    *("trt_context_memory_sharing_enable", "trt_cuda_graph_enable"),
}


def config(objects, model: str) -> ModelConfig:
    """Read a config as Triton does: an unknown field is an error."""
    data = one(objects, "ConfigMap", "-triton")["data"]
    return text_format.Parse(data[f"{model}.pbtxt"], ModelConfig())


def accelerators(found: ModelConfig) -> dict[str, dict[str, str]]:
    gpu = found.optimization.execution_accelerators.gpu_execution_accelerator
    return {each.name: dict(each.parameters) for each in gpu}


def parameter(found: ModelConfig, name: str) -> str:
    return found.parameters[name].string_value


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_static_config_is_what_the_chart_renders(render, model, profile) -> None:
    limits = nested("triton.resources.limits.cpu", 2) if profile == "cpu" else {}
    rendered = config(render(merged(nested("triton.profile", profile), limits)), model)
    rendered.ClearField("model_metrics")
    path = ROOT / "model_repository" / model / "configs" / f"{profile}.pbtxt"
    assert text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig()) == rendered


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("file", CI_FILES, ids=lambda file: file.stem)
def test_triton_parses_the_configs_of_every_example(render, file, model) -> None:
    found = config(render(file), model)
    assert found.backend == "onnxruntime"
    # Export copies label_bank's configs for every other bank, so a name would be wrong there.
    assert (found.name, list(found.input), list(found.output)) == ("", [], [])


def test_batching_comes_from_the_values(render) -> None:
    batching = {
        "maxBatchSize": 32,
        "preferredBatchSizes": [8, 16],
        "queueDelayUs": 2000,
        "maxQueueSize": 100,
        "queueTimeoutUs": 3000000,
    }
    found = config(render({"triton": {"batching": batching}}), "image_encoder")
    assert found.max_batch_size == 32
    assert list(found.dynamic_batching.preferred_batch_size) == [8, 16]
    assert found.dynamic_batching.max_queue_delay_microseconds == 2000
    policy = found.dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (100, 3000000)
    assert policy.timeout_action == ModelQueuePolicy.REJECT


@pytest.mark.parametrize("values", [CPU, {}], ids=["cpu", "gpu"])
def test_texts_have_a_queue_of_their_own_and_the_timeout_of_pictures(render, values) -> None:
    batching = {"maxQueueSize": 100, "queueTimeoutUs": 3000000, "text": {"maxQueueSize": 7}}
    found = config(render(merged(values, nested("triton.batching", batching))), "text_encoder")
    policy = found.dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (7, 3000000)
    assert policy.timeout_action == ModelQueuePolicy.REJECT


@pytest.mark.parametrize("values", [CPU, {}], ids=["cpu", "gpu"])
def test_by_default_64_requests_of_texts_wait_for_two_instances(render, values) -> None:
    found = config(render(values), "text_encoder")
    assert found.dynamic_batching.default_queue_policy.max_queue_size == 64
    assert [group.count for group in found.instance_group] == [2]


def test_the_text_tower_always_takes_the_clients_batch(render) -> None:
    from wanwu.session import TEXT_BATCH

    objects = render(nested("triton.batching", {"maxBatchSize": 4, "preferredBatchSizes": [4]}))
    found = config(objects, "text_encoder")
    assert found.max_batch_size >= TEXT_BATCH
    assert not found.dynamic_batching.preferred_batch_size


def test_the_least_batch_takes_the_clients_pictures(refusal) -> None:
    from wanwu.bulk import CHUNK

    assert "maxBatchSize" in refusal(nested("triton.batching.maxBatchSize", CHUNK - 1))


@pytest.mark.parametrize(
    ("limit", "instances", "threads", "text_threads"),
    [("4", 4, 1, 1), (2, 2, 1, 1), ("500m", 2, 1, 1), ("12500m", 12, 1, 3), (3.5, 3, 1, 1)],
)
def test_on_cpus_the_limit_decides_instances_and_threads(
    render, limit, instances, threads, text_threads
) -> None:
    cpu = {"requests": {"cpu": "100m"}, "limits": {"cpu": limit}}
    objects = render(merged(CPU, nested("triton.resources", cpu)))
    image, text = (config(objects, model) for model in MODELS[:2])
    assert image.instance_group[0].count == instances
    assert image.instance_group[0].kind == ModelInstanceGroup.KIND_CPU
    assert parameter(image, "intra_op_thread_count") == str(threads)
    assert parameter(text, "intra_op_thread_count") == str(text_threads)


def test_fewer_instances_have_more_threads_each(render) -> None:
    values = merged(
        CPU, nested("triton.resources.limits.cpu", 8), nested("triton.instances", {"image": 2})
    )
    found = config(render(values), "image_encoder")
    assert found.instance_group[0].count == 2
    assert parameter(found, "intra_op_thread_count") == "4"


def test_cpus_run_small_batches_and_gpus_what_has_come(render) -> None:
    sizes = [
        list(config(render(values), "image_encoder").dynamic_batching.preferred_batch_size)
        for values in (CPU, {})
    ]
    assert sizes == [[4], []]


def test_a_gpu_without_a_cpu_limit_leaves_threads_to_onnxruntime(render) -> None:
    found = config(render(nested("triton.resources.limits.cpu", None)), "image_encoder")
    assert not [name for name in found.parameters if "thread" in name]


def test_the_image_tower_runs_in_tensorrt_with_the_models_shapes(render) -> None:
    tensorrt = {"enabled": True, "optimizationLevel": 5}
    values = {"model": MODEL, "triton": {"tensorrt": tensorrt}}
    values["triton"]["batching"] = {"maxBatchSize": 32, "preferredBatchSizes": [8, 16]}
    found = accelerators(config(render(values), "image_encoder"))
    assert list(found) == ["tensorrt"]
    assert found["tensorrt"]["trt_builder_optimization_level"] == "5"
    shapes = [found["tensorrt"][f"trt_profile_{each}_shapes"] for each in ("min", "opt", "max")]
    assert shapes == [f"PIXELS:{batch}x224x200x3" for batch in (1, 16, 32)]


@pytest.mark.parametrize("precision", ["", "fp32", "fp16", "bf16"])
def test_tensorrt_computes_in_the_precision_of_the_file(render, precision) -> None:
    # Its FP16 flag is gone since 11, and overrides the file's FP32 LayerNorm in 10.
    values = merged(TENSORRT, {"model": MODEL}, nested("model.precision.image", precision))
    found = accelerators(config(render(values), "image_encoder"))["tensorrt"]
    assert not [key for key in found if "precision" in key or "fp16" in key or "bf16" in key]


def test_the_text_tower_never_runs_in_tensorrt(render) -> None:
    assert not accelerators(config(render(merged(TENSORRT, {"model": MODEL})), "text_encoder"))


def test_by_default_cuda_runs_the_image_tower(render) -> None:
    found = config(render({"model": MODEL}), "image_encoder")
    assert not accelerators(found)
    assert found.instance_group[0].kind == ModelInstanceGroup.KIND_GPU


@pytest.mark.parametrize("values", [{}, TENSORRT], ids=["cuda", "tensorrt"])
@pytest.mark.parametrize("model", MODELS[:2])
def test_cuda_does_not_search_convolutions_for_each_new_shape(render, model, values) -> None:
    assert parameter(config(render(values), model), "cudnn_conv_algo_search") == "1"


def test_cpus_are_told_nothing_of_cuda(render) -> None:
    for model in MODELS[:2]:
        found = config(render(CPU), model)
        assert set(found.parameters) == {"intra_op_thread_count", "inter_op_thread_count"}
        assert not accelerators(found)


@pytest.mark.parametrize("model", MODELS[:2])
def test_cudas_memory_is_bounded_where_onnxruntimes_backend_reads_it_last(render, model) -> None:
    # The backend sets both from `parameters`, whatever an accelerator named cuda says of them.
    found = config(render(nested("triton.gpu.memLimitBytes", 4294967296)), model)
    assert parameter(found, "arena_extend_strategy") == "1"
    assert parameter(found, "gpu_mem_limit") == "4294967296"
    assert "cuda" not in accelerators(found)


def test_cudas_memory_has_no_bound_of_its_own_by_default(render) -> None:
    assert "gpu_mem_limit" not in config(render(), "image_encoder").parameters


def test_tensorrt_is_told_only_what_the_backend_knows(render) -> None:
    objects = render(merged(TENSORRT, {"model": MODEL}))
    found = accelerators(config(objects, "image_encoder"))["tensorrt"]
    assert set(found) <= BACKENDS_TENSORRT_KEYS  # another is an error when the model is loaded


def test_without_the_models_size_there_is_no_profile_and_no_warm_up(render) -> None:
    found = config(render(TENSORRT), "image_encoder")
    assert "trt_profile_min_shapes" not in accelerators(found)["tensorrt"]
    assert not found.model_warmup


@pytest.mark.parametrize(
    "change",
    [
        nested("triton.image.release", "26.09"),
        nested("triton.tensorrt.optimizationLevel", 5),
        nested("model.fingerprint", "1"),
        nested("triton.batching.maxBatchSize", 8),
    ],
)
def test_engines_of_another_model_or_release_lie_elsewhere(render, change) -> None:
    paths = [
        accelerators(config(render(values), "image_encoder"))["tensorrt"]["trt_engine_cache_path"]
        for values in (merged(TENSORRT, {"model": MODEL}, each) for each in ({}, change))
    ]
    assert paths[0] != paths[1]
    assert all(path.startswith("/cache/tensorrt-") for path in paths)


def test_warm_up_runs_the_least_and_the_largest_batch(render) -> None:
    objects = render({"model": MODEL, "triton": {"batching": {"maxBatchSize": 16}}})
    image, text = (config(objects, model) for model in MODELS[:2])
    assert [each.batch_size for each in image.model_warmup] == [1, 16]
    assert list(image.model_warmup[0].inputs["PIXELS"].dims) == [224, 200, 3]
    assert list(text.model_warmup[0].inputs["INPUT_IDS"].dims) == [52]


def test_warm_up_can_be_left_out(render) -> None:
    found = config(render({"model": MODEL, "triton": {"warmup": False}}), "image_encoder")
    assert not found.model_warmup


def test_the_histogram_has_the_buckets_of_the_values(render) -> None:
    found = config(render(nested("triton.latencyBucketsMs", [7, 30000])), "image_encoder")
    (control,) = found.model_metrics.metric_control
    assert control.metric_identifier.family == "nv_inference_first_response_histogram_ms"
    assert list(control.histogram_options.buckets) == [7, 30000]


@pytest.mark.parametrize(("release", "has"), [("25.12", False), ("26.01", True), ("26.08", True)])
def test_only_a_release_that_has_the_histogram_is_told_of_it(render, release, has) -> None:
    found = config(render(of_release(release)), "image_encoder")
    assert found.HasField("model_metrics") is has


def test_a_bank_stays_on_the_cpu_and_does_not_batch(render) -> None:
    found = config(render(), "label_bank")
    assert found.max_batch_size == 0
    assert not found.HasField("dynamic_batching")
    assert found.instance_group[0].kind == ModelInstanceGroup.KIND_CPU
