"""A CLIP state dict in OpenAI's key layout in, a plain torch model out: the reference for every exported graph.

It is also what the tiny demo model is trained with. Only ViT towers; every size comes from a `ClipConfig`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from .. import GridClipError
from .positions import check_image_size
from .transformer import Transformer
from .weights import count_layers

# Mean and standard deviation per RGB channel of CLIP's training images, for pixels scaled to 0..1.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

ACTIVATIONS = ("quick_gelu", "gelu")

# Widths whose heads are not 64 wide: open_clip's ViT-H, ViT-g and ViT-bigG image towers.
_VISION_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """The sizes of a CLIP model with a ViT image tower.

    Attributes:
        image_size: side of the square input image in pixels, a multiple of patch_size.
        patch_size: side of a patch in pixels.
        vision_width, vision_layers, vision_heads: image transformer.
        text_width, text_layers, text_heads: text transformer.
        context_length: longest text in tokens, start and end token included.
        vocab_size: rows of the token embedding.
        embed_dim: width of the joint embedding.
        activation: "quick_gelu" (OpenAI) or "gelu" (most open_clip models).
        vision_mlp_width, text_mlp_width: hidden width of the MLPs; 0 means 4 * width.
        start_token, end_token: token ids; negative ones count from vocab_size, as OpenAI's vocabulary has them last.
        image_mean, image_std: per RGB channel, for pixels scaled to 0..1.
    """

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    context_length: int
    vocab_size: int
    embed_dim: int
    activation: str = "quick_gelu"
    vision_mlp_width: int = 0
    text_mlp_width: int = 0
    start_token: int = -2
    end_token: int = -1
    image_mean: tuple[float, ...] = IMAGE_MEAN
    image_std: tuple[float, ...] = IMAGE_STD

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation ({self.activation!r}) must be one of {', '.join(ACTIVATIONS)}")
        for name, size in dataclasses.asdict(self).items():
            if name.endswith(("_size", "_width", "_layers", "_length", "_dim")) and size < ("mlp" not in name):
                raise ValueError(f"{name} ({size}) must be >= 1")
        if self.image_size < self.patch_size or self.image_size % self.patch_size:
            raise ValueError(f"image_size ({self.image_size}) must be a multiple of patch_size ({self.patch_size})")
        for tower, width, heads in (
            ("vision", self.vision_width, self.vision_heads),
            ("text", self.text_width, self.text_heads),
        ):
            if heads < 1 or width % heads:
                raise ValueError(f"{tower}_width ({width}) must be a multiple of {tower}_heads ({heads})")
        object.__setattr__(self, "vision_mlp_width", self.vision_mlp_width or 4 * self.vision_width)
        object.__setattr__(self, "text_mlp_width", self.text_mlp_width or 4 * self.text_width)
        object.__setattr__(self, "start_token", self.start_token % self.vocab_size)
        object.__setattr__(self, "end_token", self.end_token % self.vocab_size)

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size


class VisionTransformer(nn.Module):
    """Normalised pixels float [B, 3, S, S] in, embeddings [B, embed_dim] out (not yet of unit length)."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width = config.vision_width
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width, config.vision_layers, config.vision_heads, config.vision_mlp_width, config.activation, causal=False
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.transformer(self._tokens(pixels))
        embeddings: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return embeddings

    def forward_cells(self, pixels: Tensor, cell_patches: Tensor, cell_layers: int | None = None) -> Tensor:
        """The embedding of the image and of each of its cells: class tokens that see the patches of one cell only.

        After Ding et al., "Open-Vocabulary Universal Image Segmentation with MaskCLIP" (ICML 2023), with cells as
        masks. Written as one masked attention over all tokens, to be read and to check the graphs by.

        Args:
            pixels: float [B, 3, S, S].
            cell_patches: bool [C, P], the patches of each cell, row by row.
            cell_layers: the last layers that have cell tokens, in [1, layers]; before them a cell's token is the class
                token, which sees everything. Default: all layers.

        Returns:
            float [B, 1 + C, embed_dim]: first the image's own, not changed by the cells.
        """
        blocks = self.transformer.blocks
        cell_layers = len(blocks) if cell_layers is None else cell_layers
        count = len(cell_patches)
        x = self._tokens(pixels)
        for block in blocks[: len(blocks) - cell_layers]:
            x = block(x)
        plain = x.shape[1]
        visible = torch.zeros(plain + count, plain + count, dtype=torch.bool, device=x.device)
        visible[:plain, :plain] = True
        visible[plain:, 1:plain] = cell_patches
        visible[plain:, plain:] = torch.eye(count, dtype=torch.bool, device=x.device)
        x = torch.cat([x, x[:, :1].expand(-1, count, -1)], dim=1)
        for block in blocks[len(blocks) - cell_layers :]:
            x = block(x, visible)
        embeddings: Tensor = self.ln_post(torch.cat([x[:, :1], x[:, plain:]], dim=1)) @ self.proj
        return embeddings

    def _tokens(self, pixels: Tensor) -> Tensor:
        """What enters the transformer, [B, 1 + P, width]: the class token and the patches, row by row."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)  # [B, grid * grid, width]
        cls = self.class_embedding.expand(len(patches), 1, -1)
        tokens: Tensor = self.ln_pre(torch.cat([cls, patches], dim=1) + self.positional_embedding)
        return tokens


class ClipTexts(nn.Module):
    """CLIP's text tower under the parameter names of OpenAI's checkpoints: a base of models that have it."""

    config: ClipConfig

    def _add_text_tower(self, config: ClipConfig) -> None:
        """Not in the constructor: the order of a model's weights is part of its fingerprint."""
        width = config.text_width
        self.transformer = Transformer(
            width, config.text_layers, config.text_heads, config.text_mlp_width, config.activation, causal=True
        )
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Embed texts, each read at the position of its first end token.

        Args:
            token_ids: int64 [B, T], T <= context_length: start token, text, end token, then any padding.

        Returns:
            float [B, embed_dim], not normalised to unit length.
        """
        length = token_ids.shape[1]
        x = self.token_embedding(token_ids) + self.positional_embedding[:length]
        x = self.ln_final(self.transformer(x))
        end = (token_ids == self.config.end_token).int().argmax(dim=1)
        embeddings: Tensor = x[torch.arange(len(x), device=x.device), end] @ self.text_projection
        return embeddings


class CLIP(ClipTexts):
    """CLIP with the parameter names of OpenAI's checkpoints. A new model has random weights, ready for training."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionTransformer(config)
        self._add_text_tower(config)
        self._initialise()

    def _initialise(self) -> None:
        config = self.config
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=config.text_width**-0.5)
        for parameter in (self.visual.class_embedding, self.visual.positional_embedding, self.visual.proj):
            nn.init.normal_(parameter, std=config.vision_width**-0.5)
        for transformer, width, layers in (
            (self.visual.transformer, config.vision_width, config.vision_layers),
            (self.transformer, config.text_width, config.text_layers),
        ):
            # Layers that write into the residual stream are scaled down by its depth, two additions a layer.
            residual_std = width**-0.5 * (2 * layers) ** -0.5
            for block in transformer.blocks:
                nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
                nn.init.normal_(block.attn.out_proj.weight, std=residual_std)
                nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
                nn.init.normal_(block.mlp.c_proj.weight, std=residual_std)
                for linear in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                    nn.init.zeros_(linear.bias)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Embed images.

        Args:
            pixels: float [B, 3, S, S], RGB scaled to 0..1, less IMAGE_MEAN, over IMAGE_STD.

        Returns:
            float [B, embed_dim], not normalised to unit length.
        """
        embeddings: Tensor = self.visual(pixels)
        return embeddings


C = TypeVar("C", bound=ClipConfig)


def with_sizes(config: C, name: str, *, image_size: int | None, context_length: int | None) -> C:
    """The config with other sizes, as far as they are given.

    Args:
        config: of a model.
        name: of its checkpoint.
        image_size: side of the super images in pixels.
        context_length: longest text in tokens.

    Raises:
        GridClipError: a size does not suit the model.
    """
    image_size, context_length = image_size or config.image_size, context_length or config.context_length
    check_image_size(image_size, config.patch_size, name)
    if context_length < 2:
        raise GridClipError(f"context length {context_length} must be >= 2: the start and the end token")
    return dataclasses.replace(config, image_size=image_size, context_length=context_length)


def normalise_pixels(
    super_images: Tensor, mean: tuple[float, ...] = IMAGE_MEAN, std: tuple[float, ...] = IMAGE_STD
) -> Tensor:
    """Super images uint8 [B, S, S, 3] to what `CLIP.encode_image` takes: float32 [B, 3, S, S]."""
    device = super_images.device
    scaled = super_images.float() / 255
    return ((scaled - torch.tensor(mean, device=device)) / torch.tensor(std, device=device)).permute(0, 3, 1, 2)


def config_from_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    activation: str = "quick_gelu",
    source: str = "state dict",
    name_of: Callable[[str], str] = str,
) -> ClipConfig:
    """Read the sizes of a CLIP ViT off its weights.

    The number of heads leaves no trace in the weights; as in OpenAI's loader it is width // 64 (at least 1), and
    open_clip's own for the widths of ViT-H, ViT-g and ViT-bigG.

    Args:
        state_dict: weights under OpenAI's key names.
        activation: not to be seen in the weights, so it is given.
        source: what to call the weights in an error.
        name_of: what to call one of them there.

    Raises:
        GridClipError: the weights are not those of a CLIP model with a ViT image tower.
    """
    if "visual.layer1.0.conv1.weight" in state_dict:
        raise GridClipError(f"{source} is a CLIP model with a ResNet image tower; only ViT models can be exported")
    try:
        conv = state_dict["visual.conv1.weight"]
        vision_width, _, patch_size, _ = conv.shape
        grid = math.isqrt(state_dict["visual.positional_embedding"].shape[0] - 1)
        vocab_size, text_width = state_dict["token_embedding.weight"].shape
        return ClipConfig(
            image_size=grid * patch_size,
            patch_size=patch_size,
            vision_width=vision_width,
            vision_layers=count_layers(state_dict, "visual.transformer.resblocks."),
            vision_heads=max(1, vision_width // _VISION_HEAD_WIDTHS.get(vision_width, 64)),
            text_width=text_width,
            text_layers=count_layers(state_dict, "transformer.resblocks."),
            text_heads=max(1, text_width // 64),
            context_length=state_dict["positional_embedding"].shape[0],
            vocab_size=vocab_size,
            embed_dim=state_dict["visual.proj"].shape[1],
            activation=activation,
            vision_mlp_width=state_dict["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            text_mlp_width=state_dict["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        )
    except KeyError as error:
        raise GridClipError(
            f"{source} is not a CLIP ViT checkpoint: it has no {name_of(error.args[0])!r}; expected an OpenAI, "
            "open_clip or Hugging Face CLIP model"
        ) from None
    except (ValueError, IndexError) as error:
        raise GridClipError(f"{source} is not a CLIP ViT checkpoint: {error}") from None
