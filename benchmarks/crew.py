"""A call in, done when every core has made it: one process a core, all of them starting at the same time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType


class Crew:
    """Processes that stay up and make the calls they are told, so that neither start-up nor imports are timed.

    Args:
        processes: how many.
    """

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            end, other_end = context.Pipe()
            process = context.Process(target=_work, args=(other_end,), daemon=True)
            process.start()
            other_end.close()
            self._ends.append(end)
            self._processes.append(process)

    def __len__(self) -> int:
        return len(self._ends)

    def do(self, call: Callable[[], object]) -> None:
        """Returns when every process has made the call, whose function must be at the top of a module.

        Raises:
            RuntimeError: it failed in some process.
        """
        for end in self._ends:
            end.send(call)
        failures = [failure for failure in [end.recv() for end in self._ends] if failure]
        if failures:
            raise RuntimeError(failures[0])

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join(timeout=10)
            process.terminate()


def _work(end: Connection) -> None:
    """Makes the calls that arrive until the other end is closed; their results stay here."""
    while True:
        try:
            call = end.recv()
        except EOFError:
            return
        try:
            call()
            end.send("")
        except Exception as error:  # noqa: BLE001 - the other end decides what it means
            end.send(f"{type(error).__name__}: {error}")
