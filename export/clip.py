"""The family of CLIP models with a ViT image tower: their checkpoints in, models for export out."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

import tokenizers
import torch
from torch import Tensor, nn

from .. import GridClipError
from .clip_checkpoint import build_model, read_checkpoint
from .clip_graphs import write_cells_graph, write_image_graph, write_text_graph
from .clip_model import CLIP, C, ClipTexts, normalise_pixels
from .family import LoadOptions
from .model_info import ModelFacts
from .tokenizer_files import load_vocabulary
from .weights import Weights

# One of them is in every layout; the last is of the ResNet towers, which get an error of their own.
_MARKS = (
    "visual.conv1.weight",
    "token_embedding.weight",
    "text.token_embedding.weight",
    "vision_model.embeddings.patch_embedding.weight",
    "text_model.embeddings.token_embedding.weight",
    "visual.layer1.0.conv1.weight",
)


def recognises(weights: Weights) -> bool:
    """Whether a checkpoint has a tensor of OpenAI's, open_clip's or Hugging Face's CLIP."""
    return any(mark in weights.tensors for mark in _MARKS)


def load(weights: Weights, options: LoadOptions) -> ClipForExport:
    """Make the torch model, with the special tokens that its vocabulary names."""
    checkpoint = read_checkpoint(weights, activation=options.activation)
    config, tokenizer = with_vocabulary(checkpoint.config, weights, options)
    model = build_model(
        dataclasses.replace(checkpoint, config=config),
        image_size=options.image_size,
        context_length=options.context_length,
    )
    return ClipForExport(model, tokenizer)


def with_vocabulary(config: C, weights: Weights, options: LoadOptions) -> tuple[C, tokenizers.Tokenizer]:
    """The config with the special tokens that the vocabulary of its checkpoint names, and the vocabulary.

    Raises:
        GridClipError: see `load_vocabulary`.
    """
    vocabulary = load_vocabulary(weights.path, config.vocab_size, options.tokenizer)
    return dataclasses.replace(config, **vocabulary.named_tokens), vocabulary.tokenizer


def require_gelu(weights: Weights, options: LoadOptions, what: str) -> None:
    """Refuse another activation for a family that has gelu alone.

    Args:
        weights: of the checkpoint.
        options: what was asked for.
        what: the model, and what of it has the activation: "a PE-Core model, whose activation".
    """
    if options.activation not in (None, "gelu"):
        raise GridClipError(f"{weights.path} is {what} is gelu: leave out `activation` ({options.activation!r})")


@dataclasses.dataclass(frozen=True)
class ClipTextsForExport:
    """What models with CLIP's text tower have in common, with their vocabulary; see `family.TorchModel`.

    Attributes:
        family: its name, a key of `families.FAMILIES`.
    """

    family: ClassVar[str]

    model: ClipTexts
    tokenizer: tokenizers.Tokenizer

    @property
    def facts(self) -> ModelFacts:
        config = self.model.config
        return ModelFacts(
            family=self.family,
            image_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.embed_dim,
            context_length=config.context_length,
            vocab_size=config.vocab_size,
            start_token=config.start_token,
            end_token=config.end_token,
            pad_token=0,
            causal_text=True,
            pooling="end_token",
            text_cleaning="clip",
            activation=config.activation,
            logit_scale=float(self.model.logit_scale.exp()),
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"family": self.family, **dataclasses.asdict(self.model.config)}

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    def pixels(self, super_images: Tensor) -> Tensor:
        """Super images uint8 [B, S, S, 3] as the model was trained to see them, float32 [B, 3, S, S]."""
        config = self.model.config
        return normalise_pixels(super_images, config.image_mean, config.image_std)

    def embed_texts(self, token_ids: Tensor) -> Tensor:
        return self.model.encode_text(token_ids)

    def write_text_graph(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        write_text_graph(self.model, path, precision, keep_fp32)


@dataclasses.dataclass(frozen=True)
class ClipForExport(ClipTextsForExport):
    """A CLIP model."""

    family = "clip"

    model: CLIP

    @property
    def settings(self) -> Mapping[str, Any]:
        """Without the family, as before there were several: stores know their model by it."""
        return dataclasses.asdict(self.model.config)

    @property
    def attention_layers(self) -> Mapping[str, int]:
        return {"image": self.model.config.vision_layers, "text": self.model.config.text_layers}

    @property
    def cells(self) -> ClipCells | None:
        return ClipCells(self) if self.model.config.grid > 1 else None

    def linear_layers(self) -> Iterator[tuple[nn.Module, Tensor]]:
        yield from self.model.visual.transformer.linear_layers()
        yield from self.model.transformer.linear_layers()

    def embed_images(self, super_images: Tensor) -> Tensor:
        return self.model.encode_image(self.pixels(super_images))

    def write_image_graph(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        write_image_graph(self.model, path, precision, keep_fp32)


@dataclasses.dataclass(frozen=True)
class ClipCells:
    """Cells by further class tokens, which see their own patches only; see `family.TorchCells`."""

    clip: ClipForExport

    @property
    def attention_nodes(self) -> int:
        """Two a layer: of class token and patches, and of the cell tokens."""
        return 2 * self.clip.model.config.vision_layers

    def embed(self, super_images: Tensor, cells: int) -> Tensor:
        patches = torch.from_numpy(self.clip.facts.cell_patches(cells))
        return self.clip.model.visual.forward_cells(self.clip.pixels(super_images), patches)

    def write_graph(
        self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor], *, weights_of: pathlib.Path
    ) -> None:
        write_cells_graph(self.clip.model, path, precision, keep_fp32, weights_of=weights_of)
