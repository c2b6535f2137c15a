"""Super images in, `<save_dir>/<video_id>/img_0001.jpg` ... out, and back: folders that are complete or absent.

A folder is written under a hidden name and renamed when its sidecar `super_images.json` (settings and times) is in it:
a folder with a sidecar is complete. Folders without one, made by other programs, can be read; their times are unknown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import io
import json
import logging
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from .. import GridClipError
from . import grid
from .sampling import Sampling
from .source import EncodedImages, Notice, SuperImages, VideoFile
from .streams import VideoError

logger = logging.getLogger(__name__)

QUALITY = 75
SIDECAR = "super_images.json"
LIBRARY_VARIABLE = "GRIDCLIP_LIBTURBOJPEG"
READ_AT_ONCE = 16  # super images per run when a folder is read
ENCODED_AT_ONCE = 64  # super images per run for DALI
IMAGE_NAME = re.compile(r"img_(\d+)\.jpe?g", re.IGNORECASE)
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What super_images.json says of its folder.

    Attributes:
        sampling: the settings that the folder was made with.
        start_s: seconds from the video's start of the first frame of each super image.
        end_s: seconds at which each super image ends.
    """

    sampling: Sampling
    start_s: list[float]
    end_s: list[float]


def save(
    video: VideoFile,
    *,
    skip: int,
    decode: Callable[[VideoFile], Iterator[SuperImages | Notice]],
    sampling: Sampling,
    save_dir: pathlib.Path,
) -> Iterator[int | Notice]:
    """Writes the folder of one video, replacing an older one; yields each run's number of super images, and notices.

    Args:
        video: the video to decode.
        skip: must be 0: a folder is written whole.
        decode: yields the video's super images.
        sampling, save_dir: see FolderWriter.

    Raises:
        VideoError: the video cannot be decoded, or its folder cannot be replaced.
        GridClipError: the disk is full or read-only.
    """
    assert skip == 0
    writer = FolderWriter(video.video_id, sampling, save_dir)
    try:
        for run in decode(video):
            if isinstance(run, Notice):
                yield run
                continue
            writer.write(run)
            yield len(run.images)
        writer.finish()
    finally:
        writer.discard()


class FolderWriter:
    """The folder of one video while it grows.

    Args:
        video_id: names the folder.
        sampling: goes into the sidecar.
        save_dir: an existing directory.

    Raises:
        VideoError: the folder cannot be replaced.
        GridClipError: the disk is full or read-only.
    """

    def __init__(self, video_id: str, sampling: Sampling, save_dir: pathlib.Path) -> None:
        self._folder = save_dir / video_id
        self._part = part_folder(save_dir, video_id)
        self._sampling = sampling
        self._times: list[tuple[int, list[float], list[float]]] = []
        with _disk_errors(save_dir):
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir()

    def write(self, run: SuperImages) -> None:
        """Writes a run's images; runs may come in any order."""
        with _disk_errors(self._folder.parent):
            for number, image in enumerate(run.on_cpu(), start=run.first + 1):
                (self._part / f"img_{number:04d}.jpg").write_bytes(encode(image))
        self._times.append((run.first, run.start_s.tolist(), run.end_s.tolist()))

    def finish(self) -> None:
        """Puts the complete folder in the place of an older one."""
        ordered = sorted(self._times)
        start_s = [time for _, times, _ in ordered for time in times]
        end_s = [time for _, _, times in ordered for time in times]
        record = {"format": 1, **dataclasses.asdict(self._sampling), "count": len(start_s)}
        record |= {"start_s": start_s, "end_s": end_s}
        with _disk_errors(self._folder.parent):
            (self._part / SIDECAR).write_text(json.dumps(record), encoding="utf-8")
            _remove(self._folder)
            self._part.rename(self._folder)

    def discard(self) -> None:
        """Removes what is not finished."""
        shutil.rmtree(self._part, ignore_errors=True)


def part_folder(save_dir: pathlib.Path, video_id: str) -> pathlib.Path:
    """Where a video's folder grows until it is complete."""
    return save_dir / f".{video_id}.part"


def encode(image: np.ndarray) -> bytes:
    """A super image uint8 [S, S, 3] as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def read_sidecar(folder: pathlib.Path) -> Sidecar | None:
    """The sidecar of a finished folder; None where there is none, it is damaged, or images are missing."""
    try:
        record = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
        settings = {field.name: record[field.name] for field in dataclasses.fields(Sampling) if field.name in record}
        sidecar = Sidecar(Sampling(**settings), list(map(float, record["start_s"])), list(map(float, record["end_s"])))
        complete = len(_images(folder)) == record["count"] == len(sidecar.start_s) == len(sidecar.end_s)
    except (OSError, ValueError, KeyError, TypeError, VideoError):
        return None
    return sidecar if complete else None


def read(folder: VideoFile, *, skip: int = 0, super_img_size: int) -> Iterator[SuperImages]:
    """Yields the super images of one folder in order, resized (bicubic, no crop) where they have another size.

    Args:
        folder: a folder of img_*.jpg as path, its name as video_id.
        skip: leave out so many super images.
        super_img_size: width and height of the result in pixels.

    Yields:
        Runs of at most READ_AT_ONCE super images; times are NaN where the folder has no sidecar.

    Raises:
        VideoError: there is no image, one is missing in the sequence, or one cannot be read.
    """
    for files in _files(folder, skip, READ_AT_ONCE):
        yield files.decoded(super_img_size)


def encoded_images(folder: VideoFile, *, skip: int, super_img_size: int) -> Iterator[EncodedImages | SuperImages]:
    """Yields the super images of one folder in order, as JPEG files for DALI; decoded where a file looks damaged.

    Args and errors are those of `read`.
    """
    for files in _files(folder, skip, ENCODED_AT_ONCE):
        contents = [_read_file(path) for path in files.paths]
        pixels = [_pixels(data) for data in contents]
        if None in pixels:
            yield files.decoded(super_img_size)  # names the file that cannot be read
            continue
        cost = float(sum(filter(None, pixels)))
        yield EncodedImages(
            folder.video_id, files.first, files.total, files.start_s, files.end_s, cost, int(cost) * 3, contents
        )


@dataclasses.dataclass
class _Files:
    """Consecutive files of a folder; the other attributes are those of SuperImages."""

    video_id: str
    first: int
    total: int
    paths: list[pathlib.Path]
    start_s: np.ndarray
    end_s: np.ndarray

    def decoded(self, super_img_size: int) -> SuperImages:
        """The files' pixels; raises VideoError."""
        images = np.stack([grid.resize(read_image(path), super_img_size) for path in self.paths])
        return SuperImages(self.video_id, self.first, self.total, images, self.start_s, self.end_s)


def _files(folder: VideoFile, skip: int, at_once: int) -> Iterator[_Files]:
    paths = _images(folder.path)
    sidecar = read_sidecar(folder.path)
    if sidecar is None and (folder.path / SIDECAR).exists():
        raise VideoError("read", f"{SIDECAR} does not match the {len(paths)} images: made only in part, make it again")
    unknown = np.full(len(paths), np.nan)
    start_s = unknown if sidecar is None else np.array(sidecar.start_s)
    end_s = unknown if sidecar is None else np.array(sidecar.end_s)
    for first in range(skip, len(paths), at_once):
        some = slice(first, first + at_once)
        yield _Files(folder.video_id, first, len(paths), paths[some], start_s[some], end_s[some])


def _pixels(data: bytes) -> int | None:
    """Width x height of a JPEG file that begins and ends as one does, else None."""
    if not data.startswith(b"\xff\xd8") or b"\xff\xd9" not in data[-64:]:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:  # reads the header only
            return image.width * image.height
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _read_file(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise VideoError("read", f"{path.name}: {error.strerror or error}") from error


def read_image(path: pathlib.Path) -> np.ndarray:
    """A JPEG file as uint8 [H, W, 3], RGB.

    Raises:
        VideoError: the file is missing, empty, cut off or damaged.
    """
    try:
        data = _read_file(path)
        if not data:
            raise VideoError("read", f"{path.name}: empty file")
        return _decoder()(data)
    except OSError as error:  # Pillow's errors are OSErrors, too
        raise VideoError("read", f"{path.name}: {error.strerror or error}") from error
    except (RuntimeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError("read", f"{path.name}: {error}") from error


@functools.cache
def turbojpeg_library() -> str | None:
    """The libturbojpeg that jpeg4py has loaded: from $GRIDCLIP_LIBTURBOJPEG, the virtual environment, or the system."""
    try:
        import jpeg4py._cffi
    except ImportError:
        return None
    own = pathlib.Path(sys.prefix) / "lib"
    names = [os.environ.get(LIBRARY_VARIABLE), own / "libturbojpeg.so.0", own / "libturbojpeg.dylib"]
    for name in [*filter(None, names), "libturbojpeg.so.0", "libturbojpeg.so", "libturbojpeg.dylib", "turbojpeg.dll"]:
        try:
            jpeg4py._cffi.initialize(backends=(str(name),))
        except OSError:
            continue
        return str(name)
    return None


def warn_without_turbojpeg() -> None:
    """One warning where super images will be read with Pillow; for the process that starts the reading ones."""
    if turbojpeg_library() is None:
        logger.warning("libturbojpeg or jpeg4py is missing: JPEG files are read with Pillow, which is slower; install "
                       "libturbojpeg, or name its file in %s", LIBRARY_VARIABLE)


@functools.cache
def _decoder() -> Callable[[bytes], np.ndarray]:
    if turbojpeg_library() is None:
        return _read_with_pillow
    import jpeg4py

    return lambda data: jpeg4py.JPEG(np.frombuffer(data, np.uint8)).decode()


def _read_with_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB"))


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    """The images of a folder in the order of their numbers; raises VideoError where the sequence has a gap."""
    try:
        names = [name for name in os.listdir(folder) if IMAGE_NAME.fullmatch(name)]
    except OSError as error:
        raise VideoError("read", f"{error.strerror}: {folder}") from error
    numbers = {_number(name): name for name in sorted(names)}
    if not numbers:
        raise VideoError("read", "no img_*.jpg in the folder")
    first = min(numbers)  # 1, or 0 in folders that other programs wrote
    for number in range(first, first + len(numbers)):
        if number not in numbers:
            raise VideoError("read", f"img_{number:04d}.jpg is missing")
    if first > 1:
        raise VideoError("read", "img_0001.jpg is missing")
    return [folder / numbers[number] for number in sorted(numbers)]


def _number(name: str) -> int:
    match = IMAGE_NAME.fullmatch(name)
    assert match is not None
    return int(match[1])


def _remove(folder: pathlib.Path) -> None:
    """Removes an older folder of super images, and nothing else that a user may have put there."""
    if not folder.exists():
        return
    foreign = [name for name in _names(folder) if name != SIDECAR and not IMAGE_NAME.fullmatch(name)]
    if foreign or not folder.is_dir():
        raise VideoError("write", f"{folder} holds something else ({(foreign or ['a file'])[0]}): move it away")
    shutil.rmtree(folder)


def _names(folder: pathlib.Path) -> Iterable[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


@contextlib.contextmanager
def _disk_errors(save_dir: pathlib.Path) -> Iterator[None]:
    """Errors that would hit every video end the job; others cost one video."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise GridClipError(f"cannot write to {save_dir}: {error.strerror}; finished videos are kept: make room, "
                                "then run the same command again with --resume") from error
        raise VideoError("write", str(error)) from error


