"""The family of MetaCLIP 2 models: their checkpoints in, models for export out.

They are CLIP models for texts in many languages: the towers are CLIP's, the vocabulary is XLM-V's. A text is tokenised
as it is, and read at its first end token, as `WorldWideCLIP` in facebookresearch/MetaCLIP and transformers' MetaClip2
do. Tokens see none after them, so that padding does not count. Those with mT5's vocabulary are read in another way, and
are not of this family.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tokenizers

from .. import GridClipError
from .clip import ClipForExport
from .clip_checkpoint import build_model, read_checkpoint
from .family import LoadOptions
from .model_info import ModelFacts
from .tokenizer_files import load_vocabulary
from .weights import Weights

XLM_V_TOKENS = 901_629
_MODEL_TYPE = "metaclip_2"
_START, _PAD, _END = "<s>", "<pad>", "</s>"


def recognises(weights: Weights) -> bool:
    """Whether a folder says so (Hugging Face), or a checkpoint has as many tokens as XLM-V (Meta's, open_clip's)."""
    config = weights.read_config("config.json")
    if config is not None and "model_type" in config:
        return bool(config["model_type"] == _MODEL_TYPE)
    embedding = weights.tensors.get("token_embedding.weight", weights.tensors.get("text.token_embedding.weight"))
    return embedding is not None and len(embedding) == XLM_V_TOKENS


def load(weights: Weights, options: LoadOptions) -> MetaClip2ForExport:
    """Make the torch model, with the special tokens of its vocabulary."""
    checkpoint = read_checkpoint(weights, activation=options.activation)
    vocabulary = load_vocabulary(weights.path, checkpoint.config.vocab_size, options.tokenizer).tokenizer
    start, pad, end = (_special_token(vocabulary, name, weights) for name in (_START, _PAD, _END))
    config = dataclasses.replace(checkpoint.config, start_token=start, end_token=end)
    model = build_model(
        dataclasses.replace(checkpoint, config=config),
        image_size=options.image_size,
        context_length=options.context_length,
    )
    return MetaClip2ForExport(model, vocabulary, pad)


def _special_token(vocabulary: tokenizers.Tokenizer, name: str, weights: Weights) -> int:
    token = vocabulary.token_to_id(name)
    if token is None:
        raise GridClipError(
            f"the vocabulary of {weights.path} has no {name!r}, which XLM-V's has: pass that one's tokenizer.json as "
            "`tokenizer`"
        )
    return token


@dataclasses.dataclass(frozen=True)
class MetaClip2ForExport(ClipForExport):
    """A MetaCLIP 2 model.

    Attributes:
        pad_token: fills rows of token ids.
    """

    family = "metaclip2"

    pad_token: int

    @property
    def facts(self) -> ModelFacts:
        return dataclasses.replace(super().facts, pad_token=self.pad_token, text_cleaning="none")

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"family": self.family, **dataclasses.asdict(self.model.config), "pad_token": self.pad_token}
