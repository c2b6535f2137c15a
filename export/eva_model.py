"""The sizes of an EVA-CLIP model in, a plain torch model out: the reference for its exported graphs.

EVA-CLIP: Sun et al., "EVA-CLIP: Improved Training Techniques for CLIP at Scale" (2023), the models whose image tower is
of Fang et al., "EVA-02: A Visual Representation for Neon Genesis" (2023): rotary beside learned positions, gated MLPs,
and norms inside attention and MLP. The text tower is CLIP's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .clip_model import ClipConfig, ClipTexts
from .rotation import Rotation, patch_rotation
from .transformer import Attention

_NORM_EPS = 1e-6
# Rows and columns turn as they did in the pre-training, with 16 x 16 patches: finer ones by fractions.
_REFERENCE_GRID = 16


@dataclasses.dataclass(frozen=True)
class EvaConfig(ClipConfig):
    """The sizes of an EVA-CLIP model; see `ClipConfig`. `activation` is the text tower's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vision_width // self.vision_heads % 4:
            raise ValueError(
                f"vision_width ({self.vision_width}) must be a multiple of 4 * vision_heads ({self.vision_heads}): "
                "positions turn two halves of pairs"
            )


class EvaAttention(Attention):
    """Attention with a norm before its output projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, causal=False)
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)

    def forward(self, x: Tensor, visible: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        projected: Tensor = self.out_proj(self.norm(self.attend(x, visible, rotation)))
        return projected


class GatedMLP(nn.Module):
    """SwiGLU: one half of the hidden channels gates the other, and a norm follows."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 2 * hidden)  # gates first
        self.norm = nn.LayerNorm(hidden, eps=_NORM_EPS)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gates, values = self.c_fc(x).chunk(2, dim=-1)
        projected: Tensor = self.c_proj(self.norm(F.silu(gates) * values))
        return projected


class EvaBlock(nn.Module):
    """One pre-norm layer."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = EvaAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = GatedMLP(width, mlp_width)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        attended: Tensor = x + self.attn(self.ln_1(x), rotation=rotation)
        mixed: Tensor = self.mlp(self.ln_2(attended))
        return attended + mixed


class EvaImages(nn.Module):
    """Normalised pixels float [B, 3, S, S] in, embeddings [B, embed_dim] out (not yet of unit length)."""

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        self.config = config
        width = config.vision_width
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + config.grid**2, width))
        self.blocks = nn.ModuleList(
            EvaBlock(width, config.vision_heads, config.vision_mlp_width) for _ in range(config.vision_layers)
        )
        self.ln_post = nn.LayerNorm(width, eps=_NORM_EPS)
        self.head = nn.Linear(width, config.embed_dim)

    @property
    def layers(self) -> list[EvaBlock]:
        """The layers in order, with their type."""
        return [block for block in self.blocks if isinstance(block, EvaBlock)]

    @property
    def rotation(self) -> Rotation:
        """Rows turn the first half of a head's channels, columns the second; the class token does not turn."""
        config = self.config
        steps = torch.arange(config.grid, dtype=torch.float64) * (_REFERENCE_GRID / config.grid)
        rows, columns = steps.repeat_interleave(config.grid), steps.repeat(config.grid)
        return patch_rotation(config.vision_width // config.vision_heads, rows, columns, before=1)

    def linear_layers(self) -> Iterator[tuple[nn.Module, Tensor]]:
        """As `Transformer.linear_layers`."""
        for block in self.layers:
            yield block.attn, block.attn.in_proj_weight
            for layer in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                yield layer, layer.weight

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        rotation = self.rotation
        for block in self.blocks:
            x = block(x, rotation)
        embeddings: Tensor = self.head(self.ln_post(x[:, 0]))
        return embeddings


class EvaClip(ClipTexts):
    """Both towers; its weights are not initialised."""

    config: EvaConfig

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = EvaImages(config)
        self._add_text_tower(config)
