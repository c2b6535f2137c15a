"""A folder of a benchmark's videos and its annotation file in, the published procedure's table and ours beside it out.

Every stage goes on from what an earlier run left in the working folder: videos that are embedded stay so, each part of
a table is written when it is known.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import logging
import pathlib
from typing import Any

from ... import GridClipError
from ...dali_pipes.sampling import Sampling
from .. import choices
from ..annotations.annotations import load_annotations
from ..encoding.encoder import Encoder
from ..jobs.embed_text import embed_text
from ..jobs.embed_videos import embed_videos
from ..moments.intervals import Comparison
from ..store.store import Store
from .comparison import compare_evaluations
from .evaluation import Evaluation, evaluate
from .outcomes import as_text
from .published import SUM_CUTOFFS
from .published import as_text as published_as_text

logger = logging.getLogger(__name__)

# What the procedure could not read of ActivityNet's val_1.
UNREADABLE = tuple(
    "v_xAMZGWqRmqE v_5-vAXCUN8X0 v_hHMqyl_Dugs v_a8dUtKcAunw v_7xpkFhlxo2Q v_MXDeLfF5rok v_Iiwz1JtC7rk v_A7oh6l1AIvs "
    "v_-M-Dr6HqDhU v_lgB0Ynn38-k v_PT4x_Y5lu_g v_K3sJnHGHQHM v_0dkIbKXXFzI v_-SCRtjT7dto v_RTwa2d6Oqvo "
    "v_VhzPqd0Su5I".split()
)
MAX_CHARS = 77  # the procedure cut captions to 77 characters, before CLIP's own 77 tokens


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to evaluate the embedded videos.

    Attributes:
        title: in the table, and name of its JSON file.
        max_chars: to which captions are cut first; None: they are not.
        aggregate, temperature: see `retrieval.Scoring`.
        level: see `evaluation.evaluate`; None: cells where the model can embed them.
    """

    title: str
    max_chars: int | None
    aggregate: str
    temperature: float
    level: choices.Level | None = "super"


# Ours: whole captions, cells, and the temperature that was best on the demo's unseen videos (R@1 95 against 76 at 1).
ACTIVITYNET_ROWS = (
    Row("procedure", MAX_CHARS, "softmax", 1.0),
    Row("procedure, whole captions", None, "softmax", 1.0),
    Row("ours", None, "softmax", 0.1, level=None),
)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How videos are decoded and embedded; see `gridclip.embed_videos`."""

    decoder: choices.Decoder = choices.DECODER
    batch_size: int | None = None
    num_workers: int = 1
    num_gpus: int = choices.NUM_GPUS
    on_damage: choices.OnDamage = choices.ON_DAMAGE


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """The rows of a table: evaluations by title, and lines to print under it."""

    evaluations: dict[str, Evaluation]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Recall of every row; what became of each query is in the files that `notes` name."""
        rows = {title: _summary(found) for title, found in self.evaluations.items()}
        return {"rows": rows, "notes": self.notes}

    def __str__(self) -> str:
        """A table in plain text."""
        cutoffs = list(next(iter(self.evaluations.values())).recall)
        width = max(map(len, self.evaluations))
        heads = [*(f"R@{k}" for k in cutoffs), "SumR", "95% interval", "queries", "videos", "super images"]
        lines = [
            " " * width + "".join(head.rjust(16 if "95" in head else 13 if "sup" in head else 9) for head in heads)
        ]
        for title, found in self.evaluations.items():
            interval = found.sum_interval
            shown = "" if interval is None else f"{interval.low:.1f} to {interval.high:.1f}"
            numbers = [*found.recall.values(), found.sum_recall]
            counts = f"{found.queries:9,}{found.candidates:9,}{found.super_images:13,}"
            lines.append(f"{title:{width}}" + "".join(f"{each:9.2f}" for each in numbers) + f"{shown:>16}{counts}")
        return "\n".join([*lines, "", *self.notes])


def activitynet(
    encoder: Encoder,
    video_dir: pathlib.Path,
    anno_file: pathlib.Path,
    work_dir: pathlib.Path,
    *,
    super_img_size: int = choices.SUPER_IMG_SIZE,
    decoding: Decoding = Decoding(),
    topk: collections.abc.Sequence[int] = choices.TOPK,
) -> Reproduction:
    """The procedure on ActivityNet Captions val_1, with its settings and with ours.

    Its settings: 0.5 frames a second counted as decord counts them, 2 x 2 grids of super_img_size, captions of at most
    77 characters, softmax of temperature 1, and without the 16 videos that it could not read.

    Args:
        encoder: the model; super images of another size than its own are resized, as the procedure does.
        video_dir: holds the videos.
        anno_file: val_1.json.
        work_dir: gets the store and a JSON file for each row.
        super_img_size: 336 or 224 in the procedure.
        decoding: how videos are decoded.
        topk: the K of R@K.

    Raises:
        GridClipError: a file or folder cannot be used, or no video of it can be embedded.
    """
    sampling = Sampling(super_img_size=super_img_size, edit_lists="ignore")
    readable = _without(anno_file, UNREADABLE, work_dir / "annotations.json")
    store = _embedded(encoder, video_dir, readable, work_dir / "store", sampling, decoding)
    evaluations = {}
    captions: int | None = -1
    for row in ACTIVITYNET_ROWS:
        if row.max_chars != captions:
            embed_text(encoder, readable, store, batch_size=choices.TEXT_BATCH_SIZE, max_chars=row.max_chars)
            captions = row.max_chars
        evaluations[row.title] = _evaluated(row, store, readable, work_dir, topk)
    own = {f"{title} (this run)": found.sum_over(SUM_CUTOFFS) for title, found in evaluations.items()}
    first, *_, last = (found.to_json() for found in evaluations.values())
    differs = compare_evaluations(first, last).metrics["SumR"]
    notes = [
        f"ours less procedure: SumR {_in_words(differs)}",
        *_left_out(evaluations["procedure"]),
        "super images go to the model as they are: the procedure stored them as JPEG files of quality 75 first",
        "",
        published_as_text("activitynet", own),
    ]
    return _finished(Reproduction(evaluations, notes), work_dir)


def grids(
    encoder: Encoder,
    video_dir: pathlib.Path,
    anno_file: pathlib.Path,
    work_dir: pathlib.Path,
    *,
    grid_sizes: collections.abc.Sequence[int] = (1, 2, 3, 4, 5),
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    decoding: Decoding = Decoding(),
    topk: collections.abc.Sequence[int] = choices.TOPK,
) -> Reproduction:
    """The ablation of the super-image method: several grid sizes, each with attention (softmax) and without (mean).

    Args:
        grid_sizes: each >= 1; the videos are decoded once for all of them.
        sampling: all but the grid size.
        encoder, video_dir, anno_file, work_dir, decoding, topk: as in `activitynet`, as are the errors.
    """
    sizes = sorted(set(grid_sizes))
    chosen = dataclasses.replace(sampling, grid_size=tuple(sizes))
    store = _embedded(encoder, video_dir, anno_file, work_dir / "store", chosen, decoding, cells=False)
    embed_text(encoder, anno_file, store, batch_size=choices.TEXT_BATCH_SIZE)
    evaluations: dict[str, Evaluation] = {}
    notes = []
    for size in sizes:
        rows = (
            Row(f"grid {size}, {title}", None, way, 1.0) for title, way in (("attention", "softmax"), ("mean", "mean"))
        )
        pair = [_evaluated(row, store, anno_file, work_dir, topk, grid_size=size) for row in rows]
        evaluations |= {f"grid {size}, attention": pair[0], f"grid {size}, mean": pair[1]}
        gain = compare_evaluations(pair[1].to_json(), pair[0].to_json()).metrics["SumR"]
        notes.append(f"grid {size}: attention less mean: SumR {_in_words(gain)}")
    return _finished(Reproduction(evaluations, notes), work_dir)


def _in_words(difference: Comparison) -> str:
    interval = f"95%: {difference.difference.low:+.2f} to {difference.difference.high:+.2f}"
    return f"{difference.difference.mean:+.2f} ({interval}), {'beyond' if difference.decided else 'may be'} chance"


def _embedded(
    encoder: Encoder,
    video_dir: pathlib.Path,
    anno_file: pathlib.Path,
    store: pathlib.Path,
    sampling: Sampling,
    decoding: Decoding,
    cells: bool | None = choices.CELLS,
) -> pathlib.Path:
    """The store, with all videos that can be embedded; raises GridClipError where it would be empty."""
    settings = {**dataclasses.asdict(decoding), "cells": cells, "resume": True}
    summary = embed_videos(encoder, video_dir, store, sampling=sampling, anno_file=anno_file, **settings)
    logger.info("%s", summary)
    if not (summary.done or summary.finished_before):
        raise GridClipError(f"no video of {video_dir} could be embedded: {summary}")
    return store


def _evaluated(
    row: Row,
    store: pathlib.Path,
    anno_file: pathlib.Path,
    work_dir: pathlib.Path,
    topk: collections.abc.Sequence[int],
    *,
    grid_size: int | None = None,
) -> Evaluation:
    found = evaluate(
        Store.open(store),
        anno_path=anno_file,
        aggregate=row.aggregate,
        temperature=row.temperature,
        topk=topk,
        level=row.level,
        grid_size=grid_size,
    )
    name = row.title.replace(", ", "-").replace(" ", "-")
    (work_dir / f"{name}.json").write_text(as_text(found.to_json()), "utf-8")
    return found


def _without(anno_file: pathlib.Path, excluded: collections.abc.Collection[str], target: pathlib.Path) -> pathlib.Path:
    """An ActivityNet Captions file without some videos."""
    if load_annotations(anno_file).format != "activitynet":
        raise GridClipError(f"{anno_file} is no ActivityNet Captions JSON: give val_1.json as `anno_file`")
    content = json.loads(anno_file.read_text("utf-8-sig"))
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = {video_id: entry for video_id, entry in content.items() if video_id not in excluded}
    target.write_text(json.dumps(kept) + "\n", "utf-8")
    return target


def _left_out(found: Evaluation) -> list[str]:
    lines = [f"{len(UNREADABLE)} videos that the procedure could not read are left out"]
    if found.missing_queries:
        lines.append(
            f"{len(found.missing_videos):,} more videos have no embeddings: their {found.missing_queries:,} queries "
            "are dropped, and the figures are not comparable where there are many"
        )
    return lines


def _finished(found: Reproduction, work_dir: pathlib.Path) -> Reproduction:
    (work_dir / "table.json").write_text(json.dumps(found.to_json(), indent=2) + "\n", "utf-8")
    return found


def _summary(found: Evaluation) -> dict[str, Any]:
    content = found.to_json()
    return {name: content[name] for name in content if name != "per_query"}
