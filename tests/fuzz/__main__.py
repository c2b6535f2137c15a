"""Minutes in, a table of what became of damaged files out; exit status 1 where there was a defect.

python -m fuzz --minutes 2 --seed 1 --json fuzz.json
python -m fuzz --replay fuzz-finds/videos-1-000123-different
"""

from __future__ import annotations

import collections
import json
import math
import os
import pathlib
import sys
import tempfile
import time

import click

from . import pool
from .contract import DEFECTS, Outcome, Verdict

# Shares of the time: what has the most code behind it, and the most to lose silently, gets the most.
SHARES = {"videos": 50, "jpegs": 12, "annotations": 8, "stores": 8, "models": 7, "checkpoints": 8, "features": 7}
KINDS = {name: f"fuzz.{name}:{name.capitalize()}" for name in SHARES}
PRINTED_DEFECTS = 5


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="The same number makes the same files.")
@click.option("--kinds", default=",".join(KINDS), show_default=True, help="Only these kinds.")
@click.option("--processes", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="Cases at once.")
@click.option("--finds", type=click.Path(path_type=pathlib.Path), default="fuzz-finds", show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=pathlib.Path), help="Write the counts to this file.")
@click.option("--replay", type=click.Path(path_type=pathlib.Path, exists=True), help="A folder of --finds.")
def main(
    minutes: float,
    seed: int,
    kinds: str,
    processes: int,
    finds: pathlib.Path,
    json_file: pathlib.Path | None,
    replay: pathlib.Path | None,
) -> None:
    """Damage files of every kind and see what the product makes of them."""
    if replay is not None:
        sys.exit(_replay(replay if replay.is_dir() else replay.parent))
    chosen = kinds.split(",")
    unknown = [name for name in chosen if name not in KINDS]
    if unknown:
        raise click.UsageError(f"--kinds {unknown[0]} is none of {', '.join(KINDS)}")
    total_share = sum(SHARES[name] for name in chosen)
    counts: dict[str, collections.Counter[str]] = {}
    details: list[dict[str, str]] = []
    for name in chosen:
        seconds = minutes * 60 * SHARES[name] / total_share
        counts[name] = _fuzz(name, seconds, seed, processes, finds.absolute(), details)
    _print(counts)
    if json_file is not None:
        record = {"seed": seed, "minutes": minutes, "kinds": counts, "defects": details}
        json_file.write_text(json.dumps(record, indent=1) + "\n")
    if details:
        sys.exit(1)


def _fuzz(
    name: str, seconds: float, seed: int, processes: int, finds: pathlib.Path, details: list[dict[str, str]]
) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter({"files": 0} | {str(outcome): 0 for outcome in Outcome})
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-", ignore_cleanup_errors=True) as folder:
        job = pool.Job(KINDS[name], pathlib.Path(folder, "seeds"), pathlib.Path(folder, "work"), finds, seed)
        job.seeds.mkdir()
        job.work.mkdir()
        pool.make_kind(job.kind).write_seeds(job.seeds)
        clock = _Clock(seconds)
        for case in pool.run(job, processes=processes, goes_on=clock.goes_on):
            clock.start()
            counts["files"] += 1
            counts[case.verdict.outcome] += 1
            if case.verdict.outcome in DEFECTS:
                sentence = _sentence(case.verdict)
                details.append(
                    {
                        "kind": name,
                        "outcome": str(case.verdict.outcome),
                        "what": case.what,
                        "detail": sentence,
                        "kept": str(case.kept),
                    }
                )
                if counts[case.verdict.outcome] <= PRINTED_DEFECTS:
                    print(f"{name}: {case.verdict.outcome}: {case.what}: {sentence} [{case.kept}]", flush=True)
    return counts


class _Clock:
    """The time of a kind: it runs from the first verdict on, when everything is imported."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = math.inf

    def start(self) -> None:
        """The first call starts it."""
        self._end = min(self._end, time.monotonic() + self._seconds)

    def goes_on(self, number: int) -> bool:
        """There is time for another case."""
        return time.monotonic() < self._end


def _sentence(verdict: Verdict) -> str:
    """The line of a verdict's detail that says most: the last one of a traceback, the first one of anything else."""
    lines = verdict.detail.strip().splitlines() or [""]
    return lines[-1 if verdict.outcome is Outcome.TRACEBACK else 0][:300]


def _print(counts: dict[str, collections.Counter[str]]) -> None:
    columns = ["files", *map(str, Outcome)]
    print(f"{'':12}" + "".join(f"{column:>11}" for column in columns))
    for name, counted in counts.items():
        print(f"{name:12}" + "".join(f"{counted[column]:>11,}" for column in columns))
    total = sum(counts.values(), collections.Counter())
    print(f"{'all':12}" + "".join(f"{total[column]:>11,}" for column in columns))


def _replay(folder: pathlib.Path) -> int:
    """Judges a kept input again, after those that came before it, in this process: a debugger can watch."""
    kind = pool.make_kind(json.loads((folder / pool.CASE_FILE).read_text())["kind"])
    earlier = (
        sorted((folder / "earlier").iterdir(), key=lambda path: int(path.name)) if (folder / "earlier").is_dir() else []
    )
    verdict = Verdict(Outcome.ACCEPTED)
    with tempfile.TemporaryDirectory(prefix="fuzz-replay-") as scratch:
        for case in [*earlier, folder]:
            verdict = pool.judged(kind, case, pathlib.Path(scratch, "case"))
            print(f"{case}: {verdict.outcome}\n{verdict.detail}", flush=True)
    return int(verdict.outcome in DEFECTS)


if __name__ == "__main__":
    main()
