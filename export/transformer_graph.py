"""A torch transformer in, the nodes of its layers in an ONNX graph out: what the families' graphs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from torch import Tensor, nn

from .graph_writer import CONTRIB, GraphWriter
from .rotation import Rotation
from .transformer import MLP, Attention, AttentionPool, ResidualAttentionBlock, Transformer

# ONNX Runtime's own operators for `transformer.ACTIVATIONS`; its FastGelu is the form with tanh.
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "quick_gelu": ("QuickGelu", {"alpha": 1.702}),
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("FastGelu", {}),
}


def super_images(size_px: int) -> onnx.ValueInfoProto:
    """The input of every image graph."""
    return helper.make_tensor_value_info("super_images", TensorProto.UINT8, ["B", size_px, size_px, 3])


def token_ids() -> onnx.ValueInfoProto:
    """The input of every text graph."""
    return helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["B", "T"])


def cut_patches(graph: GraphWriter, size_px: int, patch_px: int) -> str:
    """The pixels of the super images' patches, float32 [B, P, patch * patch * 3] of 0..255.

    A convolution with stride = kernel is a matrix product over patches. They are cut as uint8, 4 times fewer bytes.
    Where the patch's side does not divide the image's, the rest at the right and the bottom is left out, as a
    convolution without padding does.
    """
    grid = size_px // patch_px
    x = "super_images"
    covered_px = grid * patch_px
    if covered_px != size_px:
        x = graph.op("Slice", x, graph.ints(0, 0), graph.ints(covered_px, covered_px), graph.ints(1, 2))
    x = graph.op("Reshape", x, graph.shape(0, grid, patch_px, grid, patch_px, 3))
    x = graph.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
    x = graph.op("Reshape", x, graph.shape(0, grid * grid, patch_px * patch_px * 3))
    return graph.op("Cast", x, to=TensorProto.FLOAT)


def transformer(
    graph: GraphWriter,
    x: str,
    layers: Transformer,
    *,
    last_norm: nn.LayerNorm,
    pool: Callable[[str], str] | None,
    rotation: Rotation | None = None,
) -> str:
    """All layers and the norm after them, [B, L, width] to [B, 1, width], or [B, L, width] without `pool`.

    Where only one position of the last layer's output is used, everything after its attention is computed for that
    position alone: the same numbers for 1/36 less work with 24 layers.
    """
    blocks = layers.blocks
    norms = [block.ln_1 for block in blocks[1:]] + [last_norm]
    normed = graph.layer_norm(x, blocks[0].ln_1, graph.compute_type)
    for block, next_norm in zip(blocks, norms, strict=True):
        update = attention(graph, normed, block.attn, rotation)
        if block is blocks[-1] and pool is not None:
            x, update = pool(x), pool(update)
        x, normed = after_attention(graph, x, update, block, next_norm)
    return normed


def attention(graph: GraphWriter, x: str, attn: Attention, rotation: Rotation | None) -> str:
    """`Attention.attend` in one fused node; a rotation of queries and keys goes before it."""
    if rotation is None:
        return graph.attention(x, attn.in_proj_weight, attn.in_proj_bias, heads=attn.heads, causal=attn.causal)
    q, k, v = graph.queries_keys_values(x, attn.in_proj_weight, attn.in_proj_bias)
    tables = [graph.weight(table, graph.compute_type) for table in (rotation.angles.cos(), rotation.angles.sin())]
    q, k = (graph.op("RotaryEmbedding", x, graph.ints(0), *tables, domain=CONTRIB, interleaved=1) for x in (q, k))
    return graph.attend(q, k, v, heads=attn.heads)


def after_attention(
    graph: GraphWriter, x: str, update: str, block: ResidualAttentionBlock, next_norm: nn.LayerNorm
) -> tuple[str, str]:
    """A layer from its attention's output projection on; its result, and the norm of it that comes next."""
    x, normed = graph.linear_add_and_norm(x, update, block.attn.out_proj, block.ln_2)
    return graph.linear_add_and_norm(x, _hidden(graph, normed, block.mlp), block.mlp.c_proj, next_norm)


def attention_pool(graph: GraphWriter, x: str, pool: AttentionPool) -> str:
    """`AttentionPool` of tokens [B, L, width], to [B, 1, width]: one fused attention node."""
    query = graph.weight(pool.query(pool.probe), graph.compute_type)
    batch = graph.op("Concat", graph.op("Shape", x, start=0, end=1), graph.ints(1, 1), axis=0)
    kv = graph.linear(x, pool.keys_values.weight, pool.keys_values.bias)
    keys, values = graph.split(kv, 2)
    attended = graph.attend(graph.op("Expand", query, batch), keys, values, heads=pool.heads)
    x = graph.linear(attended, pool.out_proj.weight, pool.out_proj.bias)
    hidden = _hidden(graph, graph.layer_norm(x, pool.norm, graph.compute_type), pool.mlp)
    # Sum, not Add: see `GraphWriter.linear_add_and_norm`.
    return graph.op("Sum", x, graph.linear(hidden, pool.mlp.c_proj.weight, pool.mlp.c_proj.bias))


def _hidden(graph: GraphWriter, x: str, mlp: MLP) -> str:
    operator, attributes = _ACTIVATIONS[mlp.activation]
    hidden = graph.linear(x, mlp.c_fc.weight, mlp.c_fc.bias)
    return graph.op(operator, hidden, domain=CONTRIB, **attributes)


def embeddings(graph: GraphWriter, x: str, projection: Tensor | None = None, bias: Tensor | None = None) -> None:
    """Give [..., width] unit length, projected by [width, D] and `bias` if there are these; always in fp32."""
    x = graph.op("Cast", x, to=TensorProto.FLOAT)
    if projection is not None:
        x = graph.op("MatMul", x, graph.weight(projection, np.float32))
    if bias is not None:
        x = graph.op("Add", x, graph.weight(bias, np.float32))
    length = graph.op("ReduceL2", x, graph.ints(-1), keepdims=1)
    graph.op("Div", x, length, output="embeddings")
