"""A tensor of `EvaClip` in, the names of those in a checkpoint that make it out: open_clip's layout, and BAAI's."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

# Parts of the image tower's layers that a checkpoint keeps apart. The keys have no bias: it would add the same to all
# scores of a query.
_APART = {
    "attn.in_proj_weight": ("attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"),
    "attn.in_proj_bias": ("attn.q_proj.bias", None, "attn.v_proj.bias"),
    "mlp.c_fc.weight": ("mlp.fc1_g.weight", "mlp.fc1_x.weight"),
    "mlp.c_fc.bias": ("mlp.fc1_g.bias", "mlp.fc1_x.bias"),
}
# In order: what a rule has renamed, the next one sees.
_OPEN_CLIP_NAMES = (
    (r"^visual\.conv1\.", "visual.patch_embed.proj."),
    (r"^visual\.class_embedding$", "visual.cls_token"),
    (r"^visual\.positional_embedding$", "visual.pos_embed"),
    (r"^visual\.ln_post\.", "visual.norm."),
    (r"^(visual\.blocks\.\d+)\.ln_([12])\.", r"\1.norm\2."),
    (r"^(visual\.blocks\.\d+)\.attn\.out_proj\.", r"\1.attn.proj."),
    (r"^(visual\.blocks\.\d+)\.mlp\.c_proj\.", r"\1.mlp.fc2."),
    (r"^visual\.", "visual.trunk."),
)
_BAAI_NAMES = (
    (r"^visual\.trunk\.", "visual."),
    (r"^(visual\.blocks\.\d+)\.attn\.([qv])_proj\.bias$", r"\1.attn.\2_bias"),
    (r"^(visual\.blocks\.\d+)\.attn\.norm\.", r"\1.attn.inner_attn_ln."),
    (r"^(visual\.blocks\.\d+)\.mlp\.norm\.", r"\1.mlp.ffn_ln."),
    (r"^(visual\.blocks\.\d+)\.mlp\.fc1_g\.", r"\1.mlp.w1."),
    (r"^(visual\.blocks\.\d+)\.mlp\.fc1_x\.", r"\1.mlp.w2."),
    (r"^(visual\.blocks\.\d+)\.mlp\.fc2\.", r"\1.mlp.w3."),
)
# What no other family's layers have under these prefixes; each is in one of EVA's generations.
_MARK = re.compile(
    r"^visual\.(trunk\.)?blocks\.\d+\."
    r"(attn\.([qkv]_proj|[qv]_bias|norm|inner_attn_ln)|mlp\.(fc1_[gx]|norm|w[123]|ffn_ln))(\.|$)"
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a checkpoint names its tensors.

    Attributes:
        trunk: the image tower is timm's, as open_clip has it; otherwise BAAI's own.
        text: what the names of the text tower begin with.
    """

    trunk: bool
    text: str

    def parts(self, name: str) -> list[str | None]:
        """Names of the tensors that, one after the other, make the one that `EvaClip` calls `name`; None: zeros."""
        if name == "logit_scale":
            return [name]
        if not name.startswith("visual."):
            return [f"{self.text}{name}"]
        layer = re.fullmatch(r"(visual\.blocks\.\d+)\.(.*)", name)
        apart = _APART.get(layer[2]) if layer else None
        if layer is None or apart is None:
            return [self._rename(name)]
        return [None if part is None else self._rename(f"{layer[1]}.{part}") for part in apart]

    def _rename(self, name: str) -> str:
        for pattern, replacement in _OPEN_CLIP_NAMES if self.trunk else _OPEN_CLIP_NAMES + _BAAI_NAMES:
            name = re.sub(pattern, replacement, name)
        return name


def has_eva_layout(names: Iterable[str]) -> bool:
    """Whether a tensor has a name that only EVA-CLIP's image towers give."""
    return any(_MARK.match(name) for name in names)


def find_layout(names: Iterable[str]) -> Layout:
    """The layout that most speaks for."""
    found = tuple(names)
    return Layout(
        trunk=any(name.startswith("visual.trunk.") for name in found),
        text="text." if any(name.startswith("text.") for name in found) else "",
    )
