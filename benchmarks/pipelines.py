"""A folder of videos in, wanted frames per second of the sources that feed the encoder out: DALI, hybrid, workers.

    python -m gridclip.benchmarks.pipelines                      generated VP9 and MJPEG videos, DALI's CPU variant
    python -m gridclip.benchmarks.pipelines --device gpu         generated H.264 videos, NVDEC
    python -m gridclip.benchmarks.pipelines --videos FOLDER      the user's own files

Unlike `decode`, which times one file on one core, this times whole folders with everything the machine has, start-up
included, as a job does: pixels end where the encoder takes them. Also JPEG super images: files per second into the
encoder, over the share of them that the card's JPEG decoder gets, and the number of DALI pipelines side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import pathlib
import shutil
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import torch
from gridclip.dali_pipes.contract import CompressedImages, CompressedSegment, SuperImages, VideoFile
from gridclip.dali_pipes.cpu import tasks
from gridclip.dali_pipes.image_folders.jpeg_decoding import decode
from gridclip.dali_pipes.nvdali import sources
from gridclip.dali_pipes.nvdali.jpeg_pipeline import JpegPipeline
from gridclip.dali_pipes.nvdali.video_pipeline import VideoPipeline
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.processes import pool
from gridclip.dali_pipes.sampling import DECODE_HEIGHT_PX, DECODE_WIDTH_PX, Sampling, super_image_count, wanted_frames

from . import corpus, measure

PACKAGES = ("nvidia-dali-cuda130", "torch", "torchcodec", "PyNvVideoCodec", "av", "numpy")
GRID_SIZE = 2
SAMPLING = Sampling(grid_size=GRID_SIZE, super_img_size=224)
JPEG_SAMPLING = Sampling(fps=4)  # of the JPEG files
CLIPS = {
    "cpu": [corpus.Clip("libvpx-vp9", 720, gop_s=5, b_frames=0), corpus.Clip("libvpx", 480, gop_s=5, b_frames=0)],
    "gpu": [
        corpus.Clip("libx264", 1080, gop_s=5, b_frames=3),
        corpus.Clip("libx264", 1080, gop_s=5, b_frames=3, fixed_camera=True),
        corpus.Clip("libx264", 1080, gop_s=5, b_frames=7, fixed_camera=True),
    ],
}
WHOLE_FILES_AT_ONCE = 8

Candidate = Callable[[], int]


def candidates(paths: Sequence[pathlib.Path], device_id: int | None, num_workers: int) -> dict[str, Candidate]:
    """Candidates that decode all videos and return the super images that came out."""
    videos = [VideoFile(f"{number}", path) for number, path in enumerate(paths)]
    size = SAMPLING.super_img_size
    shared: dict[str, Any] = {"num_workers": num_workers, "time_limit_s": 300.0}

    def dali(hybrid: bool, num_pipelines: int = sources.NUM_PIPELINES) -> int:
        events = sources.decode_videos(
            videos, SAMPLING, size, device_id=device_id, hybrid=hybrid, num_pipelines=num_pipelines, **shared
        )
        return count(events)

    def cpu() -> int:
        return count(pool.run(videos, tasks.embedding_tasks(SAMPLING, "auto", size), **shared))

    candidates: dict[str, Candidate] = {
        "gridclip --decoder dali": functools.partial(dali, False),
        "gridclip --decoder hybrid": functools.partial(dali, True),
        "gridclip --decoder pyav": cpu,
        "DALI on whole files": functools.partial(whole_files, paths, device_id),
    }
    for number in (1, 3, 4):
        candidates[f"gridclip --decoder dali, {number} pipelines"] = functools.partial(dali, False, number)
    if device_id is not None:
        candidates["torchcodec on CUDA"] = functools.partial(_torchcodec_cuda, paths, device_id)
        candidates["PyNvVideoCodec"] = functools.partial(_pynvvideocodec, paths, device_id)
    return candidates


def count(events: Generator[tuple[VideoFile, Any], None, None]) -> int:
    """Super images that come out of a source, drawn to its end."""
    with contextlib.closing(events) as found:
        return sum(len(event.images) for _, event in found if isinstance(event, SuperImages))


def whole_files(paths: Sequence[pathlib.Path], device_id: int | None) -> int:
    """The same DALI graph, given the files as they are: what DALI's user would write."""
    threads = sources.NUM_THREADS if device_id is not None else os.cpu_count() or 1
    pipeline = VideoPipeline(
        SAMPLING, SAMPLING.super_img_size, device_id=device_id, max_items=WHOLE_FILES_AT_ONCE, num_threads=threads
    )
    made = 0
    for first in range(0, len(paths), WHOLE_FILES_AT_ONCE):
        batch = [whole_file(path) for path in paths[first : first + WHOLE_FILES_AT_ONCE]]
        made += sum(len(images) for images in pipeline.decode(batch))
    return made


def whole_file(path: pathlib.Path) -> CompressedSegment:
    """A file with nothing pruned."""
    wanted, _ = _wanted(path)
    summary = scan.summarise(path)
    times = np.zeros(super_image_count(len(wanted), GRID_SIZE))
    decoded_bytes = len(wanted) * summary.width * summary.height * 3
    data, positions = path.read_bytes(), wanted.astype(np.int32)
    return CompressedSegment(path.name, 0, len(times), times, times, 1.0, decoded_bytes, data, positions)


def expected_super_images(path: pathlib.Path) -> int:
    """How many super images a video gives."""
    return super_image_count(len(_wanted(path)[0]), GRID_SIZE)


@functools.cache
def _wanted(path: pathlib.Path) -> tuple[np.ndarray, float]:
    summary = scan.summarise(path)
    return wanted_frames(summary.frame_count, summary.avg_fps, fps=SAMPLING.fps), summary.duration_s


def _torchcodec_cuda(paths: Sequence[pathlib.Path], device_id: int) -> int:
    from torchcodec.decoders import VideoDecoder

    count = 0
    for path in paths:
        decoder = VideoDecoder(str(path), device=f"cuda:{device_id}", seek_mode="approximate")
        frames = decoder.get_frames_at(_wanted(path)[0].tolist()).data
        count += _scaled(frames)
    return count


def _pynvvideocodec(paths: Sequence[pathlib.Path], device_id: int) -> int:
    import PyNvVideoCodec as nvc  # noqa: N813 - as its own examples do

    count = 0
    for path in paths:
        decoder = nvc.SimpleDecoder(
            str(path), gpu_id=device_id, use_device_memory=True, output_color_type=nvc.OutputColorType.RGBP
        )
        frames = [torch.from_dlpack(frame) for frame in decoder.get_batch_frames_by_index(_wanted(path)[0].tolist())]
        count += _scaled(torch.stack(frames))
    return count


def _scaled(frames: torch.Tensor) -> int:
    """Frames uint8 [n, 3, H, W] at the size that GridCLIP decodes to; their super images are not laid out."""
    size = (DECODE_HEIGHT_PX, DECODE_WIDTH_PX)
    torch.nn.functional.interpolate(frames.float(), size, mode="bicubic", antialias=True)
    return super_image_count(len(frames), GRID_SIZE)


def jpeg_rates(paths: Sequence[pathlib.Path], device_id: int | None, repetitions: int) -> dict[str, Any]:
    """Files per second of 336-pixel JPEG super images, in memory, over what can be set."""
    files: list[bytes] = []
    for number, path in enumerate(paths):
        made = tasks.compress(VideoFile(str(number), path), skip=0, sampling=JPEG_SAMPLING, decoder="pyav")
        files += [file for chunk in made if isinstance(chunk, CompressedImages) for file in chunk.files]
    batch = (files * (256 // len(files) + 1))[:256]
    times = np.zeros(len(batch))
    run = CompressedImages("jpegs", 0, len(batch), times, times, 1.0, 1, batch)
    threads = sources.NUM_THREADS if device_id is not None else os.cpu_count() or 1
    candidates: dict[str, Callable[[], object]] = {}
    for load in (0.0, 0.35, 0.65, 0.9, 1.0) if device_id is not None else (0.0,):
        pipeline = JpegPipeline(
            336, device_id=device_id, max_items=len(batch), num_threads=threads, hw_decoder_load=load
        )
        pipeline.decode([run])
        candidates[f"DALI, hw_decoder_load {load}"] = functools.partial(_decoded, pipeline, run)
    some = batch[:64]
    candidates["jpeg4py, one core"] = lambda: [decode(file) for file in some]
    seconds = measure.interleaved(candidates, repetitions=repetitions)
    counts = dict.fromkeys(candidates, len(batch)) | {"jpeg4py, one core": len(some)}
    medians = measure.medians(seconds)
    return {
        "files_per_second": {name: round(counts[name] / value, 1) for name, value in medians.items()},
        "seconds": seconds,
    }


def _decoded(pipeline: JpegPipeline, run: CompressedImages) -> None:
    (images,) = pipeline.decode([run])
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def run(paths: Sequence[pathlib.Path], device_id: int | None, *, repetitions: int, num_workers: int) -> object:
    """Times every source on the folder; those that fail, or give another number of super images, are left out."""
    expected = sum(expected_super_images(path) for path in paths)
    wanted = sum(len(_wanted(path)[0]) for path in paths)
    usable, left_out = {}, {}
    for name, candidate in candidates(paths, device_id, num_workers).items():
        try:
            found = candidate()
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
            left_out[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            continue
        if found != expected:
            left_out[name] = f"{found} instead of {expected} super images"
            continue
        usable[name] = candidate
    seconds = measure.interleaved(usable, repetitions=repetitions)
    medians = measure.medians(seconds)
    rates = {name: round(wanted / value, 2) for name, value in medians.items()}
    for name, rate in rates.items():
        print(f"{name:40} {rate:10.1f} wanted frames/s", flush=True)
    for name, reason in left_out.items():
        print(f"{name:40} left out: {reason}", flush=True)
    return {
        "videos": len(paths),
        "video_seconds": round(sum(_wanted(path)[1] for path in paths), 1),
        "wanted_frames": wanted,
        "wanted_frames_per_s": rates,
        "median_s": medians,
        "seconds": seconds,
        "left_out": left_out,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu" if sources.first_gpu() is None else "gpu")
    parser.add_argument("--videos", type=pathlib.Path, help="a folder of videos instead of the generated ones")
    parser.add_argument("--copies", type=int, help="of each generated video; default: 2 on the CPU, 32 on a GPU")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--num-workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for generated files"
    )
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    device_id = None if args.device == "cpu" else sources.first_gpu() or 0
    if args.videos:
        paths = sorted(path for path in args.videos.iterdir() if path.is_file())
    else:
        copies = args.copies or (2 if device_id is None else 32)
        paths = _copies([corpus.make(clip, args.work_dir / "videos") for clip in CLIPS[args.device]], copies)
    results = {
        "videos": run(paths, device_id, repetitions=args.repetitions, num_workers=args.num_workers),
        "jpeg": jpeg_rates(paths[:3], device_id, args.repetitions),
    }
    settings = {
        "device": args.device,
        "gpu": None if device_id is None else torch.cuda.get_device_name(device_id),
        "fps": SAMPLING.fps,
        "grid_size": GRID_SIZE,
        "super_img_size": SAMPLING.super_img_size,
        "num_workers": args.num_workers,
        "repetitions": args.repetitions,
    }
    target = args.json or measure.RESULTS / f"pipelines_{args.device}.json"
    measure.write(target, packages=PACKAGES, settings=settings, results=results)


def _copies(paths: Sequence[pathlib.Path], count: int) -> list[pathlib.Path]:
    """The files and copies of them, so that no cache of packets makes later ones cheaper than in a real folder."""
    found = []
    for path in paths:
        for number in range(count):
            copy = path.with_name(f"copy{number}-{path.name}")
            if not copy.exists():
                shutil.copy(path, copy)
            found.append(copy)
    return found


if __name__ == "__main__":
    main()
