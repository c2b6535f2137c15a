"""Facts about a machine and what a user asked for in, the path that each stage takes out: pure, nothing is looked up.

Jobs and the doctor both ask here, so that what the doctor says is what the jobs do. Who asks looks up the facts: the
doctor tries everything, a job looks no further than it needs.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from .choices import DECODER, PROVIDER, Decoder, Provider

NOT_LOOKED_UP = "nobody has looked"

ModelPath = Literal["cpu", "cuda", "tensorrt"]
VideoPath = Literal["dali", "hybrid", "decord", "pyav"]
ImagePath = Literal["dali", "jpeg4py", "Pillow"]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known. An obstacle says why something cannot be used, None where it can.

    Attributes:
        decoder, provider: what the user asked for.
        gpu_obstacle: of the GPU itself, where the pixels are to go.
        cuda_obstacle, tensorrt_obstacle: of ONNX Runtime's providers.
        dali_obstacle: of DALI.
        has_decord, has_turbojpeg: whether they are there.
    """

    decoder: Decoder = DECODER
    provider: Provider = PROVIDER
    gpu_obstacle: str | None = NOT_LOOKED_UP
    cuda_obstacle: str | None = NOT_LOOKED_UP
    tensorrt_obstacle: str | None = NOT_LOOKED_UP
    dali_obstacle: str | None = NOT_LOOKED_UP
    has_decord: bool = False
    has_turbojpeg: bool = False


@dataclasses.dataclass(frozen=True)
class Model:
    """Where ONNX Runtime runs the model; path is None where what was asked for by name cannot be used.

    Attributes:
        why_not: why it is not a GPU, or why there is no path; None on a GPU.
    """

    path: ModelPath | None
    why_not: str | None


@dataclasses.dataclass(frozen=True)
class Videos:
    """What decodes videos; path is None where what was asked for by name cannot be used; why_not as in `Model`."""

    path: VideoPath | None
    why_not: str | None


@dataclasses.dataclass(frozen=True)
class Images:
    """What reads JPEG super images; why_not: why it is not a GPU, None there."""

    path: ImagePath
    why_not: str | None


@dataclasses.dataclass(frozen=True)
class Routes:
    """The path of every stage that has a choice."""

    model: Model
    videos: Videos
    images: Images


def route(facts: Facts) -> Routes:
    """The paths for these facts."""
    model = _model(facts)
    return Routes(model, _videos(facts, model), _images(facts, model))


def _model(facts: Facts) -> Model:
    if facts.provider == "cpu":
        return Model("cpu", "the CPU was asked for")
    if facts.provider == "auto":
        if facts.cuda_obstacle is None:
            return Model("cuda", None)
        return Model("cpu", facts.cuda_obstacle)
    obstacle = facts.cuda_obstacle if facts.provider == "cuda" else facts.tensorrt_obstacle
    return Model(facts.provider if obstacle is None else None, obstacle)


def _gpu_obstacle(facts: Facts, model: Model) -> str | None:
    """Why pixels are not made on the GPU by default; None where they are."""
    if facts.gpu_obstacle is not None:
        return facts.gpu_obstacle
    if facts.dali_obstacle is not None:
        return facts.dali_obstacle
    if model.path in ("cuda", "tensorrt"):
        return None
    return f"the pixels would have to leave it again: {model.why_not}"


def _videos(facts: Facts, model: Model) -> Videos:
    match facts.decoder:
        case "dali" | "hybrid":  # without a GPU this is DALI's CPU variant
            return Videos(facts.decoder if facts.dali_obstacle is None else None, facts.dali_obstacle)
        case "decord":
            why_not = "decord was asked for" if facts.has_decord else "decord is not installed"
            return Videos("decord" if facts.has_decord else None, why_not)
        case "pyav":
            return Videos("pyav", "PyAV was asked for")
        case "auto":
            obstacle = _gpu_obstacle(facts, model)
            return Videos("hybrid" if obstacle is None else "pyav", obstacle)


def _images(facts: Facts, model: Model) -> Images:
    obstacle = _gpu_obstacle(facts, model)
    if obstacle is None:
        return Images("dali", None)
    return Images("jpeg4py" if facts.has_turbojpeg else "Pillow", obstacle)
