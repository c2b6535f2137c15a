"""A job and what a Slurm cluster is asked for in, a script out: an array of shards, then the step that closes it all.

`bash SCRIPT` submits both. A task that is killed, preempted or out of time is queued again and goes on with `--resume`,
for what it has stored is stored. The closing step waits until all tasks have ended, well or not.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence

from ... import ArgumentError

STOP_S = 120  # before its time is up a task is told, so that it can store what is finished and queue itself again
MAX_REQUEUES = 100  # of one task by itself: one that gets nowhere must end some day

_SCRIPT = """\
#!/bin/bash
# Written by gridclip slurm-script. Submit with: bash THIS_FILE
# How far it is: {status}
{directives}
set -u
GRIDCLIP="${{GRIDCLIP:-}}"
if [ -z "$GRIDCLIP" ]; then GRIDCLIP={program}; fi

embed_shard() {{
    local shard="$SLURM_ARRAY_TASK_ID" again="" job="" status
    trap 'kill -TERM $job' TERM               # preempted or cancelled: store what is finished
    trap 'again=yes; kill -TERM $job' USR1    # the time is nearly up
    "$GRIDCLIP" embed-videos {job} --store {task_store} \\
        --resume --num-shards {tasks} --shard-id "$shard" &
    job=$!
    while :; do
        wait "$job"
        status=$?
        kill -0 "$job" 2>/dev/null || break
    done
    if [ -n "$again" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {max_requeues} ]; then
        scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$shard"
        exit 0
    fi
    exit "$status"
}}

close_store() {{
{closing}
}}

if [ "${{1:-}}" = close ]; then
    close_store
elif [ -n "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
    embed_shard
else
    id=$(sbatch --parsable "$0") || exit 1
    id="${{id%%;*}}"
    sbatch --parsable --dependency="afterany:$id" --array=0-0 {closing_options}"$0" close >/dev/null || exit 1
    echo "submitted array job $id of {tasks} tasks, and the step that closes the store after it"
fi
"""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What each task of the array is given.

    Attributes:
        tasks: how many there are.
        gpus_per_task, cpus_per_task: of one task, which is one process on one machine.
        time: Slurm's format, "12:00:00"; None: the partition's.
        partition, account: None: the user's.
        options: further options of sbatch, as they are: "--mem=64G".
    """

    tasks: int
    gpus_per_task: int = 1
    cpus_per_task: int = 8
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    options: Sequence[str] = ()

    def directives(self) -> str:
        """The #SBATCH lines.

        Raises:
            ArgumentError: an option would end its line.
        """
        options = [
            "--job-name=gridclip",
            f"--array=0-{self.tasks - 1}",
            "--nodes=1",
            "--ntasks=1",
            f"--cpus-per-task={self.cpus_per_task}",
            *([f"--gres=gpu:{self.gpus_per_task}"] if self.gpus_per_task else []),
            *(f"--{name}={value}" for name in ("time", "partition", "account") if (value := getattr(self, name))),
            "--requeue",
            "--open-mode=append",
            f"--signal=B:USR1@{STOP_S}",
            "--output=gridclip-%A_%a.log",
            *self.options,
        ]
        for option in options:
            if not option.startswith("-") or "\n" in option:
                raise ArgumentError(f"`sbatch_options` {option!r} is no option of sbatch, such as --mem=64G")
        return "\n".join(f"#SBATCH {option}" for option in options)


def write_script(
    model: str,
    video_dir: str,
    store: pathlib.Path,
    cluster: Cluster,
    *,
    own_stores: bool = False,
    options: Sequence[str] = (),
) -> str:
    """The script.

    Args:
        model, video_dir: as for embed-videos; paths become absolute, so that it does not matter where it is submitted.
        store: where all embeddings are in the end.
        own_stores: each shard fills a store of its own in `<store>.shards`, which the closing step merges: for file
            systems on which several machines cannot lock a file.
        options: further ones of embed-videos, as they are: "--fps", "1".

    Raises:
        ArgumentError: an option is one that the script itself gives.
    """
    own = {"--store", "--model", "--video-dir", "--resume", "--overwrite", "--num-shards", "--shard-id", "--num-gpus"}
    taken = own & {option.split("=")[0].replace("_", "-") for option in options}
    if taken:
        raise ArgumentError(
            f"{', '.join(sorted(taken))} cannot be among the options of embed-videos: the script sets it"
        )
    target = shlex.quote(str(store.absolute()))
    workers = [] if "--num-workers" in options else ["--num-workers", str(cluster.cpus_per_task)]
    job = ["--model", _absolute(model), "--video-dir", _absolute(video_dir), "--num-gpus", str(cluster.gpus_per_task)]
    task_store = f'{target}.shards/"$shard"' if own_stores else target
    merge = f'"$GRIDCLIP" merge --store {target}'
    closing = f"    {merge} {target}.shards/*/ --compact" if own_stores else f"    {merge} --compact"
    return _SCRIPT.format(
        status=f"gridclip status --store {target}" + (".shards/NUMBER" if own_stores else ""),
        directives=cluster.directives(),
        program=shlex.quote(_program()),
        job=shlex.join([*job, *workers, *options]),
        task_store=task_store,
        tasks=cluster.tasks,
        max_requeues=MAX_REQUEUES,
        closing=f'{closing} && "$GRIDCLIP" status --store {target}',
        closing_options="--gres=none " if cluster.gpus_per_task else "",
    )


def _absolute(path: str) -> str:
    """A path that is there from wherever the script runs; names of models and addresses stay."""
    return os.path.abspath(path) if "://" not in path and os.path.exists(path) else path


def _program() -> str:
    """The command of this installation."""
    program = pathlib.Path(sys.executable).with_name("gridclip")
    return str(program) if program.exists() else "gridclip"
