"""Damaged stores in; what can still be read must be what was stored, unless the vectors themselves were damaged."""

from __future__ import annotations

import json
import pathlib
import random
import shutil

import numpy as np
from gridclip import GridClipError
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.evaluation import evaluation
from gridclip.engine.features import export_features
from gridclip.engine.search.search import search
from gridclip.engine.store.store import Store, VideoEmbedding

from .contract import Outcome, Verdict, different
from .damage import damaged_bytes, damaged_json

WIDTH = 4
VIDEOS = {"a": 1, "b": 3, "c/d": 2}
MODEL = {
    "format": 1,
    "name": "fake",
    "precision": "fp32",
    "image_size": 64,
    "embed_dim": WIDTH,
    "context_length": 20,
    "fingerprint": "f" * 64,
}
STORE = "store"
VERSIONS = (0, -1, 2, True, False, 1.0, "1", None, 10**30)


class Stores:
    """A store of two appends and some queries, one file of which is damaged, lost, doubled or empty."""

    def write_seeds(self, folder: pathlib.Path) -> None:
        store = Store.open(folder / STORE, create=True)
        store.claim_model(MODEL)
        store.claim_sampling({"source": "videos", "fps": 0.5})
        for ids in (["a", "b"], ["c/d"]):
            store.append_videos([_video(video_id) for video_id in ids])
        queries = [Query(number, video_id, f"caption {number}", 0.0, 2.0) for number, video_id in enumerate(VIDEOS)]
        store.put_queries(queries, _vectors("queries", len(queries)))

    def make(self, seeds: pathlib.Path, case: pathlib.Path, number: int, rng: random.Random) -> str:
        shutil.copytree(seeds / STORE, case / STORE)
        what, exact = "undamaged", True
        if number:
            what, exact = self._damage(case / STORE, rng)
        (case / "settings.json").write_text(json.dumps({"intact": not number, "exact": exact}))
        return what

    @staticmethod
    def _damage(store: pathlib.Path, rng: random.Random) -> tuple[str, bool]:
        """Returns what was done, and whether the store's vectors and ids are still there."""
        files = sorted(path for path in store.rglob("*") if path.is_file() and path.name != ".lock")
        record = store / "store.json"
        if rng.random() < 0.4:
            content = json.loads(record.read_text())
            if rng.random() < 0.25:
                content["format"] = rng.choice(VERSIONS)
                record.write_text(json.dumps(content))
                return f"store.json: format {content['format']!r}", True
            text, done = damaged_json(content, rng)
            record.write_text(text)
            return f"store.json: {done}", True
        path = rng.choice(files)
        place = str(path.relative_to(store))
        action = rng.random()
        if action < 0.1:
            path.unlink()
            return f"{place} removed", place == "store.json"
        if action < 0.15:
            path.unlink()
            path.mkdir()
            return f"{place} is a folder", place == "store.json"
        if action < 0.2:
            shutil.copy(path, path.with_name(f"copy-{path.name}"))
            return f"{place} doubled", True
        if action < 0.25:
            path.write_bytes(b"")
            return f"{place} emptied", place == "store.json"
        data, done = damaged_bytes(path.read_bytes(), [rng.choice(files[:1]).read_bytes()], rng)
        path.write_bytes(data)
        return f"{place}: {done}", place == "store.json"

    def judge(self, case: pathlib.Path) -> Verdict:
        settings = json.loads((case / "settings.json").read_text())
        refused: list[str] = []

        def attempt(step, *arguments):
            try:
                return step(*arguments)
            except GridClipError as error:
                refused.append(f"{step.__name__}: {error}")
                return None

        store = Store.open(case / STORE)
        table = attempt(store.read_super_images)
        queries = attempt(store.read_queries)
        attempt(store.finished_videos)
        attempt(evaluation.evaluate, store)
        attempt(search, store, _vectors("queries", 1), 2)
        attempt(store.claim_model, MODEL)
        attempt(export_features, store, case / "out", "parquet")
        attempt(store.append_videos, [_video("new")])
        attempt(store.compact)
        if refused and settings["intact"]:
            return different(f"an undamaged store was refused: {refused[0]}")
        if settings["exact"] and table is not None:
            if table.video_ids != sorted(VIDEOS):
                return different(f"videos {table.video_ids}, stored were {sorted(VIDEOS)}")
            expected = np.concatenate([_vectors(video_id, VIDEOS[video_id]) for video_id in table.video_ids])
            if not np.array_equal(table.vectors, expected):
                return different("other vectors than those stored")
        if settings["exact"] and queries is not None and len(queries.queries) != len(VIDEOS):
            return different(f"{len(queries.queries)} queries of {len(VIDEOS)}")
        if refused:
            return Verdict(Outcome.REFUSED, refused[0][:300])
        return Verdict(Outcome.IDENTICAL if settings["exact"] else Outcome.ACCEPTED)


def _video(video_id: str) -> VideoEmbedding:
    count = VIDEOS.get(video_id, 2)
    return VideoEmbedding(video_id, np.arange(count) * 2.0, np.arange(count) * 2.0 + 2, _vectors(video_id, count))


def _vectors(name: str, count: int) -> np.ndarray:
    """float16 [count, WIDTH] of unit length."""
    vectors = np.random.default_rng(list(name.encode())).normal(size=(count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
