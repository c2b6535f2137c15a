"""Damaged annotation files in; every caption must come back out of the store that embed-text fills."""

from __future__ import annotations

import gzip
import hashlib
import json
import pathlib
import random
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs.embed_text import embed_text
from gridclip.engine.store.store import Store
from gridclip.export.model_info import ModelInfo

from .contract import Outcome, Verdict, different
from .damage import damaged_bytes, damaged_json

FILE = "captions"
JSON_SHARE = 0.6
ACTIVITYNET = {
    f"v_{number:03}": {
        "duration": 30.5,
        "timestamps": [[0, 5.5], [5.5, 30]],
        "sentences": [f"a person {number} walks", f"they sit \u00e9 {number}"],
    }
    for number in range(4)
}
TVR = [
    {
        "desc_id": number,
        "desc": f"a nurse {number} speaks",
        "vid_name": f"show_{number % 3}",
        "ts": [1.0, 2.5],
        "duration": 60.0,
        "type": "v",
    }
    for number in range(5)
]
LINES = {
    "charades.txt": "".join(
        f"VID{number} {number}.5 {number + 3}.0##a person {number} opens a door.\n" for number in range(5)
    ),
    "ms_sl.caption.txt": "".join(f"v_{number}#enc#{number} A lesson {number} is given.\n" for number in range(5)),
}


class Annotations:
    """All four formats, as they are and gzipped."""

    def write_seeds(self, folder: pathlib.Path) -> None:
        (folder / "activitynet.json").write_text(json.dumps(ACTIVITYNET))
        (folder / "tvr.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in TVR))
        for name, text in LINES.items():
            (folder / name).write_text(text)
        (folder / "activitynet.json.gz").write_bytes(gzip.compress(json.dumps(ACTIVITYNET).encode(), mtime=0))

    def make(self, seeds: pathlib.Path, case: pathlib.Path, number: int, rng: random.Random) -> str:
        files = sorted(seeds.iterdir())
        if number < len(files):
            (case / FILE).write_bytes(files[number].read_bytes())
            return f"{files[number].name}, undamaged"
        if rng.random() < JSON_SHARE:
            content, what = self._damaged_json(rng)
            (case / FILE).write_text(content)
            return what
        seed = rng.choice(files)
        data, done = damaged_bytes(seed.read_bytes(), [rng.choice(files).read_bytes()], rng)
        (case / FILE).write_bytes(data)
        return f"{seed.name}: {done}"

    @staticmethod
    def _damaged_json(rng: random.Random) -> tuple[str, str]:
        if rng.random() < 0.5:
            text, done = damaged_json(ACTIVITYNET, rng)
            return text, f"activitynet.json: {done}"
        entries = [json.dumps(entry) for entry in TVR]
        at = rng.randrange(len(entries))
        entries[at], done = damaged_json(TVR[at], rng)
        return "\n".join(entries) + "\n", f"tvr.jsonl, line {at + 1}: {done}"

    def judge(self, case: pathlib.Path) -> Verdict:
        summary = embed_text(cast(Encoder, HashEncoder()), case / FILE, case / "store")
        stored = Store.open(case / "store").read_queries()
        if not 1 <= len(stored.queries) <= summary.done:
            return different(f"{len(stored.queries)} captions stored, {summary.done} counted")
        expected = vectors_of([query.text for query in stored.queries]).astype(np.float16)
        wrong = np.flatnonzero((stored.vectors != expected).any(axis=1))
        if len(wrong):
            return different(f"the caption {stored.queries[wrong[0]].text!r} has another one's vector")
        return Verdict(Outcome.IDENTICAL, f"{len(stored.queries)} captions")


class HashEncoder:
    """What embed_text needs of an Encoder; a text's vector is told by its characters alone."""

    provider = "cpu"
    device_id = None
    info = ModelInfo.from_json(
        {
            "format": 1,
            "name": "hash",
            "precision": "fp32",
            "image_size": 64,
            "embed_dim": 8,
            "context_length": 77,
            "vocab_size": 100,
            "start_token": 98,
            "end_token": 99,
            "fingerprint": "0" * 64,
        }
    )

    def encode_texts(self, texts: Sequence[str], **_: Any) -> np.ndarray:
        """float32 [B, 8]."""
        return vectors_of(texts)


def vectors_of(texts: Sequence[str]) -> np.ndarray:
    """float32 [B, 8] of unit length, from a checksum of each text."""
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8] for text in texts]
    vectors = np.array([list(digest) for digest in digests], np.float32).reshape(-1, 8) - 127.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
