"""Every family: exported, served by a real Triton, and asked beside the plain script.

The script is what people use today: AutoProcessor, the model, softmax or sigmoid over the labels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from support.checkpoints import families, make_checkpoint
from wanwu import Recognizer
from wanwu.contract import Precision
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu_export.banks import BankPlan
from wanwu_export.checkpoint.model import load_checkpoint
from wanwu_export.checkpoint.source import locate
from wanwu_export.concepts import Concept
from wanwu_export.parity_inputs import open_as_script, parity_pictures
from wanwu_export.publish import publish
from wanwu_export.templates import load_templates

LABELS = [
    "猫",
    "一只狗",
    "火锅",
    "高铁站",
    "寺庙",
    "摩托车",
    "埃及猫和虎斑猫在一起",
    "咖啡 cup 100",
]
FP32 = Precision(image="fp32", text="fp32")


@pytest.fixture(scope="module", params=families())
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(family, tmp_path_factory.mktemp("family") / "checkpoint")


@pytest.fixture(scope="module")
def recognizer(folder: Path, need: Any) -> Iterator[Recognizer]:
    """A client of a Triton that serves the family's export, with the labels as its bank too."""
    need(importlib.util.find_spec("pytriton") is not None, "Triton: pip install 'wanwu[server]'")
    tower = load_checkpoint(locate(str(folder)), FP32)
    concepts = [Concept(label) for label in LABELS]
    plan = BankPlan("default", concepts, load_templates("bare"), "2026-11-22")
    repository = folder.parent / "model_repository"
    publish(tower, [plan], repository, step=lambda text: None)
    options = ServerOptions(repository, grpc_port=free_port(), metrics_port=None)
    with EmbeddedServer(options) as server, Recognizer(server.url, exact=True) as client:
        yield client


@pytest.fixture(scope="module")
def script(family: str, folder: Path) -> Any:
    """The plain script: a picture to the probabilities of the labels."""
    # As the models' pages say: SigLIP was trained on texts padded to the maximum.
    padding = "max_length" if family.startswith("siglip") else True
    processor = transformers.AutoProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModel.from_pretrained(folder)

    @torch.no_grad()
    def probabilities(data: bytes) -> np.ndarray:
        inputs = processor(
            text=LABELS, images=open_as_script(data), padding=padding, return_tensors="pt"
        )
        logits = model(**inputs).logits_per_image[0]
        return (logits.sigmoid() if family.startswith("siglip") else logits.softmax(-1)).numpy()

    return probabilities


@pytest.mark.parametrize("ours", ["own labels", "bank"])
def test_probabilities_are_the_scripts(recognizer, script, ours):
    labels = LABELS if ours == "own labels" else None
    for kind, data in parity_pictures().items():
        answer = recognizer.recognize(data, labels=labels, top_k=len(LABELS))
        found = {prediction.label: prediction.score for prediction in answer.predictions}
        np.testing.assert_allclose(
            [found[label] for label in LABELS], script(data), rtol=0, atol=1e-3, err_msg=kind
        )


def test_the_probabilities_are_not_all_alike(script):
    # Otherwise the comparison above would say nothing.
    answers = np.stack([script(data) for data in parity_pictures().values()])
    assert np.ptp(answers, axis=1).max() > 0.01
    assert np.ptp(answers, axis=0).max() > 0.005


def test_the_script_is_the_one_for_zero_shot_classification(family, folder):
    zero_shot = transformers.AutoModelForZeroShotImageClassification
    if family.startswith("vision-text-dual-encoder"):
        # No zero-shot class knows this family, so the script has to use AutoModel.
        with pytest.raises(ValueError, match="Unrecognized configuration class"):
            zero_shot.from_pretrained(folder)
        return
    model = transformers.AutoModel.from_pretrained(folder)
    assert type(zero_shot.from_pretrained(folder)) is type(model)
