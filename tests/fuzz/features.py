"""Damaged npy and npz files in; what import-features stores is compared with NumPy's own reading."""

from __future__ import annotations

import io
import json
import pathlib
import random

import numpy as np
from gridclip.engine.features import import_features
from gridclip.engine.store.store import Store

from .contract import Outcome, Verdict, different
from .damage import damaged_bytes

WIDTH = 6
DAMAGED, GOOD, QUERIES = "damaged", "good", "queries.npz"


class Features:
    """A folder of a damaged and a good video, with or without a file of queries that may be damaged instead."""

    def write_seeds(self, folder: pathlib.Path) -> None:
        rng = np.random.default_rng(0)
        for name, dtype in (("half", np.float16), ("single", np.float32), ("double", np.float64)):
            np.save(folder / f"{name}.npy", rng.normal(size=(5, WIDTH)).astype(dtype))
        np.save(folder / "fortran.npy", np.asfortranarray(rng.normal(size=(4, WIDTH))))
        with (folder / "version3.npy").open("wb") as file:
            np.lib.format.write_array(file, rng.normal(size=(3, WIDTH)), version=(3, 0))
        arrays = {
            "video_id": np.array(["good", "damaged"]),
            "embedding": rng.normal(size=(2, WIDTH)),
            "text": np.array(["one", "two"]),
        }
        np.savez(folder / "plain.npz", **arrays)
        np.savez_compressed(folder / "compressed.npz", **arrays)

    def make(self, seeds: pathlib.Path, case: pathlib.Path, number: int, rng: random.Random) -> str:
        files = sorted(seeds.iterdir())
        intact = number < len(files)
        seed = files[number] if intact else rng.choice(files)
        data, done = seed.read_bytes(), "undamaged"
        if not intact:
            data, done = damaged_bytes(data, [rng.choice(files).read_bytes()], rng)
        videos = case / "videos"
        videos.mkdir()
        (videos / f"{GOOD}.npy").write_bytes((seeds / "single.npy").read_bytes())
        target = case / QUERIES if seed.suffix == ".npz" else videos / f"{DAMAGED}.npy"
        target.write_bytes(data)
        (case / "settings.json").write_text(json.dumps({"intact": intact}))
        return f"{seed.name}: {done}"

    def judge(self, case: pathlib.Path) -> Verdict:
        text_file = case / QUERIES if (case / QUERIES).exists() else None
        store = Store.open(case / "store", create=True)
        imported = import_features(store, case / "videos", text_file)
        refused = [failure.reason for failure in imported.failures]
        if refused and json.loads((case / "settings.json").read_text())["intact"]:
            return different(f"an undamaged file was refused: {refused[0]}")
        table = store.read_super_images()
        for number, video_id in enumerate(table.video_ids):
            stored = table.vectors[table.offsets[number] : table.offsets[number + 1]]
            raw = np.load(io.BytesIO((case / "videos" / f"{video_id}.npy").read_bytes()), allow_pickle=False)
            with np.errstate(all="ignore"):
                units = raw.astype(np.float64)
                units = units / np.linalg.norm(units, axis=1, keepdims=True)
            if stored.shape != units.shape or not np.allclose(stored, units, atol=2e-3):
                return different(f"the vectors of {video_id} are not those of its file")
        if not {GOOD} <= set(table.video_ids) and not refused:
            return different("the good video was not stored")
        return Verdict(Outcome.REFUSED, refused[0]) if refused else Verdict(Outcome.IDENTICAL)
