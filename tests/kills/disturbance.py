"""A command line in, how it ended after its processes were killed out."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import pathlib
import random
import signal
import subprocess
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
LIMIT_S = 120.0
POLL_S = 0.005
ORPHANS_END_S = 15.0


class Kill(enum.StrEnum):
    """Who is killed, and how."""

    PARENT = "SIGKILL, parent"
    WORKER = "SIGKILL, a worker"
    BOTH = "SIGKILL, a worker and the parent"
    INTERRUPT = "SIGINT"
    INTERRUPT_TWICE = "SIGINT twice"
    TERMINATE = "SIGTERM"


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        status: its exit status, None where it did not end in LIMIT_S.
        in_time: the kill came before the end.
        stderr: what it wrote.
        orphans: processes of its that still ran ORPHANS_END_S after its end.
        begun_s, seconds: from the start to the beginning of the work, and to the end.
    """

    status: int | None
    in_time: bool
    stderr: str
    orphans: int
    begun_s: float
    seconds: float


def undisturbed(command: list[str], begun: pathlib.Path) -> Ending:
    """Runs a command to its end."""
    return _run(command, begun, None, 0.0, random.Random(0))


def disturbed(command: list[str], begun: pathlib.Path, kill: Kill, work_s: float, rng: random.Random) -> Ending:
    """Runs a command and kills it at a random moment.

    Args:
        begun: the moments are counted from when this file has been written anew.
        work_s: how long the work takes undisturbed; the kill comes within it.
    """
    after_s = rng.uniform(0, work_s)
    return _run(command, begun, kill, after_s, rng)


def _run(command: list[str], begun: pathlib.Path, kill: Kill | None, after_s: float, rng: random.Random) -> Ending:
    written_before = _modified(begun)
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    )
    children: set[int] = set()
    try:
        while process.poll() is None and _modified(begun) == written_before and time.monotonic() < started + LIMIT_S:
            time.sleep(POLL_S)
        begun_s = time.monotonic() - started
        in_time = False
        if kill is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after_s)
            children = descendants(process.pid)
            in_time = process.poll() is None
            if in_time:
                _kill(process, kill, children, rng)
        try:
            _, stderr = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            children |= descendants(process.pid)
            return Ending(None, in_time, "", 0, begun_s, time.monotonic() - started)
        seconds = time.monotonic() - started
        return Ending(process.returncode, in_time, stderr, _orphans(children), begun_s, seconds)
    finally:
        process.kill()
        for child in children:
            _signal(child, signal.SIGKILL)


def _kill(process: subprocess.Popen[str], kill: Kill, children: set[int], rng: random.Random) -> None:
    match kill:
        case Kill.PARENT:
            process.kill()
        case Kill.WORKER | Kill.BOTH:
            if children:
                _signal(rng.choice(sorted(children)), signal.SIGKILL)
            if kill is Kill.BOTH:
                time.sleep(rng.uniform(0, 0.05))
                process.kill()
        case Kill.INTERRUPT:
            process.send_signal(signal.SIGINT)
        case Kill.INTERRUPT_TWICE:
            process.send_signal(signal.SIGINT)
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGINT)
        case Kill.TERMINATE:
            process.terminate()


def descendants(process_id: int) -> set[int]:
    """The processes that a process has started, and theirs, as /proc tells."""
    children: dict[int, list[int]] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    ahead = [process_id]
    while ahead:
        for child in children.get(ahead.pop(), []):
            if child not in found:
                found.add(child)
                ahead.append(child)
    return found


def _orphans(children: set[int]) -> int:
    deadline = time.monotonic() + ORPHANS_END_S
    while (alive := sum(map(_runs, children))) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return alive


def _runs(process_id: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def _signal(process_id: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, number)


def _modified(path: pathlib.Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
