"""Captions in, a byte-level BPE tokenizer in the layout of OpenAI's CLIP vocabulary out."""

from __future__ import annotations

import json
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_bpe(texts: Iterable[str], *, merges: int = 200) -> tokenizers.Tokenizer:
    """Learn at most `merges` merges.

    Ids as in CLIP: 256 bytes, 256 bytes that end a word, merges in the order learned, start token, end token.
    """
    learner = _around(models.BPE(end_of_word_suffix=_WORD_END))
    trainer = trainers.BpeTrainer(
        vocab_size=512 + merges,
        initial_alphabet=_byte_alphabet(),
        end_of_word_suffix=_WORD_END,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    pairs = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]][:merges]
    alphabet = _byte_alphabet()
    names = [*alphabet, *(letter + _WORD_END for letter in alphabet), *map("".join, pairs), START_TOKEN, END_TOKEN]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tokenizer = _around(models.BPE(vocab=vocabulary, merges=pairs, end_of_word_suffix=_WORD_END, unk_token=END_TOKEN))
    tokenizer.add_special_tokens([START_TOKEN, END_TOKEN])
    return tokenizer


def _around(model: models.BPE) -> tokenizers.Tokenizer:
    """CLIP's cleaning and word splitting around a BPE model."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.BPEDecoder(suffix=_WORD_END)
    return tokenizer


def _byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes: printable ones first, as in GPT-2 and CLIP, then the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in printable] + [chr(256 + number) for number in range(256 - len(printable))]
