"""Videos and several models with a store each in, every store filled out: from frames that are decoded once.

Each model has a lane of its own: its batches, its store, its failures, notices and progress. A video goes to the lanes
whose store lacks it. What breaks a lane (a graph, the GPU's memory, a full disk) ends this lane alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType

from ... import ArgumentError, GridClipError
from ...dali_pipes.contract import Event, Source, SuperImages, VideoFile
from ...dali_pipes.layout import SuperImageSize
from ...dali_pipes.sampling import Sampling
from ..encoding.encoder import Encoder
from ..listing.listing import Listing
from ..store.store import Store
from .bookkeeping import Bookkeeping
from .ledger import SUPER_IMAGES_ALONE, Encoding, PassKinds, batch_size_for, encoding, kept_books, pass_kinds
from .metrics import shown_by_store
from .progress import Interrupted, JobSummary

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Target:
    """A model and the store that its embeddings fill.

    Attributes:
        encoder: the model.
        path: of the store.
        sampling: which frames, the same for all models of a job, and how large its super images are.
        cells: whether it makes vectors of cells, too.
    """

    encoder: Encoder
    path: pathlib.Path
    sampling: Sampling
    cells: bool = False

    @property
    def size(self) -> SuperImageSize:
        """How large the model takes super images."""
        return SuperImageSize(self.sampling.super_img_size, self.encoder.info.image_size)

    @property
    def passes(self) -> PassKinds:
        """See `ledger.pass_kinds`, as are the errors."""
        return pass_kinds(self.sampling, self.cells)


def check_counts(
    models: int, stores: Sequence[pathlib.Path], samplings: int | None = None, *, num_gpus: int, cluster: str | None
) -> None:
    """Raises ArgumentError where so many models, stores and samplings cannot be paired, or not run together there."""
    if models != len(stores) or not models:
        raise ArgumentError(
            f"`model` is given {models} times and `store` {len(stores)} times: give a store for each model, in the "
            "same order"
        )
    paths = [store.resolve() for store in stores]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise ArgumentError(
            f"`store` {twice} is given for several models, expected one for each: it holds one's vectors"
        )
    if samplings is not None and samplings not in (1, models):
        raise ArgumentError(
            f"`sampling` is given {samplings} times for {models} models: give one for all, or one for each"
        )
    if models > 1 and cluster is not None:
        raise ArgumentError(f"`cluster={cluster!r}` takes one model in a job, not {models}: give each a job of its own")
    if models > 1 and num_gpus > 1:
        raise ArgumentError(
            f"`num_gpus={num_gpus}` is for one model, {models} of them share one GPU in a job: run a shard on each GPU "
            "(`num_shards`), or give each model a job of its own"
        )


def pair_up(
    encoders: Sequence[Encoder], paths: Sequence[pathlib.Path], samplings: Sequence[Sampling] | None
) -> list[Target]:
    """The targets of models and as many stores; samplings are one for all or one for each, by default of its size."""
    if samplings is None:
        samplings = [Sampling(super_img_size=encoder.info.image_size) for encoder in encoders]
    elif len(samplings) == 1:
        samplings = [samplings[0]] * len(encoders)
    return [Target(*each) for each in zip(encoders, paths, samplings, strict=True)]


def check(targets: Sequence[Target]) -> None:
    """Raises ArgumentError where some models cannot be at work in one job."""
    frames = [
        dataclasses.replace(target.sampling, super_img_size=targets[0].sampling.super_img_size) for target in targets
    ]
    different = next((sampling for sampling in frames if sampling != frames[0]), None)
    if different is not None:
        raise ArgumentError(
            f"`sampling`: {different} and {frames[0]} take other frames, and are decoded once: only `super_img_size` "
            "may differ between models"
        )
    devices = {target.encoder.device_id for target in targets}
    if len(devices) > 1:
        names = ", ".join(sorted("the CPU" if device is None else f"GPU {device}" for device in devices))
        raise ArgumentError(f"the models are loaded on {names}, and frames are decoded for one device: load all on one")
    for target in targets:
        if target.encoder.info.has_cells is False and target.passes != SUPER_IMAGES_ALONE:
            raise ArgumentError(
                f"the model {target.encoder.info.name} cannot embed cells: leave out `cells`, or "
                "embed with this model in a job of its own"
            )


@dataclasses.dataclass(frozen=True)
class OpenTarget:
    """A target whose store is open.

    Attributes:
        target: see there.
        listing: its videos of this job, and what is lost of them already.
        store: at target.path; model and sampling are claimed.
        stored: ids of the videos that are in it already.
    """

    target: Target
    listing: Listing
    store: Store
    stored: set[str]


def embed(
    targets: Sequence[OpenTarget],
    make_source: Callable[[Sequence[SuperImageSize]], Source],
    *,
    batch_size: int | None,
    num_shards: int = 1,
    shard_id: int = 0,
    books: Bookkeeping,
) -> JobSummary:
    """Embeds with every model what its store lacks, each video decoded once.

    Args:
        targets: at least one.
        make_source: makes a source of super images in some sizes, see `SuperImages.in_size`; only those are asked for
            that a model with something to do takes.
        batch_size, num_shards, shard_id: see `ledger.embed`, for each model.
        books: how those of each store are kept.

    Returns:
        What was done for each store, see JobSummary.stores; one whose model or store failed says why in `stopped`.

    Raises:
        GridClipError: the source cannot go on. What was appended before stays, in every store.
        Interrupted: Ctrl-C. Finished videos are in the stores.
    """
    with contextlib.ExitStack() as stack:
        lanes = [stack.enter_context(_Lane(each, books, num_shards, shard_id)) for each in targets]
        stack.enter_context(shown_by_store({lane.name: lane.job.tally.counts for lane in lanes}, books.metrics_address))
        try:
            for lane in lanes:
                lane.load(batch_size)
            _decode_for(lanes, make_source)
            return JobSummary.of_stores([lane.finish() for lane in lanes])
        except KeyboardInterrupt as error:
            raise Interrupted(JobSummary.of_stores([lane.interrupt() for lane in lanes])) from error


def _decode_for(lanes: Sequence[_Lane], make_source: Callable[[Sequence[SuperImageSize]], Source]) -> None:
    """Gives every lane its part of what one source yields, until its end or that of the last lane."""
    sizes = tuple(dict.fromkeys(lane.target.size for lane in lanes if lane.at_work))
    if not sizes:
        return
    for lane in lanes:
        lane.number = sizes.index(lane.target.size) if lane.at_work else 0
    videos = {video.video_id: video for lane in lanes if lane.at_work for video in lane.job.todo}
    with contextlib.closing(make_source(sizes)(_hand_out(videos.values(), lanes))) as events:
        for video, event in events:
            for lane in lanes:
                lane.take(video, event)
            if not any(lane.at_work for lane in lanes):
                return


def _hand_out(videos: Iterable[VideoFile], lanes: Sequence[_Lane]) -> Iterator[VideoFile]:
    """The videos that some lane wants, one by one, as they are taken in work."""
    for video in videos:
        takers = [lane for lane in lanes if lane.wants(video)]
        for lane in takers:
            lane.job.tally.add_handed_out(video)
        if takers:
            yield video


class _Lane:
    """One model at work, and the books of its store. Errors end it, and are told in its summary.

    Attributes:
        target: the model and its store.
        name: of the store, in messages.
        job: the open books.
        number: of its size among those in which super images come.
    """

    def __init__(self, opened: OpenTarget, books: Bookkeeping, num_shards: int, shard_id: int) -> None:
        self.target = opened.target
        self.name = str(opened.target.path)
        self.number = 0
        self._model: Encoding | None = None  # while it is at work
        self._summary: JobSummary | None = None  # after its end
        self._open = contextlib.ExitStack()
        own_books = dataclasses.replace(books, metrics_address=None, name=self.name)
        self.job = self._open.enter_context(
            kept_books(
                opened.listing,
                opened.store,
                opened.stored,
                num_shards=num_shards,
                shard_id=shard_id,
                books=own_books,
            )
        )
        self._todo = {video.video_id for video in self.job.todo}

    def __enter__(self) -> _Lane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What ends the whole job ends the lane, too: the books are closed, with the error."""
        self._open.__exit__(kind, error, trace)

    @property
    def at_work(self) -> bool:
        """It has something to do, and its model goes on."""
        return self._model is not None

    def wants(self, video: VideoFile) -> bool:
        """The store lacks the video, and can get it."""
        return self.at_work and video.video_id in self._todo

    def load(self, batch_size: int | None) -> None:
        """Takes the memory of the model, where there is something to do."""
        if not self._todo:
            return
        size = batch_size_for(self.target.encoder.provider, batch_size)
        with self._alone():
            self._model = self._open.enter_context(
                encoding(self.target.encoder, size, self.job.sink, self.target.passes)
            )

    def take(self, video: VideoFile, event: Event) -> None:
        """One event of a video, which may be for others."""
        if self._model is None or not self.wants(video):
            return
        with self._alone():
            self._model.take(video, event.in_size(self.number) if isinstance(event, SuperImages) else event)

    def finish(self) -> JobSummary:
        """All videos have come: stores the rest, and closes the books."""
        with self._alone():
            if self._model is not None:
                self._model.finish()
            if self._summary is None:
                self._end(self.job.finish())
        return self._told()

    def interrupt(self) -> JobSummary:
        """Ctrl-C: stores what is finished, and closes the books."""
        with self._alone():
            try:
                with self._open:
                    raise KeyboardInterrupt
            except Interrupted as error:
                self._end(error.summary)
            except KeyboardInterrupt:  # the books were closed before
                pass
        return self._told()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """What goes wrong inside ends this lane and no other."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever breaks one model must not harm the stores of the others
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        known = isinstance(error, GridClipError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        logger.warning("%s: stopped: %s", self.name, reason, exc_info=None if known else error)
        with contextlib.suppress(Exception), self._open:  # what is finished is stored, if that can be done
            raise GridClipError(reason) from error
        self._end(dataclasses.replace(self.job.tally.summary(), stopped=reason))

    def _end(self, summary: JobSummary) -> None:
        self._model, self._summary = None, summary
        self._open.close()

    def _told(self) -> JobSummary:
        return self._summary or self.job.tally.summary()
