"""The sizes of a SigLIP model in, a plain torch model out: the reference for its exported graphs.

SigLIP: Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (ICCV 2023); SigLIP 2: Tschannen et al. (2025). The
towers of both are the same: no class token, images pooled by attention, texts read at the last position of a row that
is always filled up, and no causal mask.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from .transformer import AttentionPool, Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """All but the weights that decides what the embeddings are.

    Attributes:
        image_size: side of the super images in pixels; where patch_size does not divide it, the rest at the right and
            the bottom is not seen.
        patch_size: side of a patch in pixels.
        width: of the image tower, and of the embeddings.
        layers, heads, mlp_width: of the image tower.
        text_width, text_layers, text_heads, text_mlp_width: of the text tower.
        context_length: tokens of every text, end token and padding included.
        vocab_size: rows of the token embedding.
        end_token, pad_token: ids; they may be the same.
        text_cleaning: as `ModelFacts.text_cleaning`.
        image_mean, image_std: per RGB channel, for pixels scaled to 0..1.
        activation: of the MLPs, one of `transformer.ACTIVATIONS`.
        norm_eps: what the norms add to the variance.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    text_width: int
    text_layers: int
    text_heads: int
    text_mlp_width: int
    context_length: int
    vocab_size: int
    end_token: int
    pad_token: int
    text_cleaning: str
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    activation: str = "gelu_tanh"
    norm_eps: float = 1e-6

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size


class Siglip(nn.Module):
    """Both towers; its weights are not initialised."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.config = config
        width, text_width, eps = config.width, config.text_width, config.norm_eps
        self.patches = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size)
        self.patch_positions = nn.Parameter(torch.empty(config.grid**2, width))
        self.image_layers = Transformer(
            width, config.layers, config.heads, config.mlp_width, config.activation, causal=False, norm_eps=eps
        )
        self.image_norm = nn.LayerNorm(width, eps=eps)
        self.pool = AttentionPool(width, config.heads, config.mlp_width, config.activation, norm_eps=eps)
        self.tokens = nn.Embedding(config.vocab_size, text_width)
        self.token_positions = nn.Parameter(torch.empty(config.context_length, text_width))
        self.text_layers = Transformer(
            text_width,
            config.text_layers,
            config.text_heads,
            config.text_mlp_width,
            config.activation,
            causal=False,
            norm_eps=eps,
        )
        self.text_norm = nn.LayerNorm(text_width, eps=eps)
        self.text_projection = nn.Linear(text_width, width)
        self.logit_scale = nn.Parameter(torch.empty(1))
        self.logit_bias = nn.Parameter(torch.empty(1))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Normalised pixels float [B, 3, S, S] to float [B, width], not of unit length."""
        x = self.patches(pixels).flatten(2).transpose(1, 2) + self.patch_positions
        embeddings: Tensor = self.pool(self.image_norm(self.image_layers(x)))
        return embeddings

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Rows int64 [B, context_length] to float [B, width], not of unit length."""
        x = self.text_layers(self.tokens(token_ids) + self.token_positions)
        embeddings: Tensor = self.text_projection(self.text_norm(x[:, -1]))
        return embeddings
