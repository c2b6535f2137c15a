"""A listing of videos and a source of their super images in, whole videos of embeddings in a store out."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import assert_never

from ... import GridClipError
from ...dali_pipes.contract import Event, Failure, Finished, Notice, Restarted, Source, SuperImages, VideoFile
from ...dali_pipes.sampling import Sampling
from ..choices import CPU_BATCH_SIZE, GPU_BATCH_SIZE
from ..encoding.encoder import Encoder
from ..encoding.passes import Passes
from ..listing.listing import Listing
from ..store.store import Store, VideoEmbedding
from .batches import Batches, Sink
from .bookkeeping import ORDINARY, Bookkeeping
from .failures import FailureLog, failures_path
from .heartbeat import Heartbeat
from .metrics import shown
from .notices import NoticeLog, notices_path
from .progress import Interrupted, JobSummary, NodeCounts, Tally
from .retrying import settling

# A killed job loses what it has not appended, but an append costs a file, and more milliseconds the more files there
# are: fast jobs append once a second, or when so many rows wait that memory would grow (48 MiB of 768-wide vectors).
APPEND_VIDEOS = 100
APPEND_SECONDS = 20.0
APPEND_PAUSE_S = 1.0
APPEND_ROWS = 32_768
EVERY_S = 1.0  # of the model's work: how often a job is told of it
# The passes that a job makes, by the grid size whose cells they give; None: those that give super images alone.
PassKinds = tuple[int | None, ...]
SUPER_IMAGES_ALONE: PassKinds = (None,)


def pass_kinds(sampling: Sampling, cells: bool) -> PassKinds:
    """The passes that a job makes: with cells a kind for each grid size, as its super images have other cells.

    The only cell of a super image at grid size 1 is the super image itself, which costs no further token.

    Raises:
        GridClipError: cells of super images that overlap: a frame would have several vectors.
    """
    if not cells:
        return SUPER_IMAGES_ALONE
    if sampling.overlap:
        raise GridClipError(
            f"`stride={sampling.stride}` with `cells=True`: super images overlap, and a frame that lies in several has "
            "a cell in each: leave one of the two out"
        )
    kinds = (None if grid_size == 1 else grid_size for grid_size in sampling.grid_sizes)
    return tuple(dict.fromkeys(kinds))


def open_store(
    path: pathlib.Path, encoder: Encoder, videos: Sequence[VideoFile], *, resume: bool, overwrite: bool
) -> tuple[Store, set[str]]:
    """Opens the store of a job and decides what is left to do.

    Returns:
        The store, and the ids of the videos that are in it already.

    Raises:
        GridClipError: it was made by another model, or it holds some of the videos and neither resume nor overwrite is
            given.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other")
    store = Store.open(path, create=True)
    if overwrite:
        if store.model is None or store.model["fingerprint"] == encoder.info.fingerprint:
            store.clear_super_images()
        else:
            store.clear()  # queries of another model are of no use beside the new videos
    store.claim_model(encoder.info.to_json())
    stored = store.finished_videos()
    again = sum(video.video_id in stored for video in videos)
    if again and not resume:
        raise GridClipError(
            f"the store {store.path} already has {again} of the {len(videos)} videos: continue with `resume=True`, or "
            "embed them again with `overwrite=True`"
        )
    return store, stored


def embed(
    listing: Listing,
    source: Source,
    encoder: Encoder,
    store: Store,
    stored: set[str],
    *,
    batch_size: int | None,
    passes: PassKinds = SUPER_IMAGES_ALONE,
    num_shards: int = 1,
    shard_id: int = 0,
    books: Bookkeeping = ORDINARY,
) -> JobSummary:
    """Embeds the videos of a listing that are not stored: super images are made while this process encodes.

    Args:
        listing: what to embed, and what is lost already.
        source: yields super images of the model's size.
        encoder, store: where embeddings come from and where they go.
        stored: videos to leave out.
        batch_size: super images per pass, >= 1; default by the encoder's provider.
        passes: see `pass_kinds`.
        num_shards, shard_id: name the files of failures and notices; the listing is this shard's already.
        books: how they are kept.

    Raises:
        GridClipError: the store cannot be written, or the source cannot go on. What was appended before stays.
        Interrupted: Ctrl-C. Finished videos are in the store.
    """
    size = batch_size_for(encoder.provider, batch_size)

    def work(todo: list[VideoFile], sink: StoreSink) -> None:
        embed_all(source(sink.hand_out(todo)), encoder, size, sink, passes)

    return run_job(listing, store, stored, work, num_shards=num_shards, shard_id=shard_id, books=books)


def batch_size_for(provider: str, batch_size: int | None) -> int:
    """The super images per pass: what was asked for, or the provider's default."""
    if batch_size is None:
        return CPU_BATCH_SIZE if provider == "cpu" else GPU_BATCH_SIZE
    if batch_size < 1:
        raise ValueError(f"batch_size ({batch_size}) must be >= 1")
    return batch_size


def run_job(
    listing: Listing,
    store: Store,
    stored: set[str],
    work: Callable[[list[VideoFile], StoreSink], None],
    *,
    num_shards: int = 1,
    shard_id: int = 0,
    books: Bookkeeping = ORDINARY,
) -> JobSummary:
    """Keeps the books of an embedding job around its work.

    Args:
        work: gives everything about the videos to the sink; see `embed` for the other arguments and the errors.
    """
    with kept_books(listing, store, stored, num_shards=num_shards, shard_id=shard_id, books=books) as job:
        work(job.todo, job.sink)
        return job.finish()


@dataclasses.dataclass(frozen=True)
class Job:
    """An embedding job whose books are open.

    Attributes:
        todo: the videos that are left to do.
        sink: where everything about them goes.
        tally: what was done so far.
        store: where embeddings go.
        alone: no other shard writes to the store.
    """

    todo: list[VideoFile]
    sink: StoreSink
    tally: Tally
    store: Store
    alone: bool

    def finish(self) -> JobSummary:
        """Stores what is not stored yet; every video has been finished or lost."""
        self.sink.append()
        if self.alone:
            self.store.compact()
        return self.tally.summary()


@contextlib.contextmanager
def kept_books(
    listing: Listing,
    store: Store,
    stored: set[str],
    *,
    num_shards: int = 1,
    shard_id: int = 0,
    books: Bookkeeping = ORDINARY,
) -> Iterator[Job]:
    """The books of an embedding job: what is left to do, failures, notices, progress, whole videos to the store.

    What breaks off the work finds what is finished stored.

    Args:
        listing, store, stored, num_shards, shard_id, books: see `embed`, as are the errors.
    """
    todo = [video for video in listing.videos if video.video_id not in stored]
    finished_before = len(listing.videos) - len(todo)
    notices = NoticeLog(notices_path(store.path, num_shards, shard_id), keeps=stored.__contains__)
    with (
        FailureLog(failures_path(store.path, num_shards, shard_id), earlier_stand=books.retries) as failures,
        Tally(
            "embedded", "videos", len(todo), failures, notices, finished_before=finished_before, name=books.name
        ) as tally,
        Heartbeat(store.path, num_shards, shard_id, tally.counts),
        shown(tally.counts, books.metrics_address),
        settling(failures, lambda: store.finished_videos().__contains__) if books.retries else contextlib.nullcontext(),
    ):
        for failure in listing.failures:
            failures.add(failure)
        for notice in listing.notices:
            if notice.video_id not in stored:
                notices.add(notice)
        sink = StoreSink(store, tally)
        try:
            yield Job(todo, sink, tally, store, alone=num_shards == 1)
        except KeyboardInterrupt as error:
            sink.append()
            notices.drop({video.video_id for video in todo} - store.finished_videos())
            raise Interrupted(tally.summary()) from error
        except GridClipError:
            with contextlib.suppress(GridClipError):  # a full disk takes nothing more
                sink.append()
            raise


def embed_all(
    events: Generator[tuple[VideoFile, Event], None, None],
    encoder: Encoder,
    batch_size: int,
    sink: Sink,
    kinds: PassKinds = SUPER_IMAGES_ALONE,
) -> None:
    """Encodes what a source yields, until its end."""
    with contextlib.closing(events), encoding(encoder, batch_size, sink, kinds) as at_work:
        for video, event in events:
            at_work.take(video, event)
        at_work.finish()


@contextlib.contextmanager
def encoding(
    encoder: Encoder, batch_size: int, sink: Sink, kinds: PassKinds = SUPER_IMAGES_ALONE
) -> Iterator[Encoding]:
    """A model at work on what a source yields."""
    with contextlib.ExitStack() as stack:
        passes = {
            cells: stack.enter_context(contextlib.closing(encoder.image_passes(batch_size, cells))) for cells in kinds
        }
        batches = Batches(passes, sink)
        try:
            yield Encoding(batches, _EncoderTime(list(passes.values()), sink), sink)
        except KeyboardInterrupt:
            batches.collect_ready()
            raise


class Encoding:
    """The events of a source in, whole videos out to a sink.

    Args:
        batches: give whole videos to the sink.
        encoder_time: tells the sink of the model's work.
        sink: is told of everything else.
    """

    def __init__(self, batches: Batches, encoder_time: _EncoderTime, sink: Sink) -> None:
        self._batches = batches
        self._encoder_time = encoder_time
        self._sink = sink

    def take(self, video: VideoFile, event: Event) -> None:
        """One event of a video."""
        self._encoder_time.report(EVERY_S)
        match event:
            case SuperImages():
                self._batches.add(event)
            case Notice():
                self._sink.add_notice(event)
            case Restarted():
                self._batches.drop(video.video_id)
                self._sink.restart(video.video_id)
            case Finished():
                self._batches.finish(video.video_id)
            case Failure():
                self._batches.drop(video.video_id)
                self._sink.fail(event)
            case _:
                assert_never(event)

    def finish(self) -> None:
        """Encodes what waits for a full batch: there are no more events."""
        self._batches.flush()
        self._encoder_time.report()


class _EncoderTime:
    """Tells a sink for how long the model was at work, while it goes on."""

    def __init__(self, passes: Sequence[Passes], sink: Sink) -> None:
        self._passes = passes
        self._sink = sink
        self._reported_s = 0.0

    def report(self, at_least_s: float = 0.0) -> None:
        """Tells what is new, if it is so much."""
        busy_s = sum(each.busy_s for each in self._passes)
        if busy_s - self._reported_s >= at_least_s:
            self._sink.add_encoder_time(busy_s - self._reported_s)
            self._reported_s = busy_s


class StoreSink:
    """Appends whole videos to the store, many at a time, and counts.

    Args:
        store: where videos go.
        tally: told of super images, notices, finished videos and failures.
    """

    def __init__(self, store: Store, tally: Tally) -> None:
        self._store = store
        self._tally = tally
        self._complete: list[VideoEmbedding] = []
        self._rows = 0  # of them
        self._appended_at = time.monotonic()

    def hand_out(self, videos: Iterable[VideoFile]) -> Iterator[VideoFile]:
        """The videos one by one, counted when they are taken in work."""
        return self._tally.hand_out(videos)

    def watch_nodes(self, nodes: Callable[[], Mapping[str, NodeCounts]]) -> None:
        """See `Tally.watch_nodes`."""
        self._tally.watch_nodes(nodes)

    def add_super_images(self, super_images: int) -> None:
        """So many super images went through the model."""
        self._tally.add_super_images(super_images)
        self._append_if_due()

    def add_encoder_time(self, seconds: float) -> None:
        """The model was at work for so long."""
        self._tally.add_encoder_time(seconds)

    def add_notice(self, notice: Notice) -> None:
        """Something to know about a video, before it is finished."""
        self._tally.add_notice(notice)

    def restart(self, video_id: str) -> None:
        """The video comes again from the start: earlier notices of it are void."""
        self._tally.drop_notices(video_id)

    def finish(self, video: VideoEmbedding) -> None:
        """A whole video."""
        self._complete.append(video)
        self._rows += len(video.vectors)
        self._tally.add_done()
        self._append_if_due()

    def fail(self, failure: Failure) -> None:
        """A lost video."""
        self._tally.add_failure(failure)

    def append(self) -> None:
        """Appends the videos that wait for it."""
        complete, self._complete, self._rows = self._complete, [], 0
        self._store.append_videos(complete)
        self._appended_at = time.monotonic()

    def _append_if_due(self) -> None:
        waited_s = time.monotonic() - self._appended_at
        enough = waited_s >= APPEND_PAUSE_S or self._rows >= APPEND_ROWS
        if (len(self._complete) >= APPEND_VIDEOS and enough) or (self._complete and waited_s > APPEND_SECONDS):
            self.append()
