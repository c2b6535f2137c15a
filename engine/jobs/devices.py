"""Videos in, whole videos of embeddings in one store out, by several GPUs: a process for each, one queue for all.

A process asks for a video whenever it can take one, so a fast GPU gets more of them. It sends back whole videos; this
process alone writes to the store.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import pathlib
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Protocol, assert_never

from ... import GridClipError
from ...dali_pipes.contract import Failure, Notice, Source, VideoFile
from ...dali_pipes.processes.child import Child
from ...dali_pipes.processes.child_logs import Levels, Logged, Sender, log_to_parent
from ..encoding.encoder import Encoder
from ..encoding.providers import Provider
from ..listing.listing import Listing
from ..store.store import Store, VideoEmbedding
from .batches import Sink
from .bookkeeping import ORDINARY, Bookkeeping
from .device_messages import ComesAgain, Embedded, EncoderTime, Ended, Message, MessageSink, Stop, WantsVideo
from .ledger import SUPER_IMAGES_ALONE, PassKinds, StoreSink, batch_size_for, embed_all, run_job
from .progress import JobSummary

logger = logging.getLogger(__name__)

# A video in work when its GPU's process dies is decoded on the CPU next time; when that dies, too, it is lost.
MAX_DEATHS = 2
# In a row, of one device's processes: while they start, or with no video in work.
MAX_IDLE_DEATHS = 3


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a GPU's process needs to know.

    Attributes:
        model_dir, provider, device_id, cuda_graph: see `Encoder`.
        batch_size: super images per pass.
        source: where super images come from.
        passes: see `ledger.pass_kinds`.
    """

    model_dir: pathlib.Path
    provider: Provider
    device_id: int | None
    cuda_graph: bool
    batch_size: int
    source: Source
    passes: PassKinds = SUPER_IMAGES_ALONE


class MakeSource(Protocol):
    """Makes the source of one device; None is the CPU."""

    def __call__(self, *, device_id: int | None, num_workers: int) -> Source: ...


class MakeCpuSource(Protocol):
    """Makes a source that uses no GPU."""

    def __call__(self, *, num_workers: int) -> Source: ...


def embed(
    listing: Listing,
    make_source: MakeSource,
    make_fallback: MakeCpuSource,
    encoder: Encoder,
    store: Store,
    stored: set[str],
    *,
    device_ids: Sequence[int | None],
    num_workers: int,
    batch_size: int | None,
    passes: PassKinds = SUPER_IMAGES_ALONE,
    num_shards: int = 1,
    shard_id: int = 0,
    books: Bookkeeping = ORDINARY,
) -> JobSummary:
    """Embeds on several devices; see `ledger.embed` for what is not told here.

    Args:
        make_source: makes a source from the keywords device_id and num_workers.
        make_fallback: the same on the CPU, from num_workers, for videos that were in work when a process died.
        encoder: tells the model and the provider; each process loads its own.
        device_ids: the GPUs, a process for each; None is the CPU.
        num_workers: decoding processes, shared out among the devices.

    Raises:
        GridClipError: also where a process cannot start, or dies with no video in work MAX_IDLE_DEATHS times in a row.
    """
    size = batch_size_for(encoder.provider, batch_size)
    each = max(1, num_workers // len(device_ids))

    def setups(device_id: int | None) -> tuple[Setup, Setup]:
        setup = Setup(
            encoder.model_dir,
            encoder.provider if device_id is not None else "cpu",
            device_id,
            encoder.cuda_graph,
            size,
            make_source(device_id=device_id, num_workers=each),
            passes,
        )
        return setup, dataclasses.replace(setup, source=make_fallback(num_workers=each))

    def work(todo: list[VideoFile], sink: StoreSink) -> None:
        _Devices([setups(device_id) for device_id in device_ids], sink.hand_out(todo), sink).run()

    return run_job(listing, store, stored, work, num_shards=num_shards, shard_id=shard_id, books=books)


@dataclasses.dataclass
class _Device:
    """The parent's side of one GPU.

    Attributes:
        setup, careful_setup: for fresh videos, and for those that were in work when a process died.
        careful: which of them its process has.
        in_work: videos that its process has asked for and not given back.
        ready: the process has loaded its model.
        idle_deaths: of its processes, in a row, with no video in work.
    """

    name: str
    setup: Setup
    careful_setup: Setup
    child: Child
    careful: bool = False
    ready: bool = False
    idle_deaths: int = 0
    in_work: dict[str, VideoFile] = dataclasses.field(default_factory=dict)


class _Devices:
    """All GPUs of a job, and the queue that they share."""

    def __init__(self, setups: Sequence[tuple[Setup, Setup]], videos: Iterator[VideoFile], sink: Sink) -> None:
        self._fresh = videos
        self._next = next(videos, None)
        self._suspects: collections.deque[VideoFile] = collections.deque()
        self._deaths: collections.Counter[str] = collections.Counter()
        self._sink = sink
        self._count = len(setups)
        self._devices: list[_Device] = []
        for number, (setup, careful_setup) in enumerate(setups):
            if self._next is not None:
                name = f"the process of {'the CPU' if setup.device_id is None else 'GPU'} {number}"
                self._devices.append(_Device(name, setup, careful_setup, self._start(setup)))

    def run(self) -> None:
        """Returns when every video is finished or lost."""
        try:
            while self._devices:
                ready = wait([device.child.connection for device in self._devices])
                for device in [device for device in self._devices if device.child.connection in ready]:
                    self._receive(device)
        finally:
            for device in self._devices:
                device.child.kill()

    @staticmethod
    def _start(setup: Setup) -> Child:
        child = Child(serve, {})
        child.send((setup, Levels.here()))
        return child

    def _receive(self, device: _Device) -> None:
        try:
            message: Message = device.child.connection.recv()
        except (EOFError, OSError):
            self._handle_death(device)
            return
        match message:
            case WantsVideo():
                device.ready = True
                device.child.send(self._hand_out(device))
            case Embedded(super_images):
                self._sink.add_super_images(super_images)
            case EncoderTime(seconds):
                self._sink.add_encoder_time(seconds / self._count)
            case Logged():
                message.emit()
            case Notice():
                self._sink.add_notice(message)
            case ComesAgain(video_id):
                self._sink.restart(video_id)
            case VideoEmbedding():
                device.in_work.pop(message.video_id, None)
                device.idle_deaths = 0
                self._sink.finish(message)
            case Failure():
                device.in_work.pop(message.video_id, None)
                self._sink.fail(message)
            case Stop(reason):
                raise GridClipError(f"{device.name}: {reason}")
            case Ended():
                self._go_on(device)
            case _:
                assert_never(message)

    def _hand_out(self, device: _Device) -> VideoFile | None:
        if device.careful:
            video = self._suspects.popleft() if self._suspects else None
        else:
            video, self._next = self._next, next(self._fresh, None)
        if video is not None:
            device.in_work[video.video_id] = video
        return video

    def _handle_death(self, device: _Device) -> None:
        cause = device.child.cause_of_death(device.name)
        tail = device.child.log_tail()
        logger.warning("%s with %d videos in work%s", cause, len(device.in_work), f"\n{tail}" if tail else "")
        if not device.ready or not device.in_work:
            device.idle_deaths += 1
            if device.idle_deaths == MAX_IDLE_DEATHS:
                raise GridClipError(f"{cause}: {tail or 'it wrote no message'}")
        for video in device.in_work.values():
            self._deaths[video.video_id] += 1
            if self._deaths[video.video_id] < MAX_DEATHS:
                self._sink.restart(video.video_id)
                self._suspects.append(video)
            else:
                self._sink.fail(Failure(video.video_id, "decode", f"{cause} twice while it was in work"))
        device.in_work.clear()
        self._go_on(device)

    def _go_on(self, device: _Device) -> None:
        """Starts the next process of a device whose last one has ended, if there is work for it."""
        device.child.kill()
        device.ready = False
        if self._suspects:
            device.careful = True
            device.child = self._start(device.careful_setup)
        elif self._next is not None:
            device.careful = False
            device.child = self._start(device.setup)
        else:
            self._devices.remove(device)


def serve(connection_fd: int) -> None:
    """The life of a GPU's process: receives its setup, asks for videos one by one, sends their embeddings."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(connection_fd)
    setup: Setup
    setup, levels = connection.recv()
    parent = Sender(connection)
    log_to_parent(parent.send, levels)

    def videos() -> Iterator[VideoFile]:
        while True:
            parent.send(WantsVideo())
            video: VideoFile | None = connection.recv()
            if video is None:
                return
            yield video

    try:
        encoder = Encoder(
            setup.model_dir, provider=setup.provider, device_id=setup.device_id or 0, cuda_graph=setup.cuda_graph
        )
        embed_all(setup.source(videos()), encoder, setup.batch_size, MessageSink(parent.send), setup.passes)
        parent.send(Ended())
    except GridClipError as error:
        parent.send(Stop(str(error)))
    except (BrokenPipeError, EOFError):  # the parent is gone
        pass
