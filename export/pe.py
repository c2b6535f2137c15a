"""The family of PE-Core models: their checkpoints in, models for export out.

They were trained on squares, resized bilinearly without a crop; super images are bicubic for all families.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping

import numpy as np
from torch import Tensor, nn

from .clip import ClipTextsForExport, require_gelu, with_vocabulary
from .family import LoadOptions
from .graph_writer import GraphWriter, fold_preprocessing
from .pe_checkpoint import build_model, read_config
from .pe_layouts import has_pe_layout, under_meta_names
from .pe_model import PeCore
from .transformer_graph import attention_pool, cut_patches, embeddings, super_images, transformer
from .weights import Weights


def recognises(weights: Weights) -> bool:
    """Whether a checkpoint has the attention pooling of Meta's or open_clip's layout, and what goes with it."""
    return has_pe_layout(weights.tensors)


def load(weights: Weights, options: LoadOptions) -> PeForExport:
    """Make the torch model, with the special tokens that its vocabulary, which is OpenAI's, names."""
    require_gelu(weights, options, "a PE-Core model, whose activation")
    weights = under_meta_names(weights)
    config, tokenizer = with_vocabulary(read_config(weights), weights, options)
    model = build_model(weights, config, image_size=options.image_size, context_length=options.context_length)
    return PeForExport(model, tokenizer)


@dataclasses.dataclass(frozen=True)
class PeForExport(ClipTextsForExport):
    """A PE-Core model."""

    family = "pe"

    model: PeCore

    @property
    def attention_layers(self) -> Mapping[str, int]:
        """The pooling of images is attention, too."""
        return {"image": self.model.config.vision_layers + 1, "text": self.model.config.text_layers}

    @property
    def cells(self) -> None:
        """None: the class token, where there is one, is one among the tokens that are pooled."""
        return None

    def linear_layers(self) -> Iterator[tuple[nn.Module, Tensor]]:
        yield from self.model.visual.transformer.linear_layers()
        yield from self.model.visual.attn_pool.linear_layers()
        yield from self.model.transformer.linear_layers()

    def embed_images(self, super_images: Tensor) -> Tensor:
        embedded: Tensor = self.model.visual(self.pixels(super_images))
        return embedded

    def write_image_graph(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        config, visual = self.model.config, self.model.visual
        with GraphWriter(path, precision, keep_fp32) as graph:
            x = self._tokens(graph)
            x = transformer(graph, x, visual.transformer, last_norm=visual.ln_post, pool=None, rotation=visual.rotation)
            x = attention_pool(graph, x, visual.attn_pool)
            embeddings(graph, graph.op("Reshape", x, graph.shape(0, config.vision_width)), visual.proj)
            graph.finish([super_images(config.image_size)], ["B", config.embed_dim])

    def _tokens(self, graph: GraphWriter) -> str:
        """What enters the image transformer, [B, L, width]; in fp32 up to the first norm, as pixels reach 255."""
        config, visual = self.model.config, self.model.visual
        weight, bias = fold_preprocessing(visual.conv1.weight, config.image_mean, config.image_std)
        x = cut_patches(graph, config.image_size, config.patch_size)
        x = graph.op("MatMul", x, graph.weight(weight, np.float32))
        offsets = visual.positional_embedding.detach().float().clone()
        if config.class_token:
            # The class token is a first row of zeros, so that one addition gives all rows their terms.
            x = graph.op("Pad", x, graph.constant(np.array([0, 1, 0, 0, 0, 0], np.int64)))
            offsets[0] += visual.class_embedding.detach().float()
        offsets[int(config.class_token) :] += bias
        x = graph.op("Add", x, graph.weight(offsets, np.float32))
        return graph.to_compute_type(graph.layer_norm(x, visual.ln_pre, np.float32))
