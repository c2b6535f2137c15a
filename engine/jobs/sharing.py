"""A folder that several jobs write to in, for each job a place of its own and the videos that no other has out.

`<save_dir>/.jobs` has for each job a file NAME.lock, locked while the job lives, and a folder NAME, in which unfinished
work lies. The jobs may be on different machines that share a disk (NFS locks files for all of them). What is found
without a living owner is removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import logging
import os
import pathlib
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from types import TracebackType
from typing import final

from ... import GridClipError
from ...dali_pipes.image_folders import jpeg
from ...dali_pipes.sampling import Sampling

logger = logging.getLogger(__name__)

JOBS = ".jobs"
LOCK_SUFFIX = ".lock"
BEAT_S = 60.0
# Some network drives give a lock to two machines at once: there a job of another machine counts as dead only when it
# has shown no sign of life for so long.
SILENT_S = 3600.0


@final
class SharedFolder:
    """One job's part in a save folder.

    Args:
        save_dir: an existing directory.
        sampling: what the job makes; all jobs in a folder must make the same.

    Attributes:
        part_dir: this job's own place for unfinished work, on the same disk; it goes when the job ends.

    Raises:
        GridClipError: the folder cannot be written, or another job is making something else there.
    """

    def __init__(self, save_dir: pathlib.Path, sampling: Sampling) -> None:
        self._jobs = save_dir / JOBS
        self._host = "".join(letter if letter.isalnum() else "_" for letter in socket.gethostname())
        self._name = f"{self._host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._beaten_at = time.monotonic()
        self.part_dir = self._jobs / self._name
        try:
            self._lock = self._locked({"job": self._name, "sampling": dataclasses.asdict(sampling)})
            self.part_dir.mkdir()
            self._remove_dead()
        except OSError as error:
            raise GridClipError(f"cannot write to {save_dir}: {error.strerror}") from error

    def __enter__(self) -> SharedFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.part_dir, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._path(self._name).unlink()
        os.close(self._lock)
        with contextlib.suppress(OSError):  # others are there
            self._jobs.rmdir()

    def check_alone(self) -> None:
        """Raises GridClipError where other jobs are writing to the folder."""
        for name in self._others():
            raise GridClipError(
                f"job {name} is writing to {self._jobs.parent}: share its work with `resume=True`, or wait until it "
                "has ended"
            )

    def check_same(self, sampling: Sampling) -> None:
        """Says which other jobs are writing to the folder; raises GridClipError where one makes something else."""
        for name in self._others():
            logger.warning("job %s is writing to %s, too: they share the work", name, self._jobs.parent)
            try:
                theirs = json.loads(self._path(name).read_text(encoding="utf-8"))["sampling"]
            except (OSError, ValueError, KeyError, TypeError):  # it has ended meanwhile, or is just starting
                continue
            for field, value in dataclasses.asdict(sampling).items():
                if theirs.get(field, value) != value:
                    raise GridClipError(
                        f"job {name} is writing to {self._jobs.parent} with {field} = {theirs[field]}, this run has "
                        f"{value}: use the same settings, another `save_dir`, or wait until it has ended"
                    )

    def claim(self, video_id: str) -> bool:
        """Takes a video for this job, unless another living job has it."""
        part = jpeg.part_folder(self.part_dir, video_id)
        with contextlib.suppress(OSError):  # whoever writes there will say it better
            part.mkdir(parents=True, exist_ok=True)
        # Both jobs show what they want before they look, so that at least one of two sees the other.
        if not self.held(video_id):
            return True
        self.release(video_id)
        return False

    def held(self, video_id: str) -> bool:
        """Whether another living job has the video in work."""
        return any(
            jpeg.part_folder(self._jobs / name, video_id).exists() and self._lives(name) for name in self._names()
        )

    def release(self, video_id: str) -> None:
        """Removes what there is of a video in this job's place: a killed process leaves its part."""
        shutil.rmtree(jpeg.part_folder(self.part_dir, video_id), ignore_errors=True)

    def beat(self) -> None:
        """Shows that this job lives; cheap enough to call with every result."""
        if time.monotonic() - self._beaten_at > BEAT_S:
            self._beaten_at = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self._lock)

    def _locked(self, record: dict[str, object]) -> int:
        """Makes this job's lock file and locks it; returns its descriptor."""
        while True:
            self._jobs.mkdir(exist_ok=True)
            try:
                lock = os.open(self._path(self._name), os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # a job that ended has just removed the folder
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                logger.warning(
                    "%s cannot lock files (%s): do not run two jobs on it at once", self._jobs.parent, error.strerror
                )
            try:
                if os.path.samestat(os.stat(self._path(self._name)), os.fstat(lock)):
                    os.write(lock, json.dumps(record).encode())
                    return lock
            except FileNotFoundError:
                pass  # another job saw it before it was locked, and took it for a dead one's
            os.close(lock)

    def _others(self) -> list[str]:
        return [name for name in self._names() if self._lives(name)]

    def _names(self) -> list[str]:
        return sorted(
            entry.removesuffix(LOCK_SUFFIX)
            for entry in os.listdir(self._jobs)
            if entry.endswith(LOCK_SUFFIX) and entry != self._path(self._name).name
        )

    def _path(self, name: str) -> pathlib.Path:
        return self._jobs / f"{name}{LOCK_SUFFIX}"

    def _lives(self, name: str) -> bool:
        """Whether a job's file is locked; where files cannot be locked, nobody waits for anybody."""
        with _taken(self._path(name)) as taken:
            return taken is False

    def _remove_dead(self) -> None:
        """Removes what jobs that were killed have left."""
        os.utime(self._lock)
        now_s = os.fstat(self._lock).st_mtime  # by the clock of the disk, as all beats are
        for name in self._names():
            with _taken(self._path(name)) as taken, contextlib.suppress(FileNotFoundError):
                here = name.startswith(f"{self._host}-")
                if taken and (here or now_s - self._path(name).stat().st_mtime > SILENT_S):
                    logger.info("removing what job %s has left unfinished", name)
                    shutil.rmtree(self._jobs / name, ignore_errors=True)
                    self._path(name).unlink()
        # In this order: a job's file is there before its folder, and goes after it.
        folders = [path for path in self._jobs.iterdir() if path.is_dir()]
        living = {self._name, *self._names()}
        for folder in folders:
            if folder.name not in living:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _taken(path: pathlib.Path) -> Iterator[bool | None]:
    """Locks a dead job's file. Yields whether it could; False: its job lives; None: there is no telling."""
    try:
        lock = os.open(path, os.O_RDWR)
    except FileNotFoundError:  # it has just ended
        yield None
        return
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
        else:
            yield True
    finally:
        os.close(lock)
