"""What every test may use: the shared data beside the repository, small generated videos, the exported tiny model."""

from __future__ import annotations

import fractions
import os
import pathlib
from collections.abc import Callable, Generator

import av
import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile("without timing")  # a busy machine is no failure
hypothesis.settings.load_profile("without timing")
SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
TINY_CHECKPOINT = pathlib.Path(__file__).resolve().parents[1] / "benchmarks" / "demo" / "tiny_clip.pt"
FAIL_ON_SKIP = "GRIDCLIP_FAIL_ON_SKIP"


def _skips_must_fail() -> bool:
    return os.environ.get(FAIL_ON_SKIP, "") not in ("", "0") and SHARED_DATA.is_dir()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"may_skip: this test may be skipped even where {FAIL_ON_SKIP}=1 (say why)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a skipped test fail where everything it could need is meant to be there."""
    report = yield
    xfailed = hasattr(report, "wasxfail")
    if report.skipped and not xfailed and _skips_must_fail() and item.get_closest_marker("may_skip") is None:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped while {FAIL_ON_SKIP}=1: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module that skips itself while it is imported."""
    report = yield
    if report.skipped and _skips_must_fail():
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped while {FAIL_ON_SKIP}=1: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _own_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep exported models of the tests out of the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _own_working_folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[None, None, None]:
    """Keep what commands note in their working folder out of the repository."""
    before = pathlib.Path.cwd()
    os.chdir(tmp_path_factory.mktemp("working-folder"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder ../shared/data beside the repository; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no {SHARED_DATA}: this test reads data that is not part of the repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def write_video() -> Callable[..., pathlib.Path]:
    """A function that writes a video of moving noise; see _write_video for its arguments."""
    return _write_video


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of four H.264 videos, 64 x 48 pixels: a.mp4 (9 s), b.mp4 (4 s), c.mkv (17 s) and d.mp4 (1 s).

    At 0.5 fps and grid size 2 they have 4, 2, 8 and 0 wanted frames (d gets its first one): 1, 1, 2 and 1 super images.
    """
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, duration_s) in enumerate({"a.mp4": 9, "b.mp4": 4, "c.mkv": 17, "d.mp4": 1}.items()):
        _write_video(folder / name, duration_s=duration_s, seed=seed)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint() -> pathlib.Path:
    """The checkpoint of the demo's tiny CLIP, with its vocabulary beside it."""
    return TINY_CHECKPOINT


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The model folder of the demo's tiny CLIP, exported once per test session (and xdist worker)."""
    from gridclip.export.folder import export_model

    out = tmp_path_factory.mktemp("model") / "tiny"
    export_model(str(TINY_CHECKPOINT), out)
    return out


def _write_video(
    path: pathlib.Path,
    *,
    duration_s: float = 4,
    fps: int = 10,
    width_px: int = 64,
    height_px: int = 48,
    seed: int = 0,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> pathlib.Path:
    """Encode smooth moving colours (no two frames alike), B-frames included where the codec has them.

    Returns:
        path.
    """
    rng = np.random.default_rng(seed)
    phases, speeds = rng.uniform(0, 6, 3), rng.uniform(0.05, 0.3, 3)
    y_px, x_px = np.mgrid[:height_px, :width_px]
    with av.open(str(path), "w") as container:
        options = options or {"preset": "veryfast", "bf": "2", "g": "20"}
        if codec == "libx264":
            options = {"mbtree": "0", **options}  # with it, x264 writes other bits each time
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        for index in range(round(duration_s * fps)):
            waves = [np.sin(x_px / 9 + y_px / (5 + k) + phases[k] + index * speeds[k]) for k in range(3)]
            pixels = (np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, fractions.Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
