"""The sizes of a PE-Core model in, a plain torch model out: the reference for its exported graphs.

Perception Encoder: Bolya et al., "Perception Encoder: The best visual embeddings are not at the output of the network"
(2025), the "core" models. The text tower is CLIP's.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from .clip_model import ClipConfig, ClipTexts
from .rotation import Rotation, grid_rotation
from .transformer import AttentionPool, Transformer


@dataclasses.dataclass(frozen=True)
class PeConfig(ClipConfig):
    """The sizes of a PE-Core model; see `ClipConfig` for those that it shares with CLIP.

    Attributes:
        class_token: there is a token before the patches; the pooling sees it as it sees these.
        pool_heads: heads of the pooling.
        pool_mlp_width: hidden width of its MLP.
    """

    class_token: bool = True
    pool_heads: int = 8
    pool_mlp_width: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pool_mlp_width", self.pool_mlp_width or 4 * self.vision_width)
        if self.vision_width % self.pool_heads:
            raise ValueError(f"vision_width ({self.vision_width}) must be a multiple of pool_heads ({self.pool_heads})")
        if self.vision_width // self.vision_heads % 4:
            raise ValueError(
                f"vision_width ({self.vision_width}) must be a multiple of 4 * vision_heads ({self.vision_heads}): "
                "positions turn two halves of pairs"
            )


class PeImages(nn.Module):
    """The image tower, under the parameter names of Meta's checkpoints but for the pooling's."""

    def __init__(self, config: PeConfig) -> None:
        super().__init__()
        self.config = config
        width, tokens = config.vision_width, config.grid**2 + config.class_token
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        if config.class_token:
            self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width, config.vision_layers, config.vision_heads, config.vision_mlp_width, config.activation, causal=False
        )
        self.ln_post = nn.LayerNorm(width)
        self.attn_pool = AttentionPool(width, config.pool_heads, config.pool_mlp_width, config.activation)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    @property
    def rotation(self) -> Rotation:
        """Rows and columns count from 1 where there is a class token, which is then the one at 0."""
        config = self.config
        before = int(config.class_token)
        return grid_rotation(config.vision_width // config.vision_heads, config.grid, first=before, before=before)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        if self.config.class_token:
            x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1)
        x = self.transformer(self.ln_pre(x + self.positional_embedding), self.rotation)
        embeddings: Tensor = self.attn_pool(self.ln_post(x)) @ self.proj
        return embeddings


class PeCore(ClipTexts):
    """Both towers; its weights are not initialised."""

    config: PeConfig

    def __init__(self, config: PeConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = PeImages(config)
        self._add_text_tower(config)
