"""A PE-Core checkpoint in Meta's or open_clip's (timm's) layout in, its tensors under Meta's names out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

import torch
from torch import Tensor

from .. import GridClipError
from .weights import Weights

_POOL = "visual.attn_pool."
_TRUNK = "visual.trunk."
# In order: what a rule has renamed, the next one sees.
_TIMM_NAMES = (
    (r"^text\.", ""),
    (r"^visual\.trunk\.attn_pool\.latent$", "visual.attn_pool.probe"),
    (r"^visual\.trunk\.attn_pool\.proj\.", "visual.attn_pool.attn.out_proj."),
    (r"^visual\.trunk\.attn_pool\.norm\.", "visual.attn_pool.layernorm."),
    (r"^visual\.trunk\.patch_embed\.proj\.", "visual.conv1."),
    (r"^visual\.trunk\.cls_token$", "visual.class_embedding"),
    (r"^visual\.trunk\.pos_embed$", "visual.positional_embedding"),
    (r"^visual\.trunk\.norm_pre\.", "visual.ln_pre."),
    (r"^visual\.trunk\.norm\.", "visual.ln_post."),
    (r"^visual\.trunk\.head\.weight$", "visual.proj"),
    (r"^visual\.trunk\.blocks\.", "visual.transformer.resblocks."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"^visual\.trunk\.attn_pool\.", "visual.attn_pool."),
)


def has_pe_layout(names: Iterable[str]) -> bool:
    """Whether tensors have these names of either layout, or a damaged one of them."""
    found = set(names)
    pooled = any(name.startswith((_POOL, f"{_TRUNK}attn_pool.")) for name in found)
    # open_clip's SigLIP models have timm's pooling, too, but no norm before their layers.
    marks = (f"{_POOL}probe", "visual.conv1.weight", f"{_TRUNK}norm_pre.weight")
    return pooled and any(mark in found for mark in marks)


def under_meta_names(weights: Weights) -> Weights:
    """The same tensors under Meta's names; those of Meta's layout as they are.

    Raises:
        GridClipError: timm's projection of the embeddings has a bias that is not 0: no PE-Core model has one.
    """
    if not any(name.startswith(_TRUNK) for name in weights.tensors):
        return weights
    tensors: dict[str, Tensor] = {}
    for old, tensor in weights.tensors.items():
        if old == f"{_TRUNK}head.bias":
            if tensor.any():
                raise GridClipError(f"{weights.path} is not a PE-Core checkpoint: {old} is not 0")
            continue
        key = old
        for pattern, replacement in _TIMM_NAMES:
            key = re.sub(pattern, replacement, key)
        tensors[key] = _as_metas(key, tensor)
    for kind in ("weight", "bias"):
        query, keys_values = tensors.pop(f"{_POOL}q.{kind}", None), tensors.pop(f"{_POOL}kv.{kind}", None)
        if query is not None and keys_values is not None:
            tensors[f"{_POOL}attn.in_proj_{kind}"] = torch.cat([query, keys_values])
    return dataclasses.replace(weights, tensors=tensors)


def _as_metas(key: str, tensor: Tensor) -> Tensor:
    """Without timm's leading axes of length 1; the projection transposed."""
    if key == "visual.class_embedding":
        return tensor.flatten()
    if key == "visual.positional_embedding" and tensor.dim() == 3:
        return tensor.flatten(0, 1)
    return tensor.T if key == "visual.proj" else tensor
