"""A folder, a list of paths, tars or a URL in, the names and places of the videos there out.

A name is a path with slashes, suffix included, of which `ids.of_files` makes an id: the path below the folder or the
URL; of a list, below the list's folder, or whole where it lies elsewhere; and in a tar `<path of the tar without
.tar>/<name in the tar>`, as if each tar were a folder, so that a further tar renames nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from ... import GridClipError
from ...dali_pipes import ids, remote
from ...dali_pipes.contract import Failure, Notice
from ...dali_pipes.ordinary_file import refuse_special_file
from ...dali_pipes.places import Place, RemoteFile, is_url
from ...dali_pipes.read_ahead import ReadFailed
from . import tars
from .walk import joined, walk

logger = logging.getLogger(__name__)

# A path, or the text of a URL, whose slashes a path would lose.
Where: TypeAlias = pathlib.Path | str
LIST_SUFFIX = ".txt"


@dataclasses.dataclass
class Found:
    """What lies somewhere.

    Attributes:
        places: of the videos, by name.
        failures: of what should be a video, and has nothing to read.
        unread: of folders and tars, which hold who knows what.
        notices: of kind "duplicate".
    """

    places: dict[str, Place] = dataclasses.field(default_factory=dict)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    unread: list[Failure] = dataclasses.field(default_factory=list)
    notices: list[Notice] = dataclasses.field(default_factory=list)

    def fail(self, name: str, reason: str) -> None:
        """Notes a video without anything to read."""
        self.failures.append(Failure(ids.printable(ids.bare(name)), "list", ids.printable(reason)))

    def leave(self, name: str, reason: str) -> None:
        """Notes a tar that cannot be read, or not to its end."""
        self.unread.append(Failure(ids.printable(name), "list", ids.printable(reason)))


def where(text: str | os.PathLike[str]) -> Where:
    """A path, or a URL as it is."""
    return text if isinstance(text, str) and is_url(text) else pathlib.Path(text)


def find(video_dir: Where) -> Found:
    """The videos of a folder and its subfolders, of a list of paths, of a tar, or below a URL.

    Raises:
        GridClipError: it is missing, unreadable, or nothing of these.
    """
    if isinstance(video_dir, str):
        return _below_url(video_dir)
    if video_dir.is_dir() or not video_dir.exists() or video_dir.suffix.lower() in ids.VIDEO_SUFFIXES:
        return _in_folder(checked(video_dir, "`video_dir`"))
    if video_dir.suffix.lower() == tars.SUFFIX:
        found = Found()
        _add_tar(found, video_dir.name, video_dir.absolute())
        return found
    return _of_list(_lines(_read_list(video_dir), str(video_dir)), video_dir)


def checked(folder: pathlib.Path, option: str) -> pathlib.Path:
    """The folder's absolute path; raises GridClipError where it is none that can be read."""
    try:
        os.scandir(folder).close()
    except FileNotFoundError as error:
        raise GridClipError(f"{option} {folder} does not exist") from error
    except NotADirectoryError as error:
        raise GridClipError(f"{option} {folder} is a file, expected a folder") from error
    except OSError as error:
        raise GridClipError(f"{option} {folder} cannot be read: {error.strerror}") from error
    return folder.absolute()


def noting(root: pathlib.Path, failures: list[Failure]) -> Callable[[pathlib.Path, OSError], None]:
    """What `walk` is to tell of unreadable folders: each becomes a failure."""

    def note(folder: pathlib.Path, error: OSError) -> None:
        reason = f"cannot read the folder {ids.printable(str(folder))}: {error.strerror}"
        failures.append(Failure(ids.printable(str(folder.relative_to(root))), "list", reason))

    return note


def tars_in(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The tars of a folder and its subfolders by their paths below it; those that cannot be read are left out."""
    found = Found()
    names = [joined(below, name) for below, files in walk(folder, noting(folder, found.unread)) for name in files]
    return {name: folder / name for name in names if _suffix(name) == tars.SUFFIX}


def _in_folder(root: pathlib.Path) -> Found:
    found = Found()
    names = [joined(folder, name) for folder, files in walk(root, noting(root, found.unread)) for name in files]
    _add_files(found, {name: root / name for name in names}, str(root))
    return found


def _below_url(url: str) -> Found:
    suffix = _suffix(str(RemoteFile(url)))
    try:
        if suffix == tars.SUFFIX:
            found = Found()
            _add_tar(found, RemoteFile(url).name, RemoteFile(url))
            return found
        if suffix == LIST_SUFFIX:
            text = remote.read(RemoteFile(url)).decode("utf-8-sig", "surrogateescape")
            return _of_list(_lines(text, url), None)
    except ReadFailed as error:
        raise GridClipError(f"`video_dir` {url} cannot be read: {error.strerror}") from error
    found = Found()
    listed = remote.listed(url)
    shown = {name: file for name, file in listed.items() if not any(part.startswith(".") for part in name.split("/"))}
    _add_files(found, shown, url)
    return found


def _add_files(found: Found, files: Mapping[str, pathlib.Path | RemoteFile], root: str) -> None:
    """Adds the videos among files, or where there is none those in the tars among them.

    Tars beside videos are most likely the same videos packed, or something else.
    """
    videos = {name: file for name, file in files.items() if _suffix(name) in ids.VIDEO_SUFFIXES}
    packed = {name: file for name, file in files.items() if _suffix(name) == tars.SUFFIX}
    found.places.update(videos)
    if videos and packed:
        logger.warning(
            "%s holds videos, so its %d tars are left out: give a folder of tars for them", root, len(packed)
        )
    for name, file in {} if videos else packed.items():
        try:
            _add_tar(found, name, file)
        except GridClipError as error:
            found.leave(name, str(error))
    if not (found.places or found.failures or packed):
        endings = ", ".join(sorted(ids.VIDEO_SUFFIXES))
        raise GridClipError(
            f"no video in {root}: expected files that end in {endings}, or {tars.SUFFIX} with such inside"
        )


def _add_tar(found: Found, name: str, tar: pathlib.Path | RemoteFile) -> None:
    """Adds the videos in a tar; raises GridClipError where it is none."""
    contents = tars.read_tar(tar)
    folder = name[: -len(tars.SUFFIX)]
    for member, place in contents.files.items():
        if _suffix(member) in ids.VIDEO_SUFFIXES:
            found.places[f"{folder}/{member}"] = place
            if member in contents.repeated:
                detail = f"several files in {tar} have this name: the last one is used"
                found.notices.append(Notice(ids.bare(f"{folder}/{member}"), "duplicate", ids.printable(detail)))
    for member, problem in contents.problems.items():
        if _suffix(member) in ids.VIDEO_SUFFIXES:
            found.fail(f"{folder}/{member}", f"{tar}: {problem}")
    if contents.broken:
        found.leave(name, f"{tar}: {contents.broken}; the {len(contents.files):,} files before that are used")


def _of_list(lines: Iterable[tuple[int, str]], file: pathlib.Path | None) -> Found:
    """What the lines of a list name: paths, relative ones below the list's folder, tars, and URLs.

    Args:
        lines: with their numbers.
        file: the list; None: it is remote, and names URLs.
    """
    found = Found()
    folder = None if file is None else os.path.abspath(file.parent)
    schemes: set[str] = set()
    for number, line in lines:
        name: str
        place: pathlib.Path | RemoteFile
        if is_url(line):
            if (scheme := line.partition("://")[0]) not in schemes:
                remote.require(line)
                schemes.add(scheme)
            place = RemoteFile(line)
            name = str(place).partition("://")[2]
        elif folder is None:
            found.fail(line, f"line {number}: a path in a remote list, expected a URL")
            continue
        else:
            place = pathlib.Path(os.path.normpath(os.path.join(folder, line)))
            name = os.path.relpath(place, folder) if place.is_relative_to(folder) else str(place).lstrip(os.sep)
            if problem := _no_file(place):
                found.fail(name, f"{place}: {problem} (line {number} of {file})")
                continue
        if found.places.get(name, place) != place:
            found.fail(f"{name} (line {number})", f"another line has this name for {found.places[name]}")
        elif _suffix(name) == tars.SUFFIX:
            try:
                _add_tar(found, name, place)
            except GridClipError as error:
                found.leave(name, str(error))
        else:
            found.places[name] = place
    if not found.places:
        lost = [*found.failures, *found.unread]
        reason = f"; {lost[0].video_id}: {lost[0].reason}" if lost else ""
        raise GridClipError(f"no video in {file or 'the list'}: expected the path of one in every line{reason}")
    return found


def _read_list(path: pathlib.Path) -> str:
    try:
        refuse_special_file(path)
        return path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise GridClipError(f"`video_dir` {path} cannot be read: {error.strerror}") from error


def _lines(text: str, shown: str) -> list[tuple[int, str]]:
    """The lines of a list that are neither blank nor comments, with their numbers; raises GridClipError."""
    if "\0" in text:
        raise GridClipError(f"`video_dir` {shown} is not a text file: expected a folder, a tar, or a list of paths")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _no_file(path: pathlib.Path) -> str | None:
    """Why a path is no file to read, None where it is one."""
    try:
        refuse_special_file(path)
    except OSError as error:
        return error.strerror
    except ValueError as error:
        return str(error)
    return "it is a folder, expected a video" if path.is_dir() else None


def _suffix(name: str) -> str:
    return pathlib.PurePosixPath(name).suffix.lower()
