"""A function of this package in, a fresh Python process that runs it out, with a connection and a log."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection

logger = logging.getLogger(__name__)

KILL_LIMIT_S = 5.0
LOG_TAIL_BYTES = 2000
# The parent's sys.path goes along, so that whatever it could import its children can.
START_CODE = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[4]); "
    "getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(int(sys.argv[3]))"
)


class Child:
    """A process that runs `entry(connection_fd)`, in a session of its own: a Ctrl-C in the terminal is the parent's.

    Args:
        entry: a function of a module.
        env: variables that the process has unless they are set already.

    Attributes:
        connection: to the process; closed when it ends.
    """

    def __init__(self, entry: Callable[[int], None], env: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115 - its stdout and stderr, for the case of a crash
        with theirs:
            arguments = [entry.__module__, entry.__name__, str(theirs.fileno()), json.dumps(sys.path)]
            self._process = subprocess.Popen(
                [sys.executable, "-c", START_CODE, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**env, **os.environ},
            )
        self.connection = Connection(ours.detach())

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def send(self, message: object) -> None:
        """Sends it a message; to a process that has just died, nothing: its connection's end will tell."""
        try:
            self.connection.send(message)
        except OSError:
            pass

    def clear_log(self) -> None:
        """Forgets what it has written."""
        os.ftruncate(self._log.fileno(), 0)

    def log_tail(self) -> str:
        """The end of what it has written."""
        self._log.seek(max(0, os.fstat(self._log.fileno()).st_size - LOG_TAIL_BYTES))
        return self._log.read().decode(errors="replace").strip()

    def cause_of_death(self, name: str) -> str:
        """Why its connection has ended; `name` is what the process is called in the sentence."""
        try:
            status = self._process.wait(timeout=KILL_LIMIT_S)
        except subprocess.TimeoutExpired:
            return f"{name} closed its connection"
        if status == -signal.SIGKILL:
            return f"{name} was killed (out of memory?)"
        if status < 0:
            return f"{name} crashed ({signal.Signals(-status).name})"
        return f"{name} ended with status {status}"

    def kill(self) -> None:
        """Ends it at once, whatever it does."""
        self._process.kill()
        self.connection.close()
        try:
            self._process.wait(timeout=KILL_LIMIT_S)
        except subprocess.TimeoutExpired:  # stuck in the kernel, on a dead network drive: it ends when that lets go
            logger.warning("process %d does not end; going on without it", self._process.pid)
