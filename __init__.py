"""GridCLIP: a folder of videos in, ranked answers for a sentence out.

This is the library's face; the command line is a client of it. Importing it brings in nothing heavy: every name gets
what it needs when it is used. Functions live here with short bodies, for they join the rooms below (export/ writes a
model folder, engine/ reads it); classes come from their rooms by `_ROOMS`. A new name joins `__all__`, and README.md
and the docstrings' examples are run by tests.

Paths are strings or path objects. A model is what `load_model` returns or takes, a store is a `Store` or its folder.
What goes wrong is a `GridClipError`, whose message says what to do; the subclass `ArgumentError` (a ValueError, too) is
for arguments that can never be right.
"""

from __future__ import annotations

import importlib
import os
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .engine import choices as _choices

if TYPE_CHECKING:
    from .dali_pipes.errors import ArgumentError, GridClipError
    from .dali_pipes.sampling import Sampling
    from .engine.encoding.encoder import Encoder
    from .engine.evaluation.comparison import EvaluationComparison
    from .engine.evaluation.evaluation import Evaluation
    from .engine.evaluation.predictions import PredictionEvaluation
    from .engine.evaluation.reproduction import Reproduction
    from .engine.features import Imported
    from .engine.index.building import Indexed
    from .engine.jobs.merge_stores import Merged
    from .engine.jobs.progress import JobSummary
    from .engine.jobs.status import Status
    from .engine.planning.plan import Plan
    from .engine.search.search import Hit
    from .engine.store.store import Store
    from .export.listing import ModelListing
    from .export.model_info import ModelInfo

    Path = str | os.PathLike[str]

__version__ = "0.1.0"
__all__ = [
    "ArgumentError",
    "GridClipError",
    "Sampling",
    "Store",
    "compare",
    "download_model",
    "embed_images",
    "embed_text",
    "embed_videos",
    "evaluate",
    "evaluate_predictions",
    "export_features",
    "export_model",
    "import_features",
    "index",
    "list_models",
    "load_model",
    "merge_stores",
    "plan",
    "reproduce",
    "search",
    "status",
    "superimages",
]

_ROOMS = {
    "ArgumentError": "dali_pipes.errors",
    "GridClipError": "dali_pipes.errors",
    "Sampling": "dali_pipes.sampling",
    "Store": "engine.store.store",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def plan(
    video_dir: Path | None = None,
    *,
    video_info: Path | None = None,
    sampling: Sampling | None = None,
    anno_file: Path | None = None,
    exclude: Iterable[str] = (),
    num_workers: int | None = None,
) -> Plan:
    """Says how big a job is before it runs: packets are read, nothing is decoded.

    Args:
        video_dir: a folder of videos, searched with its subfolders; a text file of paths; WebDataset tars; or a URL
            (s3://, gs://, hf://, https://; extra `remote`).
        video_info: a JSON list of {video_name, video_frames, video_fps, video_duration}, duration in seconds.
        sampling: which frames; default: `Sampling()`, 0.5 frames per second in a 2 x 2 grid.
        anno_file: only the videos of this annotation file (ActivityNet Captions, TVR, Charades-STA or MS-SL).
        exclude: ids of videos to leave out, or files of one id per line.
        num_workers: processes that read packets; default: one per CPU core.

    Returns:
        Counts of videos, wanted frames, super images and queries, durations in seconds, sizes in bytes, and the videos
        that cannot be used.

    Raises:
        ArgumentError: both `video_dir` and `video_info` are given, or neither is.
        GridClipError: the folder or a file cannot be used.

    Example:
        >>> import gridclip
        >>> size = gridclip.plan("videos", sampling=gridclip.Sampling(fps=0.5, grid_size=2))
        >>> size.videos, size.frames, size.super_images
        (4, 15, 5)
    """
    from .dali_pipes.errors import ArgumentError
    from .dali_pipes.sampling import Sampling
    from .engine.planning import plan as planning

    chosen = sampling or Sampling()
    annotations, excluded = _path(anno_file), planning.read_exclusions(exclude)
    if video_dir is not None and video_info is None:
        workers = num_workers or os.cpu_count() or 1
        return planning.plan_folder(video_dir, chosen, anno_file=annotations, exclude=excluded, num_workers=workers)
    if video_info is not None and video_dir is None:
        return planning.plan_video_info(pathlib.Path(video_info), chosen, anno_file=annotations, exclude=excluded)
    raise ArgumentError("plan needs either `video_dir` or `video_info`")


def superimages(
    video_dir: Path,
    save_dir: Path,
    *,
    sampling: Sampling | None = None,
    anno_file: Path | None = None,
    decoder: _choices.Decoder = _choices.DECODER,
    num_workers: int | None = None,
    time_limit_s: float = _choices.TIME_LIMIT_S,
    resume: bool = False,
    overwrite: bool = False,
    on_damage: _choices.OnDamage = _choices.ON_DAMAGE,
    retry_failed: str | None = None,
    metrics_port: int | None = None,
    metrics_host: str = _choices.METRICS_HOST,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
) -> JobSummary:
    """Writes `<save_dir>/<video id>/img_0001.jpg` ... for every video: super images as JPEG files, RGB, quality 75.

    With several grid sizes the folders of each lie in `<save_dir>/grid_<N>`, all from one decode.

    Several jobs on one `save_dir` share its videos. A video that fails is a line of `<save_dir>/failures.jsonl`.

    Args:
        video_dir: a folder of videos, searched with its subfolders; a text file of paths; WebDataset tars; or a URL
            (s3://, gs://, hf://, https://; extra `remote`).
        save_dir: made if it is missing.
        sampling: which frames, and how they are laid out; default: `Sampling()`, images of 336 x 336 pixels.
        anno_file: only the videos of this annotation file.
        decoder: "auto", "dali" (NVDEC), "hybrid" (NVDEC and the CPU), "decord" or "pyav" (the CPU). With
            `Sampling(decode="fast")` "auto" is "pyav", and the others are refused.
        num_workers: decoding processes; default: one per CPU core.
        time_limit_s: seconds without a result after which a decoder counts as hung, > 0.
        resume: leave finished folders as they are.
        overwrite: make all folders again.
        on_damage: where a wanted frame cannot be decoded, "nearest" takes the nearest one that can, at most 1/fps
            seconds away, with a notice; with "fail" the video fails.
        retry_failed, metrics_port, metrics_host: as in `embed_videos`.
        cluster, cpus_per_worker: as in `embed_videos`; every node writes to `save_dir`, on a drive that all of them
            share. With a decoder on the CPU they leave their GPUs alone.

    Returns:
        Counts of videos, super images and failures, and the time in seconds; `str()` of it is one line.

    Raises:
        ArgumentError: an option of one machine is given to a cluster, or the other way round.
        GridClipError: the folders cannot be used, were made with other settings, or hold videos already while neither
            `resume` nor `overwrite` is given; or the disk is full. What is finished stays.
        KeyboardInterrupt: Ctrl-C, with the counts so far as its `summary`. What is finished stays.

    Example:
        >>> import gridclip
        >>> done = gridclip.superimages("videos", "out112", sampling=gridclip.Sampling(super_img_size=112))
        >>> done.done, done.super_images, done.failures
        (4, 5, 0)
    """
    from .dali_pipes.sampling import Sampling
    from .engine.jobs.super_images import make_super_images

    _check_cluster(cluster, cpus_per_worker, num_workers)
    return make_super_images(
        video_dir,
        pathlib.Path(save_dir),
        anno_file=_path(anno_file),
        sampling=sampling or Sampling(),
        decoder=decoder,
        num_workers=num_workers or os.cpu_count() or 1,
        time_limit_s=time_limit_s,
        resume=resume,
        overwrite=overwrite,
        on_damage=on_damage,
        retry_failed=retry_failed,
        metrics_address=_address(metrics_host, metrics_port),
        cluster=cluster,
        cpus_per_worker=cpus_per_worker,
    )


def export_model(
    model: Path,
    out: Path,
    *,
    image_size: int | None = None,
    context_length: int | None = None,
    precision: _choices.Precision = _choices.PRECISION,
    tokenizer: Path | None = None,
    activation: _choices.Activation | None = None,
    verify: bool = True,
) -> ModelInfo:
    """Writes a model folder (ONNX graphs, vocabulary, model.json) from a CLIP checkpoint, or nothing.

    Args:
        model: "ViT-B/32", "ViT-B/16", "ViT-L/14" or "ViT-L/14@336px" (downloaded, checksum checked), or the path of an
            OpenAI archive or state dict, an open_clip file, or a Hugging Face CLIP folder.
        out: the model folder; an older one of that name is replaced.
        image_size: side of its super images in pixels; default: the checkpoint's.
        context_length: longest text in tokens; default: the checkpoint's.
        precision: "fp32", "fp16" (for GPUs) or "int8" (for CPUs).
        tokenizer: tokenizer.json, bpe_simple_vocab_16e6.txt.gz, or a folder that holds one; default: what lies beside
            the checkpoint.
        activation: for checkpoints that do not say.
        verify: compare the graphs with torch and fail where they differ.

    Returns:
        What model.json says: name, precision, image_size in pixels, context_length in tokens, embed_dim and so on.

    Raises:
        GridClipError: no such checkpoint, it is no CLIP, its vocabulary is missing, the graphs differ from torch, or
            `out` is something else than a model folder.

    Example:
        >>> import gridclip
        >>> info = gridclip.export_model("ViT-L-14.pt", "model-folder", precision="fp32")
        >>> info.precision, info.family
        ('fp32', 'clip')
    """
    from .export import folder

    return folder.export_model(
        os.fspath(model),
        pathlib.Path(out),
        image_size=image_size,
        context_length=context_length,
        precision=precision,
        tokenizer=_path(tokenizer),
        activation=activation,
        verify=verify,
    )


def download_model(name: str) -> pathlib.Path:
    """Brings a known model's checkpoint into the cache folder, where its name finds it; what is there is checked.

    Args:
        name: one that `list_models` has. $HF_ENDPOINT names another Hugging Face hub than the public one.

    Returns:
        The checkpoint: a file or a folder, which `load_model` and `export_model` take, too.

    Raises:
        GridClipError: the name is unknown, the network or the server fails (what has come is kept, and the next call
            goes on from there), a checksum is another one, or the cache folder cannot be written.

    Example:
        >>> import gridclip
        >>> gridclip.download_model("ViT-L-14")  # nothing is downloaded here
        Traceback (most recent call last):
        ...
        gridclip.dali_pipes.errors.GridClipError: model 'ViT-L-14' is not known: did you mean ViT-L/14 or ...
    """
    from .export import downloads

    return downloads.download_model(name)


def list_models() -> ModelListing:
    """Says which models are known, and which of them are in the cache folder; nothing is downloaded.

    Returns:
        Each model's name, family, licence, size, width and resolution, a published figure where one is known, and the
        model folders in the cache; `str()` of it is a table.

    Raises:
        OSError: the cache folder cannot be read.

    Example:
        >>> import gridclip
        >>> [model.name for model in gridclip.list_models().known if model.family == "clip"][:2]
        ['ViT-B/32', 'ViT-B/16']
    """
    from .export import listing

    return listing.list_models()


def load_model(
    model: Path,
    *,
    num_gpus: int = _choices.NUM_GPUS,
    provider: _choices.Provider = _choices.PROVIDER,
    image_size: int | None = None,
    tokenizer: Path | None = None,
    cuda_graph: bool = False,
) -> Encoder:
    """Loads a model; a checkpoint is first exported into the cache folder, once, as fp16 where a GPU will run it.

    Args:
        model: a model folder, or what `export_model` takes.
        num_gpus: 0: the CPU; 1: a GPU where ONNX Runtime has one; more: the GPUs must be there, see `embed_videos`.
        provider: "auto", "cpu", "cuda" or "tensorrt": what ONNX Runtime runs the model with.
        image_size: side of its super images in pixels; default: the model's.
        tokenizer: the vocabulary, for checkpoints; see `export_model`.
        cuda_graph: record the GPU's work of a batch once and replay it.

    Returns:
        The model. Its `encode_texts(["a sentence", ...])` gives float32 [Q, D], and `encode_images` of uint8
        [B, S, S, 3], RGB, float32 [B, D]; all vectors have unit length.

    Raises:
        GridClipError: there is no such model, it is damaged, or the provider or GPUs are not here.

    Example:
        >>> import gridclip
        >>> model = gridclip.load_model("ViT-L-14.pt", num_gpus=0)
        >>> vectors = model.encode_texts(["a dog catches a frisbee", "two squares"])
        >>> vectors.dtype, len(vectors)
        (dtype('float32'), 2)
    """
    from .engine.encoding.encoder import Encoder
    from .engine.encoding.providers import check_gpus, choose_provider

    chosen = choose_provider(provider if num_gpus else "cpu")
    check_gpus(chosen, num_gpus)
    folder = pathlib.Path(model)
    if image_size is not None or tokenizer is not None or not (folder / "model.json").is_file():
        from .export.folder import ensure_model_folder, is_model_folder  # imports torch

        # A checkpoint is exported as suits the machine; a model folder stays as it is.
        suited: dict[str, Any] = {} if chosen == "cpu" or is_model_folder(folder) else {"precision": "fp16"}
        options: dict[str, Any] = {"image_size": image_size, "tokenizer": _path(tokenizer), **suited}
        folder = ensure_model_folder(os.fspath(model), **options)
    return Encoder(folder, provider=chosen, cuda_graph=cuda_graph)


def embed_videos(
    model: Encoder | Path | Sequence[Encoder | Path],
    video_dir: Path,
    store: Store | Path | Sequence[Store | Path],
    *,
    sampling: Sampling | Sequence[Sampling] | None = None,
    anno_file: Path | None = None,
    decoder: _choices.Decoder = _choices.DECODER,
    batch_size: int | None = None,
    num_workers: int | None = None,
    time_limit_s: float = _choices.TIME_LIMIT_S,
    resume: bool = False,
    overwrite: bool = False,
    num_shards: int = 1,
    shard_id: int = 0,
    num_gpus: int = _choices.NUM_GPUS,
    on_damage: _choices.OnDamage = _choices.ON_DAMAGE,
    cells: bool | None = _choices.CELLS,
    retry_failed: str | None = None,
    metrics_port: int | None = None,
    metrics_host: str = _choices.METRICS_HOST,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
) -> JobSummary:
    """Embeds videos into a store, one vector per super image, without JPEG files.

    A video that fails is a line of `failures.jsonl` in the store's folder; the others go on.

    With a list of models and a list of their stores every video is decoded once, for all stores that lack it. A model
    that fails, or a store whose disk is full, does not stop the others.

    Args:
        model: from `load_model`, or what that takes; or a list of them.
        video_dir: a folder of videos, searched with its subfolders; a text file of paths; WebDataset tars; or a URL
            (s3://, gs://, hf://, https://; extra `remote`).
        store: made if it is missing; with a list of models, a list of as many.
        sampling: which frames, and how they are laid out; default: `Sampling()` of the model's image size. A list has
            one for each model, which may differ in `super_img_size`.
        anno_file: only the videos of this annotation file.
        decoder: "auto", "dali" (NVDEC), "hybrid" (NVDEC and the CPU), "decord" or "pyav" (the CPU). With
            `Sampling(decode="fast")` "auto" is "pyav", and the others are refused.
        batch_size: super images per pass; default: 100 on a GPU, 8 on the CPU.
        num_workers: decoding processes; default: one per CPU core.
        time_limit_s: seconds without a result after which a decoder counts as hung, > 0.
        resume: leave out the videos that are in the store.
        overwrite: remove all super images from the store first.
        num_shards: jobs that share the work and the store.
        shard_id: which of them this one is, from 0.
        num_gpus: 0: the CPU; 1: what `model` was loaded with; more: a process for each, of one model.
        on_damage: where a wanted frame cannot be decoded, "nearest" takes the nearest one that can, at most 1/fps
            seconds away, with a notice; with "fail" the video fails.
        cells: also make a vector of each wanted frame, from its cell of the super image, in the same pass. None: as the
            store has it; a new one gets them where the models can embed cells and super images do not overlap.
        retry_failed: "any": only the videos that the failures.jsonl of earlier runs name; or only those that failed at
            a stage, one of "list", "open", "demux", "sample", "decode", "read", "write", "encode" and "query".
        metrics_port: show how the job gets on to Prometheus, at this port (0 is any free one) until it ends.
        metrics_host: the address to show it at; the default is this machine's own.
        cluster: "auto" or the address of a Ray cluster: a worker for each of its GPUs (0 `num_gpus`: on its CPU cores),
            this process writes the store. Every node needs GridCLIP, and the model and the videos at the same paths.
        cpus_per_worker: of a cluster's workers, each decodes in so many processes; default: a node's cores, shared out
            among its GPUs.

    Returns:
        Counts of videos, super images and failures, and the time in seconds; `str()` of it is one line. With several
        models these are sums, `stores` has the counts of each, and `stopped` in them says what stopped a store early.

    Raises:
        ArgumentError: `shard_id` is not below `num_shards`, `overwrite` is given to one of several shards, or an option
            of one machine to a cluster, or the other way round; there are not as many stores as models, one store is
            given twice, or several models are to run on several GPUs or a cluster.
        GridClipError: an argument cannot be used, the store is of another model or sampling, or holds videos of the
            folder while neither `resume` nor `overwrite` is given; or the disk is full. What is stored stays.
        KeyboardInterrupt: Ctrl-C, with the counts so far as its `summary`. What is stored stays.

    Example:
        >>> import gridclip
        >>> model = gridclip.load_model("ViT-L-14.pt")
        >>> done = gridclip.embed_videos(model, "videos", "new-store")
        >>> done.done, done.super_images, done.failures
        (4, 5, 0)
    """
    from .dali_pipes.errors import ArgumentError
    from .engine.jobs import embed_videos as job
    from .engine.jobs import several_models

    if not 0 <= shard_id < num_shards:
        raise ArgumentError(f"`shard_id={shard_id}` must be less than `num_shards={num_shards}`, and not below 0")
    if overwrite and num_shards > 1:
        raise ArgumentError("`overwrite=True` would remove what the other shards have done: remove the store yourself")
    _check_cluster(cluster, cpus_per_worker, num_workers, num_gpus)
    models, stores = _listed(model), [_store_path(each) for each in _listed(store)]
    samplings = None if sampling is None else _listed(sampling)
    counts = len(models), stores, None if samplings is None else len(samplings)
    several_models.check_counts(*counts, num_gpus=num_gpus, cluster=cluster)
    targets = several_models.pair_up([_encoder(each, num_gpus) for each in models], stores, samplings)
    options: dict[str, Any] = {
        "anno_file": _path(anno_file),
        "decoder": decoder,
        "batch_size": batch_size,
        "num_workers": num_workers or os.cpu_count() or 1,
        "time_limit_s": time_limit_s,
        "resume": resume,
        "overwrite": overwrite,
        "num_shards": num_shards,
        "shard_id": shard_id,
        "on_damage": on_damage,
        "cells": cells,
        "retry_failed": retry_failed,
        "metrics_address": _address(metrics_host, metrics_port),
    }
    if len(targets) > 1:
        return job.embed_videos_with_models(targets, video_dir, **options)
    (target,) = targets
    return job.embed_videos(
        target.encoder,
        video_dir,
        target.path,
        sampling=target.sampling,
        num_gpus=num_gpus,
        cluster=cluster,
        cpus_per_worker=cpus_per_worker,
        **options,
    )


def embed_images(
    model: Encoder | Path,
    image_dir: Path,
    store: Store | Path,
    *,
    batch_size: int | None = None,
    num_workers: int | None = None,
    time_limit_s: float = _choices.TIME_LIMIT_S,
    resume: bool = False,
    overwrite: bool = False,
    num_gpus: int = _choices.NUM_GPUS,
    cells: bool | None = _choices.CELLS,
    retry_failed: str | None = None,
    metrics_port: int | None = None,
    metrics_host: str = _choices.METRICS_HOST,
    cluster: str | None = None,
    cpus_per_worker: int | None = None,
) -> JobSummary:
    """Embeds JPEG super images into a store; other sizes than the model's are resized.

    Args:
        model: from `load_model`, or what that takes.
        image_dir: what `superimages` wrote, `<video id>/img_0001.jpg` ...; from another program, times are unknown.
        store: made if it is missing.
        batch_size: super images per pass; default: 100 on a GPU, 8 on the CPU.
        num_workers: reading processes; default: 10.
        time_limit_s: seconds without a result after which a reader counts as hung, > 0.
        resume, overwrite, num_gpus: as in `embed_videos`, as are the result and the errors.
        cells: also make a vector of each frame; a folder that does not say when its frames are is a failure. None: as
            the store has it; a new one gets them where the model can embed cells and every folder says it.
        retry_failed, metrics_port, metrics_host, cluster, cpus_per_worker: as in `embed_videos`.

    Example:
        >>> import gridclip
        >>> model = gridclip.load_model("ViT-L-14.pt")
        >>> gridclip.embed_images(model, "super-images", "store-of-images").super_images
        5
    """
    from .engine.jobs import embed_images as job

    _check_cluster(cluster, cpus_per_worker, num_workers, num_gpus)
    return job.embed_images(
        _encoder(model, num_gpus),
        pathlib.Path(image_dir),
        _store_path(store),
        batch_size=batch_size,
        num_workers=num_workers or _choices.IMAGE_WORKERS,
        time_limit_s=time_limit_s,
        resume=resume,
        overwrite=overwrite,
        num_gpus=num_gpus,
        cells=cells,
        retry_failed=retry_failed,
        metrics_address=_address(metrics_host, metrics_port),
        cluster=cluster,
        cpus_per_worker=cpus_per_worker,
    )


def embed_text(
    model: Encoder | Path,
    captions: Path | Mapping[str, str | Sequence[str]],
    store: Store | Path,
    *,
    batch_size: int = _choices.TEXT_BATCH_SIZE,
    max_text_length: int | None = None,
    max_chars: int | None = None,
) -> JobSummary:
    """Embeds captions into a store as queries, each of which belongs to a video; `evaluate` ranks the videos for them.

    Args:
        model: from `load_model`, or what that takes.
        captions: an annotation file (ActivityNet Captions, TVR, Charades-STA or MS-SL), or the sentences of each video
            by its id.
        store: made if it is missing. A caption that it has is replaced.
        batch_size: captions per pass, >= 1.
        max_text_length: most tokens of a caption, at most the model's; longer ones are cut, the end token is kept.
        max_chars: first cut captions to so many characters.

    Returns:
        Counts of captions and failures, and the time in seconds; `str()` of it is one line.

    Raises:
        ArgumentError: `max_text_length` is more than the model's.
        GridClipError: the file has no usable caption, the store is of another model, or cannot be written.
        KeyboardInterrupt: Ctrl-C. Nothing was stored.

    Example:
        >>> import gridclip
        >>> model = gridclip.load_model("ViT-L-14.pt")
        >>> captions = {"a": ["a red circle moves", "two squares"], "b": "a green triangle"}
        >>> gridclip.embed_text(model, captions, "store").done
        3
    """
    from .dali_pipes.errors import ArgumentError
    from .engine.annotations.annotations import of_captions
    from .engine.jobs import embed_text as job

    encoder = _encoder(model)
    longest = encoder.info.context_length
    if max_text_length is not None and max_text_length > longest:
        raise ArgumentError(
            f"`max_text_length={max_text_length}` is more than the model's {longest} tokens: export it with "
            f"`context_length={max_text_length}`, and embed the videos with that model folder, too"
        )
    return job.embed_text(
        encoder,
        of_captions(captions) if isinstance(captions, Mapping) else pathlib.Path(captions),
        _store_path(store),
        batch_size=batch_size,
        max_text_length=max_text_length,
        max_chars=max_chars,
    )


def evaluate(
    store: Store | Path,
    *,
    anno_file: Path | None = None,
    aggregate: str = _choices.AGGREGATE,
    temperature: float = _choices.TEMPERATURE,
    topk: Collection[int] = _choices.TOPK,
    missing: _choices.Missing = _choices.MISSING,
    examples: int = 0,
    moments: bool = False,
    level: _choices.Level | None = None,
    grid_size: int | None = None,
    sweep: Mapping[str, Sequence[float | str]] | None = None,
    normalise: str = _choices.NORMALISATION,
    query_bank: Path | None = None,
    refine: int | None = None,
    video_dir: Path | None = None,
    model: Encoder | Path | None = None,
    refine_cache_frames: int = _choices.REFINE_CACHE_FRAMES,
    device: str | None = None,
) -> Evaluation:
    """Ranks all videos of a store for each of its queries, and counts how often the query's own is among the first K.

    Args:
        store: holds super images and queries.
        anno_file: only the captions of this annotation file, and only its videos as candidates.
        aggregate: "softmax", "mean", "max", "windows" or "tf-prvr": how the super images of a video make its score, and
            what its moments are.
        temperature: of the softmax, > 0; smaller ones look more at the best super image.
        topk: the K of R@K, each >= 1.
        missing: "drop" or "count-as-failures": what becomes of captions whose video has no embeddings.
        examples: queries to return with their best videos.
        moments: also measure moments of queries with times: R@K at IoU 0.3, 0.5 and 0.7 in the own video and in all
            videos, mean IoU and what the sampling allows at most, in percent.
        level: "super" (super images) or "cell" (frames); default: cells where the store has them.
        grid_size: of the super images, where the store has several; default: the smallest.
        sweep: values of "temperature" or "aggregate" to try besides, {"temperature": [1, 0.1]}, in the same pass.
        normalise: "none", "qb-norm" or "sinkhorn": what to do against videos that are near to every query. Sinkhorn
            sees all queries together, so that it is transductive. Not together with `sweep`.
        query_bank: for "qb-norm": a store or an npz (`embedding` [B, D]) of queries other than those evaluated.
        refine, video_dir: as in `search`, for every query. Not together with `sweep` or `normalise`.
        model: for `refine`, the one that the store was made with.
        refine_cache_frames: as in `search`.
        device: torch's name of where to compute; default: CUDA where there is one.

    Returns:
        `recall` {K: percent}, `sum_recall`, `median_rank`, `mean_rank`, counts; `str()` of it is a table, `to_json()`
        a dict.

    Raises:
        ValueError: an argument is out of range, or does not go together with another.
        GridClipError: the store holds no videos or no queries, the annotation file or the bank does not fit it, or
            there are too many scores to normalise.

    Example:
        >>> import gridclip
        >>> result = gridclip.evaluate("store", topk=[1, 10])
        >>> sorted(result.recall), result.recall[10]
        ([1, 10], 100.0)
    """
    from .dali_pipes.errors import ArgumentError
    from .engine.evaluation import evaluation

    asked = None
    if refine is not None:
        from .engine.refinement.refiner import Refining

        if video_dir is None or model is None:
            raise ArgumentError(f"`refine={refine}` needs `video_dir` and `model`, to look at the videos again")
        asked = Refining(refine, pathlib.Path(video_dir), _encoder(model), refine_cache_frames)
    return evaluation.evaluate(
        _opened(store),
        anno_path=anno_file,
        aggregate=aggregate,
        temperature=temperature,
        topk=tuple(topk),
        missing=missing,
        examples=examples,
        moments=moments,
        level=level,
        grid_size=grid_size,
        sweep=sweep,
        normalise=normalise,
        query_bank=query_bank,
        refine=asked,
        device=device,
    )


def evaluate_predictions(
    predictions: Path, anno_file: Path, *, topk: Collection[int] = _choices.TOPK
) -> PredictionEvaluation:
    """Measures anyone's predicted moments, in the format of TVRetrieval or QVHighlights; no store is needed.

    Args:
        predictions: the file, recognised by content.
        anno_file: the annotation file with the true moments.
        topk: the K of R@K, each >= 1.

    Returns:
        `svmr` and `vcmr` {IoU: {K: percent}}, `miou`, `mean_ap`, None for what the file does not predict; `str()` of it
        is a table, `to_json()` a dict.

    Raises:
        ValueError: a K is less than 1.
        GridClipError: a file cannot be used, no caption has times, or none has predictions.

    Example:
        >>> import gridclip, json, pathlib
        >>> moments = {"qid": 1, "query": "a star", "vid": "c", "pred_relevant_windows": [[2, 6, 0.9]]}
        >>> truth = {"qid": 1, "query": "a star", "vid": "c", "relevant_windows": [[2, 4], [4, 10]]}
        >>> _ = pathlib.Path("moments.jsonl").write_text(json.dumps(moments))
        >>> _ = pathlib.Path("truth.jsonl").write_text(json.dumps(truth))
        >>> gridclip.evaluate_predictions("moments.jsonl", "truth.jsonl").svmr[0.5][1]
        100.0
    """
    from .engine.evaluation import predictions as prediction_evaluation

    return prediction_evaluation.evaluate_predictions(predictions, anno_file, topk=tuple(topk))


def compare(
    first: Evaluation | Path,
    second: Evaluation | Path,
    *,
    other_queries: _choices.OtherQueries = _choices.OTHER_QUERIES,
) -> EvaluationComparison:
    """Says whether two evaluations of the same queries differ beyond chance: paired bootstrap over the queries.

    Args:
        first, second: from `evaluate`, or the JSON files that `gridclip evaluate` has written of them.
        other_queries: "refuse", or "leave-out": what becomes of queries that only one of the two has.

    Returns:
        `metrics`, by name, each with `first`, `second`, their `difference` and its 95% interval, in percent, and
        `decided`; `str()` of it is a table, `to_json()` a dict.

    Raises:
        GridClipError: a file is no evaluation of this version, or the queries differ.

    Example:
        >>> import gridclip
        >>> found = gridclip.compare(gridclip.evaluate("store"), gridclip.evaluate("store", aggregate="max"))
        >>> found.queries, found.metrics["R@100"].decided
        (4, False)
    """
    from .engine.evaluation import comparison

    named = [
        (str(each), comparison.read_evaluation(each))
        if isinstance(each, (str, os.PathLike))
        else (name, each.to_json())
        for name, each in (("the first evaluation", first), ("the second evaluation", second))
    ]
    sources, contents = zip(*named, strict=True)
    return comparison.compare_evaluations(*contents, sources=sources, other_queries=other_queries)


def reproduce(
    procedure: str,
    video_dir: Path,
    anno_file: Path,
    work_dir: Path,
    *,
    model: Encoder | Path = "ViT-L/14",
    tokenizer: Path | None = None,
    super_img_size: int = _choices.SUPER_IMG_SIZE,
    grid_sizes: Collection[int] = (1, 2, 3, 4, 5),
    decoder: _choices.Decoder = _choices.DECODER,
    batch_size: int | None = None,
    num_workers: int | None = None,
    num_gpus: int = _choices.NUM_GPUS,
    on_damage: _choices.OnDamage = _choices.ON_DAMAGE,
) -> Reproduction:
    """Measures a published procedure again, from videos to a table; a second call goes on from what the first left.

    Args:
        procedure: "activitynet": the super-image procedure on ActivityNet Captions val_1, its settings and ours; or
            "grids": its ablation, several grid sizes, each with attention and without.
        video_dir: the benchmark's videos.
        anno_file: their captions.
        work_dir: gets the stores, a JSON file for each row, and `table.json`.
        model, tokenizer: as in `load_model`.
        super_img_size: side of a super image in pixels; the procedure has 336 or 224.
        grid_sizes: of "grids"; "activitynet" has 2.
        decoder, batch_size, num_workers, num_gpus, on_damage: as in `embed_videos`.

    Returns:
        `evaluations` by the rows' titles, and `notes`; `str()` of it is the table.

    Raises:
        ArgumentError: an unknown procedure.
        GridClipError: a file or folder cannot be used, or no video can be embedded.

    Example:
        >>> import gridclip
        >>> table = gridclip.reproduce("grids", "videos", "captions.json", "w", model="ViT-L-14.pt", grid_sizes=[2])
        >>> list(table.evaluations)
        ['grid 2, attention', 'grid 2, mean']
    """
    from .dali_pipes.errors import ArgumentError
    from .dali_pipes.sampling import Sampling
    from .engine.evaluation import reproduction

    if procedure not in ("activitynet", "grids"):
        raise ArgumentError(f"procedure ({procedure!r}) must be activitynet or grids")
    paths = pathlib.Path(video_dir), pathlib.Path(anno_file), pathlib.Path(work_dir)
    encoder = (
        load_model(model, num_gpus=num_gpus, tokenizer=tokenizer) if isinstance(model, (str, os.PathLike)) else model
    )
    decoding = reproduction.Decoding(decoder, batch_size, num_workers or os.cpu_count() or 1, num_gpus, on_damage)
    if procedure == "activitynet":
        return reproduction.activitynet(encoder, *paths, super_img_size=super_img_size, decoding=decoding)
    sampling = Sampling(super_img_size=super_img_size)
    return reproduction.grids(encoder, *paths, grid_sizes=tuple(grid_sizes), sampling=sampling, decoding=decoding)


def search(
    model: Encoder | Path,
    sentence: str | Sequence[str],
    store: Store | Path,
    *,
    unwanted: Sequence[str] = (),
    image: Path | None = None,
    top: int = _choices.TOP,
    moments: int = 1,
    aggregate: str = _choices.AGGREGATE,
    temperature: float = _choices.TEMPERATURE,
    level: _choices.Level | None = None,
    grid_size: int | None = None,
    index: _choices.IndexMode = _choices.INDEX,
    refine: int | None = None,
    video_dir: Path | None = None,
    refine_cache_frames: int = _choices.REFINE_CACHE_FRAMES,
    device: str | None = None,
) -> list[Hit]:
    """The best videos for a sentence, best first, each with the moments that fit it best.

    Args:
        model: from `load_model`, or what that takes: the one that the store was made with.
        sentence: what to search for; several are to come one after the other, and score as the mean of the cosines of
            the best moments in that order; none where there is an `image`.
        store: holds super images; nothing is written to it, but for what `refine` keeps beside it.
        unwanted: sentences whose largest score, where it is above 0, is taken off.
        image: a picture to search for; it comes before the sentences.
        top: how many videos, >= 1.
        moments: how many moments of each, >= 1; of several sentences it is one for each of them.
        aggregate, temperature: as in `evaluate`.
        level, grid_size: as in `evaluate`.
        index: "exact" scores every video, "ann" those that the store's index names (see `index`), "auto" takes the
            index for one sentence in more than 100,000 super images, where there is one. Scores are exact in all.
        refine: for stores of a coarse grid and one sentence: the so many best videos are decoded again around their
            best moments, one frame a pass. Their new scores, the mean of the coarse one and that of the best moment
            among the frames, decide their order; they stay before all others.
        video_dir: for `refine`, the videos.
        refine_cache_frames: frames that `refine` keeps beside the store for the next query, at most.
        device: as in `evaluate`.

    Returns:
        A `Hit` per video: `video_id`, `score` (a cosine, -1 to 1), `moments` (`start_s` and `end_s` in seconds, and
        `score`), best first, and `start_s` and `end_s` of the best one, None where the store has no times.

    Raises:
        ArgumentError: a sentence is empty, or there is neither one nor an image; or `refine` or `index` does not go
            with them.
        GridClipError: there is no such store, it holds no videos, it lacks the index that was demanded, or it is of
            another model; or the image is none.

    Example:
        >>> import gridclip
        >>> model = gridclip.load_model("ViT-L-14.pt")
        >>> best, second = gridclip.search(model, "a red circle", "store", top=2)
        >>> best.score >= second.score, best.start_s < best.end_s
        (True, True)
        >>> hits = gridclip.search(model, ["a red circle", "a star"], "store", unwanted=["a square"])
    """
    from .dali_pipes.errors import ArgumentError
    from .engine.search.questions import Question, answer
    from .engine.search.search import Searcher

    sentences = [sentence] if isinstance(sentence, str) else sentence
    question = Question(sentences, unwanted, _path(image))
    found = _opened(store)
    encoder = _encoder(model)
    found.require_model(encoder.info.to_json())
    searcher = Searcher(
        found,
        aggregate=aggregate,
        temperature=temperature,
        level=level,
        grid_size=grid_size,
        index=index,
        device=device,
    )
    if refine is None:
        return answer(searcher, encoder, question, top=top, moments=moments)
    from .engine.refinement.refiner import Refiner, Refining, answer_refined

    if video_dir is None:
        raise ArgumentError(f"`refine={refine}` needs `video_dir`, the videos to look at again")
    asked = Refining(refine, pathlib.Path(video_dir), encoder, refine_cache_frames)
    refiner = Refiner(found, searcher.view, asked)
    return answer_refined(refiner, searcher, encoder, question, top=top, moments=moments)


def index(store: Store | Path, *, level: _choices.Level | None = None, grid_size: int | None = None) -> Indexed:
    """Makes the index by which `search` finds its candidates in a large store, or adds what has come since.

    Lance's own index (IVF_RQ) of the videos' means and of all super images. Videos that come later are found, too: all
    of them are scored. Call it again when there are many.

    Args:
        store: holds super images.
        level, grid_size: whose videos are to be found, as in `evaluate`.

    Returns:
        Counts of `videos`, `new_videos`, `rows` and `new_rows`, and `size_bytes`; `str()` of it is one line.

    Raises:
        GridClipError: there is no such store, it holds no videos, its vectors are damaged or of a width that no index
            takes (it must be a multiple of 8), or it cannot be written.

    Example:
        >>> import gridclip
        >>> done = gridclip.index("store")
        >>> done.videos, done.new_videos
        (4, 4)
    """
    from .engine.index.building import index_store

    return index_store(_opened(store), level, grid_size)


def merge_stores(store: Store | Path, sources: Sequence[Store | Path], *, compact: bool = False) -> Merged:
    """Copies the videos, queries, failures and notices of stores into one, each once; the sources stay as they are.

    A video that the store has is not copied again: call it again after a kill, or when a source has grown.

    Args:
        store: made if it is missing.
        sources: stores of the same model and sampling; their vectors are copied as they are.
        compact: at the end join the small files.

    Returns:
        Counts of copied videos, rows and queries, and of videos that were there before; `str()` of it is one line.

    Raises:
        ArgumentError: `store` is among `sources`.
        GridClipError: a source is no store, or of another model or sampling (then nothing is written), or the disk is
            full.

    Example:
        >>> import gridclip
        >>> done = gridclip.merge_stores("merged-store", ["store"], compact=True)
        >>> done.videos, done.queries, done.already_stored
        (4, 4, 0)
    """
    from .engine.jobs import merge_stores as job

    return job.merge_stores(_store_path(store), [_store_path(source) for source in sources], compact=compact)


def status(store: Store | Path) -> Status:
    """Says how far the jobs on a store are, running or not; nothing is written.

    Args:
        store: the store, or the `save_dir` of `superimages`.

    Returns:
        `stored`, `left` and `failed` videos, `videos_per_s`, `left_s`, `jobs` with the state of each, and `failures` by
        stage and reason; `str()` of it is some lines, `to_json()` a dict.

    Raises:
        GridClipError: no job has written there.

    Example:
        >>> import gridclip
        >>> found = gridclip.status("store")
        >>> found.stored, found.left, found.failed, found.alive
        (4, 0, 0, False)
    """
    from .engine.jobs.status import read_status

    return read_status(_store_path(store))


def import_features(
    image_dir: Path, store: Store | Path, *, text_file: Path | None = None, allow_pickle: bool = False
) -> Imported:
    """Fills a store with features made elsewhere; vectors are made unit length.

    Args:
        image_dir: holds one `<video id>.npy`, float [L, D], per video.
        store: made if it is missing; of imported features of the same width, if it holds any.
        text_file: an npz with video_id [Q], embedding float [Q, D] and perhaps text [Q].
        allow_pickle: also read pickled arrays. Such files can run code when read: only for files you trust.

    Returns:
        Counts of videos, super images and queries, and `failures`, what could not be stored and why.

    Raises:
        GridClipError: the folder has no .npy file, the text file is not usable, or the store is of another model.

    Example:
        >>> import gridclip
        >>> written = gridclip.export_features("store", "features")
        >>> gridclip.import_features("features", "store-of-features").videos
        4
    """
    from .engine import features
    from .engine.store.store import Store

    to = store if isinstance(store, Store) else Store.open(store, create=True)
    return features.import_features(to, image_dir, text_file, allow_pickle=allow_pickle)


def export_features(
    store: Store | Path,
    out: Path,
    format: str = _choices.FEATURE_FORMAT,
    *,
    level: _choices.Level | None = None,
    grid_size: int | None = None,
) -> list[pathlib.Path]:
    """Writes a store's vectors as files, float32: per video (npy), or for all (parquet, safetensors).

    Args:
        store: holds super images, and perhaps queries.
        out: a new or empty folder.
        format: "npy", "parquet" or "safetensors".
        level, grid_size: as in `evaluate`; of level "cell" a video has a row for each wanted frame.

    Returns:
        The files.

    Raises:
        ValueError: an unknown format.
        GridClipError: the store holds no videos, `out` is not empty, or the files cannot be written.

    Example:
        >>> import gridclip
        >>> [path.name for path in gridclip.export_features("store", "tables", "parquet")]
        ['super_images.parquet', 'queries.parquet']
    """
    from .engine import features

    return features.export_features(_opened(store), out, format, level=level, grid_size=grid_size)


def _path(path: Path | None) -> pathlib.Path | None:
    return None if path is None else pathlib.Path(path)


def _check_cluster(
    cluster: str | None, cpus_per_worker: int | None, num_workers: int | None, num_gpus: int = 1
) -> None:
    """Raises ArgumentError where an option of one machine is given to a cluster, or the other way round."""
    from .dali_pipes.errors import ArgumentError

    if cluster is None and cpus_per_worker is not None:
        raise ArgumentError(f"`cpus_per_worker={cpus_per_worker}` is of a cluster's workers: give `cluster`, too")
    if cluster is not None and num_workers is not None:
        raise ArgumentError(
            f"`num_workers={num_workers}` is of one machine, a cluster's workers decode in as many processes as they "
            "have cores: give `cpus_per_worker`"
        )
    if cluster is not None and num_gpus > 1:
        raise ArgumentError(f"`num_gpus={num_gpus}` is of one machine, a cluster gives all its GPUs: leave it out")


def _address(host: str, port: int | None) -> tuple[str, int] | None:
    return None if port is None else (host, port)


def _listed(given: Any) -> list[Any]:
    """A list as it is, anything else as a list of one."""
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _encoder(model: Encoder | Path, num_gpus: int = _choices.NUM_GPUS) -> Encoder:
    return load_model(model, num_gpus=num_gpus) if isinstance(model, (str, os.PathLike)) else model


def _opened(store: Store | Path) -> Store:
    from .engine.store.store import Store

    return Store.open(store) if isinstance(store, (str, os.PathLike)) else store


def _store_path(store: Store | Path) -> pathlib.Path:
    from .engine.store.store import store_path

    return store_path(store) if isinstance(store, (str, os.PathLike)) else store.path
