"""A folder of videos in; how fast super images come out of it, with what of the card busy, out. Step E1.

NVDEC bounds GridCLIP on a card, so feeding it comes first: DALI on pruned streams beside DALI on whole files, then
hybrid and PyAV, then what can be set. Rates are whole jobs, start-up included, after one that is not counted.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from gridclip import GridClipError
from gridclip.dali_pipes.contract import CompressedSegment, SuperImages, VideoFile
from gridclip.dali_pipes.cpu import tasks
from gridclip.dali_pipes.cpu.reading import open_reading
from gridclip.dali_pipes.nvdali import sources, video_pipeline
from gridclip.dali_pipes.nvdali.pipeline_threads import PipelineThreads
from gridclip.dali_pipes.nvdali.video_pipeline import VideoPipeline
from gridclip.dali_pipes.processes import pool

from .. import corpus, measure, pipelines
from . import probe
from .checks import Check, guarded, measured, not_possible
from .nvidia_smi import Watch, busy
from .plans import Place, Work
from .predictions import held_against
from .segments_of import kept_packets

SAMPLING = pipelines.SAMPLING
TIME_LIMIT_S = 120.0


@dataclasses.dataclass(frozen=True)
class Rate:
    """One way to decode the folder.

    Attributes:
        per_s: super images per second, of the median run.
        seconds: of every run.
        watch: the card's load during the last one.
    """

    per_s: float
    seconds: list[float]
    watch: Watch


def run(work: Work) -> Iterator[Check]:
    """What must hold first; what can be set afterwards."""
    place, floors = work.place, work.plan.floors
    made, paths = make_folder(work)
    facts = count_facts(work, made)
    one_of_each = paths[:: work.plan.copies]
    _decode_with_dali(place, one_of_each, hybrid=False)  # loads everything once
    dali = _rate(work, paths, functools.partial(_decode_with_dali, place, paths, hybrid=False))
    yield measured(
        "--decoder dali", f"{dali.per_s:,.4g} super images/s; {dali.watch.told}", per_s=dali.per_s, seconds=dali.seconds
    )
    if facts["engines"]:
        name = "super images of --decoder dali"
        yield held_against("--decoder dali, by NVDEC's engines", name, dali.per_s, facts, floors=floors)
    dec = busy(dali.watch.loads, "dec")
    if dec is not None:
        loads = [dataclasses.asdict(load) for load in dali.watch.loads]
        yield held_against("NVDEC busy in --decoder dali", "NVDEC busy", dec, {}, floors=floors, loads=loads)
    elif facts["engines"]:
        yield not_possible("NVDEC busy in --decoder dali", "`nvidia-smi dmon` tells nothing of the decoder here")
    whole = _rate(work, paths, functools.partial(decode_whole_files, place, paths), repetitions=1)
    ratio = dali.per_s / whole.per_s
    told: dict[str, Any] = {"whole_per_s": whole.per_s, "load_of_whole": whole.watch.told}
    yield held_against("pruned over whole files", "pruned over whole files", ratio, facts, floors=floors, **told)
    if facts["engines"]:
        decoded = whole.per_s / facts["super_images"] * facts["packets"]
        yield held_against("frames decoded of whole files", "frames decoded", decoded, facts, floors=floors)
    yield from guarded("hybrid over dali", _hybrid(work, paths, dali))
    yield from guarded("settings of --decoder dali", _settings(work, paths))


def make_folder(work: Work) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The plan's clips, and the folder's files: `copies` links to each clip, one clip after the other."""
    folder = work.folder / "rate-clips"
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as threads:
        made = list(threads.map(functools.partial(corpus.make, folder=folder), work.plan.rate_clips))
    target = work.folder / f"rate-videos-{len(made)}x{work.plan.copies}"
    target.mkdir(exist_ok=True)
    links = []
    for path, number in itertools.product(made, range(work.plan.copies)):
        link = target / f"{path.stem}-{number:04d}{path.suffix}"
        if not link.exists():
            link.symlink_to(path.resolve())
        links.append(link)
    return made, links


def count_facts(work: Work, clips: Sequence[pathlib.Path]) -> dict[str, float]:
    """What the predictions need of the clips together: packets, those that pruning keeps, super images; and engines."""
    facts: dict[str, float] = {"packets": 0, "kept_packets": 0, "super_images": 0, "engines": probe.engines(work) or 0}
    for path in clips:
        with open_reading(path, SAMPLING) as reading:
            facts["packets"] += len(reading.table.facts)
            facts["kept_packets"] += kept_packets(reading, SAMPLING.block)
            facts["super_images"] += -(-len(reading.wanted) // SAMPLING.block)
    return facts


def decode_whole_files(place: Place, paths: Sequence[pathlib.Path]) -> int:
    """DALI on files as they are, through the same threads, batches and pipelines as a job; super images."""
    size = SAMPLING.super_img_size
    limits = sources.VIDEO_LIMITS
    threads = sources.NUM_THREADS if place.device_id is not None else max(1, (os.cpu_count() or 1) // 2)
    build = functools.partial(
        VideoPipeline, SAMPLING, size, device_id=place.device_id, max_items=limits.items, num_threads=threads
    )
    found = 0
    dali: PipelineThreads[CompressedSegment]
    with PipelineThreads(build, num_pipelines=sources.NUM_PIPELINES, limits=limits) as dali:
        for path in paths:
            while dali.full:
                found += _counted(dali.collect(time_limit_s=TIME_LIMIT_S))
            dali.give(pipelines.whole_file(path))
        while dali.busy:
            found += _counted(dali.collect(time_limit_s=TIME_LIMIT_S))
    return found


def _counted(outcomes: Sequence[tuple[CompressedSegment, object]]) -> int:
    count = 0
    for _, result in outcomes:
        if not isinstance(result, SuperImages):
            raise GridClipError(f"DALI on a whole file: {result}")
        count += len(result.images)
    return count


def _decode_with_dali(
    place: Place, paths: Sequence[pathlib.Path], *, hybrid: bool, num_pipelines: int = sources.NUM_PIPELINES
) -> int:
    events = sources.decode_videos(
        _videos(paths),
        SAMPLING,
        SAMPLING.super_img_size,
        device_id=place.device_id,
        hybrid=hybrid,
        num_workers=os.cpu_count() or 1,
        time_limit_s=TIME_LIMIT_S,
        num_pipelines=num_pipelines,
    )
    return pipelines.count(events)


def _decode_with_pyav(paths: Sequence[pathlib.Path]) -> int:
    on_cpu = tasks.embedding_tasks(SAMPLING, "pyav", SAMPLING.super_img_size)
    workers = os.cpu_count() or 1
    return pipelines.count(pool.run(_videos(paths), on_cpu, num_workers=workers, time_limit_s=TIME_LIMIT_S))


def _videos(paths: Sequence[pathlib.Path]) -> list[VideoFile]:
    return [VideoFile(path.stem, path) for path in paths]


def _hybrid(work: Work, paths: Sequence[pathlib.Path], dali: Rate) -> Iterator[Check]:
    pyav = _rate(work, paths, functools.partial(_decode_with_pyav, paths))
    yield measured("--decoder pyav", f"{pyav.per_s:,.4g} super images/s", per_s=pyav.per_s, seconds=pyav.seconds)
    hybrid = _rate(work, paths, functools.partial(_decode_with_dali, work.place, paths, hybrid=True))
    facts = {"dali_per_s": dali.per_s, "dali_and_pyav_per_s": dali.per_s + pyav.per_s}
    more = {"per_s": hybrid.per_s, "seconds": hybrid.seconds, "load": hybrid.watch.told}
    ratio = hybrid.per_s / dali.per_s
    yield held_against("hybrid over dali", "hybrid over dali", ratio, facts, floors=work.plan.floors, **more)


def _settings(work: Work, paths: Sequence[pathlib.Path]) -> Iterator[Check]:
    """Pipelines x threads, then `affine`: the fastest beside the product's own; only told, for someone to decide."""
    plan = work.plan
    tried = [(number, threads, plan.affine[0]) for number in plan.pipelines for threads in plan.threads]
    tried += [(plan.pipelines[0], plan.threads[0], affine) for affine in plan.affine[1:]]
    rates: dict[str, float] = {}
    for number, threads, affine in tried:
        name = f"{number} pipelines, {threads} threads{', affine' if affine else ''}"
        with (
            mock.patch.object(sources, "_num_threads", lambda *_, threads=threads: threads),
            mock.patch.object(video_pipeline, "AFFINE", affine),
        ):
            decode = functools.partial(_decode_with_dali, work.place, paths, hybrid=False, num_pipelines=number)
            rate = _rate(work, paths, decode, repetitions=1)
        rates[name] = rate.per_s
        yield measured(
            f"--decoder dali, {name}", f"{rate.per_s:,.4g} super images/s; {rate.watch.told}", per_s=rate.per_s
        )
    own, best = next(iter(rates)), max(rates, key=rates.__getitem__)
    told = f"{best}: {rates[best] / rates[own]:.2f} times the product's own ({own})"
    yield measured("fastest settings", told, per_s=rates)


def _rate(work: Work, paths: Sequence[pathlib.Path], decode: Callable[[], int], repetitions: int | None = None) -> Rate:
    """Runs it; raises GridClipError where super images are missing."""
    expected = sum(pipelines.expected_super_images(path) for path in paths)
    seconds = []
    for _ in range(repetitions or work.plan.repetitions):
        with Watch(work.place.device_id) as watch:
            began = time.perf_counter()
            found = decode()
            seconds.append(time.perf_counter() - began)
        if found != expected:
            raise GridClipError(f"{found} super images came out, expected {expected}")
    per_s = measure.significant(expected / statistics.median(seconds))
    return Rate(per_s, [round(value, 3) for value in seconds], watch)
