"""A Ray cluster of three nodes on this machine, on loopback alone, whose processes end with the test."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# What Ray does on Windows: else it takes 127.0.0.1 for the address of the network card.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
OBJECT_STORE_BYTES = 100_000_000
LOOPBACK = "127.0.0.1"
NODE = {
    "num_cpus": 1,
    "num_gpus": 0,
    "object_store_memory": OBJECT_STORE_BYTES,
    "node_ip_address": LOOPBACK,
    "include_dashboard": False,
}
# A killed node is known to be gone after a second or so, not after ten.
SYSTEM = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


@contextlib.contextmanager
def three_nodes() -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster`; its `address` is what a job is given."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-")  # a short path: sockets lie in it
    # Ray notes the head's address here whatever temp_dir is, and does not make the folder on a new machine.
    (pathlib.Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)
    cluster = Cluster()
    path = os.environ.get("PYTHONPATH", "")
    # Workers import the tests' sources, as they do everything else, from what is installed on their node.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(pathlib.Path(__file__).parent), path])
    try:
        cluster.add_node(**NODE, _system_config=SYSTEM, temp_dir=folder)
        for _ in range(2):
            add_node(cluster, wait=False)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
        os.environ["PYTHONPATH"] = path
        shutil.rmtree(folder, ignore_errors=True)


def add_node(cluster: Any, *, wait: bool = True) -> None:
    """One more node."""
    cluster.add_node(wait=wait, **NODE)


def kill_node(cluster: Any) -> None:
    """Ends the processes of a node that is not the head at once; its workers and their decoders end by themselves."""
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
