"""The address of a Ray cluster in, a connection and the places for workers on its nodes out."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from ... import GridClipError

logger = logging.getLogger(__name__)

KNOCK_LIMIT_S = 10.0


@dataclasses.dataclass(frozen=True)
class Node:
    """A node of the cluster that is alive.

    Attributes:
        node_id: Ray's; a node that comes back has another one.
        name: its address.
        cores, gpus: what it gives to Ray's workers.
    """

    node_id: str
    name: str
    cores: int
    gpus: int


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of a node that one worker takes.

    Attributes:
        cores: it decodes in so many processes, and a model on the CPU has so many threads.
        reserved: cores that Ray keeps for it; fewer where a node with GPUs has none to give.
        gpus: 0 or 1.
    """

    cores: int
    reserved: int
    gpus: int


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to the cluster at an address (`auto`: the one that runs on this machine) until the end.

    A process that is connected already stays so, whatever the address.

    Raises:
        GridClipError: Ray is not installed, or there is no such cluster.
    """
    ray: Any = _ray()
    if ray.is_initialized():
        yield ray
        return
    _knock(address)
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with _kept_off_stdout():
        try:
            ray.init(address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _nobody_answers(address, str(error).partition("\n")[0]) from error
        try:
            if in_main_thread:
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray's ends the process without a summary
            yield ray
        finally:
            ray.shutdown()


def connected_if(address: str | None) -> contextlib.AbstractContextManager[Any]:
    """`connected` where there is an address, else None."""
    return contextlib.nullcontext() if address is None else connected(address)


def nodes(ray: Any) -> list[Node]:
    """The nodes that are alive."""
    return [
        Node(
            node["NodeID"],
            node["NodeManagerAddress"],
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def shares(node: Node, *, on_gpus: bool, cores: int | None) -> list[Share]:
    """The workers that a node has room for.

    Args:
        node: the node.
        on_gpus: one for each GPU; else for each `cores` cores.
        cores: of a worker, >= 1; default: the node's, shared out among its GPUs.
    """
    if not on_gpus:
        each = cores or node.cores
        return [Share(each, each, 0)] * (node.cores // each if each else 0)
    if not node.gpus:
        return []
    each = cores or node.cores // node.gpus
    fitting = node.gpus if cores is None else min(node.gpus, node.cores // cores)
    return [Share(max(1, each), each, 1)] * fitting


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise GridClipError(
            "`cluster` needs Ray, which is not installed: it is part of the extra `ray`; pip install '.[ray]' in the "
            "clone, on every node"
        ) from error
    return ray


def _knock(address: str) -> None:
    """Raises GridClipError where nobody listens at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_LIMIT_S).close()
    except (OSError, OverflowError) as error:
        raise _nobody_answers(address, str(error)) from error


def _nobody_answers(address: str, reason: str) -> GridClipError:
    return GridClipError(
        f"`cluster={address!r}`: no Ray cluster answers there ({reason}): start one with `ray start --head`, and run "
        "this on one of its nodes"
    )


@contextlib.contextmanager
def _kept_off_stdout() -> Iterator[None]:
    """Makes debug records of what Ray prints when a process or a node dies: standard output is the job's.

    Ray has no setting for it; `log_to_driver` is about what the workers print.
    """
    from ray._private import worker as module

    worker: Any = module
    before = getattr(worker, "print_to_stdstream", None)

    def log(data: dict[str, Any], **_: object) -> None:
        logger.debug("%s", "\n".join(data["lines"]))

    if before is not None:
        worker.print_to_stdstream = log
    try:
        yield
    finally:
        if before is not None:
            worker.print_to_stdstream = before
