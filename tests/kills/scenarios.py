"""A folder for inputs in; small videos, a model and all long commands with their arguments out."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Sequence

import fake_model
import generated_videos
import numpy as np
from generated_videos import Recipe

from . import states
from .states import State

VIDEOS = 20
BROKEN = "broken"
COMMAND = (sys.executable, "-m", "kills.command")
IMAGE_FOLDERS, STORE = "super-images", "store"


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A command that is killed, and taken up again.

    Attributes:
        name: what it is called in the report.
        arguments: of the command; the output's folder is added under `out_option`.
        out_option: --store or --save-dir.
        resume: what is added to take it up again.
        begun: a file in the output's folder that is there when the work begins.
        state: reads the output.
        has_workers: processes that can be killed on their own.
        parts: of the output's folder, with `out_option` before each; default: the folder itself.
    """

    name: str
    arguments: Sequence[str]
    out_option: str
    resume: Sequence[str]
    begun: str
    state: Callable[[pathlib.Path], State]
    has_workers: bool
    parts: Sequence[str] = ("",)

    def command(self, out: pathlib.Path, *, resume: bool) -> list[str]:
        """The whole command line."""
        outputs = [word for part in self.parts for word in (self.out_option, str(out / part))]
        return [*COMMAND, *self.arguments, *outputs, *(self.resume if resume else ())]


def write_inputs(folder: pathlib.Path) -> list[Scenario]:
    """Writes videos (one of which is none), captions, features and a model; all scenarios but those of JPEG folders,
    which `image_scenarios` gives when there are some."""
    videos = folder / "videos"
    videos.mkdir()
    for number in range(VIDEOS):
        _write_video(videos, number)
    (videos / f"{BROKEN}.mp4").write_bytes(b"no video at all")
    model = fake_model.write(folder / "model")
    other = fake_model.write(folder / "other-model", image_size=32, fingerprint="0" * 64)
    captions = folder / "captions.json"
    captions.write_text(
        json.dumps(
            {
                f"v{number:02}": {"duration": 2, "sentences": [f"caption {number} {each}" for each in range(20)]}
                for number in range(VIDEOS)
            }
        )
    )
    features = _write_features(folder / "features")
    each = ["--num-workers", "2", "--time-limit", "60"]
    embed = ["--model", str(model), "--batch-size", "3", "--provider", "cpu"]
    from_videos = ["embed-videos", "--video-dir", str(videos), *embed, *each, "--fps", "4"]

    def store(name: str, arguments: list[str], resume: Sequence[str], begun: str, workers: bool) -> Scenario:
        return Scenario(name, arguments, "--store", resume, begun, states.of_store, workers)

    return [
        Scenario(
            "superimages",
            ["superimages", "--video-dir", str(videos), "--super-img-size", "64", "--fps", "4", *each],
            "--save-dir",
            ["--resume"],
            "failures.jsonl",
            states.of_folders,
            has_workers=True,
        ),
        store("embed-videos", [*from_videos, "--num-gpus", "0"], ["--resume"], "failures.jsonl", True),
        store("embed-videos, two devices", [*from_videos, "--num-gpus", "2"], ["--resume"], "failures.jsonl", True),
        Scenario(
            "embed-videos, two models",
            [*from_videos, "--num-gpus", "0", "--model", str(other)],
            "--store",
            ["--resume"],
            "second/failures.jsonl",
            states.of_stores,
            has_workers=True,
            parts=("first", "second"),
        ),
        store(
            "embed-text",
            ["embed-text", "--model", str(model), "--anno-path", str(captions), "--batch-size", "1", "--num-gpus", "0"],
            [],
            "failures.jsonl",
            False,
        ),
        store(
            "import-features",
            ["import-features", "--image-dir", str(features), "--text-file", str(features / "queries.npz")],
            [],
            "store.json",
            False,
        ),
    ]


def image_scenarios(folder: pathlib.Path, image_folders: pathlib.Path) -> list[Scenario]:
    """embed-images on what superimages has written."""
    arguments = [
        "embed-images",
        "--image-dir",
        str(image_folders),
        "--model",
        str(folder / "model"),
        "--batch-size",
        "3",
        "--provider",
        "cpu",
        "--num-workers",
        "2",
        "--time-limit",
        "60",
    ]
    return [
        Scenario(
            name,
            [*arguments, "--num-gpus", gpus],
            "--store",
            ["--resume"],
            "failures.jsonl",
            states.of_store,
            has_workers=True,
        )
        for name, gpus in (("embed-images", "0"), ("embed-images, two devices", "2"))
    ]


def _write_video(folder: pathlib.Path, number: int) -> None:
    """A video of its own colours: a mix-up would show in the embeddings."""
    recipe = Recipe(
        f"v{number:02}.mp4",
        frames=30 + 3 * number,
        gop=10,
        size=(64, 48),
        options=(("preset", "ultrafast"), ("bf", "2")),
    )
    generated_videos.write(folder, recipe)


def _write_features(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(VIDEOS * 3):
        np.save(folder / f"v{number:02}.npy", rng.normal(size=(1 + number % 4, 8)).astype(np.float32))
    (folder / f"{BROKEN}.npy").write_bytes(b"no array")
    np.savez(
        folder / "queries.npz",
        video_id=np.array([f"v{number:02}" for number in range(9)]),
        text=np.array([f"caption {number}" for number in range(9)]),
        embedding=rng.normal(size=(9, 8)),
    )
    return folder
