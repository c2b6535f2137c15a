"""Captions in, token ids int64 [Q, T] out, cleaned, framed and padded as the model folder says."""

from __future__ import annotations

import html
import pathlib
import re
import string
from collections.abc import Callable, Sequence

import ftfy
import numpy as np
import tokenizers

from ... import GridClipError
from ...export.model_info import read_model_info


class Tokenizer:
    """The tokenizer of a model folder.

    Args:
        model_dir: a model folder.

    Raises:
        GridClipError: it is none, or its tokenizer.json is missing or damaged.
    """

    def __init__(self, model_dir: pathlib.Path) -> None:
        self._info = read_model_info(model_dir)
        self._clean = CLEANINGS[self._info.text_cleaning]
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
        """The ids of each text between start and end token, cut to fit with the end token kept, padding after it.

        Args:
            texts: Q captions.
            max_chars: cut each text to so many characters before anything else, >= 1.
            max_length: most tokens of a text, start and end included, in [3, context_length]; default context_length.

        Returns:
            int64 [Q, T], T = max_length; where padding counts in the model, T = context_length always.
        """
        if max_chars is not None and max_chars < 1:
            raise ValueError(f"max_chars ({max_chars}) must be >= 1")
        longest = self._info.context_length
        if max_length is not None and not 3 <= max_length <= longest:
            raise ValueError(f"max_length ({max_length}) must be in [3, {longest}], the context length")
        cleaned = [self._clean(text[:max_chars]) for text in texts]
        encodings = self._tokenizer.encode_batch(cleaned, add_special_tokens=False)
        rows = [self._info.make_token_row(encoding.ids, max_length) for encoding in encodings]
        return np.array(rows, np.int64).reshape(len(texts), len(rows[0]) if rows else max_length or longest)


def clean_as_clip(text: str) -> str:
    """A text as OpenAI's tokenizer sees it: Unicode mended, entities resolved, single spaces, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text.strip()).strip().lower()


def clean_as_siglip(text: str) -> str:
    """A text as SigLIP was trained on it: lower case, without ASCII punctuation, single spaces."""
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# By `ModelInfo.text_cleaning`.
CLEANINGS: dict[str, Callable[[str], str]] = {"clip": clean_as_clip, "siglip": clean_as_siglip, "none": str}
