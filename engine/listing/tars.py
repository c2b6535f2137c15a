"""A tar in, what lies where in it out: it is read in place, and nothing is unpacked.

What img2dataset and video2dataset write (WebDataset): `key.mp4`, `key.json`, `key.txt` side by side in `00000.tar`.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
import tarfile

from ... import GridClipError
from ...dali_pipes import ids
from ...dali_pipes.opening import seekable
from ...dali_pipes.places import RemoteFile, TarMember
from ...dali_pipes.read_ahead import ReadAhead, ReadFailed

SUFFIX = ".tar"
# Headers that follow a name longer than 100 bytes are a few hundred bytes long; one that says more than this is damage.
MOST_HEADER_BYTES = 1 << 20


@dataclasses.dataclass
class Contents:
    """What a tar holds, by name, in its order; hidden files and folders are left out.

    Attributes:
        files: that can be read in place. Of several of one name it is the last one, as unpacking would leave it.
        problems: why another cannot.
        repeated: names of which there are several.
        broken: why there may be more than was found: the tar is cut off, or damaged; None: it is whole.
    """

    files: dict[str, TarMember] = dataclasses.field(default_factory=dict)
    problems: dict[str, str] = dataclasses.field(default_factory=dict)
    repeated: set[str] = dataclasses.field(default_factory=set)
    broken: str | None = None


def read_tar(tar: pathlib.Path | RemoteFile) -> Contents:
    """Reads the headers of an uncompressed tar.

    Raises:
        GridClipError: it cannot be read, or is none.
    """
    contents = Contents()
    try:
        with seekable(tar) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            headers = _Headers(file)
            with tarfile.open(fileobj=headers, mode="r:") as archive:
                try:
                    while (member := archive.next()) is not None:
                        archive.members.clear()  # type: ignore[attr-defined]  # not in the stubs; it would keep them all
                        _take(contents, member, tar, size)
                    file.seek(archive.offset)
                    if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                        contents.broken = f"no end mark follows its {archive.offset:,} bytes: it is cut off or damaged"
                except (tarfile.TarError, OverflowError, ValueError) as error:
                    contents.broken = f"it is cut off or damaged ({error})"
    except tarfile.TarError as error:
        raise GridClipError(
            f"{tar} is no tar that can be read in place ({error}): expected an uncompressed one"
        ) from error
    except ReadFailed as error:
        raise GridClipError(f"{tar} cannot be read: {error.strerror}") from error
    return contents


def _take(contents: Contents, member: tarfile.TarInfo, tar: pathlib.Path | RemoteFile, tar_bytes: int) -> None:
    """Notes one member."""
    if member.isdir():
        return
    name = _normal(member.name)
    if any(part.startswith(".") and part != ".." for part in name.split("/")):
        return
    if name in contents.files or name in contents.problems:
        contents.repeated.add(name)
        contents.files.pop(name, None)
        contents.problems.pop(name, None)
    problem, offset, size = None, member.offset_data, member.size
    if member.islnk():
        target = contents.files.get(_normal(member.linkname))
        if target is None:
            problem = f"a link to {ids.printable(member.linkname)}, which is not before it in the tar"
        else:
            offset, size = target.offset, target.size
    elif not member.isreg():
        problem = "a link or a special file in the tar, expected an ordinary one"
    elif member.issparse():
        problem = "a file with holes (sparse): its bytes do not lie side by side in the tar"
    if problem is None and (name.startswith("/") or ".." in name.split("/")):
        problem = "its name in the tar leads out of a folder"
    if problem is None and offset + size > tar_bytes:
        problem = f"cut off: the tar ends {offset + size - tar_bytes:,} bytes too early"
    if problem is None:
        contents.files[name] = TarMember(tar, name, offset, size)
    else:
        contents.problems[name] = problem


def _normal(name: str) -> str:
    """A member's name without `./` and doubled slashes."""
    return str(pathlib.PurePosixPath(name))


class _Headers(io.RawIOBase):
    """The file that `tarfile` sees: a damaged header makes it neither read everything nor go round in a circle."""

    def __init__(self, file: ReadAhead) -> None:
        super().__init__()
        self._file = file
        self._farthest = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_SET and offset < self._farthest - tarfile.BLOCKSIZE:
            raise tarfile.ReadError("a header leads back")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        data = self._file.read(size)
        self._farthest = max(self._farthest, self._file.tell())
        return data
