"""Sound and damaged videos in; whether DALI's decoders store what PyAV stores, also after a kill, out. Step F."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from gridclip import GridClipError
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.choices import Decoder
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs import ledger
from gridclip.engine.jobs.embed_videos import embed_videos
from gridclip.engine.jobs.failures import failures_path
from gridclip.engine.jobs.progress import JobSummary
from gridclip.engine.store.store import Store
from gridclip.export.folder import ensure_model_folder

from ..end_to_end import TINY_CHECKPOINT
from . import plans, videos
from .checks import Check, guarded, judged
from .plans import PLACES, Device, Place, Work
from .videos import Recipe

MIN_COSINE = 0.99
DECODERS: tuple[Decoder, ...] = ("dali", "hybrid")
FPS = 2.0
FRAMES = 60
KILL_LIMIT_S = 60.0
# What no decoder can open: these must fail, and nothing else.
HOPELESS = ("empty.mp4", "garbage.mp4", "headless.mp4", "text.webm")
_X264 = (("preset", "veryfast"), ("x264-params", "bframes=3"))
_SOUND = (
    Recipe("mixed VP9", "libvpx-vp9", 320, 180, FRAMES, plans.FAST_VPX, gop=20, suffix="webm"),
    Recipe("mixed MJPEG", "mjpeg", 320, 180, FRAMES, pixel_format="yuvj420p", suffix="avi"),
    Recipe("mixed H.264", "libx264", 320, 180, FRAMES, _X264, gop=20),
    Recipe("mixed H.264 10 bit", "libx264", 320, 180, FRAMES, _X264, gop=20, pixel_format="yuv420p10le"),
    Recipe(
        "mixed HEVC", "libx265", 320, 180, FRAMES, (("preset", "ultrafast"), ("x265-params", "log-level=none")), gop=20
    ),
    Recipe("mixed VP8", "libvpx", 320, 180, FRAMES, plans.FAST_VPX, gop=20, suffix="webm"),
)


def run(work: Work) -> Iterator[Check]:
    """PyAV's store is the reference; each of DALI's decoders, then a job that is killed and goes on."""
    folder = make_folder(work.folder, work.plan.mixed_copies)
    encoder = _encoder(work.place)
    reference = work.folder / "mixed-pyav"
    _embed(encoder, folder, reference, "pyav")
    yield check_failures("failures by pyav", reference, folder)
    for decoder in DECODERS:
        yield from guarded(f"--decoder {decoder}", check_decoder(work, encoder, folder, reference, decoder))
    yield from guarded("a kill, then --resume", check_resume(work, encoder, folder, reference))


def check_decoder(
    work: Work, encoder: Encoder, folder: pathlib.Path, reference: pathlib.Path, decoder: Decoder
) -> Iterator[Check]:
    """A job by one of DALI's decoders, against PyAV's store."""
    store = work.folder / f"mixed-{decoder}"
    _embed(encoder, folder, store, decoder)
    yield check_same(f"--decoder {decoder} as pyav", reference, store)
    yield check_failures(f"failures by {decoder}", store, folder)


def check_resume(work: Work, encoder: Encoder, folder: pathlib.Path, reference: pathlib.Path) -> Iterator[Check]:
    """A job by DALI that is killed when it has stored some videos, and goes on."""
    store = work.folder / "mixed-killed"
    stored = kill_in_the_middle(work.place.device, folder, store)
    _embed(encoder, folder, store, "dali", resume=True)
    total = len(Store.open(reference).finished_videos())
    told = f"{stored} of {total} videos were stored at the kill"
    yield judged("killed in the middle", 0 < stored < total, told, stored=stored)
    yield check_same("killed, then --resume, as pyav", reference, store)
    yield check_failures("failures after --resume", store, folder)


def make_folder(work_folder: pathlib.Path, copies: int) -> pathlib.Path:
    """Sound videos of every kind, several times each, and damaged ones."""
    made = videos.make_all(_SOUND, work_folder / "clips")
    folder = work_folder / f"mixed-videos-{copies}"
    folder.mkdir(exist_ok=True)
    for path in made.values():
        for number in range(copies):
            shutil.copyfile(path, folder / f"{path.stem}-{number}{path.suffix}")
    h264, vp9 = (
        next(path for recipe, path in made.items() if recipe.codec == codec) for codec in ("libx264", "libvpx-vp9")
    )
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    (folder / "headless.mp4").write_bytes(h264.read_bytes()[: h264.stat().st_size // 2])  # the index is at the end
    (folder / "text.webm").write_text("no video\n" * 100)
    data = bytearray(vp9.read_bytes())
    (folder / "cut.webm").write_bytes(bytes(data[: len(data) * 2 // 3]))  # plays, shorter
    return folder


def check_same(name: str, reference: pathlib.Path, store: pathlib.Path) -> Check:
    """Both stores hold the same videos, with as many super images each, and vectors of like direction."""
    expected, found = (Store.open(path).read_super_images() for path in (reference, store))
    if expected.video_ids != found.video_ids:
        differing = sorted(set(expected.video_ids) ^ set(found.video_ids))
        return judged(name, False, f"other videos are stored: {', '.join(differing[:5])}", differing=differing)
    if not np.array_equal(expected.offsets, found.offsets):
        return judged(name, False, "a video has another number of super images")
    vectors = [table.vectors.astype(np.float64) for table in (expected, found)]
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in vectors]
    cosines = (units[0] * units[1]).sum(axis=1)
    lowest = float(cosines.min())
    owner = expected.video_ids[int(np.searchsorted(expected.offsets, cosines.argmin(), side="right")) - 1]
    told = f"{len(found.video_ids)} videos, smallest cosine {lowest:.6f} ({owner}), at least {MIN_COSINE:g} wanted"
    return judged(name, lowest >= MIN_COSINE, told, smallest_cosine=round(lowest, 7), video=owner)


def check_failures(name: str, store: pathlib.Path, folder: pathlib.Path) -> Check:
    """failures.jsonl names the videos that nothing can open, each once, and no other; all others are stored."""
    lines = failures_path(store).read_text("utf-8").splitlines()
    failed = sorted(json.loads(line)["video_id"] for line in lines)
    expected = sorted(pathlib.Path(file).stem for file in HOPELESS)
    stored = Store.open(store).finished_videos()
    missing = {path.stem for path in folder.iterdir()} - stored - set(expected)
    right = failed == expected and not missing
    told = f"{len(failed)} failed: {', '.join(failed)}; {len(stored)} stored"
    if not right:
        told += f"; expected to fail: {', '.join(expected)}; missing: {', '.join(sorted(missing)) or 'none'}"
    return judged(name, right, told, failed=failed, missing=sorted(missing))


def kill_in_the_middle(device: Device, folder: pathlib.Path, store: pathlib.Path) -> int:
    """Starts a job in a process of its own and kills it as soon as it has stored something; videos in the store.

    Raises:
        GridClipError: the job stored nothing in KILL_LIMIT_S.
    """
    shutil.rmtree(store, ignore_errors=True)
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, device, str(folder), str(store)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(os.environ),
    )
    try:
        give_up = time.monotonic() + KILL_LIMIT_S
        while process.poll() is None and time.monotonic() < give_up:
            if _stored(store):
                break
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    stored = _stored(store)
    if not stored:
        raise GridClipError(f"a job stored nothing before it ended or {KILL_LIMIT_S:g} s had passed: see {store}")
    return stored


def main(arguments: Sequence[str]) -> None:
    """The job that is killed: it appends to the store after every few videos, so that there is a middle."""
    device, folder, store = arguments
    ledger.APPEND_VIDEOS = 3
    ledger.APPEND_PAUSE_S = 0.0
    _embed(_encoder(PLACES[device]), pathlib.Path(folder), pathlib.Path(store), "dali")  # type: ignore[index]


def _stored(store: pathlib.Path) -> int:
    try:
        return len(Store.open(store).finished_videos())
    except GridClipError:
        return 0


def _encoder(place: Place) -> Encoder:
    folder = ensure_model_folder(str(TINY_CHECKPOINT))
    return Encoder(folder, provider=place.providers[0], device_id=place.device_id or 0)


def _embed(
    encoder: Encoder, folder: pathlib.Path, store: pathlib.Path, decoder: Decoder, *, resume: bool = False
) -> JobSummary:
    if not resume:
        shutil.rmtree(store, ignore_errors=True)
    sampling = Sampling(fps=FPS, super_img_size=encoder.info.image_size)
    workers = max(2, (os.cpu_count() or 1) // 2)
    return embed_videos(
        encoder,
        folder,
        store,
        sampling=sampling,
        decoder=decoder,
        num_workers=workers,
        batch_size=4,
        resume=resume,
        cells=False,
    )


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


if __name__ == "__main__":
    main(sys.argv[1:])
