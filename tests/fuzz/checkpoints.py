"""Damaged CLIP checkpoints in: each is read as a model with finite sizes, or refused."""

from __future__ import annotations

import functools
import io
import json
import pathlib
import random
import zipfile

import safetensors.torch
import torch
from gridclip.export.clip_checkpoint import build_model, load_checkpoint
from gridclip.export.clip_model import CLIP, ClipConfig

from .contract import Outcome, Verdict, different
from .damage import NASTY, damaged_bytes, damaged_json

CONFIG = ClipConfig(
    image_size=16,
    patch_size=8,
    vision_width=64,
    vision_layers=1,
    vision_heads=1,
    text_width=64,
    text_layers=1,
    text_heads=1,
    context_length=8,
    vocab_size=20,
    embed_dim=8,
)
SAFETENSORS_HEADER = 8


class Checkpoints:
    """A tiny CLIP as a state dict, a wrapped one, safetensors and TorchScript; and dicts that are no CLIP at all."""

    def write_seeds(self, folder: pathlib.Path) -> None:
        torch.manual_seed(0)
        model = CLIP(CONFIG)
        for parameter in model.parameters():
            parameter.data.normal_(std=0.02)
        weights = model.state_dict()
        torch.save(weights, folder / "plain.pt")
        torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, folder / "wrapped.pt")
        torch.save(weights, folder / "legacy.pt", _use_new_zipfile_serialization=False)
        safetensors.torch.save_file(
            {name: value.clone().contiguous() for name, value in weights.items()}, folder / "plain.safetensors"
        )

    def make(self, seeds: pathlib.Path, case: pathlib.Path, number: int, rng: random.Random) -> str:
        files = sorted(seeds.iterdir())
        intact = number < len(files)
        seed = files[number] if intact else rng.choice(files)
        data, done = _bytes(seed), "undamaged"
        if not intact:
            data, done = self._damaged(seed, rng)
        (case / f"clip{seed.suffix}").write_bytes(data)
        (case / "settings.json").write_text(json.dumps({"file": f"clip{seed.suffix}", "intact": intact}))
        return f"{seed.name}: {done}"

    @staticmethod
    def _damaged(seed: pathlib.Path, rng: random.Random) -> tuple[bytes, str]:
        data, choice = _bytes(seed), rng.random()
        if seed.suffix == ".safetensors" and choice < 0.5:
            length = int.from_bytes(data[:SAFETENSORS_HEADER], "little")
            header = json.loads(data[SAFETENSORS_HEADER : SAFETENSORS_HEADER + length])
            text, done = damaged_json(header, rng)
            encoded = text.encode()
            rest = data[SAFETENSORS_HEADER + length :]
            return len(encoded).to_bytes(SAFETENSORS_HEADER, "little") + encoded + rest, f"header: {done}"
        if seed.name == "plain.pt" and choice < 0.3:
            return _strange_dict(seed, rng)
        if seed.suffix == ".pt" and choice < 0.5 and zipfile.is_zipfile(seed):
            return _damaged_member(data, rng)
        return damaged_bytes(data, [], rng)

    def judge(self, case: pathlib.Path) -> Verdict:
        settings = json.loads((case / "settings.json").read_text())
        checkpoint = load_checkpoint(case / settings["file"])
        build_model(checkpoint)
        if settings["intact"] and checkpoint.config.embed_dim != CONFIG.embed_dim:
            return different(f"the model is {checkpoint.config.embed_dim} wide, not {CONFIG.embed_dim}")
        return Verdict(Outcome.ACCEPTED)


def _strange_dict(seed: pathlib.Path, rng: random.Random) -> tuple[bytes, str]:
    """A state dict with a key or a value of another type, shape or size than CLIP has."""
    weights = dict(torch.load(seed, weights_only=True))
    name = rng.choice(sorted(weights))
    action = rng.randrange(5)
    if action == 0:
        del weights[name]
        done = f"{name} removed"
    elif action == 1:
        weights[name] = rng.choice(NASTY)
        done = f"{name} is {str(weights[name])[:20]!r}"
    elif action == 2:
        shape = tuple(rng.choice((0, 1, 2, 9)) for _ in range(rng.randrange(5)))
        weights[name] = torch.zeros(shape)
        done = f"{name} has shape {shape}"
    elif action == 3:
        weights[name] = weights[name].to(rng.choice((torch.int8, torch.bool, torch.complex64, torch.float16)))
        done = f"{name} is of type {weights[name].dtype}"
    else:
        weights = rng.choice(({1: 2}, {}, {1: torch.zeros(2)}, {None: None}, [weights], 5, torch.zeros(3)))
        done = f"a {type(weights).__name__} of no names"
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue(), done


def _damaged_member(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """One member of the zip archive damaged inside, its checksum right; compressed where that is new to the reader."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        chosen = rng.choice([name for name in names if name.endswith("data.pkl")] * len(names) + names)
        compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        done = ""
        with zipfile.ZipFile(target, "w", compression) as out:
            for name in names:
                content = archive.read(name)
                if name == chosen:
                    content, done = damaged_bytes(content, [], rng)
                out.writestr(name, content)
    return target.getvalue(), f"{chosen}: {done}"


@functools.cache
def _bytes(path: pathlib.Path) -> bytes:
    return path.read_bytes()
