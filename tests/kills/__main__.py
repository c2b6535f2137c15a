"""A number of runs in, a table of what killed commands left after --resume out; exit status 1 where it was not right.

python -m kills --runs 100 --seed 1 --json kills.json
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import shutil
import tempfile

import click

from . import scenarios
from .disturbance import Ending, Kill, disturbed, undisturbed
from .scenarios import Scenario
from .states import State, compare

MAX_KILLS = 3  # of one job, each after the last one was taken up again
STDERR_TAIL = 1500


@dataclasses.dataclass(frozen=True)
class Reference:
    """The undisturbed run of a scenario: what it leaves, and how long its work takes."""

    scenario: Scenario
    state: State
    work_s: float


@dataclasses.dataclass(frozen=True)
class Run:
    """One disturbed run.

    Attributes:
        kills: how it was killed, and whether in time, in order.
        problems: by kind; empty where the end state is that of the undisturbed run.
    """

    number: int
    scenario: str
    kills: list[str]
    problems: dict[str, list[str]]


@click.command()
@click.option("--runs", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the kinds of kills and their moments.")
@click.option("--processes", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="Runs at once.")
@click.option("--only", default="", help="Only scenarios with this in their name.")
@click.option("--keep", type=click.Path(path_type=pathlib.Path), help="Copy outputs that are not right into here.")
@click.option("--json", "json_file", type=click.Path(path_type=pathlib.Path), help="Write the runs to this file.")
def main(
    runs: int, seed: int, processes: int, only: str, keep: pathlib.Path | None, json_file: pathlib.Path | None
) -> None:
    """Kill the long commands at random moments, take them up again, and compare with an undisturbed run."""
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as name:
        work = pathlib.Path(name)
        references = [reference for reference in make_references(work) if only in reference.scenario.name]
        if not references:
            raise click.UsageError(f"--only {only}: no scenario has this in its name")
        with concurrent.futures.ThreadPoolExecutor(processes) as pool:
            found = []
            for run in pool.map(lambda number: one_run(references, number, seed, work, keep), range(runs)):
                found.append(run)
                for kind, values in run.problems.items():
                    print(
                        f"{run.scenario}, run {run.number} ({'; '.join(run.kills)}): {kind}: "
                        f"{', '.join(values[:4])[-STDERR_TAIL:]}",
                        flush=True,
                    )
    counts = count(found)
    _print(counts)
    if json_file is not None:
        record = {"seed": seed, "scenarios": counts, "runs": [dataclasses.asdict(run) for run in found]}
        json_file.write_text(json.dumps(record, indent=1) + "\n")
    if any(run.problems for run in found):
        raise SystemExit(1)


def make_references(work: pathlib.Path) -> list[Reference]:
    """Writes the inputs and runs every scenario undisturbed."""
    inputs = work / "inputs"
    inputs.mkdir()
    references = [_reference(scenario, work / "undisturbed") for scenario in scenarios.write_inputs(inputs)]
    image_folders = _output(work / "undisturbed", references[0].scenario)
    more = scenarios.image_scenarios(inputs, image_folders)
    return references + [_reference(scenario, work / "undisturbed") for scenario in more]


def _output(folder: pathlib.Path, scenario: Scenario) -> pathlib.Path:
    return folder / scenario.name.replace(" ", "-").replace(",", "")


def _reference(scenario: Scenario, folder: pathlib.Path) -> Reference:
    out = _output(folder, scenario)
    ended = undisturbed(scenario.command(out, resume=False), out / scenario.begun)
    if ended.status != 0:
        raise SystemExit(f"{scenario.name} fails undisturbed (status {ended.status}): {ended.stderr[-STDERR_TAIL:]}")
    return Reference(scenario, scenario.state(out), ended.seconds - ended.begun_s)


def one_run(references: list[Reference], number: int, seed: int, work: pathlib.Path, keep: pathlib.Path | None) -> Run:
    """Kills one job once or several times, takes it up to its end, and compares."""
    rng = random.Random(f"{seed}/{number}")
    reference = references[number % len(references)]
    scenario = reference.scenario
    out = work / f"run-{number:05}"
    kinds = [kill for kill in Kill if scenario.has_workers or kill not in (Kill.WORKER, Kill.BOTH)]
    # Every kind comes with every scenario when there are enough runs; the further kills of a job are random.
    first = kinds[number // len(references) % len(kinds)]
    kills = [first, *rng.choices(kinds, k=rng.randrange(MAX_KILLS))]
    done: list[str] = []
    problems: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
    for position, kill in enumerate(kills):
        command = scenario.command(out, resume=position > 0)
        ended = disturbed(command, out / scenario.begun, kill, reference.work_s, rng)
        done.append(str(kill) if ended.in_time else f"{kill}, too late")
        _note(ended, kill, problems)
    ended = undisturbed(scenario.command(out, resume=True), out / scenario.begun)
    _note(ended, None, problems)
    if ended.status != 0:
        problems["not resumed"].append(f"status {ended.status}: {ended.stderr[-STDERR_TAIL:]}")
    problems |= compare(reference.state, scenario.state(out)).found()
    if problems and keep is not None:
        shutil.copytree(out, keep / out.name, dirs_exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    return Run(number, scenario.name, done, dict(problems))


def _note(ended: Ending, kill: Kill | None, problems: dict[str, list[str]]) -> None:
    if ended.status is None:
        problems["hung"].append(str(kill))
    if ended.orphans:
        problems["orphans"].append(f"{ended.orphans} processes went on after {kill}")
    if "Traceback" in ended.stderr:
        problems["tracebacks"].append(f"{kill}: {ended.stderr[-STDERR_TAIL:]}")


def count(runs: list[Run]) -> dict[str, dict[str, int]]:
    """Per scenario: runs, kills that came in time, identical ends, and videos (or captions) lost, doubled, ..."""
    counts: dict[str, dict[str, int]] = {}
    for run in runs:
        counted = counts.setdefault(run.scenario, collections.Counter())
        counted["runs"] += 1
        counted["kills"] += sum("too late" not in kill for kill in run.kills)
        counted["identical"] += not run.problems
        for kind, values in run.problems.items():
            counted[kind] += len(values)
    return counts


COLUMNS = (
    "runs",
    "kills",
    "identical",
    "lost",
    "doubled",
    "different",
    "unasked",
    "failures",
    "leftovers",
    "not resumed",
    "hung",
    "orphans",
    "tracebacks",
)


def _print(counts: dict[str, dict[str, int]]) -> None:
    total: collections.Counter[str] = collections.Counter()
    for counted in counts.values():
        total.update(counted)
    print(f"{'':26}" + "".join(f"{column:>12}" for column in COLUMNS))
    for name, counted in [*counts.items(), ("all", total)]:
        print(f"{name:26}" + "".join(f"{counted.get(column, 0):>12,}" for column in COLUMNS))


if __name__ == "__main__":
    main()
