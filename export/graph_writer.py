"""Nodes and weights in, an ONNX graph of ONNX Runtime's fused operators out: what every family writes its graphs with.

Building the graphs directly, instead of tracing torch and rewriting the result, makes fused attention a fact rather
than a pattern that some optimiser may miss, takes seconds, and needs little memory: weights go straight to the
external data file, one at a time.

Every family's image graph takes "super_images" uint8 [B, S, S, 3] and its text graph "token_ids" int64 [B, T]; both
give "embeddings" float32 [B, D] of unit length. A graph with cells takes "cell_patches" bool [C, P] beside the super
images and gives "embeddings" float32 [B, 1 + C, D]: of the super image, then of each cell.
"""

from __future__ import annotations

import hashlib
import mmap
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

PRECISIONS = ("fp32", "fp16", "int8")
CONTRIB = "com.microsoft"

# 7 bits per weight, not 8: CPUs without VNNI add two uint8 * int8 products in 16 bits, and 2 * 255 * 63 is the largest
# that fits. Embeddings are then the same on every CPU; how coarse the activations are matters far more than this bit.
_WEIGHT_LIMIT = 63

_OPSET = 18
_IR_VERSION = 9

# ONNX Runtime maps external data into memory when it starts at a page bound.
_PAGE_BYTES = 4096
# Smaller tensors stay in the .onnx file, where a viewer can show them.
_EXTERNAL_BYTES = 1024

# What hides a token in attention. Not minus infinity: kernels that go through the keys in blocks make NaN of a block in
# which all is hidden. fp16 holds it, and in fp32, too, the exponential of it is 0.
_HIDDEN = -1e4


class GraphWriter:
    """Collects nodes and streams weights to the external data file; the precision decides how layers are written.

    Args:
        path: the .onnx file; weights go to `path` + ".data".
        precision: one of PRECISIONS.
        keep_fp32: weights of linear layers that stay in fp32 where the others become int8.
        weights_of: a graph in the same folder. What it has in its data file is used from there, and not written again.
    """

    def __init__(
        self,
        path: pathlib.Path,
        precision: str,
        keep_fp32: Collection[Tensor],
        *,
        weights_of: pathlib.Path | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision ({precision!r}) must be one of {', '.join(PRECISIONS)}")
        self.precision = precision
        self.compute_type = np.dtype(np.float16 if precision == "fp16" else np.float32)
        self._path = path
        self._keep_fp32 = {id(weight) for weight in keep_fp32}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._constants: dict[bytes, str] = {}
        self._written = {} if weights_of is None else _find_external(weights_of)

    def __enter__(self) -> GraphWriter:
        self._data = open(self._path.with_name(self._path.name + ".data"), "wb")
        return self

    def __exit__(self, *_: object) -> None:
        empty = not self._data.tell()
        self._data.close()
        if empty:
            pathlib.Path(self._data.name).unlink()

    def finish(self, inputs: list[onnx.ValueInfoProto], embeddings_shape: Sequence[str | int]) -> None:
        """Write the .onnx file."""
        outputs = [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, embeddings_shape)]
        graph = helper.make_graph(self._nodes, self._path.stem, inputs, outputs, self._initializers)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(CONTRIB, 1)]
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
        """Add an initializer with the array's own type; equal ones are shared."""
        raw = np.ascontiguousarray(array).tobytes()
        form = f"{array.dtype}{array.shape}".encode()
        key = form + (raw if len(raw) < _EXTERNAL_BYTES else hashlib.sha256(raw).digest())
        if key in self._constants:
            return self._constants[key]
        name = self._constants[key] = f"weight_{len(self._initializers)}"
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        if len(raw) < _EXTERNAL_BYTES:
            tensor.raw_data = raw
        else:
            tensor.data_location = TensorProto.EXTERNAL
            for entry, value in (self._written.get(key[len(form) :]) or self._write(raw)).items():
                tensor.external_data.add(key=entry, value=value)
        self._initializers.append(tensor)
        return name

    def _write(self, raw: bytes) -> dict[str, str]:
        """Append to the data file, and say where, in ONNX's words."""
        self._data.write(b"\0" * (-self._data.tell() % _PAGE_BYTES))
        offset = self._data.tell()
        self._data.write(raw)
        return {"location": pathlib.Path(self._data.name).name, "offset": str(offset), "length": str(len(raw))}

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
                domain=CONTRIB,
            )
        product = self.op("MatMul", x, self.weight(weight.T, self.compute_type))
        return self.op("Add", product, self.weight(bias, self.compute_type))

    def attention(self, x: str, in_weight: Tensor, in_bias: Tensor, *, heads: int, causal: bool) -> str:
        """Fused multi-head attention up to the output projection, [B, L, width] to the same.

        Args:
            x: its input.
            in_weight: float [3 * width, width], of the queries, keys and values.
            in_bias: float [3 * width].
            heads: number of heads.
            causal: a position attends to itself and those before it only.
        """
        options: dict[str, Any] = {"num_heads": heads, "unidirectional": int(causal)}
        if self.precision == "int8":
            parts = self.queries_keys_values(x, in_weight, in_bias)
            return self.op("MultiHeadAttention", *parts, domain=CONTRIB, **options)
        weight, bias = self.weight(in_weight.T, self.compute_type), self.weight(in_bias, self.compute_type)
        return self.op("Attention", x, weight, bias, domain=CONTRIB, **options)

    def queries_keys_values(self, x: str, in_weight: Tensor, in_bias: Tensor) -> tuple[str, str, str]:
        """The three parts [B, L, width] of a packed projection; arguments as for `attention`."""
        q, k, v = self.split(self.linear(x, in_weight, in_bias), 3)
        return q, k, v

    def split(self, x: str, count: int) -> list[str]:
        """`count` parts of [..., count * width], each [..., width]."""
        parts = [f"{x}_{part}" for part in range(count)]
        self._nodes.append(helper.make_node("Split", [x], parts, axis=-1, num_outputs=count))
        return parts

    def attend(self, q: str, k: str, v: str, *, heads: int, bias: str = "") -> str:
        """Fused multi-head attention of projected tokens up to the output projection.

        Args:
            q: [B, Q, width].
            k, v: [B, K, width].
            heads: number of heads.
            bias: [1, 1, Q, K], what to add to the scores of all heads, as `attention_bias` makes it.

        Returns:
            [B, Q, width].
        """
        inputs = [q, k, v] + (["", "", bias] if bias else [])
        return self.op("MultiHeadAttention", *inputs, domain=CONTRIB, num_heads=heads)

    def attention_bias(self, visible: str) -> str:
        """bool [Q, K], which keys a query sees, to what `attend` adds to the scores."""
        levels = [self.constant(np.array(level, self.compute_type)) for level in (0, _HIDDEN)]
        return self.op("Unsqueeze", self.op("Where", visible, *levels), self.ints(0, 1))

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
                    domain=CONTRIB,
                    epsilon=norm.eps,
                )
            )
            return total, normed
        # Sum, not Add: ONNX Runtime fuses Add + LayerNormalization into SkipLayerNormalization, whose CPU kernel is
        # several times slower than the two apart, also with the bias as its fifth input.
        total = self.op("Sum", x, self.linear(y, linear.weight, linear.bias))
        return total, self.layer_norm(total, norm, np.float32)


def fold_preprocessing(conv_weight: Tensor, mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Fold (pixel / 255 - mean) / std into a patch projection.

    Args:
        conv_weight: float [width, 3, patch, patch], for normalised pixels.
        mean: per RGB channel, for pixels scaled to 0..1.
        std: the same.

    Returns:
        weight float [patch * patch * 3, width] for raw 0..255 pixels of a patch in row, column, channel order, and the
        bias float [width] that the means come to. Both are computed in float64: the bias is a sum of many terms.
    """
    per_level = conv_weight.detach().double() / (255 * torch.tensor(std).double()).view(1, 3, 1, 1)
    bias = -(per_level * (255 * torch.tensor(mean).double()).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    return per_level.permute(2, 3, 1, 0).flatten(0, 2).float(), bias.float()


def _find_external(path: pathlib.Path) -> dict[bytes, dict[str, str]]:
    """Where a graph's external weights lie, in ONNX's words, by the SHA-256 of their bytes."""
    found = {}
    maps: dict[str, mmap.mmap] = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not place:
            continue
        name = place["location"]
        if name not in maps:
            with open(path.with_name(name), "rb") as file:
                maps[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        first = int(place["offset"])
        found[hashlib.sha256(maps[name][first : first + int(place["length"])]).digest()] = place
    return found


def count_fused_attention(path: pathlib.Path) -> int:
    """Nodes of a graph file that ONNX Runtime runs with a fused attention kernel."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return sum(node.domain == CONTRIB and node.op_type in ("Attention", "MultiHeadAttention") for node in nodes)


def quantise_per_channel(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric quantisation of each output channel.

    Args:
        weight: float [out, in].

    Returns:
        int8 [out, in] within +-63, and float [out]: the scale to multiply it with.
    """
    scale = weight.abs().amax(dim=1).clamp_min(1e-12) / _WEIGHT_LIMIT
    return (weight / scale[:, None]).round().to(torch.int8), scale
