"""templates/triton/_config.tpl: the rendered model configs, as Triton's protobuf reads them."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup, ModelQueuePolicy

from chart.rendering import CI_FILES, MODEL, merged, nested, one

MODELS = ("image_encoder", "text_encoder", "label_bank")
CPU = nested("triton.profile", "cpu")
#: Those of onnxruntime_backend's README that the chart may come to use.
BACKENDS_TENSORRT_KEYS = {
    *("precision_mode", "max_workspace_size_bytes", "trt_builder_optimization_level"),
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
    [("4", 4, 1, 2), (2, 2, 1, 1), ("500m", 2, 1, 1), ("7500m", 7, 1, 3), (3.5, 3, 1, 1)],
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
    tensorrt = {"precision": "FP32", "optimizationLevel": 5}
    values = {"model": MODEL, "triton": {"tensorrt": tensorrt}}
    values["triton"]["batching"] = {"maxBatchSize": 32, "preferredBatchSizes": [8, 16]}
    found = accelerators(config(render(values), "image_encoder"))
    assert list(found) == ["tensorrt"]
    assert found["tensorrt"]["precision_mode"] == "FP32"
    assert found["tensorrt"]["trt_builder_optimization_level"] == "5"
    shapes = [found["tensorrt"][f"trt_profile_{each}_shapes"] for each in ("min", "opt", "max")]
    assert shapes == [f"PIXELS:{batch}x224x200x3" for batch in (1, 16, 32)]


def test_the_text_tower_never_runs_in_tensorrt(render) -> None:
    assert not accelerators(config(render({"model": MODEL}), "text_encoder"))


def test_without_tensorrt_cuda_runs_the_image_tower(render) -> None:
    found = config(render(nested("triton.tensorrt.enabled", False)), "image_encoder")
    assert not accelerators(found)
    assert found.instance_group[0].kind == ModelInstanceGroup.KIND_GPU


@pytest.mark.parametrize("model", MODELS[:2])
def test_cudas_memory_is_bounded_where_onnxruntimes_backend_reads_it_last(render, model) -> None:
    # The backend sets both from `parameters`, whatever an accelerator named cuda says of them.
    found = config(render(nested("triton.gpu.memLimitBytes", 4294967296)), model)
    assert parameter(found, "arena_extend_strategy") == "1"
    assert parameter(found, "gpu_mem_limit") == "4294967296"
    assert "cuda" not in accelerators(found)


def test_cudas_memory_has_no_bound_of_its_own_by_default_and_none_on_cpus(render) -> None:
    assert "gpu_mem_limit" not in config(render(), "image_encoder").parameters
    assert "arena_extend_strategy" not in config(render(CPU), "image_encoder").parameters


def test_tensorrt_is_told_only_what_the_backend_knows(render) -> None:
    found = accelerators(config(render({"model": MODEL}), "image_encoder"))["tensorrt"]
    assert set(found) <= BACKENDS_TENSORRT_KEYS  # another is an error when the model is loaded


def test_without_the_models_size_there_is_no_profile_and_no_warm_up(render) -> None:
    found = config(render(), "image_encoder")
    assert "trt_profile_min_shapes" not in accelerators(found)["tensorrt"]
    assert not found.model_warmup


@pytest.mark.parametrize(
    "change",
    [
        nested("triton.image.release", "26.08"),
        nested("triton.tensorrt.precision", "FP32"),
        nested("model.fingerprint", "1"),
        nested("triton.batching.maxBatchSize", 8),
    ],
)
def test_engines_of_another_model_or_release_lie_elsewhere(render, change) -> None:
    paths = [
        accelerators(config(render(values), "image_encoder"))["tensorrt"]["trt_engine_cache_path"]
        for values in ({"model": MODEL}, merged({"model": MODEL}, change))
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
    found = config(render(nested("triton.image.release", release)), "image_encoder")
    assert found.HasField("model_metrics") is has


def test_a_bank_stays_on_the_cpu_and_does_not_batch(render) -> None:
    found = config(render(), "label_bank")
    assert found.max_batch_size == 0
    assert not found.HasField("dynamic_batching")
    assert found.instance_group[0].kind == ModelInstanceGroup.KIND_CPU
