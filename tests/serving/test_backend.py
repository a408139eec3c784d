"""What the served models answer, by whichever backend runs them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from wanwu import Recognizer
from wanwu.bulk import CHUNK
from wanwu.embedded.server import EmbeddedServer
from wanwu.images import to_pixels
from wanwu.samples import cat_photo, sample_photos


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url) as connection:
        yield connection


def infer(client: triton.InferenceServerClient, model: str, name: str, array, *outputs: str):  # type: ignore[no-untyped-def]
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    wanted = [triton.InferRequestedOutput(output) for output in outputs] or None
    return client.infer(model, [tensor], outputs=wanted)


@pytest.mark.parametrize(
    ("model", "inputs", "outputs"),
    [
        ("image_encoder", {"PIXELS": "UINT8"}, {"EMBEDDING": "FP32", "FINGERPRINT": "INT64"}),
        ("text_encoder", {"INPUT_IDS": "INT64"}, {"EMBEDDING": "FP32", "FINGERPRINT": "INT64"}),
        (
            "label_bank",
            {"ROWS": "INT64"},
            {
                "LABELS": "BYTES",
                "CATEGORIES": "BYTES",
                "EMBEDDINGS": "FP16",
                "CONTRACT": "BYTES",
                "TOKENIZER": "BYTES",
            },
        ),
    ],
)
def test_the_tensor_contract_is_served(client, model, inputs, outputs) -> None:  # type: ignore[no-untyped-def]
    metadata = client.get_model_metadata(model)
    assert {tensor.name: tensor.datatype for tensor in metadata.inputs} == inputs
    assert {tensor.name: tensor.datatype for tensor in metadata.outputs} == outputs


def test_shapes_are_read_from_the_onnx_file(client: triton.InferenceServerClient) -> None:
    pixels = client.get_model_metadata("image_encoder").inputs[0]
    assert list(pixels.shape) == [-1, 260, 260, 3]
    assert list(client.get_model_metadata("text_encoder").inputs[0].shape) == [-1, -1]
    assert list(client.get_model_metadata("label_bank").inputs[0].shape) == [2]


def test_a_batch_answers_as_its_pictures_do_alone(
    client: triton.InferenceServerClient, recognizer: Recognizer
) -> None:
    photos = [cat_photo(), *sample_photos()]
    photos = photos[:CHUNK]
    batch = np.stack([to_pixels(photo, recognizer.contract().image) for photo in photos])
    together = infer(client, "image_encoder", "PIXELS", batch).as_numpy("EMBEDDING")
    alone = np.stack([recognizer.embed_image(photo) for photo in photos])
    assert np.sum(together * alone, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_concurrent_callers_each_get_their_own_answer(recognizer: Recognizer) -> None:
    photos = [cat_photo(), *(path.read_bytes() for path in sample_photos())]
    expected = [recognizer.recognize(photo).top.label for photo in photos]
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(recognizer.recognize, photos * 20)
        assert [answer.top.label for answer in answers] == expected * 20


def test_requests_are_batched_by_triton(
    client: triton.InferenceServerClient, recognizer: Recognizer
) -> None:
    def counts() -> tuple[int, int]:
        (stats,) = client.get_inference_statistics("image_encoder").model_stats
        return stats.inference_count, stats.execution_count

    before = counts()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(recognizer.recognize, [cat_photo()] * 100))
    # Triton counts after it answers: the last requests of these 100 may be counted a moment
    # later, and those of the test before may be counted among them.
    deadline = time.monotonic() + 10
    while (after := counts())[0] - before[0] < 100 and time.monotonic() < deadline:
        time.sleep(0.02)
    inferences, executions = after[0] - before[0], after[1] - before[1]
    assert inferences >= 100
    assert executions < inferences


@pytest.mark.parametrize(
    ("model", "name", "array"),
    [
        ("image_encoder", "PIXELS", np.zeros((1, 224, 224, 3), np.uint8)),
        ("image_encoder", "PIXELS", np.zeros((1, 260, 260, 3), np.float32)),
        ("image_encoder", "PIXELS", np.zeros((65, 260, 260, 3), np.uint8)),
        ("text_encoder", "INPUT_IDS", np.zeros((1, 3), np.int32)),
        ("label_bank", "ROWS", np.zeros(3, np.int64)),
    ],
)
def test_a_tensor_of_the_wrong_kind_is_refused(client, model, name, array) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        infer(client, model, name, array)


@pytest.mark.parametrize("id", [-1, 10**12])
def test_a_bad_id_marks_its_own_row_and_fails_no_other_of_its_batch(
    client: triton.InferenceServerClient, recognizer: Recognizer, id: int
) -> None:
    good = np.array([[1, 1473, 2]], dtype=np.int64)
    bad = np.array([[1, id, 2]], dtype=np.int64)  # no such token

    def fingerprint(ids) -> int:  # type: ignore[no-untyped-def]
        return infer(client, "text_encoder", "INPUT_IDS", ids).as_numpy("FINGERPRINT").item()

    expected = recognizer.contract().fingerprint
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(fingerprint, [good, bad] * 40)) == [expected, 0] * 40


@pytest.mark.parametrize("length", [0, 1, 128, 129, 20_000])
def test_ids_of_any_length_are_answered(
    client: triton.InferenceServerClient, recognizer: Recognizer, length: int
) -> None:
    answer = infer(client, "text_encoder", "INPUT_IDS", np.ones((2, length), np.int64))
    expected = recognizer.contract().fingerprint if length <= 128 else 0
    assert answer.as_numpy("FINGERPRINT").ravel().tolist() == [expected] * 2
    assert np.isfinite(answer.as_numpy("EMBEDDING")).all()


def test_only_the_outputs_asked_for_travel(client: triton.InferenceServerClient) -> None:
    rows = np.array([3, 5], dtype=np.int64)
    answer = infer(client, "label_bank", "ROWS", rows, "LABELS")
    assert len(answer.as_numpy("LABELS")) == 2
    assert answer.as_numpy("EMBEDDINGS") is None
