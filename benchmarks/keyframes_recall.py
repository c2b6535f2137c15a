"""The demo's scenes in, encoded at several keyframe distances; recall with exact and with approximate sampling out."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping

from .. import GridClipError
from ..dali_pipes.sampling import Sampling
from ..engine.encoding.encoder import Encoder
from ..engine.evaluation.evaluation import evaluate
from ..engine.jobs.embed_text import embed_text
from ..engine.jobs.embed_videos import embed_videos
from ..engine.store.store import Store

SEED = 2026  # make demo's
TEMPERATURES = (1.0, 0.1)
TOP_K = (1, 5, 10)
# Seconds between keyframes, None: the demo's own. Its encoder puts a keyframe where a scene begins, which suits
# approximate sampling; encoders for streaming put them at fixed distances, whatever is to be seen.
GOPS_S = (None, 5.0)
LONG_GOPS_S = (*GOPS_S, 2.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Generated videos with captions.

    Attributes:
        name: how they are encoded, in words.
        folder: of the videos.
        annotation_file: the captions.
    """

    name: str
    folder: pathlib.Path
    annotation_file: pathlib.Path

    @property
    def videos(self) -> list[pathlib.Path]:
        return sorted(self.folder.glob("*.mp4"))


def why_not() -> str | None:
    """Why recall cannot be measured here; None where it can."""
    if not pathlib.Path(__file__).with_name("demo").is_dir():
        return "the demo is not part of an installed package: run this in the repository"
    if importlib.util.find_spec("onnx") is None:
        return "onnx is not installed: pip install onnx"
    return None


def corpora(work_dir: pathlib.Path, count: int, *, long: bool) -> Iterator[Corpus]:
    """The first `count` videos of the demo, encoded anew for each keyframe distance unless they are there already."""
    from .demo import videos

    for gop_s in LONG_GOPS_S if long else GOPS_S:
        kind = "keyframes at scene changes" if gop_s is None else f"a keyframe every {gop_s:g} s"
        folder = work_dir / f"demo-{count}-{'scenes' if gop_s is None else f'gop{gop_s:g}s'}"
        print(f"{count} videos of the demo, {kind}: into {folder}", flush=True)
        annotation_file = videos.write_videos(
            folder, count, seed=SEED, processes=len(os.sched_getaffinity(0)), gop_s=gop_s
        )
        yield Corpus(f"{count} demo videos, {kind}", folder / videos.VIDEO_FOLDER, annotation_file)


def measured(
    corpus: Corpus, ways: Mapping[str, float | None], fps: float, work_dir: pathlib.Path
) -> dict[str, dict[str, object]]:
    """Recall in percent of each way to sample, by temperature and K, and the number of queries that it is of."""
    encoder = Encoder(model(work_dir), provider="cpu")
    found = {}
    for way, max_shift_s in ways.items():
        with embedded(corpus, encoder, Sampling(fps=fps, max_shift_s=max_shift_s)) as store:
            found[way] = recall_of(store, way)
    return found


@contextlib.contextmanager
def embedded(corpus: Corpus, encoder: Encoder, sampling: Sampling) -> Iterator[Store]:
    """A store of a corpus's videos and captions, at the model's image size; it is gone afterwards."""
    sampling = dataclasses.replace(sampling, super_img_size=encoder.info.image_size)
    with tempfile.TemporaryDirectory() as folder:
        store = pathlib.Path(folder) / "store"
        workers = len(os.sched_getaffinity(0))
        summary = embed_videos(encoder, corpus.folder, store, sampling=sampling, num_workers=workers, cells=False)
        if summary.failures:
            raise GridClipError(f"{corpus.name}: {summary}")
        embed_text(encoder, corpus.annotation_file, store)
        yield Store.open(store)


def recall_of(store: Store, way: str) -> dict[str, object]:
    """Recall in percent by temperature and K, and the number of queries; `way` names it in what is printed."""
    recall: dict[str, object] = {}
    for temperature in TEMPERATURES:
        result = evaluate(store, temperature=temperature, topk=TOP_K)
        values = {f"R@{k}": round(value, 2) for k, value in result.recall.items()}
        recall |= {"queries": result.queries, f"temperature {temperature:g}": values}
        print(f"{way}, temperature {temperature:g}: {values}", flush=True)
    return recall


def model(work_dir: pathlib.Path) -> pathlib.Path:
    """The demo's tiny CLIP as a model folder."""
    from ..export.folder import export_model
    from .demo.run import CHECKPOINT

    folder = work_dir / "tiny-clip"
    if not (folder / "model.json").exists():
        export_model(str(CHECKPOINT), folder, verify=False)
    return folder
