"""The contract of an encoder family: what export asks of its module, and of the model that the module loads.

docs/recipes/encoder-family.md says how to add one.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

import tokenizers
from torch import Tensor, nn

from .model_info import ModelFacts
from .weights import Weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What an export may ask for; None leaves it to the checkpoint. A family refuses what it cannot do.

    Attributes:
        image_size: side of the super images in pixels.
        context_length: longest text in tokens.
        tokenizer: file or folder of the vocabulary.
        activation: of the MLPs, for checkpoints that do not say.
    """

    image_size: int | None = None
    context_length: int | None = None
    tokenizer: pathlib.Path | None = None
    activation: str | None = None


class TorchCells(Protocol):
    """A model's way to embed, beside a super image, each of its cells in the same pass."""

    @property
    def attention_nodes(self) -> int:
        """Fused attention nodes of the graph."""

    def embed(self, super_images: Tensor, cells: int) -> Tensor:
        """Super images uint8 [B, S, S, 3] of cells x cells frames to float [B, 1 + cells * cells, D], of any length.

        First the super image's own embedding, as `TorchModel.embed_images` gives it, then the cells', row by row. A
        patch is of the cell that `ModelFacts.cell_patches` says.
        """

    def write_graph(
        self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor], *, weights_of: pathlib.Path
    ) -> None:
        """Write the graph of `embed` to `path`; its cells are an input, see `graph_writer` for its form.

        Args:
            path, precision, keep_fp32: as for `TorchModel.write_image_graph`.
            weights_of: the image graph in the same folder: weights that both have are not written twice.
        """


class TorchModel(Protocol):
    """A family's model in torch, with its vocabulary: the reference for the graphs that it writes."""

    @property
    def facts(self) -> ModelFacts:
        """What model.json says of it."""

    @property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """Turns a text (cleaned as `facts.text_cleaning` says) into ids, without start token, end token and padding."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All but the weights that decides what the embeddings are, as JSON values; part of the fingerprint."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """All weights by name; the other part of the fingerprint."""

    @property
    def attention_layers(self) -> Mapping[str, int]:
        """Layers with attention under "image" and "text"; each must be one fused node in its graph."""

    @property
    def cells(self) -> TorchCells | None:
        """How it embeds cells; None where the family has no such way."""

    def linear_layers(self) -> Iterable[tuple[nn.Module, Tensor]]:
        """The layers that int8 may quantise: the module that is called with the layer's input, and the weight."""

    def embed_images(self, super_images: Tensor) -> Tensor:
        """Super images uint8 [B, S, S, 3] to float [B, D], of any length."""

    def embed_texts(self, token_ids: Tensor) -> Tensor:
        """Rows int64 [B, T] as `ModelFacts.make_token_row` makes them to float [B, D], of any length."""

    def write_image_graph(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        """Write the graph of `embed_images` to `path`; see `graph_writer` for its form.

        Args:
            path: the .onnx file; large weights go beside it.
            precision: one of `graph_writer.PRECISIONS`.
            keep_fp32: weights of linear layers that stay in fp32 where the others become int8.
        """

    def write_text_graph(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        """Write the graph of `embed_texts`; arguments as for the image graph."""


class Family(Protocol):
    """A family is a module with these two functions."""

    def recognises(self, weights: Weights) -> bool:
        """Whether a checkpoint is of this family, if perhaps a damaged or unknown kind of it; cheap."""

    def load(self, weights: Weights, options: LoadOptions) -> TorchModel:
        """Make the model of a checkpoint that was recognised.

        Raises:
            GridClipError: a tensor or the vocabulary is missing, unknown or of the wrong shape (it is named), or an
                option does not suit the model.
        """
