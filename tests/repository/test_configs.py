"""The static configs: what Triton reads, in every profile."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import (  # type: ignore[import-untyped]
    ModelConfig,
    ModelInstanceGroup,
    ModelQueuePolicy,
)

from wanwu.bulk import CHUNK
from wanwu.session import TEXT_BATCH

REPOSITORY = Path(__file__).parents[2] / "model_repository"

TOWERS = ("image_encoder", "text_encoder")
MODELS = (*TOWERS, "label_bank")
#: Profile: its file, and the backend that runs the model there.
PROFILES = {
    "default": ("config.pbtxt", "onnxruntime"),
    "cpu": ("configs/cpu.pbtxt", "onnxruntime"),
    "gpu": ("configs/gpu.pbtxt", "onnxruntime"),
    "embedded": ("configs/embedded.pbtxt", "python"),
    "embedded-gpu": ("configs/embedded-gpu.pbtxt", "python"),
}


def config(model: str, profile: str) -> ModelConfig:
    """Read a config as Triton does: an unknown field is an error."""
    text = (REPOSITORY / model / PROFILES[profile][0]).read_text(encoding="utf-8")
    return text_format.Parse(text, ModelConfig())


every_config = pytest.mark.parametrize(
    ("model", "profile"), [(model, profile) for model in MODELS for profile in PROFILES]
)
every_tower = pytest.mark.parametrize(
    ("model", "profile"), [(model, profile) for model in TOWERS for profile in PROFILES]
)
every_profile = pytest.mark.parametrize("profile", PROFILES)


@pytest.mark.parametrize("model", MODELS)
def test_each_model_has_all_four_profiles_and_triton_parses_every_config(model):
    folder = REPOSITORY / model
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*.pbtxt")}
    assert {file for file, _ in PROFILES.values()} <= set(found)
    for path in found.values():
        text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())


@every_config
def test_a_config_names_the_backend_of_its_profile(model, profile):
    assert config(model, profile).backend == PROFILES[profile][1]


@every_config
def test_a_config_leaves_name_and_dims_to_the_onnx_file(model, profile):
    found = config(model, profile)
    # Export copies label_bank's configs for every other bank, so a name would be wrong there.
    assert found.name == ""
    assert (list(found.input), list(found.output)) == ([], [])


@every_tower
def test_a_tower_takes_the_clients_largest_batch(model, profile):
    sent = {"image_encoder": CHUNK, "text_encoder": TEXT_BATCH}
    assert config(model, profile).max_batch_size >= sent[model]


@every_tower
def test_a_tower_takes_no_batch_that_the_parity_gate_has_not_tried(model, profile):
    from wanwu_export.parity import MAX_BATCH

    assert config(model, profile).max_batch_size <= MAX_BATCH


@pytest.mark.parametrize("profile", ["cpu", "embedded"])
def test_on_a_cpu_pictures_are_spread_over_the_instances(profile):
    found = config("image_encoder", profile)
    assert list(found.dynamic_batching.preferred_batch_size) == [CHUNK]
    assert found.max_batch_size == CHUNK


@every_tower
def test_a_tower_batches(model, profile):
    assert config(model, profile).HasField("dynamic_batching")


@every_tower
def test_requests_are_refused_when_their_queue_is_full(model, profile):
    policy = config(model, profile).dynamic_batching.default_queue_policy
    assert policy.max_queue_size > 0  # 0 is a queue without end
    assert policy.timeout_action == ModelQueuePolicy.REJECT
    assert policy.default_timeout_microseconds > 0


@every_tower
def test_a_single_instance_has_a_queue_without_limit(model, profile):
    found = config(model, profile)
    # Triton fetches the next batch ahead only where the queue has no limit, and without that a
    # single instance stands idle when requests meet: docs/decisions/0015.
    limited = found.dynamic_batching.HasField("default_queue_policy")
    counts = [group.count for group in found.instance_group]
    assert not limited or min(counts) >= 2


@pytest.mark.parametrize("model", MODELS)
def test_the_embedded_profile_batches_and_runs_as_cpu_nodes_do(model):
    embedded, cpu = config(model, "embedded"), config(model, "cpu")
    assert embedded.max_batch_size == cpu.max_batch_size
    assert embedded.dynamic_batching == cpu.dynamic_batching
    assert list(embedded.instance_group) == list(cpu.instance_group)


@pytest.mark.parametrize("model", MODELS)
def test_the_default_profile_batches_and_counts_as_gpu_nodes_do(model):
    default, gpu = config(model, "default"), config(model, "gpu")
    assert default.max_batch_size == gpu.max_batch_size
    assert default.dynamic_batching == gpu.dynamic_batching
    counts = [[group.count for group in found.instance_group] for found in (default, gpu)]
    assert counts[0] == counts[1]


@every_profile
def test_a_bank_does_not_batch(profile):
    found = config("label_bank", profile)
    assert found.max_batch_size == 0
    assert not found.HasField("dynamic_batching")


@pytest.mark.parametrize("profile", ["default", "cpu", "gpu"])
def test_a_bank_has_one_thread(profile):
    # onnxruntime starts one for each core of the host where no number is set.
    found = config("label_bank", profile).parameters
    for name in ("intra_op_thread_count", "inter_op_thread_count"):
        assert found[name].string_value == "1"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile", ["cpu", "embedded"])
def test_a_profile_without_gpus_asks_for_none(model, profile):
    kinds = {group.kind for group in config(model, profile).instance_group}
    assert kinds == {ModelInstanceGroup.KIND_CPU}


@pytest.mark.parametrize("profile", ["gpu", "embedded-gpu"])
@pytest.mark.parametrize("model", TOWERS)
def test_a_gpu_profile_runs_towers_on_gpus(model, profile):
    kinds = {group.kind for group in config(model, profile).instance_group}
    assert kinds == {ModelInstanceGroup.KIND_GPU}


@pytest.mark.parametrize("model", TOWERS)
def test_the_gpu_profile_runs_by_cuda_without_a_search_for_each_shape(model):
    found = config(model, "gpu")
    # TensorRT is the chart's to turn on: its engines depend on the model's shapes.
    assert not found.optimization.execution_accelerators.gpu_execution_accelerator
    assert found.parameters["cudnn_conv_algo_search"].string_value == "1"


@pytest.mark.parametrize("profile", ["gpu", "embedded-gpu"])
def test_a_bank_stays_on_the_cpu_beside_gpus(profile):
    kinds = {group.kind for group in config("label_bank", profile).instance_group}
    assert kinds == {ModelInstanceGroup.KIND_CPU}


def test_texts_are_refused_on_embedded_gpus_when_their_queue_is_full():
    policy = config("text_encoder", "embedded-gpu").dynamic_batching.default_queue_policy
    assert policy.max_queue_size == 64
    assert policy.timeout_action == ModelQueuePolicy.REJECT
    assert policy.default_timeout_microseconds == 10_000_000


@pytest.mark.parametrize("model", MODELS)
def test_a_model_brings_the_entry_point_of_the_embedded_profile(model):
    source = (REPOSITORY / model / "model.py").read_text(encoding="utf-8")
    assert "TritonPythonModel = model_beside(__file__)" in source


@every_config
def test_an_exported_model_carries_its_configs_unchanged(repository, model, profile):
    file = PROFILES[profile][0]
    expected = (REPOSITORY / model / file).read_bytes()
    banks = ("label_bank", "label_bank_seed18", "label_bank_luxury")
    for exported in banks if model == "label_bank" else (model,):
        assert (repository / exported / file).read_bytes() == expected
