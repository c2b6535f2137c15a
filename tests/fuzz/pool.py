"""A kind of file and a time in, the verdict of every case out: cases run in processes that may die, hang or grow."""

from __future__ import annotations

import collections
import dataclasses
import faulthandler
import importlib
import json
import logging
import multiprocessing
import os
import pathlib
import random
import resource
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import cast

from gridclip import GridClipError

from .contract import DEFECTS, KNOWN_DEATHS, Kind, Outcome, Verdict

CASE_FILE = "case.json"
POLL_S = 0.2
START_LIMIT_S = 120.0  # imports, on a machine with other work
# A heap that one input damages may give way many inputs later, so those before a death are kept with it.
EARLIER_CASES = 8


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one case may take: seconds, and the bytes of its process."""

    case_s: float = 30.0
    memory_bytes: int = 2 << 30


@dataclasses.dataclass(frozen=True)
class Job:
    """One kind of file in one run.

    Attributes:
        kind: "module:class" of a Kind without arguments.
        seeds: the folder that the kind has written its seeds into.
        work: where cases are made; what is left there is removed.
        finds: gets a folder for every case that is a defect.
        seed: of the choices; the same number makes the same cases.
    """

    kind: str
    seeds: pathlib.Path
    work: pathlib.Path
    finds: pathlib.Path
    seed: int
    limits: Limits = Limits()


@dataclasses.dataclass(frozen=True)
class Case:
    """A case that has ended. `kept` is where its input lies, if it is a defect."""

    number: int
    what: str
    verdict: Verdict
    kept: pathlib.Path | None = None


def make_kind(name: str) -> Kind:
    """The kind that "module:class" names."""
    module, _, attribute = name.partition(":")
    return cast(Kind, getattr(importlib.import_module(module), attribute)())


def run(job: Job, *, processes: int, goes_on: Callable[[int], bool]) -> Iterator[Case]:
    """Yields cases as they end.

    Args:
        processes: how many cases run at once, >= 1.
        goes_on: asked with the number of the next case; False ends the run when those in work have ended.
    """
    crew: list[_Process] = []
    number = 0
    try:
        while True:
            for process in crew:
                if process.idle and goes_on(number):
                    process.give(number)
                    number += 1
            while len(crew) < processes and goes_on(number):
                crew.append(_Process(job))
                crew[-1].give(number)
                number += 1
            busy = [process for process in crew if not process.idle]
            if not busy:
                return
            wait([process.connection for process in busy], POLL_S)
            for process in busy:
                case = process.ended()
                if case is not None:
                    yield case
    finally:
        for process in crew:
            process.close()


class _Process:
    """The parent's side of a process, and the case it has in work."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._earlier: collections.deque[int] = collections.deque()
        self.number: int | None = None
        self._start()

    @property
    def idle(self) -> bool:
        return self.number is None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._job), daemon=True)
        self._process.start()
        theirs.close()
        self._log = log_file(self._job, cast(int, self._process.pid))
        self._deadline = time.monotonic() + START_LIMIT_S
        self._ready = False

    def give(self, number: int) -> None:
        """Starts a case."""
        self.number = number
        if self._ready:
            self._deadline = time.monotonic() + self._job.limits.case_s
        try:
            self.connection.send(number)
        except OSError:  # it died between two cases; ended() will tell
            pass

    def ended(self) -> Case | None:
        """The case in work, if it has ended in one way or another."""
        assert self.number is not None
        try:
            while self.connection.poll():
                message = self.connection.recv()
                if isinstance(message, Verdict):
                    return self._finished(message)
                self._ready = True  # has imported everything, and begins
                self._deadline = time.monotonic() + self._job.limits.case_s
        except (EOFError, OSError):
            self._process.join(5)
            log = self._log_start()
            outcome = Outcome.KNOWN if KNOWN_DEATHS.search(log) else Outcome.DEATH
            return self._killed(Verdict(outcome, f"ended with {self._process.exitcode}: {log}"))
        used = _memory_bytes(cast(int, self._process.pid))
        if used > self._job.limits.memory_bytes:
            return self._killed(Verdict(Outcome.GROWTH, f"took {used >> 20} MiB"))
        if time.monotonic() > self._deadline:
            limit = self._job.limits.case_s if self._ready else START_LIMIT_S
            return self._killed(Verdict(Outcome.HANG, f"no end after {limit:g} s"))
        return None

    def _finished(self, verdict: Verdict) -> Case:
        case = self._close_case(verdict)
        self._earlier.append(case.number)
        while len(self._earlier) > EARLIER_CASES:
            shutil.rmtree(case_folder(self._job, self._earlier.popleft()), ignore_errors=True)
        return case

    def _killed(self, verdict: Verdict) -> Case:
        self.close()
        case = self._close_case(verdict)
        if case.kept is not None:
            for number in self._earlier:
                shutil.copytree(case_folder(self._job, number), case.kept / "earlier" / str(number), symlinks=True)
        self._earlier.clear()
        self._start()
        return case

    def _close_case(self, verdict: Verdict) -> Case:
        assert self.number is not None
        number, self.number = self.number, None
        folder = case_folder(self._job, number)
        record = json.loads((folder / CASE_FILE).read_text()) if (folder / CASE_FILE).exists() else {}
        case = Case(number, record.get("what", "no input was made"), verdict)
        if verdict.outcome not in DEFECTS:
            return case
        label = self._job.kind.rpartition(":")[2].lower()
        kept = self._job.finds / f"{label}-{self._job.seed}-{number:06}-{verdict.outcome}"
        shutil.rmtree(kept, ignore_errors=True)
        if folder.exists():
            shutil.copytree(folder, kept, symlinks=True)
        kept.mkdir(parents=True, exist_ok=True)
        record |= {"kind": self._job.kind, "number": number, "seed": self._job.seed}
        record |= {"outcome": str(verdict.outcome), "detail": verdict.detail}
        (kept / CASE_FILE).write_text(json.dumps(record, indent=1) + "\n")
        return dataclasses.replace(case, kept=kept)

    def _log_start(self) -> str:
        try:
            return self._log.read_bytes()[:1500].decode(errors="replace").strip()
        except OSError:
            return "it wrote nothing"

    def close(self) -> None:
        """Ends the process at once."""
        self._process.kill()
        self._process.join(5)
        self.connection.close()


def case_folder(job: Job, number: int) -> pathlib.Path:
    """Where the input of a case is made."""
    return job.work / f"case-{number:06}"


def log_file(job: Job, process_id: int) -> pathlib.Path:
    """What a process prints, libraries included."""
    return job.work / f"process-{process_id}.log"


def serve(connection: Connection, job: Job) -> None:
    """The life of a process: makes and judges the cases whose numbers come."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with log_file(job, os.getpid()).open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    kind = make_kind(job.kind)
    connection.send("ready")
    while True:
        try:
            number = connection.recv()
        except EOFError:
            return
        os.truncate(log_file(job, os.getpid()), 0)
        folder = case_folder(job, number)
        folder.mkdir(parents=True)
        what = kind.make(job.seeds, folder, number, random.Random(f"{job.seed}/{job.kind}/{number}"))
        record = {"what": what}
        if (folder / CASE_FILE).exists():
            record |= json.loads((folder / CASE_FILE).read_text())
        (folder / CASE_FILE).write_text(json.dumps(record))
        connection.send(judged(kind, folder, job.work / f"judged-{os.getpid()}"))


def judged(kind: Kind, folder: pathlib.Path, scratch: pathlib.Path) -> Verdict:
    """The verdict on an input, whatever is raised.

    It is given a copy of the input in the folder `scratch`, so that what is kept is the input and not what came of it.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(folder, scratch, symlinks=True, ignore=shutil.ignore_patterns("earlier"))
    try:
        return kind.judge(scratch)
    except GridClipError as error:
        sentence = str(error)
        if not sentence.strip():
            return Verdict(Outcome.TRACEBACK, f"{type(error).__name__} without a sentence")
        return Verdict(Outcome.REFUSED, sentence[:300])
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - what a defect raises is not known; a panic of Rust is no Exception
        return Verdict(Outcome.TRACEBACK, traceback.format_exc()[-3000:])


def _memory_bytes(process_id: int) -> int:
    try:
        return int(pathlib.Path(f"/proc/{process_id}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):  # it has just ended, or this is no Linux
        return 0
