"""Names from outside (files, annotations, feature files) in; video ids that a store and a folder can hold out.

An id is what a video is called everywhere: in a store, in annotations, and as `<folder>/<id>` on disk. It may have
slashes. Every id and caption that comes from outside passes `id_problem` or `text_problem`, and every id that becomes
a path passes `path_below`.
"""

from __future__ import annotations

import collections
import pathlib
import posixpath
from collections.abc import Iterable, Mapping, Sequence

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".flv",
        ".wmv",
        ".3gp",
        ".ogv",
    }
)
LONGEST_PART_BYTES = 255  # of a file's name, on every usual file system


class UnusableId(ValueError):
    """An id that cannot name a file below a folder; the message says why."""


def text_problem(text: str) -> str | None:
    """Why a text cannot be stored as UTF-8, None where it can: a lone surrogate, from JSON or from a file's name."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"it is not Unicode text (character {error.start + 1} of {printable(text)})"
    return None


def id_problem(video_id: str) -> str | None:
    """Why a text cannot be a video's id anywhere, None where it can."""
    if not video_id.strip():
        return "the video's id is empty"
    if "\0" in video_id:
        return f"the video's id holds a NUL character ({video_id!r})"
    problem = text_problem(video_id)
    return problem and f"the video's id cannot be used: {problem}; rename the video"


def printable(text: str) -> str:
    r"""The text as it can be printed and written: `caf\xe9` for a file's name in Latin-1, `\ud800` in other cases."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def bare(name: str) -> str:
    """A name without the suffix of a video; other suffixes stay, they are part of a name like `v_2.5`."""
    if name.startswith((".", "/")) or name.endswith("/") or "//" in name or "/." in name:
        path = pathlib.PurePosixPath(name)
        return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else name
    stem, suffix = posixpath.splitext(name)  # the same for ordinary names, and a million of them take a second
    return stem if suffix.lower() in VIDEO_SUFFIXES else name


def of_files(names: Iterable[str]) -> dict[str, str]:
    """The id of each video file: its path without the suffix; with it where two would have the same id.

    Args:
        names: paths below one folder, with slashes.

    Returns:
        Ids by name; no two are alike.
    """
    named = {name: bare(name) for name in names}
    while True:  # a whole name may be another's bare one: a.mp4 beside a.mkv and a.mp4.mkv
        counts = collections.Counter(named.values())
        clashing = [name for name, video_id in named.items() if counts[video_id] > 1 and video_id != name]
        if not clashing:
            return named
        named |= {name: name for name in clashing}


def answering(annotated: Iterable[str], video_ids: Sequence[str]) -> Mapping[str, list[str]]:
    """The videos that each name of an annotation file may mean; several are a choice that the caller has to make.

    A name means the video of that id; else those of that id but for the suffix; else those whose id ends so, from a
    slash on: `clip` means `2024/clip` where there is no `clip`.

    Args:
        annotated: names of an annotation file.
        video_ids: ids of the videos that there are, from `of_files`.

    Returns:
        Sorted ids by name, none where nothing fits.
    """
    known = set(video_ids)
    by_bare: dict[str, list[str]] = {}
    by_ending: dict[str, list[str]] = {}
    for video_id in sorted(known):
        parts = bare(video_id).split("/")
        by_bare.setdefault("/".join(parts), []).append(video_id)
        for first in range(1, len(parts)):
            by_ending.setdefault("/".join(parts[first:]), []).append(video_id)
    found = {}
    for name in annotated:
        wanted = bare(name)
        found[name] = [name] if name in known else by_bare.get(wanted) or by_ending.get(wanted, [])
    return found


def path_below(folder: pathlib.Path, video_id: str, suffix: str = "") -> pathlib.Path:
    """`<folder>/<id><suffix>`, which is never outside the folder, nor hidden, on any system.

    Raises:
        UnusableId: the id is no such path: empty, absolute, with `..`, NUL, hidden or over-long parts.
    """
    problem = id_problem(video_id) or _path_problem(video_id, len(suffix))
    if problem is not None:
        raise UnusableId(f"the video id {printable(video_id)!r} cannot be a path in {folder}: {problem}")
    return folder / f"{video_id}{suffix}"


def _path_problem(video_id: str, suffix_bytes: int) -> str | None:
    parts = video_id.split("/")
    windows = pathlib.PureWindowsPath(video_id)  # a folder that is written here may be unpacked there
    if windows.root or not all(parts):
        return "it is absolute, or a part of it is empty"
    if ".." in windows.parts or any(part.startswith(".") for part in parts):
        return "a part of it begins with a dot: such files are hidden, and `..` leads out of the folder"
    longest = LONGEST_PART_BYTES - suffix_bytes
    if any(len(part.encode()) > longest for part in parts):
        return f"a part of it is longer than {longest} bytes"
    return None
