"""Captions in, CLIP token ids int64 [Q, T] out, cleaned as OpenAI's tokenizer does."""

from __future__ import annotations

import html
import pathlib
import re
from collections.abc import Sequence

import ftfy
import numpy as np
import tokenizers

from ... import GridClipError
from .model_folder import read_info


class Tokenizer:
    """The tokenizer of a model folder.

    Args:
        model_dir: a model folder.

    Raises:
        GridClipError: it is none, or its tokenizer.json is missing or damaged.
    """

    def __init__(self, model_dir: pathlib.Path) -> None:
        info = read_info(model_dir)
        self.context_length: int = info["context_length"]
        self._start: int = info["start_token"]
        self._end: int = info["end_token"]
        path = model_dir / "tokenizer.json"
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            raise GridClipError(f"{path} cannot be read: {error}; export the model again") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def __call__(
        self, texts: Sequence[str], *, max_chars: int | None = None, max_length: int | None = None
    ) -> np.ndarray:
        """The ids of each text between start and end token, cut to fit with the end token kept, zeros after it.

        Args:
            texts: Q captions.
            max_chars: cut each text to so many characters before anything else, >= 1.
            max_length: most tokens of a text, start and end included, in [3, context_length]; default context_length.

        Returns:
            int64 [Q, T], T = max_length.
        """
        if max_chars is not None and max_chars < 1:
            raise ValueError(f"max_chars ({max_chars}) must be >= 1")
        if max_length is None:
            max_length = self.context_length
        elif not 3 <= max_length <= self.context_length:
            raise ValueError(f"max_length ({max_length}) must be in [3, {self.context_length}], the context length")
        encodings = self._tokenizer.encode_batch([clean(text[:max_chars]) for text in texts], add_special_tokens=False)
        token_ids = np.zeros((len(texts), max_length), np.int64)
        for row, encoding in zip(token_ids, encodings, strict=True):
            ids = [self._start, *encoding.ids[: max_length - 2], self._end]
            row[: len(ids)] = ids
        return token_ids


def clean(text: str) -> str:
    """A text as OpenAI's tokenizer sees it: Unicode mended, entities resolved, single spaces, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text.strip()).strip().lower()
