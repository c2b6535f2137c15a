"""A torch CLIP model in, its image (with cells, without) and text ONNX graphs out; see `graph_writer.py` for the form.

The text graph takes token ids [B, T] with any T <= context_length.
"""

from __future__ import annotations

import pathlib
from collections.abc import Collection

import numpy as np
from onnx import TensorProto, helper
from torch import Tensor

from .clip_model import CLIP, ClipTexts
from .graph_writer import GraphWriter, fold_preprocessing
from .transformer_graph import after_attention, cut_patches, embeddings, super_images, transformer


def write_image_graph(
    model: CLIP, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor] = frozenset()
) -> None:
    """Write the image graph to `path` and its weights to `path` + ".data".

    Args:
        model: the torch model.
        path: the .onnx file.
        precision: one of PRECISIONS.
        keep_fp32: weights of linear layers that stay in fp32 where the others become int8.
    """
    config, visual = model.config, model.visual
    with GraphWriter(path, precision, keep_fp32) as graph:
        x = _class_token_and_patches(graph, model)
        x = transformer(graph, x, visual.transformer, last_norm=visual.ln_post, pool=lambda x: _class_token(graph, x))
        embeddings(graph, graph.op("Reshape", x, graph.shape(0, config.vision_width)), visual.proj)
        graph.finish([super_images(config.image_size)], ["B", config.embed_dim])


def write_cells_graph(
    model: CLIP,
    path: pathlib.Path,
    precision: str,
    keep_fp32: Collection[Tensor] = frozenset(),
    *,
    weights_of: pathlib.Path,
    cell_layers: int | None = None,
) -> None:
    """Write the image graph with cell tokens to `path`; see `VisionTransformer.forward_cells` for what it computes.

    Which patches a cell has is an input, so that one graph serves every grid size. Cell tokens go through the layers
    beside the others, with the same weights: what is computed for class token and patches is the plain graph's, node
    by node (in int8 a joint pass would share the range of its 8 bits), and they give their keys and values away.

    Args:
        model, path, precision, keep_fp32: as for `write_image_graph`.
        weights_of: the image graph in the same folder, whose weights are used.
        cell_layers: the last layers that have cell tokens, in [1, layers]; default: all.
    """
    config, visual = model.config, model.visual
    layers = config.vision_layers
    cell_layers = layers if cell_layers is None else cell_layers
    if not 1 <= cell_layers <= layers:
        raise ValueError(f"cell_layers ({cell_layers}) must be in [1, {layers}]")
    with GraphWriter(path, precision, keep_fp32, weights_of=weights_of) as graph:
        x, cells = _cells_transformer(graph, _class_token_and_patches(graph, model), model, layers - cell_layers)
        embeddings(graph, graph.op("Concat", x, cells, axis=1), visual.proj)
        cell_patches = helper.make_tensor_value_info("cell_patches", TensorProto.BOOL, ["C", config.grid**2])
        graph.finish([super_images(config.image_size), cell_patches], ["B", "1 + C", config.embed_dim])


def write_text_graph(
    model: ClipTexts, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor] = frozenset()
) -> None:
    """Write the text graph to `path` and its weights to `path` + ".data"; arguments as for the image graph."""
    config = model.config
    with GraphWriter(path, precision, keep_fp32) as graph:
        x = graph.op("Gather", graph.weight(model.token_embedding.weight, graph.compute_type), "token_ids")
        length = graph.op("Shape", "token_ids", start=1, end=2)
        positions = graph.weight(model.positional_embedding, graph.compute_type)
        x = graph.op("Add", x, graph.op("Slice", positions, graph.ints(0), length, graph.ints(0)))
        # ArgMax gives the first of equal values: the first end token, also where end tokens pad the text.
        is_end = graph.op("Equal", "token_ids", graph.constant(np.array(config.end_token, np.int64)))
        is_end = graph.op("Cast", is_end, to=TensorProto.FLOAT)
        end = graph.op("Unsqueeze", graph.op("ArgMax", is_end, axis=1, keepdims=1), graph.ints(2))

        def end_token(x: str) -> str:
            return graph.op("GatherND", x, end, batch_dims=1)

        x = transformer(graph, x, model.transformer, last_norm=model.ln_final, pool=end_token)
        embeddings(graph, graph.op("Reshape", x, graph.shape(0, config.text_width)), model.text_projection)
        graph.finish(
            [helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["B", "T"])], ["B", config.embed_dim]
        )


def _class_token_and_patches(graph: GraphWriter, model: CLIP) -> str:
    """What enters the image transformer, [B, 1 + P, width]."""
    config, visual = model.config, model.visual
    patch = config.patch_size
    weight, bias = fold_preprocessing(visual.conv1.weight, config.image_mean, config.image_std)
    x = graph.op("MatMul", cut_patches(graph, config.image_size, patch), graph.weight(weight, np.float32))
    # The class token is a first row of zeros plus its embedding, so that one addition gives both rows their terms.
    x = graph.op("Pad", x, graph.constant(np.array([0, 1, 0, 0, 0, 0], np.int64)))
    offsets = visual.positional_embedding.detach().float().clone()
    offsets[0] += visual.class_embedding.detach().float()
    offsets[1:] += bias
    x = graph.op("Add", x, graph.weight(offsets, np.float32))
    # Patches and the first norm stay in fp32 whatever the precision: 0.1% of the work, and pixels reach 255.
    return graph.to_compute_type(graph.layer_norm(x, visual.ln_pre, np.float32))


def _class_token(graph: GraphWriter, x: str) -> str:
    """The first position alone, [B, L, width] to [B, 1, width]."""
    return graph.op("Slice", x, graph.ints(0), graph.ints(1), graph.ints(1))


def _cells_transformer(graph: GraphWriter, x: str, model: CLIP, first_layer: int) -> tuple[str, str]:
    """All layers of the image transformer and the norm after them, with cell tokens from `first_layer` on.

    Args:
        x: [B, 1 + P, width].
        first_layer: in [0, layers).

    Returns:
        [B, 1, width], of the class token, and [B, C, width], of the cell tokens.
    """
    blocks = model.visual.transformer.blocks
    norms = [block.ln_1 for block in blocks[1:]] + [model.visual.ln_post]
    normed = graph.layer_norm(x, blocks[0].ln_1, graph.compute_type)
    bias = graph.attention_bias(_visible_to_cells(graph))
    cells = normed_cells = ""
    for index, (block, next_norm) in enumerate(zip(blocks, norms, strict=True)):
        attn = block.attn
        q, k, v = graph.queries_keys_values(normed, attn.in_proj_weight, attn.in_proj_bias)
        update = graph.attend(q, k, v, heads=attn.heads)
        if index == first_layer:
            cells, normed_cells = _for_each_cell(graph, _class_token(graph, x), _class_token(graph, normed))
        if index >= first_layer:
            cell_q, cell_k, cell_v = graph.queries_keys_values(normed_cells, attn.in_proj_weight, attn.in_proj_bias)
            k, v = graph.op("Concat", k, cell_k, axis=1), graph.op("Concat", v, cell_v, axis=1)
            cell_update = graph.attend(cell_q, k, v, heads=attn.heads, bias=bias)
            cells, normed_cells = after_attention(graph, cells, cell_update, block, next_norm)
        if block is blocks[-1]:
            x, update = _class_token(graph, x), _class_token(graph, update)
        x, normed = after_attention(graph, x, update, block, next_norm)
    return normed, normed_cells


def _for_each_cell(graph: GraphWriter, *class_tokens: str) -> list[str]:
    """[B, 1, width] to [B, C, width]: a cell token begins as the class token is."""
    count = graph.op("Shape", "cell_patches", start=0, end=1)
    shape = graph.op("Concat", graph.ints(1), count, graph.ints(1), axis=0)
    return [graph.op("Expand", token, shape) for token in class_tokens]


def _visible_to_cells(graph: GraphWriter) -> str:
    """bool [C, 1 + P + C], which of class token, patches and cell tokens each cell token sees.

    A cell token is one with which it shares patches: itself, for cells do not overlap. So said in operators that run on
    a GPU, without an identity matrix from the CPU, which a CUDA graph could not hold.
    """
    patches = graph.op("Cast", "cell_patches", to=TensorProto.FLOAT)
    shared = graph.op("MatMul", patches, graph.op("Transpose", patches, perm=[1, 0]))
    columns = graph.op("Pad", patches, graph.constant(np.array([0, 1, 0, 0], np.int64)))
    columns = graph.op("Concat", columns, shared, axis=1)
    return graph.op("Greater", columns, graph.constant(np.array(0, np.float32)))
