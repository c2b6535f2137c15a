"""A torch CLIP model in, its image and text ONNX graphs out, built node by node; see `graph_writer.py` for the form.

The text graph takes token ids [B, T] with any T <= context_length.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection

import numpy as np
from onnx import TensorProto, helper
from torch import Tensor, nn

from .clip_model import CLIP, Transformer
from .graph_writer import CONTRIB, GraphWriter, fold_preprocessing


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
    grid, patch, width = config.grid, config.patch_size, config.vision_width
    with GraphWriter(path, precision, keep_fp32) as graph:
        # A convolution with stride = kernel is a matrix product over patches. Cut them as uint8, 4 times fewer bytes.
        x = graph.op("Reshape", "super_images", graph.shape(0, grid, patch, grid, patch, 3))
        x = graph.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
        x = graph.op("Reshape", x, graph.shape(0, grid * grid, patch * patch * 3))
        x = graph.op("Cast", x, to=TensorProto.FLOAT)
        weight, bias = fold_preprocessing(visual.conv1.weight, config.image_mean, config.image_std)
        x = graph.op("MatMul", x, graph.weight(weight, np.float32))
        # The class token is a first row of zeros plus its embedding, so that one addition gives both rows their terms.
        x = graph.op("Pad", x, graph.constant(np.array([0, 1, 0, 0, 0, 0], np.int64)))
        offsets = visual.positional_embedding.detach().float().clone()
        offsets[0] += visual.class_embedding.detach().float()
        offsets[1:] += bias
        x = graph.op("Add", x, graph.weight(offsets, np.float32))
        # Patches and the first norm stay in fp32 whatever the precision: 0.1% of the work, and pixels reach 255.
        x = graph.to_compute_type(graph.layer_norm(x, visual.ln_pre, np.float32))

        def class_token(x: str) -> str:
            return graph.op("Slice", x, graph.ints(0), graph.ints(1), graph.ints(1))

        x = _transformer(graph, x, visual.transformer, last_norm=visual.ln_post, pool=class_token)
        _embeddings(graph, x, visual.proj, width)
        graph.finish(
            [helper.make_tensor_value_info("super_images", TensorProto.UINT8, ["B", *[config.image_size] * 2, 3])],
            config.embed_dim,
        )


def write_text_graph(
    model: CLIP, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor] = frozenset()
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

        x = _transformer(graph, x, model.transformer, last_norm=model.ln_final, pool=end_token)
        _embeddings(graph, x, model.text_projection, config.text_width)
        graph.finish([helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["B", "T"])], config.embed_dim)


def _transformer(
    graph: GraphWriter, x: str, transformer: Transformer, *, last_norm: nn.LayerNorm, pool: Callable[[str], str]
) -> str:
    """All layers and the norm after them, [B, L, width] to [B, 1, width].

    Only one position of the last layer's output is used, so everything after its attention is computed for that
    position alone: the same numbers for 1/36 less work with 24 layers.
    """
    blocks = transformer.blocks
    norms = [block.ln_1 for block in blocks[1:]] + [last_norm]
    normed = graph.layer_norm(x, blocks[0].ln_1, graph.compute_type)
    for block, next_norm in zip(blocks, norms, strict=True):
        attn = block.attn
        update = graph.attention(normed, attn.in_proj_weight, attn.in_proj_bias, heads=attn.heads, causal=attn.causal)
        if block is blocks[-1]:
            x, update = pool(x), pool(update)
        x, normed = graph.linear_add_and_norm(x, update, block.attn.out_proj, block.ln_2)
        hidden = graph.linear(normed, block.mlp.c_fc.weight, block.mlp.c_fc.bias)
        if isinstance(block.mlp.gelu, nn.GELU):
            hidden = graph.op("Gelu", hidden, domain=CONTRIB)
        else:
            hidden = graph.op("QuickGelu", hidden, domain=CONTRIB, alpha=1.702)
        x, normed = graph.linear_add_and_norm(x, hidden, block.mlp.c_proj, next_norm)
    return normed


def _embeddings(graph: GraphWriter, x: str, projection: Tensor, width: int) -> None:
    """Project [B, 1, width] and give it unit length, in fp32 whatever the precision."""
    x = graph.op("Cast", graph.op("Reshape", x, graph.shape(0, width)), to=TensorProto.FLOAT)
    x = graph.op("MatMul", x, graph.weight(projection, np.float32))
    length = graph.op("ReduceL2", x, graph.ints(1), keepdims=1)
    graph.op("Div", x, length, output="embeddings")
