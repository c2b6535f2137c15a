"""One long video in, seconds and cores with 1, 2, ... workers out; and what 16 and 64 cores would take, simulated.

    python -m gridclip.benchmarks.long_video                              a generated clip, repeated to 20 minutes
    python -m gridclip.benchmarks.long_video --video FILE --minutes 15    a real one, its packets repeated

The simulation takes the measured time of every place where a video may be cut (between two super images) of the real
files in --videos, and the measured time until a worker that was given a part has its first frame.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import pickle
import resource
import time
from collections.abc import Sequence

import av
import numpy as np
from gridclip.dali_pipes.contract import Finished, SuperImages, VideoFile
from gridclip.dali_pipes.cpu import dividing, tasks
from gridclip.dali_pipes.cpu.reading import open_reading
from gridclip.dali_pipes.packets.pruning import plan_segments
from gridclip.dali_pipes.processes import pool
from gridclip.dali_pipes.sampling import Sampling

from . import corpus, measure

PACKAGES = ("av", "numpy")
CLIP = corpus.Clip("libx264", 480, gop_s=5, b_frames=3)
SAMPLING = Sampling()
CORES = (16, 64)
FILM_S = 3 * 3600
CLIPS = 2000  # beside the film in the simulated job
LEAST_S = 1.0  # of decoding: what dividing.LEAST_COST stands for


def repeated(source: pathlib.Path, target: pathlib.Path, minutes: float) -> pathlib.Path:
    """A video of so many minutes: the packets of `source`, again and again."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name("unfinished-" + target.name)
    with av.open(str(source)) as old:
        packets = [
            (packet, packet.pts, packet.dts, packet.duration or 0)
            for packet in old.demux(video=0)
            if packet.size and packet.pts is not None and packet.dts is not None
        ]
        time_base = old.streams.video[0].time_base
        assert time_base is not None
        template = old.streams.video[0]
        with av.open(str(unfinished), "w") as new:
            stream = new.add_stream_from_template(template, opaque=True)
            step = max(pts + duration for _, pts, _, duration in packets) - min(pts for _, pts, _, _ in packets)
            for offset in range(0, int(minutes * 60 / time_base), step):
                for packet, pts, dts, duration in packets:
                    copy = av.Packet(bytes(packet))
                    copy.pts, copy.dts, copy.time_base = pts + offset, dts + offset, time_base
                    copy.duration, copy.is_keyframe, copy.stream = duration, packet.is_keyframe, stream
                    new.mux_one(copy)
    unfinished.rename(target)
    return target


def timed(path: pathlib.Path, num_workers: int, made: list[SuperImages]) -> dict[str, float]:
    """Makes all super images of a video: seconds, processor seconds of the workers, parts."""
    made.clear()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    source = pool.run(
        [VideoFile("film", path)],
        tasks.embedding_tasks(SAMPLING, "pyav", SAMPLING.super_img_size),
        num_workers=num_workers,
        size=tasks.count_super_images,
    )
    events = [event for _, event in source]
    seconds = time.perf_counter() - began
    if not isinstance(events[-1], Finished):
        raise RuntimeError(f"{path}: {events[-1]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    made += sorted((event for event in events if isinstance(event, SuperImages)), key=lambda chunk: chunk.first)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 3), "worker_cpu_s": round(cpu_s, 3)}


def same(one: Sequence[SuperImages], other: Sequence[SuperImages]) -> bool:
    """Whether two ways to make a video gave the same super images, bit by bit."""
    return np.array_equal(
        np.concatenate([chunk.on_cpu() for chunk in one]), np.concatenate([chunk.on_cpu() for chunk in other])
    )


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a video takes.

    Attributes:
        scan_s: opening and scanning it.
        places_s: float64 [P], decoding from each place where it may be cut to the next.
        known_bytes: what is sent to a worker that is given a part.
        join_s: from then to where it can begin to decode: unpacking it, opening the file, planning.
    """

    scan_s: float
    places_s: np.ndarray
    known_bytes: int
    join_s: float


def costs(path: pathlib.Path) -> Costs:
    """Decodes a video place by place, in this process."""
    began = time.perf_counter()
    with open_reading(path, SAMPLING, skim=True) as reading:
        scan_s = time.perf_counter() - began
        block = SAMPLING.block
        places = plan_segments(reading.table, reading.wanted, cells=block, segment_frames=block)
        feed = reading.feed(places)
        places_s = []
        for place in places:
            began = time.perf_counter()
            for _ in reading.decode(place, feed, "pyav"):
                pass
            places_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        known = pickle.dumps(reading.scanned, pickle.HIGHEST_PROTOCOL)
        with open_reading(path, SAMPLING, skim=True, scanned=pickle.loads(known)) as part:
            plan_segments(part.table, part.wanted, cells=block, first=places[-1].first)
            join_s = time.perf_counter() - began
    return Costs(scan_s, np.array(places_s), len(known), join_s)


class _Core:
    """One simulated core and the places of a video that it has to decode, from one moment on."""

    def __init__(self) -> None:
        self.begun_s = 0.0
        self.ends_s = np.zeros(1)  # of each place, from begun_s on

    @property
    def known_s(self) -> float:
        """When the video was scanned, or the part was unpacked: before that, nothing of it can be given away."""
        return self.begun_s + float(self.ends_s[0])

    @property
    def free_s(self) -> float:
        """When it will be done."""
        return self.begun_s + float(self.ends_s[-1])

    def take(self, now_s: float, delay_s: float, places_s: np.ndarray) -> None:
        """Begins with places, which it can decode after a delay."""
        self.begun_s = now_s
        self.ends_s = np.cumsum(np.append(delay_s, places_s))

    def give(self, now_s: float, least_s: float) -> np.ndarray | None:
        """Cuts off half of what it has left and returns it, float64 [P]; None where one half would be too short."""
        ahead = self.ends_s >= now_s - self.begun_s
        kept_s, cut_off_s = self.begun_s + self.ends_s - now_s, self.ends_s[-1] - self.ends_s
        shorter_s = np.where(ahead, np.minimum(kept_s, cut_off_s), -1.0)
        at = int(shorter_s.argmax())
        if shorter_s[at] < least_s:
            return None
        given = np.diff(self.ends_s[at:])
        self.ends_s = self.ends_s[: at + 1]
        return given


def simulate(videos: Sequence[Costs], cores: int, *, least_s: float, join_s: float) -> dict[str, float]:
    """A job in order of the list; a core without a video gets half of what the core with the most left has left.

    All processes are up: the third of a second in which one starts is not counted.

    Args:
        least_s: no part is shorter; infinity: whole videos.
        join_s: what beginning with a part takes.

    Returns:
        seconds; tail_s, from when the first core has nothing more to do to the end; efficiency, work over cores x time.
    """
    crew = [_Core() for _ in range(cores)]
    running = list(crew)
    waiting = list(reversed(videos))
    first_idle_s: float | None = None
    while running:
        core = min(running, key=lambda each: each.free_s)
        now_s = core.free_s
        if waiting:
            video = waiting.pop()
            core.take(now_s, video.scan_s, video.places_s)
            continue
        busiest = max(running, key=lambda each: each.free_s)
        asked_s = max(now_s, busiest.known_s)
        given = busiest.give(asked_s, least_s)
        if given is not None:
            core.take(asked_s, join_s, given)
        else:
            first_idle_s = now_s if first_idle_s is None else first_idle_s
            running.remove(core)
    seconds = max(core.free_s for core in crew)
    work_s = sum(video.scan_s + float(video.places_s.sum()) for video in videos)
    return {
        "seconds": round(seconds, 2),
        "tail_s": round(seconds - (first_idle_s or 0.0), 2),
        "efficiency": round(float(work_s / cores / seconds), 3),
    }


def film(measured: Costs, duration_s: float) -> Costs:
    """A film of FILM_S: a real file's costs, again and again."""
    times = round(FILM_S / duration_s)
    return dataclasses.replace(measured, scan_s=measured.scan_s * times, places_s=np.tile(measured.places_s, times))


def simulated(folder: pathlib.Path, join_s: float) -> dict[str, object]:
    """Jobs of real files' costs on many cores, whole and divided."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    durations = {path.name: _duration_s(path) for path in paths}
    measured = {path.name: costs(path) for path in paths}
    longest = max(durations, key=lambda name: float(measured[name].places_s.sum()))
    one_film = film(measured[longest], durations[longest])
    clips = [measured[paths[number % len(paths)].name] for number in range(CLIPS)]
    jobs = {
        f"one film of 3 h ({longest}, repeated)": [one_film],
        f"{CLIPS} clips, then the film": [*clips, one_film],
        f"the film, then {CLIPS} clips": [one_film, *clips],
        f"{CLIPS} clips": clips,
        "100 videos of 2 to 30 min": [
            dataclasses.replace(one_film, scan_s=one_film.scan_s * share, places_s=one_film.places_s[:count])
            for share in np.random.default_rng(0).uniform(2 / 180, 30 / 180, 100)
            for count in [max(1, int(len(one_film.places_s) * share))]
        ],
    }
    found: dict[str, object] = {}
    for name, job in jobs.items():
        found[name] = {
            str(cores): {
                "whole": simulate(job, cores, least_s=float("inf"), join_s=join_s),
                "divided": simulate(job, cores, least_s=LEAST_S, join_s=join_s),
            }
            for cores in CORES
        }
        print(name, found[name], flush=True)
    return found


def _duration_s(path: pathlib.Path) -> float:
    with open_reading(path, SAMPLING, skim=True) as reading:
        return reading.summary.duration_s


def run(path: pathlib.Path, *, repetitions: int, num_workers: int) -> dict[str, object]:
    """Seconds with 1 to num_workers workers, and with as many that may not divide the video."""
    reference: list[SuperImages] = []
    made: list[SuperImages] = []
    timed(path, 1, reference)  # fills the caches
    rounds: dict[int, list[dict[str, float]]] = {workers: [] for workers in range(1, num_workers + 1)}
    for _ in range(repetitions):
        for workers, found in rounds.items():
            found.append(timed(path, workers, made))
            if not same(reference, made):
                raise RuntimeError(f"{workers} workers make other super images than one")
            print(workers, found[-1], flush=True)
    medians = {
        str(workers): {name: float(np.median([each[name] for each in found])) for name in found[0]}
        for workers, found in rounds.items()
    }
    return {"by_workers": medians, "bit_equal": True, "rounds": {str(key): value for key, value in rounds.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=pathlib.Path, help="the packets of this one are repeated")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--videos", type=pathlib.Path, help="a folder of real files: their costs are simulated")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--num-workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"))
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "long_video.json")
    args = parser.parse_args()
    clip = args.video or corpus.make(CLIP, args.work_dir / "videos")
    path = repeated(clip, args.work_dir / f"long-{args.minutes:g}min-{clip.name}", args.minutes)
    whole = costs(path)
    results: dict[str, object] = {
        "video": {
            "name": path.name,
            "bytes": path.stat().st_size,
            "scan_s": round(whole.scan_s, 3),
            "decode_s": round(float(whole.places_s.sum()), 3),
            "known_bytes": whole.known_bytes,
            "join_s": round(whole.join_s, 4),
        },
        **run(path, repetitions=args.repetitions, num_workers=args.num_workers),
    }
    if args.videos:
        results["simulated"] = simulated(args.videos, whole.join_s)
    settings = {"fps": SAMPLING.fps, "repetitions": args.repetitions, "least_cost": dividing.LEAST_COST}
    measure.write(args.json, packages=PACKAGES, settings=settings, results=results)


if __name__ == "__main__":
    main()
