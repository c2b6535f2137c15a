"""The family of SigLIP and SigLIP 2 models of a fixed resolution: their checkpoints in, models for export out.

Both were trained on images resized to squares without a crop, SigLIP bicubically and SigLIP 2 bilinearly; super images
are bicubic for all families.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import tokenizers
from tokenizers import normalizers
from torch import Tensor, nn

from .. import GridClipError
from .clip_model import normalise_pixels
from .family import LoadOptions
from .graph_writer import GraphWriter, fold_preprocessing
from .model_info import ModelFacts
from .siglip_checkpoint import TextForm, build_model, vocabulary_size
from .siglip_model import Siglip
from .tokenizer_files import load_vocabulary
from .transformer_graph import attention_pool, cut_patches, embeddings, super_images, token_ids, transformer
from .weights import Weights

# Either is in no other family. The patch projection of SigLIP 2's models for images of any shape (NaFlex) is refused by
# `build_model`.
_MARKS = ("vision_model.head.probe", "logit_bias")


def recognises(weights: Weights) -> bool:
    """Whether a checkpoint has the attention pooling or the bias of the logits of Hugging Face's SigLIP."""
    return any(mark in weights.tensors for mark in _MARKS) and any(
        name.startswith(("vision_model.", "text_model.")) for name in weights.tensors
    )


def load(weights: Weights, options: LoadOptions) -> SiglipForExport:
    """Make the torch model, with the form of a text that its vocabulary is of."""
    if options.activation is not None:
        raise GridClipError(
            f"{weights.path} is a SigLIP model, all of which have one activation: leave out `activation` "
            f"({options.activation!r})"
        )
    vocabulary = load_vocabulary(weights.path, vocabulary_size(weights), options.tokenizer).tokenizer
    model = build_model(weights, _text_form(vocabulary, weights), options.image_size)
    length = model.config.context_length
    if options.context_length not in (None, length):
        raise GridClipError(
            f"context length {options.context_length} does not suit {weights.path.name}: a SigLIP model reads a "
            f"text at the last of its {length} positions; leave out `context_length`"
        )
    return SiglipForExport(model, vocabulary)


def _text_form(vocabulary: tokenizers.Tokenizer, weights: Weights) -> TextForm:
    """SigLIP 2's vocabulary is Gemma's, whose end token is <eos>; SigLIP's is a SentencePiece one as T5's.

    SigLIP 2's texts are turned to lower case, as a part of its tokenizer: transformers' Siglip2Tokenizer does so, but
    not the tokenizer.json files. Gemma's vocabulary knows "</s>", too, so it comes first.
    """
    end, pad = vocabulary.token_to_id("<eos>"), vocabulary.token_to_id("<pad>")
    if end is not None and pad is not None:
        before = [] if vocabulary.normalizer is None else [vocabulary.normalizer]
        vocabulary.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])
        return TextForm(end_token=end, pad_token=pad, text_cleaning="none")
    end = vocabulary.token_to_id("</s>")
    if end is None:
        raise GridClipError(
            f"the vocabulary of {weights.path} has neither the end token '</s>' of SigLIP nor '<eos>' and '<pad>' of "
            "SigLIP 2: pass the right one as `tokenizer`"
        )
    return TextForm(end_token=end, pad_token=end, text_cleaning="siglip")


@dataclasses.dataclass(frozen=True)
class SiglipForExport:
    """A SigLIP model with its vocabulary; see `family.TorchModel`."""

    model: Siglip
    tokenizer: tokenizers.Tokenizer

    @property
    def facts(self) -> ModelFacts:
        config = self.model.config
        return ModelFacts(
            family="siglip",
            image_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            context_length=config.context_length,
            vocab_size=config.vocab_size,
            start_token=None,
            end_token=config.end_token,
            pad_token=config.pad_token,
            causal_text=False,
            pooling="last_token",
            text_cleaning=config.text_cleaning,
            activation=config.activation,
            logit_scale=float(self.model.logit_scale.exp()),
            logit_bias=float(self.model.logit_bias),
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"family": "siglip", **dataclasses.asdict(self.model.config)}

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    @property
    def attention_layers(self) -> Mapping[str, int]:
        """The pooling of images is attention, too."""
        return {"image": self.model.config.layers + 1, "text": self.model.config.text_layers}

    @property
    def cells(self) -> None:
        """None: there is no class token that could be made to see the patches of a cell only."""
        return None

    def linear_layers(self) -> Iterator[tuple[nn.Module, Tensor]]:
        yield from self.model.image_layers.linear_layers()
        yield from self.model.pool.linear_layers()
        yield from self.model.text_layers.linear_layers()

    def embed_images(self, super_images: Tensor) -> Tensor:
        config = self.model.config
        return self.model.encode_image(normalise_pixels(super_images, config.image_mean, config.image_std))

    def embed_texts(self, token_ids: Tensor) -> Tensor:
        return self.model.encode_text(token_ids)

    def write_image_graph(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        model, config = self.model, self.model.config
        with GraphWriter(path, precision, keep_fp32) as graph:
            weight, bias = fold_preprocessing(model.patches.weight, config.image_mean, config.image_std)
            if model.patches.bias is not None:
                bias = bias + model.patches.bias.detach()
            x = cut_patches(graph, config.image_size, config.patch_size)
            x = graph.op("MatMul", x, graph.weight(weight, np.float32))
            # Patches stay in fp32 whatever the precision: 0.1% of the work, and pixels reach 255.
            x = graph.op("Add", x, graph.weight(model.patch_positions.detach() + bias, np.float32))
            x = graph.to_compute_type(x)
            x = transformer(graph, x, model.image_layers, last_norm=model.image_norm, pool=None)
            x = attention_pool(graph, x, model.pool)
            embeddings(graph, graph.op("Reshape", x, graph.shape(0, config.width)))
            graph.finish([super_images(config.image_size)], ["B", config.width])

    def write_text_graph(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        model, config = self.model, self.model.config
        with GraphWriter(path, precision, keep_fp32) as graph:
            x = graph.op("Gather", graph.weight(model.tokens.weight, graph.compute_type), "token_ids")
            x = graph.op("Add", x, graph.weight(model.token_positions, graph.compute_type))

            def last_token(x: str) -> str:
                end = config.context_length
                return graph.op("Slice", x, graph.ints(end - 1), graph.ints(end), graph.ints(1))

            x = transformer(graph, x, model.text_layers, last_norm=model.text_norm, pool=last_token)
            x = graph.op("Reshape", x, graph.shape(0, config.text_width))
            embeddings(graph, x, model.text_projection.weight.T, model.text_projection.bias)
            graph.finish([token_ids()], ["B", config.width])
