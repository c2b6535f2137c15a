"""JPEG folders and videos in, the rates of whole jobs beside those of their stages alone, out. Steps E3 and E4."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

from gridclip import GridClipError
from gridclip.dali_pipes.contract import VideoFile
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.choices import Decoder
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs.embed_images import embed_images
from gridclip.engine.jobs.embed_videos import embed_videos
from gridclip.engine.jobs.ledger import batch_size_for
from gridclip.engine.jobs.progress import JobSummary
from gridclip.engine.jobs.sources import video_source
from gridclip.engine.jobs.super_images import make_super_images

from .. import measure, pipelines
from ..resources import Watch as ProcessWatch
from . import models
from .checks import Check, guarded, measured
from .decode_rates import TIME_LIMIT_S, make_folder
from .encode_rates import images_per_s
from .nvidia_smi import Watch
from .plans import Work
from .predictions import held_against

DECODERS: tuple[Decoder, ...] = ("dali", "hybrid")


def run_images(work: Work) -> Iterator[Check]:
    """Step E3: JPEG files per second over `hw_decoder_load`, then embed-images."""
    made, _ = make_folder(work)
    found = pipelines.jpeg_rates(made, work.place.device_id, work.plan.repetitions)
    rates: dict[str, float] = found["files_per_second"]
    for name, rate in rates.items():
        yield measured(f"JPEG files: {name}", f"{rate:,.4g} files/s", files_per_s=rate)
    encoder = _encoder(work)
    alone = images_per_s(work, encoder, batch_size_for(encoder.provider, None))
    folder = work.folder / "jpegs"
    clips = work.folder / "rate-clips.txt"
    clips.write_text("".join(f"{path.resolve()}\n" for path in made))
    _require_all(make_super_images(clips, folder, sampling=pipelines.JPEG_SAMPLING, decoder="pyav", resume=True))
    images = copy_folders(folder, work.folder / f"jpeg-folders-{work.plan.jpeg_copies}", work.plan.jpeg_copies)
    store = work.folder / "images-store"
    shutil.rmtree(store, ignore_errors=True)
    with Watch(work.place.device_id) as watch:
        summary = embed_images(
            encoder, images, store, num_workers=os.cpu_count() or 1, time_limit_s=TIME_LIMIT_S, cells=False
        )
    _require_all(summary)
    jpeg = max(rates.values())
    facts = {"slower_per_s": measure.significant(min(alone, jpeg))}
    more = {"encode_alone_per_s": measure.significant(alone), "seconds": summary.seconds, "load": watch.told}
    rate = (summary.super_images or 0) / summary.seconds
    yield held_against("embed-images", "embed-images", rate, facts, floors=work.plan.floors, **more)


def copy_folders(source: pathlib.Path, target: pathlib.Path, count: int) -> pathlib.Path:
    """A folder of `count` links to each JPEG folder of `source`."""
    target.mkdir(exist_ok=True)
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        for number in range(count):
            link = target / f"{folder.name}-{number:04d}"
            if not link.exists():
                link.symlink_to(folder.resolve())
    return target


def run_videos(work: Work) -> Iterator[Check]:
    """Step E4: embed-videos by each decoder, beside decoding alone and encoding alone."""
    _, paths = make_folder(work)
    encoder = _encoder(work)
    rate = images_per_s(work, encoder, batch_size_for(encoder.provider, None))
    for decoder in DECODERS:
        yield from guarded(f"embed-videos --decoder {decoder}", _job(work, encoder, paths, decoder, rate))


def _job(
    work: Work, encoder: Encoder, paths: Sequence[pathlib.Path], decoder: Decoder, images_per_s: float
) -> Iterator[Check]:
    """One whole job, held against the slower of its stages; `images_per_s` is the encoder's rate alone."""
    size, workers = encoder.info.image_size, os.cpu_count() or 1
    sampling = Sampling(super_img_size=size)
    shared: dict[str, Any] = {"num_workers": workers, "time_limit_s": TIME_LIMIT_S}
    source = video_source(decoder, sampling, size, device_id=work.place.device_id, **shared)
    began = time.perf_counter()
    count = pipelines.count(source(iter([VideoFile(path.stem, path) for path in paths])))
    decode_s, encode_s = time.perf_counter() - began, count / images_per_s
    store = work.folder / f"videos-store-{decoder}"
    shutil.rmtree(store, ignore_errors=True)
    with Watch(work.place.device_id) as watch, ProcessWatch() as processes:
        summary = embed_videos(
            encoder, paths[0].parent, store, sampling=sampling, decoder=decoder, cells=False, **shared
        )
    _require_all(summary)
    more = {
        "load": watch.told,
        "seconds": round(summary.seconds, 3),
        "decode_alone_s": round(decode_s, 3),
        "encode_alone_s": round(encode_s, 3),
        "super_images": summary.super_images,
        "videos_per_s": measure.significant(summary.done / summary.seconds),
        "peak_mib": round(processes.peak_mib),
    }
    ratio = summary.seconds / max(decode_s, encode_s)
    label = f"embed-videos --decoder {decoder}"
    yield held_against(label, "end to end over the slower stage", ratio, {}, floors=work.plan.floors, **more)
    yield measured(f"{label}: the card", watch.told, loads=[dataclasses.asdict(load) for load in watch.loads])


def _encoder(work: Work) -> Encoder:
    place = work.place
    return Encoder(models.job_folder(work), provider=place.providers[0], device_id=place.device_id or 0)


def _require_all(summary: JobSummary) -> None:
    if summary.failures or not (summary.done or summary.finished_before):
        raise GridClipError(f"{summary.failures} of the generated videos failed: see {summary.failures_file}")
