"""Tokens float [B, L, width] in, what a pre-norm transformer makes of them out: what the families' towers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .rotation import Rotation


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


# By the name that a model's config gives here; the graphs' operators are in `transformer_graph.py`.
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "quick_gelu": QuickGELU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
}


class Attention(nn.Module):
    """Multi-head self-attention with nn.MultiheadAttention's parameter names."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.heads = heads
        self.causal = causal

    def forward(self, x: Tensor, visible: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        projected: Tensor = self.out_proj(self.attend(x, visible, rotation))
        return projected

    def attend(self, x: Tensor, visible: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        """Everything before the output projection."""
        batch, length, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=self.causal)
        return out.transpose(1, 2).reshape(batch, length, width)


class MLP(nn.Module):
    """Two linear layers with the model's activation, one of ACTIVATIONS, between them."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(width, hidden)
        self.gelu = ACTIVATIONS[activation]()
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.c_proj(self.gelu(self.c_fc(x)))
        return projected


class ResidualAttentionBlock(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(
        self, width: int, heads: int, mlp_width: int, activation: str, causal: bool, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads, causal)
        self.ln_2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, mlp_width, activation)

    def forward(self, x: Tensor, visible: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        attended: Tensor = x + self.attn(self.ln_1(x), visible, rotation)
        mixed: Tensor = self.mlp(self.ln_2(attended))
        return attended + mixed


class Transformer(nn.Module):
    """A stack of layers over [B, L, width].

    Args:
        width: of the tokens.
        layers: number of layers.
        heads: of each layer's attention.
        mlp_width: hidden width of the MLPs.
        activation: one of ACTIVATIONS.
        causal: a position attends to itself and those before it only.
        norm_eps: what the norms add to the variance.
    """

    def __init__(
        self, width: int, layers: int, heads: int, mlp_width: int, activation: str, causal: bool, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            ResidualAttentionBlock(width, heads, mlp_width, activation, causal, norm_eps) for _ in range(layers)
        )

    @property
    def blocks(self) -> list[ResidualAttentionBlock]:
        """The layers in order, with their type."""
        return [block for block in self.resblocks if isinstance(block, ResidualAttentionBlock)]

    def linear_layers(self) -> Iterator[tuple[nn.Module, Tensor]]:
        """What int8 may quantise: each module that is called with its layer's input, and the weight."""
        for block in self.blocks:
            yield block.attn, block.attn.in_proj_weight
            for layer in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                yield layer, layer.weight

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, rotation=rotation)
        return x


class AttentionPool(nn.Module):
    """Tokens [B, L, width] to one vector [B, width]: a learned query (the probe) attends to all of them, then an MLP.

    The MAP head of Zhai et al., "Scaling Vision Transformers" (CVPR 2022).

    Args:
        width, heads, mlp_width, activation, norm_eps: as for `Transformer`.
    """

    def __init__(self, width: int, heads: int, mlp_width: int, activation: str, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, mlp_width, activation)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, width = x.shape
        query = self.query(self.probe).expand(batch, 1, width)
        keys, values = self.keys_values(x).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, keys, values))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, width)
        pooled: Tensor = self.out_proj(attended)
        mixed: Tensor = self.mlp(self.norm(pooled))
        return pooled + mixed

    def linear_layers(self) -> Iterator[tuple[nn.Module, Tensor]]:
        """As `Transformer.linear_layers`; the query is the same for all images, and computed at export."""
        for layer in (self.keys_values, self.out_proj, self.mlp.c_fc, self.mlp.c_proj):
            yield layer, layer.weight
