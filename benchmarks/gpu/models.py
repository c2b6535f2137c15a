"""The shape of a model in, a model folder with random weights out: neither speed nor rounding asks for real ones."""

from __future__ import annotations

import pathlib
import shutil

import torch
from gridclip.export.clip_model import CLIP, ClipConfig
from gridclip.export.folder import ensure_model_folder

from .. import encode_peers
from ..end_to_end import TINY_CHECKPOINT
from .plans import Work


def random_folder(shape: ClipConfig, precision: str, folder: pathlib.Path) -> pathlib.Path:
    """A model folder of this shape in `folder`, written unless it is there; the same weights in every precision."""
    path = folder / f"width-{shape.vision_width}-{shape.image_size}px-{precision}"
    if not path.is_dir():
        torch.manual_seed(0)
        unfinished = path.with_name(f"unfinished-{path.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        encode_peers.write_image_folder(CLIP(shape).requires_grad_(False).eval(), unfinished, precision)
        unfinished.rename(path)
    return path


def job_folder(work: Work) -> pathlib.Path:
    """The model folder that whole jobs of the plan use."""
    if work.plan.job_model is None:
        return ensure_model_folder(str(TINY_CHECKPOINT))
    return random_folder(work.plan.job_model, "fp16", work.folder / "models")


def describe(shape: ClipConfig) -> str:
    """For a table."""
    name = "ViT-L/14" if (shape.vision_width, shape.patch_size) == (1024, 14) else f"ViT of width {shape.vision_width}"
    return f"{name}, {shape.image_size} px"
