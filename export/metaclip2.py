"""The family of MetaCLIP 2 models (CLIP's towers, XLM-V's vocabulary): their checkpoints in, models for export out.

They were trained (facebookresearch/MetaCLIP, src/mini_clip) on texts of XLM-V's tokenizer as they are, upper case and
punctuation included: <s>, the text, </s>, then <pad> up to 77 tokens. The text tower is causal, its embedding is read
at </s>, and the mask that the tokenizer gives for the padding was thrown away; transformers uses it. Either way nothing
that follows </s> is seen there. Images were random crops of 90% of the area or more, bicubically resized to squares.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tokenizers

from .. import GridClipError
from .clip import ClipForExport
from .clip_checkpoint import Kind, build_model, read_checkpoint
from .family import LoadOptions
from .model_info import ModelFacts
from .tokenizer_files import load_vocabulary
from .weights import Weights

# What tells their checkpoints from CLIP's, which have the same tensors: in Hugging Face's layout, in open_clip's, and
# the size of XLM-V's vocabulary in Meta's, which has no config, and where open_clip's names its own place on the hub.
_MODEL_TYPE = "metaclip_2"
_TOKENIZER = "facebook/xlm-v-base"
_VOCAB_SIZE = 901_629
_HUGGING_FACE_TOKENS = "text_model.embeddings.token_embedding.weight"
_TOKEN_EMBEDDINGS = ("token_embedding.weight", "text.token_embedding.weight", _HUGGING_FACE_TOKENS)

_KIND = Kind(name="MetaCLIP 2", text_cfg={"pool_type": "eos", "eos_id": 2}, as_open_clip=True)


def recognises(weights: Weights) -> bool:
    """Whether a config says so, or there is CLIP's token embedding with a row for each of XLM-V's tokens."""
    told = weights.read_config("config.json") or {}
    return (
        told.get("model_type") == _MODEL_TYPE
        or _text_config(weights.read_config("open_clip_config.json")).get("hf_tokenizer_name") == _TOKENIZER
        or any(
            weights.tensors[name].shape[:1] == (_VOCAB_SIZE,) for name in _TOKEN_EMBEDDINGS if name in weights.tensors
        )
    )


def load(weights: Weights, options: LoadOptions) -> MetaClip2ForExport:
    """Make the torch model, with the special tokens of its vocabulary."""
    if _HUGGING_FACE_TOKENS in weights.tensors and weights.read_config("config.json") is None:
        raise GridClipError(
            f"{weights.path} has no config.json beside its weights, and a MetaCLIP 2 model's activation and heads are "
            "not to be seen in them: pass the whole Hugging Face folder"
        )
    checkpoint = read_checkpoint(weights, activation=options.activation, kind=_KIND)
    vocabulary = load_vocabulary(weights.path, checkpoint.config.vocab_size, options.tokenizer).tokenizer
    start, pad, end = (_special_token(vocabulary, token, weights) for token in ("<s>", "<pad>", "</s>"))
    _check_end_token(weights, end)
    config = dataclasses.replace(checkpoint.config, start_token=start, end_token=end)
    model = build_model(
        dataclasses.replace(checkpoint, config=config),
        image_size=options.image_size,
        context_length=options.context_length,
    )
    return MetaClip2ForExport(model, vocabulary, pad)


@dataclasses.dataclass(frozen=True)
class MetaClip2ForExport(ClipForExport):
    """A MetaCLIP 2 model: CLIP with other texts.

    Attributes:
        pad_token: id of <pad>; it decides no embedding, though it is part of the fingerprint.
    """

    family = "metaclip2"

    pad_token: int

    @property
    def facts(self) -> ModelFacts:
        return dataclasses.replace(super().facts, pad_token=self.pad_token, text_cleaning="none")

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"family": self.family, **super().settings, "pad_token": self.pad_token}


def _text_config(open_clip_config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The text tower's part of a config in open_clip's layout; empty where there is none."""
    model = (open_clip_config or {}).get("model_cfg")
    text = model.get("text_cfg") if isinstance(model, dict) else None
    return text if isinstance(text, dict) else {}


def _special_token(vocabulary: tokenizers.Tokenizer, token: str, weights: Weights) -> int:
    found = vocabulary.token_to_id(token)
    if found is None:
        raise GridClipError(
            f"the vocabulary of {weights.path} has no {token!r}: expected XLM-V's ({_TOKENIZER}); pass it as "
            "`tokenizer`. The MetaCLIP 2 models with mT5's vocabulary are not known"
        )
    return found


def _check_end_token(weights: Weights, end_token: int) -> None:
    """Make sure that a Hugging Face config, if there is one, reads a text where the vocabulary ends it."""
    text = (weights.read_config("config.json") or {}).get("text_config")
    told = text.get("eos_token_id", end_token) if isinstance(text, dict) else end_token
    if told != end_token:
        raise GridClipError(
            f"{weights.folder / 'config.json'} says eos_token_id {told!r}, but the vocabulary's '</s>' is {end_token}: "
            "it is the vocabulary of another model; pass the right one as `tokenizer`"
        )
