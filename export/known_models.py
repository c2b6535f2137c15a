"""Nothing in, the published models that are known to be of a family out: a table of data, a line for each."""

from __future__ import annotations

import dataclasses
import difflib

from .. import GridClipError

_MIT, _APACHE = "MIT", "Apache-2.0"
_CC_BY_NC = "CC-BY-NC-4.0"
_OPENAI_LICENCE = "openai/CLIP, LICENSE"
_METACLIP_LICENCE = "facebookresearch/MetaCLIP, LICENSE"
_PE_LICENCE = "facebookresearch/perception_models, README.md, Model License"
_HUB_PAGE = "its page on the Hugging Face hub"
_HUB_MIRROR = "its page on a mirror of the Hugging Face hub"
_HUB_COPY = "the page of a copy of it on the Hugging Face hub"
_PE_SOURCE = "facebookresearch/perception_models, README.md, VTT-T2V"


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """A published model.

    Attributes:
        name: what to pass as a model where it can be downloaded, else what its publisher calls it.
        family: the encoder family, a key of `families.FAMILIES`.
        licence: of the weights.
        parameters: of both towers, in millions; four bytes each in fp32, two in fp16, about one in int8.
        embed_dim: width of the embeddings.
        image_size: side of its super images in pixels.
        msr_vtt_recall_at_1: published zero-shot R@1 of text to video on MSR-VTT, percent, by the source's own protocol,
            which knows no super images; None where none is known for certain.
        source: where that figure is published; it was read there.
        place: the Hugging Face repository; empty for OpenAI's own, which come from OpenAI's server.
        file: of the weights in that repository, where it has none of the usual names.
        licence_source: where the licence was read; empty: it is what is said of the model, unchecked.
    """

    name: str
    family: str
    licence: str
    parameters: int
    embed_dim: int
    image_size: int
    msr_vtt_recall_at_1: float | None = None
    source: str = ""
    place: str = ""
    file: str = ""
    licence_source: str = ""


def find_known_model(name: str) -> KnownModel | None:
    """The model of a name, or of a Hugging Face repository; None where none is known."""
    for model in KNOWN_MODELS:
        if name == model.name or name == model.place != "":
            return model
    return None


def known_model(name: str) -> KnownModel:
    """The same where there must be one.

    Raises:
        GridClipError: the name is unknown; the nearest ones are named.
    """
    found = find_known_model(name)
    if found is None:
        raise GridClipError(
            f"model {name!r} is not known: {nearest_names(name)}`list_models` (gridclip models) has all names; a model "
            "of another name is used by the path of its checkpoint"
        )
    return found


def nearest_names(name: str) -> str:
    """A question that ends with a space, after the names that are spelled nearly so; empty where there are none."""
    spelled = {model.name.lower(): model.name for model in KNOWN_MODELS}
    near = difflib.get_close_matches(name.rpartition("/")[2].lower(), spelled, n=3)
    near += difflib.get_close_matches(name.lower(), spelled, n=3)
    return f"did you mean {' or '.join(dict.fromkeys(spelled[each] for each in near))}? " if near else ""


def _openai(name: str, parameters: int, embed_dim: int, image_size: int) -> KnownModel:
    return KnownModel(name, "clip", _MIT, parameters, embed_dim, image_size, licence_source=_OPENAI_LICENCE)


def _siglip(name: str, parameters: int, embed_dim: int, image_size: int, licence_source: str = "") -> KnownModel:
    return KnownModel(
        name,
        "siglip",
        _APACHE,
        parameters,
        embed_dim,
        image_size,
        place=f"google/{name}",
        licence_source=licence_source,
    )


def _pe(name: str, parameters: int, embed_dim: int, image_size: int, recall: float) -> KnownModel:
    return KnownModel(
        name,
        "pe",
        _APACHE,
        parameters,
        embed_dim,
        image_size,
        recall,
        _PE_SOURCE,
        place=f"facebook/{name}",
        file=f"{name}.pt",
        licence_source=_PE_LICENCE,
    )


def _eva(name: str, parameters: int, embed_dim: int, image_size: int) -> KnownModel:
    place = f"timm/{name}"
    return KnownModel(name, "eva", _MIT, parameters, embed_dim, image_size, place=place, licence_source=_HUB_PAGE)


def _metaclip2(name: str, parameters: int, embed_dim: int, image_size: int) -> KnownModel:
    return KnownModel(
        name,
        "metaclip2",
        _CC_BY_NC,
        parameters,
        embed_dim,
        image_size,
        place=f"facebook/{name}",
        licence_source=_METACLIP_LICENCE,
    )


def _open_clip(name: str, parameters: int, embed_dim: int, licence_source: str = "") -> KnownModel:
    return KnownModel(
        name, "clip", _MIT, parameters, embed_dim, 224, place=f"laion/{name}", licence_source=licence_source
    )


KNOWN_MODELS = (
    _openai("ViT-B/32", 151, 512, 224),
    _openai("ViT-B/16", 150, 512, 224),
    _openai("ViT-L/14", 428, 768, 224),
    _openai("ViT-L/14@336px", 428, 768, 336),
    _open_clip("CLIP-ViT-B-32-laion2B-s34B-b79K", 151, 512),
    _open_clip("CLIP-ViT-B-16-laion2B-s34B-b88K", 150, 512, _HUB_PAGE),
    _open_clip("CLIP-ViT-L-14-laion2B-s32B-b82K", 428, 768, _HUB_COPY),
    _open_clip("CLIP-ViT-H-14-laion2B-s32B-b79K", 986, 1024, _HUB_COPY),
    _open_clip("CLIP-ViT-bigG-14-laion2B-39B-b160k", 2540, 1280, _HUB_PAGE),
    _siglip("siglip-base-patch16-224", 203, 768, 224, _HUB_PAGE),
    _siglip("siglip-base-patch16-256", 203, 768, 256, _HUB_PAGE),
    _siglip("siglip-base-patch16-384", 203, 768, 384, _HUB_PAGE),
    _siglip("siglip-base-patch16-512", 204, 768, 512, _HUB_PAGE),
    _siglip("siglip-large-patch16-256", 652, 1024, 256, _HUB_PAGE),
    _siglip("siglip-large-patch16-384", 652, 1024, 384, _HUB_PAGE),
    _siglip("siglip-so400m-patch14-384", 878, 1152, 384, _HUB_PAGE),
    _siglip("siglip2-base-patch16-224", 375, 768, 224, _HUB_PAGE),
    _siglip("siglip2-base-patch16-256", 375, 768, 256, _HUB_PAGE),
    _siglip("siglip2-base-patch16-384", 375, 768, 384),
    _siglip("siglip2-base-patch16-512", 376, 768, 512),
    _siglip("siglip2-large-patch16-256", 882, 1024, 256),
    _siglip("siglip2-large-patch16-384", 882, 1024, 384),
    _siglip("siglip2-large-patch16-512", 882, 1024, 512),
    _siglip("siglip2-so400m-patch14-224", 1135, 1152, 224),
    _siglip("siglip2-so400m-patch14-384", 1136, 1152, 384, _HUB_PAGE),
    _siglip("siglip2-so400m-patch16-256", 1136, 1152, 256, _HUB_MIRROR),
    _siglip("siglip2-so400m-patch16-384", 1136, 1152, 384),
    _siglip("siglip2-so400m-patch16-512", 1137, 1152, 512, _HUB_PAGE),
    _pe("PE-Core-T16-384", 70, 512, 384, 28.8),
    _pe("PE-Core-S16-384", 87, 512, 384, 39.3),
    _pe("PE-Core-B16-224", 448, 1024, 224, 47.6),
    _pe("PE-Core-L14-336", 671, 1024, 336, 50.3),
    _pe("PE-Core-G14-448", 2419, 1280, 448, 51.2),
    _eva("eva02_base_patch16_clip_224.merged2b_s8b_b131k", 149, 512, 224),
    _eva("eva02_large_patch14_clip_224.merged2b_s4b_b131k", 428, 768, 224),
    _eva("eva02_large_patch14_clip_336.merged2b_s6b_b61k", 428, 768, 336),
    _metaclip2("metaclip-2-worldwide-s16", 390, 384, 224),
    _metaclip2("metaclip-2-worldwide-s16-384", 390, 384, 384),
    _metaclip2("metaclip-2-worldwide-m16", 538, 512, 224),
    _metaclip2("metaclip-2-worldwide-m16-384", 539, 512, 384),
    _metaclip2("metaclip-2-worldwide-b32", 588, 512, 224),
    _metaclip2("metaclip-2-worldwide-b32-384", 588, 512, 384),
    _metaclip2("metaclip-2-worldwide-b16", 586, 512, 224),
    _metaclip2("metaclip-2-worldwide-b16-384", 586, 512, 384),
    _metaclip2("metaclip-2-worldwide-l14", 1082, 768, 224),
    _metaclip2("metaclip-2-worldwide-huge-quickgelu", 1859, 1024, 224),
    _metaclip2("metaclip-2-worldwide-huge-378", 1859, 1024, 378),
    _metaclip2("metaclip-2-worldwide-giant", 3630, 1280, 224),
    _metaclip2("metaclip-2-worldwide-giant-378", 3631, 1280, 378),
)
