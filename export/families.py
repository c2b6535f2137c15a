"""A checkpoint's weights in, the encoder family that they are of out."""

from __future__ import annotations

from .. import GridClipError
from . import clip, eva, metaclip2, pe, siglip
from .family import Family
from .weights import Weights

# By the name that model.json gives, in the order in which they are asked: CLIP comes last, as its tensors' names are
# the least special.
FAMILIES: dict[str, Family] = {
    "siglip": siglip,
    "pe": pe,
    "eva": eva,
    "metaclip2": metaclip2,
    "clip": clip,
}


def find_family(weights: Weights) -> Family:
    """The first family that recognises a checkpoint.

    Raises:
        GridClipError: none does.
    """
    for family in FAMILIES.values():
        if family.recognises(weights):
            return family
    names = ", ".join(repr(name)[:80] for name in sorted(weights.tensors)[:3])
    raise GridClipError(
        f"{weights.path} is of no encoder family that is known ({', '.join(FAMILIES)}): "
        f"it has {len(weights.tensors)} tensors{f', such as {names}' if names else ''}; "
        "expected an OpenAI, open_clip or Hugging Face CLIP model, a Hugging Face folder of SigLIP or MetaCLIP 2, or a "
        "PE-Core, EVA02-CLIP or MetaCLIP 2 checkpoint"
    )
