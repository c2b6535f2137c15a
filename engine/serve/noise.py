"""A model's vocabulary in, nonsense out; its best scores in a store in, the level that an answer has to exceed out."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np

SENTENCES = 64
WORDS = 6  # of a sentence
SEED = 0  # the same level for the same store and model
PERCENTILE = 95.0


@dataclasses.dataclass(frozen=True)
class Noise:
    """What sentences of random words score in a store.

    Attributes:
        level: one in twenty of them has a best video that scores more (their 95th percentile).
        median: half of them have one.
        sentences: how many were tried.
    """

    level: float
    median: float
    sentences: int


def of_scores(best: Sequence[float]) -> Noise:
    """The noise of a store in which the best videos of nonsense have these scores, one or more."""
    median, level = np.percentile(best, [50, PERCENTILE])
    return Noise(float(level), float(median), len(best))


def nonsense(model_dir: pathlib.Path) -> list[str]:
    """Sentences of words drawn at random from the model's vocabulary; none where it has too few whole words.

    Args:
        model_dir: a model folder; its tokenizer.json holds the vocabulary.
    """
    vocabulary = json.loads((model_dir / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    tokens = vocabulary if isinstance(vocabulary, dict) else [token for token, *_ in vocabulary]
    words = sorted({word for word in map(_bare, tokens) if len(word) > 3 and word.isascii() and word.isalpha()})
    if len(words) < WORDS:
        return []
    rng = np.random.default_rng(SEED)
    return [" ".join(rng.choice(words, WORDS, replace=False)) for _ in range(SENTENCES)]


def _bare(token: str) -> str:
    """A token that ends a word (BPE) or begins one (SentencePiece) without its mark; empty for parts of words."""
    if token.endswith("</w>"):
        return token.removesuffix("</w>")
    return token.removeprefix("▁") if token.startswith("▁") else ""
