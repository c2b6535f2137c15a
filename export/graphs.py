"""A torch CLIP model in, its image and text ONNX graphs out, built node by node with ONNX Runtime's fused operators.

Building the graphs directly, instead of tracing torch and rewriting the result, makes fused attention a fact rather
than a pattern that some optimiser may miss, takes seconds, and needs little memory: weights go straight to the
external data file, one at a time.

Layout: the image graph takes "super_images" uint8 [B, S, S, 3], the text graph "token_ids" int64 [B, T] with
T <= context_length; both give "embeddings" float32 [B, D] of unit length.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from .clip_model import CLIP, Attention, ClipConfig, Transformer

PRECISIONS = ("fp32", "fp16", "int8")

# 7 bits per weight, not 8: CPUs without VNNI add two uint8 * int8 products in 16 bits, and 2 * 255 * 63 is the largest
# that fits. Embeddings are then the same on every CPU; how coarse the activations are matters far more than this bit.
_WEIGHT_LIMIT = 63

_OPSET = 18
_IR_VERSION = 9
_CONTRIB = "com.microsoft"

# ONNX Runtime maps external data into memory when it starts at a page bound.
_PAGE_BYTES = 4096
# Smaller tensors stay in the .onnx file, where a viewer can show them.
_EXTERNAL_BYTES = 1024


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
    with _GraphWriter(path, precision, keep_fp32) as graph:
        # A convolution with stride = kernel is a matrix product over patches. Cut them as uint8, 4 times fewer bytes.
        x = graph.op("Reshape", "super_images", graph.shape(0, grid, patch, grid, patch, 3))
        x = graph.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
        x = graph.op("Reshape", x, graph.shape(0, grid * grid, patch * patch * 3))
        x = graph.op("Cast", x, to=TensorProto.FLOAT)
        weight, bias = fold_preprocessing(visual.conv1.weight, config)
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
    with _GraphWriter(path, precision, keep_fp32) as graph:
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


def fold_preprocessing(conv_weight: Tensor, config: ClipConfig) -> tuple[Tensor, Tensor]:
    """Fold (pixel / 255 - mean) / std into the patch projection.

    Args:
        conv_weight: float [width, 3, patch, patch], for normalised pixels.
        config: gives mean and std.

    Returns:
        weight float [patch * patch * 3, width] for raw 0..255 pixels of a patch in row, column, channel order, and the
        bias float [width] that the means come to. Both are computed in float64: the bias is a sum of many terms.
    """
    per_level = conv_weight.detach().double() / (255 * torch.tensor(config.image_std).double()).view(1, 3, 1, 1)
    bias = -(per_level * (255 * torch.tensor(config.image_mean).double()).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    return per_level.permute(2, 3, 1, 0).flatten(0, 2).float(), bias.float()


def _transformer(
    graph: _GraphWriter, x: str, transformer: Transformer, *, last_norm: nn.LayerNorm, pool: Callable[[str], str]
) -> str:
    """All layers and the norm after them, [B, L, width] to [B, 1, width].

    Only one position of the last layer's output is used, so everything after its attention is computed for that
    position alone: the same numbers for 1/36 less work with 24 layers.
    """
    blocks = transformer.blocks
    norms = [block.ln_1 for block in blocks[1:]] + [last_norm]
    normed = graph.layer_norm(x, blocks[0].ln_1, graph.compute_type)
    for block, next_norm in zip(blocks, norms, strict=True):
        update = graph.attention(normed, block.attn)
        if block is blocks[-1]:
            x, update = pool(x), pool(update)
        x, normed = graph.linear_add_and_norm(x, update, block.attn.out_proj, block.ln_2)
        hidden = graph.linear(normed, block.mlp.c_fc.weight, block.mlp.c_fc.bias)
        if isinstance(block.mlp.gelu, nn.GELU):
            hidden = graph.op("Gelu", hidden, domain=_CONTRIB)
        else:
            hidden = graph.op("QuickGelu", hidden, domain=_CONTRIB, alpha=1.702)
        x, normed = graph.linear_add_and_norm(x, hidden, block.mlp.c_proj, next_norm)
    return normed


def _embeddings(graph: _GraphWriter, x: str, projection: Tensor, width: int) -> None:
    """Project [B, 1, width] and give it unit length, in fp32 whatever the precision."""
    x = graph.op("Cast", graph.op("Reshape", x, graph.shape(0, width)), to=TensorProto.FLOAT)
    x = graph.op("MatMul", x, graph.weight(projection, np.float32))
    length = graph.op("ReduceL2", x, graph.ints(1), keepdims=1)
    graph.op("Div", x, length, output="embeddings")


class _GraphWriter:
    """Collects nodes and streams weights to the external data file; the precision decides how layers are written."""

    def __init__(self, path: pathlib.Path, precision: str, keep_fp32: Collection[Tensor]) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision ({precision!r}) must be one of {', '.join(PRECISIONS)}")
        self.precision = precision
        self.compute_type = np.dtype(np.float16 if precision == "fp16" else np.float32)
        self._path = path
        self._keep_fp32 = {id(weight) for weight in keep_fp32}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._constants: dict[bytes, str] = {}

    def __enter__(self) -> _GraphWriter:
        self._data = open(self._path.with_name(self._path.name + ".data"), "wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()

    def finish(self, inputs: list[onnx.ValueInfoProto], embed_dim: int) -> None:
        """Write the .onnx file."""
        outputs = [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["B", embed_dim])]
        graph = helper.make_graph(self._nodes, self._path.stem, inputs, outputs, self._initializers)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="gridclip")
        self._path.write_bytes(model.SerializeToString())

    def op(self, op_type: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its (first) output."""
        output = output or f"{op_type}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [output], domain=domain, **attributes))
        return output

    def weight(self, tensor: Tensor, dtype: np.typing.DTypeLike) -> str:
        """Add an initializer, large ones in the external data file."""
        return self.constant(tensor.detach().to("cpu", torch.float32).numpy().astype(dtype, copy=False))

    def constant(self, array: np.ndarray) -> str:
        """Add an initializer with the array's own type; equal small ones are shared."""
        raw = np.ascontiguousarray(array).tobytes()
        name = f"weight_{len(self._initializers)}"
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        if len(raw) < _EXTERNAL_BYTES:
            key = f"{array.dtype}{array.shape}".encode() + raw
            if key in self._constants:
                return self._constants[key]
            self._constants[key] = name
            tensor.raw_data = raw
        else:
            self._data.write(b"\0" * (-self._data.tell() % _PAGE_BYTES))
            location = {"location": pathlib.Path(self._data.name).name, "offset": self._data.tell(), "length": len(raw)}
            tensor.data_location = TensorProto.EXTERNAL
            for entry, value in location.items():
                tensor.external_data.add(key=entry, value=str(value))
            self._data.write(raw)
        self._initializers.append(tensor)
        return name

    def ints(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    shape = ints

    def to_compute_type(self, x: str) -> str:
        """Cast fp32 to the type that the transformer runs in."""
        return self.op("Cast", x, to=TensorProto.FLOAT16) if self.precision == "fp16" else x

    def layer_norm(self, x: str, norm: nn.LayerNorm, dtype: np.typing.DTypeLike) -> str:
        """LayerNorm over the last axis; ONNX Runtime's kernels compute its statistics in fp32."""
        scale, bias = self.weight(norm.weight, dtype), self.weight(norm.bias, dtype)
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=norm.eps)

    def linear(self, x: str, weight: Tensor, bias: Tensor) -> str:
        """x @ weight.T + bias for a torch linear layer's [out, in] weight."""
        if self.precision == "int8" and id(weight) not in self._keep_fp32:
            quantised, scale = quantise_per_channel(weight.detach().float())
            zero_point = self.constant(np.zeros(len(scale), np.int8))
            return self.op(
                "DynamicQuantizeMatMul",
                x,
                self.constant(quantised.T.contiguous().numpy()),
                self.constant(scale.numpy()),
                zero_point,
                self.weight(bias, np.float32),
                domain=_CONTRIB,
            )
        product = self.op("MatMul", x, self.weight(weight.T, self.compute_type))
        return self.op("Add", product, self.weight(bias, self.compute_type))

    def attention(self, x: str, attention: Attention) -> str:
        """Fused multi-head attention up to the output projection, [B, L, width] to the same."""
        heads: dict[str, Any] = {"num_heads": attention.heads, "unidirectional": int(attention.causal)}
        if self.precision == "int8":
            qkv = self.linear(x, attention.in_proj_weight, attention.in_proj_bias)
            parts = [f"{qkv}_{part}" for part in "qkv"]
            self._nodes.append(helper.make_node("Split", [qkv], parts, axis=-1, num_outputs=3))
            return self.op("MultiHeadAttention", *parts, domain=_CONTRIB, **heads)
        weight = self.weight(attention.in_proj_weight.T, self.compute_type)
        bias = self.weight(attention.in_proj_bias, self.compute_type)
        return self.op("Attention", x, weight, bias, domain=_CONTRIB, **heads)

    def linear_add_and_norm(self, x: str, y: str, linear: nn.Linear, norm: nn.LayerNorm) -> tuple[str, str]:
        """x + y @ linear.weight.T + linear.bias, and its LayerNorm."""
        if self.precision == "fp16":
            update = self.op("MatMul", y, self.weight(linear.weight.T, np.float16))
            normed, total = (f"SkipLayerNormalization_{len(self._nodes)}_{part}" for part in ("normed", "sum"))
            scale, bias = self.weight(norm.weight, np.float16), self.weight(norm.bias, np.float16)
            self._nodes.append(
                helper.make_node(
                    "SkipLayerNormalization",
                    [x, update, scale, bias, self.weight(linear.bias, np.float16)],
                    [normed, "", "", total],
                    domain=_CONTRIB,
                    epsilon=norm.eps,
                )
            )
            return total, normed
        # Sum, not Add: ONNX Runtime fuses Add + LayerNormalization into SkipLayerNormalization, whose CPU kernel is
        # several times slower than the two apart, also with the bias as its fifth input.
        total = self.op("Sum", x, self.linear(y, linear.weight, linear.bias))
        return total, self.layer_norm(total, norm, np.float32)


def count_fused_attention(path: pathlib.Path) -> int:
    """Nodes of a graph file that ONNX Runtime runs with a fused attention kernel."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return sum(node.domain == _CONTRIB and node.op_type in ("Attention", "MultiHeadAttention") for node in nodes)


def quantise_per_channel(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric quantisation of each output channel.

    Args:
        weight: float [out, in].

    Returns:
        int8 [out, in] within +-63, and float [out]: the scale to multiply it with.
    """
    scale = weight.abs().amax(dim=1).clamp_min(1e-12) / _WEIGHT_LIMIT
    return (weight / scale[:, None]).round().to(torch.int8), scale
