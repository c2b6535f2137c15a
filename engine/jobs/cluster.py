"""Videos in, embeddings in one store or folders of super images out, by the machines of a Ray cluster: a worker a GPU.

It is what `devices` does with processes of one machine: a worker gets a video whenever it can take one, and sends back
whole videos; this process, the driver, alone writes to the store. That is no bottleneck: a second of one core is enough
to take in and store 1,500 videos of 50 super images (115 MB of vectors), what dozens of GPUs make. Workers that wrote
fragments of the table would save that second, but each would need to reach the store, and would leave fragments that no
commit names when it dies; what a dead worker has finished, the driver would have to find out from the disk.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, assert_never, cast

from ... import GridClipError, __version__
from ...dali_pipes.contract import Failure, Notice, VideoFile
from ...dali_pipes.processes.child_logs import Levels, Logged
from ..encoding.encoder import Encoder
from ..listing.listing import Listing
from ..store.store import Store, VideoEmbedding
from . import cluster_nodes
from .bookkeeping import ORDINARY, Bookkeeping
from .cluster_work import Embedding, Work
from .cluster_worker import Crashed, Order, Ready, Unfit, Worker, WorkerMessage
from .device_messages import ComesAgain, Embedded, EncoderTime, Ended, Stop, WantsVideo
from .devices import MAX_DEATHS, MAX_IDLE_DEATHS, MakeCpuSource, MakeSource
from .folder_messages import MadeFolder
from .ledger import SUPER_IMAGES_ALONE, PassKinds, StoreSink, batch_size_for, run_job
from .progress import JobSummary, NodeCounts

logger = logging.getLogger(__name__)

LOOK_S = 2.0  # how often the driver looks for nodes that have joined
START_WARN_S = 60.0  # without any worker: its cores may be in use by another job
JOIN_LIMIT_S = 300.0  # without any node that could hold a worker
MAX_NODE_DEATHS = 5  # of nodes, each with the same video in work

Whole = TypeVar("Whole", VideoEmbedding, MadeFolder)
Taken = TypeVar("Taken", contravariant=True)


class ClusterSink(Protocol[Taken]):
    """Where a job's results go: `batches.Sink` where they are embeddings, `FolderSink` where they are folders."""

    def watch_nodes(self, nodes: Callable[[], Mapping[str, NodeCounts]]) -> None: ...

    def add_super_images(self, super_images: int) -> None: ...

    def add_encoder_time(self, seconds: float) -> None: ...

    def add_notice(self, notice: Notice) -> None: ...

    def restart(self, video_id: str) -> None: ...

    def finish(self, video: Taken) -> None: ...

    def fail(self, failure: Failure) -> None: ...


def embed(
    listing: Listing,
    make_source: MakeSource,
    make_careful_source: MakeCpuSource,
    encoder: Encoder,
    store: Store,
    stored: set[str],
    *,
    ray: Any,
    cpus_per_worker: int | None,
    use_gpus: bool,
    batch_size: int | None,
    passes: PassKinds = SUPER_IMAGES_ALONE,
    num_shards: int = 1,
    shard_id: int = 0,
    books: Bookkeeping = ORDINARY,
) -> JobSummary:
    """Embeds on the nodes of a cluster; see `ledger.embed` for what is not told here.

    Args:
        make_source: makes a source from the keywords device_id and num_workers, on the worker's machine.
        make_careful_source: the same on the CPU, from num_workers, for videos that were in work when a worker died.
        encoder: tells the model and, unless it is the CPU, the provider; each worker loads its own.
        ray: from `cluster_nodes.connected`.
        cpus_per_worker: see `cluster_nodes.shares`.
        use_gpus: where the cluster has GPUs, workers are on these alone.

    Raises:
        GridClipError: also where no node of the cluster has room for a worker, one of them does not see the model
            folder or the videos, or all of them are gone for JOIN_LIMIT_S.
    """
    if cpus_per_worker is not None and cpus_per_worker < 1:
        raise ValueError(f"cpus_per_worker ({cpus_per_worker}) must be >= 1")
    batch_size_for(encoder.provider, batch_size)  # refuses what no worker could use

    embedding = Embedding(
        model_dir=encoder.model_dir.absolute(),
        provider="auto" if encoder.provider == "cpu" else encoder.provider,
        cuda_graph=encoder.cuda_graph,
        fingerprint=encoder.info.fingerprint,
        batch_size=batch_size,
        passes=passes,
        make_source=make_source,
        make_careful_source=make_careful_source,
    )

    def work(todo: list[VideoFile], sink: StoreSink) -> None:
        run(embedding, sink.hand_out(todo), todo, sink, ray=ray, cpus_per_worker=cpus_per_worker, use_gpus=use_gpus)

    return run_job(listing, store, stored, work, num_shards=num_shards, shard_id=shard_id, books=books)


def run(
    work: Work,
    videos: Iterator[VideoFile],
    candidates: Sequence[VideoFile],
    sink: ClusterSink[Whole],
    *,
    ray: Any,
    cpus_per_worker: int | None,
    use_gpus: bool,
) -> None:
    """Gives videos to the workers of a cluster and what becomes of them to a sink; returns when there are none left.

    Args:
        work: what workers do.
        videos: taken one by one, when a worker can take one.
        candidates: all that may come out of `videos`; every node must see the first of them that this machine sees.
        sink: where whole videos and the rest go.
        ray, cpus_per_worker, use_gpus: as in `embed`, as are the errors.
    """
    if cpus_per_worker is not None and cpus_per_worker < 1:
        raise ValueError(f"cpus_per_worker ({cpus_per_worker}) must be >= 1")
    if not candidates:
        return
    here = (each.place for each in candidates if isinstance(each.place, pathlib.Path) and each.place.exists())
    order = Order(version=__version__, work=work, present=next(here, None), levels=Levels.here())
    _Cluster(ray, order, cpus_per_worker, use_gpus, videos, sink).run()


@dataclasses.dataclass(eq=False)
class _Place:
    """The driver's side of one worker, and of those that follow it when it dies.

    Attributes:
        name: what messages call it by.
        node, share: where it is, and what it takes there.
        actor: the worker that lives.
        founding: its node was there when the job began.
        ready: the worker has loaded its model.
        working: it is in a round.
        careful: the round is for one suspect alone.
        drained: it has been told that the round has no further video.
        owed: what it gets with the next exchange.
        in_work: videos that it has got and not given back.
        embedded: super images that it has reported in this round, without those of finished videos.
        idle_deaths: in a row, while it started or had no video in work.
    """

    name: str
    node: cluster_nodes.Node
    share: cluster_nodes.Share
    actor: Any
    founding: bool
    ready: bool = False
    working: bool = False
    careful: bool = False
    drained: bool = False
    owed: list[VideoFile | None] = dataclasses.field(default_factory=list)
    in_work: dict[str, VideoFile] = dataclasses.field(default_factory=dict)
    embedded: int = 0
    idle_deaths: int = 0


class _Cluster(Generic[Whole]):
    """The workers of a job, and the queue that they share."""

    def __init__(
        self,
        ray: Any,
        order: Order,
        cores: int | None,
        use_gpus: bool,
        videos: Iterator[VideoFile],
        sink: ClusterSink[Whole],
    ) -> None:
        self._ray = ray
        self._order = order
        self._cores = cores
        self._sink: ClusterSink[Whole] = sink
        self._videos = videos
        self._next = next(videos, None)
        self._open = 0  # videos that were taken and are neither finished nor lost
        self._returned: collections.deque[VideoFile] = collections.deque()  # by nodes that are gone
        self._suspects: collections.deque[VideoFile] = collections.deque()  # each is alone with the next worker
        self._deaths: collections.Counter[str] = collections.Counter()
        self._node_deaths: collections.Counter[str] = collections.Counter()
        self._nodes: dict[str, cluster_nodes.Node] = {}  # all that were seen
        self._gone: dict[str, NodeCounts] = {}  # what became of videos and workers, by the node's id
        self._places: list[_Place] = []
        self._calls: dict[Any, _Place] = {}  # by Ray's reference of the answer
        self._last_look = -LOOK_S
        self._began = self._last_place = time.monotonic()
        self._someone_was_ready = False
        founding = cluster_nodes.nodes(ray)
        self._on_gpus = use_gpus and any(node.gpus for node in founding)
        if not any(self._shares(node) for node in founding):
            found = ", ".join(f"{node.name} {node.cores} cores" for node in founding)
            raise GridClipError(
                f"no node of the cluster has room for a worker of {cores or 1} cores (`cpus_per_worker`): {found}"
            )

    def run(self) -> None:
        """Returns when every video is finished or lost."""
        self._sink.watch_nodes(self._count_nodes)
        try:
            while self._open or self._next is not None:
                self._look_for_nodes()
                if not self._calls:
                    time.sleep(LOOK_S)
                    continue
                ready, _ = self._ray.wait(list(self._calls), timeout=LOOK_S)
                for call in ready:
                    self._receive(self._calls.pop(call), call)
        finally:
            for place in self._places:
                self._ray.kill(place.actor)

    def _count_nodes(self) -> dict[str, NodeCounts]:
        """By name, of all nodes that were seen; another thread may ask."""
        places = list(self._places)
        found = {}
        for node in list(self._nodes.values()):
            own = [place for place in places if place.node.node_id == node.node_id]
            so_far = self._gone.get(node.node_id, NodeCounts())
            found[f"{node.name}-{node.node_id[:8]}"] = dataclasses.replace(
                so_far, workers=len(own), in_work=sum(len(place.in_work) for place in own)
            )
        return found

    def _add_to_node(self, node: cluster_nodes.Node, **more: int) -> None:
        so_far = self._gone.get(node.node_id, NodeCounts())
        summed = {name: getattr(so_far, name) + count for name, count in more.items()}
        self._gone[node.node_id] = dataclasses.replace(so_far, **summed)

    def _shares(self, node: cluster_nodes.Node) -> list[cluster_nodes.Share]:
        return cluster_nodes.shares(node, on_gpus=self._on_gpus, cores=self._cores)

    def _look_for_nodes(self) -> None:
        """Starts workers on nodes that have joined, forgets idle ones of nodes that are gone."""
        now = time.monotonic()
        if now - self._last_look < LOOK_S:
            return
        self._last_look = now
        alive = {node.node_id: node for node in cluster_nodes.nodes(self._ray)}
        founding = not self._nodes
        for node in alive.values():
            if node.node_id not in self._nodes:
                self._nodes[node.node_id] = node
                for number, share in enumerate(self._shares(node)):
                    name = f"worker {number} of the node {node.name}"
                    place = _Place(name, node, share, None, founding)
                    self._places.append(place)
                    self._start(place)
        for place in list(self._places):
            if not place.working and place.ready and place.node.node_id not in alive:
                self._places.remove(place)
        self._worry(now)

    def _worry(self, now: float) -> None:
        if self._places:
            self._last_place = now
        elif now - self._last_place > JOIN_LIMIT_S:
            raise GridClipError(
                f"the cluster has had no node for a worker for {JOIN_LIMIT_S:g} s, and there are videos left: go on "
                "with `resume=True` when there are some"
            )
        if not self._someone_was_ready and now - self._began > START_WARN_S:
            self._someone_was_ready = True
            logger.warning(
                "no worker has started in %g s: does another job use the cluster's cores (see `ray status`)?",
                START_WARN_S,
            )

    def _start(self, place: _Place) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        place.ready = place.working = False
        place.owed = []
        place.actor = (
            self._ray.remote(Worker)
            .options(
                num_cpus=place.share.reserved,
                num_gpus=place.share.gpus,
                scheduling_strategy=NodeAffinitySchedulingStrategy(place.node.node_id, soft=False),
            )
            .remote(self._order, place.share.cores, bool(place.share.gpus))
        )
        self._calls[place.actor.load.remote()] = place

    def _begin(self, place: _Place) -> None:
        """Gives a worker its next round, if there is work; else it waits for what others may leave."""
        if self._suspects or self._has_fresh:
            place.working, place.drained, place.careful = True, False, bool(self._suspects)
            place.actor.begin.remote(place.careful)
            self._exchange(place)

    def _exchange(self, place: _Place) -> None:
        owed, place.owed = place.owed, []
        self._calls[place.actor.exchange.remote(owed)] = place

    def _receive(self, place: _Place, call: Any) -> None:
        try:
            messages: list[WorkerMessage] = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._lose(place, error)
            return
        for message in messages:
            self._handle(place, message)
        if place in self._places and place not in self._calls.values():
            if place.working:
                self._exchange(place)
            else:
                self._begin(place)

    def _handle(self, place: _Place, message: WorkerMessage) -> None:
        match message:
            case WantsVideo():
                self._hand_out(place)
            case Embedded(super_images):
                place.embedded += super_images
                self._sink.add_super_images(super_images)
            case EncoderTime(seconds):
                self._sink.add_encoder_time(seconds / len(self._places))
            case Logged():
                message.emit()
            case Notice():
                self._sink.add_notice(message)
            case ComesAgain(video_id):
                self._sink.restart(video_id)
            case VideoEmbedding() | MadeFolder():
                place.embedded -= _super_images(message)
                place.idle_deaths = 0
                if self._close(place, message.video_id):
                    self._add_to_node(place.node, done=1, super_images=_super_images(message))
                    self._sink.finish(cast(Whole, message))
            case Failure():
                if self._close(place, message.video_id):
                    self._add_to_node(place.node, failed=1)
                    self._sink.fail(message)
            case Ended():
                place.working = False
                place.embedded = 0
                for video_id in list(place.in_work):
                    self._handle(place, Failure(video_id, "decode", "its worker ended without a word about it"))
            case Ready():
                place.ready = self._someone_was_ready = True
            case Unfit(reason):
                self._dismiss(place, reason)
            case Crashed(details):
                self._lose(place, details)
            case Stop(reason):
                raise GridClipError(f"{place.name}: {reason}")
            case _:
                assert_never(message)

    def _hand_out(self, place: _Place) -> None:
        if place.drained:
            return
        video = self._take(place)
        if video is not None:
            place.in_work[video.video_id] = video
            place.owed.append(video)
        if place.careful or not self._has_fresh:
            place.owed.append(None)
            place.drained = True

    @property
    def _has_fresh(self) -> bool:
        return bool(self._returned) or self._next is not None

    def _take(self, place: _Place) -> VideoFile | None:
        if place.careful:
            return self._suspects.popleft() if self._suspects else None
        if self._returned:
            return self._returned.popleft()
        video, self._next = self._next, next(self._videos, None)
        self._open += video is not None
        return video

    def _close(self, place: _Place, video_id: str) -> bool:
        """The worker is done with a video; whether it had it."""
        had = place.in_work.pop(video_id, None) is not None
        self._open -= had
        return had

    def _dismiss(self, place: _Place, reason: str) -> None:
        """The job ends where a node cannot take part in it; one that has joined later is left out."""
        if place.founding:
            raise GridClipError(f"the node {place.node.name} {reason}")
        logger.warning("the node %s is left out: it %s", place.node.name, reason)
        self._remove(place)

    def _remove(self, place: _Place) -> None:
        self._ray.kill(place.actor)
        self._places.remove(place)

    def _lose(self, place: _Place, cause: Exception | str) -> None:
        """A worker has died: its videos come again, elsewhere or in the one that follows it."""
        node_lives = place.node.node_id in {node.node_id for node in cluster_nodes.nodes(self._ray)}
        # Nobody answers, and nobody knows yet that the node is gone.
        own_death = node_lives and not isinstance(cause, self._ray.exceptions.ActorUnavailableError)
        said = cause if isinstance(cause, str) else str(cause).strip().rpartition("\n")[2]  # Ray's last line says why
        logger.warning(
            "%s %s with %d videos in work\n%s",
            place.name,
            "died" if own_death else "is gone with its node",
            len(place.in_work),
            said,
        )
        self._ray.kill(place.actor)
        self._add_to_node(place.node, deaths=1)
        self._sink.add_super_images(-place.embedded)
        idle = not place.ready or not place.in_work
        alone = len(place.in_work) == 1
        for video in place.in_work.values():
            self._sink.restart(video.video_id)
            if own_death:
                self._suspect(video, alone, place.node)
            else:
                self._give_back(video, place.node)
        place.in_work, place.embedded = {}, 0
        place.idle_deaths += idle
        if place.idle_deaths >= MAX_IDLE_DEATHS:
            self._places.remove(place)
            if not self._places:
                raise GridClipError(f"{place.name} died {MAX_IDLE_DEATHS} times without a video in work: {said}")
        elif node_lives:
            self._start(place)
        else:
            self._places.remove(place)
        for other in self._places:
            if other.ready and not other.working and other not in self._calls.values():
                self._begin(other)

    def _suspect(self, video: VideoFile, alone: bool, node: cluster_nodes.Node) -> None:
        """A worker died of itself with the video in work: it comes again alone, and is lost where it was so twice."""
        self._deaths[video.video_id] += alone  # of several in work nobody knows which it was
        if self._deaths[video.video_id] < MAX_DEATHS:
            self._suspects.append(video)
        else:
            self._give_up(video, node, "a worker died twice while it alone was in work")

    def _give_back(self, video: VideoFile, node: cluster_nodes.Node) -> None:
        """A node died with the video in work, through no fault of it: it comes again as if nothing had been."""
        self._node_deaths[video.video_id] += 1
        if self._node_deaths[video.video_id] == MAX_NODE_DEATHS:
            self._give_up(video, node, f"{MAX_NODE_DEATHS} nodes of the cluster died while it was in work")
        elif video.video_id in self._deaths:
            self._suspects.append(video)
        else:
            self._returned.append(video)

    def _give_up(self, video: VideoFile, node: cluster_nodes.Node, reason: str) -> None:
        self._open -= 1
        self._add_to_node(node, failed=1)
        self._sink.fail(Failure(video.video_id, "decode", reason))


def _super_images(video: VideoEmbedding | MadeFolder) -> int:
    """The super images of a video, which may have cells, too."""
    if isinstance(video, MadeFolder):
        return video.super_images
    if not video.views:
        return len(video.vectors)
    return sum(count for view, count in video.views if view.level == "super")
