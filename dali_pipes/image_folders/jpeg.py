"""Super images in, `<save_dir>/<video_id>/img_0001.jpg` ... out, and back: folders that are complete or absent.

A folder grows elsewhere and is renamed when its sidecar `super_images.json` (settings and times) is in it: a folder
with a sidecar is complete. Folders without one, made by other programs, can be read; their times are unknown.
Ids may have slashes, so that the folder of `a/b` lies in that of `a`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from ... import GridClipError
from .. import grid, ids
from ..contract import CompressedImages, SuperImages, VideoError, VideoFile
from ..layout import Part
from ..ordinary_file import refuse_special_file
from ..sampling import Sampling, of_record, super_image_count
from .jpeg_decoding import Decode, JpegError, decode, decode_with_pillow, pixel_count

QUALITY = 75
SIDECAR = "super_images.json"
READ_AT_ONCE = 16  # super images per chunk when a folder is read
COMPRESSED_AT_ONCE = 64  # super images per chunk for DALI
LONGEST_PART_NAME_BYTES = 250  # file systems allow 255, and .part follows
IMAGE_NAME = re.compile(r"img_(\d+)\.jpe?g", re.IGNORECASE)
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What super_images.json says of its folder.

    Attributes:
        sampling: the settings that the folder was made with.
        start_s: seconds from the video's start of the first frame of each super image.
        end_s: seconds at which each super image ends.
        frame_bounds_s: seconds at which each wanted frame begins to stand for the video, and the end of the last one;
            None in folders of older versions.
    """

    sampling: Sampling
    start_s: list[float]
    end_s: list[float]
    frame_bounds_s: list[float] | None = None


class FolderWriter:
    """The folder of one video while it grows.

    Args:
        video_id: names the folder; with slashes, a folder in folders.
        sampling: goes into the sidecar.
        save_dir: where the complete folder goes.
        part_dir: where it grows, and an older one waits to be removed: on the same disk, and of this job alone.

    Raises:
        VideoError: the folder cannot be made, or would lie outside save_dir.
        GridClipError: the disk is full or read-only.
    """

    def __init__(self, video_id: str, sampling: Sampling, save_dir: pathlib.Path, part_dir: pathlib.Path) -> None:
        try:
            self._folder = ids.path_below(save_dir, video_id)
        except ids.UnusableId as error:
            raise VideoError("write", str(error)) from error
        self._part = part_folder(part_dir, video_id)
        self._sampling = sampling
        self._chunks: list[CompressedImages] = []  # without their files
        with _disk_errors(save_dir):
            # Emptied, not made anew: to other jobs, that it is there means that the video is in work.
            self._part.mkdir(parents=True, exist_ok=True)
            for left in self._part.iterdir():
                left.unlink()

    def write(self, chunk: CompressedImages) -> None:
        """Writes a chunk's files; chunks may come in any order."""
        with _disk_errors(self._folder.parent):
            for number, file in enumerate(chunk.files, start=chunk.first + 1):
                (self._part / f"img_{number:04d}.jpg").write_bytes(file)
        self._chunks.append(dataclasses.replace(chunk, files=[]))

    def finish(self) -> None:
        """Puts the complete folder in the place of an older one."""
        ordered = sorted(self._chunks, key=lambda chunk: chunk.first)
        start_s = [time for chunk in ordered for time in chunk.start_s.tolist()]
        end_s = [time for chunk in ordered for time in chunk.end_s.tolist()]
        record = {"format": 1, **dataclasses.asdict(self._sampling), "count": len(start_s)}
        record |= {"start_s": start_s, "end_s": end_s, "frame_bounds_s": _joined_bounds(ordered)}
        with _disk_errors(self._folder.parent):
            (self._part / SIDECAR).write_text(json.dumps(record), encoding="utf-8")
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            _replace(self._folder, self._part)

    def discard(self) -> None:
        """Removes what is not finished."""
        shutil.rmtree(self._part, ignore_errors=True)


def part_folder(part_dir: pathlib.Path, video_id: str) -> pathlib.Path:
    """Where a video's folder grows until it is complete: always directly in part_dir, whatever slashes the id has."""
    name = video_id.replace("%", "%25").replace("/", "%2F")
    if len(name.encode()) > LONGEST_PART_NAME_BYTES:
        name = hashlib.sha256(name.encode()).hexdigest()
    return part_dir / f"{name}.part"


def _joined_bounds(chunks: Sequence[CompressedImages]) -> list[float] | None:
    """The bounds of the frames of all chunks, which are in order; None where they are unknown."""
    bounds: list[list[float]] = [chunk.frame_bounds_s.tolist() for chunk in chunks if chunk.frame_bounds_s is not None]
    if not bounds or len(bounds) < len(chunks):
        return None
    return [time for chunk in bounds for time in chunk[:-1]] + bounds[-1][-1:]


def compress(chunk: SuperImages) -> CompressedImages:
    """A chunk with its images as the JPEG files that a folder holds."""
    images = chunk.on_cpu()
    pixels = images.size // 3
    return CompressedImages(
        chunk.video_id,
        chunk.first,
        chunk.total,
        chunk.start_s,
        chunk.end_s,
        float(pixels),
        pixels * 3,
        [encode(image) for image in images],
        parts=chunk.parts,
        frame_bounds_s=chunk.frame_bounds_s,
    )


def encode(image: np.ndarray) -> bytes:
    """A super image uint8 [S, S, 3] as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def read_sidecar(folder: pathlib.Path) -> Sidecar | None:
    """The sidecar of a finished folder; None where there is none, it is damaged, or images are missing."""
    try:
        refuse_special_file(folder / SIDECAR)
        record = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            return None
        bounds = record.get("frame_bounds_s")
        sampling = of_record(record)
        if len(sampling.grid_sizes) > 1:
            return None
        sidecar = Sidecar(
            sampling,
            list(map(float, record["start_s"])),
            list(map(float, record["end_s"])),
            None if bounds is None else list(map(float, bounds)),
        )
        complete = len(_images(folder)) == record["count"] == len(sidecar.start_s) == len(sidecar.end_s)
        complete &= bounds is None or _count(sidecar.sampling, len(bounds) - 1) == record["count"]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, VideoError):
        return None
    return sidecar if complete else None


def _count(sampling: Sampling, frames: int) -> int:
    (grid_size,) = sampling.grid_sizes
    return super_image_count(frames, grid_size, sampling.stride)


def read(folder: VideoFile, /, *, skip: int = 0, super_img_size: int) -> Iterator[SuperImages]:
    """Yields the super images of one folder in order, resized (bicubic, no crop) where they have another size.

    Args:
        folder: a folder of img_*.jpg as path, its name as video_id.
        skip: leave out so many super images.
        super_img_size: width and height of the result in pixels.

    Yields:
        Chunks of at most READ_AT_ONCE super images; times are NaN where the folder has no sidecar.

    Raises:
        VideoError: there is no image, one is missing in the sequence, or one cannot be read.
    """
    for files in _files(folder, skip, READ_AT_ONCE):
        yield files.decode(decode, super_img_size)


def read_with_pillow(folder: VideoFile, /, *, skip: int, super_img_size: int) -> Iterator[SuperImages]:
    """The same by Pillow, for a folder that `read` has crashed or hung on."""
    for files in _files(folder, skip, READ_AT_ONCE):
        yield files.decode(decode_with_pillow, super_img_size)


def read_compressed(
    folder: VideoFile, /, *, skip: int, super_img_size: int
) -> Iterator[CompressedImages | SuperImages]:
    """Yields the super images of one folder in order, as JPEG files for DALI; decoded where a file looks damaged.

    Args and errors are those of `read`.
    """
    for files in _files(folder, skip, COMPRESSED_AT_ONCE):
        contents = [_read_file(path) for path in files.paths]
        pixels = [pixel_count(data) for data in contents]
        if None in pixels:
            yield files.decode(decode, super_img_size)  # names the file that cannot be read
            continue
        cost = float(sum(filter(None, pixels)))
        yield CompressedImages(
            folder.video_id,
            files.first,
            files.total,
            files.start_s,
            files.end_s,
            cost,
            int(cost) * 3,
            contents,
            parts=files.parts,
            frame_bounds_s=files.frame_bounds_s,
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
    parts: tuple[Part, ...]
    frame_bounds_s: np.ndarray | None

    def decode(self, decode: Decode, super_img_size: int) -> SuperImages:
        """The files' pixels; raises VideoError."""
        images = np.stack([grid.resize(read_image(path, decode), super_img_size) for path in self.paths])
        return SuperImages(
            self.video_id,
            self.first,
            self.total,
            images,
            self.start_s,
            self.end_s,
            self.parts,
            self.frame_bounds_s,
        )


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
        parts, frame_bounds_s = ((), None) if sidecar is None else _cells(sidecar, range(len(paths))[some])
        times = start_s[some], end_s[some], parts, frame_bounds_s
        yield _Files(folder.video_id, first, len(paths), paths[some], *times)


def _cells(sidecar: Sidecar, files: range) -> tuple[tuple[Part, ...], np.ndarray | None]:
    """What some super images of a folder are, and the bounds of their frames, None where these are unknown."""
    (grid_size,) = sidecar.sampling.grid_sizes
    parts = (Part(grid_size, files.start, len(files)),)
    if sidecar.frame_bounds_s is None:
        return parts, None
    stride = sidecar.sampling.stride_of(grid_size)
    return parts, np.array(sidecar.frame_bounds_s)[files.start * stride : files.stop * stride + 1]


def _read_file(path: pathlib.Path) -> bytes:
    try:
        refuse_special_file(path)
        return path.read_bytes()
    except OSError as error:
        raise VideoError("read", f"{path.name}: {error.strerror or error}") from error


def read_image(path: pathlib.Path, decode: Decode = decode) -> np.ndarray:
    """A JPEG file as uint8 [H, W, 3], RGB.

    Raises:
        VideoError: the file is missing, empty, cut off, damaged or too large.
    """
    try:
        return decode(_read_file(path))
    except JpegError as error:
        raise VideoError("read", f"{path.name}: {error}") from error


def count_images(folder: pathlib.Path) -> int:
    """The images of a folder; raises VideoError where there are none, or the sequence has a gap."""
    return len(_images(folder))


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


def _replace(folder: pathlib.Path, part: pathlib.Path) -> None:
    """Puts a complete folder in the place of an older one; folders of other videos in that one stay."""
    _empty(folder)
    try:
        part.rename(folder)  # replaces an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _fill(folder, part)


def _fill(folder: pathlib.Path, part: pathlib.Path) -> None:
    """Moves what is in part into a folder that holds other videos' folders, and so cannot be replaced as a whole."""
    (folder / SIDECAR).touch()  # an empty one: until the end, the folder counts as made only in part
    for image in _files_in(part, IMAGE_NAME.fullmatch):
        image.rename(folder / image.name)
    (part / SIDECAR).replace(folder / SIDECAR)
    part.rmdir()


def _empty(folder: pathlib.Path) -> None:
    """Removes older super images from a folder, and nothing else that a user may have put there."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise VideoError("write", f"{folder} is a file: move it away")
    foreign = _files_in(folder, lambda name: name != SIDECAR and not IMAGE_NAME.fullmatch(name))
    if foreign:
        raise VideoError("write", f"{folder} holds something else ({foreign[0].name}): move it away")
    images = _files_in(folder, IMAGE_NAME.fullmatch)
    if images:
        (folder / SIDECAR).write_bytes(b"")  # as in _fill
    for file in [*images, folder / SIDECAR]:
        file.unlink(missing_ok=True)


def _files_in(folder: pathlib.Path, wanted: Callable[[str], object]) -> list[pathlib.Path]:
    """The files of a folder whose names are wanted, sorted; folders are other videos'."""
    return sorted(path for path in folder.iterdir() if wanted(path.name) and not path.is_dir())


@contextlib.contextmanager
def _disk_errors(save_dir: pathlib.Path) -> Iterator[None]:
    """Errors that would hit every video end the job; others cost one video."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise GridClipError(
                f"cannot write to {save_dir}: {error.strerror}; finished videos are kept: make room, "
                "then run the same command again with `resume=True`"
            ) from error
        raise VideoError("write", str(error)) from error
