"""A checkpoint's tokenizer as a `tokenizer.json`, and what a client must know to use it."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, processors

from wanwu.contract import Text
from wanwu.errors import InputError
from wanwu_export.sentencepiece import read_sentencepiece, unigram_tokenizer

#: transformers' stand-in for "no maximum" is 1e30.
_NO_MAXIMUM = 1_000_000
#: These start counting positions after the padding's id, so two positions more are taken.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "altclip_text_model")


def read_tokenizer(tokenizer: Any) -> bytes:
    """Give a transformers tokenizer as a `tokenizer.json`, without padding or truncation.

    Raises:
        InputError: it is of a kind that `tokenizers` cannot run.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        plain = Tokenizer.from_str(backend.to_str())
        plain.no_padding()
        plain.no_truncation()
        return plain.to_str().encode()
    if type(tokenizer).__name__ == "SiglipTokenizer":
        return _siglip(tokenizer).to_str().encode()
    raise InputError(
        "the checkpoint's tokenizer is a {0}, which runs only in Python; expected one with a "
        "tokenizer.json, or SigLIP's",
        type(tokenizer).__name__,
    )


def read_text_spec(tokenizer: Any, text_config: Any) -> Text:
    """Read how label tokens reach the text tower: maximum length, pad id, padding.

    Raises:
        InputError: the files name no maximum length or no pad token.
    """
    if tokenizer.pad_token_id is None:
        raise InputError(
            "the checkpoint's tokenizer has no pad token; name it in tokenizer_config.json"
        )
    limits = [int(tokenizer.model_max_length), _positions(text_config)]
    known = [limit for limit in limits if 0 < limit < _NO_MAXIMUM]
    if not known:
        raise InputError(
            "the checkpoint names no maximum text length: neither model_max_length in "
            "tokenizer_config.json nor max_position_embeddings in config.json"
        )
    return Text(
        max_length=min(known),
        pad_id=int(tokenizer.pad_token_id),
        lowercase=False,  # the tokenizer's own normaliser does that
        padding="max_length" if pools_the_last_token(text_config) else "longest",
        pad_side=tokenizer.padding_side,
    )


def pools_the_last_token(text_config: Any) -> bool:
    """Tell whether the embedding is read at the last position, padding or not, as SigLIP does."""
    return bool(text_config.model_type == "siglip_text_model")


def _positions(text_config: Any) -> int:
    positions = int(getattr(text_config, "max_position_embeddings", 0) or 0)
    if text_config.model_type in _OFFSET_POSITIONS:
        positions -= int(text_config.pad_token_id) + 1
    return positions


def _siglip(tokenizer: Any) -> Tokenizer:
    """Convert SigLIP's tokenizer: SentencePiece after dropping case and ASCII punctuation."""
    pieces, charsmap = read_sentencepiece(Path(tokenizer.vocab_file).read_bytes())
    punctuation = "".join(rf"\x{{{ord(character):X}}}" for character in string.punctuation)
    canonical = [
        normalizers.Replace("▁", " "),
        normalizers.Replace(Regex(f"[{punctuation}]"), ""),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]
    if tokenizer.do_lower_case:
        canonical.insert(1, normalizers.Lowercase())
    converted = unigram_tokenizer(pieces, charsmap, before=canonical)
    converted.post_processor = processors.TemplateProcessing(
        single=f"$A {tokenizer.eos_token}",
        special_tokens=[(tokenizer.eos_token, tokenizer.eos_token_id)],
    )
    return converted
