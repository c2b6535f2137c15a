"""WebDataset tars in, the captions beside their videos out, unchecked: `key.txt`, or "caption" of `key.json`.

The videos are named as `finding` names them, `<tar>/<key>`, so that captions and videos of the same tars meet.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator

from ... import GridClipError
from ...dali_pipes import ids
from ...dali_pipes.opening import seekable
from ...dali_pipes.places import TarMember
from ...dali_pipes.read_ahead import ReadFailed
from ..listing.finding import tars_in
from ..listing.tars import SUFFIX, read_tar
from .formats import Caption, Named, Problem

MOST_BYTES = 1 << 20  # of a caption's file


@dataclasses.dataclass
class _Sample:
    """The files of one key."""

    is_video: bool = False
    text: TarMember | None = None
    meta: TarMember | None = None


def is_packed(path: pathlib.Path) -> bool:
    """Whether this is a tar, or a folder, which can only be one of tars."""
    return path.is_dir() or path.suffix.lower() == SUFFIX


def read(path: pathlib.Path) -> Iterator[Named | Caption | Problem]:
    """What a tar, or all tars of a folder, say of their videos, in the order of the tars' names and of the files there.

    Raises:
        GridClipError: the folder has no tar, or none of the tars can be read.
    """
    packed = tars_in(path) if path.is_dir() else {path.name: path}
    if not packed:
        expected = f"expected an annotation file, or {SUFFIX} files with key.txt or key.json"
        raise GridClipError(f"cannot read {path}: it is a folder without tars, {expected}")
    failed: list[str] = []
    for name, tar in sorted(packed.items()):
        try:
            yield from _of_tar(name[: -len(SUFFIX)], tar)
        except GridClipError as error:
            failed.append(str(error))
            if len(failed) == len(packed):
                raise
            yield Problem(name, f"{error}; its captions are left out")


def _of_tar(folder: str, tar: pathlib.Path) -> Iterator[Named | Caption | Problem]:
    contents = read_tar(tar)
    if contents.broken:
        yield Problem(f"{folder}{SUFFIX}", f"{contents.broken}; captions after that are left out")
    try:
        with seekable(tar) as file:
            for key, sample in _samples(contents.files).items():
                video = f"{folder}/{key}"
                if sample.is_video:
                    yield Named(video)
                for member in filter(None, (sample.text, sample.meta)):
                    if member.size > MOST_BYTES:
                        yield Problem(f"{tar}/{member.member}", f"it has {member.size:,} bytes, expected a caption")
                        continue
                    file.seek(member.offset)
                    found = list(_captions(video, member, file.read(member.size)))
                    yield from found
                    if found:
                        break
    except ReadFailed as error:
        raise GridClipError(f"{tar} cannot be read: {error.strerror}") from error


def _samples(files: dict[str, TarMember]) -> dict[str, _Sample]:
    """Files by key: the name without its suffix."""
    samples: dict[str, _Sample] = {}
    for name, member in files.items():
        suffix = pathlib.PurePosixPath(name).suffix.lower()
        if suffix not in (".txt", ".json") and suffix not in ids.VIDEO_SUFFIXES:
            continue
        sample = samples.setdefault(name[: -len(suffix)], _Sample())
        if suffix == ".txt":
            sample.text = member
        elif suffix == ".json":
            sample.meta = member
        else:
            sample.is_video = True
    return samples


def _captions(video: str, member: TarMember, data: bytes) -> Iterator[Caption | Problem]:
    """What one file says; nothing where it has no caption."""
    place = str(member)
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(text) if member.name.lower().endswith(".json") else text.strip()
    except (RecursionError, ValueError) as error:  # UnicodeDecodeError is one
        yield Problem(place, f"{error}; caption left out")
        return
    if isinstance(found, dict):
        found = found.get("caption")
    for caption in found if isinstance(found, list) else [found]:
        if caption is not None and caption != "":
            yield Caption(place, video, caption, None)
