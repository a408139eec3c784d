"""The starter's SentencePiece model as a `tokenizer.json`: ids equal the package's own.

`tokenizers`, like SentencePiece, takes neighbouring unknown characters for one token; the package
does not. So every character outside the vocabulary is split off first; no piece can reach across.
"""

from __future__ import annotations

from itertools import groupby

from tokenizers import Regex, pre_tokenizers, processors

from wanwu_export.sentencepiece import read_sentencepiece, unigram_tokenizer


def build_tokenizer(sentencepiece: bytes) -> bytes:
    """Convert a SentencePiece unigram model to a `tokenizer.json`, as UTF-8 bytes."""
    pieces, charsmap = read_sentencepiece(sentencepiece)
    tokenizer = unigram_tokenizer(pieces, charsmap)
    alphabet = {character for piece, _ in pieces for character in piece}
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_outside(alphabet)), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer.to_str().encode()


def _outside(alphabet: set[str]) -> str:
    """Give a regular expression for one character that is not in the alphabet."""
    points = sorted(map(ord, alphabet))
    ranges = []
    for _, run in groupby(enumerate(points), key=lambda item: item[1] - item[0]):
        run_points = [point for _, point in run]
        ranges.append(rf"\x{{{run_points[0]:X}}}-\x{{{run_points[-1]:X}}}")
    return f"[^{''.join(ranges)}]"
