"""An encoder family as small as one can be: docs/recipes/encoder-family.md carried out.

An image is its mean colour, a text the mean of its letters' vectors, both times a matrix. Nothing of it is as in CLIP:
there is no start token, padding is not 0 and counts, capitals are letters of their own, and nothing is causal.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import tokenizers
import torch
from gridclip import GridClipError
from gridclip.export.family import LoadOptions
from gridclip.export.graph_writer import GraphWriter
from gridclip.export.model_info import ModelFacts
from gridclip.export.weights import Weights
from onnx import TensorProto, helper
from torch import Tensor, nn

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,'-"
UNKNOWN, END, PAD = len(LETTERS), len(LETTERS) + 1, len(LETTERS) + 2
IMAGE_SIZE_PX, CONTEXT_LENGTH = 16, 40


def recognises(weights: Weights) -> bool:
    return "toy.image" in weights.tensors


def load(weights: Weights, options: LoadOptions) -> ToyModel:
    if options.activation is not None:
        raise GridClipError(f"{weights.path}: a toy has no activation, not even {options.activation!r}")
    return ToyModel(
        weights.tensors["toy.image"],
        weights.tensors["toy.text"],
        options.image_size or IMAGE_SIZE_PX,
        options.context_length or CONTEXT_LENGTH,
    )


@dataclasses.dataclass(frozen=True)
class ToyModel:
    """Float [3, D] for colours, float [letters, D] for texts."""

    image: Tensor
    text: Tensor
    image_size: int
    context_length: int

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(
            family="toy",
            image_size=self.image_size,
            embed_dim=self.image.shape[1],
            context_length=self.context_length,
            vocab_size=len(self.text),
            start_token=None,
            end_token=END,
            pad_token=PAD,
            causal_text=False,
            pooling="mean",
            text_cleaning="none",
        )

    @property
    def tokenizer(self) -> tokenizers.Tokenizer:
        words = {letter: index for index, letter in enumerate(LETTERS)} | {"?": UNKNOWN}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
        return tokenizer

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"image_size": self.image_size, "context_length": self.context_length}

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return {"image": self.image, "text": self.text}

    @property
    def attention_layers(self) -> Mapping[str, int]:
        return {"image": 0, "text": 0}

    @property
    def cells(self) -> None:
        return None

    def linear_layers(self) -> Iterable[tuple[nn.Module, Tensor]]:
        return ()

    def embed_images(self, super_images: Tensor) -> Tensor:
        return super_images.float().mean(dim=(1, 2)) @ self.image

    def embed_texts(self, token_ids: Tensor) -> Tensor:
        return self.text[token_ids].mean(dim=1)

    def write_image_graph(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        with GraphWriter(path, precision, keep_fp32) as graph:
            pixels = graph.op("Cast", "super_images", to=TensorProto.FLOAT)
            colour = graph.op("ReduceMean", pixels, graph.ints(1, 2), keepdims=0)
            x = graph.op("MatMul", colour, graph.weight(self.image, np.float32))
            size = [self.image_size] * 2
            self._finish(graph, x, helper.make_tensor_value_info("super_images", TensorProto.UINT8, ["B", *size, 3]))

    def write_text_graph(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        with GraphWriter(path, precision, keep_fp32) as graph:
            x = graph.op("Gather", graph.weight(self.text, np.float32), "token_ids")
            x = graph.op("ReduceMean", x, graph.ints(1), keepdims=0)
            self._finish(graph, x, helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["B", "T"]))

    def _finish(self, graph: GraphWriter, x: str, graph_input: Any) -> None:
        graph.op("Div", x, graph.op("ReduceL2", x, graph.ints(1), keepdims=1), output="embeddings")
        graph.finish([graph_input], ["B", self.image.shape[1]])


def write_checkpoint(folder: pathlib.Path) -> pathlib.Path:
    """A toy with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(3)
    weights = {
        "toy.image": torch.randn(3, 7, generator=generator),
        "toy.text": torch.randn(PAD + 1, 7, generator=generator),
    }
    torch.save(weights, folder / "toy.pt")
    return folder / "toy.pt"
