"""A checkpoint's two towers, and the checkpoint's own whole path to compare them with."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from wanwu.contract import Model, Precision, Score
from wanwu.errors import InputError, ModelError
from wanwu_export.checkpoint.files import first_line
from wanwu_export.checkpoint.images import read_geometry, read_scale
from wanwu_export.checkpoint.source import Checkpoint
from wanwu_export.checkpoint.texts import read_text_spec, read_tokenizer
from wanwu_export.describe import Weights
from wanwu_export.dual_tower import DualTower, Outputs

#: An alias or a description counts half as much as the label; categories are only reported.
WEIGHTS = Weights(alias=0.5, description=0.5, broader=0.0)
TEMPLATES = "zh"


def load_checkpoint(checkpoint: Checkpoint, precision: Precision) -> DualTower:
    """Load a checkpoint's towers, tokenizer and preprocessing; no remote code, no network.

    Raises:
        InputError: the checkpoint is of a kind that cannot be exported, or lacks a part.
        ModelError: a weight is missing or not finite.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config = _load("config.json", transformers.AutoConfig, checkpoint)
    processor = _load("processor", transformers.AutoProcessor, checkpoint, backend="pil")
    model = _load_model(checkpoint)
    settings = processor.image_processor.to_dict()
    text = read_text_spec(processor.tokenizer, config.text_config)
    text_tower = TextFeatures(model, processor.tokenizer, config.text_config).eval()
    return DualTower(
        model=Model(name=checkpoint.name, revision=checkpoint.revision, licence=checkpoint.licence),
        scale=read_scale(settings),
        image=ImageFeatures(model).eval(),
        text=text_tower,
        embedding_dim=_embedding_dim(text_tower, text.max_length),
        image_geometry=read_geometry(settings),
        text_spec=text,
        vocabulary=config.text_config.vocab_size,
        score=_score(model),
        precision=precision,
        tokenizer=read_tokenizer(processor.tokenizer),
        sources={checkpoint.source: f"{checkpoint.name}@{checkpoint.revision}"},
        templates=TEMPLATES,
        weights=WEIGHTS,
        original=CheckpointPath(model, processor, text.padding, text.max_length),
    )


class ImageFeatures(nn.Module):
    """The image tower of a transformers model, up to its projection."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = _without(model, ("text_model", "text_projection"))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map scaled FP32 [N, 3, H, W] to [N, D]."""
        model: Any = self.model
        features: Tensor = model.get_image_features(pixel_values=pixel_values).pooler_output
        return features


class TextFeatures(nn.Module):
    """The text tower of a transformers model, up to its projection.

    The attention mask is made here, since a client sends ids alone. A causal tower is read at its
    end token, which sees nothing of the padding after it, and so needs none.
    """

    def __init__(self, model: Any, tokenizer: Any, text_config: Any) -> None:
        super().__init__()
        self.model = _without(model, ("vision_model", "visual_projection"))
        self.pad_id = tokenizer.pad_token_id
        self.end_pads = self.pad_id == tokenizer.eos_token_id
        causal = text_config.model_type == "clip_text_model"
        self.masked = not causal and "attention_mask" in tokenizer.model_input_names

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map INT64 [N, L] to [N, D]."""
        mask = self._mask(input_ids) if self.masked else None
        model: Any = self.model
        features: Tensor = model.get_text_features(
            input_ids=input_ids, attention_mask=mask
        ).pooler_output
        return features

    def _mask(self, input_ids: Tensor) -> Tensor:
        padding: Tensor = input_ids == self.pad_id
        if self.end_pads:  # the first of them is the end token itself
            padding = padding.cumsum(1) > 1
        return padding.logical_not().to(torch.int64)

    def extra_repr(self) -> str:
        """Say what the layers do not, for the fingerprint."""
        return f"pad_id={self.pad_id}, end_pads={self.end_pads}, masked={self.masked}"


class CheckpointPath:
    """What the checkpoint's own processor and model answer."""

    def __init__(self, model: Any, processor: Any, padding: str, max_length: int) -> None:
        self._model, self._processor = model, processor
        self._padding, self._max_length = padding, max_length

    def pixel_values(self, picture: PIL.Image.Image) -> Tensor:
        """Prepare an RGB picture: FP32 [3, H, W], scaled."""
        values: Tensor = self._processor.image_processor(
            images=picture, return_tensors="pt"
        ).pixel_values[0]
        return values

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts, cut at the maximum, not padded."""
        ids: list[list[int]] = self._processor.tokenizer(
            list(texts), truncation=True, max_length=self._max_length
        )["input_ids"]
        return ids

    @torch.no_grad()
    def run(self, pictures: Sequence[PIL.Image.Image], texts: Sequence[str]) -> Outputs:
        """Run the whole model on RGB pictures and on texts, cut at the maximum."""
        inputs = self._processor(
            text=list(texts),
            images=list(pictures),
            padding=self._padding,
            truncation=True,
            max_length=self._max_length,
            return_tensors="pt",
        )
        outputs = self._model(**inputs)
        return Outputs(
            functional.normalize(outputs.image_embeds, dim=-1),
            functional.normalize(outputs.text_embeds, dim=-1),
            outputs.logits_per_image,
        )


def _without(model: nn.Module, parts: tuple[str, ...]) -> nn.Module:
    """Give a model without some of its parts: the exporter would convert and keep them all."""
    rest = copy.copy(model)
    rest._modules = {name: part for name, part in model._modules.items() if name not in parts}
    return rest


def _load(part: str, auto: Any, checkpoint: Checkpoint, **options: Any) -> Any:
    try:
        return auto.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # transformers lets every library's errors through
        raise InputError(
            "the {0} of {1} cannot be loaded: {2}: {3}",
            part,
            checkpoint.folder,
            type(error).__name__,
            first_line(error),
        ) from error


def _load_model(checkpoint: Checkpoint) -> Any:
    model, report = _load(
        "weights",
        transformers.AutoModel,
        checkpoint,
        dtype=torch.float32,
        use_safetensors=not checkpoint.pickled,
        attn_implementation="eager",
        ignore_mismatched_sizes=True,  # so that they are reported below, by name
        output_loading_info=True,
    )
    absent = sorted(report["missing_keys"])
    if absent:
        raise ModelError(
            "the checkpoint lacks {0} weights: {1}{2}; transformers would fill them with random "
            "numbers. Fetch the whole checkpoint",
            len(absent),
            ", ".join(absent[:5]),
            " …" if len(absent) > 5 else "",
        )
    if report["mismatched_keys"]:
        raise ModelError(
            "weights do not fit config.json: {0}; they belong to another model",
            sorted(report["mismatched_keys"])[:3],
        )
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError("weight {0} holds NaN or infinity; fetch the checkpoint again", name)
    return model.eval().requires_grad_(False)


def _score(model: Any) -> Score:
    scale = math.exp(float(model.logit_scale))
    bias = getattr(model, "logit_bias", None)
    if bias is None:
        return Score(kind="softmax", logit_scale=scale)
    return Score(kind="sigmoid", logit_scale=scale, logit_bias=float(bias))


@torch.no_grad()
def _embedding_dim(text: nn.Module, length: int) -> int:
    return int(text(torch.zeros(1, length, dtype=torch.int64)).shape[1])
