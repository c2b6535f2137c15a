"""Nothing in, the names and defaults of everything that a user can choose out: read by the command line and the engine.

This file imports nothing of the package, so that the command line can show it at once. Rooms below the engine and
export/ may not look up here: what they need as a default they state themselves, and the comment beside a value names
where. A test holds both to be equal.
"""

from __future__ import annotations

from typing import Literal, get_args

STORE = "gridclip-store"  # the folder of the embeddings

# Sampling: `Sampling` of dali_pipes/sampling.py has the same.
SamplingMode = Literal["frames", "keyframes", "time"]
SAMPLING_MODES: tuple[SamplingMode, ...] = get_args(SamplingMode)
SAMPLING_MODE: SamplingMode = "frames"
EditLists = Literal["apply", "ignore"]
EDIT_LIST_RULES: tuple[EditLists, ...] = get_args(EditLists)
EDIT_LISTS: EditLists = "apply"
Decode = Literal["exact", "fast"]  # whether decoding leaves a step out: dali_pipes/cpu/decoding.py
DECODE_MODES: tuple[Decode, ...] = get_args(Decode)
DECODE: Decode = "exact"
FPS = 0.5  # wanted frames per second of video
GRID_SIZE = 2  # cells per row and column of a super image
SUPER_IMG_SIZE = 336  # side of a super image in pixels, where no model says another
MIN_FRAMES = 1  # of a video that is shorter than one period
MAX_SHIFT_S = 2.0  # seconds by which a frame may move to a keyframe, with the mode keyframes

# Decoding: dali_pipes/processes/pool.py has the same limit, dali_pipes/cpu/decoders.py the decoders on the CPU.
Decoder = Literal["auto", "dali", "hybrid", "decord", "pyav"]
DECODERS: tuple[Decoder, ...] = get_args(Decoder)
DECODER: Decoder = "auto"
OnDamage = Literal["nearest", "fail"]  # what becomes of wanted frames that cannot be decoded: dali_pipes/cpu/damage.py
DAMAGE_RULES: tuple[OnDamage, ...] = get_args(OnDamage)
ON_DAMAGE: OnDamage = "nearest"
TIME_LIMIT_S = 300.0  # seconds without a result after which a decoder counts as hung
IMAGE_WORKERS = 16  # processes that read JPEG files; those that decode videos are as many as there are CPU cores

# What a store holds and is asked for.
Level = Literal["super", "cell"]  # vectors of super images, and of the frames in their cells
LEVELS: tuple[Level, ...] = get_args(Level)
CELLS: bool | None = None  # whether embedding makes vectors of cells, too; None: as the store has it, else where it can

# Which failures a job tries again: those of a stage (dali_pipes/contract.py has the same), or all.
ANY_STAGE = "any"
RETRIED_STAGES = (ANY_STAGE, "list", "open", "demux", "sample", "decode", "read", "write", "encode", "query")

METRICS_HOST = "127.0.0.1"  # where a job shows Prometheus how it gets on: to this machine only

CARDS = ("a800", "a100", "h100", "h200")  # of which engine/planning/forecast.py knows the data sheets

# Models.
Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
PROVIDER: Provider = "auto"
NUM_GPUS = 1  # 0: the CPU; 1: a GPU where ONNX Runtime has one
# Large batches feed a GPU. A CPU gains nothing from them, and Ctrl-C has to wait for the one that is running.
GPU_BATCH_SIZE, CPU_BATCH_SIZE = 100, 8  # super images per pass
TEXT_BATCH_SIZE = 128  # captions per pass

# Export: export/graphs.py has the same precisions, export/clip_model.py the same activations.
Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PRECISION: Precision = "fp32"
Activation = Literal["quick_gelu", "gelu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

# Scores and recall: engine/scoring/retrieval.py has one object for each aggregate.
AGGREGATES = ("softmax", "mean", "max", "windows", "tf-prvr")
PEAK_AGGREGATES = AGGREGATES[:3]  # those whose moments are peaks, see scoring/peaks.py
AGGREGATE = "softmax"
TEMPERATURE = 1.0  # of the softmax
NORMALISATIONS = ("none", "qb-norm", "sinkhorn")  # of scores against hubs: engine/scoring/normalisation.py
NORMALISATION = "none"
TOPK = (1, 5, 10, 100)  # the K of R@K
Missing = Literal["drop", "count-as-failures"]
MISSING_RULES: tuple[Missing, ...] = get_args(Missing)
MISSING: Missing = "drop"  # what becomes of captions whose video has no embeddings
OtherQueries = Literal["refuse", "leave-out"]
OTHER_QUERY_RULES: tuple[OtherQueries, ...] = get_args(OtherQueries)
OTHER_QUERIES: OtherQueries = "refuse"  # what becomes of queries that only one of two compared evaluations has
BENCHMARKS = ("activitynet",)  # of which engine/evaluation/published.py has figures
REPORT_EXAMPLES = 20  # queries that a report shows with their best videos
TOP = 10  # videos that a search shows
IndexMode = Literal[
    "auto", "exact", "ann"
]  # score every video, or those that an index names; auto: by the store's size
INDEX_MODES: tuple[IndexMode, ...] = get_args(IndexMode)
INDEX: IndexMode = "auto"
UNWANTED_WEIGHT = 1.0  # of the score of what a search does not want, beside that of what it does
REFINE_CACHE_FRAMES = 300_000  # that refinement keeps beside a store: 440 MiB where vectors are 768 wide

# Features for elsewhere: engine/features.py has one writer for each.
FEATURE_FORMATS = ("npy", "parquet", "safetensors")
FEATURE_FORMAT = "npy"

# The page.
SERVE_HOST = "127.0.0.1"  # this machine only
SERVE_PORT = 8000
