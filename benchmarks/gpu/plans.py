"""A device and a size in, what the battery does there out: which videos, models, batches and how much of each."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Literal

from gridclip.dali_pipes.nvdali import nvidia_driver
from gridclip.dali_pipes.nvdali.nvidia_driver import DecoderLimits
from gridclip.dali_pipes.nvdali.segments import Device as DaliDevice
from gridclip.engine.encoding.providers import Provider
from gridclip.export.clip_model import ClipConfig

from .. import corpus
from ..encode import VIT_L_14
from .videos import Recipe

Device = Literal["cuda", "cpu"]
Size = Literal["full", "quick"]

SMALL_MODEL = ClipConfig(
    image_size=56,
    patch_size=14,
    vision_width=64,
    vision_layers=2,
    vision_heads=2,
    text_width=32,
    text_layers=1,
    text_heads=1,
    context_length=8,
    vocab_size=50,
    embed_dim=24,
    vision_mlp_width=160,
)
VIT_L_14_336 = dataclasses.replace(VIT_L_14, image_size=336)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where things run. What is done there is the plan's; a test puts a card's plan on the CPU.

    Attributes:
        device: as the user names it.
        device_id: the GPU; None: DALI's CPU variant.
        providers: of ONNX Runtime, the first is the one that counts, the others are tried.
    """

    device: Device
    device_id: int | None
    providers: tuple[Provider, ...]

    @property
    def dali_device(self) -> DaliDevice:
        """As the product's list of codecs names it."""
        return "cpu" if self.device_id is None else "gpu"

    def decoder_limits(self) -> Mapping[str, DecoderLimits] | None:
        """What the card's video decoder takes; None without a card."""
        return None if self.device_id is None else nvidia_driver.decoder_limits(self.device_id)


PLACES: dict[Device, Place] = {"cuda": Place("cuda", 0, ("cuda", "tensorrt")), "cpu": Place("cpu", None, ("cpu",))}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        floors: whether the work is large enough to hold rates against their floors.
        clips: step A: every frame of each is compared.
        stride, offsets: step A: pruning is tried with every `stride`-th frame wanted, from `offsets` first frames on;
            with as many offsets as the stride every frame was wanted once.
        crop_codec, crop_options, crop_sizes: step B: pairs of sizes that a decoder may take for each other.
        colour_codec, colour_size: step C.
        models: step D, and encoding in step E: shapes with random weights.
        precisions: step D.
        images: step D, super images compared.
        batch_sizes, cuda_graphs, matrix_side, batches: encoding in step E; batches per measured call.
        rate_clips, copies: step E: the folder that is decoded.
        pipelines, threads, affine: step E: what is varied; the product's own settings come first.
        jpeg_copies: step E, JPEG folders.
        job_model: the shape of the model in jobs of step E; None: the demo's tiny CLIP.
        repetitions: of each rate.
        mixed_copies: step F, of each sound video: a job must last long enough to be killed in its middle.
        queries, candidates: step G.
    """

    floors: bool
    clips: tuple[Recipe, ...]
    stride: int
    offsets: int
    crop_codec: str
    crop_options: tuple[tuple[str, str], ...]
    crop_sizes: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    colour_codec: str
    colour_size: tuple[int, int]
    models: tuple[ClipConfig, ...]
    precisions: tuple[str, ...]
    images: int
    batch_sizes: tuple[int, ...]
    cuda_graphs: tuple[bool, ...]
    matrix_side: int | None
    batches: int
    rate_clips: tuple[corpus.Clip, ...]
    copies: int
    pipelines: tuple[int, ...]
    threads: tuple[int, ...]
    affine: tuple[bool, ...]
    jpeg_copies: int
    job_model: ClipConfig | None
    repetitions: int
    mixed_copies: int
    queries: int
    candidates: int


@dataclasses.dataclass(frozen=True)
class Work:
    """What a step is given: a plan, a place, and a folder for what it makes, shared by all steps."""

    place: Place
    plan: Plan
    folder: pathlib.Path


FAST_VPX = (("deadline", "realtime"), ("cpu-used", "8"), ("b", "2M"))
_X264 = (("preset", "veryfast"), ("crf", "23"))
_CROPS = (((864, 480), (854, 480)), ((1920, 1088), (1920, 1080)))


def _x264(label: str, width: int, height: int, frames: int, settings: str) -> Recipe:
    options = (*_X264, ("x264-params", f"scenecut=0:{settings}"))
    return Recipe(f"H.264 {label}", "libx264", width, height, frames, options)


def _x265(label: str, width: int, height: int, frames: int, settings: str, pixel_format: str = "yuv420p") -> Recipe:
    options = (("preset", "ultrafast"), ("x265-params", f"scenecut=0:log-level=none:keyint=150:{settings}"))
    return Recipe(f"HEVC {label}", "libx265", width, height, frames, options, pixel_format=pixel_format)


def _card_clips(frames: int) -> tuple[Recipe, ...]:
    """Worst first. GOPs are 5 s long, so that more than 150 frames cross from one to the next."""
    return (
        _x264("b-frames", 1920, 1080, frames, "bframes=3:b-pyramid=none:b-adapt=0"),
        _x264("pyramid", 1280, 720, frames, "bframes=7:b-pyramid=normal:b-adapt=0"),
        _x264("open GOP", 1280, 720, frames, "bframes=3:b-pyramid=normal:b-adapt=0:open-gop=1"),
        _x265("open GOP", 1280, 720, frames, "bframes=4:b-pyramid=1:open-gop=1"),
        _x265("pyramid", 1920, 1080, frames, "bframes=4:b-pyramid=1:open-gop=0"),
        _x264("b-frames", 854, 480, frames, "bframes=3:b-pyramid=none:b-adapt=0"),
        _x265("b-frames", 854, 480, frames, "bframes=3:b-pyramid=0:open-gop=0"),
        Recipe("VP9", "libvpx-vp9", 1280, 720, frames, FAST_VPX, suffix="webm"),
        Recipe("AV1", "libsvtav1", 1280, 720, frames, (("preset", "12"),), suffix="mkv"),
        Recipe("VP8", "libvpx", 854, 480, frames, FAST_VPX, suffix="webm"),
        _x265("10 bit", 1280, 720, frames, "bframes=4:b-pyramid=1", "yuv420p10le"),
        Recipe("MJPEG", "mjpeg", 854, 480, min(frames, 90), pixel_format="yuvj420p", suffix="avi"),
    )


def _cpu_clips(frames: int) -> tuple[Recipe, ...]:
    return (
        Recipe("VP9", "libvpx-vp9", 320, 180, frames, FAST_VPX, gop=30, suffix="webm"),
        Recipe("MJPEG", "mjpeg", 320, 180, frames, pixel_format="yuvj420p", suffix="avi"),
        Recipe("VP8", "libvpx", 320, 180, frames, FAST_VPX, gop=30, suffix="webm"),
    )


_CARD = Plan(
    floors=True,
    clips=_card_clips(320),
    stride=20,
    offsets=20,
    crop_codec="libx264",
    crop_options=_X264,
    crop_sizes=_CROPS,
    colour_codec="libx264",
    colour_size=(1280, 720),
    models=(VIT_L_14, VIT_L_14_336),
    precisions=("fp16",),
    images=16,
    batch_sizes=(32, 64, 100, 128, 256),
    cuda_graphs=(False, True),
    matrix_side=None,
    batches=8,
    rate_clips=(
        corpus.Clip("libx264", 1080, gop_s=5, b_frames=3),
        corpus.Clip("libx264", 1080, gop_s=5, b_frames=3, fixed_camera=True),
    ),
    copies=48,
    pipelines=(2, 1, 3, 4),
    threads=(8, 4, 16),
    affine=(False, True),
    jpeg_copies=64,
    job_model=VIT_L_14,
    repetitions=3,
    mixed_copies=6,
    queries=17_443,
    candidates=4_901,
)
_CPU = Plan(
    floors=False,
    clips=_cpu_clips(90),
    stride=10,
    offsets=10,
    crop_codec="libvpx-vp9",
    crop_options=FAST_VPX,
    crop_sizes=_CROPS,
    colour_codec="libvpx-vp9",
    colour_size=(320, 180),
    models=(SMALL_MODEL,),
    precisions=("fp16", "int8"),
    images=16,
    batch_sizes=(4, 8),
    cuda_graphs=(False,),
    matrix_side=1024,
    batches=2,
    rate_clips=(corpus.Clip("libvpx-vp9", 480, gop_s=5, b_frames=0, duration_s=10),),
    copies=4,
    pipelines=(2, 1),
    threads=(1, 2),
    affine=(False,),
    jpeg_copies=4,
    job_model=None,
    repetitions=3,
    mixed_copies=6,
    queries=500,
    candidates=200,
)
PLANS: dict[tuple[Device, Size], Plan] = {
    ("cuda", "full"): _CARD,
    ("cuda", "quick"): dataclasses.replace(
        _CARD,
        floors=False,
        clips=_card_clips(165),
        offsets=3,
        models=(VIT_L_14,),
        images=8,
        batch_sizes=(64, 128),
        batches=4,
        rate_clips=(corpus.Clip("libx264", 1080, gop_s=5, b_frames=3, duration_s=10),),
        copies=24,
        pipelines=(2, 3),
        threads=(8,),
        jpeg_copies=16,
        repetitions=1,
        mixed_copies=2,
        queries=2_000,
        candidates=1_000,
    ),
    ("cpu", "full"): _CPU,
    ("cpu", "quick"): dataclasses.replace(
        _CPU,
        clips=_cpu_clips(40),
        offsets=5,
        crop_sizes=_CROPS[:1],
        batch_sizes=(4,),
        rate_clips=(corpus.Clip("libvpx-vp9", 180, gop_s=5, b_frames=0, duration_s=6),),
        copies=2,
        pipelines=(2,),
        threads=(1,),
        jpeg_copies=1,
        repetitions=1,
        mixed_copies=2,
        queries=200,
        candidates=60,
    ),
}
