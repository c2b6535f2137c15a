"""Videos in, videos per second to stored embeddings out: the two-stage procedure beside the fused path.

    python -m gridclip.benchmarks.end_to_end      two models: one waits for videos, videos wait for the other
    python -m gridclip.benchmarks.end_to_end --model FOLDER --video-dir FOLDER         the user's own

Two stages are what the original procedure does: super images to JPEG folders, then their embeddings. The fused path has
no files in between. Processor and memory over time are kept for the chart of the last repetition.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Callable

import tokenizers
import torch
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs.embed_images import embed_images
from gridclip.engine.jobs.embed_videos import embed_videos
from gridclip.engine.jobs.progress import JobSummary
from gridclip.engine.jobs.super_images import make_super_images
from gridclip.export.clip_model import CLIP, ClipConfig
from gridclip.export.folder import ensure_model_folder

from . import corpus, measure
from .resources import Watch

PACKAGES = ("av", "onnxruntime", "torch", "pylance", "numpy", "Pillow")
CLIPS = [corpus.Clip("libx264", 480, gop_s=5, b_frames=3), corpus.Clip("libx264", 720, gop_s=5, b_frames=3)]
TINY_TOKENIZER = pathlib.Path(__file__).parent / "demo" / "tiny_clip.tokenizer.json"
TINY_CHECKPOINT = pathlib.Path(__file__).parent / "demo" / "tiny_clip.pt"
# ViT-B/16's shape with a vocabulary of the tiny model's size: 35 GFLOP per super image, random weights.
VIT_B_16 = ClipConfig(
    image_size=224,
    patch_size=16,
    vision_width=768,
    vision_layers=12,
    vision_heads=12,
    text_width=512,
    text_layers=1,
    text_heads=8,
    context_length=77,
    vocab_size=tokenizers.Tokenizer.from_file(str(TINY_TOKENIZER)).get_vocab_size(),
    embed_dim=512,
)


def random_model(folder: pathlib.Path) -> pathlib.Path:
    """A checkpoint of VIT_B_16's shape; weights do not matter for speed."""
    path = folder / "random_vit_b_16.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        torch.save(CLIP(VIT_B_16).state_dict(), path)
        shutil.copy(TINY_TOKENIZER, path.with_name(f"{path.stem}.tokenizer.json"))
    return path


def many(folder: pathlib.Path, count: int) -> pathlib.Path:
    """A folder of `count` videos: copies of a few generated ones."""
    made = [corpus.make(clip, folder / "videos") for clip in CLIPS]
    target = folder / f"many-{count}"
    target.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        copy = target / f"v{number:05d}.mp4"
        if not copy.exists():
            shutil.copy(made[number % len(made)], copy)
    return target


@dataclasses.dataclass
class Ways:
    """The two ways from the same videos to a store, each from an empty folder.

    Attributes:
        stages: per way and repetition, what every stage took in seconds.
        summaries: the last summary of each embedding stage.
        watches: processor and memory of each way's last repetition.
    """

    encoder: Encoder
    video_dir: pathlib.Path
    scratch: pathlib.Path
    num_workers: int
    stages: dict[str, list[dict[str, float]]] = dataclasses.field(default_factory=dict)
    summaries: dict[str, JobSummary] = dataclasses.field(default_factory=dict)
    watches: dict[str, Watch] = dataclasses.field(default_factory=dict)

    def two_stages(self) -> None:
        """Super images to JPEG, then embed-images."""
        sampling = Sampling(super_img_size=336)
        shutil.rmtree(self.scratch / "two", ignore_errors=True)
        with Watch() as watch:
            stages = {
                "superimages": _seconds(
                    lambda: make_super_images(
                        self.video_dir, self.scratch / "two" / "jpegs", sampling=sampling, num_workers=self.num_workers
                    )
                ),
                "embed-images": _seconds(self._embed_images),
            }
        self._keep("two stages", stages, watch)

    def _embed_images(self) -> None:
        two = self.scratch / "two"
        self.summaries["two stages"] = embed_images(
            self.encoder, two / "jpegs", two / "store", num_workers=self.num_workers, cells=False
        )

    def fused(self) -> None:
        """embed-videos."""
        shutil.rmtree(self.scratch / "fused", ignore_errors=True)
        with Watch() as watch:
            stages = {"embed-videos": _seconds(self._embed_videos)}
        self._keep("fused", stages, watch)

    def _embed_videos(self) -> None:
        sampling = Sampling(super_img_size=336)
        self.summaries["fused"] = embed_videos(
            self.encoder,
            self.video_dir,
            self.scratch / "fused",
            sampling=sampling,
            num_workers=self.num_workers,
            cells=False,
        )

    def _keep(self, way: str, stages: dict[str, float], watch: Watch) -> None:
        self.stages.setdefault(way, []).append(stages)
        self.watches[way] = watch


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run(
    model: str, video_dir: pathlib.Path, scratch: pathlib.Path, *, repetitions: int, num_workers: int
) -> dict[str, object]:
    """Both ways with one model, in turns."""
    encoder = Encoder(ensure_model_folder(model))
    ways = Ways(encoder, video_dir, scratch, num_workers)
    seconds = measure.interleaved({"two stages": ways.two_stages, "fused": ways.fused}, repetitions=repetitions)
    medians = measure.medians(seconds)
    done = ways.summaries["fused"]
    entry: dict[str, object] = {
        "videos": done.done,
        "super_images": done.super_images,
        "videos_per_s": {way: round(done.done / value, 3) for way, value in medians.items()},
        "fused_to_two_stages": round(medians["two stages"] / medians["fused"], 3),
        "encoder_busy": {
            way: round((summary.encoder_s or 0) / summary.seconds, 3) for way, summary in ways.summaries.items()
        },
        "peak_mib": {way: round(watch.peak_mib) for way, watch in ways.watches.items()},
        "stages_s": ways.stages,
        "seconds": seconds,
        "over_time": {way: [dataclasses.asdict(s) for s in watch.samples] for way, watch in ways.watches.items()},
    }
    print(f"{model}: videos/s {entry['videos_per_s']}, encoder busy {entry['encoder_busy']}", flush=True)
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="instead of the tiny CLIP and a random ViT-B/16")
    parser.add_argument("--video-dir", type=pathlib.Path, help="instead of generated videos")
    parser.add_argument("--videos", type=int, default=24, help="generated videos")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--num-workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for generated files"
    )
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "end_to_end.json")
    args = parser.parse_args()
    video_dir = args.video_dir or many(args.work_dir, args.videos)
    models = {"own": args.model}
    if not args.model:
        models = {"tiny CLIP": str(TINY_CHECKPOINT), "ViT-B/16, random weights": str(random_model(args.work_dir))}
    results = {
        name: run(
            model,
            video_dir,
            args.work_dir / "end-to-end",
            repetitions=args.repetitions,
            num_workers=args.num_workers,
        )
        for name, model in models.items()
    }
    settings = {"repetitions": args.repetitions, "num_workers": args.num_workers, "fps": 0.5, "super_img_size": 336}
    measure.write(args.json, packages=PACKAGES, settings=settings, results=results)


if __name__ == "__main__":
    main()
