"""The family of EVA-CLIP models of the second generation (EVA02-CLIP): their checkpoints in, models for export out.

They were trained on squares cut out of the middle of images, bicubically resized; super images are bicubic for all
families, and whole frames.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping

import numpy as np
from torch import Tensor, nn

from .clip import ClipTextsForExport, require_gelu, with_vocabulary
from .eva_checkpoint import build_model, read_config
from .eva_layouts import has_eva_layout
from .eva_model import EvaClip, GatedMLP
from .family import LoadOptions
from .graph_writer import CONTRIB, GraphWriter, fold_preprocessing
from .transformer_graph import attention, cut_patches, embeddings, super_images
from .weights import Weights


def recognises(weights: Weights) -> bool:
    """Whether a checkpoint has what only EVA's layers have, in open_clip's layout or BAAI's."""
    return has_eva_layout(weights.tensors)


def load(weights: Weights, options: LoadOptions) -> EvaForExport:
    """Make the torch model, with the special tokens that its vocabulary, which is OpenAI's, names."""
    require_gelu(weights, options, "an EVA02-CLIP model, whose texts' activation")
    config, tokenizer = with_vocabulary(read_config(weights), weights, options)
    model = build_model(weights, config, image_size=options.image_size, context_length=options.context_length)
    return EvaForExport(model, tokenizer)


@dataclasses.dataclass(frozen=True)
class EvaForExport(ClipTextsForExport):
    """An EVA-CLIP model."""

    family = "eva"

    model: EvaClip

    @property
    def attention_layers(self) -> Mapping[str, int]:
        return {"image": self.model.config.vision_layers, "text": self.model.config.text_layers}

    @property
    def cells(self) -> None:
        """None: there is no graph of class tokens that see a cell only, though the class token would allow one."""
        return None

    def linear_layers(self) -> Iterator[tuple[nn.Module, Tensor]]:
        yield from self.model.visual.linear_layers()
        yield from self.model.transformer.linear_layers()

    def embed_images(self, super_images: Tensor) -> Tensor:
        embedded: Tensor = self.model.visual(self.pixels(super_images))
        return embedded

    def write_image_graph(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        config, visual = self.model.config, self.model.visual
        with GraphWriter(path, precision, keep_fp32) as graph:
            x = _layers(graph, _tokens(graph, self.model), self.model)
            x = graph.op("Reshape", x, graph.shape(0, config.vision_width))
            embeddings(graph, x, visual.head.weight.T, visual.head.bias)
            graph.finish([super_images(config.image_size)], ["B", config.embed_dim])


def _tokens(graph: GraphWriter, model: EvaClip) -> str:
    """What enters the image transformer, [B, 1 + P, width]; made in fp32, as pixels reach 255."""
    config, visual = model.config, model.visual
    weight, bias = fold_preprocessing(visual.conv1.weight, config.image_mean, config.image_std)
    if visual.conv1.bias is not None:
        bias = bias + visual.conv1.bias.detach()
    x = cut_patches(graph, config.image_size, config.patch_size)
    x = graph.op("MatMul", x, graph.weight(weight, np.float32))
    # The class token is a first row of zeros plus its embedding, so that one addition gives all rows their terms.
    x = graph.op("Pad", x, graph.constant(np.array([0, 1, 0, 0, 0, 0], np.int64)))
    offsets = visual.positional_embedding.detach().clone()
    offsets[0] += visual.class_embedding.detach()
    offsets[1:] += bias
    return graph.to_compute_type(graph.op("Add", x, graph.weight(offsets, np.float32)))


def _layers(graph: GraphWriter, x: str, model: EvaClip) -> str:
    """All layers of the image transformer and the norm after them, [B, 1 + P, width] to [B, 1, width].

    After the last layer's attention only the class token goes on, as in `transformer_graph.transformer`.
    """
    visual = model.visual
    blocks, rotation = visual.layers, visual.rotation
    norms = [block.ln_1 for block in blocks[1:]] + [visual.ln_post]
    normed = graph.layer_norm(x, blocks[0].ln_1, graph.compute_type)
    for block, next_norm in zip(blocks, norms, strict=True):
        attended = attention(graph, normed, block.attn, rotation)
        if block is blocks[-1]:
            x, attended = (graph.op("Slice", each, *map(graph.ints, (0, 1, 1))) for each in (x, attended))
        attended = graph.layer_norm(attended, block.attn.norm, graph.compute_type)
        x, normed = graph.linear_add_and_norm(x, attended, block.attn.out_proj, block.ln_2)
        x, normed = graph.linear_add_and_norm(x, _hidden(graph, normed, block.mlp), block.mlp.c_proj, next_norm)
    return normed


def _hidden(graph: GraphWriter, x: str, mlp: GatedMLP) -> str:
    """A gated MLP up to its last linear layer; x * sigmoid(x) is QuickGelu with a factor of 1."""
    gates, values = graph.split(graph.linear(x, mlp.c_fc.weight, mlp.c_fc.bias), 2)
    gates = graph.op("QuickGelu", gates, domain=CONTRIB, alpha=1.0)
    return graph.layer_norm(graph.op("Mul", gates, values), mlp.norm, graph.compute_type)
