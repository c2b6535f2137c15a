"""Compressed chunks in, super images or errors out: DALI pipelines in threads that outlive what they cannot decode."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from ... import GridClipError
from ..contract import Compressed, SuperImages
from .batch_queue import Limits, Waiting

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

END_LIMIT_S = 10.0
# A batch of 512 JPEG files fails ten times until one guilty file stands alone; more in a row means DALI, not the files.
GIVE_UP_AFTER = 16
C = TypeVar("C", bound=Compressed)
C_contra = TypeVar("C_contra", bound=Compressed, contravariant=True)


class PipelineError(GridClipError):
    """DALI failed with a batch; the pipeline that failed must not be used again."""


class Pipeline(Protocol[C_contra]):
    """What VideoPipeline and JpegPipeline have in common."""

    def decode(self, batch: Sequence[C_contra]) -> Sequence[np.ndarray | torch.Tensor]:
        """The super images of each chunk, in one size after the other where it was asked for several.

        Raises:
            PipelineError: the pipeline must then be built anew.
        """


class Trust:
    """What the pipelines of a job share: DALI is given up for good when they fail too often without a success between.

    Args:
        failures: in a row, of all pipelines together, that are one too many, >= 1.
    """

    def __init__(self, failures: int) -> None:
        self._limit = failures
        self._in_a_row = 0
        self._lock = threading.Lock()
        self.lost = False

    def succeeded(self) -> None:
        """A batch was decoded."""
        with self._lock:
            self._in_a_row = 0

    def failed(self, error: GridClipError) -> None:
        """A batch was not."""
        with self._lock:
            self._in_a_row += 1
            too_many = self._in_a_row >= self._limit
        if too_many:
            self.lose(error)

    def lose(self, error: GridClipError) -> None:
        """DALI is given up."""
        with self._lock:
            first, self.lost = not self.lost, True
        if first:
            logger.warning(
                "DALI is given up after %d failures without a success, the rest is decoded on the CPU: %s",
                self._in_a_row,
                error,
            )


class RebuiltPipeline(Generic[C]):
    """A pipeline that is built anew after an error, with the failed batch halved until the guilty chunks stand alone.

    Args:
        build: makes a pipeline.
        trust: told of failures; once it is lost, nothing is decoded any more.
    """

    def __init__(self, build: Callable[[], Pipeline[C]], trust: Trust) -> None:
        self._build = build
        self._trust = trust
        self._pipeline: Pipeline[C] | None = build()

    def decode(self, batch: Sequence[C]) -> list[tuple[C, SuperImages | PipelineError]]:
        """Every chunk of the batch, decoded or with its error."""
        if self._pipeline is None or self._trust.lost:
            self._pipeline = None
            return [(chunk, PipelineError("DALI: given up")) for chunk in batch]
        try:
            images = self._pipeline.decode(batch)
            sizes = max(1, len(images) // len(batch))
            made = (images[first : first + sizes] for first in range(0, len(images), sizes))
            outcomes: list[tuple[C, SuperImages | PipelineError]] = [
                (chunk, chunk.with_images(*in_sizes)) for chunk, in_sizes in zip(batch, made, strict=True)
            ]
            self._trust.succeeded()
            return outcomes
        except PipelineError as error:
            self._pipeline = self._rebuild(error)
            if len(batch) == 1 or self._pipeline is None:
                return [(chunk, error) for chunk in batch]
        middle = len(batch) // 2
        return self.decode(batch[:middle]) + self.decode(batch[middle:])

    def _rebuild(self, error: PipelineError) -> Pipeline[C] | None:
        """The next pipeline; None where DALI is given up."""
        self._trust.failed(error)
        if self._trust.lost:
            return None
        try:
            return self._build()
        except GridClipError as cause:
            self._trust.lose(cause)
            return None


class PipelineThreads(Generic[C]):
    """Pipelines side by side, each in a thread of its own, so that one decodes while another hands over its batch.

    At most `num_pipelines` decoded batches wait to be collected, so memory stays bounded: 2 x num_pipelines batches of
    limits.decoded_bytes at the frames' own size, plus their super images.

    Args:
        build: makes a pipeline; called in the threads.
        num_pipelines: threads.
        limits: of a batch, and of what waits.

    Attributes:
        wake: can be read when something has been decoded; emptied by `collect`.
    """

    def __init__(self, build: Callable[[], Pipeline[C]], *, num_pipelines: int, limits: Limits) -> None:
        self._limits = limits
        self._trust = Trust(GIVE_UP_AFTER)
        self._waiting: Waiting[C] = Waiting(limits)
        self._decoded: queue.Queue[list[tuple[C, SuperImages | PipelineError]] | BaseException] = queue.Queue(
            num_pipelines
        )
        self._given = self._collected = 0
        self._stopped = False
        self.wake, self._waker = Pipe(duplex=False)
        os.set_blocking(self._waker.fileno(), False)
        os.set_blocking(self.wake.fileno(), False)
        self._threads = [
            threading.Thread(target=self._work, args=(build,), name=f"dali-{number}", daemon=True)
            for number in range(num_pipelines)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> PipelineThreads[C]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ends the threads after their batches; one that hangs is left behind."""
        self._stopped = True
        self._waiting.close()
        for thread in self._threads:
            thread.join(END_LIMIT_S)
        self.wake.close()
        self._waker.close()

    @property
    def full(self) -> bool:
        """No more should be given before something is collected."""
        return self._waiting.full

    @property
    def room(self) -> int:
        """Chunks that may be given before it is full; none after DALI was given up."""
        return 0 if self.given_up else self._limits.waiting - len(self._waiting)

    @property
    def given_up(self) -> bool:
        """DALI failed too often: what is given comes back with an error."""
        return self._trust.lost

    @property
    def busy(self) -> bool:
        """Something that was given has not been collected."""
        return self._given > self._collected

    def give(self, chunk: C) -> None:
        """Hands over a chunk to decode."""
        self._given += 1
        self._waiting.put(chunk)

    def collect(self, *, time_limit_s: float | None = None) -> list[tuple[C, SuperImages | PipelineError]]:
        """What has been decoded: with a time limit, waits for the next batch; without, whatever is there.

        Raises:
            GridClipError: nothing was decoded in time, or a pipeline cannot be built.
        """
        outcomes: list[tuple[C, SuperImages | PipelineError]] = []
        if time_limit_s is not None:
            try:
                outcomes += self._next(time_limit_s)
            except queue.Empty:
                raise GridClipError(
                    f"DALI has decoded nothing for {time_limit_s:g} s: go on with `resume=True` and `decoder='pyav'`"
                ) from None
        self._drain_wake()
        while True:
            try:
                outcomes += self._next(0)
            except queue.Empty:
                break
        self._collected += len(outcomes)
        return outcomes

    def _next(self, time_limit_s: float) -> list[tuple[C, SuperImages | PipelineError]]:
        found = self._decoded.get(timeout=time_limit_s) if time_limit_s else self._decoded.get_nowait()
        if isinstance(found, BaseException):
            raise found
        return found

    def _drain_wake(self) -> None:
        try:
            while os.read(self.wake.fileno(), 4096):
                pass
        except BlockingIOError:
            pass

    def _work(self, build: Callable[[], Pipeline[C]]) -> None:
        try:
            pipeline = RebuiltPipeline(build, self._trust)
            while batch := self._waiting.take():
                began = time.monotonic()
                outcomes = pipeline.decode(batch)
                logger.debug("DALI: %d chunks in %.3f s", len(batch), time.monotonic() - began)
                self._hand_over(outcomes)
        except BaseException as error:  # noqa: BLE001 - raised again by collect()
            self._hand_over(error)

    def _hand_over(self, found: list[tuple[C, SuperImages | PipelineError]] | BaseException) -> None:
        while not self._stopped:
            try:
                self._decoded.put(found, timeout=0.5)
            except queue.Full:
                continue
            try:
                os.write(self._waker.fileno(), b"1")
            except (BlockingIOError, OSError):  # full of wakings already, or closed
                pass
            return
