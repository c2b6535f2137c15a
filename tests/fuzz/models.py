"""Damaged model folders in; what they embed must be what the undamaged one does, unless a graph was damaged."""

from __future__ import annotations

import json
import pathlib
import random
import shutil

import fake_model
import numpy as np
from gridclip.engine.encoding.encoder import Encoder

from .contract import Outcome, Verdict, different
from .damage import damaged_bytes, damaged_json

MODEL = "model"
TEXTS = ["a red circle", "two squares, moving"]
# What an embedding hangs on besides the weights.
TOLERANCE = 1e-5
SIZES = ("image_size", "embed_dim", "context_length", "vocab_size", "start_token", "end_token")
VALUES = (0, -1, 1, 7, 10**9, "x", None, 2.5, [], {}, True, "64")


class Models:
    """A model folder of four files, one of which is damaged; mostly model.json."""

    def write_seeds(self, folder: pathlib.Path) -> None:
        fake_model.write(folder / MODEL)

    def make(self, seeds: pathlib.Path, case: pathlib.Path, number: int, rng: random.Random) -> str:
        shutil.copytree(seeds / MODEL, case / MODEL)
        what, exact = "undamaged", True
        if number:
            what, exact = self._damage(case / MODEL, rng)
        (case / "settings.json").write_text(json.dumps({"intact": not number, "exact": exact}))
        return what

    @staticmethod
    def _damage(model: pathlib.Path, rng: random.Random) -> tuple[str, bool]:
        path = rng.choice([model / "model.json"] * 4 + sorted(model.iterdir()))
        if path.suffix == ".json" and rng.random() < 0.8:
            content = json.loads(path.read_text())
            if path.name == "model.json" and rng.random() < 0.5:
                name, value = rng.choice(SIZES), rng.choice(VALUES)
                content[name] = value
                path.write_text(json.dumps(content))
                return f"model.json: {name} is {value!r}", False
            text, done = damaged_json(content, rng)
            path.write_text(text)
            return f"{path.name}: {done}", False
        data, done = damaged_bytes(path.read_bytes(), [], rng)
        path.write_bytes(data)
        return f"{path.name}: {done}", False

    def judge(self, case: pathlib.Path) -> Verdict:
        settings = json.loads((case / "settings.json").read_text())
        encoder = Encoder(case / MODEL, provider="cpu", num_threads=1)
        side = encoder.info.image_size
        images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
        images = np.concatenate([images, np.full_like(images[:1], 9)])
        embeddings = encoder.encode_images(images)
        texts = encoder.encode_texts(TEXTS)
        if settings["exact"]:
            if np.abs(embeddings - fake_model.image_embedding(images)).max() > TOLERANCE:
                return different("other embeddings than the undamaged model's")
            return Verdict(Outcome.IDENTICAL)
        if not (np.isfinite(embeddings).all() and np.isfinite(texts).all()):
            return Verdict(Outcome.ACCEPTED, "not finite: the weights were damaged")
        return Verdict(Outcome.ACCEPTED)
