"""A place in, what FFmpeg and others read it by out: a path where it is a file of its own, else a file that seeks.

What goes wrong is a VideoError of stage "open", or "demux" once it was open.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pathlib
from collections.abc import Iterator

from . import remote
from .contract import VideoError
from .errors import GridClipError
from .ordinary_file import refuse_special_file
from .places import Place, RemoteFile, TarMember
from .read_ahead import FIRST_BYTES, Fetch, ReadAhead, ReadFailed

# See ReadAhead: of a file on a disk. A request to a store takes much longer.
LOCAL_JUMP_BYTES = 32 << 10


@contextlib.contextmanager
def opened(place: Place) -> Iterator[str | ReadAhead]:
    """A path, or a file object that fetches ranges; it is closed afterwards.

    Raises:
        VideoError: there is no such file, it is empty, or it cannot be read; also afterwards, where reading failed and
            whoever read it took that for the file's end or for damage.
    """
    if isinstance(place, pathlib.Path):
        _check(place)
        yield str(place)
        return
    try:
        file, close = _file(place)
    except (ReadFailed, GridClipError) as error:
        raise VideoError("open", _why(place, error)) from error
    with contextlib.closing(file), close:
        try:
            yield file
        except (VideoError, ReadFailed) as error:
            if file.failure is None:
                raise
            opening = isinstance(error, VideoError) and error.stage == "open"
            raise VideoError("open" if opening else "demux", _why(place, file.failure)) from error
        if file.failure is not None:
            raise VideoError("demux", _why(place, file.failure))


@contextlib.contextmanager
def seekable(place: Place) -> Iterator[ReadAhead]:
    """Any file as a file object that fetches ranges; raises ReadFailed, or GridClipError where a package is missing."""
    file, close = _file(place)
    with contextlib.closing(file), close:
        yield file


def _file(place: Place) -> tuple[ReadAhead, contextlib.AbstractContextManager[object]]:
    """(the file object, what is to be closed after it)."""
    inside = isinstance(place, TarMember)
    whole, offset = (place.tar, place.offset) if isinstance(place, TarMember) else (place, 0)
    if isinstance(whole, RemoteFile):
        size = place.size if isinstance(place, TarMember) else remote.size_of(whole)
        return _of(functools.partial(_fetch, whole, offset), size, FIRST_BYTES), contextlib.nullcontext()
    try:
        descriptor = os.open(whole, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ReadFailed(error.errno, f"{'the tar' if inside else 'it'} cannot be opened: {error.strerror}") from error
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        size = place.size if isinstance(place, TarMember) else os.fstat(descriptor).st_size
        file = _of(functools.partial(_read, descriptor, offset), size, LOCAL_JUMP_BYTES)
        return file, stack.pop_all()


def _of(fetch: Fetch, size: int, jump_bytes: int) -> ReadAhead:
    if size == 0:
        raise ReadFailed(errno.ENODATA, "empty file")
    return ReadAhead(fetch, size, jump_bytes)


def _fetch(file: RemoteFile, offset: int, start: int, stop: int) -> bytes:
    """Bytes of a remote file, counted from `offset`."""
    return remote.fetch(file, offset + start, offset + stop)


def _read(descriptor: int, offset: int, start: int, stop: int) -> bytes:
    """Bytes of an open file, counted from `offset`."""
    try:
        os.lseek(descriptor, offset + start, os.SEEK_SET)
        data = os.read(descriptor, stop - start)
    except OSError as error:
        raise ReadFailed(error.errno, f"it cannot be read: {error.strerror}") from error
    if not data:
        raise ReadFailed(errno.EIO, f"cut off: the file ends {stop - start:,} bytes too early")
    return data


def _check(path: pathlib.Path) -> None:
    """Raises VideoError where a path is no file that has something to read."""
    try:
        if not path.exists():
            raise VideoError("open", "no such file")
        refuse_special_file(path)
        if path.is_dir():
            raise VideoError("open", "is a directory")
        if path.stat().st_size == 0:
            raise VideoError("open", "empty file")
    except PermissionError as error:
        raise VideoError("open", "permission denied") from error
    except (OSError, ValueError) as error:
        raise VideoError("open", str(error)) from error


def _why(place: Place, error: Exception) -> str:
    """The reason with the place."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{place}: {text}"
